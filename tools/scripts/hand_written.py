"""What a script that was not rendered trains: the model, data and settings of its first trainer, as constants."""

from __future__ import annotations

import ast
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


WRAPPERS = ("get_peft_model", "prepare_model_for_kbit_training")
"""Functions that take a model first and return one."""


def _model(code: Code, trainer: Call) -> str | None:
    """The model of a trainer; where its source does not lead to a name, the first model that is loaded by one."""
    found = _named(code, trainer.argument("model", 0))
    return found or next(
        (
            name
            for call in code.calls()
            if call.last == "from_pretrained" and "Tokenizer" not in call.name and (name := _loaded(code, call))
        ),
        _default_option(code),
    )


def _named(code: Code, node: ast.expr | None, depth: int = 8) -> str | None:
    made = code.called(node)
    if made is None or depth == 0:
        value = code.literal(node)[1] if node is not None else None
        return value if isinstance(value, str) else None
    if made.last == "from_pretrained":
        return _loaded(code, made)
    if made.last in WRAPPERS:
        return _named(code, made.node.args[0] if made.node.args else made.keywords.get("model"), depth - 1)
    function = made.node.func
    return _named(code, function.value, depth - 1) if isinstance(function, ast.Attribute) else None  # model.to(...)


def _loaded(code: Code, call: Call) -> str | None:
    node = call.argument("pretrained_model_name_or_path", 0) or call.argument("model_name")
    value = code.literal(node)[1] if node is not None else None
    return value if isinstance(value, str) else None


def _default_option(code: Code) -> str | None:
    """The default of a command-line option that names the model."""
    for call in code.calls():
        option = code.literal(call.node.args[0])[1] if call.last == "add_argument" and call.node.args else None
        if isinstance(option, str) and "model" in option:
            default = call.keywords.get("default")
            value = code.literal(default)[1] if default is not None else None
            if isinstance(value, str):
                return value
    return None


def _literals(code: Code, call: Call | None) -> dict[str, Any]:
    given = {} if call is None else {name: code.literal(node) for name, node in call.keywords.items()}
    return {name: value for name, (known, value) in given.items() if known}


def _absolute(name: str) -> str:
    try:
        path = Path(name).expanduser()
        return str(path.absolute()) if path.exists() else name
    except (OSError, ValueError, RuntimeError):
        return name
