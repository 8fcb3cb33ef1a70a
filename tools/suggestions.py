"""What a caller probably meant by a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, most: int = 3) -> list[str]:
    """The names most like ``name``, the best first; upper and lower case count as the same."""
    lowered: dict[str, str] = {}
    for other in known:
        lowered.setdefault(other.lower(), other)
    return [lowered[close] for close in difflib.get_close_matches(name.lower(), lowered, n=most, cutoff=0.6)]


def did_you_mean(names: Iterable[str]) -> str:
    """``Did you mean a or b?``; empty if there are none."""
    stated = " or ".join(names)
    return f"Did you mean {stated}?" if stated else ""
