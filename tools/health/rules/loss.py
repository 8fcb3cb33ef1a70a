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
GUESSING = math.log(2)
"""The loss of a preference pair of which nothing is known (DPO's sigmoid loss: Rafailov et al. 2023, eq. 7)."""


def divergence(run: Run) -> Iterable[Finding]:
    """The loss has lost what it had gained, and stays there.

    Threshold: the mean of the last fifth (at least 8 rows) is above 1.5 times the best such mean, by more than 4
    standard errors and more than a quarter of what had been gained; or the last three rows are all above 3 times the
    start. An error if it is also above 1.2 times the start. Curricula and new epochs raise a loss for good by less.
    False alarms: none in 300 healthy runs of each kind (`benchmarks/judgement.py`).
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
    lost = end - best
    noise = math.sqrt(noise_variance(loss.values) * 2 / width)
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
    % of its start and by less than 2 standard errors of its trend. Continued pretraining falls by about 1 %, with
    little noise: that is learning. False alarms: none in 300 healthy runs of each kind (`benchmarks/judgement.py`).
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
    elif len(loss) >= FLAT_ROWS and not run.has_preferences and _flat(loss):
        yield _stalled(
            loss,
            "warning",
            f"loss was {head(loss):.4g} at first and is {tail(loss):.4g} after {len(loss)} rows",
            f"{faster(run)}, check the prompt format and the labels.",
        )


def _flat(loss: Series) -> bool:
    change, error = trend(loss)
    start = head(loss)
    return start > 0.2 and change > -0.01 * start and change > -2 * error and -gain(loss) < 0.02 * start


def _stalled(series: Series, severity: Severity, evidence: str, advice: str) -> Finding:
    return Finding(kind="stalled", severity=severity, step=int(series.steps[-1]), evidence=evidence, advice=advice)
