"""How a script uses its datasets and trainers: columns and splits that are not there, methods that do not exist."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlintern.common.text import cut_list, did_you_mean
from mlintern.tools.scripts.call_rules import CONFIGS, library_class
from mlintern.tools.scripts.script_ast import Call, Code
from mlintern.tools.scripts.script_results import Check
from mlintern.tools.scripts.tables import Peek, Table, read_table
from mlintern.tools.scripts.trainers.exports import signature

NO_METHOD: Mapping[str, str] = {
    "save_pretrained": "trainer.save_model(folder), or trainer.model.save_pretrained(folder)",
    "save": "trainer.save_model(folder)",
    "fit": "trainer.train()",
    "generate": "trainer.model.generate(...)",
    "finetune": "trainer.train()",
}
"""Methods that trainers do not have, and what does the same."""

TRAIN_TAKES = frozenset({"resume_from_checkpoint", "trial", "ignore_keys_for_eval"})
MODEL_FIRST = frozenset({"SFTTrainer", "DPOTrainer", "GRPOTrainer", "RLOOTrainer", "KTOTrainer", "RewardTrainer"})
NAMING = {"remove_columns", "rename_column", "select_columns", "rename_columns"}
MOST_LINES = 200_000


def use_checks(code: Code, peek: Peek) -> Iterator[Check]:
    """Findings about calls on datasets and trainers, where the source is certain about what they are called on."""
    for call in code.calls():
        if library_class(code, call) in CONFIGS:
            yield from _made(code, call, peek)
        if isinstance(call.node.func, ast.Attribute):
            yield from _on_trainer(code, call, call.node.func.value)
            table = read_table(code, call.node.func.value, peek)
            if table.kind == "rows":
                yield from _on_rows(code, call, table)
    yield from _splits(code, peek)


def _error(rule: str, message: str, fix: str, node: ast.AST) -> Check:
    return Check(rule=rule, severity="error", message=message, fix=fix, line=getattr(node, "lineno", None))


def _made(code: Code, call: Call, peek: Peek) -> Iterator[Check]:
    if call.last in MODEL_FIRST and not call.opaque and call.argument("model", 0) is None:
        yield _error("no_model", f"{call.last} has no model.", 'Pass model="org/name".', call.node)
    taken = signature("trl", call.last) or ()
    position = taken.index("args") if "args" in taken else None
    config = code.called(call.argument("args", position))
    data = call.argument("train_dataset", taken.index("train_dataset") if "train_dataset" in taken else None)
    if config is not None and not config.opaque and "max_steps" not in config.keywords and _streams(code, data):
        yield _error(
            "streamed_without_steps",
            "The data is a stream, whose length nobody knows, and max_steps is not set.",
            "Set max_steps of the configuration, or load the data without streaming.",
            config.node,
        )


def _streams(code: Code, node: ast.expr | None, depth: int = 8) -> bool:
    call = code.called(node)
    if call is None or depth == 0:
        return False
    if call.last == "load_dataset":
        streaming = call.keywords.get("streaming")
        return streaming is not None and code.literal(streaming) == (True, True)
    return isinstance(call.node.func, ast.Attribute) and _streams(code, call.node.func.value, depth - 1)


def _on_trainer(code: Code, call: Call, owner: ast.expr) -> Iterator[Check]:
    made = code.called(owner)
    if made is None or library_class(code, made) not in CONFIGS:
        return
    method = call.node.func.attr if isinstance(call.node.func, ast.Attribute) else ""
    if method in NO_METHOD:
        yield _error("no_method", f"{made.last} has no {method}.", f"Write {NO_METHOD[method]}.", call.node)
    if method == "train":
        for name in sorted(set(call.keywords) - TRAIN_TAKES):
            fix = did_you_mean(name, TRAIN_TAKES, otherwise=f"It takes {', '.join(sorted(TRAIN_TAKES))}.")
            yield _error("unknown_argument", f"train() takes no {name}.", fix, call.keywords[name])


def _on_rows(code: Code, call: Call, table: Table) -> Iterator[Check]:
    method = call.node.func.attr if isinstance(call.node.func, ast.Attribute) else ""
    columns = table.columns
    if columns is not None and method in NAMING and call.node.args:
        known, value = code.literal(call.node.args[0])
        names = [value] if isinstance(value, str) else list(value) if isinstance(value, list | tuple | dict) else []
        if known and (absent := [name for name in names if isinstance(name, str) and name not in columns]):
            yield _absent(f"{method} names {', '.join(absent)}", columns, call.node)
    if columns is not None and method in ("map", "filter"):
        yield from _read_by(code, call, columns)
    if method in ("select", "train_test_split") and table.source is not None and len(table.drawn) <= 1:
        yield from _beyond(code, call, table, method)


def _absent(said: str, columns: frozenset[str], node: ast.AST) -> Check:
    shown = cut_list(sorted(columns), 12)
    return _error("absent_column", f"{said}, and the data has no such column.", f"It has {shown}.", node)


def _read_by(code: Code, call: Call, columns: frozenset[str]) -> Iterator[Check]:
    """Columns that the function of `map` or `filter` reads from its row by a constant name."""
    function = code.function(call.argument("function", 0))
    if function is None or "input_columns" in call.keywords or not function.args.args:
        return
    row = function.args.args[0].arg
    tested = {
        node.left.value
        for node in ast.walk(function)
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Constant)
    }
    nodes = list(ast.walk(function))
    named = [node for node in nodes if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant)]
    written = {node.slice.value for node in named if isinstance(node.ctx, ast.Store)}  # type: ignore[attr-defined]
    rebound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    caught = any(isinstance(node, ast.Try) for node in ast.walk(function))
    if row in rebound or caught:
        return
    for node in ast.walk(function):
        if not isinstance(node, ast.Subscript) or not isinstance(node.ctx, ast.Load):
            continue
        if not isinstance(node.value, ast.Name) or node.value.id != row or not isinstance(node.slice, ast.Constant):
            continue
        name: Any = node.slice.value
        if isinstance(name, str) and name not in columns | tested | written:
            yield _absent(f"The function of {call.last} reads {name}", columns, node)
            return


def _beyond(code: Code, call: Call, table: Table, method: str) -> Iterator[Check]:
    wanted = _rows_wanted(code, call, method)
    source = table.source
    if wanted is None or source is None or source.name != "json" or source.files is None or wanted > MOST_LINES:
        return
    rows = _lines(source.files, wanted + 1)
    least = wanted if method == "select" else wanted + 1
    if rows is not None and rows < least:
        yield _error(
            "too_few_rows",
            f"{method} takes {wanted} rows, and {Path(source.files).name} has {rows}.",
            "Take min(n, len(dataset)), or fewer.",
            call.node,
        )


def _rows_wanted(code: Code, call: Call, method: str) -> int | None:
    node = call.argument("indices" if method == "select" else "test_size", 0)
    if method == "select":
        made = code.follow(node)
        if not isinstance(made, ast.Call) or not isinstance(made.func, ast.Name) or made.func.id != "range":
            return None
        node = made.args[0] if len(made.args) == 1 else made.args[1] if len(made.args) == 2 else None
    known, value = code.literal(node) if node is not None else (False, None)
    return value if known and isinstance(value, int) and not isinstance(value, bool) else None


def _lines(name: str, most: int) -> int | None:
    """Rows of a file of JSON lines, up to ``most``; None for what is no such file."""
    path = Path(name).expanduser()
    try:
        if path.suffix != ".jsonl" or not path.is_file():
            return None
        count = 0
        with path.open("rb") as file:
            for line in file:
                count += bool(line.strip())
                if count >= most:
                    break
    except (OSError, ValueError):
        return None
    return count


def _splits(code: Code, peek: Peek) -> Iterator[Check]:
    """A split that files given without a name do not have: all of them are `train`."""
    for node in ast.walk(code.tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            owner = code.called(node.value)
            known, name = code.literal(node.slice)
            if known and isinstance(name, str) and owner is not None and _only_train(code, owner):
                yield from _no_split(name, node)
    for call in code.calls():
        split = call.keywords.get("split")
        if split is not None and _only_train(code, call):
            known, name = code.literal(split)
            if known and isinstance(name, str):
                yield from _no_split(name.partition("[")[0], split)


def _only_train(code: Code, call: Call) -> bool:
    if call.name not in ("datasets.load_dataset", "load_dataset") or call.opaque:
        return False
    builder, files = call.argument("path", 0), call.argument("data_files")
    named = builder is not None and code.literal(builder)[1] in ("json", "csv", "parquet", "text")
    known, value = code.literal(files) if files is not None else (False, None)
    return named and known and isinstance(value, str | list)


def _no_split(name: str, node: ast.AST) -> Iterator[Check]:
    if name != "train" and "+" not in name:
        yield _error(
            "no_split",
            f"Files that are given without a name are the split train: there is no {name!r}.",
            'Write data_files={"train": ..., "test": ...}, or train_test_split.',
            node,
        )
