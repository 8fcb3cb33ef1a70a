"""The data of a trainer in a script: splits where rows are needed, columns that it does not take, files not there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlintern.tools.data.trl_rules import try_row
from mlintern.tools.scripts.call_rules import CONFIGS, library_class, values_of
from mlintern.tools.scripts.script_ast import Call, Code
from mlintern.tools.scripts.script_results import Check
from mlintern.tools.scripts.tables import Peek, Table, read_table
from mlintern.tools.scripts.trainer_columns import needed_columns

TRIED = {"SFTTrainer": "sft", "DPOTrainer": "dpo", "GRPOTrainer": "grpo"}
CLASHING = frozenset({"prompts", "completions", "trainer_state", "log_extra", "log_metric"})
"""Columns whose names TRL passes to reward functions for something else."""


def data_checks(code: Code, peek: Peek) -> Iterator[Check]:
    """Findings about the data of each trainer."""
    yield from _absent_files(code)
    for call in code.calls():
        name = library_class(code, call)
        if name in CONFIGS:
            for argument in ("train_dataset", "eval_dataset"):
                node = call.argument(argument)
                if node is not None:
                    yield from _dataset(code, call, str(name), argument, read_table(code, node, peek), node)
            yield from _formatting(code, call)
            yield from _overlap(code, call, peek)


def _error(rule: str, message: str, fix: str, node: ast.AST, *, severity: Any = "error") -> Check:
    return Check(rule=rule, severity=severity, message=message, fix=fix, line=getattr(node, "lineno", None))


def _dataset(code: Code, call: Call, name: str, argument: str, table: Table, node: ast.expr) -> Iterator[Check]:
    if table.kind == "splits" and argument == "train_dataset":
        yield _error(
            "dataset_dict",
            f"{argument} of {name} is a dictionary of splits, not a dataset.",
            'Choose one: load_dataset(..., split="train"), or dataset["train"].',
            node,
        )
        return
    if table.kind != "rows" or table.columns is None or "formatting_func" in call.keywords:
        return
    columns = table.columns
    if name in ("GRPOTrainer", "RLOOTrainer") and (clash := sorted(CLASHING & columns)):
        yield _error(
            "reserved_column",
            f"The data has a column {clash[0]}, and TRL passes something else to the rewards under that name.",
            f"Rename it: dataset.rename_column({clash[0]!r}, ...).",
            node,
        )
    needed = _for_sft(code, call) if name == "SFTTrainer" else needed_columns(name)
    if name == "GKDTrainer" and "data_collator" in call.keywords:  # it alone reads the rows
        needed = None
    if needed is not None and not any(one <= columns for one in needed):
        wanted = " or ".join(", ".join(sorted(one)) for one in needed)
        yield _error(
            "columns",
            f"{name} needs the columns {wanted}; the data has {', '.join(sorted(columns)[:12])}.",
            "Map or rename the columns; inspect_dataset says how.",
            node,
        )
    elif table.first is not None and name in TRIED and not code_changes(code, call):
        first = dict(table.first)
        refusal = next(
            (outcome.refusal for outcome in try_row(TRIED[name], first, row=first) if outcome.refusal), None
        )
        if refusal and argument == "train_dataset":
            yield _error(
                "row_refused", f"TRL stops at the first row: {refusal}.", "inspect_dataset says what to change.", node
            )


def code_changes(code: Code, call: Call) -> bool:
    """Whether the configuration changes which column is read, so that the usual rules for rows do not hold."""
    config = code.called(call.argument("args"))
    if config is None or config.opaque:
        return True
    return bool({"dataset_text_field", "dataset_kwargs"} & set(config.keywords))


def _for_sft(code: Code, call: Call) -> tuple[frozenset[str], ...] | None:
    config = code.called(call.argument("args"))
    if config is None and call.argument("args") is not None:
        return None
    values = values_of(code, config) if config is not None else {}
    field = values.get("dataset_text_field", "text")
    if (config is not None and config.opaque) or not isinstance(field, str) or "dataset_kwargs" in values:
        return None
    return needed_columns("SFTTrainer", text_field=field)


def _formatting(code: Code, call: Call) -> Iterator[Check]:
    """`formatting_func` is called with one row and returns one text."""
    node = call.argument("formatting_func")
    function = code.function(node)
    if function is None or node is None:
        return
    returned = (
        [function.body]
        if isinstance(function, ast.Lambda)
        else [item.value for item in ast.walk(function) if isinstance(item, ast.Return) and item.value is not None]
    )
    lists = (ast.List, ast.ListComp, ast.Dict)
    if returned and all(isinstance(code.follow(value), lists) for value in returned):
        yield _error(
            "formatting",
            "formatting_func is called with one row and must return one text, not a list of them.",
            "Write def formatting(row): return f\"...{row['column']}...\".",
            node,
        )


def _absent_files(code: Code) -> Iterator[Check]:
    for call in code.calls():
        if call.last not in ("load_dataset", "load_from_disk", "from_json", "from_csv", "from_parquet", "read_json"):
            continue
        nodes = [call.argument("data_files"), call.argument("path", 0), *call.node.args[:1]]
        for node in nodes:
            value = code.literal(node)[1] if node is not None else None
            if isinstance(value, str) and value.startswith("/") and not any(mark in value for mark in "*?[{"):
                if not _exists(value):
                    yield _error(
                        "absent_file",
                        f"{value} does not exist on this machine.",
                        "Correct the path, or put the data where the job runs.",
                        node or call.node,
                    )
                break


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def _overlap(code: Code, call: Call, peek: Peek) -> Iterator[Check]:
    train, held = call.argument("train_dataset"), call.argument("eval_dataset")
    if train is None or held is None or ast.dump(train) == ast.dump(held):
        return  # the same name for both is told by its own rule
    one, other = read_table(code, train, peek), read_table(code, held, peek)
    if one.source is not None and one.source == other.source and "train_test_split" not in one.drawn + other.drawn:
        whole = one.drawn == (one.source.split,) if one.source.split else False
        part = len(other.drawn) > len(one.drawn)
        if whole and (part or one.drawn == other.drawn):
            yield _error(
                "evaluates_on_training_data",
                "eval_dataset is a part of train_dataset.",
                "Hold rows out: dataset.train_test_split(test_size=...).",
                held,
                severity="warning",
            )
