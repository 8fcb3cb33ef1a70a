"""Logs of Inspect (UK AI Security Institute): ``.eval`` archives and ``.json`` logs, format versions 1 and 2."""

from __future__ import annotations

import hashlib
import json
import math
import re
import zipfile
from collections.abc import Callable, Collection, Iterator
from statistics import fmean, median, mode
from typing import Any

from pydantic import Field

from mlintern.tools.errors import BadInput
from mlintern.tools.evals.archives import members, read_member
from mlintern.tools.evals.clusters import cluster_in
from mlintern.tools.evals.documents import Reading, ResultFile, parse_json
from mlintern.tools.evals.fields import (
    ByName,
    Count,
    Document,
    Items,
    Listed,
    Object,
    Spread,
    Text,
    finite,
    listed,
    mapping,
)
from mlintern.tools.evals.names import direction_of_score
from mlintern.tools.evals.readers.inspect_shapes import FORMATS, modern, whole, with_scores
from mlintern.tools.evals.result_rows import EvalProblem, EvalRow, Sample

SUITE = "inspect"
SPREAD = ("stderr", "std", "var", "bootstrap_stderr")
GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""What Inspect's `value_to_float` makes of correct, partial, incorrect, no answer."""


class Dataset(Document):
    name: Any
    location: Any
    sample_ids: Any


class TaskArguments(Document):
    fewshot: Count
    num_fewshot: Count


class Config(Document):
    limit: Any
    epochs: Items


class Spec(Document):
    task: Text
    task_version: Text
    task_args: TaskArguments
    arguments: Object = Field(validation_alias="task_args")
    model: Text
    created: Text
    dataset: Dataset
    config: Config
    model_generate_config: Object

    @property
    def protocol(self) -> dict[str, Any]:
        """Generation settings, arguments of the task, and attempts at an item."""
        transport = ("max_connections", "max_retries", "timeout", "attempt_timeout", "cache", "batch", "seed")
        settings = {key: value for key, value in self.model_generate_config.items() if value is not None}
        return {
            "generation": {key: value for key, value in settings.items() if key not in transport},
            "task_args": self.arguments,
            "epochs": self.config.epochs or 1,
        }

    @property
    def items(self) -> str | None:
        """Fingerprint of the items asked."""
        if not isinstance(self.dataset.sample_ids, list):
            return None
        parts = [self.dataset.name, self.dataset.location, sorted(map(str, self.dataset.sample_ids))]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    @property
    def fewshot(self) -> int | None:
        return self.task_args.num_fewshot if self.task_args.fewshot is None else self.task_args.fewshot


class Metric(Document):
    value: Any
    spread: Spread = Field(validation_alias="value")


class Scores(Document):
    name: Text
    scorer: Text
    reducer: Text
    scored_samples: Items
    unscored_samples: Items
    metrics: ByName[Metric]

    @property
    def kind(self) -> str:
        return str(self.name) + (f"/{self.reducer}" if self.reducer not in (None, "mean") else "")

    @property
    def judges(self) -> str:
        """What tells the direction: the scorer, or of a scorer that gives several values the name of this one."""
        scorer, name = str(self.scorer or self.name), str(self.name or self.scorer)
        return scorer if name.startswith(scorer) else name

    def stderr(self, key: str) -> float | None:
        """The metric ``stderr`` belongs to the mean; ``X_acc`` or ``X_accuracy`` may have an ``X_stderr``."""
        own = (f"{key.rpartition('_')[0]}_stderr",) if "_" in key else ()
        shared = ("stderr", "bootstrap_stderr") if key in ("accuracy", "mean") else ()
        found = (self.metrics.get(name, Metric.empty()).spread for name in (*own, f"{key}_stderr", *shared))
        return next((stderr for stderr in found if stderr is not None), None)


class Summary(Document):
    id: Text
    epoch: Items
    input: Any
    choices: Listed[Any]
    target: Any
    scores: ByName[Any]
    metadata: Object


class Results(Document):
    completed_samples: Items
    scores: Listed[Scores]
    headline: ByName[Any]


class Failure(Document):
    message: Text


class Log(Document):
    version: Any
    status: Text
    eval: Spec
    results: Results
    error: Failure

    def items_scored(self, score: Scores) -> int | None:
        """Items, not attempts: with several epochs a sample is reduced to one score before the metrics."""
        attempts = self.results.completed_samples
        if score.scored_samples is not None or attempts is None:
            return score.scored_samples
        return max(1, attempts // (self.eval.config.epochs or 1))

    def notes(self, score: Scores, key: str) -> tuple[str, ...]:
        headline, limit = self.results.headline, self.eval.config.limit
        named = {"scorer": score.scorer, "score": score.name, "metric": key, "reducer": score.reducer}
        notes = ["headline"] if headline and all(headline.get(k) in (None, v) for k, v in named.items()) else []
        notes += [f"limit={limit}"] if limit is not None else []
        notes += [f"{score.unscored_samples} samples unscored"] if score.unscored_samples else []
        return tuple(notes)


def matches(file: ResultFile) -> bool:
    if file.data is None:
        return zipfile.is_zipfile(file.path) and not {"header.json", "_journal/start.json"}.isdisjoint(_names(file))
    logs = file.data if isinstance(file.data, list) else [file.data]
    return bool(logs) and all(
        isinstance(data := mapping(one), dict) and isinstance(data.get("eval"), dict) and "status" in data
        for one in logs
    )


def read(file: ResultFile) -> Reading:
    if file.data is None and "header.json" not in _names(file):
        return Reading(problems=[_unfinished(file, Log.model_validate({"status": "started"}))])
    if isinstance(file.data, list):
        readings = [_read_log(file, mapping(one)) for one in file.data]
        return Reading(
            rows=[row for one in readings for row in one.rows],
            problems=[problem for one in readings for problem in one.problems],
        )
    return _read_log(file, mapping(file.data) if file.data is not None else _member(file, "header.json"))


def _read_log(file: ResultFile, raw: dict[str, Any]) -> Reading:
    log = Log.model_validate(modern(raw))
    if log.version not in FORMATS:
        raise BadInput(
            f"{file.path} has log format version {log.version!r}; this mlintern reads 1 and 2.",
            next_step="Convert it with `inspect log convert`, or upgrade mlintern.",
        )
    if log.status != "success":
        return Reading(problems=[_unfinished(file, log)])
    if not log.results.scores:
        raise BadInput(
            f"{file.path} has no results.scores, although its status is success.",
            next_step="The evaluation ran without a scorer: score it with `inspect score`.",
        )
    reading = Reading.of(found for score in log.results.scores for found in _rows(file, log, score))
    reading.rows.sort(key=lambda row: "headline" not in row.notes)
    return reading


def samples(file: ResultFile, row: EvalRow) -> dict[str, float] | None:
    """Scores by sample id, reduced over epochs as the row's reducer does."""
    name, _, reducer = (row.filter or "").partition("/")
    grades: dict[str, list[float]] = {}
    for summary in _summaries(file, row):
        grade = _grade(_value(mapping(summary.get("scores")), name))
        if grade is None:
            return None
        grades.setdefault(str(summary.get("id")), []).append(grade)
    reduced = {identity: _reduced(values, reducer or "mean") for identity, values in grades.items()}
    known = {identity: score for identity, score in reduced.items() if score is not None}
    return known if known and len(known) == len(reduced) else None


def _value(scores: dict[str, Any], name: str) -> Any:
    """The value of a score: of the scorer of that name, or that name among the values of one that gives several."""
    if name in scores:
        return mapping(scores[name]).get("value")
    several = (mapping(mapping(score).get("value")) for score in scores.values())
    return next((values[name] for values in several if name in values), None)


def _grade(value: Any) -> float | None:
    return GRADES.get(value) if isinstance(value, str) else _as_float(value)


def _reduced(values: list[float], reducer: str) -> float | None:
    """One score of an item's attempts, as Inspect's reducers compute it; None for one that is not known."""
    plain: dict[str, Callable[[list[float]], float]] = {"mean": fmean, "median": median, "mode": mode, "max": max}
    if reducer in plain:
        return float(plain[reducer](values))
    match = re.fullmatch(r"(pass_at|at_least)_(\d+)", reducer)
    if match is None:
        return None
    right, k = sum(value >= 1 for value in values), int(match[2])
    if match[1] == "at_least":
        return float(right >= k)
    wrong = len(values) - right
    return None if k > len(values) else 1 - math.comb(wrong, k) / math.comb(len(values), k)


def items(file: ResultFile, row: EvalRow) -> list[Sample] | None:
    """From the summaries; the answers themselves are read by `with_answer`, one item at a time."""
    scorer = (row.filter or "").partition("/")[0]
    found: dict[str, Sample] = {}
    for raw in _summaries(file, row):
        summary = Summary.model_validate(raw)
        score = mapping(summary.scores.get(scorer))
        grade = _grade(_value(summary.scores, scorer))
        one = {"epoch": summary.epoch, "score": grade, "extracted": score.get("answer")}
        if summary.id in found:
            found[summary.id].answers.append(one)
            continue
        found[summary.id or ""] = Sample(
            id=summary.id or "",
            metric=row.metric,
            score=grade,
            question=_shown(summary.input),
            target=_shown(summary.target),
            options=[str(choice) for choice in summary.choices],
            extracted=None if score.get("answer") is None else str(score["answer"]),
            answer=_completion(raw),
            cluster=cluster_in(summary.metadata),
            answers=[one],
        )
    means = samples(file, row) or {}
    return [
        sample.model_copy(
            update={
                "score": means.get(sample.id, sample.score),
                "answers": sample.answers if len(sample.answers) > 1 else [],
            }
        )
        for sample in found.values()
    ] or None


def with_answer(file: ResultFile, sample: Sample) -> Sample:
    """The sample with what the model wrote in its first epoch, from the member of the archive that holds it."""
    name = f"samples/{sample.id}_epoch_1.json"
    if sample.answer is not None or file.data is not None or name not in _names(file):
        return sample
    raw = whole(mapping(_member(file, name)))
    choices = listed(mapping(raw.get("output")).get("choices"))
    reason = mapping(choices[0]).get("stop_reason") if choices else None
    return sample.model_copy(
        update={
            "answer": _completion(raw),
            "finish_reason": {"max_tokens": "length", "model_length": "length"}.get(str(reason), reason),
            "prompt": _shown(raw.get("messages") or raw.get("input")),
        }
    )


def _completion(raw: dict[str, Any]) -> str | None:
    output = mapping(raw.get("output"))
    found = output.get("completion")
    return found if isinstance(found, str) else None


def _shown(value: Any) -> str | None:
    """Text as it is, messages as ``role: content`` lines."""
    if not isinstance(value, list):
        return None if value is None else str(value)
    if not all(isinstance(one, dict) for one in value):
        return ", ".join(map(str, value))
    return "\n".join(f"{one.get('role')}: {one.get('content')}" for one in value if one.get("role") != "assistant")


def _rows(file: ResultFile, log: Log, score: Scores) -> Iterator[EvalRow | EvalProblem]:
    for key, metric in score.metrics.items():
        if key in SPREAD or key.endswith("_stderr"):
            continue
        value = finite(metric.value)
        if value is None:
            yield file.not_finite(f"results.scores.{score.kind}.metrics.{key}", metric.value)
            continue
        yield file.row(
            suite=SUITE,
            task_raw=str(log.eval.task),
            metric=key,
            filter=score.kind,
            fewshot=log.eval.fewshot,
            value=value,
            stderr=score.stderr(key),
            n=log.items_scored(score),
            higher_is_better=direction_of_score(key, scorer=score.judges),
            model=log.eval.model,
            date=log.eval.created,
            version=log.eval.task_version,
            items=log.eval.items,
            notes=log.notes(score, key),
            protocol=log.eval.protocol,
        )


def _unfinished(file: ResultFile, log: Log) -> EvalProblem:
    reason = f": {log.error.message[:300]}" if log.error.message else ""
    return file.problem(
        "status",
        f"The evaluation has status {log.status!r}{reason}; its scores are not results.",
        "Finish it with `inspect eval-retry`, or evaluate again.",
    )


def _summaries(file: ResultFile, row: EvalRow) -> list[dict[str, Any]]:
    """The samples of the log that ``row`` is from, in a file of several by task, model and date."""
    name = (row.filter or "").partition("/")[0]
    if file.data is not None:
        logs = file.data if isinstance(file.data, list) else [file.data]
        wanted = (row.task_raw, row.model, row.date)
        for one in map(mapping, logs):
            spec = Spec.model_validate(mapping(one.get("eval")))
            if len(logs) == 1 or (spec.task, spec.model, spec.created) == wanted:
                return [with_scores(whole(mapping(entry)), name) for entry in listed(one.get("samples"))]
        return []
    has_any = "summaries.json" in _names(file)
    entries = listed(_member(file, "summaries.json")) if has_any else []
    return [with_scores(mapping(entry), name) for entry in entries]


def _member(file: ResultFile, name: str) -> Any:
    return parse_json(read_member(file.path, name), f"{file.path}:{name}")


def _names(file: ResultFile) -> Collection[str]:
    try:
        return members(file.path)
    except (zipfile.BadZipFile, OSError) as error:
        raise BadInput(
            f"{file.path} is a damaged archive: {error}.",
            next_step="If the evaluation was killed, recover the log with `inspect log recover`.",
        ) from error


def _as_float(value: Any) -> float | None:
    return float(value) if isinstance(value, bool) else finite(value)
