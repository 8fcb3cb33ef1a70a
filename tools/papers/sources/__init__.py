"""The services that know papers, behind one shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

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


class SearchSource(Protocol):
    """A source that can be searched."""

    name: str

    async def search(self, query: Query, *, position: str, limit: int) -> Found:
        """Up to ``limit`` papers from ``position`` ("" is the start) on.

        Raises:
            ServiceError: it could not answer; never an empty page instead.
        """
        ...
