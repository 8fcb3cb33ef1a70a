"""The reward falls and does not come back."""

from __future__ import annotations

from collections.abc import Iterable

from mlintern.tools.health.advice import slower
from mlintern.tools.health.change import Fall, find_erosion, find_fall, largest_recovered_fall
from mlintern.tools.health.findings import Finding
from mlintern.tools.health.series import Run, Series
from mlintern.tools.health.statistics import head

FALL_LIMIT = 13.0
"""Log-likelihood ratio of two windows from which a fall is more than chance, over all windows and all looks."""
EROSION_LIMIT = 8.0
"""The same for a straight line: there are three lines, and thousands of windows."""
LEAST_SHARE = 0.25


def reward_collapse(run: Run) -> Iterable[Finding]:
    """The reward has fallen far below where it was, by more than the sampling of answers explains, and stays there.

    Thresholds: a fall of a quarter of the level, and of half of what had been gained; deeper than any fall of this
    run that it recovered from; log-likelihood ratio above 13 for two windows, or 8 for a line (`health/change.py`).
    Source: scan statistics for a change of the mean (Siegmund 1985, "Sequential Analysis", ch. 8), with the limits
    from simulation, since a run is looked at again and again. False alarms (`benchmarks/judgement.py`): at most 0.7 %
    of stationary runs of 150 rows, looked at after every fifth row, for 1 x 8 to 64 x 16 answers a row and shares of
    right answers from .02 to .98. Found: at least 90 % of erosions from .7 to .45 over 200 rows of 1 x 8 answers.
    """
    reward = run["reward"]
    fall = next((fall for fall, limit in _candidates(reward) if fall.evidence > limit and _deep(reward, fall)), None)
    if fall is None:
        return
    yield Finding(
        kind="reward_collapse",
        severity="error",
        step=int(fall.step),
        evidence=f"reward was {fall.high:.4g} around step {fall.step:.0f} and is {fall.low:.4g} now (it began at "
        f"{head(reward):.4g})",
        advice=f"Stop and go back to a checkpoint near step {fall.step:.0f}. {slower(run)}, set beta above 0, lower "
        "epsilon_high; read completions from before and after the fall.",
    )


def _candidates(reward: Series) -> Iterable[tuple[Fall, float]]:
    if (fall := find_fall(reward)) is not None:
        yield fall, FALL_LIMIT
    if (fall := find_erosion(reward)) is not None:
        yield fall, EROSION_LIMIT


def _deep(reward: Series, fall: Fall) -> bool:
    gained = fall.high - head(reward)
    large = fall.depth > LEAST_SHARE * abs(fall.high) and fall.depth > 0.5 * gained
    return large and fall.depth > 1.1 * largest_recovered_fall(reward.values, width=fall.width)
