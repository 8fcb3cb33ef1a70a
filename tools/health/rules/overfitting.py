"""What is measured on held-out data turns while training goes on; or the training data are known by heart."""

from __future__ import annotations

import bisect
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean, median

from mlintern.tools.health.advice import slower
from mlintern.tools.health.findings import Finding
from mlintern.tools.health.series import Run, Series
from mlintern.tools.health.statistics import ENOUGH, head, tail

TASK = (
    r"(?:(?:mean_)?token_)?(?:accuracy|acc)|exact_match|em|f1|macro_f1|wer|cer|bleu|chrf|rouge\w*|pass@\d+|mcc|score"
    r"|rewards/accuracies|matthews_correlation|spearmanr|pearson|map|mrr|ndcg\S*|recall\S*|precision\S*"
)
LESS_IS_BETTER = re.compile(r"(?:wer|cer|ppl|perplexity)$")
LEAST_EPOCHS = 3
MANY_EPOCHS = 10
LEAST_POINTS = 0.01
"""A metric that lost less than this has lost an item or two."""


def overfitting(run: Run) -> Iterable[Finding]:
    """On any evaluation set the task's own metric, or else the loss, has passed its best and keeps getting worse.

    Thresholds: the metric has lost 5 % of its best over at least 2 later evaluations, or 15 % at once; the loss has
    risen by 3 %, or 10 % at once, while the training loss falls; of 8 evaluations or more also by 3 times what they
    scatter. A loss that rises while the metric of the same set
    improves is worse calibration, not worse answers (Guo et al. 2017, arXiv:1706.04599), and is noted only. The worst
    set is reported. False alarms: none where held-out values lose less than that, by construction; 2 warnings in 300
    healthy classifiers whose held-out loss of .35 scatters by .008 (`benchmarks/judgement.py`).
    """
    found = [
        finding
        for name, loss in run.held_out("loss").items()
        if (finding := _of_set(run, loss, _task_metrics(run, name.removesuffix("loss"))))
    ]
    judged = {name.removesuffix("loss") for name in run.held_out("loss")}
    for name, metric in run.held_out(TASK).items():
        if not any(name.startswith(prefix) for prefix in judged) and (worse := _past_best(metric)) is not None:
            found.append(_by_metric(run, metric, worse))
    if found:
        yield min(found, key=lambda finding: ("error", "warning", "note").index(finding.severity))


def memorised(run: Run) -> Iterable[Finding]:
    """Without held-out data: the training loss is practically 0, or steps down at each new epoch.

    Thresholds: a loss that began above .5 ends below .01 (an error below .005), or below .03
    after 10 epochs; or, over 3 epochs or more, at least
    75 % of the fall happens within a quarter of an epoch of the places where an epoch ends, each such step is 10 % of
    the loss or more, and the last epoch has less than half the loss of the first. Text that is not known by heart has
    an entropy well above .01 a token (Carlini et al. 2022, arXiv:2202.07646); that a model which has seen a row once
    is better on it is what makes the stairs. False alarms: none in 300 healthy runs of each kind
    (`benchmarks/judgement.py`).
    """
    loss = run["loss"]
    if run.has_policy_loss or run.has_preferences or run.held_out("loss") or len(loss) < 2 * ENOUGH:
        return
    first, now = head(loss), tail(loss)
    advice = "Hold out data and measure it (eval_strategy); train fewer epochs or on more data."
    if max(first, loss.values[0]) > 0.5 and now < 0.01:
        yield Finding(
            kind="overfitting",
            severity="error" if now < 0.005 else "warning",
            step=int(next(s for s, v in zip(loss.steps, loss.values, strict=True) if v < 0.01)),
            evidence=f"training loss fell from {loss.values[0]:.3g} to {now:.2g}: the data are known by heart",
            advice=advice,
        )
    elif max(first, loss.values[0]) > 0.5 and now < 0.03 and run.epochs.values[-1:] >= (MANY_EPOCHS,):
        yield Finding(
            kind="overfitting",
            severity="warning",
            step=int(next(s for s, v in zip(loss.steps, loss.values, strict=True) if v < 0.03)),
            evidence=f"training loss fell from {loss.values[0]:.3g} to {now:.2g} over {run.epochs.values[-1]:.0f} "
            "epochs, and nothing was held out",
            advice=advice,
        )
    elif len(means := _stairs(run, loss)) >= LEAST_EPOCHS:
        yield Finding(
            kind="overfitting",
            severity="warning",
            step=int(next(s for s, e in zip(run.epochs.steps, run.epochs.values, strict=True) if e > 1)),
            evidence="training loss steps down at each new epoch and is level within them: "
            + ", ".join(f"{mean:.3g}" for mean in means),
            advice=advice,
        )


def _of_set(run: Run, loss: Series, metrics: list[Series]) -> Finding | None:
    for metric in metrics:
        if (worse := _past_best(metric)) is not None:
            return _by_metric(run, metric, worse)
    risen = _past_best(loss, less_is_better=True)
    if risen is None or not _training_falls(run, loss.steps[risen]):
        return None
    last, least, step = loss.values[-1], loss.values[risen], loss.steps[risen]
    better = next((metric for metric in metrics if _improved_since(metric, step)), None)
    evidence = f"{loss.name} was best ({least:.4g}) at step {step:.0f} and is {last:.4g} now"
    if better is not None:
        return Finding(
            kind="overfitting",
            severity="note",
            step=int(step),
            evidence=f"{evidence}, while {better.name} went on to {better.values[-1]:.4g}",
            advice=f"The answers get better and the probabilities worse: choose the checkpoint by {better.name}.",
        )
    return Finding(
        kind="overfitting",
        severity="error" if last > 1.2 * least and last > loss.values[0] else "warning",
        step=int(step),
        evidence=evidence,
        advice=f"Use the checkpoint at step {step:.0f}; train fewer epochs, on more data, or with LoRA.",
    )


def _by_metric(run: Run, metric: Series, best: int) -> Finding:
    step, value, last = metric.steps[best], metric.values[best], metric.values[-1]
    return Finding(
        kind="overfitting",
        severity="error" if abs(last - value) > 0.2 * abs(value) else "warning",
        step=int(step),
        evidence=f"{metric.name} was best ({value:.4g}) at step {step:.0f} and is {last:.4g} now",
        advice=f"Use the checkpoint at step {step:.0f}. {slower(run)}, train fewer epochs, or on more data.",
    )


def _task_metrics(run: Run, prefix: str) -> list[Series]:
    """The task metrics of the evaluation set whose curves begin with ``prefix``, coarse measures of the loss last."""
    found = [series for name, series in run.held_out(TASK).items() if re.fullmatch(TASK, name.removeprefix(prefix))]
    return sorted(found, key=lambda series: "token" in series.name)


def _past_best(series: Series, *, less_is_better: bool | None = None) -> int | None:
    """Where it was best, if it has got clearly worse since and stays so."""
    if len(series) < 3:
        return None
    less = LESS_IS_BETTER.search(series.name) is not None if less_is_better is None else less_is_better
    values = series.values if less else tuple(-value for value in series.values)
    best = min(range(len(values)), key=lambda place: values[place])
    size, worse = abs(values[best]), values[-1] - values[best]
    later = len(values) - 1 - best
    at_once, in_two = (0.1, 0.03) if less_is_better else (0.15, 0.05)
    stays = later >= 2 and min(values[-2:]) - values[best] > in_two / 2 * size
    enough = (less_is_better or worse > LEAST_POINTS) and worse > 3 * _scatter(series.values)
    return best if enough and (worse > at_once * size or (worse > in_two * size and stays)) else None


def _scatter(values: Sequence[float]) -> float:
    """Standard deviation about the course of 8 values or more, from second differences, which a slope does not move.

    The variance of a second difference of independent noise is 6 times that of the noise; of their sizes the median
    is taken, as the bend of the curve is in a few of them.
    """
    if len(values) < 8:
        return 0.0
    bends = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return 1.4826 * median(bends) / math.sqrt(6)


def _improved_since(metric: Series, step: float) -> bool:
    place = min(bisect.bisect_left(metric.steps, step), len(metric) - 1)
    change = metric.values[-1] - metric.values[place]
    return (-change if LESS_IS_BETTER.search(metric.name) else change) > 0.002 * abs(metric.values[place])


def _training_falls(run: Run, step: float) -> bool:
    loss = run["loss"]
    place = bisect.bisect_right(loss.steps, step)
    before, since = loss.values[:place], loss.values[place:]
    return not since or not before or fmean(since) < fmean(before[-len(since) :])


def _stairs(run: Run, loss: Series) -> list[float]:
    """Mean loss of each epoch, if the loss steps down between them; empty if it does not, or epochs are unknown."""
    epochs = list(_epochs_of(run, loss))
    last = int(epochs[-1] - 1e-9) if epochs else 0
    groups: list[list[tuple[float, float]]] = [[] for _ in range(last + 1)]
    for epoch, value in zip(epochs, loss.values, strict=False):
        groups[max(0, min(last, int(epoch - 1e-9)))].append((epoch, value))
    groups = [group for group in groups if len(group) >= 4]
    if len(groups) < LEAST_EPOCHS:
        return []
    means = [fmean(value for _, value in group) for group in groups]
    steps = []
    for before, after in itertools.pairwise(groups):
        quarter = max(2, len(before) // 4), max(2, len(after) // 4)
        steps.append(fmean(v for _, v in before[-quarter[0] :]) - fmean(v for _, v in after[: quarter[1]]))
    fall = groups[0][0][1] - means[-1]
    sharp = all(step > 0.1 * mean for step, mean in zip(steps, means, strict=False))
    return means if sharp and sum(steps) > 0.75 * fall and means[-1] < 0.5 * means[0] else []


def _epochs_of(run: Run, loss: Series) -> Iterator[float]:
    steps, values = run.epochs.steps, run.epochs.values
    if not steps:
        return
    for step in loss.steps:
        yield values[min(bisect.bisect_left(steps, step), len(values) - 1)]
