"""Results of Hugging Face's lighteval: ``task[:subset]:fewshot`` keys, and the ``suite|task|fewshot`` of before."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from mlintern.tools.errors import BadInput
from mlintern.tools.evals.documents import Reading, ResultFile
from mlintern.tools.evals.fields import (
    ByName,
    Document,
    Flag,
    Items,
    Listed,
    Object,
    Text,
    finite,
    mapping,
    number,
    spread,
)
from mlintern.tools.evals.names import canonical_task
from mlintern.tools.evals.result_rows import EvalProblem, EvalRow, Sample

SUITE = "lighteval"
SUITES = frozenset(
    {"lighteval", "leaderboard", "custom", "community", "helm", "bigbench", "harness", "original", "extended"}
    | {"multilingual", "test"}
)
DATE = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d)-(\d\d)-(\d\d)")


class Model(Document):
    model_name: Text
    generation_parameters: Object
    system_prompt: Text
    override_chat_template: Flag


class General(Document):
    model_name: Text
    configured: Model = Field(alias="model_config")
    max_samples: Any
    system_prompt: Text
    use_chat_template: Flag

    @property
    def protocol(self) -> dict[str, Any]:
        """What of the way of measuring the file states for all of its tasks."""
        parameters = self.configured.generation_parameters
        return {
            "system": self.system_prompt or self.configured.system_prompt,
            "chat_template": self.configured.override_chat_template or self.use_chat_template,
            "generation": {key: value for key, value in parameters.items() if value is not None and key != "seed"},
        }


class Metric(Document):
    metric_name: Text
    higher_is_better: Any

    def direction(self, metric: str) -> bool | None:
        """What it says of ``metric``, in an object by name, or about the one metric that it is."""
        if isinstance(self.higher_is_better, dict):
            found = self.higher_is_better.get(metric)
        else:
            found = self.higher_is_better if self.metric_name == metric else None
        return found if isinstance(found, bool) else None


class Task(Document):
    effective_num_docs: Items
    metrics: Listed[Metric]
    metric: Listed[Metric]

    def direction(self, metric: str) -> bool | None:
        stated = (entry.direction(metric) for entry in self.metrics or self.metric)
        return next((better for better in stated if better is not None), None)


class Hashes(Document):
    hash_examples: Text


class Summary(Document):
    hashes: Hashes


class Results(Document):
    config_general: General
    results: Object
    versions: ByName[Text]
    config_tasks: ByName[Any]
    summary_tasks: ByName[Summary]

    @property
    def tasks(self) -> list[str]:
        return [key for key in self.results if key != "all" and "_average" not in key]

    def task(self, key: str) -> Task:
        """The configuration of a task; its key may carry the few-shot count or not."""
        found = self.config_tasks.get(key) or self.config_tasks.get(re.split(r"[|:]\d+$", key)[0])
        return Task.model_validate(found)


def matches(file: ResultFile) -> bool:
    data = mapping(file.data)
    return isinstance(data.get("results"), dict) and isinstance(data.get("config_general"), dict)


def read(file: ResultFile) -> Reading:
    results = Results.model_validate(file.data)
    return Reading.of(
        found
        for key, scores in results.results.items()
        if key != "all" or len(results.tasks) > 1  # of one task, it only repeats that
        for found in _rows(file, results, key, scores)
    )


def samples(file: ResultFile, row: EvalRow) -> dict[str, float] | None:
    """None: lighteval keeps its samples in parquet under another folder, without ids that hold across runs."""
    return None


def items(file: ResultFile, row: EvalRow) -> list[Sample] | None:
    """None: they are in parquet, under another folder."""
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


def _rows(file: ResultFile, results: Results, key: str, scores: Any) -> Iterator[EvalRow | EvalProblem]:
    if not isinstance(scores, dict):
        raise BadInput(
            f"{file.path}: results[{key!r}] is not an object.",
            next_step="Is it a results_*.json that lighteval wrote? Evaluate again, or restore the file.",
        )
    name, fewshot = task_of(key)
    general, task = results.config_general, results.task(key)
    date = DATE.search(file.path.name)
    for metric, value in scores.items():
        if metric.endswith("_stderr") or number(value) is None:
            continue
        score = finite(value)
        if score is None:
            yield file.not_finite(f"results.{key}.{metric}", value)
            continue
        yield file.row(
            suite=SUITE,
            task=canonical_task(name),
            task_raw=key,
            metric=metric,
            fewshot=fewshot,
            value=score,
            stderr=spread(scores.get(f"{metric}_stderr")),
            n=task.effective_num_docs,
            higher_is_better=task.direction(metric),
            model=general.model_name or general.configured.model_name,
            date=f"{date[1]}T{date[2]}:{date[3]}:{date[4]}" if date else None,
            version=results.versions.get(key),
            items=results.summary_tasks.get(key, Summary.empty()).hashes.hash_examples,
            subtasks=_subtasks(key, results.tasks),
            protocol=general.protocol,
            notes=() if general.max_samples is None else (f"max_samples={general.max_samples}",),
        )


def _subtasks(key: str, tasks: list[str]) -> int | None:
    if key == "all":
        return len(tasks)
    name, fewshot = task_of(key)
    benchmark, average, _ = name.partition(":_average")
    if not average:
        return None
    return sum(task_of(task)[0].startswith(f"{benchmark}:") and task_of(task)[1] == fewshot for task in tasks)
