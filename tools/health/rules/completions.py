"""How long the sampled answers are: they grow without end, shrink to nothing, or are cut off."""

from __future__ import annotations

from collections.abc import Iterable

from mlintern.tools.health.findings import Finding
from mlintern.tools.health.series import Run
from mlintern.tools.health.statistics import ENOUGH, falls, first_step, gain, head, rises, tail, window


def length_explosion(run: Run) -> Iterable[Finding]:
    """Answers grow and grow without being worth more. Growth that pays is how reasoning is learned.

    Threshold: the last fifth is above 2.5 times the first, by more than 3 standard errors, and the reward has not
    risen by more than 3. Source: length bias of GRPO's loss (Liu et al. 2025, "Understanding R1-Zero-Like Training",
    arXiv:2503.20783). False alarms: none in 300 healthy runs of each kind (`benchmarks/judgement.py`).
    """
    length, reward = run["length"], run["reward"]
    if len(length) < ENOUGH or head(length) <= 0:
        return
    first, now = head(length), tail(length)
    if now <= 2.5 * first or not rises(length) or rises(reward):
        return
    paid = f", and reward by {gain(reward):+.3g}" if len(reward) else ""
    yield Finding(
        kind="length_explosion",
        severity="warning",
        step=first_step(length, above=2.5 * first),
        evidence=f"mean length went from {first:.0f} to {now:.0f} tokens{paid}",
        advice='Penalise length, or use a loss_type without length bias ("dapo", "dr_grpo"); check that the '
        "end token is learned.",
    )


def length_collapse(run: Run) -> Iterable[Finding]:
    """Answers shrink to almost nothing: from 200 tokens to 2.

    Threshold: the last fifth is below a tenth of the first (an error below a twentieth), or below a fifth while the
    reward has not risen; 3 standard errors in any case, and at least 20 tokens at the start. Shorter answers for the
    same reward are ordinary. False alarms: none in 300 healthy runs of each kind (`benchmarks/judgement.py`).
    """
    length = run["length"]
    if len(length) < ENOUGH or not falls(length):
        return
    first, now = head(length), tail(length)
    start = max(first, length.values[0])
    if first < 20 or not (now < 0.1 * first or (now < 0.2 * first and not rises(run["reward"]))):
        return
    yield Finding(
        kind="length_collapse",
        severity="error" if now < 0.05 * first else "warning",
        step=first_step(length, below=0.2 * first),
        evidence=f"mean length went from {start:.0f} to {now:.3g} tokens",
        advice="Read some completions. Reward nothing for an empty or unfinished answer, take out penalties on "
        "length, and look whether the end token is sampled at once.",
    )


def truncation(run: Run) -> Iterable[Finding]:
    """Most answers are cut off at the limit, so that their reward judges the cut.

    Threshold: more than half of the answers in the median of the last fifth; an error above .9 after 10 rows. Source:
    overlong filtering (Yu et al. 2025, DAPO, arXiv:2503.14476, 3.4). False alarms: none below the limit, by
    construction.
    """
    clipped = run["clipped"]
    if len(clipped) < 3 or tail(clipped) <= 0.5:
        return
    yield Finding(
        kind="truncation",
        severity="error" if tail(clipped) > 0.9 and len(clipped) >= ENOUGH else "warning",
        step=int(clipped.steps[-window(clipped)]),
        evidence=f"{clipped.name} is {tail(clipped):.2f}",
        advice="Raise max_completion_length, set mask_truncated_completions=True, or start from a model that ends "
        "its answers.",
    )
