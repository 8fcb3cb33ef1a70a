"""Numbers that are none, and gradients that jump."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from statistics import median

from mlintern.tools.health.findings import Finding
from mlintern.tools.health.series import Run, Series
from mlintern.tools.health.statistics import ENOUGH

WATCHED = re.compile(
    r"^(?:train_|eval_)?(?:loss|grad_norm|entropy|kl|reward|nll_loss)$|^(?:logps|logits)/|^policy/|^actor/"
    r"|^eval_.+_loss$"
)
SPIKE, HUGE_SPIKE = 10.0, 100.0
WIDE = 4.0
"""Standard deviations of the logarithm of the norms from which a jump is not one of their ordinary sizes."""
CLIPPED_AT = 1.0
"""The usual max_grad_norm. A gradient below it is not even clipped, however small the others are."""


def nan_or_inf(run: Run) -> Iterable[Finding]:
    """A metric ends in NaN, or in three infinities: the weights are lost.

    Threshold: the last logged value is NaN, or the last three are not finite. A gradient norm that was not finite and
    then recovered is only noted: that is how the scaler of float16 finds its scale (Micikevicius et al. 2018,
    arXiv:1710.03740, 4.1). In other metrics a value that recovered is a warning. With its default
    logging_nan_inf_filter the Trainer writes a NaN loss as 0; then only grad_norm tells. Single reward functions may
    be NaN by design (not every function judges every sample) and are left out. False alarms: none on finite curves.
    """
    broken = [series for name, series in run.curves.items() if WATCHED.search(name) and series.bad]
    if not broken:
        return
    lost = any(series.ends_in_nan or series.bad_at_end >= 3 for series in broken)
    counts = [f"{one.name} is not finite in {one.bad} of {one.bad + _seen(one)} rows" for one in broken]
    if run.hidden_nan:
        counts.append(f"loss is logged as 0 in {run.hidden_nan} of these rows, which hides it")
    skipped = all(series.name.endswith("grad_norm") and not series.bad_at_end for series in broken)
    yield Finding(
        kind="nan_or_inf",
        severity="error" if lost else "note" if skipped else "warning",
        step=int(min(series.first_bad or 0.0 for series in broken)),
        evidence="; ".join(counts),
        advice="Stop: the weights are lost. Start again from the last good checkpoint with a lower learning rate, "
        "bfloat16 or float32 instead of float16, and logging_nan_inf_filter=False."
        if lost
        else "It recovered (a skipped step). If it comes back, use bfloat16 or a longer warm-up.",
    )


def gradient_spikes(run: Run) -> Iterable[Finding]:
    """Gradients jump far above their usual norm again and again; one jump that passes is ordinary.

    Threshold: three rows above 10 times the usual norm, or one above 100 times, the first twentieth left out. Usual
    is the median, but at least a fifth of the median of the first quarter: the gradients of a run that has converged
    are near 0, and what jumps above that harms nothing. Where norms scatter widely by themselves (small batches of a
    classifier) the limit is 4 standard deviations of their logarithm. Below 1.0, the usual max_grad_norm, nothing
    counts. False alarms: none in 300 healthy runs of each kind (`benchmarks/judgement.py`).
    """
    norms = run["grad_norm"]
    if len(norms) < ENOUGH:
        return
    skip = max(5, len(norms) // 20)  # the first steps are large in most runs
    early = median(norms.values[: max(skip, len(norms) // 4)])
    usual = max(median(norms.values[skip:] or norms.values), early / 5)
    rows = list(zip(norms.steps, norms.highs, strict=True))[skip:]
    spread = _spread(norms.values[skip:])
    limit = max(SPIKE, spread**WIDE)
    spikes = [(step, value) for step, value in rows if value > max(limit * usual, CLIPPED_AT) and usual > 0]
    largest = max((value for _, value in spikes), default=0.0)
    if not spikes or (len(spikes) < 3 and largest <= max(HUGE_SPIKE, limit) * usual):
        return
    yield Finding(
        kind="gradient_spikes",
        severity="warning",
        step=int(spikes[0][0]),
        evidence=f"grad_norm exceeds {limit:.3g} times its usual size ({usual:.3g}) in {len(spikes)} of {len(norms)} "
        f"rows, up to {largest:.3g}",
        advice="Set max_grad_norm (1.0 or less), look for broken or very long samples at these steps, lower the "
        "learning rate.",
    )


def _seen(series: Series) -> int:
    return len(series)


def _spread(values: Sequence[float]) -> float:
    """One standard deviation of the logarithms, as a factor; from the median deviation, which jumps do not move."""
    logarithms = [math.log(value) for value in values if value > 0]
    if not logarithms:
        return 1.0
    centre = median(logarithms)
    return math.exp(min(1.4826 * median(abs(one - centre) for one in logarithms), 10.0))
