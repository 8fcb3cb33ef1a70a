"""Hugging Face Papers: a semantic search over the arXiv papers that people there look at, and the daily papers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlintern.tools.errors import ServiceError
from mlintern.tools.papers.ids import try_parse_id
from mlintern.tools.papers.paper import Paper
from mlintern.tools.papers.query import Query, for_hugging_face
from mlintern.tools.papers.sources import Found, records
from mlintern.tools.web import SEARCH_AGE, Answer, Parameters, Web

_SERVICE = "huggingface"
_MOST_RESULTS = 120
_MOST_DAILY = 100
_HOUR = 3600.0


@dataclass(frozen=True)
class Linked:
    """A repository on the Hub whose card mentions the paper."""

    id: str
    downloads: int


@dataclass(frozen=True)
class Detail:
    """What ``/api/papers/ID`` adds to a paper. A link means that a card mentions it, not that its authors made it."""

    code: str
    project: str
    upvotes: int | None
    summary: str
    models: tuple[Linked, ...] = ()
    datasets: tuple[Linked, ...] = ()
    spaces: tuple[Linked, ...] = ()


class HuggingFacePapersSource:
    """``/api/papers/search`` and ``/api/daily_papers``."""

    name = "hf_papers"

    def __init__(self, web: Web) -> None:
        self._web = web

    async def search(self, query: Query, *, position: str, limit: int) -> Found:
        """The search has one page; it knows neither years nor categories nor citations, nor an order."""
        words = for_hugging_face(query)
        if position or not words:
            return Found((), unapplied=query.filters)
        params: Parameters = {"q": words, "limit": min(max(limit, 1), _MOST_RESULTS)}
        answer = await self._web.get(_SERVICE, "api/papers/search", params=params, expect="json", cache=SEARCH_AGE)
        papers = _papers(answer)
        return Found(papers, None, None, query.filters, answer.from_cache)

    async def detail(self, arxiv_id: str) -> Detail:
        """What Hugging Face knows beside the paper: code, project, what on the Hub mentions it.

        Raises:
            NotFound: the paper is not indexed there.
            ServiceError: it could not answer.
        """
        answer = await self._web.get(_SERVICE, f"api/papers/{arxiv_id}", expect="json", cache=_HOUR)
        body = answer.json()
        if not isinstance(body, dict):
            raise _unexpected(answer)
        linked = {
            kind: tuple(
                Linked(str(one["id"]), _count(one.get("downloads")) or 0)
                for one in records(body.get(f"linked{kind.title()}"))
                if one.get("id")
            )
            for kind in ("models", "datasets", "spaces")
        }
        return Detail(
            code=str(body.get("githubRepo") or ""),
            project=str(body.get("projectPage") or ""),
            upvotes=_count(body.get("upvotes")),
            summary=" ".join(str(body.get("ai_summary") or "").split()),
            **linked,
        )

    async def daily(self, *, page: int, limit: int) -> Found:
        """The daily papers, those that people look at most first."""
        size = min(limit, _MOST_DAILY)
        params: Parameters = {"p": page, "limit": size, "sort": "trending"}
        answer = await self._web.get(_SERVICE, "api/daily_papers", params=params, expect="json", cache=_HOUR)
        papers = _papers(answer)
        return Found(papers, None, str(page + 1) if len(papers) >= size else None, frozenset(), answer.from_cache)


def _unexpected(answer: Answer) -> ServiceError:
    return ServiceError(
        "Hugging Face answered in a shape that is not documented.",
        service=_SERVICE,
        http_status=answer.status,
        next_step="Use another source, and report this as a bug.",
    )


def _papers(answer: Answer) -> tuple[Paper, ...]:
    body = answer.json()
    if not isinstance(body, list):
        raise _unexpected(answer)
    found = (_paper_of(item.get("paper") or item) for item in records(body))
    return tuple(paper for paper in found if paper is not None)


def _paper_of(item: Mapping[str, Any]) -> Paper | None:
    name = try_parse_id(str(item.get("id") or ""))
    title = " ".join(str(item.get("title") or "").split())
    if name is None or not title:
        return None
    published = str(item.get("publishedAt") or "")[:10]
    return Paper(
        keys=(name.key,),
        title=title,
        authors=tuple(str(author["name"]) for author in records(item.get("authors")) if author.get("name")),
        year=int(published[:4]) if published[:4].isdigit() else None,
        published=published,
        abstract=" ".join(str(item.get("summary") or "").split()),
        url=name.url,
        found_in=("hf_papers",),
        code=str(item.get("githubRepo") or ""),
        project=str(item.get("projectPage") or ""),
        upvotes=_count(item.get("upvotes")),
        models=_count(item.get("numTotalModels")),
        datasets=_count(item.get("numTotalDatasets")),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
