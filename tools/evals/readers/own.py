"""Results of mlintern's own evaluation script: ``evaluation.json``, or the telemetry rows that carry the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from mlintern.tools.errors import BadInput
from mlintern.tools.evals.clusters import cluster_in
from mlintern.tools.evals.documents import LINES, Reading, ResultFile, json_lines
from mlintern.tools.evals.fields import (
    Count,
    Document,
    Flag,
    Items,
    Listed,
    Object,
    Score,
    Share,
    Spread,
    Text,
    finite,
    mapping,
    number,
)
from mlintern.tools.evals.result_rows import EvalProblem, EvalRow, Sample
from mlintern.tools.telemetry_marks import marked

SUITE = "mlintern"
FORMAT = 1


class Result(Document):
    metric: Text
    filter: Text
    value: Any
    stderr: Spread
    n: Items
    higher_is_better: Flag
    chance: Score
    cut: Share
    no_answer: Share


class Answer(Document):
    answer: Text
    extracted: Text
    finish_reason: Text
    tokens: Count


class Line(Document):
    """A row of samples.jsonl. ``greedy`` is what the scripts of before called the answer."""

    id: Text
    question: Any
    options: Listed[Any]
    prompt: Any
    prediction: Text
    greedy: Text
    target: Text
    answers: Listed[Any]


Rows = Annotated[list[Result] | None, BeforeValidator(lambda value: value if isinstance(value, list) else None)]


class Evaluation(Document):
    mlintern_evaluation: Any
    suite: Text
    task: Text
    model: Text
    dataset: Text
    split: Text
    fewshot: Count
    date: Text
    version: Text
    chance: Score
    samples_missing: Text
    protocol: Object
    rows: Rows
    samples: Any

    @property
    def items(self) -> str | None:
        """Which items were asked, as far as the file says: data set and split."""
        if isinstance(self.protocol.get("items"), str):
            return str(self.protocol["items"])
        return None if self.dataset is None else f"{self.dataset}:{self.split or ''}"


def matches(file: ResultFile) -> bool:
    if file.path.suffix in LINES:
        return any(True for _ in _telemetry(file.path))
    return "mlintern_evaluation" in mapping(file.data)


def read(file: ResultFile) -> Reading:
    latest: dict[Any, EvalRow | EvalProblem] = {}
    for document in _documents(file):
        for found in _found(file, document):
            # Of an evaluation of a model that was repeated within one job, the last one counts.
            named = (found.task_raw, found.label, found.model) if isinstance(found, EvalRow) else len(latest)
            latest[named] = found
    return Reading.of(latest.values())


def samples(file: ResultFile, row: EvalRow) -> dict[str, float] | None:
    path = samples_path(file, row)
    if path is None:
        return None
    scores: dict[str, float] = {}
    for sample in json_lines(path):
        identity, score = sample.get("id"), finite(sample.get(row.metric))
        if identity is None or score is None:
            return None
        if str(identity) in scores:
            raise BadInput(
                f"{path} has two rows with the id {identity!r}.",
                next_step="Give every item an id of its own, so that two models can be compared item by item.",
            )
        scores[str(identity)] = score
    return scores or None


def items(file: ResultFile, row: EvalRow) -> list[Sample] | None:
    path = samples_path(file, row)
    return None if path is None else [_item(Line.model_validate(line), line, row.metric) for line in json_lines(path)]


def _item(line: Line, raw: dict[str, Any], metric: str) -> Sample:
    first = Answer.model_validate(line.answers[0]) if line.answers else Answer.model_validate(raw)
    chosen = metric == "accuracy" and "likelihood" in raw
    return Sample(
        id=line.id or "",
        metric=metric,
        score=finite(raw.get(metric)),
        question=_shown(line.question),
        options=[str(option) for option in line.options],
        prompt=_shown(line.prompt),
        answer=first.answer if first.answer is not None else line.greedy,
        extracted=line.prediction if chosen or first.extracted is None else first.extracted,
        target=line.target,
        finish_reason=first.finish_reason,
        tokens=first.tokens,
        cluster=cluster_in(raw),
        answers=[mapping(answer) for answer in line.answers] if len(line.answers) > 1 else [],
    )


def _shown(value: Any) -> str | None:
    """Text as it is, chat messages as ``role: content`` lines."""
    if not isinstance(value, list):
        return None if value is None else str(value)
    return "\n".join(f"{mapping(one).get('role')}: {mapping(one).get('content')}" for one in value)


def samples_path(file: ResultFile, row: EvalRow) -> Path | None:
    """The file beside ``file`` with the samples of ``row``, if it is there."""
    named = (entry.samples for entry in reversed(_documents(file)) if entry.task == row.task_raw)
    name = next((name for name in named if isinstance(name, str)), None)
    if name is None:
        return None
    path = (file.path.parent / name).resolve()
    return path if path.parent == file.path.parent.resolve() and path.is_file() else None


def _documents(file: ResultFile) -> list[Evaluation]:
    found = [file.data] if file.data is not None else _telemetry(file.path)
    return [Evaluation.model_validate(document) for document in found]


def _found(file: ResultFile, document: Evaluation) -> Iterator[EvalRow | EvalProblem]:
    _require_format(file, document)
    if not document.rows:
        again = "Evaluate again; read the log of the job first."
        yield file.problem("rows", "The evaluation has no scores.", again)
    for index, entry in enumerate(document.rows or []):
        value = finite(entry.value)
        if entry.metric is None:
            yield file.problem(f"rows[{index}].metric", "The metric has no name.")
        elif value is None:
            yield file.not_finite(f"rows[{index}].value", entry.value)
        else:
            yield file.row(
                suite=document.suite or SUITE,
                task_raw=document.task or "",
                metric=entry.metric,
                filter=entry.filter,
                fewshot=document.fewshot,
                value=value,
                stderr=entry.stderr,
                n=entry.n,
                higher_is_better=entry.higher_is_better,
                model=document.model,
                date=document.date,
                version=document.version,
                items=document.items,
                chance=document.chance if entry.chance is None else entry.chance,
                samples_missing=document.samples_missing,
                cut=entry.cut,
                no_answer=entry.no_answer,
                protocol=document.protocol,
            )


def _require_format(file: ResultFile, document: Evaluation) -> None:
    if number(document.mlintern_evaluation) != FORMAT:
        raise BadInput(
            f"{file.path} has mlintern_evaluation = {document.mlintern_evaluation!r}; this mlintern reads {FORMAT}.",
            next_step="Upgrade mlintern, or evaluate again with a script that this version renders.",
        )
    if document.task is None or document.rows is None:
        missing = "task" if document.task is None else "rows"
        raise BadInput(
            f"{file.path} has no {missing!r}, or not of the right type.",
            next_step="Write it with the evaluation script that render_script renders, or repair that key.",
        )


def _telemetry(path: Path) -> Iterator[dict[str, Any]]:
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
