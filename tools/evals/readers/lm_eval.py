"""Results of EleutherAI's lm-evaluation-harness: today's ``metric,filter`` keys and the flat keys before 0.4."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlintern.common.clock import iso
from mlintern.tools.errors import BadInput
from mlintern.tools.evals.documents import (
    Reading,
    ResultFile,
    finite,
    json_lines,
    listed,
    mapping,
    not_finite,
    number,
    whole,
)
from mlintern.tools.evals.names import canonical_task, direction
from mlintern.tools.evals.result_rows import EvalProblem, EvalRow, finished

SUITE = "lm-eval"
LAST_SECOND = 253402300800.0
"""The first second of the year 10000, which ISO 8601 cannot write."""
NOT_SCORES = frozenset({"name", "alias", "sample_len", "sample_count", "samples", " "})


def matches(file: ResultFile) -> bool:
    data = mapping(file.data)
    marks = {"versions", "config", "configs", "n-shot", "n-samples", "group_subtasks", "lm_eval_version"}
    return isinstance(data.get("results"), dict) and bool(marks & data.keys()) and "config_general" not in data


def read(file: ResultFile) -> Reading:
    data = mapping(file.data)
    results = {**mapping(data.get("groups")), **data["results"]}
    rows: list[EvalRow] = []
    problems: list[EvalProblem] = []
    for task, scores in results.items():
        if not isinstance(scores, dict):
            raise BadInput(
                f"{file.path}: results[{task!r}] is not an object.",
                next_step="Is it a results_*.json that lm-eval wrote? Evaluate again, or restore the file.",
            )
        found = list(_task_rows(file, task, scores))
        if not found and task not in mapping(data.get("group_subtasks")):
            problems.append(
                EvalProblem(source=str(file.path), key=f"results.{task}", message="The task has no scores.")
            )
        rows.extend(row for row in found if isinstance(row, EvalRow))
        problems.extend(problem for problem in found if isinstance(problem, EvalProblem))
    return Reading(rows=finished(rows), problems=problems)


def samples(file: ResultFile, row: EvalRow) -> dict[str, float] | None:
    """Scores from ``samples_TASK_DATE.jsonl`` beside ``results_DATE.json`` (``--log_samples``).

    An item's id is its number and the hash of its document; there is one row an item and filter.
    """
    path = _samples_path(file.path, row.task_raw)
    if path is None:
        return None
    scores: dict[str, float] = {}
    for sample in json_lines(path):
        if row.filter is not None and sample.get("filter", row.filter) != row.filter:
            continue
        score = finite(sample.get(row.metric))
        if score is None:
            return None
        scores[f"{sample.get('doc_id')}:{sample.get('doc_hash', '')}"] = score
    return scores or None


def _task_rows(file: ResultFile, task: str, scores: dict[str, Any]) -> Iterator[EvalRow | EvalProblem]:
    data = mapping(file.data)
    subtasks = listed(mapping(data.get("group_subtasks")).get(task))
    better = mapping(mapping(data.get("higher_is_better")).get(task))
    fewshot = mapping(data.get("n-shot")).get(task, mapping(data.get("config")).get("num_fewshot"))
    for key, value in scores.items():
        metric, _, kind = key.partition(",")
        if key in NOT_SCORES or metric.endswith("_stderr") or number(value) is None:
            continue
        if finite(value) is None:
            yield not_finite(file, f"results.{task}.{key}", value)
            continue
        stderr = finite(scores.get(f"{metric}_stderr,{kind}" if kind else f"{metric}_stderr"))
        stated = better.get(metric)
        yield EvalRow(
            suite=SUITE,
            task=canonical_task(task),
            task_raw=task,
            metric=metric,
            filter=kind or None,
            fewshot=whole(fewshot),
            value=float(value),
            stderr=stderr if stderr is not None and stderr >= 0 else None,
            n=_items_asked(data, task, scores, key),
            higher_is_better=stated if isinstance(stated, bool) else direction(metric),
            model=_model(data),
            date=_date(data.get("date")),
            source=str(file.path),
            sha256=file.sha256,
            version=_version(data, task),
            subtasks=len(subtasks) or None,
            notes=_notes(data),
        )


def _items_asked(data: dict[str, Any], task: str, scores: dict[str, Any], key: str) -> int | None:
    stated = mapping(mapping(data.get("n-samples")).get(task)).get("effective")
    pooled = mapping(scores.get("sample_count")).get(key)
    return whole(stated, least=1) or whole(pooled, least=1) or whole(scores.get("sample_len"), least=1)


def _version(data: dict[str, Any], task: str) -> str | None:
    version = mapping(data.get("versions")).get(task)
    return None if version is None else str(version)


def _model(data: dict[str, Any]) -> str | None:
    if data.get("model_name"):
        return str(data["model_name"])
    config = mapping(data.get("config"))
    arguments = config.get("model_args")
    if isinstance(arguments, str):
        for part in arguments.split(","):
            name, _, value = part.partition("=")
            if name.strip() == "pretrained":
                return value
    if isinstance(arguments, dict) and arguments.get("pretrained"):
        return str(arguments["pretrained"])
    return str(config["model"]) if config.get("model") else None


def _date(value: Any) -> str | None:
    seconds = finite(value)
    if seconds is None or not 0 <= seconds < LAST_SECOND:
        return None
    return iso(seconds)


def _notes(data: dict[str, Any]) -> tuple[str, ...]:
    limit = mapping(data.get("config")).get("limit")
    template = data.get("chat_template_sha")
    notes = [f"limit={limit}"] if limit is not None else []
    return tuple(notes + ([f"chat template {str(template)[:12]}"] if template else []))


def _samples_path(results: Path, task: str) -> Path | None:
    stem, _, date = results.stem.rpartition("results_")
    path = results.with_name(f"samples_{task}_{date}.jsonl")
    return path if stem == "" and date and Path(task).name == task and path.is_file() else None
