"""The reward rises, but not for what it was meant for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from statistics import pstdev

from mlintern.tools.health.findings import Finding
from mlintern.tools.health.rules.reward_signal import MANNER, PENALTY
from mlintern.tools.health.series import Run, Series
from mlintern.tools.health.statistics import ENOUGH, gain, head, smoothed, tail_mean, trend, window

RIGHT = re.compile(r"correct|accura|exact|answer|solve|pass|verif|gold|true|match|outcome|success", re.I)
"""Names of rewards for whether an answer is right."""
SURE = 3.0
FORM_ROWS = 100


def reward_hacking(run: Run) -> Iterable[Finding]:
    """One reward makes the gain while the one that is the goal stays low or falls; or held-out scores fall.

    Which one is the goal: a reward named for being right (correct, accuracy, ...), or one that is only watched
    because the total is the other one. A reward for the manner of the answer, a penalty at its best value (0), and a
    flat one without such a name are not taken for the goal. Thresholds: the winner's trend is above 3 standard errors
    and half of its own level; the goal gains less than 5 % of that and ends below half of its best possible value (1
    where rewards lie in [0, 1]). Where the winner is the form of the answer and the goal has merely not moved, half
    of the planned steps, or 100 rows, have to be done. An error where the goal is below a tenth of the winner. From
    12 rows on. Source: proxy and true reward part (Gao et al. 2022, arXiv:2210.10760). False alarms: none in 300
    healthy runs of each kind (`benchmarks/judgement.py`).
    """
    reward = run["reward"]
    if len(reward) < ENOUGH + 2:
        return
    change, error = trend(reward)
    if change > SURE * error and change > 1e-6:
        yield from _held_out_falls(run, reward)
    yield from _goal_not_served(run, reward)


def _held_out_falls(run: Run, reward: Series) -> Iterable[Finding]:
    for name, held_out in run.held_out(r"reward|accuracy|acc|score|exact_match|pass@1").items():
        if len(held_out) < 3 or held_out.values[-1] >= held_out.values[0]:
            continue
        best = max(held_out.values)
        if best - held_out.values[-1] > 2 * pstdev(held_out.values[:-1]):
            yield Finding(
                kind="reward_hacking",
                severity="error",
                step=int(held_out.steps[held_out.values.index(best)]),
                evidence=f"reward rose by {gain(reward):.3g} while {name} fell from {held_out.values[0]:.3g} to "
                f"{held_out.values[-1]:.3g}",
                advice="Read completions with a high reward; repair the reward function before training on.",
            )
            return


def _goal_not_served(run: Run, reward: Series) -> Iterable[Finding]:
    parts = {name: part for name, part in run.components().items() if len(part) >= ENOUGH}
    changes = {name: trend(part) for name, part in parts.items()}
    if len(parts) < 2:
        return
    winner = max(changes, key=lambda name: changes[name][0])
    won, error = changes[winner]
    if won <= SURE * error or won < 0.2 * abs(trend(reward)[0]) or won < 0.1 * _top(parts[winner]):
        return
    for name, part in parts.items():
        if name == winner or not _is_goal(name, part, winner=parts[winner], reward=reward):
            continue
        change, noise = changes[name]
        fell = change < -SURE * noise and change < -0.2 * head(part)
        low = tail_mean(part) < 0.5 * _top(part)
        if not low or (change >= 0.05 * won and not fell):
            continue
        useless = tail_mean(part) < 0.1 * tail_mean(parts[winner])
        counts = tail_mean(part) >= 0.15 * tail_mean(parts[winner])
        if not fell and counts and _form_first(run, winner, rows=len(reward)):
            continue
        yield Finding(
            kind="reward_hacking",
            severity="error" if fell or useless else "warning",
            step=int(
                next((s for s, v in smoothed(parts[winner]) if v > head(parts[winner]) + won / 2), reward.steps[-1])
            ),
            evidence=f"{winner} rose by {gain(parts[winner]):.3g} (to {tail_mean(parts[winner]):.3g}) while {name} "
            f"changed by {gain(part):+.3g} (to {tail_mean(part):.3g})",
            advice=f"Read completions that {winner} rewards and {name} does not. If {name} is the goal, give it more "
            f"weight, let {winner} count only where {name} does, or make {winner} harder to satisfy.",
        )
        return


def _form_first(run: Run, winner: str, *, rows: int) -> bool:
    """Whether it is too early to tell: the form of an answer is learned long before more answers are right."""
    early = run.last_step < run.total_steps / 2 if run.total_steps else rows < FORM_ROWS
    return MANNER.search(winner) is not None and early


def _is_goal(name: str, part: Series, *, winner: Series, reward: Series) -> bool:
    if MANNER.search(name) or PENALTY.search(name) or max(part.values) <= 0:
        return False
    recent = window(reward)
    total_is_winner = len(reward) == len(winner) and all(
        abs(a - b) <= 1e-9 + 1e-6 * abs(a)
        for a, b in zip(reward.values[-recent:], winner.values[-recent:], strict=True)
    )
    return RIGHT.search(name) is not None or total_is_winner


def _top(part: Series) -> float:
    """The best that the reward can give, as far as it shows: 1 for what lies in [0, 1]."""
    return max(1.0, max(part.values)) if min(part.values) >= 0 else max(part.values)
