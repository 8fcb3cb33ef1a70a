"""A recipe trained with several seeds against another one: the same row of several sources on each side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from mlintern.tools.evals.clustered import over_seeds, satterthwaite
from mlintern.tools.evals.clusters import find_clusters
from mlintern.tools.evals.pairing import NUMBER_OF_ITEMS, Pair, key, obstacles
from mlintern.tools.evals.result_rows import EvalRow, Sample
from mlintern.tools.evals.significance import Difference, by_t

Scores = dict[str, float]


@dataclass(frozen=True)
class OverSeeds:
    """A difference of two recipes with the means of both sides, or why there is none; and what to know about it."""

    found: Difference | str
    values: tuple[float, float]
    notes: tuple[str, ...] = ()
    n: int | None = None


def of_every_seed(
    pair: Pair, more: tuple[Sequence[Sequence[EvalRow]], Sequence[Sequence[EvalRow]]]
) -> tuple[list[EvalRow], list[EvalRow]] | str:
    """The row of ``pair`` in every source of both sides, its own first; or which source lacks it or differs."""
    sides: list[list[EvalRow]] = []
    for name, first, others in (("baseline", pair.baseline, more[0]), ("candidate", pair.candidate, more[1])):
        side = [first]
        for number, rows in enumerate(others, start=2):
            row = next((row for row in rows if key(row) == key(first)), None)
            if row is None:
                return f"source {number} of the {name} has no {first.label}"
            hard = [why for why in obstacles(pair.baseline, row) if not why.startswith(NUMBER_OF_ITEMS)]
            if hard:
                return f"source {number} of the {name}: " + "; ".join(hard)
            side.append(row)
        sides.append(side)
    return sides[0], sides[1]


def measure_seeds(
    baseline: Sequence[EvalRow],
    candidate: Sequence[EvalRow],
    *,
    scores: Callable[[EvalRow], Scores | None],
    items: Callable[[EvalRow], list[Sample] | None],
    stderr: Callable[[EvalRow], float | None],
) -> OverSeeds:
    """Item by item over all seeds where every source kept its scores; else by the values of the seeds.

    Args:
        scores: of the items behind a row, None where they were not kept or do not belong to it.
        items: what was asked behind a row; tells which items are alike.
        stderr: of a row's value over items.
    """
    values = fmean(row.value for row in baseline), fmean(row.value for row in candidate)
    notes = _one_seed(baseline, candidate)
    kept = [[scores(row) for row in side] for side in (baseline, candidate)]
    if any(one is None for side in kept for one in side):
        return OverSeeds(_by_values(baseline, candidate, stderr), values, notes)
    before, after = ([one for one in side if one is not None] for side in kept)
    shared = sorted(set.intersection(*(set(one) for one in (*before, *after))))
    if len(shared) < 2 or 2 * len(shared) < min(len(one) for one in (*before, *after)):
        return OverSeeds(f"different items ({len(shared)} in all sources)", values, notes)
    told = find_clusters(shared, items(baseline[0]))
    clusters = None if told is None else [told[0][item] for item in shared]
    if clusters is not None and len(set(clusters)) < 2:
        return OverSeeds("all items belong to one cluster", values, notes)
    if told is not None:
        notes = (*notes, f"{len(shared)} items in {len(set(clusters or ()))} clusters, told by {told[1]}.")
    lists = [[[one[item] for item in shared] for one in side] for side in (before, after)]
    means = fmean(fmean(one) for one in lists[0]), fmean(fmean(one) for one in lists[1])
    return OverSeeds(over_seeds(lists[0], lists[1], clusters=clusters), means, notes, len(shared))


def _one_seed(baseline: Sequence[EvalRow], candidate: Sequence[EvalRow]) -> tuple[str, ...]:
    if len(candidate) == 1 < len(baseline):
        return ("The candidate is one training seed: this is about that model, not about its recipe.",)
    return ()


def _by_values(
    baseline: Sequence[EvalRow], candidate: Sequence[EvalRow], stderr: Callable[[EvalRow], float | None]
) -> Difference | str:
    """By seeds and standard errors alone: the items' noise of a side does not shrink with its seeds."""
    delta = fmean(row.value for row in candidate) - fmean(row.value for row in baseline)
    terms: list[tuple[float, int]] = []
    for side in (baseline, candidate):
        errors = [stderr(row) for row in side]
        known = [error for error in errors if error is not None]
        if len(known) < len(side):
            return "a source kept neither scores of single items nor a usable standard error"
        terms.append((fmean(error**2 for error in known), max(1, (side[0].n or 1_000) - 1)))
        if len(side) > 1:
            terms.append((variance([row.value for row in side]) / len(side), len(side) - 1))
    method = (
        f"unpaired t-test over {len(baseline)} and {len(candidate)} seeds and the items' standard errors, t interval"
    )
    return by_t(delta, math.sqrt(sum(value for value, _ in terms)), satterthwaite(terms) + 1, method)
