"""The filters of a recipe as functions that its script carries."""

from __future__ import annotations

from dataclasses import dataclass

from mlintern.tools.data.filters import HELP as FILTERS_HELP
from mlintern.tools.data.filters import named_filter
from mlintern.tools.scripts.snippets import Snippet, read_snippet

__all__ = ["FILTERS_HELP", "Filters", "read_filters"]


@dataclass(frozen=True)
class Filters:
    """``own`` see each row as it was loaded, ``named`` each prepared one; the others take all rows at once.

    Attributes:
        loaded: of all rows as they are loaded.
        whole: of all prepared rows, after ``named``.
    """

    own: tuple[Snippet, ...] = ()
    named: tuple[Snippet, ...] = ()
    loaded: tuple[Snippet, ...] = ()
    whole: tuple[Snippet, ...] = ()


def read_filters(given: str | list[str] | None) -> Filters:
    """Check the `filter` of a recipe: each is the source of a function row -> bool, or the name of a filter.

    Raises:
        BadInput: a source is no function of a row, or there is no filter of that name.
    """
    texts = [given] if isinstance(given, str) else given or []
    own = [text for text in texts if "def " in text]
    named = [named_filter(text) for text in texts if "def " not in text]

    def of(kind: str) -> tuple[Snippet, ...]:
        return tuple(read_snippet(one.source, what="filter", parameters=1) for one in named if one.of == kind)

    return Filters(
        own=tuple(read_snippet(text, what="filter", parameters=1, prefer="keep") for text in own),
        named=of("row"),
        loaded=of("loaded"),
        whole=of("rows"),
    )
