"""Datasets in a script, as far as its source tells: splits or rows, their columns, their first row.

What a file holds is asked of a `Peek`; the static check looks at local files only, by their first row.
"""

from __future__ import annotations

import ast
import csv
import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mlintern.tools.scripts.script_ast import DEPTH, Call, Code

Row = Mapping[str, Any]
FIRST_BYTES = 4_000_000
KEPT = frozenset(
    {"select", "shuffle", "filter", "take", "skip", "sort", "with_format", "shard", "flatten_indices", "repeat"}
    | {"to_iterable_dataset", "cast", "cast_column", "unique", "set_format"}
)
"""Methods that keep the columns."""


@dataclass(frozen=True)
class Source:
    """What `load_dataset` is asked for. ``name``: a builder such as json, a Hub id or a folder."""

    name: str
    files: str | None = None
    config: str | None = None
    split: str | None = None
    revision: str | None = None


Peek = Callable[[Source], Row | None]
"""The first row of a source, or None if it cannot be had."""


@dataclass(frozen=True)
class Table:
    """What a name stands for. ``columns`` None: not known. ``first``: the first row, as it was loaded."""

    kind: Literal["rows", "splits", "unknown"]
    columns: frozenset[str] | None = None
    first: Row | None = None
    source: Source | None = None
    drawn: tuple[str, ...] = field(default=())

    def without_columns(self) -> Table:
        return replace(self, columns=None, first=None)


UNKNOWN = Table("unknown")


def read_table(code: Code, node: ast.expr | None, peek: Peek, depth: int = DEPTH) -> Table:
    """The dataset that ``node`` is."""
    node = code.follow(node)
    if node is None or depth == 0:
        return UNKNOWN
    if isinstance(node, ast.Subscript):
        owner = read_table(code, node.value, peek, depth - 1)
        known, key = code.literal(node.slice)
        if owner.kind == "splits" and known and isinstance(key, str):
            return replace(owner, kind="rows", drawn=(*owner.drawn, key))
        return UNKNOWN
    call = code.called(node)
    if call is None:
        return UNKNOWN
    if call.name in ("datasets.load_dataset", "load_dataset"):
        return _loaded(code, call, peek)
    if call.name.endswith("Dataset.from_list") or call.name.endswith("Dataset.from_dict"):
        return _written(code, call)
    if isinstance(call.node.func, ast.Attribute):
        return _changed(code, call, read_table(code, call.node.func.value, peek, depth - 1))
    return UNKNOWN


def _loaded(code: Code, call: Call, peek: Peek) -> Table:
    def text(name: str, position: int | None) -> str | None:
        argument = call.argument(name, position)
        known, value = code.literal(argument) if argument is not None else (False, None)
        return value if known and isinstance(value, str) else None

    name = text("path", 0)
    if call.opaque or name is None:
        return UNKNOWN
    split_node = call.argument("split", None)
    split = text("split", None)
    whole = split_node is None or (isinstance(split_node, ast.Constant) and split_node.value is None)
    files_node = call.argument("data_files", None)
    files = text("data_files", None)
    source = Source(name, files, text("name", 1), split, text("revision", None))
    first = None if files_node is not None and files is None else peek(source)
    return Table(
        kind="splits" if whole else "rows",
        columns=frozenset(first) if first is not None else None,
        first=first,
        source=source,
        drawn=(split,) if split else (),
    )


def _written(code: Code, call: Call) -> Table:
    node = code.follow(call.argument("mapping", 0))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        node = code.follow(node.left)
    first: ast.expr | None = None
    if isinstance(node, ast.List) and node.elts:
        first = node.elts[0]
    elif isinstance(node, ast.ListComp):
        first = node.elt
    if call.last == "from_dict":
        first = node
    items, whole = code.dictionary(first)
    if not whole or not items:
        return Table("rows")
    row: dict[str, Any] | None = {}
    for name, value in items.items():
        if call.last == "from_dict":
            value = value.left if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Mult) else value
            value = value.elts[0] if isinstance(value, ast.List) and value.elts else value
        known, found = code.literal(value)
        if row is not None and known:
            row[name] = found
        else:
            row = None
    return Table("rows", frozenset(items), row)


def _changed(code: Code, call: Call, owner: Table) -> Table:
    if owner is UNKNOWN:
        return UNKNOWN
    name = call.last
    first_argument = call.node.args[0] if call.node.args else next(iter(call.keywords.values()), None)
    known, value = code.literal(first_argument) if first_argument is not None else (False, None)
    named = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
    if name in KEPT:
        return replace(
            owner, drawn=(*owner.drawn, ast.unparse(call.node.func).rpartition(".")[2], ast.unparse(call.node))
        )
    if name == "train_test_split":
        return replace(owner, kind="splits", drawn=(*owner.drawn, name))
    if name == "map":
        return _mapped(code, call, owner)
    if owner.columns is None:
        return owner if name in ("remove_columns", "rename_column", "rename_columns", "select_columns") else UNKNOWN
    if name == "remove_columns" and known:
        return _only(owner, owner.columns - set(named))
    if name == "select_columns" and known:
        return _only(owner, owner.columns & set(named))
    if name == "rename_column" and len(call.node.args) == 2 and isinstance(value, str):
        return _renamed(owner, {value: code.literal(call.node.args[1])[1]})
    if name == "rename_columns" and known and isinstance(value, dict):
        return _renamed(owner, value)
    if name == "add_column" and isinstance(value, str):
        return replace(owner, columns=owner.columns | {value}, first=None)
    return UNKNOWN


def _only(owner: Table, columns: frozenset[str]) -> Table:
    first = {name: value for name, value in owner.first.items() if name in columns} if owner.first else None
    return replace(owner, columns=columns, first=first)


def _renamed(owner: Table, names: Mapping[str, Any]) -> Table:
    assert owner.columns is not None
    if any(not isinstance(name, str) for name in names.values()):
        return owner.without_columns()
    columns = frozenset(names.get(name, name) for name in owner.columns)
    first = {names.get(name, name): value for name, value in owner.first.items()} if owner.first else None
    return replace(owner, columns=columns, first=first)


def _mapped(code: Code, call: Call, owner: Table) -> Table:
    """What `map` leaves: the returned keys are added, those of remove_columns go."""
    function = code.function(call.argument("function", 0))
    returned = function and (
        function.body
        if isinstance(function, ast.Lambda)
        else next((node.value for node in ast.walk(function) if isinstance(node, ast.Return)), None)
    )
    items, whole = code.dictionary(returned) if isinstance(returned, ast.Dict) else ({}, False)
    removed = call.keywords.get("remove_columns")
    text = ast.unparse(removed) if removed is not None else ""
    known, gone = code.literal(removed) if removed is not None else (True, [])
    several = (
        not isinstance(function, ast.Lambda)
        and function is not None
        and sum(isinstance(node, ast.Return) for node in ast.walk(function)) != 1
    )
    if not whole or several:
        return owner.without_columns()
    if text.endswith("column_names"):
        return replace(owner, columns=frozenset(items), first=None)
    if owner.columns is None or not known:
        return owner.without_columns()
    kept = owner.columns - ({gone} if isinstance(gone, str) else set(gone or ()))
    return replace(owner, columns=kept | frozenset(items), first=None)


def local_row(source: Source) -> Row | None:
    """The first row of a local json, jsonl or csv file."""
    if source.name not in ("json", "csv") or source.files is None:
        return None
    path = Path(source.files).expanduser()
    try:
        if not path.is_file():
            return None
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig", errors="replace") as file:
            if source.name == "csv":
                return next(csv.DictReader([file.readline(65536), file.readline(1_000_000)]), None)
            line = file.readline(FIRST_BYTES)
        row = json.loads(line)
    except (OSError, ValueError, csv.Error):
        return None
    return row if isinstance(row, dict) else None
