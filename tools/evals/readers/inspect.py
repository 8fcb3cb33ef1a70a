"""Logs of Inspect (UK AI Security Institute): ``.eval`` archives and ``.json`` logs, format version 2."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Iterator
from typing import Any

from mlintern.tools.errors import BadInput
from mlintern.tools.evals.archives import read_member
from mlintern.tools.evals.documents import Reading, ResultFile, finite, mapping, not_finite, parse_json, whole
from mlintern.tools.evals.names import canonical_task, direction
from mlintern.tools.evals.result_rows import EvalProblem, EvalRow, finished

SUITE = "inspect"
FORMAT = 2
SPREAD = ("stderr", "std", "var", "bootstrap_stderr")
GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""What Inspect's `value_to_float` makes of correct, partial, incorrect, no answer."""


def matches(file: ResultFile) -> bool:
    if file.data is None:
        return zipfile.is_zipfile(file.path) and any(
            name in ("header.json", "_journal/start.json") for name in _names(file)
        )
    data = mapping(file.data)
    return isinstance(data.get("eval"), dict) and "status" in data and "version" in data


def read(file: ResultFile) -> Reading:
    header = _header(file)
    if header is None:
        return Reading(problems=[_unfinished(file, "started")])
    version = header.get("version")
    if version != FORMAT:
        raise BadInput(
            f"{file.path} has log format version {version!r}; this mlintern reads {FORMAT}.",
            next_step="Convert it with `inspect log convert`, or upgrade mlintern.",
        )
    if header.get("status") != "success":
        return Reading(problems=[_unfinished(file, str(header.get("status")), mapping(header.get("error")))])
    scores = mapping(header.get("results")).get("scores")
    if not isinstance(scores, list) or not scores:
        raise BadInput(
            f"{file.path} has no results.scores, although its status is success.",
            next_step="The evaluation ran without a scorer: score it with `inspect score`.",
        )
    rows: list[EvalRow] = []
    problems: list[EvalProblem] = []
    for score in scores:
        for found in _score_rows(file, header, mapping(score)):
            (rows if isinstance(found, EvalRow) else problems).append(found)  # type: ignore[arg-type]
    rows.sort(key=lambda row: "headline" not in row.notes)
    return Reading(rows=finished(rows), problems=problems)


def samples(file: ResultFile, row: EvalRow) -> dict[str, float] | None:
    """Scores by sample id, averaged over epochs as Inspect's default reducer does."""
    scorer = (row.filter or "").partition("/")[0]
    grades: dict[str, list[float]] = {}
    for summary in _summaries(file):
        value = mapping(mapping(mapping(summary.get("scores")).get(scorer))).get("value")
        grade = GRADES.get(value) if isinstance(value, str) else _as_float(value)
        if grade is None:
            return None
        grades.setdefault(str(summary.get("id")), []).append(grade)
    return {identity: math.fsum(values) / len(values) for identity, values in grades.items()} or None


def _score_rows(file: ResultFile, header: dict[str, Any], score: dict[str, Any]) -> Iterator[EvalRow | EvalProblem]:
    spec = header["eval"]
    metrics = mapping(score.get("metrics"))
    reducer = score.get("reducer")
    kind = str(score.get("name")) + (f"/{reducer}" if reducer not in (None, "mean") else "")
    for key, entry in metrics.items():
        if key in SPREAD or key.endswith("_stderr"):
            continue
        value = finite(mapping(entry).get("value"))
        if value is None:
            yield not_finite(file, f"results.scores.{kind}.metrics.{key}", mapping(entry).get("value"))
            continue
        yield EvalRow(
            suite=SUITE,
            task=canonical_task(str(spec.get("task"))),
            task_raw=str(spec.get("task")),
            metric=key,
            filter=kind,
            fewshot=_fewshot(spec),
            value=value,
            stderr=_stderr(metrics, key),
            n=_items_scored(header, score),
            higher_is_better=direction(key),
            model=str(spec["model"]) if spec.get("model") else None,
            date=str(spec["created"]) if spec.get("created") else None,
            source=str(file.path),
            sha256=file.sha256,
            version=None if spec.get("task_version") is None else str(spec["task_version"]),
            items=_items(spec),
            notes=_notes(header, score, key),
        )


def _stderr(metrics: dict[str, Any], key: str) -> float | None:
    """The metric named ``stderr`` belongs to the mean; ``X_acc`` or ``X_accuracy`` may have an ``X_stderr``."""
    own = f"{key.rpartition('_')[0]}_stderr" if "_" in key else ""
    for name in (own, f"{key}_stderr", *(("stderr", "bootstrap_stderr") if key in ("accuracy", "mean") else ())):
        found = finite(mapping(metrics.get(name)).get("value"))
        if found is not None and found >= 0:
            return found
    return None


def _items_scored(header: dict[str, Any], score: dict[str, Any]) -> int | None:
    """Items, not attempts: with several epochs a sample is reduced to one score before the metrics are computed."""
    reduced = whole(score.get("scored_samples"), least=1)
    if reduced is not None:
        return reduced
    attempts = whole(mapping(header.get("results")).get("completed_samples"), least=1)
    epochs = whole(mapping(header["eval"].get("config")).get("epochs"), least=1) or 1
    return None if attempts is None else max(1, attempts // epochs)


def _fewshot(spec: dict[str, Any]) -> int | None:
    arguments = mapping(spec.get("task_args"))
    return next((n for name in ("fewshot", "num_fewshot") if (n := whole(arguments.get(name))) is not None), None)


def _items(spec: dict[str, Any]) -> str | None:
    dataset = mapping(spec.get("dataset"))
    identities = dataset.get("sample_ids")
    if not isinstance(identities, list):
        return None
    parts = [dataset.get("name"), dataset.get("location"), sorted(map(str, identities))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _notes(header: dict[str, Any], score: dict[str, Any], key: str) -> tuple[str, ...]:
    headline = mapping(mapping(header.get("results")).get("headline"))
    named = {
        "scorer": score.get("scorer"),
        "score": score.get("name"),
        "metric": key,
        "reducer": score.get("reducer"),
    }
    notes = ["headline"] if headline and all(headline.get(k) in (None, v) for k, v in named.items()) else []
    limit = mapping(header["eval"].get("config")).get("limit")
    unscored = whole(score.get("unscored_samples"), least=1)
    notes += [f"limit={limit}"] if limit is not None else []
    notes += [f"{unscored} samples unscored"] if unscored else []
    return tuple(notes)


def _unfinished(file: ResultFile, status: str, error: dict[str, Any] | None = None) -> EvalProblem:
    reason = f": {str(error['message'])[:300]}" if error and error.get("message") else ""
    return EvalProblem(
        source=str(file.path),
        key="status",
        message=f"The evaluation has status {status!r}{reason}; its scores are not results.",
        next_step="Finish it with `inspect eval-retry`, or evaluate again.",
    )


def _header(file: ResultFile) -> dict[str, Any] | None:
    if file.data is not None:
        return mapping(file.data)
    if "header.json" not in _names(file):
        return None
    return mapping(parse_json(read_member(file.path, "header.json"), f"{file.path}:header.json"))


def _summaries(file: ResultFile) -> list[dict[str, Any]]:
    if file.data is not None:
        entries = mapping(file.data).get("samples")
    elif "summaries.json" in _names(file):
        entries = parse_json(read_member(file.path, "summaries.json"), f"{file.path}:summaries.json")
    else:
        entries = None
    return [mapping(entry) for entry in entries] if isinstance(entries, list) else []


def _names(file: ResultFile) -> list[str]:
    try:
        with zipfile.ZipFile(file.path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise BadInput(
            f"{file.path} is a damaged archive: {error}.",
            next_step="If the evaluation was killed, recover the log with `inspect log recover`.",
        ) from error


def _as_float(value: Any) -> float | None:
    return float(value) if isinstance(value, bool) else finite(value)
