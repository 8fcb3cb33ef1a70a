"""Whether `compare_evals` finds what is there, and how often several tries find what is not.

    python -m benchmarks.verdict_power [--quick]

Bounds, over 100 simulated comparisons of the tasks and 300 campaigns of ten:

* a model that is 1.5 points better on all of 57 tasks with 14,042 items (as many as MMLU has), whose members stand
  beside their group, two metrics each: the group is called improved in at least 80 %;
* the same without any difference: some row is called improved in at most 5 %;
* ten candidates that are no better, compared one call each with the same baseline on 500 items, each corrected for
  those before it: some one is called improved in at most 5 %; without the correction the share is printed beside it.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from mlintern.tools.evals.compare import compare_rows
from mlintern.tools.evals.result_rows import EvalRow

COMPARISONS, TASKS, ITEMS, CANDIDATES = 300, 57, 14_042, 10
LEAST_FOUND, MOST_FALSE = 0.80, 0.05
NOISE = 0.8


def row(model: str, task: str, metric: str, scores: np.ndarray, **more: int) -> EvalRow:
    p, n = float(scores.mean()), len(scores)
    return EvalRow(
        suite="lm-eval",
        task=task,
        task_raw=task,
        metric=metric,
        value=p,
        stderr=float(np.sqrt(p * (1 - p) / n)),
        n=n,
        higher_is_better=True,
        model=model,
        source=f"/{model}/{task}.json",
        sha256="0" * 64,
        **more,
    )


class Side:
    """The answers of one model to all tasks, as rows and as scores of items."""

    def __init__(self, model: str, answers: dict[str, np.ndarray]) -> None:
        self.scores = {(model, task): scores for task, scores in answers.items()}
        self.rows = [
            row(model, task, metric, scores) for task, scores in answers.items() for metric in ("acc", "acc_norm")
        ]
        if len(answers) > 1:
            whole = np.concatenate(list(answers.values()))
            self.rows += [row(model, "mmlu", metric, whole, subtasks=TASKS) for metric in ("acc", "acc_norm")]


def calls(baseline: Side, candidate: Side, *, tried: int = 1) -> dict[str, str]:
    """The verdict of each row."""
    known = baseline.scores | candidate.scores

    def samples(one: EvalRow) -> dict[str, float] | None:
        scores = known.get((one.model or "", one.task_raw))
        return None if scores is None else {f"i{at}": score for at, score in enumerate(scores.tolist())}

    found = compare_rows(baseline.rows, candidate.rows, samples=samples, tried=tried)
    return {f"{one.task} {one.metric}": one.verdict for one in found.rows}


def sizes(source: np.random.Generator) -> np.ndarray:
    shares = source.dirichlet(np.full(TASKS, 3.0))
    return np.maximum(100, np.round(shares * ITEMS)).astype(int)


def answers(hard: np.ndarray, shift: float, source: np.random.Generator) -> np.ndarray:
    """Right and wrong on items of that difficulty; both models find the same items hard, on which 3 in 10 differ."""
    noise = source.normal(size=hard.shape) * NOISE
    return (hard + noise < shift).astype(float)


def group(apart: float, *, comparisons: int) -> tuple[float, float]:
    """Shares of comparisons in which the group, and in which any row, was called improved."""
    source = np.random.default_rng(1)
    of_group = of_any = 0
    for _ in range(comparisons):
        sides: dict[str, dict[str, np.ndarray]] = {"a": {}, "b": {}}
        for number, size in enumerate(sizes(source)):
            hard = source.normal(size=size)
            for model, shift in (("a", 0.0), ("b", apart)):
                sides[model][f"mmlu_{number}"] = answers(hard, shift, source)
        verdicts = calls(*(Side(model, found) for model, found in sides.items()))
        of_group += verdicts["mmlu acc"] == "improved"
        of_any += "improved" in verdicts.values()
    return of_group / comparisons, of_any / comparisons


def ten_tries(*, comparisons: int, corrected: bool) -> float:
    """Share of campaigns of ten equal candidates in which one was called improved."""
    source = np.random.default_rng(2)
    fooled = 0
    for _ in range(comparisons):
        hard = source.normal(size=500)
        base = Side("a", {"task": answers(hard, 0.0, source)})
        fooled += any(
            "improved"
            in calls(base, Side("b", {"task": answers(hard, 0.0, source)}), tried=at if corrected else 1).values()
            for at in range(1, CANDIDATES + 1)
        )
    return fooled / comparisons


def main() -> int:
    count = COMPARISONS // (10 if "--quick" in sys.argv else 1)
    started = time.perf_counter()
    apart = 0.015 / 0.3989 * (1 + NOISE**2) ** 0.5  # 1.5 points at one half, on the scale of difficulty
    found, _ = group(apart, comparisons=count // 3)
    _, false = group(0.0, comparisons=count // 3)
    print(f"1.5 points better on {TASKS} tasks: the group is called improved in {found:.0%}")
    print(f"no better on {TASKS} tasks: some row is called improved in {false:.1%}")
    naive, corrected = (ten_tries(comparisons=count, corrected=one) for one in (False, True))
    print(f"ten candidates, none better: one is called improved in {corrected:.1%} ({naive:.1%} if not corrected)")
    print(f"{time.perf_counter() - started:.0f} s")
    slack = 3 * (MOST_FALSE * (1 - MOST_FALSE) / (count // 3)) ** 0.5
    return 0 if found >= LEAST_FOUND and false <= MOST_FALSE + slack and corrected <= MOST_FALSE + slack else 1


if __name__ == "__main__":
    raise SystemExit(main())
