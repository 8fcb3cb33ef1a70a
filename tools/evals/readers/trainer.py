"""Evaluations that a transformers ``Trainer`` made while training: ``trainer_state.json``, ``eval_results.json``."""

from __future__ import annotations

import re
from typing import Any

from mlintern.tools.evals.documents import Reading, ResultFile, finite, mapping, number, whole
from mlintern.tools.evals.names import direction
from mlintern.tools.evals.result_rows import EvalProblem, EvalRow, finished

SUITE = "trainer"
NOT_SCORES = re.compile(
    r"(?:^|_)(?:runtime|samples_per_second|steps_per_second|num_tokens|samples|model_preparation_time)$"
)
MEASURED = re.compile(r"^eval_(?:.*_)?(?:loss|runtime|samples_per_second)$")


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
    names = {
        key.removeprefix("eval_").removesuffix("_runtime")
        for entry in entries
        for key in entry
        if key.startswith("eval_") and key.endswith("_runtime") and key != "eval_runtime"
    }
    datasets = sorted(names, key=len, reverse=True)
    rows: dict[str, EvalRow] = {}
    problems: dict[str, EvalProblem] = {}
    for entry in entries:
        for key, value in entry.items():
            if not _is_score(key, value):
                continue
            rows.pop(key, None)
            problems.pop(key, None)
            if finite(value) is not None:
                rows[key] = _row(file, key, value, entry, datasets)
            else:
                problems[key] = _diverged(file, key, value, entry)
    return Reading(rows=finished(rows.values()), problems=list(problems.values()))


def samples(file: ResultFile, row: EvalRow) -> dict[str, float] | None:
    """None: a trainer keeps no scores of single items."""
    return None


def _is_score(key: str, value: Any) -> bool:
    return key.startswith("eval_") and number(value) is not None and NOT_SCORES.search(key) is None


def _row(file: ResultFile, key: str, value: Any, entry: dict[str, Any], datasets: list[str]) -> EvalRow:
    metric = key.removeprefix("eval_")
    dataset = next((name for name in datasets if metric.startswith(f"{name}_")), None)
    if dataset is not None:
        metric = metric.removeprefix(f"{dataset}_")
    n = whole(entry.get(f"eval_{dataset}_samples" if dataset else "eval_samples"), least=1)
    return EvalRow(
        suite=SUITE,
        task=dataset or "eval",
        task_raw=f"eval_{dataset}" if dataset else "eval",
        metric=metric,
        value=float(value),
        n=n,
        higher_is_better=direction(metric),
        source=str(file.path),
        sha256=file.sha256,
        step=whole(entry.get("step")),
        notes=("measured by the trainer during training",),
    )


def _diverged(file: ResultFile, key: str, value: Any, entry: dict[str, Any]) -> EvalProblem:
    step = finite(entry.get("step"))
    return EvalProblem(
        source=str(file.path),
        key=key,
        message=f"{key} is {value!r:.40}" + (f" at step {step:g}." if step is not None else "."),
        next_step="Run diagnose_run on this file: training has probably diverged.",
    )
