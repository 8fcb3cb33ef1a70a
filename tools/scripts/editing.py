"""Replacing one piece of a text, safely: it must be there, and there once."""

from __future__ import annotations

from mlintern.common.text import nearest
from mlintern.tools.errors import BadInput

MOST_PLACES = 100
"""Places of a piece that are counted: one that occurs more often is no use in any case."""


def replace_once(text: str, old: str, *, new: str | None) -> str:
    """``text`` with its only occurrence of ``old`` replaced by ``new``.

    Raises:
        BadInput: ``old`` is empty, absent (the message shows the nearest line), or there several times (it says
            where), or ``new`` is missing or the same.
    """
    if new is None:
        raise BadInput("new_text is missing.", next_step="Give what to put in place of old_text; it may be empty.")
    if not old:
        raise BadInput("old_text is empty.", next_step="Give the piece to replace.")
    if old == new:
        raise BadInput("old_text and new_text are the same.", next_step="Nothing would change.")
    starts = _occurrences(text, old)
    if len(starts) > 1:
        lines = ", ".join(str(text.count("\n", 0, start) + 1) for start in starts[:10])
        more = " and more" if len(starts) > 10 else ""
        count = f"at least {MOST_PLACES}" if len(starts) == MOST_PLACES else str(len(starts))
        raise BadInput(
            f"old_text occurs {count} times, in lines {lines}{more}.",
            next_step="Add the lines around the one that you mean.",
        )
    if not starts:
        raise BadInput("old_text does not occur.", next_step=_nearest(text, old))
    return text[: starts[0]] + new + text[starts[0] + len(old) :]


def _occurrences(text: str, piece: str) -> list[int]:
    """Where ``piece`` starts in ``text``, overlapping places included; the first `MOST_PLACES` of them."""
    starts: list[int] = []
    start = text.find(piece)
    while start >= 0 and len(starts) < MOST_PLACES:
        starts.append(start)
        start = text.find(piece, start + 1)
    return starts


def _nearest(text: str, piece: str) -> str:
    wanted = next((line for line in piece.splitlines() if line.strip()), "")
    lines = text.splitlines()
    near = nearest(wanted, lines)
    if not near:
        return "Read the script first: mind spaces and line breaks."
    return f"Line {lines.index(near[0]) + 1} is the nearest: {near[0].strip():.120}"
