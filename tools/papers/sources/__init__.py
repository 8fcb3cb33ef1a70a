"""The services that know papers, behind one shape."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from mlintern.tools.papers.paper import Paper
from mlintern.tools.papers.query import Query


@dataclass(frozen=True)
class Found:
    """A page of a source's answer.

    Attributes:
        papers: in the source's order.
        total: how many it says there are, if it says so.
        next_position: where its next page starts, in the source's own terms; None at the end.
        unapplied: names of filters of the query that this source cannot apply.
        from_cache: no request was sent.
    """

    papers: tuple[Paper, ...]
    total: int | None = None
    next_position: str | None = None
    unapplied: frozenset[str] = frozenset()
    from_cache: bool = False


async def by_forms(
    forms: Sequence[str], position: str, *, ask: Callable[[str, str], Awaitable[Found]], enough: int
) -> Found:
    """The page at ``position`` of the first form of a query that finds enough, with those of the forms before it.

    ``ask(form, position)`` gives a page of one form. A position is that of the form, with the number of the form
    before it except for the first: ``30`` or ``1|30``.
    """
    number, _, within = position.rpartition("|")
    place = int(number or 0)
    papers: list[Paper] = []
    total: int | None = None
    following: str | None
    while True:
        found = await ask(forms[place], within)
        papers += [paper for paper in found.papers if paper.title]
        if found.total is not None:
            total = max(total or 0, found.total)
        if found.next_position is not None:
            following = f"{place}|{found.next_position}" if place else found.next_position
            break
        following = None
        if len(papers) >= enough or (position and not number) or place + 1 >= len(forms):
            break
        place, within = place + 1, ""
    return replace(found, papers=tuple(papers), total=total, next_position=following)


def records(listed: Any) -> list[Mapping[str, Any]]:
    """The records in ``listed``: a null among them is none, and costs nothing else."""
    return [item for item in listed or [] if isinstance(item, dict)] if isinstance(listed, list) else []


class SearchSource(Protocol):
    """A source that can be searched."""

    name: str

    async def search(self, query: Query, *, position: str, limit: int) -> Found:
        """Up to ``limit`` papers from ``position`` ("" is the start) on.

        Raises:
            ServiceError: it could not answer; never an empty page instead.
        """
        ...
