"""The training loss: lost for good, or not moving at all. Not for rewards, whose loss says nothing by itself."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import fmean

from mlintern.tools.health.advice import faster, slower
from mlintern.tools.health.change import noise_variance
from mlintern.tools.health.findings import Finding, Severity
from mlintern.tools.health.series import Run, Series
from mlintern.tools.health.statistics import ENOUGH, gain, head, relative_range, smoothed, tail, trend

FLAT_ROWS = 100
QUIET, LOW_RATE = 0.025, 1e-6
"""Noise of a row, as a share of the loss, and learning rate, that continued pretraining stays below and above."""
EARLY = 4
"""Rows at the very beginning that are compared as well: too large a learning rate can take effect at once."""
GUESSING = math.log(2)
"""The loss of a preference pair of which nothing is known (DPO's sigmoid loss: Rafailov et al. 2023, eq. 7)."""


def divergence(run: Run) -> Iterable[Finding]:
    """The loss has lost what it had gained, and stays there.

    Threshold: the mean of the last fifth (at least 8 rows) is above 1.5 times the best such mean, by more than 4
    standard errors and more than a quarter of what had been gained; the mean of 4 rows within the first fifth counts
    as the best one too, by more than 6 standard errors; or the last three rows are all above 3 times the start. An
    error if it is also above 1.2 times the start. Curricula and new epochs raise a loss for good by less. False
    alarms: none in 300 healthy runs of each kind (`benchmarks/judgement.py`).
    """
    loss = run["loss"]
    width = max(8, len(loss) // 5)  # single batches differ by half of the loss in healthy runs
    if run.has_policy_loss or len(loss) < ENOUGH or run.has_preferences:
        return
    start, end = head(loss), fmean(loss.values[-width:])
    exploded = min(loss.values[-3:]) > 3 * start > 0
    if len(loss) < 2 * width and not exploded:
        return
    step, best = min(smoothed(loss, width), key=lambda point: point[1])
    noise = math.sqrt(noise_variance(loss.values) * 2 / width)
    early = min(smoothed(loss.first(max(EARLY, len(loss) // 5)), EARLY), key=lambda point: point[1])
    if early[1] < 0.8 * best:  # lost within the first rows, which no wider window shows
        (step, best), start = early, min(start, fmean(loss.values[:EARLY]))
        noise = 1.5 * math.sqrt(noise_variance(loss.values) * (1 / EARLY + 1 / width))
    lost = end - best
    noisy = lost <= 4 * noise or lost <= 0.25 * max(start - best, 0.0)
    if not exploded and (noisy or end <= 1.5 * abs(best)):
        return
    yield Finding(
        kind="divergence",
        severity="error" if exploded or end > 1.2 * start else "warning",
        step=int(step),
        evidence=f"loss began at {start:.4g}, was {best:.4g} around step {step:.0f} and is {loss.values[-1]:.4g} now",
        advice=f"{slower(run)}, warm up longer, check max_grad_norm; go back to a checkpoint from before it rose.",
    )


def stalled(run: Run) -> Iterable[Finding]:
    """Nothing is being learned, although the run goes on.

    Thresholds: a learning rate of 0 in all of 5 rows; a gradient of 0 in the last 5; a loss that does not move by
    more than a ten-thousandth in 10 rows, unless it got there by falling; a loss that in 100 rows fell by less than 1
    % of its start, moved by less than 2 standard errors of its trend, and cannot have fallen by 10 % unseen.
    Continued pretraining falls by about 1 %, with little noise: where single rows scatter by less than 2.5 % at a
    learning rate above 1e-6, the run has to be over (or 200 rows long) and the fall below .3 %. False alarms: none in
    300 healthy runs of each kind (`benchmarks/judgement.py`).
    """
    rate = run["learning_rate"]
    if len(rate) >= 5 and max(rate.values) == 0:
        yield _stalled(rate, "error", f"learning_rate is 0 in all {len(rate)} rows", "Set learning_rate.")
        return
    if run.has_policy_loss:
        return  # a loss of 0 is ordinary there; that there is no signal has a rule of its own
    loss, norms = run["loss"], run["grad_norm"]
    memorised = len(loss) >= ENOUGH and tail(loss) < 0.05 * head(loss)
    if len(norms) >= 5 and not norms.bad and not any(norms.values[-5:]) and not memorised:
        masked = "Check which parameters require gradients and whether all labels are masked (completion-only loss "
        masked += "without a completion, or all rows truncated)."
        yield _stalled(norms, "error", "grad_norm is 0 in the last 5 rows", masked)
    elif run.has_preferences and len(loss) >= 5 and max(loss.values) < 1e-3:
        yield _stalled(
            loss,
            "error",
            f"loss is {max(loss.values):.3g} at most from the first row on, where {GUESSING:.3f} is the start",
            "Nothing is left to prefer: check that chosen and rejected differ after truncation, that labels are not "
            "all masked, and that the reference model is the model that is trained.",
        )
    elif len(loss) >= ENOUGH and not norms.bad and relative_range(loss.values[-ENOUGH:]) < 1e-4 and not memorised:
        yield _stalled(
            loss,
            "error",
            f"loss stays at {loss.values[-1]:.4g} in the last {ENOUGH} rows",
            "Check that labels are not all masked, that parameters require gradients, and that the learning rate is "
            "not 0.",
        )
    elif len(loss) >= FLAT_ROWS and not run.has_preferences and _flat(run, loss):
        yield _stalled(
            loss,
            "warning",
            f"loss was {head(loss):.4g} at first and is {tail(loss):.4g} after {len(loss)} rows",
            f"{faster(run)}, check the prompt format and the labels.",
        )


def _flat(run: Run, loss: Series) -> bool:
    change, error = trend(loss)
    start = head(loss)
    if start <= 0.2 or abs(change) > 2 * error or change < -0.01 * start or -gain(loss) >= 0.02 * start:
        return False
    quiet = math.sqrt(noise_variance(loss.values)) < QUIET * start
    if quiet and max(run["learning_rate"].values, default=0.0) > LOW_RATE:  # as in continued pretraining
        return (run.over or len(loss) >= 2 * FLAT_ROWS) and change > -0.003 * start
    return change - 2 * error > -0.1 * start


def _stalled(series: Series, severity: Severity, evidence: str, advice: str) -> Finding:
    return Finding(kind="stalled", severity=severity, step=int(series.steps[-1]), evidence=evidence, advice=advice)
