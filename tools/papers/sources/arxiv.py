"""arXiv: search and look-up by id in its API, whose Atom feeds are read with lxml."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlintern.tools.errors import NotFound, ServiceError
from mlintern.tools.papers.ids import parse_id, try_parse_id
from mlintern.tools.papers.paper import Paper
from mlintern.tools.papers.query import Query, forms_for_arxiv
from mlintern.tools.papers.sources import Found, by_forms
from mlintern.tools.web import IDENTITY_AGE, SEARCH_AGE, Answer, Parameters, Web

if TYPE_CHECKING:
    from lxml.etree import _Element

_NAMES = {
    "atom": "http://www.w3.org/2005/Atom",
    "search": "http://a9.com/-/spec/opensearch/1.1/",
    "arxiv": "http://arxiv.org/schemas/atom",
}
MOST_A_PAGE = 2000
"""``max_results`` of one call (user manual, section 3.1.1.2)."""
_FARTHEST = 2000
"""Results of one query that are read: the manual asks to refine a query that gives more than 1,000."""
TITLES_A_CALL = 10
_SERVICE = "arxiv_api"


@dataclass(frozen=True)
class _Feed:
    """A page of the API's answer."""

    papers: tuple[Paper, ...]
    total: int
    from_cache: bool


class ArxivSource:
    """Search and look-up by id in arXiv's API."""

    name = "arxiv"

    def __init__(self, web: Web) -> None:
        self._web = web

    async def search(self, query: Query, *, position: str, limit: int) -> Found:
        """In the forms of `forms_for_arxiv`, each by arXiv's relevance or by date."""
        forms = list(filter(None, forms_for_arxiv(query)))
        if not forms:
            return Found((), unapplied=query.filters)

        async def ask(form: str, start: str) -> Found:
            return await self._search(query, form, start=int(start or 0), limit=limit)

        return await by_forms(forms, position, ask=ask, enough=query.enough)

    async def _search(self, query: Query, expression: str, *, start: int, limit: int) -> Found:
        wanted = min(limit, _FARTHEST - start)
        if wanted <= 0:
            return Found((), unapplied=query.filters)
        order = "submittedDate" if query.sort == "date" else "relevance"
        feed = await self._page(
            {
                "search_query": expression,
                "start": start,
                "max_results": wanted,
                "sortBy": order,
                "sortOrder": "descending",
            },
            age=SEARCH_AGE,
        )
        end = start + len(feed.papers)
        more = feed.papers and end < min(feed.total, _FARTHEST)
        unapplied = query.filters & {"min_citations"}
        return Found(feed.papers, feed.total, str(end) if more else None, unapplied, feed.from_cache)

    async def look_up(self, arxiv_ids: list[str]) -> list[Paper]:
        """The papers with ``arxiv_ids`` (bare or with a version), at most 100, those that exist.

        Raises:
            NotFound: arXiv says that an id is malformed.
            ServiceError: it could not answer.
        """
        asked: Parameters = {"id_list": ",".join(arxiv_ids), "max_results": max(1, len(arxiv_ids))}
        return list((await self._page(asked, age=IDENTITY_AGE)).papers)

    async def by_title(self, titles: Sequence[str]) -> list[Paper]:
        """The papers with one of ``titles``, at most `TITLES_A_CALL`, in one request; others may be among them.

        Raises:
            ServiceError: it could not answer.
        """
        bare = [" ".join(re.findall(r"\w+", title)) for title in titles[:TITLES_A_CALL]]
        asked = " OR ".join(f'ti:"{title}"' for title in bare if title)
        if not asked:
            return []
        params: Parameters = {"search_query": asked, "start": 0, "max_results": 3 * len(bare)}
        return list((await self._ask(params, IDENTITY_AGE)).papers)

    async def _page(self, params: Parameters, *, age: float) -> _Feed:
        """One page, asked once more if it comes back empty: arXiv is known for untrue empty first pages."""
        start = int(str(params.get("start") or 0))
        feed = await self._ask(params, age)
        if not feed.papers and (feed.total > start or ("search_query" in params and not feed.from_cache)):
            feed = await self._ask(params, 0.0)
        if not feed.papers and feed.total > start:
            raise ServiceError(
                f"arXiv counts {feed.total} results but sends an empty page.",
                service=_SERVICE,
                http_status=200,
                next_step="Try again in a minute.",
            )
        return feed

    async def _ask(self, params: Parameters, age: float) -> _Feed:
        answer = await self._web.get(_SERVICE, params=params, expect="xml", cache=age, accept_statuses=(400,))
        return _read(answer)


def _read(answer: Answer) -> _Feed:
    """The feed in ``answer``; arXiv says what is wrong in an entry of its own."""
    from lxml import etree

    try:
        root: Any = etree.fromstring(answer.body, etree.XMLParser(resolve_entities=False, no_network=True))
    except etree.XMLSyntaxError as error:
        raise _refused(f"arXiv answered {answer.status} with something that is no feed.", answer.status) from error
    entries = root.findall("atom:entry", _NAMES)
    if entries and "/api/errors" in _text(entries[0], "atom:id"):
        reason = _text(entries[0], "atom:summary")
        if "id format" in reason:
            raise NotFound(f"arXiv does not know this id: {reason}.", next_step="Check the id.")
        raise _refused(f"arXiv refuses the request: {reason}.", answer.status)
    if etree.QName(root).localname != "feed" or answer.status != 200:
        raise _refused(f"arXiv answered {answer.status} with something that is no feed.", answer.status)
    papers = (_paper(entry) for entry in entries)
    total = int(_text(root, "search:totalResults") or 0)
    return _Feed(tuple(paper for paper in papers if paper is not None), total, answer.from_cache)


def _refused(message: str, status: int) -> ServiceError:
    return ServiceError(message, service=_SERVICE, http_status=status, next_step="Rephrase the query.")


def _text(element: _Element, path: str) -> str:
    """The text at ``path`` in one line, empty where there is none."""
    return " ".join((element.findtext(path, "", _NAMES) or "").split())


def _paper(entry: _Element) -> Paper | None:
    """A `Paper` from an entry; None for one without an id or a title, which arXiv sends now and then."""
    name, title = try_parse_id(_text(entry, "atom:id")), _text(entry, "atom:title")
    if name is None or not title:
        return None
    doi = _text(entry, "arxiv:doi")
    published_as = try_parse_id(doi) if doi else None
    published = _text(entry, "atom:published")[:10]
    return Paper(
        keys=(name.key, *([published_as.key] if published_as is not None and published_as.kind == "doi" else [])),
        title=title,
        authors=tuple(filter(None, (_text(author, "atom:name") for author in entry.findall("atom:author", _NAMES)))),
        year=int(published[:4]) if published[:4].isdigit() else None,
        published=published,
        abstract=_text(entry, "atom:summary"),
        venue=_text(entry, "arxiv:journal_ref"),
        categories=tuple(
            term for one in entry.findall("atom:category", _NAMES) if (term := str(one.get("term") or ""))
        ),
        url=parse_id(name.value).url,
        found_in=("arxiv",),
    )
