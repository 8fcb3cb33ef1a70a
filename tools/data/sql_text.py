"""Names and values as DuckDB's SQL has them, and its complaints as errors of ours."""

from __future__ import annotations

from mlintern.tools.errors import BadInput


def unreadable(error: Exception) -> BadInput:
    """DuckDB's complaint as ours, its advice about its own options left out."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return BadInput(
        f"The data cannot be read: {lines[0] if lines else error}",
        next_step="Repair or re-export the file (UTF-8 text, one schema for all files of a split).",
    )


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
