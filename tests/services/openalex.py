"""A stand-in for OpenAlex: works by id, search, and who cites a work. Preprints cite nothing, as in the real one."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from tests.services.boolean import matches
from tests.services.corpus import Corpus, Entry
from tests.services.listed import Call, like, listed, some_of, text, whole
from tests.services.standin import StandIn

_DOCS = "developers.openalex.org/api-reference (works, errors, authentication), read 2026-11-28"
_SELECTABLE = (
    "id", "doi", "ids", "title", "display_name", "publication_year", "publication_date", "authorships",
    "cited_by_count", "primary_location", "locations", "abstract_inverted_index", "referenced_works", "related_works",
    "type", "language", "best_oa_location", "open_access", "topics", "keywords", "referenced_works_count",
    "relevance_score",
)  # fmt: skip
_FILTER = (
    r"(from_publication_date|to_publication_date):\d{4}-\d\d-\d\d|cited_by_count:[<>]?-?\d+|publication_year:[\d<>-]+"
    r"|(cites|cited_by|ids\.openalex):W\d+(\|W\d+)*|doi:[^,|]+(\|[^,|]+)*|(title|title_and_abstract)\.search:[^,]+"
)
WORKS = Call(
    source=_DOCS,
    parameters={
        # AND, OR, NOT, quotes and brackets; wildcards and a bare colon are refused.
        "search": like(r"[^?*~:|]+"),
        "search.semantic": like(r".{1,2000}"),
        "filter": like(rf"(?:{_FILTER})(?:,(?:{_FILTER}))*"),
        "sort": like(r"(cited_by_count|publication_date|relevance_score|display_name)(:desc|:asc)?"),
        "per_page": whole(1, 100),
        "page": whole(1),
        "cursor": text,
        "select": some_of(*_SELECTABLE),
        "api_key": text,
    },
    together=(
        lambda asked: "page and cursor exclude each other" if {"page", "cursor"} <= asked.keys() else "",
        lambda asked: (
            "search and search.semantic exclude each other" if {"search", "search.semantic"} <= asked.keys() else ""
        ),
        lambda asked: (
            "page * per_page passes 10,000"
            if int(asked.get("page", 1)) * int(asked.get("per_page", 25)) > 10_000
            else ""
        ),
        lambda asked: "a filter joins at most 100 values" if asked.get("filter", "").count("|") >= 100 else "",
        lambda asked: (
            "relevance_score needs a search"
            if asked.get("sort", "").startswith("relevance_score")
            and not {"search", "search.semantic"} & asked.keys()
            else ""
        ),
    ),
)
WORK = Call(source=_DOCS, parameters={"select": some_of(*_SELECTABLE), "api_key": text})


class OpenAlex(StandIn):
    """Serves a `Corpus`. ``mistaken``: numbers of papers whose DOI hangs on another work, as happens there."""

    def __init__(self, corpus: Corpus, *, latency: float = 0.0) -> None:
        self.corpus = corpus
        self.mistaken: set[int] = set()
        super().__init__(
            [
                Route("/works", listed(self._works, WORKS, _refused)),
                Route("/works/{name:path}", listed(self._work, WORK, _refused)),
            ],
            latency=latency,
        )

    async def _work(self, request: Request) -> Response:
        entry = self.corpus.named(request.path_params["name"])
        if entry is None:
            return HTMLResponse("<!doctype html><html><title>404 Not Found</title></html>", status_code=404)
        if entry.number in self.mistaken:
            return JSONResponse({**self.record(entry), "display_name": "Something else altogether, by others"})
        return JSONResponse(self.record(entry))

    async def _works(self, request: Request) -> Response:
        query = request.query_params
        size = int(query.get("per_page", 25))
        filters = dict(part.split(":", 1) for part in query.get("filter", "").split(",") if part)
        asked = query.get("search") or query.get("search.semantic")
        hits = list(self.corpus.entries)
        if "search" in query:
            hits = [one for one in self.corpus.ranked(query["search"]) if matches(query["search"], one.fields)]
        elif asked:
            hits = self.corpus.ranked(asked)[:50]
        if "cites" in filters:
            works = filters["cites"].split("|")
            cited = {entry.number for work in works if (entry := self.corpus.named(work)) is not None}
            hits = [entry for entry in hits if cited & set(entry.references)]
        if "doi" in filters:
            dois = filters["doi"].lower().split("|")
            hits = [one for one in hits if f"10.48550/arxiv.{one.arxiv}" in dois or (one.doi and one.doi in dois)]
        hits = [one for one in hits if _passes(one, filters)]
        cursor = query.get("cursor")
        start = (int(query.get("page", 1)) - 1) * size if cursor is None else 0 if cursor == "*" else int(cursor)
        meta: dict[str, Any] = {"count": len(hits), "per_page": size}
        if cursor is not None:
            meta["next_cursor"] = str(start + size) if start + size < len(hits) else None
        return JSONResponse({"meta": meta, "results": [self.record(one) for one in hits[start : start + size]]})

    def record(self, entry: Entry) -> dict[str, Any]:
        """A work as the API gives it, its abstract as an inverted index."""
        index: dict[str, list[int]] = {}
        for place, word in enumerate(entry.abstract.split()):
            index.setdefault(word, []).append(place)
        return {
            "id": f"https://openalex.org/{entry.work}",
            "doi": f"https://doi.org/10.48550/arXiv.{entry.arxiv}",
            "display_name": entry.title,
            "publication_year": entry.year,
            "publication_date": entry.published,
            "authorships": [{"author": {"display_name": name}} for name in entry.authors],
            "cited_by_count": entry.citations,
            "primary_location": {"source": {"display_name": "arXiv (Cornell University)"}},
            "locations": [{"landing_page_url": f"http://arxiv.org/abs/{entry.arxiv}"}],
            "referenced_works_count": 0,
            "abstract_inverted_index": index,
        }


def _refused(reason: str) -> Response:
    return JSONResponse({"error": "Invalid query parameters error.", "message": reason}, status_code=400)


def _passes(entry: Entry, filters: dict[str, str]) -> bool:
    return (
        entry.published >= filters.get("from_publication_date", "0000")
        and entry.published <= filters.get("to_publication_date", "9999")
        and entry.citations > int(filters.get("cited_by_count", ">-1").removeprefix(">"))
    )
