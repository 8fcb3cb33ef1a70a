"""Configuration classes of TRL, transformers and peft as data: which fields there are and what they take."""

from __future__ import annotations

import functools
import importlib.resources
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlintern.common import text
from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.trainers import removed


@dataclass(frozen=True)
class FieldSchema:
    """One field of a configuration class.

    Attributes:
        type: the annotation as written, such as ``int | None``.
        default: the literal default; None also stands for one that is computed when the class is made.
        owner: the class that declares it, ``TrainingArguments`` for what all trainers share.
    """

    name: str
    type: str
    default: Any
    help: str
    choices: tuple[Any, ...]
    deprecated: bool
    owner: str


@dataclass(frozen=True)
class ConfigSchema:
    """One configuration class, its inherited fields included."""

    name: str
    distribution: str
    version: str
    fields: Mapping[str, FieldSchema]


@dataclass(frozen=True)
class Problem:
    """Something wrong with a configuration: ``field`` is where, ``fix`` what to write instead."""

    rule: str
    severity: str
    field: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.message} {self.fix}".rstrip()


@functools.cache
def _data() -> dict[str, Any]:
    text = importlib.resources.files(__package__).joinpath("schemas.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def versions() -> dict[str, str]:
    """Distribution -> version that the schemas were read from: peft, transformers, trl."""
    return dict(_data()["versions"])


def known_classes() -> tuple[str, ...]:
    return tuple(_data()["classes"])


@functools.cache
def config_schema(class_name: str) -> ConfigSchema:
    """The schema of ``class_name`` (``SFTConfig``, ``LoraConfig``, ...).

    Raises:
        BadInput: there is no such class.
    """
    data = _data()
    entry = data["classes"].get(class_name)
    if entry is None:
        raise BadInput(
            f"{class_name} is no known configuration class.",
            next_step=did_you_mean(class_name, data["classes"]) or f"Known: {', '.join(data['classes'])}.",
        )
    merged: dict[str, FieldSchema] = {}
    for owner in (entry["base"], class_name):
        if owner is not None:
            merged |= {name: _field(name, raw, owner) for name, raw in data["classes"][owner]["fields"].items()}
    return ConfigSchema(class_name, entry["distribution"], data["versions"][entry["distribution"]], merged)


def _field(name: str, raw: Mapping[str, Any], owner: str) -> FieldSchema:
    return FieldSchema(
        name=name,
        type=raw["type"],
        default=raw.get("default"),
        help=raw["help"],
        choices=tuple(raw.get("choices", ())),
        deprecated=raw.get("deprecated", False),
        owner=owner,
    )


_USUAL_SLIPS: Mapping[str, str] = {
    "lr": "learning_rate",
    "batch_size": "per_device_train_batch_size",
    "epochs": "num_train_epochs",
    "steps": "max_steps",
    "scheduler": "lr_scheduler_type",
    "rank": "r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "max_new_tokens": "max_completion_length",
    "group_size": "num_generations",
    "kl_coef": "beta",
}
"""Names from other libraries that no spelling distance would find."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``Did you mean learning_rate?``, or an empty string when nothing is near."""
    names = list(known)
    if (usual := _USUAL_SLIPS.get(name.lower())) in names:
        return f"Did you mean {usual}?"
    near = text.nearest(name, names, most=3)
    near += [other for other in names if len(name) > 3 and name.lower() in other.lower() and other not in near][:2]
    return f"Did you mean {' or '.join(near[:3])}?" if near else ""


def removed_field(class_name: str, name: str) -> removed.Removed | None:
    """What replaced a field that ``class_name`` once had, or None."""
    for owner in (class_name, "TrainingArguments"):
        if owner == "TrainingArguments" and class_name == "LoraConfig":
            continue
        if (entry := removed.FIELDS.get(owner, {}).get(name)) is not None:
            return entry
    return None


def check_name(schema: ConfigSchema, name: str) -> Problem | None:
    """What is wrong with using ``name`` as a field: it was removed, is deprecated, or never was."""
    field = schema.fields.get(name)
    if field is not None:
        if field.deprecated:
            return Problem("deprecated_field", "warning", name, f"{schema.name}.{name} is deprecated.", field.help)
        return None
    gone = removed_field(schema.name, name)
    if gone is not None:
        message = f"{schema.name} has no {name}: removed in {gone.since}."
        return Problem("removed_field", "error", name, message, f"Use {gone.use}.")
    message = f"{schema.name} of {schema.distribution} {schema.version} has no field {name}."
    fix = did_you_mean(name, schema.fields) or "describe_trainer lists the fields; its `search` finds them by word."
    return Problem("unknown_field", "error", name, message, fix)


def check_value(schema: ConfigSchema, name: str, *, value: Any) -> Problem | None:
    """What is wrong with ``value`` for an existing field: outside its choices, or of a type it cannot be."""
    field = schema.fields[name]
    if value == field.default or isinstance(value, _also_taken(schema.name, name)):
        return None
    if value is None:
        if "None" in field.type or "Optional" in field.type:
            return None
        return Problem("wrong_type", "error", name, f"{schema.name}.{name} takes {field.type}, not None.")
    if field.choices and isinstance(value, str) and value not in field.choices:
        options = [str(choice) for choice in field.choices if choice is not None]
        if any("[" in option for option in options):
            return None  # a pattern stands among the choices, so the list is not closed
        fix = did_you_mean(value, options) or f"One of: {', '.join(options)}."
        return Problem("wrong_choice", "error", name, f"{schema.name}.{name} cannot be {value!r}.", fix)
    if not field.choices and not _fits(field.type, value):
        message = f"{schema.name}.{name} takes {field.type}, not {type(value).__name__} ({value!r:.80})."
        return Problem("wrong_type", "error", name, message, "Mind quotes: numbers and booleans stand without them.")
    return None


def _also_taken(class_name: str, name: str) -> tuple[type, ...]:
    return _ALSO_TAKES.get((class_name, name), ()) + _ALSO_TAKES.get(("*", name), ())


_ALSO_TAKES: Mapping[tuple[str, str], tuple[type, ...]] = {
    ("DPOConfig", "loss_type"): (str,),
    ("GRPOConfig", "scale_rewards"): (bool,),
    ("*", "fsdp"): (bool,),
}
"""Types that a class converts by itself although its annotation does not say so."""

_KINDS: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "list": (list, tuple),
    "dict": (dict,),
    "tuple": (list, tuple),
}


def _fits(annotation: str, value: Any) -> bool:
    """Whether ``value`` may stand where ``annotation`` is; true when the annotation names other classes."""
    outer = annotation
    while "[" in outer and outer != (shorter := re.sub(r"\b(list|dict|tuple)\[[^\[\]]*\]", r"\1", outer)):
        outer = shorter
    names = set(re.findall(r"[A-Za-z_]\w*", outer)) - {"None", "Optional", "Union"}
    if not names or names - set(_KINDS):
        return True
    if isinstance(value, int) and abs(value) >= 2**63:
        return False
    allowed = {kind for name in names for kind in _KINDS[name]}
    if isinstance(value, bool):
        return bool in allowed
    return isinstance(value, tuple(allowed))
