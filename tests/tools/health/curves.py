"""Simulated training logs: a trend with noise about it, the same at every call."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

Trend = Callable[[float], float]
"""From the share of the run that has passed, 0 to 1, to a value."""


def rows(count: int, *, noise: float = 0.05, seed: int = 0, **trends: Trend) -> list[dict[str, Any]]:
    """Telemetry rows with multiplicative noise. In names, ``__`` stands for ``/``."""
    source = random.Random(seed)
    return [
        metrics(
            step=10 * (i + 1),
            **{name: trend(i / (count - 1)) * (1 + noise * source.gauss(0, 1)) for name, trend in trends.items()},
        )
        for i in range(count)
    ]


def metrics(*, step: int, **values: Any) -> dict[str, Any]:
    named: Mapping[str, Any] = {name.replace("__", "/"): value for name, value in values.items()}
    return {"v": 1, "kind": "metrics", "time": 0.0, "step": step, "values": named}


def line(start: float, end: float) -> Trend:
    return lambda t: start + (end - start) * t


def turn(start: float, middle: float, end: float, *, at: float = 0.5) -> Trend:
    """From ``start`` to ``middle`` at the share ``at`` of the run, then to ``end``."""
    return lambda t: start + (middle - start) * t / at if t <= at else middle + (end - middle) * (t - at) / (1 - at)


def decay(start: float, end: float) -> Trend:
    """Falls fast at first, as a loss does."""
    return lambda t: end + (start - end) * (1 - t) ** 3
