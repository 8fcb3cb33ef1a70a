"""Checks of the calls that make a configuration or a trainer: fields, values, combinations, arguments."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from mlintern.tools.scripts.hyperparameters import CONFIG_CLASSES
from mlintern.tools.scripts.script_ast import Call, Code
from mlintern.tools.scripts.trainers.rules import cross_field_problems
from mlintern.tools.scripts.trainers.schema import (
    Problem,
    check_name,
    check_value,
    config_schema,
    known_classes,
)

TRAINER_CLASSES: Mapping[str, str] = {
    name.removesuffix("Config") + "Trainer": name for name in CONFIG_CLASSES.values()
}
"""SFTTrainer -> SFTConfig, and so on."""

MOVED: Mapping[str, str] = {
    "tokenizer": "processing_class=",
    "max_seq_length": "max_length= of the configuration",
    "beta": "beta= of the configuration",
    "reward_model": "reward_funcs=",
}
"""Arguments that trainers no longer take, and where they went."""


def configuration_checks(code: Code) -> Iterator[tuple[Problem, int]]:
    """(problem, line) of everything wrong with the configuration classes and trainers that ``code`` calls."""
    calls = [(call, call.name.rpartition(".")[2]) for call in code.calls()]
    for call, name in calls:
        if name in known_classes():
            yield from _configuration(code, call, name)
        elif name in TRAINER_CLASSES:
            yield from _trainer(call, name)
    configurations = [call for call, name in calls if name in TRAINER_CLASSES.values()]
    trainers = [call for call, name in calls if name in TRAINER_CLASSES]
    yield from _dtype(code, configurations, trainers)


def _configuration(code: Code, call: Call, name: str) -> Iterator[tuple[Problem, int]]:
    schema = config_schema(name)
    values: dict[str, Any] = {}
    for keyword, node in call.keywords.items():
        problem = check_name(schema, keyword)
        if problem is not None:
            yield problem, node.lineno
        if problem is None or problem.severity != "error":
            known, value = code.literal(node)
            if known:
                values[keyword] = value
                if (wrong := check_value(schema, keyword, value)) is not None:
                    yield wrong, node.lineno
            else:
                values[keyword] = _Unknown()
    if name == "LoraConfig":
        return
    if not call.opaque:
        for problem in cross_field_problems(name, values):
            line = call.keywords[problem.field].lineno if problem.field in call.keywords else call.line
            yield problem, line
    if values.get("logging_nan_inf_filter", call.opaque or True) is True:
        message = "logging_nan_inf_filter is on: a NaN loss is logged as 0 and the run looks healthy."
        yield Problem("nan_filter", "warning", "", message, "Set logging_nan_inf_filter=False."), call.line


class _Unknown:
    """Stands for a value that only the running script knows; no rule applies to it."""

    def __bool__(self) -> bool:
        return False


def _trainer(call: Call, name: str) -> Iterator[tuple[Problem, int]]:
    fields = config_schema(TRAINER_CLASSES[name]).fields
    for keyword, node in call.keywords.items():
        if keyword in MOVED:
            message = f"{name} takes no {keyword}."
            yield Problem("removed_argument", "error", keyword, message, f"Write {MOVED[keyword]}."), node.lineno
        elif keyword in fields:
            message = f"{name} takes no {keyword}: it is a field of {TRAINER_CLASSES[name]}."
            fix = f"Write {TRAINER_CLASSES[name]}({keyword}=...)."
            yield Problem("removed_argument", "error", keyword, message, fix), node.lineno


def _dtype(code: Code, configurations: list[Call], trainers: list[Call]) -> Iterator[tuple[Problem, int]]:
    """A model given by name is loaded in float32 unless the configuration says otherwise."""
    for trainer in trainers:
        model = trainer.keywords.get("model") or next(iter(trainer.node.args), None)
        if model is None or not isinstance(code.literal(model)[1], str):
            continue
        wanted = TRAINER_CLASSES[trainer.name.rpartition(".")[2]]
        for configuration in configurations:
            if configuration.name.rpartition(".")[2] != wanted:
                continue
            kwargs = configuration.keywords.get("model_init_kwargs")
            named = isinstance(kwargs, ast.Dict) and any(
                isinstance(key, ast.Constant) and key.value == "dtype" for key in kwargs.keys
            )
            if not named and not configuration.opaque and not (kwargs and not isinstance(kwargs, ast.Dict)):
                message = "The model is given by name without a dtype: TRL then loads it in float32."
                fix = 'Set model_init_kwargs={"dtype": "bfloat16"} (or "float32", if that is meant).'
                yield Problem("dtype", "warning", "", message, fix), configuration.line
