"""Files that hold one number a model or task and nothing of how it was measured.

* AlpacaEval's ``leaderboard.csv``: a row a model, ``win_rate`` and ``standard_error`` in percent, ``n_total``.
* OpenCompass's ``summary_*.csv``: a row a task (``dataset,version,metric,mode``), a column a model, in percent.
* The details of the Open LLM Leaderboard: ``{"all": {...}, TASK: {...}}``, the tasks beside ``all`` or in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mlintern.tools.evals.documents import Reading, ResultFile
from mlintern.tools.evals.fields import finite, mapping, number, spread, whole
from mlintern.tools.evals.names import canonical_task
from mlintern.tools.evals.readers.lighteval import task_of
from mlintern.tools.evals.result_rows import EvalProblem, EvalRow, Sample

SUITE = "leaderboard"
ALPACA = "alpaca-eval"
OPENCOMPASS = "opencompass"
OPEN_LLM = "open-llm-leaderboard"
PERCENT = ("written in percent, divided by 100",)
STDERR_OF: Mapping[str, str | None] = {
    "win_rate": "standard_error",
    "length_controlled_winrate": "lc_standard_error",
    "discrete_win_rate": None,
}
"""AlpacaEval's scores, all in percent -> the column of their standard error."""
OTHER = ("avg_length",)
TASK_COLUMNS = ["dataset", "version", "metric", "mode"]


def matches(file: ResultFile) -> bool:
    if file.path.suffix == ".csv":
        head = file.data[0] if file.data else []
        return {"win_rate", "n_total"} <= set(head) or head[: len(TASK_COLUMNS)] == TASK_COLUMNS
    data = mapping(file.data)
    return isinstance(data.get("all"), dict) and all(isinstance(part, dict) for part in data.values())


def read(file: ResultFile) -> Reading:
    if isinstance(file.data, dict):
        return Reading.of(_open_llm(file, file.data))
    rows = [dict(zip(file.data[0], line, strict=False)) for line in file.data[1:]]
    return Reading.of(_alpaca(file, rows) if "win_rate" in file.data[0] else _opencompass(file, rows))


def samples(file: ResultFile, row: EvalRow) -> dict[str, float] | None:
    """None: these files hold no single items."""
    return None


def items(file: ResultFile, row: EvalRow) -> list[Sample] | None:
    """None: these files hold no single items."""
    return None


def _alpaca(file: ResultFile, rows: list[dict[str, str]]) -> Iterator[EvalRow | EvalProblem]:
    for index, row in enumerate(rows):
        for metric in (*STDERR_OF, *OTHER):
            if not row.get(metric):
                continue
            value = finite(row[metric])
            if value is None:
                yield file.not_finite(f"[{index}].{metric}", row[metric])
                continue
            scale = 100 if metric in STDERR_OF else 1
            stderr = spread(row.get(STDERR_OF.get(metric) or ""))
            yield file.row(
                suite=ALPACA,
                task_raw="alpaca_eval",
                metric=metric,
                value=value / scale,
                stderr=None if stderr is None else stderr / scale,
                n=whole(row.get("n_total"), least=1),
                model=row.get("") or row.get("name") or row.get("model") or None,
                notes=PERCENT if metric in STDERR_OF else (),
            )


def _opencompass(file: ResultFile, rows: list[dict[str, str]]) -> Iterator[EvalRow | EvalProblem]:
    for index, row in enumerate(rows):
        for model in [name for name in row if name not in TASK_COLUMNS]:
            if row[model] in ("", "-"):
                continue
            value = finite(row[model])
            if value is None:
                yield file.not_finite(f"[{index}].{model}", row[model])
                continue
            yield file.row(
                suite=OPENCOMPASS,
                task_raw=row["dataset"],
                metric=row["metric"],
                filter=row["mode"] or None,
                value=value / 100,
                model=model,
                version=row["version"] if row["version"] not in ("", "-") else None,
                notes=PERCENT,
            )


def _open_llm(file: ResultFile, data: dict[str, Any]) -> Iterator[EvalRow | EvalProblem]:
    """Of version 2, ``all`` holds the tasks with their standard errors; of version 1, their average."""
    inside = {name: scores for name, scores in data["all"].items() if isinstance(scores, dict)}
    tasks = {name: scores for name, scores in data.items() if name != "all"} | inside
    for name, scores in tasks.items():
        task, fewshot = task_of(name)
        for key, value in scores.items():
            metric, _, kind = key.partition(",")
            if metric.endswith("_stderr") or metric == "alias" or number(value) is None:
                continue
            score = finite(value)
            if score is None:
                yield file.not_finite(f"{name}.{key}", value)
                continue
            yield file.row(
                suite=OPEN_LLM,
                task=canonical_task(task),
                task_raw=name,
                metric=metric,
                filter=kind or None,
                fewshot=fewshot,
                value=score,
                stderr=spread(scores.get(f"{metric}_stderr,{kind}" if kind else f"{metric}_stderr")),
            )
