"""Results of mlintern's own evaluation script: ``evaluation.json``, or the telemetry rows that carry the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlintern.tools.errors import BadInput
from mlintern.tools.evals.documents import (
    LINES,
    Reading,
    ResultFile,
    finite,
    json_lines,
    mapping,
    not_finite,
    number,
    whole,
)
from mlintern.tools.evals.names import canonical_task, direction
from mlintern.tools.evals.result_rows import EvalProblem, EvalRow, finished
from mlintern.tools.telemetry_marks import marked

SUITE = "mlintern"
FORMAT = 1


def matches(file: ResultFile) -> bool:
    if file.path.suffix in LINES:
        return any(True for _ in _evaluations(file.path))
    return "mlintern_evaluation" in mapping(file.data)


def read(file: ResultFile) -> Reading:
    documents = [file.data] if file.data is not None else list(_evaluations(file.path))
    rows: dict[tuple[str, str, str | None], EvalRow] = {}
    problems: list[EvalProblem] = []
    for document in documents:  # of an evaluation that was repeated within one job, the last one counts
        reading = _read_document(file, document)
        rows.update({(row.task_raw, row.metric, row.filter): row for row in reading.rows})
        problems.extend(reading.problems)
    return Reading(rows=finished(rows.values()), problems=problems)


def samples(file: ResultFile, row: EvalRow) -> dict[str, float] | None:
    documents = [file.data] if file.data is not None else list(_evaluations(file.path))
    for document in reversed(documents):
        name = document.get("samples")
        if document.get("task") == row.task_raw and isinstance(name, str):
            path = (file.path.parent / name).resolve()
            if path.parent != file.path.parent.resolve() or not path.is_file():
                return None
            return _scores(path, row.metric)
    return None


def _scores(path: Path, metric: str) -> dict[str, float] | None:
    scores: dict[str, float] = {}
    for sample in json_lines(path):
        identity, score = sample.get("id"), finite(sample.get(metric))
        if identity is None or score is None:
            return None
        if str(identity) in scores:
            raise BadInput(
                f"{path} has two rows with the id {identity!r}.",
                next_step="Give every item an id of its own, so that two models can be compared item by item.",
            )
        scores[str(identity)] = score
    return scores or None


def _read_document(file: ResultFile, document: dict[str, Any]) -> Reading:
    _require_version(file, document)
    task = document.get("task")
    entries = document.get("rows")
    if not isinstance(task, str) or not task or not isinstance(entries, list):
        missing = "rows" if isinstance(task, str) and task else "task"
        raise BadInput(
            f"{file.path} has no {missing!r}, or not of the right type.",
            next_step="Write it with the evaluation script that render_script renders, or repair that key.",
        )
    rows: list[EvalRow] = []
    problems: list[EvalProblem] = []
    if not entries:
        problems.append(
            EvalProblem(
                source=str(file.path),
                key="rows",
                message="The evaluation has no scores.",
                next_step="Evaluate again; read the log of the job first.",
            )
        )
    for index, entry in enumerate(entries):
        found = _read_entry(file, document, index, mapping(entry))
        (rows if isinstance(found, EvalRow) else problems).append(found)  # type: ignore[arg-type]
    return Reading(rows=rows, problems=problems)


def _read_entry(
    file: ResultFile, document: dict[str, Any], index: int, entry: dict[str, Any]
) -> EvalRow | EvalProblem:
    metric = entry.get("metric")
    value = finite(entry.get("value"))
    if not isinstance(metric, str) or not metric:
        return EvalProblem(source=str(file.path), key=f"rows[{index}].metric", message="The metric has no name.")
    if value is None:
        return not_finite(file, f"rows[{index}].value", entry.get("value"))
    better = entry.get("higher_is_better")
    stderr = finite(entry.get("stderr"))
    return EvalRow(
        suite=str(document.get("suite") or SUITE),
        task=canonical_task(document["task"]),
        task_raw=document["task"],
        metric=metric,
        filter=_text(entry.get("filter")),
        fewshot=whole(document.get("fewshot")),
        value=value,
        stderr=stderr if stderr is not None and stderr >= 0 else None,
        n=whole(entry.get("n"), least=1),
        higher_is_better=better if isinstance(better, bool) else direction(metric),
        model=_text(document.get("model")),
        date=_text(document.get("date")),
        source=str(file.path),
        sha256=file.sha256,
        version=_text(document.get("version")),
        items=_items(document),
        chance=finite(entry.get("chance", document.get("chance"))),
        samples_missing=_text(document.get("samples_missing")),
    )


def _require_version(file: ResultFile, document: dict[str, Any]) -> None:
    version = document.get("mlintern_evaluation")
    if number(version) != FORMAT:
        raise BadInput(
            f"{file.path} has mlintern_evaluation = {version!r}; this mlintern reads {FORMAT}.",
            next_step="Upgrade mlintern, or evaluate again with a script that this version renders.",
        )


def _items(document: dict[str, Any]) -> str | None:
    """Which items were asked, as far as the file says: data set and split."""
    dataset = _text(document.get("dataset"))
    return None if dataset is None else f"{dataset}:{_text(document.get('split')) or ''}"


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int | float) and value != "" else None


def _evaluations(path: Path) -> Iterator[dict[str, Any]]:
    """The evaluation objects among telemetry rows: JSON lines, or marked lines of a log. Others are passed by."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines if path.suffix == ".jsonl" else marked(lines):
            if '"evaluation"' not in line:
                continue
            try:
                row = mapping(json.loads(line))
            except (ValueError, RecursionError):  # the last line of a script that was killed while it wrote
                continue
            if row.get("kind") == "evaluation" and isinstance(row.get("evaluation"), dict):
                yield row["evaluation"]
