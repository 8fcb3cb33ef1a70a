"""Markdown from text that others wrote: names, paths, errors of jobs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table, a line each."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(cell(text) for text in row) + " |" for row in rows]


def cell(text: str) -> str:
    """Text that does not end its table cell."""
    return plain(text).replace("|", "\\|")


def plain(text: str) -> str:
    """Text from a name or a log on one line, unable to become markup."""
    return re.sub(r"([`\[\]]|<(?=[A-Za-z/!?]))", r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """Text as code. A backslash does not escape a backtick there, so that one becomes an apostrophe."""
    return "`" + " ".join(text.split()).replace("`", "'") + "`"
