"""Rows as a script's own preparation leaves them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlintern.tools import python_source
from mlintern.tools.data.filters import first_of_each, named_filter
from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.hand_written import kept_columns
from mlintern.tools.scripts.script_ast import Code
from mlintern.tools.scripts.snippet_process import is_plain, run_over
from mlintern.tools.scripts.snippets import Snippet, read_snippet
from mlintern.tools.scripts.store import Script

Row = dict[str, Any]
_CHANGES = re.compile(r"\.(?:map|filter|from_list|from_dict|from_generator|add_column)\(")
"""What an edited script may do to its rows."""


@dataclass(frozen=True)
class Prepared:
    """Rows after `filter` and `prepare`, each with the number that it had. ``given`` are they before.

    ``dropped`` counts those that were left out; ``errors`` says what a function raised, by number of the row.
    """

    rows: list[Row]
    given: list[Row]
    numbers: list[int]
    dropped: int
    errors: dict[int, str]


def prepared(
    script: Script,
    rows: Sequence[Row],
    *,
    columns: Any,
    kept: Collection[str] | None,
    recipe: Mapping[str, Any] | None,
) -> Prepared | None:
    """``rows`` as the script trains on them; None where they go through code that is more than a plain function.

    Args:
        columns: names in the data -> names that the trainer expects.
        kept: where ``columns`` are given and there is no `prepare`, the columns that stay; None: all.
        recipe: what the recipe says of this dataset: its `prepare` and `filter`.
    """
    recipe = recipe or {}
    renamed = [_renamed(row, columns) for row in rows]
    kept = None if recipe.get("prepare") or not columns else kept
    if script.recipe is None and "MLINTERN_DRY_RUN" not in script.text:
        columns = kept_columns(Code.of(script.text, python_source.parse(script.text)))
        if columns is None or not rows or not columns <= set(rows[0]):
            return None
        renamed = [{name: value for name, value in row.items() if name in columns} for row in rows]
        return Prepared(renamed, renamed, list(range(len(renamed))), 0, {})
    numbers = list(range(len(renamed)))
    errors: dict[int, str] = {}
    made = renamed
    if not (recipe.get("prepare") or recipe.get("filter")):
        loading = script.text.split("def main", 1)[0].split("def read_items", 1)[0]
        if script.recipe is None and _CHANGES.search(loading):
            return None
        made = _selected(made, kept)
        return Prepared(made, made, numbers, 0, {})
    try:
        steps = _steps(recipe)
    except BadInput:
        return None
    for field, source, function in steps:
        if not function:  # a filter of ours over all rows
            at_once = _kept_at_once(source, made, numbers)
            numbers, made = [numbers[at] for at in at_once], [made[at] for at in at_once]
            continue
        if not is_plain(source):
            return None
        outcomes = run_over(source, function, rows=made)
        if outcomes.failed:
            return Prepared([], renamed, [], 0, {0: f"{field}: {outcomes.failed}"})
        errors |= {numbers[at]: f"{field} raises {why}" for at, why in outcomes.errors.items()}
        stayed = [
            (number, row if field == "filter" else value)
            for at, (number, row, value) in enumerate(zip(numbers, made, outcomes.values, strict=True))
            if at not in outcomes.errors and (value if field == "filter" else value is not None)
        ]
        numbers, made = [number for number, _ in stayed], [row for _, row in stayed]
    odd = next((number for number, row in zip(numbers, made, strict=True) if not isinstance(row, dict)), None)
    if odd is not None:
        return Prepared([], renamed, [], 0, {odd: "prepare returns no dictionary"})
    given = _selected([renamed[number] for number in numbers], kept)
    return Prepared(_selected(made, kept), given, numbers, len(renamed) - len(made) - len(errors), errors)


def _steps(recipe: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(field, source, function) in the order of the script: own filters, `prepare`, named filters.

    A named filter over all rows has its name in place of its source, and no function.
    """
    given = recipe.get("filter") or []
    texts = [given] if isinstance(given, str) else list(given)
    named = [(text, named_filter(text)) for text in texts if "def " not in text]
    at_once = {kind: [("filter", text, None) for text, one in named if one.of == kind] for kind in ("loaded", "rows")}
    steps: list[tuple[str, str, Snippet | None]] = [*at_once["loaded"]]
    steps += [
        ("filter", text, read_snippet(text, what="filter", parameters=1, prefer="keep"))
        for text in texts
        if "def " in text
    ]
    if isinstance(source := recipe.get("prepare"), str):
        steps.append(("prepare", source, read_snippet(source, what="prepare", parameters=1, prefer="prepare")))
    steps += [
        ("filter", one.source, read_snippet(one.source, what="filter", parameters=1))
        for _, one in named
        if one.of == "row"
    ]
    steps += at_once["rows"]
    return [(field, text, snippet.function if snippet else "") for field, text, snippet in steps]


def _kept_at_once(text: str, rows: Sequence[Row], numbers: Sequence[int]) -> list[int]:
    """Which of ``rows``, numbered so in the data, a filter over all rows keeps."""
    named = named_filter(text)
    if named.of == "rows":
        return first_of_each(rows)
    return [at for at, number in enumerate(numbers) if number not in named.dropped]


def _renamed(row: Row, columns: Any) -> Row:
    """As the script does it: ``columns`` maps names in the data to names that the trainer expects."""
    if not isinstance(columns, Mapping) or not columns:
        return row
    replaced = set(columns.values()) - set(columns)
    return {str(columns.get(name, name)): value for name, value in row.items() if name not in replaced}


def _selected(rows: list[Row], kept: Collection[str] | None) -> list[Row]:
    if kept is None:
        return rows
    return [{name: value for name, value in row.items() if name in kept} for row in rows]
