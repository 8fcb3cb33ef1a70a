"""Metrics in the outputs of a Jupyter notebook: what a cell printed, and the tables that a Trainer shows there."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlintern.tools.health.printed_logs import Printed, read_printed

_ROW = re.compile(r"<tr\b.*?</tr>", re.S | re.I)
_CELL = re.compile(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", re.S | re.I)
_TAG = re.compile(r"<[^>]*>")


def read_notebook(text: str) -> Printed:
    """The rows of the cell that shows the most; a notebook often trains more than once.

    Raises:
        ValueError: it is not JSON.
    """
    notebook = json.loads(text)
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    found = [
        printed
        for cell in (cells if isinstance(cells, list) else [])
        if isinstance(cell, dict) and (printed := read_printed("\n".join(_outputs(cell)))).rows
    ]
    best = max(found, key=lambda printed: len(printed.rows), default=Printed())
    if len(found) > 1:
        best.notes.append(f"{len(found)} cells show metrics; the one with the most rows is read.")
    return best


def _outputs(cell: Mapping[str, Any]) -> Iterator[str]:
    outputs = cell.get("outputs")
    for output in outputs if isinstance(outputs, list) else []:
        if not isinstance(output, dict):
            continue
        shown = output.get("data")
        data: Mapping[str, Any] = shown if isinstance(shown, dict) else {}
        if output.get("output_type") == "error":
            yield f"Traceback (most recent call last):\n{output.get('ename')}: {output.get('evalue')}\n"
        elif "text/html" in data:
            yield "\n".join(_table(_joined(data["text/html"])))
        else:
            yield _joined(output.get("text", data.get("text/plain", "")))


def _table(text: str) -> Iterator[str]:
    for row in _ROW.findall(text):
        yield "\t".join(html.unescape(_TAG.sub("", cell)).strip() for cell in _CELL.findall(row))


def _joined(text: Any) -> str:
    """Notebooks keep a text as one string or as a list of lines."""
    return "".join(str(line) for line in text) if isinstance(text, list) else str(text)
