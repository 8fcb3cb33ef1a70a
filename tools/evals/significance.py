"""Is a difference more than noise? Tests and intervals in plain Python, each with its source.

A difference is always candidate minus baseline. Intervals are at 95 %, p-values two-sided. Swapping the two sides
negates difference and interval and leaves p as it is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
ALPHA = 1 - CONFIDENCE


@dataclass(frozen=True)
class Difference:
    """A difference with its uncertainty; ``method`` names test and interval."""

    delta: float
    ci_low: float
    ci_high: float
    p_value: float
    method: str


def paired(baseline: Sequence[float], candidate: Sequence[float]) -> Difference:
    """Compare two systems on the same items, given item by item in the same order.

    Scores that are all 0 or 1: exact McNemar test (McNemar 1947, Psychometrika 12) and Newcombe's hybrid score
    interval for paired proportions (Newcombe 1998, Statistics in Medicine 17:2635, method 10), widened to 0 where the
    test finds no difference: one answer, not two. Else: paired t-test.

    Raises:
        ValueError: the sequences differ in length or have fewer than two items.
    """
    if len(baseline) != len(candidate) or len(baseline) < 2:
        raise ValueError("a paired comparison needs two sequences of the same length, of two items or more")
    if all(score in (0.0, 1.0) for score in (*baseline, *candidate)):
        return _paired_binary(baseline, candidate)
    return _paired_mean(baseline, candidate)


def unpaired(baseline: float, baseline_stderr: float, candidate: float, candidate_stderr: float) -> Difference:
    """Compare two independent estimates by their standard errors: z-test.

    Raises:
        ValueError: both standard errors are zero, so that there is nothing to measure the difference by.
    """
    stderr = math.hypot(baseline_stderr, candidate_stderr)
    if stderr == 0:
        raise ValueError("both standard errors are zero")
    delta = candidate - baseline
    p_value = math.erfc(abs(delta) / stderr / math.sqrt(2))
    return Difference(delta, delta - Z * stderr, delta + Z * stderr, p_value, "unpaired z-test, Wald interval")


def mcnemar(only_baseline: int, only_candidate: int) -> float:
    """Exact two-sided p-value of McNemar's test from the two discordant counts: a fair coin, doubled tail."""
    flips = only_baseline + only_candidate
    fewer = min(only_baseline, only_candidate)
    log_total = flips * math.log(2)
    tail = math.fsum(
        math.exp(math.lgamma(flips + 1) - math.lgamma(k + 1) - math.lgamma(flips - k + 1) - log_total)
        for k in range(fewer + 1)
    )
    return min(1.0, 2 * tail)


def newcombe(
    both: float, only_baseline: float, only_candidate: float, neither: float, *, z: float = Z
) -> tuple[float, float]:
    """95 % interval of the gain in the share of right items, on the same items; Newcombe 1998, method 10.

    It stays inside [-1, 1] and does not collapse when no item differs, as the Wald interval does.

    Args:
        both, only_baseline, only_candidate, neither: items that came out so; shares of an item where an item counts
            for less than one.
        z: quantile, of another distribution where the number of items is itself an estimate.
    """
    n = both + only_baseline + only_candidate + neither
    p_c, p_b = (both + only_candidate) / n, (both + only_baseline) / n
    low_c, high_c = wilson(both + only_candidate, n, z=z)
    low_b, high_b = wilson(both + only_baseline, n, z=z)
    phi = _phi(both, only_baseline, only_candidate, neither)
    delta = p_c - p_b
    down = _combined(p_c - low_c, high_b - p_b, phi)
    up = _combined(high_c - p_c, p_b - low_b, phi)
    return delta - down, delta + up


def wilson(right: float, n: float, *, z: float = Z) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (Wilson 1927, JASA 22:209)."""
    p = right / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(max(0.0, p * (1 - p)) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def agresti_coull_stderr(p: float, n: int) -> float:
    """Standard error of a proportion after two successes and two failures are added.

    For p of 0 or 1 the usual formula gives 0, as if n items proved the rest (Agresti & Coull 1998, Am. Stat. 52:119).
    """
    adjusted = (p * n + 2) / (n + 4)
    return math.sqrt(adjusted * (1 - adjusted) / (n + 4))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: chance of any false alarm among all of them (Holm 1979, Scand. J. Stat. 6:65)."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def student_t_p(t: float, freedom: int) -> float:
    """Two-sided p-value of Student's t: I_x(freedom/2, 1/2) at x = freedom/(freedom + t^2)."""
    if math.isinf(t):
        return 0.0
    return _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


@functools.lru_cache(maxsize=4096)
def student_t_quantile(freedom: int) -> float:
    """The t that leaves 5 % outside [-t, t]."""
    low, high = 0.0, 13.0  # 12.71 at one degree of freedom
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_t_p(middle, freedom) > ALPHA else (low, middle)
    return (low + high) / 2


def _paired_binary(baseline: Sequence[float], candidate: Sequence[float]) -> Difference:
    pairs = list(zip(baseline, candidate, strict=True))
    both, neither = pairs.count((1.0, 1.0)), pairs.count((0.0, 0.0))
    only_baseline, only_candidate = pairs.count((1.0, 0.0)), pairs.count((0.0, 1.0))
    low, high = newcombe(both, only_baseline, only_candidate, neither)
    p_value = mcnemar(only_baseline, only_candidate)
    interval = "Newcombe score interval"
    if p_value >= ALPHA and not low <= 0 <= high:
        low, high = min(low, 0.0), max(high, 0.0)
        interval += ", widened to 0 as the exact test demands"
    return Difference(
        delta=(only_candidate - only_baseline) / len(pairs),
        ci_low=low,
        ci_high=high,
        p_value=p_value,
        method=f"paired, exact McNemar test ({only_candidate} items gained, {only_baseline} lost), {interval}",
    )


def _paired_mean(baseline: Sequence[float], candidate: Sequence[float]) -> Difference:
    gains = [after - before for before, after in zip(baseline, candidate, strict=True)]
    n = len(gains)
    delta = math.fsum(gains) / n
    stderr = math.sqrt(math.fsum((gain - delta) ** 2 for gain in gains) / (n - 1) / n)
    if stderr <= 1e-12 * max(1.0, abs(delta)):  # every item moved by the same amount: only the signs can be tested
        p_value = 1.0 if abs(delta) <= 1e-12 else min(1.0, 2.0 * 0.5**n)
        return Difference(delta, delta, delta, p_value, "paired, sign test (all items differ by the same amount)")
    return by_t(delta, stderr, n, "paired t-test, t interval")


def by_t(delta: float, stderr: float, n: int, method: str) -> Difference:
    """The difference of ``n`` units by its standard error: Student's t with one degree of freedom fewer."""
    if stderr <= 1e-12 * max(1.0, abs(delta)):  # no spread at all: as many equal signs as there are units
        p_value = 1.0 if abs(delta) <= 1e-12 else min(1.0, 2.0 * 0.5**n)
        return Difference(delta, delta, delta, p_value, method)
    half = student_t_quantile(n - 1) * stderr
    return Difference(delta, delta - half, delta + half, student_t_p(delta / stderr, n - 1), method)


def _phi(both: float, only_baseline: float, only_candidate: float, neither: float) -> float:
    """Correlation of the two outcomes, with Newcombe's continuity correction, so that it is not overstated."""
    margins = (
        (both + only_baseline) * (only_candidate + neither) * (both + only_candidate) * (only_baseline + neither)
    )
    if margins <= 0:
        return 0.0
    cross = float(both * neither - only_baseline * only_candidate)
    if cross > 0:
        cross = max(cross - (both + only_baseline + only_candidate + neither) / 2, 0.0)
    return cross / math.sqrt(margins)


def _combined(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b) by its continued fraction, DLMF 8.17.22."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast only below; DLMF 8.17.4
        return 1 - _incomplete_beta(1 - x, b, a)
    fraction = 1.0
    for index in range(400, 0, -1):
        m = index // 2
        if index % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        fraction = 1 + d / fraction
    front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return min(1.0, math.exp(front) / a / fraction)
