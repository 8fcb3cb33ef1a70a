"""Comparisons whose items are not independent of one another: attempts, questions on one text, tasks, training seeds.

A difference is candidate minus baseline, an interval is at 95 %, a p-value two-sided. `benchmarks/intervals.py`
measures how often the intervals hold the truth and how often chance is called an improvement.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean, variance

from mlintern.tools.evals.significance import (
    ALPHA,
    Difference,
    by_t,
    newcombe,
    paired,
    student_t_p,
    student_t_quantile,
)

MOST_EXACT = 400
"""Gained and lost items, summed over clusters, up to which all ways to swap the sides are counted."""


def paired_in_clusters(
    baseline: Sequence[float], candidate: Sequence[float], *, clusters: Sequence[str]
) -> Difference:
    """Compare two systems on the same items when items of one cluster are alike: attempts, questions on one text.

    Scores that are all 0 or 1: exact test (`swap_test`), and Newcombe's interval for as many independent items as the
    clustered ones are worth (`effective_interval`); widened or narrowed to 0 where test and interval disagree.
    Else, and with more than 400 flips for the p-value: t-test with the variance between clusters (Liang & Zeger 1986,
    Biometrika 73:13, with G/(G-1) for few clusters; Miller 2024, arXiv:2411.00640, 2.2).

    Args:
        clusters: the cluster of each item.

    Raises:
        ValueError: the sequences differ in length, or there is only one cluster.
    """
    sums: dict[str, list[float]] = {}
    for before, after, cluster in zip(baseline, candidate, clusters, strict=True):
        sums.setdefault(cluster, []).append(after - before)
    count, n = len(sums), len(clusters)
    if count < 2:
        raise ValueError("a comparison in clusters needs two clusters or more")
    if count == n:
        return paired(baseline, candidate)
    delta = math.fsum(math.fsum(gains) for gains in sums.values()) / n
    between = math.fsum((math.fsum(gains) - len(gains) * delta) ** 2 for gains in sums.values())
    stderr = math.sqrt(between * count / (count - 1)) / n
    of = f"over {count} clusters of {n} items"
    if not all(score in (0.0, 1.0) for score in (*baseline, *candidate)):
        return by_t(delta, stderr, count, f"paired, t-test and interval {of}")
    flips = [round(math.fsum(gains)) for gains in sums.values()]
    largest = math.fsum(len(gains) ** 2 for gains in sums.values()) / n
    low, high = effective_interval(baseline, candidate, stderr=stderr, units=count, most=largest)
    if sum(map(abs, flips)) <= MOST_EXACT:
        p_value, test = swap_test(flips), "exact test of swapped clusters"
    else:
        p_value, test = student_t_p(delta / stderr, count - 1) if stderr else 0.0, "t-test"
    if p_value >= ALPHA:
        low, high = min(low, 0.0), max(high, 0.0)
    elif delta > 0:
        low = max(low, 0.0)
    else:
        high = min(high, 0.0)
    return Difference(delta, low, high, p_value, f"paired, {test} and Newcombe interval {of}")


def paired_attempts(baseline: Sequence[float], candidate: Sequence[float], *, attempts: int) -> Difference:
    """Compare shares of right answers among ``attempts`` to each item: `paired_in_clusters`, an item a cluster.

    A t interval of such shares holds the truth in as few as 90 % of the draws where few answers are right or wrong
    (20 to 50 items, 4 or 8 attempts); that of the answers in clusters in 93.7 % or more of 300 draws a case.
    """

    def answers(shares: Sequence[float]) -> list[float]:
        right = [round(share * attempts) for share in shares]
        return [float(at < count) for count in right for at in range(attempts)]

    if attempts == 1:
        return paired(baseline, candidate)
    clusters = [str(item) for item in range(len(baseline)) for _ in range(attempts)]
    return paired_in_clusters(answers(baseline), answers(candidate), clusters=clusters)


def swap_test(gains: Sequence[int]) -> float:
    """Exact two-sided p-value of the sum of ``gains``: the share of all ways to swap sides that are as far from 0.

    If both systems are alike, the gain of a cluster is as likely as its negative (Fisher 1935, The Design of
    Experiments, 21). With clusters of one item it is McNemar's exact test.
    """
    seen = abs(sum(gains))
    chances = {0: 1.0}
    for size, count in Counter(abs(gain) for gain in gains if gain).items():
        steps = [
            (size * (2 * up - count), math.exp(_log_binomial(count, up) - count * math.log(2)))
            for up in range(count + 1)
        ]
        spread: dict[int, float] = {}
        for place, chance in chances.items():
            for step, share in steps:
                spread[place + step] = spread.get(place + step, 0.0) + chance * share
        chances = spread
    return min(1.0, math.fsum(chance for place, chance in chances.items() if abs(place) >= seen))


def effective_interval(
    baseline: Sequence[float], candidate: Sequence[float], *, stderr: float, units: int, most: float
) -> tuple[float, float]:
    """Newcombe's interval of right and wrong answers that are worth fewer independent ones.

    The number of items is divided by the design effect, the ratio of the clustered variance of the difference to that
    of independent items (Kish 1965, Survey Sampling, 8.2; Korn & Graubard 1998, Survey Methodology 24:193, for
    proportions), and Student's t takes the place of the normal quantile.

    Args:
        stderr: of the difference, with the variance between clusters.
        units: number of clusters.
        most: the largest design effect there can be, the mean size of the cluster that an item is in. It is taken
            where nothing tells the effect because no item differs.
    """
    n = len(baseline)
    pairs = Counter(zip(baseline, candidate, strict=True))
    gained, lost = pairs[0.0, 1.0], pairs[1.0, 0.0]
    alone = (gained + lost - (gained - lost) ** 2 / n) / n**2
    effect = min(most, max(1.0, stderr**2 / alone)) if alone > 0 and stderr > 0 else most
    cells = [pairs[1.0, 1.0] / effect, lost / effect, gained / effect, pairs[0.0, 0.0] / effect]
    return newcombe(*cells, z=student_t_quantile(units - 1))


def stratified(strata: Sequence[tuple[float, Sequence[float]]]) -> Difference:
    """Compare the weighted mean of several tasks, item by item within each; t-test on the pooled variance.

    Args:
        strata: of each task its weight (they sum to 1) and the gains of its items, two or more.
    """
    delta = spread = 0.0
    for weight, gains in strata:
        mean = math.fsum(gains) / len(gains)
        delta += weight * mean
        spread += weight**2 * math.fsum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1) / len(gains)
    items = sum(len(gains) for _, gains in strata)
    method = f"paired over the {items} items of {len(strata)} tasks, t-test and interval"
    return by_t(delta, math.sqrt(spread), items - len(strata) + 1, method)


def over_seeds(
    baseline: Sequence[Sequence[float]],
    candidate: Sequence[Sequence[float]],
    *,
    clusters: Sequence[str] | None = None,
) -> Difference:
    """Compare two recipes, each trained with one seed or several, on the same items.

    Items and seeds are crossed, so the variance of the mean difference is that over items (of the seeds' mean, by
    cluster where items are alike) plus that over the seeds of each side, less what both contain: the noise of a
    single answer (Cameron, Gelbach & Miller 2011, J. Bus. Econ. Stat. 29:238; Owen 2007, Ann. Appl. Stat. 1:386).
    Only half of that is taken off, since three seeds tell it poorly: with all of it, chance was called an improvement
    in up to 3.2 % of 750 simulated comparisons a case, with half in up to 2.5 %.
    Degrees of freedom after Satterthwaite (1946, Biometrics Bulletin 2:110), of the sum before that is taken off. A
    side with a single model adds no seed term.

    Args:
        baseline, candidate: of each model its scores, item by item in the same order.
        clusters: the cluster of each item; every item for itself if None.

    Raises:
        ValueError: fewer than two items or clusters.
    """
    n = len(baseline[0])
    gains = [
        fmean(after) - fmean(before)
        for before, after in zip(zip(*baseline, strict=True), zip(*candidate, strict=True), strict=True)
    ]
    names = [str(at) for at in range(n)] if clusters is None else clusters
    sums: dict[str, list[float]] = {}
    for gain, cluster in zip(gains, names, strict=True):
        sums.setdefault(cluster, []).append(gain)
    count = len(sums)
    if count < 2:
        raise ValueError("a comparison needs two items or clusters, or more")
    delta = fmean(gains)
    between = math.fsum((math.fsum(one) - len(one) * delta) ** 2 for one in sums.values())
    of_items = between * count / (count - 1) / n**2
    raw, shared = [], 0.0
    for side in (baseline, candidate):
        if len(side) > 1:
            raw.append((variance([fmean(model) for model in side]) / len(side), len(side) - 1))
            shared += min(raw[-1][0], _answer_noise(side) / n / len(side))
    freedom = satterthwaite([(of_items, count - 1), *raw])
    spread = of_items + sum(value for value, _ in raw) - shared / 2
    alike = f"{count} clusters of {n} items" if count < n else f"{n} items"
    method = (
        f"t-test and interval over {alike} and the seeds of training ({len(baseline)} of the baseline, "
        f"{len(candidate)} of the candidate)"
    )
    return by_t(delta, math.sqrt(spread), freedom + 1, method)


def _answer_noise(side: Sequence[Sequence[float]]) -> float:
    """Variance of a single answer that neither its item nor its seed explains."""
    seeds, n = len(side), len(side[0])
    means = [fmean(model) for model in side]
    of_items = [fmean(scores) for scores in zip(*side, strict=True)]
    grand = fmean(means)
    rest = math.fsum(
        (score - mean - of_item + grand) ** 2
        for model, mean in zip(side, means, strict=True)
        for score, of_item in zip(model, of_items, strict=True)
    )
    return rest / ((seeds - 1) * (n - 1))


def satterthwaite(terms: Sequence[tuple[float, int]]) -> int:
    """Degrees of freedom of a sum of variances, from each with its own."""
    total = sum(value for value, _ in terms)
    below = sum(value**2 / freedom for value, freedom in terms if freedom > 0)
    return max(1, int(total**2 / below)) if below > 0 else max(1, terms[0][1])


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
