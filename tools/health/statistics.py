"""The few robust statistics of a curve that the rules share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import fmean, median

from mlintern.tools.health.change import noise_variance
from mlintern.tools.health.series import Series

ENOUGH = 10
"""Logged rows below which a trend is not judged."""


def window(series: Series) -> int:
    """How many points at either end are taken together: a fifth of the run, 3 to 50."""
    return max(1, min(max(3, len(series) // 5), 50, len(series)))


def head(series: Series) -> float:
    """Median of the first window."""
    return median(series.values[: window(series)])


def tail(series: Series) -> float:
    """Median of the last window."""
    return median(series.values[-window(series) :])


def tail_mean(series: Series) -> float:
    """Mean of the last window: for shares of few samples, whose median jumps between a few values."""
    return fmean(series.values[-window(series) :])


def smoothed(series: Series, width: int = 0) -> list[tuple[float, float]]:
    """(Step, mean of the window that ends there) for each full window; of `window` points if ``width`` is 0."""
    width = width or window(series)
    sums = list(itertools.accumulate(series.values, initial=0.0))
    return [(series.steps[end - 1], (sums[end] - sums[end - width]) / width) for end in range(width, len(series) + 1)]


def noise_of_means(series: Series) -> float:
    """Standard error of the difference of two window means, from the noise of neighbours."""
    return math.sqrt(noise_variance(series.values) * 2 / window(series))


def gain(series: Series) -> float:
    """Mean of the last window minus mean of the first."""
    width = window(series)
    return fmean(series.values[-width:]) - fmean(series.values[:width])


def rises(series: Series, *, by: float = 3.0) -> bool:
    """Whether the last window is above the first by more than ``by`` standard errors (and by more than rounding)."""
    return len(series) >= ENOUGH and gain(series) > max(by * noise_of_means(series), 1e-9)


def falls(series: Series, *, by: float = 3.0) -> bool:
    """Whether the last window is below the first by more than ``by`` standard errors (and by more than rounding)."""
    return len(series) >= ENOUGH and -gain(series) > max(by * noise_of_means(series), 1e-9)


def trend(series: Series) -> tuple[float, float]:
    """Change over the whole curve by a straight line through all points, and its standard error.

    The noise is the larger of that between neighbours and that about the line: a wave is no trend.
    """
    count = len(series)
    if count < 3:
        return 0.0, math.inf
    centre, mean = (count - 1) / 2, fmean(series.values)
    spread = count * (count * count - 1) / 12
    slope = math.fsum((place - centre) * value for place, value in enumerate(series.values)) / spread
    left = math.fsum((value - mean - slope * (place - centre)) ** 2 for place, value in enumerate(series.values))
    variance = max(left / (count - 2), noise_variance(series.values))
    return slope * (count - 1), (count - 1) * math.sqrt(variance / spread)


def relative_range(values: Sequence[float]) -> float:
    """Range of the values relative to their size."""
    size = max(abs(value) for value in values)
    return 0.0 if size == 0 else (max(values) - min(values)) / size


def first_step(series: Series, *, above: float | None = None, below: float | None = None) -> int:
    """The first step whose value is above, or below, a limit; the last step if there is none."""
    for step, value in zip(series.steps, series.values, strict=True):
        if (above is not None and value > above) or (below is not None and value < below):
            return int(step)
    return int(series.steps[-1])
