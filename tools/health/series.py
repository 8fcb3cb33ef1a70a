"""The curves of a training run, under one set of names, and the few robust statistics that the rules need."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

NAMES: Mapping[str, tuple[str, ...]] = {
    "reward": ("reward", "reward/mean", "rewards/mean", "objective/scores"),
    "entropy": ("entropy", "policy/entropy", "objective/entropy", "policy/entropy_avg"),
    "kl": ("kl", "policy/kl", "objective/kl"),
    "length": ("completions/mean_length", "completion_length", "completions/mean_completion_length"),
    "clipped": ("completions/clipped_ratio",),
    "zero_std": ("frac_reward_zero_std",),
}
"""Our name of a curve, and what TRL (of today and before) and others call it."""

LARGEST = 1e100
"""A number beyond counts as infinite: no float32 gets there, and sums and squares of smaller ones stay finite."""

PREFERENCE = frozenset({"chosen", "rejected", "accuracies", "margins"})
_COMPONENT = re.compile(r"^rewards/(.+?)(?:/mean)?$|^reward/(.+)$")


@dataclass(frozen=True)
class Series:
    """One metric over the run, in order of steps; values may be NaN or infinite."""

    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...]

    def finite(self) -> Series:
        kept = [(s, v) for s, v in zip(self.steps, self.values, strict=True) if math.isfinite(v)]
        return Series(self.name, tuple(s for s, _ in kept), tuple(v for _, v in kept))

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Run:
    """All curves of a run. ``rows`` counts the logged rows."""

    rows: int
    curves: Mapping[str, Series] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Series:
        """The finite values of a curve by our name or the logged one; empty if it was not logged."""
        for logged in NAMES.get(name, (name,)):
            if logged in self.curves:
                return self.curves[logged].finite()
        return Series(name, (), ())

    @property
    def has_reward(self) -> bool:
        """Whether this is reinforcement learning on a reward: loss and entropy then mean something else."""
        return len(self["reward"]) > 0

    @property
    def has_preferences(self) -> bool:
        return any(f"rewards/{name}" in self.curves for name in PREFERENCE)

    def components(self) -> dict[str, Series]:
        """The single reward functions that the reward is made of."""
        found: dict[str, Series] = {}
        for name, series in self.curves.items():
            match = _COMPONENT.match(name)
            label = (match[1] or match[2]) if match else None
            if label and label not in PREFERENCE | {"mean", "std"} and not label.endswith("/std"):
                found.setdefault(label, series.finite())
        return {label: series for label, series in found.items() if len(series)}


def build(rows: Iterable[Mapping[str, Any]]) -> Run:
    """The curves in telemetry rows of kind ``metrics``. Of a step that was logged twice the last counts.

    A row whose step is missing or no finite number stands at its place among the rows.
    """
    points: dict[str, dict[float, float]] = {}
    count = 0
    for row in rows:
        values = row.get("values")
        if row.get("kind") != "metrics" or not isinstance(values, Mapping):
            continue
        count += 1
        logged = as_number(row.get("step"))
        step = float(count) if logged is None or not math.isfinite(logged) else logged
        for name, value in values.items():
            number = as_number(value)
            if number is not None:
                points.setdefault(str(name), {})[step] = number
    curves = {
        name: Series(name, tuple(sorted(by_step)), tuple(by_step[step] for step in sorted(by_step)))
        for name, by_step in points.items()
    }
    return Run(rows=count, curves=curves)


def as_number(value: Any) -> float | None:
    """A number however it was written: 1.5, "1.5", "nan", "NaN", "-Infinity". None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    except OverflowError:  # an integer that no float can hold
        number = math.inf if value > 0 else -math.inf  # type: ignore[operator]
    return math.copysign(math.inf, number) if abs(number) > LARGEST else number


def window(series: Series) -> int:
    """How many points at either end are taken together: a fifth of the run, 3 to 50."""
    return max(1, min(max(3, len(series) // 5), 50, len(series)))


def head(series: Series) -> float:
    """Median of the first window."""
    return median(series.values[: window(series)])


def tail(series: Series) -> float:
    """Median of the last window."""
    return median(series.values[-window(series) :])


def smoothed(series: Series, width: int = 0) -> list[tuple[float, float]]:
    """(Step, mean of the window that ends there) for each full window; of `window` points if ``width`` is 0."""
    width = width or window(series)
    return [(series.steps[end - 1], fmean(series.values[end - width : end])) for end in range(width, len(series) + 1)]


def noise(values: Sequence[float]) -> float:
    """Standard deviation about the trend, from successive differences, so that a trend is not taken for noise.

    Median absolute difference, scaled for normal noise (0.6745, and sqrt(2) for a difference of two).
    """
    if len(values) < 3:
        return 0.0
    return median(abs(b - a) for a, b in itertools.pairwise(values)) / 0.6745 / math.sqrt(2)


def noise_of_means(series: Series) -> float:
    """Standard error of the difference of two window means."""
    return noise(series.values) * math.sqrt(2 / window(series))


def gain(series: Series) -> float:
    """Mean of the last window minus mean of the first."""
    width = window(series)
    return fmean(series.values[-width:]) - fmean(series.values[:width])
