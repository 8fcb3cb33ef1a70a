"""A stand-in for Hugging Face Papers: search, the daily papers, and papers as Markdown."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.services.corpus import Corpus, Entry
from tests.services.hub_listed import HUB_HEADERS, sent_by
from tests.services.listed import Call, like, listed, one_of, whole
from tests.services.standin import StandIn

_OPENAPI = "the Hub's OpenAPI description (huggingface.co/.well-known/openapi.json), read 2026-11-28"
SEARCH = Call(
    source=f"{_OPENAPI}; names as HfApi.list_papers sends them",
    parameters={name: {"q": like(r".{1,250}"), "limit": whole(1, 120)}[name] for name in sent_by("list_papers")},
    required=frozenset(("q",)),
    headers=HUB_HEADERS,
)
_DAILY = {
    "p": whole(), "limit": whole(1, 100), "sort": one_of("publishedAt", "trending"), "date": like(r"\d{4}-\d\d-\d\d"),
    "week": like(r"\d{4}-W\d\d"), "month": like(r"\d{4}-\d\d"), "submitter": like(r"\S+"),
}  # fmt: skip
DAILY = Call(
    source=f"{_OPENAPI}; names as HfApi.list_daily_papers sends them",
    parameters={name: _DAILY[name] for name in sent_by("list_daily_papers")},
    headers=HUB_HEADERS,
)
BARE = Call(source=_OPENAPI, parameters={}, headers=HUB_HEADERS)


class HuggingFacePapers(StandIn):
    """Serves a `Corpus`. ``markdown``: arXiv id to the Markdown of a paper; ``details``: to what it adds to one."""

    def __init__(self, corpus: Corpus, *, latency: float = 0.0) -> None:
        self.corpus = corpus
        self.markdown: dict[str, str] = {}
        self.details: dict[str, dict[str, Any]] = {}
        super().__init__(
            [
                Route("/api/papers/search", listed(self._search, SEARCH)),
                Route("/api/daily_papers", listed(self._daily, DAILY)),
                Route("/api/papers/{name}", listed(self._detail, BARE)),
                Route("/papers/{name}.md", listed(self._markdown, BARE)),
            ],
            latency=latency,
        )

    async def _search(self, request: Request) -> Response:
        words, limit = request.query_params["q"], int(request.query_params.get("limit", 20))
        # A semantic search: any word will do, those with most words first.
        wanted = {word for word in words.lower().replace("-", " ").split() if len(word) > 3}
        scored = [(len(wanted & _words(entry)), entry) for entry in self.corpus.entries]
        hits = [entry for score, entry in sorted(scored, key=lambda pair: (-pair[0], pair[1].number)) if score]
        return JSONResponse([{"paper": _record(entry)} for entry in hits[:limit]])

    async def _daily(self, request: Request) -> Response:
        page, limit = int(request.query_params.get("p", 0)), int(request.query_params.get("limit", 50))
        entries = self.corpus.entries[page * limit : (page + 1) * limit]
        return JSONResponse([{"paper": _record(entry), "numComments": 0} for entry in entries])

    async def _detail(self, request: Request) -> Response:
        name = request.path_params["name"]
        entry = self.corpus.named(f"arxiv:{name}")
        if entry is None:
            return JSONResponse({"error": "Paper not found"}, status_code=404)
        return JSONResponse({**_record(entry), **self.details.get(name, {})})

    async def _markdown(self, request: Request) -> Response:
        text = self.markdown.get(request.path_params["name"])
        if text is None:
            return JSONResponse({"error": "Paper not found"}, status_code=404)
        return PlainTextResponse(text, media_type="text/markdown")


def _words(entry: Entry) -> set[str]:
    return set(f"{entry.title} {entry.abstract}".lower().replace("-", " ").replace(":", " ").split())


def _record(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.arxiv,
        "title": entry.title,
        "summary": entry.abstract,
        "publishedAt": f"{entry.published}T00:00:00.000Z",
        "authors": [{"name": name, "hidden": False} for name in entry.authors],
        "upvotes": entry.number,
    }
