"""Arguments of the paper tools, refused by name where they cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from mlintern.common.text import did_you_mean
from mlintern.tools.errors import BadInput
from mlintern.tools.papers.query import Query, Sort, without_request_words

SOURCES = ("arxiv", "hf_papers", "semantic_scholar", "openalex")
LONGEST_QUERY = 1000


def parse_query(
    text: str,
    *,
    year_from: int | None,
    year_to: int | None,
    min_citations: int | None,
    categories: Sequence[str],
    sort: Sort,
) -> Query:
    """The search that these arguments describe.

    Raises:
        BadInput: one of them is out of range.
    """
    if len(text) > LONGEST_QUERY:
        raise BadInput(f"The query has {len(text)} characters.", next_step=f"Use at most {LONGEST_QUERY}.")
    check_choice("sort", sort, choices=get_args(Sort))
    for name, year in (("year_from", year_from), ("year_to", year_to)):
        if year is not None:
            check_range(name, year, low=1900, high=2100)
    if year_from is not None and year_to is not None and year_from > year_to:
        raise BadInput(f"year_from {year_from} is after year_to {year_to}.", next_step="Swap them.")
    if min_citations is not None:
        check_range("min_citations", min_citations, low=0, high=10_000_000)
    for category in categories:
        if not category.replace("-", "").replace(".", "").isalnum():
            raise BadInput(f"{category!r} is not an arXiv category.", next_step="Use names such as cs.CL or stat.ML.")
    return Query(
        text=" ".join(text.split()),
        words=without_request_words(" ".join(text.split())),
        year_from=year_from,
        year_to=year_to,
        min_citations=min_citations,
        categories=tuple(categories),
        sort=sort,
    )


def chosen_sources(names: Sequence[str]) -> list[str]:
    """``names`` in the order of `SOURCES`; all of them if none is named.

    Raises:
        BadInput: one is unknown.
    """
    for name in names:
        check_choice("sources", name, choices=SOURCES)
    return [name for name in SOURCES if not names or name in names]


def check_range(name: str, value: int, *, low: int, high: int) -> None:
    """Refuse a ``value`` outside ``low`` to ``high``."""
    if not low <= value <= high:
        raise BadInput(f"{name} is {value}.", next_step=f"Use {low:,} to {high:,}.")


def check_choice(name: str, value: str, *, choices: Sequence[str]) -> None:
    """Refuse a ``value`` that is none of ``choices``, with a guess at what was meant."""
    if value not in choices:
        raise BadInput(f"{name} cannot be {value!r}.", next_step=did_you_mean(str(value), choices))
