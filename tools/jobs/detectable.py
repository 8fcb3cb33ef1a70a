"""What difference an evaluation of so many items can show: said before it is paid for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

DISAGREE = (0.1, 0.2)
"""Shares of the items on which two models usually disagree: one of another's checkpoints, and unrelated ones."""
POWER = 0.8
MOST_COUNTED = 64 * 1024 * 1024
"""Bytes of a local file whose rows are counted."""


def smallest_difference(items: int, *, disagree: float) -> float:
    """The true difference that a paired comparison of two models finds in four of five cases, at 5 % two-sided.

    Connor 1987, Biometrics 43:207: n delta^2 = (z_0.975 sqrt(psi) + z_0.8 sqrt(psi - delta^2))^2, where psi is the
    share of items on which the models disagree; and at least the six items, all won by one side, below which the
    exact test calls nothing significant (2 / 2^6 = 0.03). At most 1.
    """
    normal = NormalDist()
    low, high = 0.0, disagree
    for _ in range(60):
        delta = (low + high) / 2
        needed = normal.inv_cdf(0.975) * math.sqrt(disagree) + normal.inv_cdf(POWER) * math.sqrt(
            disagree - delta * delta
        )
        low, high = (delta, high) if delta * math.sqrt(items) < needed else (low, delta)
    return min(1.0, max(high, 6 / items))


def detectable(items: int) -> str:
    """In words, for two shares of disagreement."""
    few, many = (smallest_difference(items, disagree=share) for share in DISAGREE)
    return (
        f"these {items} items cannot show less than {100 * few:.1f} points where models disagree on one item in ten, "
        f"{100 * many:.1f} points where on one in five (found in four of five cases at 5 %; a smaller difference is "
        "likely to stay open)"
    )


def items_of(recipe: Mapping[str, Any]) -> int | None:
    """How many items the evaluation of a recipe scores, as far as it says it or a local JSONL file tells it."""
    plan = recipe if recipe.get("trainer") == "evaluation" else recipe.get("evaluation")
    if not isinstance(plan, Mapping) or recipe.get("trainer") == "generate":
        return None
    limit = plan.get("limit")
    rows = None if plan.get("holdout") or plan.get("prepare") else _lines(plan.get("dataset"))
    known = [count for count in (limit, rows) if isinstance(count, int) and count > 0]
    return min(known, default=None)


def _lines(dataset: Any) -> int | None:
    if not isinstance(dataset, str) or not dataset.endswith(".jsonl"):
        return None
    path = Path(dataset).expanduser()
    try:
        if not path.is_file() or path.stat().st_size > MOST_COUNTED:
            return None
        with path.open("rb") as file:
            return sum(1 for line in file if line.strip())
    except OSError:
        return None
