"""Rows as a script's own preparation leaves them, as far as that can be said without running its code."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlintern.tools.data.formats import judge_formats
from mlintern.tools.data.local_files import LocalSplit
from mlintern.tools.data.prepare import Preparation
from mlintern.tools.data.table import open_table
from mlintern.tools.scripts.store import Script

Row = dict[str, Any]
_CHANGES = re.compile(r"\.(?:map|filter|from_list|from_dict|from_generator|add_column)\(")
"""What an edited script may do to its rows."""


def prepared(script: Script, trainer: str, columns: Any, rows: Sequence[Row], *, scratch: Path) -> list[Row] | None:
    """``rows`` with the renamed columns; None where they go through code that nobody but the script's author wrote.

    A `prepare` that `inspect_dataset` offers for this very data is mlintern's own, and is run.
    """
    renamed = [_renamed(row, columns, keeps_all=trainer == "grpo") for row in rows]
    source = (script.recipe or {}).get("prepare")
    if source is None:
        loading = script.text.split("def main", 1)[0].split("def read_items", 1)[0]
        return None if _CHANGES.search(loading) else renamed
    function = _own(str(source), trainer, renamed, scratch)
    return None if function is None else [function(dict(row)) for row in renamed]


def _renamed(row: Row, columns: Any, *, keeps_all: bool) -> Row:
    """As the script does it: ``columns`` maps names in the data to names that the trainer expects."""
    if not isinstance(columns, Mapping) or not columns:
        return row
    kept = row if keeps_all else {name: row[name] for name in columns if name in row}
    return {str(columns.get(name, name)): value for name, value in kept.items()}


def _own(source: str, trainer: str, rows: Sequence[Row], scratch: Path) -> Callable[[Row], Row] | None:
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        file = folder / "rows.jsonl"
        file.write_text("".join(f"{json.dumps(row, default=str)}\n" for row in rows), encoding="utf-8")
        with open_table(LocalSplit("train", (file,), "json"), scratch=folder) as table:
            offered = judge_formats(table, (trainer,))[trainer].prepare
    return Preparation("", offered).function() if offered and offered.strip() == source.strip() else None
