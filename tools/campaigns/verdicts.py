"""What training seeds and held-out items together say about a recipe, and about the best of several.

A model is measured on items; a recipe is measured on models. A difference between two recipes therefore carries two
kinds of noise: which items were drawn, and which seed the training had.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Literal

from mlintern.tools.evals.clustered import over_seeds, satterthwaite
from mlintern.tools.evals.significance import ALPHA, paired, student_t_quantile

Verdict = Literal["improved", "regressed", "no_evidence", "not_comparable"]
Scores = Mapping[str, float]
"""The score of each item by its id; larger is better."""

MOST_SEEDS = 50
RESAMPLES = 400


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Candidate minus baseline, over seeds and items.

    Attributes:
        p_adjusted: two-sided, times the number of tries that it is corrected for.
        seeds_needed: training seeds after which a difference of this size would be shown; None if no number up to 50
            suffices, or the items alone do not allow it.
    """

    delta: float
    ci_low: float
    ci_high: float
    p_value: float
    p_adjusted: float
    seeds: int
    items: int
    verdict: Verdict
    reason: str
    seeds_needed: int | None = None


def recipe_effect(baseline: Sequence[Scores], candidate: Sequence[Scores], *, tries: int = 1) -> Effect | str:
    """The effect of a recipe, from the scores of one model a seed on each side; or why there is none to state.

    By `clustered.over_seeds`; if the candidate is a single model, nothing is said about the recipe.

    Args:
        tries: how many candidates, or openings of the same items, the p-value is corrected for (Bonferroni).
    """
    common = set.intersection(*(set(scores) for scores in (*baseline, *candidate)))
    if len(common) < 2:
        return "They share fewer than two items."
    items = sorted(common)
    before = [[scores[item] for item in items] for scores in baseline]
    after = [[scores[item] for item in items] for scores in candidate]
    by_item = [fmean(c) - fmean(b) for c, b in zip(zip(*after, strict=True), zip(*before, strict=True), strict=True)]
    delta = fmean(by_item)
    if len(after) == 1 and len(before) == 1:
        found = paired(before[0], after[0])
        p_adjusted = min(1.0, found.p_value * tries)
        model = _word(found.delta, p_adjusted)
        reason = {
            "improved": "This model is better; the recipe is not shown to be, as it was trained with one seed.",
            "regressed": "This model is worse; of the recipe one seed says nothing.",
            "no_evidence": "One seed, and the difference is within what the items give by chance.",
        }[model]
        return Effect(
            delta=delta,
            ci_low=found.ci_low,
            ci_high=found.ci_high,
            p_value=found.p_value,
            p_adjusted=p_adjusted,
            seeds=1,
            items=len(items),
            verdict="no_evidence",
            reason=reason,
        )
    found = over_seeds(before, after)
    p_adjusted = min(1.0, found.p_value * tries)
    one_seed = len(after) == 1
    verdict: Verdict = "no_evidence" if one_seed else _word(delta, p_adjusted)
    needed = (
        None
        if verdict != "no_evidence"
        else seeds_needed(delta, seed_variance=_seed_variance(after), item_variance=variance(by_item) / len(items))
    )
    return Effect(
        delta=delta,
        ci_low=found.ci_low,
        ci_high=found.ci_high,
        p_value=found.p_value,
        p_adjusted=p_adjusted,
        seeds=len(after),
        items=len(items),
        verdict=verdict,
        reason=_reason(verdict, seeds=len(after), tries=tries, needed=needed, one_seed=one_seed),
        seeds_needed=needed,
    )


def seeds_needed(delta: float, *, seed_variance: float | None, item_variance: float) -> int | None:
    """Training seeds with which a true difference of ``delta`` would be outside a 95 % interval around 0.

    Args:
        seed_variance: of the score between seeds, None if only one was tried.
        item_variance: squared standard error that the items alone leave.
    """
    if seed_variance is None or delta == 0:
        return None
    for seeds in range(2, MOST_SEEDS + 1):
        freedom = satterthwaite([(item_variance, 10_000), (seed_variance / seeds, seeds - 1)])
        if student_t_quantile(freedom) * math.sqrt(seed_variance / seeds + item_variance) < abs(delta):
            return seeds
    return None


def clear_losers(scores: Mapping[int, Scores]) -> dict[int, str]:
    """The trials that are worse than the best one beyond chance, each with the evidence in words.

    Each is compared with the leader item by item (exact McNemar test, or paired t-test) at 5 % divided by the number
    of comparisons, so that all of them together end a trial that is as good as the leader in at most 5 % of cases.
    """
    if len(scores) < 2:
        return {}
    means = {trial: fmean(own.values()) for trial, own in scores.items() if own}
    leader = max(means, key=lambda trial: (means[trial], -trial))
    losers: dict[int, str] = {}
    for trial, mean in means.items():
        items = sorted(set(scores[trial]) & set(scores[leader]))
        if trial == leader or mean >= means[leader] or len(items) < 2:
            continue
        found = paired([scores[leader][item] for item in items], [scores[trial][item] for item in items])
        if found.delta < 0 and found.p_value * (len(means) - 1) < ALPHA:
            losers[trial] = (
                f"{mean:.1%} against {means[leader]:.1%} on the same {len(items)} items "
                f"(difference {found.delta:+.1%}, p = {found.p_value:.2g})"
            )
    return losers


def optimism(by_trial: Sequence[Scores], *, seed: int = 0) -> float:
    """By how much the score of the best of several exceeds, on average, what it would score on fresh items.

    Items are drawn anew with replacement; the trial that is best on the draw is scored on the items that the draw
    left out (Efron 1983, JASA 78:316, for a choice among models). 0 for a single trial.
    """
    if len(by_trial) < 2:
        return 0.0
    items = sorted(set.intersection(*(set(scores) for scores in by_trial)))
    if len(items) < 10:
        return 0.0
    rows = [[scores[item] for item in items] for scores in by_trial]
    draw = random.Random(seed)
    gaps = []
    for _ in range(RESAMPLES):
        chosen = [draw.randrange(len(items)) for _ in items]
        left_out = sorted(set(range(len(items))) - set(chosen))
        if not left_out:
            continue
        means = [fmean(row[index] for index in chosen) for row in rows]
        best = max(range(len(rows)), key=means.__getitem__)
        gaps.append(means[best] - fmean(rows[best][index] for index in left_out))
    return max(0.0, fmean(gaps)) if gaps else 0.0


def _seed_variance(side: Sequence[Sequence[float]]) -> float | None:
    return variance([fmean(row) for row in side]) if len(side) > 1 else None


def _word(delta: float, p_adjusted: float) -> Verdict:
    if p_adjusted >= ALPHA or delta == 0:
        return "no_evidence"
    return "improved" if delta > 0 else "regressed"


def _reason(verdict: Verdict, *, seeds: int, tries: int, needed: int | None, one_seed: bool) -> str:
    corrected = f", corrected for {tries} tries" if tries > 1 else ""
    if one_seed:
        return "The candidate was trained with one seed, so nothing is said about its recipe."
    if verdict != "no_evidence":
        return f"Beyond chance over {seeds} seeds and all items{corrected}."
    more = f" About {needed} seeds would show a difference of this size." if needed else ""
    return f"Within what seeds and items give by chance{corrected}.{more}"
