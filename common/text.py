"""Text for people and models: cuts that say so, sizes, money, suggestions for a misspelt name."""

from __future__ import annotations

import difflib
import itertools
import math
import unicodedata
from collections.abc import Iterable

CHARS_PER_TOKEN = 4.0
"""A rule of thumb for English and code with the tokenizers of today; used where no tokenizer is at hand."""

SIMILARITY = 0.55
"""`difflib`'s ratio from which a known name is offered for a misspelt one."""

_LONGEST_COMPARED, _MOST_COMPARED = 120, 2_000
_LISTED = 40


def cut(text: str, limit: int, *, words: bool = False) -> str:
    """The first ``limit`` characters of ``text``; what was left out is said behind them.

    Args:
        words: do not end inside a word.
    """
    if len(text) <= limit:
        return text
    kept = text[:limit]
    if words and " " in kept:
        kept = kept.rsplit(None, 1)[0]
    return f"{kept.rstrip()}... (cut: {len(text):,} characters)"


def cut_middle(text: str, limit: int) -> str:
    """Beginning and end of ``text``, ``limit`` characters together; what was left out is said between them."""
    if len(text) <= limit:
        return text
    head, tail = limit // 2, limit - limit // 2
    return f"{text[:head]} ... (cut: {len(text):,} characters) ... {text[-tail:]}"


def cut_line(text: str, width: int) -> str:
    """``text`` on one line of at most ``width`` characters; a cut ends in ``…``."""
    line = one_line(text)
    return line if len(line) <= width else f"{line[: max(width - 1, 0)].rstrip()}…"


def cut_list(items: Iterable[str], limit: int, *, separator: str = ", ") -> str:
    """The first ``limit`` items, and how many more there are."""
    every = list(items)
    more = f" and {len(every) - limit:,} more" if len(every) > limit else ""
    return separator.join(every[:limit]) + more


def one_line(text: str) -> str:
    """``text`` with every run of white space as one space."""
    return " ".join(text.split())


def printable(text: str, *, keep: str = "") -> str:
    """``text`` without characters that are invisible, reorder what stands around them or steer a terminal.

    Args:
        keep: characters to keep though they are such, usually line break and tab.
    """
    return "".join(letter if letter in keep or _visible(letter) else " " for letter in text)


def format_bytes(count: float) -> str:
    """``"512 B"``, ``"1.5 KiB"``, ``"2 GiB"``: binary units, three digits."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1000:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:,.3g} TiB" if abs(size) < 1000 else f"{size:,.0f} TiB"


def format_usd(usd: float) -> str:
    """``"$1,234.50"``; below a cent four digits after the point."""
    return f"${usd:.4f}" if 0 < abs(usd) < 0.01 else f"${usd:,.2f}"


def format_usd_limit(usd: float) -> str:
    """``"4.51 USD"``: an upper limit, so rounded up to the next cent."""
    return f"{math.ceil(round(usd * 100, 6)) / 100:.2f} USD"


def nearest(name: str, known: Iterable[str], *, most: int = 1) -> list[str]:
    """The names most like ``name``, the best first; upper and lower case, and ``-`` and ``_``, count as the same.

    Only beginnings and the first names are compared: the work grows with the square of a length, and callers give
    lines of files and whatever a model wrote.
    """
    name = name[:_LONGEST_COMPARED]
    plain: dict[str, str] = {}
    for other in itertools.islice(known, _MOST_COMPARED):
        plain.setdefault(_folded(other[:_LONGEST_COMPARED]), other)
    return [plain[close] for close in difflib.get_close_matches(_folded(name), plain, n=most, cutoff=SIMILARITY)]


def did_you_mean(
    name: str, known: Iterable[str], *, what: str = "", most: int = 1, otherwise: str | None = None
) -> str:
    """What to say of ``name``, which is none of ``known``: the nearest of them, else all of them.

    Args:
        what: the kind of thing, singular, for the list: ``"column"``.
        most: how many near names to offer.
        otherwise: said instead of the list where nothing is near.
    """
    names = list(dict.fromkeys(known))
    if close := nearest(name, names, most=most):
        return f"Did you mean {' or '.join(map(repr, close))}?"
    if otherwise is not None:
        return otherwise
    if not names:
        return f"There is no {what}." if what else "There is none."
    return f"The {what}s are: {cut_list(names, _LISTED)}." if what else f"There are: {cut_list(names, _LISTED)}."


def _folded(name: str) -> str:
    return name.casefold().replace("_", "-")


def _visible(letter: str) -> bool:
    return letter.isprintable() and unicodedata.category(letter) != "Cf" and letter not in _BLANK


_BLANK = frozenset("\u00ad\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Printable by Unicode's categories, yet drawn as nothing."""
