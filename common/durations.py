"""Lengths of time as text: one parser and one formatter for arguments, options, configuration and questions.

``parse_duration(format_duration(seconds)) == seconds`` for every finite number of seconds that is not negative.
"""

from __future__ import annotations

import itertools
import math
import re
from decimal import Decimal
from fractions import Fraction

SECONDS_PER_UNIT = {"d": 86400, "h": 3600, "min": 60, "s": 1}
"""The units that `format_duration` writes, the largest first."""

_SPELLINGS = {
    "d": ("d", "day", "days"),
    "h": ("h", "hr", "hrs", "hour", "hours"),
    "min": ("m", "min", "mins", "minute", "minutes"),
    "s": ("s", "sec", "secs", "second", "seconds"),
}
_UNIT_OF = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings}
_PART = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)
_LONGEST_TEXT = 400
_HINT = "write a number and a unit, such as 30s, 30m, 1h30m or 2d."


class BadDuration(ValueError):
    """A text that is not a duration; the message says what to write."""


def parse_duration(text: str) -> float:
    """Seconds of ``"30s"``, ``"30 min"``, ``"1h30m"``, ``"1.5 hours"`` or ``"2d"``.

    Each unit stands at most once, the larger before the smaller. A number needs a unit.

    Raises:
        BadDuration: it is not a duration.
    """
    rest = text.strip()
    if not rest or len(rest) > _LONGEST_TEXT:
        raise BadDuration(f"{rest[:40]!r} is not a duration: {_HINT}")
    total, last, position = Fraction(0), math.inf, 0
    while position < len(rest):
        part = _PART.match(rest, position)
        unit = _UNIT_OF.get(part[2].lower()) if part else None
        if part and not part[2] and part.end() == len(rest) and position == 0:
            raise BadDuration(f"{rest[:40]!r} has no unit: {part[1][:40]}s or {part[1][:40]}m?")
        if part is None or unit is None or SECONDS_PER_UNIT[unit] >= last:
            raise BadDuration(f"{rest[:40]!r} is not a duration: {_HINT}")
        last = SECONDS_PER_UNIT[unit]
        total += Fraction(part[1]) * SECONDS_PER_UNIT[unit]
        position = part.end()
    try:
        return float(total)
    except OverflowError:
        raise BadDuration(f"{rest[:40]!r} is longer than any duration here.") from None


def format_duration(seconds: float, *, rounded: bool = False) -> str:
    """``"1 h 30 min"``, ``"45 s"``, ``"2 d"``, ``"0.5 s"``: what `parse_duration` reads back.

    Args:
        seconds: finite and not negative.
        rounded: keep the two largest units and, below a minute, three digits: for measured times.
    """
    if rounded:
        seconds = _rounded(seconds)
    whole = int(seconds)
    fraction = Decimal(repr(float(seconds))) - whole
    parts = []
    for unit, length in SECONDS_PER_UNIT.items():
        count, whole = divmod(whole, length)
        amount = count + fraction if unit == "s" else Decimal(count)
        if amount:
            parts.append(f"{amount.normalize():f} {unit}")
    return " ".join(parts) or "0 s"


def _rounded(seconds: float) -> float:
    """``seconds`` to the unit below its largest one; two decimals at most below a minute."""
    if seconds < 59.95:
        return round(seconds, 1) if seconds >= 1 else float(f"{seconds:.2g}")
    steps = list(SECONDS_PER_UNIT.values())
    for larger, smaller in itertools.pairwise(steps):
        if seconds >= larger - smaller / 2:
            return float(round(seconds / smaller) * smaller)
    return float(round(seconds))
