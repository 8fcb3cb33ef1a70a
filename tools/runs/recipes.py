"""Recipes side by side: what runs share and where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlintern.common.text import cut_line

LONGEST = 48
TOLD_ELSEWHERE = frozenset({"name"})


def flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots: ``{"lora": {"r": 8}}`` gives ``{"lora.r": 8}``. Empty values are left out."""
    found: dict[str, Any] = {}
    for key, value in recipe.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        elif value not in (None, "", [], {}) and name not in TOLD_ELSEWHERE:
            found[name] = value
    return found


def differences(recipes: Sequence[Mapping[str, Any] | None]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What all recipes share, and for each of them the settings in which they are not all alike.

    A setting that only some have counts as a difference. Runs without a recipe take no part.
    """
    settings = [flat(recipe) if recipe else {} for recipe in recipes]
    given = [setting for setting in settings if setting]
    keys = list(dict.fromkeys(key for setting in given for key in setting))
    shared = {key: given[0][key] for key in keys if all(s.get(key, _ABSENT) == given[0].get(key) for s in given)}
    return shared, [
        {key: setting[key] for key in keys if key in setting and key not in shared} for setting in settings
    ]


def summary(recipe: Mapping[str, Any] | None, script_name: str) -> str:
    """A recipe in a line: trainer, model, data, and how long."""
    if not recipe or not recipe.get("trainer"):
        return script_name
    settings = flat(recipe)
    parts = [str(recipe["trainer"]), _last(settings.get("model"))]
    if settings.get("dataset"):
        parts.append(f"on {_last(settings['dataset'])}")
    if several := recipe.get("datasets"):
        parts.append(f"on {' + '.join(_last(part.get('dataset')) for part in several)}")
    for name, label in (("max_steps", "steps"), ("epochs", "epochs")):
        if settings.get(name):
            parts.append(f"{settings[name]:g} {label}")
    rate = settings.get("hyperparameters.learning_rate")
    if rate is not None:
        parts.append(f"lr {rate}")
    if recipe.get("lora") is not None:
        parts.append("LoRA")
    return " ".join(part for part in parts if part)


def shown(value: Any) -> str:
    """A setting's value, short enough for a table."""
    text = f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())
    return f"...{text[-LONGEST:]}" if "/" in text and len(text) > LONGEST else cut_line(text, LONGEST)


def _last(value: Any) -> str:
    """The telling end of a path or a Hub id; a model in a job's folder is named by its job."""
    parts = str(value or "").rstrip("/").split("/")
    if "jobs" in parts[:-1] and parts[-1] != parts[parts.index("jobs") + 1]:
        return f"{parts[-1]} of {parts[parts.index('jobs') + 1]}"
    return parts[-1]


_ABSENT = object()
