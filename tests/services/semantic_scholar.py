"""A stand-in for the Graph and Recommendations APIs of Semantic Scholar: their shapes, limits and refusals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.services.corpus import Corpus, Entry
from tests.services.standin import StandIn

_BASE = {
    "paperId", "corpusId", "externalIds", "title", "year", "publicationDate", "authors", "citationCount", "venue",
    "url", "influentialCitationCount", "abstract", "openAccessPdf",
}  # fmt: skip
_EDGE = {"contexts", "intents", "isInfluential"}
_SNIPPET = {"snippet.text", "snippet.section", "snippet.snippetKind"}


class SemanticScholar(StandIn):
    """Serves a `Corpus`.

    Attributes:
        titles_only: numbers of papers that references give without an id (``paperId`` null).
        merged: old paperId to the number of the paper that it became.
        shifting: if set, a new first hit appears before each page of a search.
        altered: fields of a record to answer otherwise, by number.
        elided: numbers of papers whose references are withheld by the publisher (an empty list).
    """

    def __init__(self, corpus: Corpus, *, latency: float = 0.0) -> None:
        self.corpus = corpus
        self.titles_only: set[int] = set()
        self.merged: dict[str, int] = {}
        self.elided: set[int] = set()
        self.altered: dict[int, dict[str, Any]] = {}
        self.shifting = False
        self._searches = 0
        super().__init__(
            [
                Route("/graph/v1/paper/search", self._search),
                Route("/graph/v1/paper/search/bulk", self._bulk),
                Route("/graph/v1/paper/batch", self._batch, methods=["POST"]),
                Route("/graph/v1/snippet/search", self._snippets),
                Route("/graph/v1/paper/{name:path}/references", self._references),
                Route("/graph/v1/paper/{name:path}/citations", self._citations),
                Route("/graph/v1/paper/{name:path}", self._paper),
                Route("/recommendations/v1/papers/forpaper/{name:path}", self._recommendations),
            ],
            latency=latency,
        )

    async def _search(self, request: Request) -> Response:
        query = request.query_params
        offset, limit = int(query.get("offset", 0)), int(query.get("limit", 100))
        if limit > 100 or offset + limit > 1000:
            return _bad("Requested too many papers")
        if unknown := _unknown_fields(request, _BASE):
            return unknown
        words = query["query"]
        hits = [] if "-" in words else self._filtered(request, self.corpus.matching(words))
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
        if unknown := _unknown_fields(request, _BASE - {"openAccessPdf"}):
            return unknown
        words = request.query_params["query"].replace("+", " ").replace('"', " ")
        hits = self._filtered(request, self.corpus.matching(words))
        if request.query_params.get("sort") == "publicationDate:desc":
            hits = sorted(hits, key=lambda one: one.published, reverse=True)
        start = int(request.query_params.get("token", "0"))
        body: dict[str, Any] = {"total": len(hits), "data": [self.record(one) for one in hits[start : start + 1000]]}
        body["token"] = str(start + 1000) if start + 1000 < len(hits) else None
        return JSONResponse(body)

    async def _batch(self, request: Request) -> Response:
        names: Sequence[str] = (await request.json())["ids"]
        if len(names) > 500:
            return _bad("Too many ids")
        found = [self.corpus.named(name) for name in names]
        return JSONResponse([None if one is None else self.record(one) for one in found])

    async def _snippets(self, request: Request) -> Response:
        if unknown := _unknown_fields(request, _SNIPPET):
            return unknown
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
        return self._edges(request, self.corpus.citing(entry.number), "citingPaper")

    async def _recommendations(self, request: Request) -> Response:
        entry = self._named(request)
        if entry is None:
            return _missing(request)
        near = [one for one in self.corpus.entries if one.number % 8 == entry.number % 8 and one != entry]
        limit = int(request.query_params.get("limit", 100))
        return JSONResponse({"recommendedPapers": [self.record(one) for one in near[:limit]]})

    def _edges(self, request: Request, far: Sequence[Entry], end: str) -> Response:
        if unknown := _unknown_fields(request, _BASE | _EDGE):
            return unknown
        offset, limit = int(request.query_params.get("offset", 0)), int(request.query_params.get("limit", 100))
        if limit > 1000:
            return _bad("limit is too large")
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


def _unknown_fields(request: Request, known: set[str]) -> Response | None:
    unknown = [name for name in request.query_params.get("fields", "").split(",") if name and name not in known]
    return _bad(f"Unrecognized or unsupported fields: [{', '.join(unknown)}]") if unknown else None


def _bad(reason: str) -> Response:
    return JSONResponse({"error": reason}, status_code=400)


def _missing(request: Request) -> Response:
    return JSONResponse({"error": f"Paper with id {request.path_params['name']} not found"}, status_code=404)
