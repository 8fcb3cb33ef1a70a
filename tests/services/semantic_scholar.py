"""A stand-in for the Graph and Recommendations APIs of Semantic Scholar: their shapes, limits and refusals.

Source: the published API description, https://api.semanticscholar.org/api-docs/, read 2026-11-28.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.services.corpus import Corpus, Entry
from tests.services.listed import Call, Rule, like, listed, one_of, some_of, text, whole
from tests.services.standin import StandIn

_BASE = {
    "paperId", "corpusId", "externalIds", "title", "year", "publicationDate", "authors", "citationCount", "venue",
    "url", "influentialCitationCount", "abstract", "openAccessPdf",
}  # fmt: skip
_EDGE = {"contexts", "intents", "isInfluential"}
_SNIPPET = {"snippet.text", "snippet.section", "snippet.snippetKind"}
_SWAGGER = "Academic Graph and Recommendations API, api.semanticscholar.org/api-docs, read 2026-11-28"
_KEY = frozenset(("x-api-key",))
_YEARS = like(r"\d{4}|\d{4}-|-\d{4}|\d{4}-\d{4}")
_FILTERS: dict[str, Rule] = {"year": _YEARS, "minCitationCount": whole(), "fieldsOfStudy": text, "venue": text}


def _within(most: int, *, below: bool, default: int) -> Callable[[Mapping[str, str]], str]:
    def check(asked: Mapping[str, str]) -> str:
        end = int(asked.get("offset", 0)) + int(asked.get("limit", default))
        return f"offset + limit must be {'<' if below else '<='} {most}" if end > most - below else ""

    return check


SEARCH = Call(
    source=f"{_SWAGGER}, GET /paper/search",
    parameters={
        "query": like(r"[^-‐-―\"+|*~]+"), "fields": some_of(*_BASE), "offset": whole(), "limit": whole(1, 100),
        **_FILTERS,
    },
    required=frozenset(("query",)),
    headers=_KEY,
    together=(_within(1000, below=False, default=100),),
)  # fmt: skip
BULK = Call(
    source=f"{_SWAGGER}, GET /paper/search/bulk",
    parameters={
        "query": text,
        "fields": some_of(*_BASE - {"openAccessPdf"}),
        "token": text,
        "sort": like(r"(paperId|publicationDate|citationCount)(:(asc|desc))?"),
        **_FILTERS,
    },
    required=frozenset(("query",)),
    headers=_KEY,
)
MATCH = Call(
    source=f"{_SWAGGER}, GET /paper/search/match",
    parameters={"query": text, "fields": some_of(*_BASE), **_FILTERS},
    required=frozenset(("query",)),
    headers=_KEY,
)
BATCH = Call(source=f"{_SWAGGER}, POST /paper/batch", parameters={"fields": some_of(*_BASE)}, headers=_KEY)
SNIPPETS = Call(
    source=f"{_SWAGGER}, GET /snippet/search",
    parameters={
        "query": text, "fields": some_of(*_SNIPPET), "limit": whole(1, 1000),
        "paperIds": lambda value: value.count(",") < 100, **_FILTERS,
    },
    required=frozenset(("query",)),
    headers=_KEY,
)  # fmt: skip
PAPER = Call(source=f"{_SWAGGER}, GET /paper/{{paper_id}}", parameters={"fields": some_of(*_BASE)}, headers=_KEY)
EDGES = Call(
    source=f"{_SWAGGER}, GET /paper/{{paper_id}}/citations and /references",
    parameters={"fields": some_of(*_BASE | _EDGE), "offset": whole(), "limit": whole(1, 1000)},
    headers=_KEY,
    together=(_within(10_000, below=True, default=100),),
)
RECOMMENDATIONS = Call(
    source=f"{_SWAGGER}, GET /papers/forpaper/{{paper_id}}",
    parameters={"fields": some_of(*_BASE), "from": one_of("recent", "all-cs"), "limit": whole(1, 500)},
    headers=_KEY,
)


class SemanticScholar(StandIn):
    """Serves a `Corpus`.

    Attributes:
        titles_only: numbers of papers that references give without an id (``paperId`` null).
        merged: old paperId to the number of the paper that it became.
        shifting: if set, a new first hit appears before each page of a search.
        altered: fields of a record to answer otherwise, by number.
        citers: who cites a paper, by its number, where that is not what the corpus says.
        elided: numbers of papers whose references are withheld by the publisher (an empty list).
    """

    def __init__(self, corpus: Corpus, *, latency: float = 0.0) -> None:
        self.corpus = corpus
        self.titles_only: set[int] = set()
        self.merged: dict[str, int] = {}
        self.elided: set[int] = set()
        self.altered: dict[int, dict[str, Any]] = {}
        self.citers: dict[int, list[Entry]] = {}
        self.shifting = False
        self._searches = 0
        super().__init__(
            [
                Route("/graph/v1/paper/search", listed(self._search, SEARCH)),
                Route("/graph/v1/paper/search/bulk", listed(self._bulk, BULK)),
                Route("/graph/v1/paper/search/match", listed(self._match, MATCH)),
                Route("/graph/v1/paper/batch", listed(self._batch, BATCH), methods=["POST"]),
                Route("/graph/v1/snippet/search", listed(self._snippets, SNIPPETS)),
                Route("/graph/v1/paper/{name:path}/references", listed(self._references, EDGES)),
                Route("/graph/v1/paper/{name:path}/citations", listed(self._citations, EDGES)),
                Route("/graph/v1/paper/{name:path}", listed(self._paper, PAPER)),
                Route(
                    "/recommendations/v1/papers/forpaper/{name:path}", listed(self._recommendations, RECOMMENDATIONS)
                ),
            ],
            latency=latency,
        )

    async def _search(self, request: Request) -> Response:
        query = request.query_params
        offset, limit = int(query.get("offset", 0)), int(query.get("limit", 100))
        hits = self._filtered(request, self.corpus.relevant(query["query"]))
        if not hits:
            return JSONResponse({"total": 0, "offset": 0})
        if self.shifting:
            self._searches += 1
            hits = [*self.corpus.entries[-self._searches :], *hits]
        page = hits[offset : offset + limit]
        body: dict[str, Any] = {"total": len(hits), "offset": offset, "data": [self.record(one) for one in page]}
        if offset + limit < len(hits):
            body["next"] = offset + limit
        return JSONResponse(body)

    async def _bulk(self, request: Request) -> Response:
        words = request.query_params["query"].replace("+", " ").replace('"', " ")
        hits = self._filtered(request, self.corpus.matching(words))
        if request.query_params.get("sort") == "publicationDate:desc":
            hits = sorted(hits, key=lambda one: one.published, reverse=True)
        start = int(request.query_params.get("token", "0"))
        body: dict[str, Any] = {"total": len(hits), "data": [self.record(one) for one in hits[start : start + 1000]]}
        body["token"] = str(start + 1000) if start + 1000 < len(hits) else None
        return JSONResponse(body)

    async def _match(self, request: Request) -> Response:
        """The one paper whose title is closest, by the share of words in common."""
        wanted = set(re.findall(r"\w+", request.query_params["query"].lower()))
        scored = [
            (len(wanted & (own := set(re.findall(r"\w+", one.title.lower())))) / max(1, len(wanted | own)), one)
            for one in self._filtered(request, self.corpus.entries)
        ]
        score, best = max(scored, key=lambda pair: (pair[0], -pair[1].number))
        if score < 0.5:
            return JSONResponse({"error": "Title match not found"}, status_code=404)
        return JSONResponse({"data": [{**self.record(best), "matchScore": 100 * score}]})

    async def _batch(self, request: Request) -> Response:
        body = await request.json()
        names: Sequence[str] = body.get("ids", [])
        if set(body) != {"ids"} or not 1 <= len(names) <= 500:
            return _bad("The body is {ids: [1 to 500 ids]}")
        found = [self.corpus.named(name) for name in names]
        return JSONResponse([None if one is None else self.record(one) for one in found])

    async def _snippets(self, request: Request) -> Response:
        hits = self._filtered(request, self.corpus.matching(request.query_params["query"]))
        data = [
            {
                "paper": {"corpusId": str(one.corpus_id), "title": one.title, "authors": list(one.authors)},
                "snippet": {"text": one.abstract, "section": "Introduction", "snippetKind": "body"},
                "score": 1.0 / (1 + place),
            }
            for place, one in enumerate(hits[: int(request.query_params.get("limit", 10))])
        ]
        return JSONResponse({"data": data, "retrievalVersion": "1"})

    async def _paper(self, request: Request) -> Response:
        entry = self._named(request)
        return _missing(request) if entry is None else JSONResponse(self.record(entry))

    async def _references(self, request: Request) -> Response:
        entry = self._named(request)
        if entry is None:
            return _missing(request)
        cited = [] if entry.number in self.elided else [self.corpus.entries[number] for number in entry.references]
        return self._edges(request, cited, "citedPaper")

    async def _citations(self, request: Request) -> Response:
        entry = self._named(request)
        if entry is None:
            return _missing(request)
        return self._edges(request, self.citers.get(entry.number, self.corpus.citing(entry.number)), "citingPaper")

    async def _recommendations(self, request: Request) -> Response:
        entry = self._named(request)
        if entry is None:
            return _missing(request)
        near = [one for one in self.corpus.entries if one.number % 8 == entry.number % 8 and one != entry]
        limit = int(request.query_params.get("limit", 100))
        return JSONResponse({"recommendedPapers": [self.record(one) for one in near[:limit]]})

    def _edges(self, request: Request, far: Sequence[Entry], end: str) -> Response:
        offset, limit = int(request.query_params.get("offset", 0)), int(request.query_params.get("limit", 100))
        data = [
            {
                "contexts": [f"As shown by study {one.number}.", "A second sentence.", "A third sentence."],
                "intents": ["methodology"] if one.number % 2 else ["background"],
                "isInfluential": one.number % 5 == 0,
                end: self.record(one, bare=one.number in self.titles_only),
            }
            for one in far[offset : offset + limit]
        ]
        body: dict[str, Any] = {"offset": offset, "data": data}
        if offset + limit < len(far):
            body["next"] = offset + limit
        return JSONResponse(body)

    def record(self, entry: Entry, *, bare: bool = False) -> dict[str, Any]:
        """A paper as the API gives it; ``bare``: known by title only, every id null."""
        external = {"ArXiv": entry.arxiv, "CorpusId": entry.corpus_id}
        if entry.doi:
            external["DOI"] = entry.doi.upper()
        return {
            "paperId": None if bare else entry.sha,
            "corpusId": None if bare else entry.corpus_id,
            "externalIds": None if bare else external,
            "title": entry.title,
            "year": entry.year,
            "publicationDate": None if bare else entry.published,
            "authors": [{"authorId": None, "name": name} for name in entry.authors],
            "citationCount": None if bare else entry.citations,
            "influentialCitationCount": None if bare else entry.citations // 10,
            "venue": "",
            "abstract": None if bare else entry.abstract,
            "openAccessPdf": None,
            **self.altered.get(entry.number, {}),
        }

    def _named(self, request: Request) -> Entry | None:
        name = request.path_params["name"]
        if name in self.merged:
            return self.corpus.entries[self.merged[name]]
        return self.corpus.named(name)

    def _filtered(self, request: Request, hits: Sequence[Entry]) -> list[Entry]:
        query = request.query_params
        least = int(query.get("minCitationCount", 0))
        first, _, last = query.get("year", "-").partition("-")
        return [one for one in hits if one.citations >= least and int(first or 0) <= one.year <= int(last or 9999)]


def _bad(reason: str) -> Response:
    return JSONResponse({"error": reason}, status_code=400)


def _missing(request: Request) -> Response:
    return JSONResponse({"error": f"Paper with id {request.path_params['name']} not found"}, status_code=404)
