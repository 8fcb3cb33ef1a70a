"""Rules for any trainer: numbers that are none, loss, gradients, progress, held-out loss.

A rule looks at the whole run so far and answers with its findings. Thresholds are set so that noise, a spike that
recovers and the ordinary course of a healthy run raise nothing: an alarm that is often wrong is not read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from statistics import fmean, median

from mlintern.tools.health.findings import Finding
from mlintern.tools.health.series import Run, Series, gain, head, noise, noise_of_means, smoothed, tail, window

WATCHED = re.compile(r"^(?:train_|eval_)?(?:loss|grad_norm|entropy|kl|reward|nll_loss)$|^(?:logps|logits)/|^policy/")
ENOUGH = 10
"""Logged rows below which a trend is not judged."""
SPIKE = 10.0
HUGE_SPIKE = 100.0
FLAT_ROWS = 100


def nan_or_inf(run: Run) -> Iterable[Finding]:
    """A NaN or infinity in a metric that must never be one.

    With its default logging_nan_inf_filter the trainer writes a NaN loss as 0; then only grad_norm tells.
    Single reward functions may be NaN by design (not every function judges every sample) and are left out.
    """
    broken = [
        series
        for name, series in run.curves.items()
        if WATCHED.search(name) and not all(math.isfinite(value) for value in series.values)
    ]
    if not broken:
        return
    lost = any(_is_lost(series) for series in broken)
    hidden = _hidden_nan(run)
    counts = [f"{series.name} is not finite in {_bad(series)} of {len(series)} rows" for series in broken]
    if hidden:
        counts.append(f"loss is logged as 0 in {hidden} of these rows, which hides it")
    yield Finding(
        kind="nan_or_inf",
        severity="error" if lost else "warning",
        step=int(min(_first_bad(series) for series in broken)),
        evidence="; ".join(counts),
        advice="Stop: the weights are lost. Start again from the last good checkpoint with a lower learning rate, "
        "bfloat16 or float32 instead of float16, and logging_nan_inf_filter=False."
        if lost
        else "It recovered (a skipped step). If it comes back, lower the learning rate or use bfloat16.",
    )


def divergence(run: Run) -> Iterable[Finding]:
    """The loss has lost what it had gained, and stays there. Not for rewards: their loss says nothing by itself."""
    loss = run["loss"]
    width = max(8, len(loss) // 5)  # single batches differ by half of the loss in healthy runs
    if run.has_reward or len(loss) < ENOUGH:
        return
    start, end = head(loss), fmean(loss.values[-width:])
    exploded = min(loss.values[-3:]) > 3 * start > 0
    if len(loss) < 2 * width and not exploded:
        return
    step, best = min(smoothed(loss, width), key=lambda point: point[1])
    lost = end - best
    noisy = lost <= 4 * noise(loss.values) * math.sqrt(2 / width) or lost <= 0.25 * max(start - best, 0.0)
    if not exploded and (noisy or end <= 1.5 * abs(best)):
        return
    yield Finding(
        kind="divergence",
        severity="error" if exploded or end > 1.2 * start else "warning",
        step=int(step),
        evidence=f"loss began at {start:.4g}, was {best:.4g} around step {step:.0f} and is {loss.values[-1]:.4g} now",
        advice="Lower the learning rate (by 3 to 10 times), warm up longer, check max_grad_norm; go back to a "
        "checkpoint from before it rose.",
    )


def gradient_spikes(run: Run) -> Iterable[Finding]:
    """Gradients that jump far above their usual norm again and again; one jump that passes is ordinary."""
    norms = run["grad_norm"]
    if len(norms) < ENOUGH:
        return
    skip = max(5, len(norms) // 20)  # the first steps are large in most runs
    usual = median(norms.values[skip:] or norms.values)
    spikes = [
        (step, value)
        for step, value in list(zip(norms.steps, norms.values, strict=True))[skip:]
        if usual > 0 and value > SPIKE * usual
    ]
    largest = max((value for _, value in spikes), default=0.0)
    if not spikes or (len(spikes) < 3 and largest <= HUGE_SPIKE * usual):
        return
    yield Finding(
        kind="gradient_spikes",
        severity="warning",
        step=int(spikes[0][0]),
        evidence=f"grad_norm exceeds {SPIKE:g} times its median ({usual:.3g}) in {len(spikes)} of {len(norms)} rows, "
        f"up to {largest:.3g}",
        advice="Set max_grad_norm (1.0 or less), look for broken or very long samples at these steps, lower the "
        "learning rate.",
    )


def stalled(run: Run) -> Iterable[Finding]:
    """Nothing is being learned, although the run goes on."""
    rate = run["learning_rate"]
    if len(rate) >= 5 and max(rate.values) == 0:
        yield _stalled(rate, "error", f"learning_rate is 0 in all {len(rate)} rows", "Set learning_rate.")
    if run.has_reward:
        return  # a loss of 0 is ordinary there; that there is no signal has a rule of its own
    loss, norms = run["loss"], run["grad_norm"]
    if len(norms) >= 5 and not any(norms.values[-5:]):
        yield _stalled(
            norms,
            "error",
            "grad_norm is 0 in the last 5 rows",
            "Check which parameters require gradients and whether "
            "all labels are masked (completion-only loss without a completion, or all rows truncated).",
        )
    elif len(loss) >= ENOUGH and not _has_nan(run, "grad_norm") and _spread(loss.values[-ENOUGH:]) < 1e-4:
        yield _stalled(
            loss,
            "error",
            f"loss stays at {loss.values[-1]:.4g} in the last {ENOUGH} rows",
            "Check that labels are not "
            "all masked, that parameters require gradients, and that the learning rate is not 0.",
        )
    elif len(loss) >= FLAT_ROWS and not run.has_preferences and tail(loss) > 0.98 * head(loss) > 0.2:
        yield _stalled(
            loss,
            "warning",
            f"loss was {head(loss):.4g} at first and is {tail(loss):.4g} after {len(loss)} rows",
            "Raise the learning rate (by 3 to 10 times), check the prompt format and the labels.",
        )
    yield from _no_preference_learned(run)


def overfitting(run: Run) -> Iterable[Finding]:
    """Held-out loss has passed its best and rises while training loss falls; or preferences are learned by heart."""
    held_out, loss = run["eval_loss"], run["loss"]
    if len(held_out) >= 3:
        best = min(range(len(held_out)), key=lambda index: held_out.values[index])
        last, least = held_out.values[-1], held_out.values[best]
        since = [value for step, value in zip(loss.steps, loss.values, strict=True) if step > held_out.steps[best]]
        before = [value for step, value in zip(loss.steps, loss.values, strict=True) if step <= held_out.steps[best]]
        falls = not since or not before or fmean(since) < fmean(before[-len(since) :])
        if last > 1.03 * least and (len(held_out) - best > 2 or last > 1.1 * least) and falls:
            yield Finding(
                kind="overfitting",
                severity="error" if last > 1.2 * least and last > held_out.values[0] else "warning",
                step=int(held_out.steps[best]),
                evidence=f"eval_loss was best ({least:.4g}) at step {held_out.steps[best]:.0f} and is {last:.4g} now",
                advice=f"Use the checkpoint at step {held_out.steps[best]:.0f}; train fewer epochs, on more data, or "
                "with LoRA.",
            )
    right, chosen = run["rewards/accuracies"], run["logps/chosen"]
    if len(right) >= ENOUGH and len(chosen) >= ENOUGH and tail(right) >= 0.98:
        first, now = head(chosen), tail(chosen)
        if now < first - 0.2 * abs(first) and gain(chosen) < -3 * noise_of_means(chosen):
            yield Finding(
                kind="overfitting",
                severity="warning",
                step=int(chosen.steps[-window(chosen)]),
                evidence=f"rewards/accuracies is {tail(right):.2f}; logps/chosen fell from {first:.4g} to {now:.4g}",
                advice="The pairs are told apart and the chosen answers grow unlikely: stop earlier, lower the "
                'learning rate, raise beta, or add an SFT term (loss_type=["sigmoid", "sft"] with loss_weights).',
            )


def _stalled(series: Series, severity: str, evidence: str, advice: str) -> Finding:
    return Finding.model_validate(
        {
            "kind": "stalled",
            "severity": severity,
            "step": int(series.steps[-1]),
            "evidence": evidence,
            "advice": advice,
        }
    )


def _no_preference_learned(run: Run) -> Iterable[Finding]:
    right = run["rewards/accuracies"]
    if len(right) >= 30 and abs(tail(right) - 0.5) <= 0.05 and abs(gain(right)) <= 3 * noise_of_means(right):
        yield _stalled(
            right,
            "warning",
            f"rewards/accuracies is still {tail(right):.2f}, as good as guessing, after {len(right)} rows",
            "Raise the learning rate or lower beta; check that chosen and rejected are not mixed up.",
        )


def _bad(series: Series) -> int:
    return sum(not math.isfinite(value) for value in series.values)


def _first_bad(series: Series) -> float:
    return next(s for s, v in zip(series.steps, series.values, strict=True) if not math.isfinite(v))


def _is_lost(series: Series) -> bool:
    """Whether it ends in NaN, or in several infinities: one infinite gradient is how float16 finds its loss scale."""
    recent = series.values[-3:]
    return math.isnan(recent[-1]) or not any(math.isfinite(value) for value in recent)


def _hidden_nan(run: Run) -> int:
    """Rows in which the loss reads 0 because it was NaN."""
    loss, norms = run.curves.get("loss"), run.curves.get("grad_norm")
    if loss is None or norms is None:
        return 0
    nan_steps = {step for step, value in zip(norms.steps, norms.values, strict=True) if math.isnan(value)}
    return sum(step in nan_steps and value == 0 for step, value in zip(loss.steps, loss.values, strict=True))


def _has_nan(run: Run, name: str) -> bool:
    series = run.curves.get(name)
    return series is not None and any(not math.isfinite(value) for value in series.values)


def _spread(values: tuple[float, ...]) -> float:
    """Range of the values relative to their size."""
    size = max(abs(value) for value in values)
    return 0.0 if size == 0 else (max(values) - min(values)) / size
