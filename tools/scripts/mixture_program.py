"""The datasets of a training recipe as its script loads them: constants, functions, switches of the template."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlintern.tools import python_source
from mlintern.tools.scripts.data_sources import load_options
from mlintern.tools.scripts.filter_snippets import read_filters
from mlintern.tools.scripts.mixture import DatasetPart
from mlintern.tools.scripts.program import SourceNames, source_names
from mlintern.tools.scripts.snippets import Snippet, read_snippet


@dataclass(frozen=True)
class LoadedPart:
    """One dataset as `training_data.j2` reads it: names of constants and functions, no values.

    ``count`` names the constant that says how many rows are drawn, "" where all are taken.
    """

    number: int
    source: SourceNames
    count: str
    holdout: str
    columns: str
    kept: str
    weight: str
    prepare: str | None
    own_filters: tuple[str, ...]
    named_filters: tuple[str, ...]
    loaded_filters: tuple[str, ...]
    whole_filters: tuple[str, ...]

    @property
    def changes_rows(self) -> bool:
        every = (self.own_filters, self.named_filters, self.loaded_filters, self.whole_filters)
        return bool(self.prepare or any(every))

    @property
    def streams(self) -> bool:
        """Whether only some rows are drawn, by a loader that can read a stream."""
        whole = self.holdout or self.loaded_filters or self.source.kind.startswith("saved")
        return bool(self.count) and not whole


@dataclass(frozen=True)
class TrainingData:
    """All datasets of a script. ``snippets`` are the functions that it carries for them."""

    parts: tuple[LoadedPart, ...]
    constants: dict[str, Any]
    snippets: tuple[Snippet, ...]


def training_data(
    parts: Sequence[DatasetPart],
    *,
    mixed: bool,
    limit: int | None,
    beside: Callable[[Collection[str]], Collection[str]],
) -> TrainingData:
    """What a script needs to load ``parts``; a recipe with one `dataset` is a single part, not ``mixed``.

    Args:
        beside: columns as the trainer calls them -> these and those that it reads with them.
    """
    loaded: list[LoadedPart] = []
    constants: dict[str, Any] = {}
    snippets: list[Snippet] = []
    for number, part in enumerate(parts, start=1):
        prefix = f"PART_{number}" if mixed else ""
        own = _Snippets(snippets, suffix=f"_{number}")
        filters = read_filters(part.filter)
        prepare = part.prepare and own.add(read_snippet(part.prepare, what="prepare", parameters=1, prefer="prepare"))
        start = f"{prefix}_" if prefix else ""
        counted = part.rows is not None if mixed else limit is not None
        loaded.append(
            LoadedPart(
                number=number,
                source=source_names(part.dataset, prefix, config=part.dataset_config),
                count=(f"{start}ROWS" if mixed else "LIMIT") if counted else "",
                holdout=f"{start}HOLDOUT" if part.holdout else "",
                columns=f"{start}COLUMNS" if part.columns else "",
                kept=f"{start}KEPT" if part.columns else "",
                weight=f"{start}WEIGHT",
                prepare=prepare or None,
                own_filters=tuple(own.add(snippet) for snippet in filters.own),
                named_filters=tuple(own.add(snippet) for snippet in filters.named),
                loaded_filters=tuple(own.add(snippet) for snippet in filters.loaded),
                whole_filters=tuple(own.add(snippet) for snippet in filters.whole),
            )
        )
        constants |= _constants(part, prefix) | {f"{start}KEPT": sorted(beside(part.columns))}
    return TrainingData(tuple(loaded), constants, tuple(snippets))


def _constants(part: DatasetPart, prefix: str) -> dict[str, Any]:
    names = source_names(part.dataset, prefix, config=part.dataset_config)
    start = f"{prefix}_" if prefix else ""
    return {
        names.name: part.dataset,
        names.config: part.dataset_config,
        f"{start or 'DATASET_'}OPTIONS": load_options(part.dataset),
        names.revision: part.dataset_revision,
        names.split: part.split,
        f"{start}HOLDOUT": part.holdout.model_dump() if part.holdout else None,
        f"{start}COLUMNS": {theirs: ours for ours, theirs in part.columns.items()},
        **({f"{start}ROWS": part.rows, f"{start}WEIGHT": part.weight} if prefix else {}),
    }


class _Snippets:
    """Adds functions to a script; the same one is carried once, another of the same name gets a name of its own."""

    def __init__(self, carried: list[Snippet], *, suffix: str) -> None:
        self._carried = carried
        self._suffix = suffix

    def add(self, snippet: Snippet) -> str:
        if snippet in self._carried:
            return snippet.function
        taken = {name for other in self._carried for name in bound_names(other.body)}
        if clash := taken & bound_names(snippet.body):
            snippet = renamed(snippet, {name: f"{name}{self._suffix}" for name in clash})
        if snippet not in self._carried:
            self._carried.append(snippet)
        return snippet.function


def bound_names(source: str) -> set[str]:
    """Names that the top level of ``source`` binds."""
    found: set[str] = set()
    for node in python_source.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def renamed(snippet: Snippet, names: dict[str, str]) -> Snippet:
    """``snippet`` with other names for what it binds; attributes and names of arguments stay as they are."""
    tokens = list(tokenize.generate_tokens(io.StringIO(snippet.body).readline))
    lines = snippet.body.splitlines(keepends=True)
    depth, places = 0, []
    for at, token in enumerate(tokens):
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
        if token.type != tokenize.NAME or token.string not in names:
            continue
        before = tokens[at - 1].string if at else ""
        argument = depth > 0 and tokens[at + 1].string == "="
        if before != "." and not argument:
            places.append((token.start, token.string))
    for (row, column), name in reversed(places):
        line = lines[row - 1]
        lines[row - 1] = line[:column] + names[name] + line[column + len(name) :]
    return replace(snippet, function=names.get(snippet.function, snippet.function), body="".join(lines))
