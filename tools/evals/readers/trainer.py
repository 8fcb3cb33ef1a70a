"""Evaluations that a transformers ``Trainer`` made while training: ``trainer_state.json``, ``eval_results.json``."""

from __future__ import annotations

import re
from typing import Any

from mlintern.tools.evals.documents import Reading, ResultFile
from mlintern.tools.evals.fields import finite, mapping, number, whole
from mlintern.tools.evals.result_rows import EvalProblem, EvalRow, Sample

SUITE = "trainer"
NOT_SCORES = re.compile(
    r"(?:^|_)(?:runtime|samples_per_second|steps_per_second|num_tokens|samples|model_preparation_time)$"
)
MEASURED = re.compile(r"^eval_(?:.*_)?(?:loss|runtime|samples_per_second)$")
RUNTIME = re.compile(r"^eval_(.+)_runtime$")


def matches(file: ResultFile) -> bool:
    data = mapping(file.data)
    if isinstance(data.get("log_history"), list):
        return True
    flat = bool(data) and all(not isinstance(value, dict | list) for value in data.values())
    return flat and any(MEASURED.search(key) for key in data)  # settings such as eval_steps are no measurement


def read(file: ResultFile) -> Reading:
    """The last value of each ``eval_*`` metric. A trainer reports no standard error and no number of items."""
    history = mapping(file.data).get("log_history")
    entries = [mapping(entry) for entry in history] if isinstance(history, list) else [mapping(file.data)]
    names = {found[1] for entry in entries for key in entry if (found := RUNTIME.match(key))}
    datasets = sorted(names, key=len, reverse=True)
    latest: dict[str, EvalRow | EvalProblem] = {}
    for entry in entries:
        for key, value in entry.items():
            if key.startswith("eval_") and number(value) is not None and not NOT_SCORES.search(key):
                latest.pop(key, None)
                latest[key] = _found(file, key, value, entry, datasets)
    return Reading.of(latest.values())


def samples(file: ResultFile, row: EvalRow) -> dict[str, float] | None:
    """None: a trainer keeps no scores of single items."""
    return None


def items(file: ResultFile, row: EvalRow) -> list[Sample] | None:
    """None: a trainer keeps no single items."""
    return None


def _found(
    file: ResultFile, key: str, value: Any, entry: dict[str, Any], datasets: list[str]
) -> EvalRow | EvalProblem:
    score, step = finite(value), whole(entry.get("step"))
    if score is None:
        where = f" at step {step}" if step is not None else ""
        return file.problem(
            key, f"{key} is {value!r:.40}{where}.", "Run diagnose_run on this file: training has probably diverged."
        )
    metric = key.removeprefix("eval_")
    dataset = next((name for name in datasets if metric.startswith(f"{name}_")), None)
    return file.row(
        suite=SUITE,
        task=dataset or "eval",
        task_raw=f"eval_{dataset}" if dataset else "eval",
        metric=metric.removeprefix(f"{dataset}_") if dataset else metric,
        value=score,
        n=whole(entry.get(f"eval_{dataset}_samples" if dataset else "eval_samples"), least=1),
        step=step,
        notes=("measured by the trainer during training",),
    )
