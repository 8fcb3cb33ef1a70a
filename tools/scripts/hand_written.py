"""What a script that was not rendered trains: the model, data and settings of its first trainer, as constants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlintern.tools.scripts.call_rules import CONFIGS, library_class
from mlintern.tools.scripts.script_ast import Call, Code
from mlintern.tools.scripts.tables import local_row, read_table
from mlintern.tools.scripts.trainers.exports import signature


def settings_of(code: Code) -> dict[str, Any]:
    """MODEL, DATASET, SPLIT, HYPERPARAMETERS and LORA as a rendered script would name them; empty without a trainer.

    Only what is certain from the source is there. Local files are named by absolute paths.
    """
    trainer = next((call for call in code.calls() if library_class(code, call) in CONFIGS), None)
    if trainer is None:
        return {}
    found: dict[str, Any] = {}
    if model := _model(code, trainer):
        found["MODEL"] = _absolute(model)
    table = read_table(code, trainer.argument("train_dataset"), local_row)
    if table.source is not None:
        found["DATASET"] = _absolute(table.source.files or table.source.name)
        found["SPLIT"] = table.source.split or next((part for part in table.drawn if part.isidentifier()), "train")
        found["DATASET_CONFIG"], found["DATASET_REVISION"] = table.source.config, table.source.revision
    found["HYPERPARAMETERS"] = _literals(code, code.called(trainer.argument("args", _position(trainer, "args"))))
    adapter = _literals(code, code.called(trainer.argument("peft_config")))
    return found | ({"LORA": adapter} if adapter else {})


def kept_columns(code: Code) -> frozenset[str] | None:
    """The columns that reach the trainer, where the source tells."""
    trainer = next((call for call in code.calls() if library_class(code, call) in CONFIGS), None)
    return None if trainer is None else read_table(code, trainer.argument("train_dataset"), local_row).columns


def _position(trainer: Call, argument: str) -> int | None:
    taken = signature("trl", trainer.last)
    return taken.index(argument) if taken and argument in taken else None


def _model(code: Code, trainer: Call) -> str | None:
    node = trainer.argument("model", 0)
    made = code.called(node)
    if made is not None and made.last in ("from_pretrained", "get_peft_model"):
        first = made.node.args[0] if made.node.args else made.keywords.get("pretrained_model_name_or_path")
        inner = code.called(first)
        node = inner.node.args[0] if inner is not None and inner.node.args else first
    value = code.literal(node)[1] if node is not None else None
    return value if isinstance(value, str) else None


def _literals(code: Code, call: Call | None) -> dict[str, Any]:
    given = {} if call is None else {name: code.literal(node) for name, node in call.keywords.items()}
    return {name: value for name, (known, value) in given.items() if known}


def _absolute(name: str) -> str:
    try:
        path = Path(name).expanduser()
        return str(path.absolute()) if path.exists() else name
    except (OSError, ValueError, RuntimeError):
        return name
