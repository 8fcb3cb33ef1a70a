"""Results of Hugging Face's lighteval: ``task[:subset]:fewshot`` keys, and the ``suite|task|fewshot`` of before."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mlintern.tools.errors import BadInput
from mlintern.tools.evals.documents import Reading, ResultFile, finite, listed, mapping, not_finite, number, whole
from mlintern.tools.evals.names import canonical_task, direction
from mlintern.tools.evals.result_rows import EvalProblem, EvalRow, finished

SUITE = "lighteval"
SUITES = frozenset(
    {"lighteval", "leaderboard", "custom", "community", "helm", "bigbench", "harness", "original", "extended"}
    | {"multilingual", "test"}
)
DATE = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d)-(\d\d)-(\d\d)")


def matches(file: ResultFile) -> bool:
    data = mapping(file.data)
    return isinstance(data.get("results"), dict) and isinstance(data.get("config_general"), dict)


def read(file: ResultFile) -> Reading:
    results = file.data["results"]
    tasks = [key for key in results if key != "all" and "_average" not in key]
    rows: list[EvalRow] = []
    problems: list[EvalProblem] = []
    for key, scores in results.items():
        if key == "all" and len(tasks) < 2:
            continue  # it repeats the only task
        if not isinstance(scores, dict):
            raise BadInput(
                f"{file.path}: results[{key!r}] is not an object.",
                next_step="Is it a results_*.json that lighteval wrote? Evaluate again, or restore the file.",
            )
        for found in _task_rows(file, key, scores, tasks):
            (rows if isinstance(found, EvalRow) else problems).append(found)  # type: ignore[arg-type]
    return Reading(rows=finished(rows), problems=problems)


def samples(file: ResultFile, row: EvalRow) -> dict[str, float] | None:
    """None: lighteval keeps its samples in parquet under another folder, without ids that hold across runs."""
    return None


def task_of(key: str) -> tuple[str, int | None]:
    """Task (with subset) and few-shot count of a results key, of any generation.

    ``gsm8k:5``, ``lighteval|gsm8k|5`` and ``leaderboard|gsm8k|5|0`` give ``("gsm8k", 5)``.
    """
    old = "|" in key
    parts = key.split("|") if old else key.split(":")
    if len(parts) > 1 and parts[0] in SUITES:
        parts = parts[1:]
    if old and len(parts) == 3:
        parts = parts[:2]  # the third said whether few-shot examples may be dropped to fit the context
    if len(parts) > 1 and parts[-1].isdigit():
        return ":".join(parts[:-1]), int(parts[-1])
    return ":".join(parts), None


def _task_rows(
    file: ResultFile, key: str, scores: dict[str, Any], tasks: list[str]
) -> Iterator[EvalRow | EvalProblem]:
    data = file.data
    name, fewshot = task_of(key)
    config = _config(data, key)
    general = data["config_general"]
    date = DATE.search(file.path.name)
    hashes = mapping(mapping(mapping(data.get("summary_tasks")).get(key)).get("hashes"))
    version = mapping(data.get("versions")).get(key)
    limit = general.get("max_samples")
    for metric, value in scores.items():
        if metric.endswith("_stderr") or number(value) is None:
            continue
        if finite(value) is None:
            yield not_finite(file, f"results.{key}.{metric}", value)
            continue
        stderr = finite(scores.get(f"{metric}_stderr"))
        yield EvalRow(
            suite=SUITE,
            task=canonical_task(name),
            task_raw=key,
            metric=metric,
            fewshot=fewshot,
            value=float(value),
            stderr=stderr if stderr is not None and stderr >= 0 else None,
            n=whole(config.get("effective_num_docs"), least=1),
            higher_is_better=_direction(config, metric),
            model=_text(general.get("model_name")) or _text(mapping(general.get("model_config")).get("model_name")),
            date=f"{date[1]}T{date[2]}:{date[3]}:{date[4]}" if date else None,
            source=str(file.path),
            sha256=file.sha256,
            version=None if version is None else str(version),
            items=_text(hashes.get("hash_examples")),
            subtasks=_subtasks(key, tasks),
            notes=() if limit is None else (f"max_samples={limit}",),
        )


def _config(data: dict[str, Any], key: str) -> dict[str, Any]:
    """The configuration of a task; its key may carry the few-shot count or not."""
    configs = mapping(data.get("config_tasks"))
    return mapping(configs.get(key) or configs.get(re.split(r"[|:]\d+$", key)[0]))


def _direction(config: dict[str, Any], metric: str) -> bool | None:
    for entry in listed(config.get("metrics") or config.get("metric")):
        stated = mapping(entry).get("higher_is_better")
        if isinstance(stated, dict):
            stated = stated.get(metric)
        elif mapping(entry).get("metric_name") != metric:
            continue
        if isinstance(stated, bool):
            return stated
    return direction(metric)


def _subtasks(key: str, tasks: list[str]) -> int | None:
    if key == "all":
        return len(tasks)
    name, fewshot = task_of(key)
    benchmark, average, _ = name.partition(":_average")
    if not average:
        return None
    return sum(task_of(task)[0].startswith(f"{benchmark}:") and task_of(task)[1] == fewshot for task in tasks)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
