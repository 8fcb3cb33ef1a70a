"""OpenAlex: search, and who cites a work.

Never asked what a preprint cites: for arXiv works its list of references is empty, which reads as "cites nothing".
Its arXiv ids and DOIs may hang on the wrong work, so a work found by id is checked against the title that is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from mlintern.tools.errors import NotFound, ServiceError
from mlintern.tools.papers.ids import try_parse_id
from mlintern.tools.papers.paper import Paper, page_of, title_key
from mlintern.tools.papers.query import Query, forms_for_openalex
from mlintern.tools.papers.sources import Found, by_forms, records
from mlintern.tools.web import IDENTITY_AGE, SEARCH_AGE, Answer, Parameters, Web

_SERVICE = "openalex"
_SELECT = (
    "id,doi,ids,display_name,publication_year,publication_date,authorships,cited_by_count,primary_location,locations"
)
_WITH_ABSTRACT = f"{_SELECT},abstract_inverted_index"
PAGE_SIZE = 100
MOST_DOIS = 50
"""Values that one filter may join with ``|``."""
_DEEPEST = 10_000
_SEMANTIC = "search.semantic"
"""Stands for the semantic search among the forms of a query; it has one page here."""
_LONGEST_SEMANTIC = 2_000


class OpenAlexSource:
    """The ``/works`` endpoint."""

    name = "openalex"

    def __init__(self, web: Web) -> None:
        self._web = web

    async def search(self, query: Query, *, position: str, limit: int) -> Found:
        """In the forms of `forms_for_openalex`; a question, where a key pays for it, by the semantic search first."""
        forms = list(filter(None, forms_for_openalex(query)))
        if not forms:
            return Found((), unapplied=query.filters)
        if query.is_question and not query.is_fixed and not query.filters and self._web.endpoint(_SERVICE).token:
            forms.insert(0, _SEMANTIC)

        async def ask(form: str, page: str) -> Found:
            return await self._search(query, form, page=int(page or 1), size=min(limit, PAGE_SIZE))

        return await by_forms(forms, position, ask=ask, enough=query.enough)

    async def _search(self, query: Query, words: str, *, page: int, size: int) -> Found:
        order = {"citations": "cited_by_count:desc", "date": "publication_date:desc"}.get(query.sort)
        params = {
            "search": words if words != _SEMANTIC else None,
            "search.semantic": query.text[:_LONGEST_SEMANTIC] if words == _SEMANTIC else None,
            "filter": ",".join(_filters(query)) or None,
            "sort": order,
            "per_page": size,
            "page": page,
            "select": _WITH_ABSTRACT,
        }
        answer = await self._web.get(_SERVICE, "works", params=params, expect="json", cache=SEARCH_AGE)
        papers, total, _ = _page(answer)
        more = papers and page * size < min(total, _DEEPEST) and words != _SEMANTIC
        following = str(page + 1) if more else None
        return Found(tuple(papers), total, following, query.filters & {"categories"}, answer.from_cache)

    async def work(self, key: str, *, title: str = "") -> Paper:
        """The work that ``key`` (arXiv, DOI or OpenAlex) names, if its title is ``title`` where that is known.

        Raises:
            NotFound: OpenAlex does not have it, or has another paper under this id.
        """
        kind, _, value = key.partition(":")
        names = {"arxiv": f"doi:10.48550/arXiv.{value}", "doi": f"doi:{value}", "openalex": value}
        if kind not in names:
            raise NotFound(f"OpenAlex has no name for {key}.", next_step="Use a DOI or an arXiv id.")
        path = f"works/{quote(names[kind], safe=':/')}"
        answer = await self._web.get(
            _SERVICE, path, params={"select": _WITH_ABSTRACT}, expect="json", cache=IDENTITY_AGE
        )
        body = answer.json()
        found = _paper_of(body) if isinstance(body, dict) else None
        if found is None or (title and title_key(found.title) != title_key(title)):
            raise NotFound(
                f"OpenAlex has another paper under {key}: {found.title if found else 'nothing readable'!r}.",
                next_step="Trust the title, not the id.",
            )
        return found

    async def citing(self, works: Sequence[str], *, cursor: str = "*") -> tuple[list[Paper], str | None, bool]:
        """A page of the papers that cite any of ``works`` (``W...``), most cited first, and the next cursor."""
        params: Parameters = {
            "filter": f"cites:{'|'.join(works)}",
            "sort": "cited_by_count:desc",
            "per_page": PAGE_SIZE,
            "cursor": cursor,
            "select": _SELECT,
        }
        answer = await self._web.get(_SERVICE, "works", params=params, expect="json")
        papers, _, following = _page(answer)
        return papers, following if papers else None, answer.from_cache

    async def by_doi(self, keys: Sequence[str]) -> tuple[list[Paper], bool]:
        """The works among up to 50 arXiv ids and DOIs that OpenAlex has, in one request."""
        dois = [
            f"10.48550/arxiv.{value}" if kind == "arxiv" else value
            for kind, _, value in (key.partition(":") for key in keys[:MOST_DOIS])
            if kind in ("arxiv", "doi") and "," not in value and "|" not in value
        ]
        if not dois:
            return [], True
        params: Parameters = {"filter": f"doi:{'|'.join(dois)}", "per_page": PAGE_SIZE, "select": _SELECT}
        answer = await self._web.get(_SERVICE, "works", params=params, expect="json", cache=IDENTITY_AGE)
        return _page(answer)[0], answer.from_cache


def _page(answer: Answer) -> tuple[list[Paper], int, str | None]:
    body = answer.json()
    if not isinstance(body, dict) or not isinstance(body.get("results"), list):
        raise ServiceError(
            "OpenAlex answered in a shape that is not documented.",
            service=_SERVICE,
            http_status=answer.status,
            next_step="Use another source, and report this as a bug.",
        )
    meta = body.get("meta") or {}
    papers = [_paper_of(item) for item in records(body["results"]) if item.get("display_name")]
    return papers, int(meta.get("count") or 0), meta.get("next_cursor")


def _paper_of(item: Mapping[str, Any]) -> Paper:
    keys: list[str] = []
    for place in records(item.get("locations")):
        landing = try_parse_id(str(place.get("landing_page_url") or ""))
        if landing is not None and landing.kind == "arxiv":
            keys.append(landing.key)
    for text in (item.get("doi"), item.get("id")):
        name = try_parse_id(str(text or ""))
        if name is not None:
            keys.append(name.key)
    # Two arXiv ids on one work mean that one of them is wrong; neither is believed.
    arxiv = {key for key in keys if key.startswith("arxiv:")}
    if len(arxiv) > 1:
        keys = [key for key in keys if key not in arxiv]
    keys = list(dict.fromkeys(keys))
    source = ((item.get("primary_location") or {}).get("source") or {}).get("display_name")
    year = item.get("publication_year")
    return Paper(
        keys=tuple(keys),
        title=" ".join(str(item.get("display_name") or "").split()),
        authors=tuple(
            name
            for entry in records(item.get("authorships"))
            if (name := (entry.get("author") or {}).get("display_name"))
        ),
        year=year,
        published=str(item.get("publication_date") or year or ""),
        abstract=_abstract(item.get("abstract_inverted_index")),
        citations=item.get("cited_by_count"),
        venue=str(source or ""),
        url=page_of(keys),
        found_in=(_SERVICE,),
    )


def _abstract(index: Mapping[str, Sequence[int]] | None) -> str:
    """The abstract from OpenAlex's index of word to places."""
    words = index.items() if isinstance(index, Mapping) else ()
    found = ((place, word) for word, places in words if isinstance(places, list) for place in places)
    placed = sorted((place, word) for place, word in found if isinstance(place, int))
    return " ".join(word for _, word in placed)


def _filters(query: Query) -> list[str]:
    chosen: list[str] = []
    if query.year_from is not None:
        chosen.append(f"from_publication_date:{query.year_from}-01-01")
    if query.year_to is not None:
        chosen.append(f"to_publication_date:{query.year_to}-12-31")
    if "min_citations" in query.filters:
        chosen.append(f"cited_by_count:>{(query.min_citations or 0) - 1}")
    return chosen
