"""Results of EleutherAI's lm-evaluation-harness: today's ``metric,filter`` keys and the flat keys before 0.4.

Evalchemy writes the same file, with ``num_total`` for n and ``accuracy_std_err`` beside ``accuracy_avg``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from mlintern.common.clock import iso
from mlintern.tools.errors import BadInput
from mlintern.tools.evals.clusters import cluster_in
from mlintern.tools.evals.documents import Reading, ResultFile, json_lines
from mlintern.tools.evals.fields import (
    ByName,
    Count,
    Document,
    Flag,
    Items,
    Listed,
    Object,
    Score,
    Text,
    finite,
    listed,
    mapping,
    number,
    spread,
    whole,
)
from mlintern.tools.evals.result_rows import EvalProblem, EvalRow, Sample

SUITE = "lm-eval"
QUESTIONS = ("question", "query", "problem", "input", "ctx", "context", "text", "prompt")
"""Keys under which data sets keep what is asked."""
LAST_SECOND = 253402300800.0
"""The first second of the year 10000, which ISO 8601 cannot write."""
NOT_SCORES = re.compile(r"^(?:name|alias|sample_len|sample_count|samples|num_\w+|solved_avg|run_stats| )$")
SPREADS = re.compile(r"_(?:stderr|std_err|std)$")
MARKS = frozenset({"versions", "config", "configs", "n-shot", "n-samples", "group_subtasks", "lm_eval_version"})


class Config(Document):
    model: Text
    model_args: Any
    limit: Any
    num_fewshot: Count
    gen_kwargs: Any

    @property
    def pretrained(self) -> str | None:
        """The model among the arguments, which are an object or ``pretrained=org/name,dtype=float32``."""
        if isinstance(self.model_args, str):
            parts = (part.partition("=") for part in self.model_args.split(","))
            return next((value for name, _, value in parts if name.strip() == "pretrained"), self.model)
        return str(mapping(self.model_args).get("pretrained") or "") or self.model


class SampleCount(Document):
    effective: Items


class Results(Document):
    results: Object
    groups: Object
    group_subtasks: ByName[Listed[Any]]
    higher_is_better: ByName[ByName[Flag]]
    n_shot: ByName[Any] = Field(alias="n-shot")
    n_samples: ByName[SampleCount] = Field(alias="n-samples")
    versions: ByName[Text]
    config: Config
    model_name: Text
    date: Score
    chat_template_sha: Text
    system_instruction_sha: Text
    fewshot_as_multiturn: Flag

    @property
    def protocol(self) -> dict[str, Any]:
        """What of the way of measuring the file states for all of its tasks."""
        return {
            "chat_template": self.chat_template_sha,
            "system": self.system_instruction_sha,
            "fewshot_as_multiturn": self.fewshot_as_multiturn or None,
            "gen_kwargs": self.config.gen_kwargs or None,
        }

    @property
    def measured(self) -> str | None:
        """When, ISO 8601."""
        return iso(self.date) if self.date is not None and 0 <= self.date < LAST_SECOND else None

    @property
    def notes(self) -> tuple[str, ...]:
        notes = [f"limit={self.config.limit}"] if self.config.limit is not None else []
        return (*notes, *([f"chat template {self.chat_template_sha[:12]}"] if self.chat_template_sha else []))


def matches(file: ResultFile) -> bool:
    data = mapping(file.data)
    return isinstance(data.get("results"), dict) and bool(MARKS & data.keys()) and "config_general" not in data


def read(file: ResultFile) -> Reading:
    results = Results.model_validate(file.data)
    return Reading.of(
        found
        for task, scores in {**results.groups, **results.results}.items()
        for found in _task(file, results, task, scores)
    )


def samples(file: ResultFile, row: EvalRow) -> dict[str, float] | None:
    """Scores from ``samples_TASK_DATE.jsonl`` beside ``results_DATE.json`` (``--log_samples``).

    An item's id is its number and the hash of its document; there is one row an item and filter.
    """
    path = samples_path(file.path, row.task_raw)
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


def items(file: ResultFile, row: EvalRow) -> list[Sample] | None:
    path = samples_path(file.path, row.task_raw)
    if path is None:
        return None
    lines = (line for line in json_lines(path) if row.filter is None or line.get("filter", row.filter) == row.filter)
    return [_item(line, row.metric) for line in lines]


def _item(line: dict[str, Any], metric: str) -> Sample:
    """One document. ``arguments`` holds prompt and option of each request, ``resps`` what came back."""
    requests = list(mapping(line.get("arguments")).values()) or listed(line.get("arguments"))
    asked = [list(request.values()) if isinstance(request, dict) else listed(request) for request in requests]
    options = [str(request[1]) for request in asked if len(request) > 1 and isinstance(request[1], str)]
    answers = [answer for answers in listed(line.get("resps")) for answer in listed(answers)]
    filtered = listed(line.get("filtered_resps"))
    written = next((answer for answer in answers if isinstance(answer, str)), None)
    question = next(filter(None, (mapping(line.get("doc")).get(key) for key in QUESTIONS)), None)
    return Sample(
        id=f"{line.get('doc_id')}:{line.get('doc_hash', '')}",
        metric=metric,
        score=finite(line.get(metric)),
        question=None if question is None else str(question),
        options=options,
        prompt=str(asked[0][0]) if asked and asked[0] else None,
        answer=written,
        extracted=str(filtered[0]) if filtered and written is not None else None,
        target=None if line.get("target") is None else str(line["target"]),
        cluster=cluster_in(mapping(line.get("doc"))),
    )


def samples_path(results: Path, task: str) -> Path | None:
    """The file with the samples of ``task`` beside a result file, if it is there."""
    stem, _, date = results.stem.rpartition("results_")
    path = results.with_name(f"samples_{task}_{date}.jsonl")
    return path if stem == "" and date and Path(task).name == task and path.is_file() else None


def _task(file: ResultFile, results: Results, task: str, scores: Any) -> list[EvalRow | EvalProblem]:
    if not isinstance(scores, dict):
        raise BadInput(
            f"{file.path}: results[{task!r}] is not an object.",
            next_step="Is it a results_*.json that lm-eval wrote? Evaluate again, or restore the file.",
        )
    found = list(_rows(file, results, task, scores))
    if not found and task not in results.group_subtasks:
        return [file.problem(f"results.{task}", "The task has no scores.")]
    return found


def _rows(file: ResultFile, results: Results, task: str, scores: dict[str, Any]) -> Iterator[EvalRow | EvalProblem]:
    better = results.higher_is_better.get(task, {})
    for key, value in scores.items():
        metric, _, kind = key.partition(",")
        if NOT_SCORES.match(key) or SPREADS.search(metric) or number(value) is None:
            continue
        score = finite(value)
        if score is None:
            yield file.not_finite(f"results.{task}.{key}", value)
            continue
        yield file.row(
            suite=SUITE,
            task_raw=task,
            metric=metric,
            filter=kind or None,
            fewshot=whole(results.n_shot.get(task, results.config.num_fewshot)),
            value=score,
            stderr=_stderr(scores, metric, kind),
            n=_items_asked(results, task, scores, key),
            higher_is_better=better.get(metric),
            model=results.model_name or results.config.pretrained,
            date=results.measured,
            version=results.versions.get(task),
            subtasks=len(results.group_subtasks.get(task, [])) or None,
            notes=results.notes,
            protocol=results.protocol,
        )


def _stderr(scores: dict[str, Any], metric: str, kind: str) -> float | None:
    names = (f"{metric}_stderr,{kind}" if kind else f"{metric}_stderr", f"{metric.removesuffix('_avg')}_std_err")
    return next((found for name in names if (found := spread(scores.get(name))) is not None), None)


def _items_asked(results: Results, task: str, scores: dict[str, Any], key: str) -> int | None:
    stated = results.n_samples.get(task, SampleCount.empty()).effective
    pooled = mapping(scores.get("sample_count")).get(key)
    counts = (stated, pooled, scores.get("sample_len"), scores.get("num_total"))
    return next((found for count in counts if (found := whole(count, least=1)) is not None), None)
