"""Semantic Scholar: search, passages, references and citations with their context, recommendations, batches.

Shapes after the published specification of the Graph and Recommendations APIs. Keyless, all users of the world share
one pool, so being refused is the normal case; everything that asks here has another source to go to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlintern.tools.errors import NotFound, ServiceError
from mlintern.tools.papers.ids import PaperId
from mlintern.tools.papers.paper import Paper, Passage, page_of
from mlintern.tools.papers.query import (
    Query,
    for_semantic_scholar,
    for_semantic_scholar_bulk,
    forms_for_semantic_scholar,
)
from mlintern.tools.papers.sources import Found, by_forms, records
from mlintern.tools.web import IDENTITY_AGE, SEARCH_AGE, Answer, Web

_SERVICE = "semantic_scholar"
_BASE_FIELDS = "paperId,corpusId,externalIds,title,year,publicationDate,authors,citationCount,venue,url"
"""Fields that every call gives. `tldr` and `embedding` are not among them: bulk and edges refuse those with 400."""
PAPER_FIELDS = f"{_BASE_FIELDS},influentialCitationCount,abstract,openAccessPdf"
_EDGE_FIELDS = "contexts,intents,isInfluential"
_DEEPEST_SEARCH = 1000
"""offset + limit of the relevance search may not pass this."""
_DEEPEST_EDGE = 9_999
"""offset + limit of references and citations stay below 10,000; one more is answered with 400."""
BATCH_SIZE = 500
PAGE_SIZE = 1000


@dataclass(frozen=True)
class Cited:
    """One edge of the citation graph, seen from one end.

    Attributes:
        paper: the other end; without keys if Semantic Scholar knows it only by its title.
        influential: whether the citing paper builds on it; None if unknown.
        intents: background, methodology, result.
        contexts: the sentences in which it is cited.
    """

    paper: Paper
    influential: bool | None = None
    intents: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Edges:
    """A page of edges. ``next_offset`` is None at the end; ``cut`` says that it is the end of what is shown only."""

    edges: tuple[Cited, ...]
    next_offset: int | None
    from_cache: bool
    cut: bool = False


class SemanticScholarSource:
    """The Graph API (``/graph/v1``) and the Recommendations API (``/recommendations/v1``)."""

    name = "semantic_scholar"

    def __init__(self, web: Web) -> None:
        self._web = web

    async def search(self, query: Query, *, position: str, limit: int) -> Found:
        """By relevance; in bulk where an order or operators are asked for, which only the bulk search knows.

        Both apply the filters for year and citations; the bulk search would lose the order by relevance.
        """
        if query.sort != "relevance" or query.is_boolean:
            return await self._bulk(query, position=position, limit=limit)
        forms = list(filter(None, forms_for_semantic_scholar(query)))
        if not forms:
            return Found((), unapplied=query.filters)

        async def ask(form: str, offset: str) -> Found:
            return await self._by_relevance(query, form, offset=int(offset or 0), limit=limit)

        return await by_forms(forms, position, ask=ask, enough=query.enough)

    async def _by_relevance(self, query: Query, words: str, *, offset: int, limit: int) -> Found:
        size = min(limit, 100, _DEEPEST_SEARCH - offset)
        if size <= 0:
            return Found((), unapplied=query.filters)
        params = {"query": words, "fields": PAPER_FIELDS, "offset": offset, "limit": size, **_filters(query)}
        answer = await self._web.get(
            _SERVICE, "graph/v1/paper/search", params=params, expect="json", cache=SEARCH_AGE
        )
        body = _object(answer)
        papers = tuple(map(paper_of, records(body.get("data"))))  # no "data" at all when nothing matches
        following = body.get("next")
        more = following is not None and int(following) < _DEEPEST_SEARCH
        position_after = str(following) if more else None
        return Found(papers, _whole(body.get("total")), position_after, self._unapplied(query), answer.from_cache)

    async def _bulk(self, query: Query, *, position: str, limit: int) -> Found:
        """The bulk search gives 1,000 at a time whatever is wanted; ``position`` is "token|place in its page"."""
        token, _, place = position.rpartition("|")
        start = int(place or 0)
        order = {"citations": "citationCount:desc", "date": "publicationDate:desc"}.get(query.sort)
        params = {
            "query": for_semantic_scholar_bulk(query),
            "fields": f"{_BASE_FIELDS},influentialCitationCount,abstract",
            "sort": order,
            "token": token or None,
            **_filters(query),
        }
        answer = await self._web.get(
            _SERVICE, "graph/v1/paper/search/bulk", params=params, expect="json", cache=SEARCH_AGE
        )
        body = _object(answer)
        listed = records(body.get("data"))
        papers = tuple(paper_of(item) for item in listed[start : start + limit])
        end = start + len(papers)
        following = f"{token}|{end}" if end < len(listed) else f"{body['token']}|0" if body.get("token") else None
        return Found(papers, _whole(body.get("total")), following, self._unapplied(query), answer.from_cache)

    async def passages(self, query: Query, *, limit: int) -> Found:
        """Pieces of full texts that answer the query; papers are known by CorpusId, title and authors only."""
        params = {
            "query": for_semantic_scholar(query),
            "limit": min(limit, 1000),
            # Only snippet fields may be named; fields of the paper are refused with 400.
            "fields": "snippet.text,snippet.section,snippet.snippetKind",
            **_filters(query),
        }
        answer = await self._web.get(_SERVICE, "graph/v1/snippet/search", params=params, expect="json")
        papers = tuple(map(_passage_of, records(_object(answer).get("data"))))
        return Found(papers, len(papers), None, self._unapplied(query), answer.from_cache)

    async def paper(self, name: PaperId) -> Paper:
        """What is known about one paper. The id that comes back may be another: records get merged.

        Raises:
            NotFound: Semantic Scholar does not know it.
        """
        path = f"graph/v1/paper/{reference(name.key)}"
        answer = await self._web.get(
            _SERVICE, path, params={"fields": PAPER_FIELDS}, expect="json", cache=IDENTITY_AGE
        )
        found = paper_of(_object(answer))
        keys = found.keys if name.key in found.keys else (*found.keys, name.key)
        return Paper(**{**found.__dict__, "keys": keys})

    async def by_title(self, title: str) -> Paper | None:
        """The one paper whose title is closest to ``title``, which need not be equal; None if none is close.

        Raises:
            ServiceError: it could not answer.
        """
        params = {"query": " ".join(re.findall(r"\w+", title)), "fields": PAPER_FIELDS}
        try:
            answer = await self._web.get(
                _SERVICE, "graph/v1/paper/search/match", params=params, expect="json", cache=IDENTITY_AGE
            )
        except NotFound:  # "Title match not found"
            return None
        found = records(_object(answer).get("data"))
        return paper_of(found[0]) if found else None

    async def batch(self, keys: Sequence[str]) -> tuple[list[Paper | None], int]:
        """One look-up for up to 500 papers, in order, None for each unknown; and how many requests it took."""
        answer = await self._web.post(
            _SERVICE,
            "graph/v1/paper/batch",
            params={"fields": PAPER_FIELDS},
            payload={"ids": [reference(key) for key in keys[:BATCH_SIZE]]},
            cache=IDENTITY_AGE,
        )
        body = answer.json()
        if not isinstance(body, list):
            raise _unexpected(answer)
        return [paper_of(item) if isinstance(item, dict) else None for item in body], 0 if answer.from_cache else 1

    async def references(
        self, key: str, *, offset: int = 0, limit: int = PAGE_SIZE, abstracts: bool = False
    ) -> Edges:
        """The papers that ``key`` cites."""
        return await self._edges(key, "references", offset=offset, limit=limit, abstracts=abstracts)

    async def citations(self, key: str, *, offset: int = 0, limit: int = PAGE_SIZE, abstracts: bool = False) -> Edges:
        """The papers that cite ``key``, newest first; Semantic Scholar shows 9,999 of them at most."""
        return await self._edges(key, "citations", offset=offset, limit=limit, abstracts=abstracts)

    async def recommendations(self, key: str, *, limit: int) -> tuple[list[Paper], bool]:
        """Papers like ``key``, of all of computer science (the default pool holds new papers only)."""
        answer = await self._web.get(
            _SERVICE,
            f"recommendations/v1/papers/forpaper/{reference(key)}",
            params={"fields": f"{_BASE_FIELDS},influentialCitationCount,abstract", "from": "all-cs", "limit": limit},
            expect="json",
        )
        return [paper_of(item) for item in records(_object(answer).get("recommendedPapers"))], answer.from_cache

    async def _edges(self, key: str, call: str, *, offset: int, limit: int, abstracts: bool) -> Edges:
        end = "citedPaper" if call == "references" else "citingPaper"
        size = min(limit, PAGE_SIZE, _DEEPEST_EDGE - offset)
        if size <= 0:
            return Edges((), None, True, cut=True)
        fields = f"{_EDGE_FIELDS},{_BASE_FIELDS},influentialCitationCount{',abstract' if abstracts else ''}"
        answer = await self._web.get(
            _SERVICE,
            f"graph/v1/paper/{reference(key)}/{call}",
            params={"fields": fields, "offset": offset, "limit": size},
            expect="json",
        )
        body = _object(answer)
        rows = records(body.get("data"))
        edges = tuple(_edge_of(item, end) for item in rows if (item.get(end) or {}).get("title"))
        following = None if body.get("next") is None else int(body["next"])
        cut = following is not None and following >= _DEEPEST_EDGE
        return Edges(edges, None if cut else following, answer.from_cache, cut)

    @staticmethod
    def _unapplied(query: Query) -> frozenset[str]:
        return query.filters & {"categories"}


def reference(key: str) -> str:
    """``key`` as Semantic Scholar wants it: ``ARXIV:2305.18290``, ``DOI:...``, ``CorpusId:...`` or its own hash.

    Raises:
        NotFound: it has no name for the paper (an OpenAlex id, or a title only).
    """
    kind, _, value = key.partition(":")
    if kind == "s2":
        return value if len(value) == 40 else f"CorpusId:{value}"
    if kind in ("arxiv", "doi"):
        return f"{kind.upper()}:{value}"
    raise NotFound(f"Semantic Scholar has no name for {key}.", next_step="Use a DOI or an arXiv id.")


def paper_of(item: Mapping[str, Any]) -> Paper:
    """A `Paper` from a record; a null id leaves it with its title alone."""
    external = item.get("externalIds") or {}
    corpus = item.get("corpusId") or external.get("CorpusId")
    keys = [f"arxiv:{external['ArXiv']}"] if external.get("ArXiv") else []
    doi = str(external.get("DOI") or "").lower()
    if doi and not doi.startswith("10.48550/arxiv."):
        keys.append(f"doi:{doi}")
    if corpus:
        keys.append(f"s2:{corpus}")
    if item.get("paperId"):
        keys.append(f"s2:{item['paperId']}")
    pdf = (item.get("openAccessPdf") or {}).get("url") or ""
    year = _whole(item.get("year"))
    return Paper(
        keys=tuple(keys),
        title=" ".join(str(item.get("title") or "").split()),
        authors=tuple(str(author["name"]) for author in records(item.get("authors")) if author.get("name")),
        year=year,
        published=str(item.get("publicationDate") or year or ""),
        abstract=" ".join(str(item.get("abstract") or "").split()),
        citations=_whole(item.get("citationCount")),
        influential_citations=_whole(item.get("influentialCitationCount")),
        venue=str(item.get("venue") or ""),
        url=page_of(keys),
        pdf_url=pdf,
        found_in=(_SERVICE,),
    )


def _edge_of(item: Mapping[str, Any], end: str) -> Cited:
    influential = item.get("isInfluential")
    return Cited(
        paper_of(item[end]),
        None if influential is None else bool(influential),
        tuple(_texts(item.get("intents"))),
        tuple(_texts(item.get("contexts"))),
    )


def _passage_of(item: Mapping[str, Any]) -> Paper:
    paper, snippet = item.get("paper") or {}, item.get("snippet") or {}
    corpus = paper.get("corpusId")
    authors = paper.get("authors") or []
    keys = (f"s2:{corpus}",) if corpus else ()
    return Paper(
        keys=keys,
        title=str(paper.get("title") or ""),
        authors=tuple(str(author.get("name") if isinstance(author, dict) else author) for author in authors),
        url=page_of(keys),
        found_in=(_SERVICE,),
        passages=(
            Passage(
                " ".join(str(snippet.get("text") or "").split()),
                str(snippet.get("section") or snippet.get("snippetKind") or ""),
                float(item.get("score") or 0.0),
            ),
        ),
    )


def _filters(query: Query) -> dict[str, str | int]:
    chosen: dict[str, str | int] = {}
    if "year" in query.filters:
        chosen["year"] = f"{query.year_from or ''}-{query.year_to or ''}"
    if "min_citations" in query.filters:
        chosen["minCitationCount"] = query.min_citations or 0
    return chosen


def _object(answer: Answer) -> Mapping[str, Any]:
    body = answer.json()
    if not isinstance(body, dict):
        raise _unexpected(answer)
    return body


def _unexpected(answer: Answer) -> ServiceError:
    return ServiceError(
        "Semantic Scholar answered in a shape that is not documented.",
        service=_SERVICE,
        http_status=answer.status,
        next_step="Use another source, and report this as a bug.",
    )


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _texts(value: Any) -> Iterable[str]:
    return (" ".join(str(text).split()) for text in value or [] if text)
