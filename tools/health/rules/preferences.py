"""Preference training (DPO and its like) and reward models: pairs of a chosen and a rejected answer."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean, pstdev

from mlintern.tools.health.advice import faster, slower
from mlintern.tools.health.findings import Finding
from mlintern.tools.health.rules.loss import GUESSING
from mlintern.tools.health.series import Run, Series
from mlintern.tools.health.statistics import ENOUGH, falls, gain, head, noise_of_means, tail, tail_mean, trend, window

WILD = 4 * GUESSING
PAIRS_TO_JUDGE = 30
A_TOKEN, LEAST_NATS = 5.0, 0.5
"""Log-probabilities nearer to 0 than this are means a token (SimPO, ORPO): a share of so little means nothing."""


def preference_divergence(run: Run) -> Iterable[Finding]:
    """The loss of the pairs swings far beyond that of guessing: the steps are too large.

    Threshold: of the second half of the rows (at least 10), the mean loss is above that of guessing (0.693), a tenth
    of the rows or more are above 4 times it, and others are below half of it; or the mean is above twice it in a run
    that began within .35 of it. Losses with another zero (ORPO, IPO) neither swing nor begin so. Source: DPO's loss
    at a margin of m is log(1 + exp(-m)), so 2.8 means a pair that is wrong by 2.7 with confidence. False alarms: none
    in 300 healthy runs of each kind (`benchmarks/judgement.py`).
    """
    loss = run["loss"]
    if not run.has_preferences or run.has_reward or len(loss) < 2 * ENOUGH:
        return
    later = loss.values[len(loss) // 2 :]
    wild = sum(value > WILD for value in later) / len(later)
    start = fmean(loss.values[:3])
    swings = fmean(later) > GUESSING and wild >= 0.1 and min(later) < GUESSING / 2
    if not swings and not (fmean(later) > 2 * GUESSING and abs(start - GUESSING) < 0.35):
        return
    yield Finding(
        kind="divergence",
        severity="error",
        step=int(next((s for s, v in zip(loss.steps, loss.values, strict=True) if v > WILD), loss.steps[-1])),
        evidence=f"loss swings between {min(later):.3g} and {max(later):.3g} (mean {fmean(later):.3g}; guessing is "
        f"{GUESSING:.3f})",
        advice=f"{slower(run)}, use a larger batch, or raise beta so that single pairs weigh less.",
    )


def guessing(run: Run) -> Iterable[Finding]:
    """Chosen and rejected are still told apart no better than by guessing.

    Threshold: of at least 30 rows, the mean share of pairs in the right order over the second half is within .05 of
    .5 and does not rise by more than 3 standard errors, and the loss has not fallen. The mean, not the median: with
    few pairs a row the median is 0, .5 or 1. Also for reward models, which log ``accuracy`` beside ``margin`` or
    ``min_reward``. False alarms: none in 300 healthy runs of each kind (`benchmarks/judgement.py`).
    """
    right, loss = _in_order(run), run["loss"]
    if len(right) < PAIRS_TO_JUDGE:
        return
    level = fmean(right.values[len(right) // 2 :])
    if abs(level - 0.5) > 0.05 or gain(right) > 3 * noise_of_means(right):
        return
    change, error = trend(loss)
    wild = len(loss) >= ENOUGH and (max(loss.values[-window(loss) :]) > WILD or pstdev(loss.values) > GUESSING)
    if len(loss) >= ENOUGH and change < -3 * error and change < -0.1 * head(loss):
        return
    yield Finding(
        kind="stalled",
        severity="warning",
        step=int(right.steps[-1]),
        evidence=f"{right.name} is still {level:.2f} on average, as good as guessing, after {len(right)} rows",
        advice=f"{slower(run) if wild else faster(run)}, check that chosen and rejected are not mixed up.",
    )


def chosen_falls(run: Run) -> Iterable[Finding]:
    """The chosen answers grow unlikely together with the rejected ones.

    Threshold: logps/chosen falls by more than 20 % with accuracies of .98 or more (learned by heart), or by more than
    half with the rejected falling too; 3 standard errors, and half a nat a token, in any case. That they fall a
    little is what DPO does (Razin et al. 2024, "Unintentional unalignment", arXiv:2410.08847). False alarms: none in
    300 healthy runs of each kind (`benchmarks/judgement.py`).
    """
    right, chosen, rejected = run["rewards/accuracies"], run["logps/chosen"], run["logps/rejected"]
    if len(chosen) < ENOUGH or not falls(chosen):
        return
    first, now = fmean(chosen.values[:3]), tail(chosen)
    if abs(first) < A_TOKEN and first - now < LEAST_NATS:
        return
    share = (first - now) / max(abs(first), 1e-9)
    by_heart = len(right) >= ENOUGH and tail_mean(right) >= 0.98 and share > 0.2
    together = share > 0.5 and len(rejected) >= ENOUGH and falls(rejected)
    if not by_heart and not together:
        return
    seen = f"rewards/accuracies is {tail_mean(right):.2f}; " if len(right) else ""
    both = f", and logps/rejected from {head(rejected):.4g} to {tail(rejected):.4g}" if together else ""
    yield Finding(
        kind="overfitting",
        severity="warning",
        step=int(chosen.steps[-window(chosen)]),
        evidence=f"{seen}logps/chosen fell from {first:.4g} to {now:.4g}{both}",
        advice=f"The chosen answers grow unlikely. {slower(run)}, stop earlier, raise beta, or add an SFT term "
        '(loss_type=["sigmoid", "sft"] with loss_weights).',
    )


def _in_order(run: Run) -> Series:
    if len(run["rewards/accuracies"]):
        return run["rewards/accuracies"]
    reward_model = any(name in run.curves for name in ("margin", "min_reward", "center_rewards", "mean_reward"))
    held_out = next(iter(run.held_out("accuracy").values()), Series("accuracy"))
    return (run["accuracy"] if len(run["accuracy"]) else held_out) if reward_model else Series("accuracy")
