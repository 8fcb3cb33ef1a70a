"""What the trial of a script is told: what to load in place of models and data, and which classes to look at."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.tools import python_source
from mlintern.tools.scripts.data_sources import is_local
from mlintern.tools.scripts.dry_settings import (
    ALWAYS,
    AT_MOST,
    IF_GIVEN,
    OTHER_WEIGHTS,
    ROWS,
    Constants,
    has_seam,
    small_hyperparameters,
)
from mlintern.tools.scripts.script_ast import UNPARSED, Code
from mlintern.tools.scripts.script_inputs import DataSource
from mlintern.tools.scripts.trainers.exports import library_of
from mlintern.tools.scripts.trainers.schema import known_classes

LOADED_ROWS = 1000
"""Rows of a dataset that a script of one's own is given; the trainer gets `ROWS` of them."""

UNFETCHED = ("json", "csv", "parquet", "text", "arrow", "generator", "imagefolder")
"""Builders that `load_dataset` takes in place of a Hub id."""


@dataclass(frozen=True)
class Loaded:
    """A dataset that a script of one's own loads from the Hub: ``key`` is what it passes to `load_dataset`."""

    key: str
    source: DataSource


def code_of(text: str) -> Code | None:
    """None for what is not Python."""
    try:
        return Code.of(text, python_source.parse(text))
    except UNPARSED:
        return None


def can_be_tried(text: str) -> bool:
    """Whether a dry run can make the script small: by its own seam, or by the trainer that it calls."""
    constants = Constants.of(text)
    if constants is None or constants.model is None:
        return False
    code = code_of(text)
    return has_seam(text) or (code is not None and bool(_classes(code, "Trainer")))


def hub_data(code: Code) -> tuple[list[Loaded], bool]:
    """The datasets of the Hub that are loaded by name, and whether every other one lies here."""
    found: dict[str, Loaded] = {}
    whole = True
    splits = _splits_named(code)
    for call in code.calls():
        if call.name not in ("datasets.load_dataset", "load_dataset"):
            continue
        values = [code.literal(node) if node is not None else (True, None) for node in _load_arguments(call)]
        (known, path), (_, name), (_, split), (_, revision) = values
        if not known or not isinstance(path, str):
            whole = False
            continue
        if path in UNFETCHED or is_local(path) or _is_here(path):
            continue
        wanted = split if isinstance(split, str) else "+".join(splits)
        key = json.dumps([path, name if isinstance(name, str) else None])
        given = found.get(key)
        if given is not None:
            wanted = "+".join(dict.fromkeys([*given.source.split.split("+"), *wanted.split("+")]))
        config, commit = (value if isinstance(value, str) else None for value in (name, revision))
        found[key] = Loaded(key, DataSource(path, config, wanted, commit))
    return list(found.values()), whole


def _load_arguments(call: Any) -> list[ast.expr | None]:
    return [call.argument("path", 0), call.argument("name", 1), call.argument("split"), call.argument("revision")]


def _splits_named(code: Code) -> list[str]:
    """Names by which the script takes a split out of a dictionary of them; `train` where it names none."""
    named = [
        node.slice.value
        for node in ast.walk(code.tree)
        if isinstance(node, ast.Subscript)
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
        and node.slice.value.startswith(("train", "test", "valid", "eval", "dev"))
    ]
    return list(dict.fromkeys(named)) or ["train"]


def _is_here(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def plan_of(text: str, constants: Constants, *, tiny: Path, copies: Mapping[str, Path]) -> dict[str, Any]:
    """The plan that `trial.Trial` reads. ``copies``: key of a `Loaded` -> the local rows in its place."""
    code = code_of(text)
    assert code is not None
    by_hand = not has_seam(text)
    configurations = _classes(code, "Config")
    plan: dict[str, Any] = {
        "tiny": str(tiny),
        "by_hand": by_hand,
        "trainers": _classes(code, "Trainer"),
        "configurations": configurations,
        "copies": {key: str(path) for key, path in copies.items()},
        "rows": ROWS,
        "loaded_rows": LOADED_ROWS,
        "always": dict(ALWAYS),
        "if_given": dict(IF_GIVEN),
        "at_most": dict(AT_MOST),
        "weights": list(OTHER_WEIGHTS),
    }
    given = constants.values.get("HYPERPARAMETERS")
    dotted = next((one for one in configurations if one.endswith(f".{constants.config_class}")), None)
    if not by_hand and isinstance(given, dict) and dotted is not None and constants.config_class is not None:
        module, _, name = dotted.rpartition(".")
        plan["real"] = {"module": module, "name": name, "values": given}
    return plan


def replaced_by_seam(constants: Constants) -> dict[str, list[Any]]:
    """Field -> what it is, and what the dry run of a rendered script makes of it."""
    given = constants.values.get("HYPERPARAMETERS")
    if not isinstance(given, dict) or not constants.config_class:
        return {}
    small = small_hyperparameters(given, constants.config_class)
    return {name: [given.get(name), value] for name, value in small.items() if given.get(name) != value}


def _classes(code: Code, ending: str) -> list[str]:
    """Dotted names of the trainers or configurations of a library that the script imports or calls."""
    return sorted({name for name in _named(code) if _is_one(name, ending)})


def _named(code: Code) -> Iterator[str]:
    yield from code.imports.values()
    for call in code.calls():
        yield call.name


def _is_one(dotted: str, ending: str) -> bool:
    last = dotted.rpartition(".")[2]
    if library_of(dotted) not in ("trl", "transformers") or "." not in dotted:
        return False
    if ending == "Trainer":
        return last.endswith("Trainer")
    return last == "TrainingArguments" or (last in known_classes() and last not in ("LoraConfig",))
