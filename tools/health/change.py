"""Has a level fallen? A scan for a change of the mean that knows how noisy the curve itself is.

The noise is taken from successive differences (von Neumann 1941, Ann. Math. Stat. 12:367), so that a trend is not
mistaken for it. It is a mean of squares, not a median: rewards of few samples are coarse, and the median difference
of 1, 1, .875, 1 is 0. A change is measured by the likelihood ratio of two binomial shares, each row counting as many
trials as its noise stands for; near 0 and 1 that follows the skew of real rewards where a normal approximation does
not. The mean of rewards in [0, 1] is such a share; other rewards are scaled to the range that they were seen in.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlintern.tools.health.series import Series

LEAST_ROWS = 12
SLOW = 1.5
"""Variance about a level over that of neighbours from which rows do not count as independent."""
_LENGTHS = (4, 6, 8, 12, 18, 26, 38, 56, 84, 126, 190, 284, 426, 640)


@dataclass(frozen=True)
class Fall:
    """The clearest fall of a level: from ``high`` around ``step`` to ``low`` now.

    ``width``: rows that are averaged for ``low``; ``evidence``: log-likelihood ratio against no change.
    """

    step: float
    high: float
    low: float
    width: int
    evidence: float

    @property
    def depth(self) -> float:
        return self.high - self.low


def noise_variance(values: Sequence[float]) -> float:
    """Variance about the trend: half the mean squared difference of neighbours."""
    squares = [(b - a) ** 2 for a, b in itertools.pairwise(values)]
    return math.fsum(squares) / (2 * len(squares)) if squares else 0.0


def find_fall(series: Series) -> Fall | None:
    """The fall from an earlier window to the latest rows with the most evidence; None if there is no evidence at all.

    Windows of 4 to 640 rows on both sides, each at every place: quick collapse and slow erosion are both seen.
    """
    values, count = series.values, len(series)
    if count < LEAST_ROWS:
        return None
    bottom, top = _range(values)
    scale = top - bottom
    variance = noise_variance(values) / scale**2 if scale > 0 else 0.0
    if variance <= 0:
        return None
    mean = min(max((math.fsum(values) / count - bottom) / scale, 1e-9), 1 - 1e-9)
    trials = max(1.0, mean * (1 - mean) / variance)  # binomial trials that one row stands for
    sums = list(itertools.accumulate(((value - bottom) / scale for value in values), initial=0.0))
    best = _best_windows(sums, trials)
    if best is None:
        return None
    evidence, start, before, after = best
    high = (sums[start + before] - sums[start]) / before
    low = (sums[count] - sums[count - after]) / after
    fall = Fall(0.0, bottom + scale * high, bottom + scale * low, after, 0.0)
    about = [value - fall.high for value in values[start : start + before]]
    about += [value - fall.low for value in values[count - after :]]
    slowness = math.fsum(one * one for one in about) / (before + after) / (variance * scale**2)
    return Fall(
        step=_last_above(series, start, start + before, fall.high),
        high=fall.high,
        low=fall.low,
        width=after,
        evidence=evidence / slowness if slowness > SLOW else evidence,
    )


def _best_windows(sums: Sequence[float], trials: float) -> tuple[float, int, int, int] | None:
    """(Evidence, start of the window before, its length, length of the window at the end), for the most evidence."""
    count = len(sums) - 1
    best: tuple[float, int, int, int] | None = None
    for before in (length for length in _LENGTHS if length <= count - 4):
        totals = [sums[end] - sums[end - before] for end in range(before, count + 1)]
        highest = list(itertools.accumulate(totals, max))
        for after in (length for length in _LENGTHS if length <= count - before):
            high, low = highest[count - after - before], sums[count] - sums[count - after]
            ratio = _likelihood_ratio(high, before, low, after) * trials
            evidence = count / 2 * math.log1p(2 * ratio / count)  # the noise is itself estimated from few rows
            if high / before > low / after and evidence > (best[0] if best else 0.0):
                best = evidence, totals.index(high, 0, count - after - before + 1), before, after
    return best


def find_erosion(series: Series) -> Fall | None:
    """The steepest straight line downwards through all rows, the last three quarters, or the last half.

    A level that sinks a little with every row has no two windows that differ much; the line through all of them does.
    ``high`` and ``low`` are its ends, which scatter less than the means of a few rows there. The noise is the larger
    of that of neighbours and that about the line; where the latter is much larger, neighbours are so alike that fewer
    rows are independent, and a slow wave is no trend.
    """
    found: list[Fall] = []
    for share in (1.0, 0.75, 0.5):
        rows = int(len(series) * share)
        if rows >= LEAST_ROWS and (fall := _line_down(series, rows)) is not None:
            found.append(fall)
    return max(found, key=lambda fall: fall.evidence, default=None)


def _line_down(series: Series, rows: int) -> Fall | None:
    values = series.values[-rows:]
    centre, mean = (rows - 1) / 2, math.fsum(values) / rows
    spread = rows * (rows * rows - 1) / 12  # sum of squared distances from the centre
    slope = math.fsum((place - centre) * value for place, value in enumerate(values)) / spread
    left = math.fsum((value - mean - slope * (place - centre)) ** 2 for place, value in enumerate(values))
    noise = noise_variance(values)
    if slope >= 0 or noise <= 0:
        return None
    variance = max(left / (rows - 2), noise)
    if variance > SLOW * noise:
        variance *= variance / noise
    ratio = slope * slope * spread / variance
    return Fall(
        step=series.steps[-rows],
        high=min(mean - slope * centre, max(values)),
        low=max(mean + slope * centre, min(values)),
        width=max(4, rows // 5),
        evidence=rows / 2 * math.log1p(ratio / rows),
    )


def largest_recovered_fall(values: Sequence[float], *, width: int) -> float:
    """How deep the means of ``width`` rows have already fallen and come back: what the run does by itself."""
    means = [math.fsum(values[end - width : end]) / width for end in range(width, len(values) + 1)]
    peaks = list(itertools.accumulate(means, max))
    later = list(itertools.accumulate(reversed(means), max))[::-1]
    return max(
        (min(peak - mean, after - mean) for mean, peak, after in zip(means, peaks, later, strict=True)), default=0
    )


def _last_above(series: Series, first: int, end: int, level: float) -> float:
    """The last step in a window whose value reaches the mean of the window: from there on it went down."""
    places = range(end - 1, first, -1)
    return next((series.steps[at] for at in places if series.values[at] >= level - 1e-9), series.steps[first])


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    spread = math.sqrt(noise_variance(values))
    return low - spread, high + spread


def _likelihood_ratio(high: float, before: int, low: float, after: int) -> float:
    pooled = (high + low) / (before + after)
    return before * _divergence(high / before, pooled) + after * _divergence(low / after, pooled)


def _divergence(p: float, q: float) -> float:
    """Kullback-Leibler divergence of two Bernoulli distributions."""
    first = p * math.log(p / q) if p > 0 and q > 0 else 0.0
    second = (1 - p) * math.log((1 - p) / (1 - q)) if p < 1 and q < 1 else 0.0
    return first + second
