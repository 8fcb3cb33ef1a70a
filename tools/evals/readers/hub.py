"""Scores that a model's repository publishes: `.eval_results/*.yaml`, and the older ``model-index`` of its card.

Both state a value alone: no standard error, no number of items, and not whether it is a share (0 to 1) or a
percentage (0 to 100). So values stay as they are written, and ``scale_known`` is false where both could be meant.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mlintern.common.text import cut
from mlintern.tools.errors import BadInput
from mlintern.tools.evals.documents import Reading, ResultFile
from mlintern.tools.evals.fields import finite, listed, mapping, whole
from mlintern.tools.evals.names import UNNAMED_METRIC, canonical_task, direction
from mlintern.tools.evals.result_rows import EvalProblem, EvalRow, Sample
from mlintern.tools.evals.yaml_files import CARD, YAML

SUITE = "hub"
CARD_SUITE = "model-card"
FOLDER = ".eval_results"
MOST_ENTRIES = 2_000
LONGEST_NOTE = 120
PARTS_OF_NO_NAME = frozenset({"", "default", "main", "all", "test", "none", "null"})
"""Task and configuration names that say nothing."""
DATASETS_OF_NO_NAME = frozenset({"", "unknown", "generic", "custom"})


def matches(file: ResultFile) -> bool:
    if file.path.suffix == CARD:
        return "model-index" in mapping(file.data)
    if file.path.suffix not in YAML:
        return False
    entries = listed(file.data)
    return file.path.parent.name == FOLDER or any({"dataset", "value"} <= mapping(entry).keys() for entry in entries)


def read(file: ResultFile) -> Reading:
    found = list(islice(_entries(file), MOST_ENTRIES + 1))
    problems = [entry for entry in found[:MOST_ENTRIES] if isinstance(entry, EvalProblem)]
    if len(found) > MOST_ENTRIES:
        problems.append(_problem(file, "", f"Only the first {MOST_ENTRIES} entries were read."))
    return Reading(rows=[entry for entry in found[:MOST_ENTRIES] if isinstance(entry, EvalRow)], problems=problems)


def read_metadata(info: Any) -> Reading:
    """What the Hub itself says that a model publishes (`ModelInfo` with evalResults and model-index).

    The sources of the rows are paths in the repository.
    """
    from huggingface_hub import eval_result_entries_to_yaml

    documents = {
        f"{FOLDER}/results.yaml": eval_result_entries_to_yaml(info.eval_results or []),
        f"README{CARD}": {"model-index": info.model_index} if info.model_index else {},
    }
    found = Reading()
    for path, data in documents.items():
        sha256 = hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()
        reading = read(ResultFile(path=Path(path), sha256=sha256, data=data))
        found.rows.extend(reading.rows)
        found.problems.extend(reading.problems)
    return found


def samples(file: ResultFile, row: EvalRow) -> dict[str, float] | None:
    """None: what is published is one number."""
    return None


def items(file: ResultFile, row: EvalRow) -> list[Sample] | None:
    """None: what is published is one number."""
    return None


def _entries(file: ResultFile) -> Iterator[EvalRow | EvalProblem]:
    if file.path.suffix == CARD:
        yield from _of_card(file)
        return
    if not isinstance(file.data, list):
        raise BadInput(
            f"{file.path} is no list of results.",
            next_step="The format is a list of `- dataset: {id, task_id}` with `value`.",
        )
    for index, item in enumerate(file.data):
        yield _published(file, f"[{index}]", item)


def _published(file: ResultFile, key: str, item: Any) -> EvalRow | EvalProblem:
    from huggingface_hub import parse_eval_result_entries

    try:
        [entry] = parse_eval_result_entries([_with_whole_source(item)])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return _problem(file, key, f"It is no result: {_flaw(error)}.")
    value = finite(entry.value)
    if value is None:
        return _problem(file, f"{key}.value", f"The score is {entry.value!r:.60}, not a finite number.")
    dataset, task = str(entry.dataset_id), str(entry.task_id)
    notes = [_said_by(entry.source_name, entry.source_url, entry.source_user or entry.source_org)]
    notes += ["carries a verification token, which is not checked here"] if entry.verify_token else []
    return _row(
        file,
        value,
        suite=SUITE,
        task=_task(dataset, task),
        task_raw=f"{dataset}:{task}",
        metric=UNNAMED_METRIC,
        filter=_line(entry.notes),
        date=_date(entry.date),
        version=_line(entry.dataset_revision),
        notes=tuple(filter(None, notes)),
    )


def _of_card(file: ResultFile) -> Iterator[EvalRow | EvalProblem]:
    for number, element in enumerate(listed(mapping(file.data).get("model-index"))):
        for index, result in enumerate(listed(mapping(element).get("results"))):
            for place, metric in enumerate(listed(mapping(result).get("metrics"))):
                key = f"model-index[{number}].results[{index}].metrics[{place}]"
                yield _card_row(file, key, mapping(result), metric)


def _card_row(file: ResultFile, key: str, result: dict[str, Any], metric: Any) -> EvalRow | EvalProblem:
    from huggingface_hub.repocard_data import model_index_to_eval_results

    one = _with_whole_source({**result, "metrics": [metric]})
    try:
        _, [entry] = model_index_to_eval_results([{"name": "", "results": [one]}])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return _problem(file, key, f"It is no result: {_flaw(error)}.")
    value = finite(entry.metric_value)
    if value is None:
        return _problem(file, f"{key}.value", f"The score is {entry.metric_value!r:.60}, not a finite number.")
    dataset = str(entry.dataset_type)
    named = str(entry.dataset_name) if dataset.casefold() in DATASETS_OF_NO_NAME else dataset
    parts = [named, str(entry.dataset_config or ""), str(entry.dataset_split or "")]
    arguments = mapping(entry.dataset_args)
    kind, name = str(entry.metric_type), str(entry.metric_name or "")
    said = _said_by(entry.source_name, entry.source_url, None)
    return _row(
        file,
        value,
        suite=CARD_SUITE,
        task=_task(named, parts[1]),
        task_raw=":".join(filter(None, parts)),
        metric=kind,
        filter=None if name.casefold().replace(" ", "_") in ("", kind.casefold()) else _line(name),
        fewshot=whole(arguments.get("num_few_shot", arguments.get("num_fewshot"))),
        version=_line(entry.dataset_revision),
        notes=tuple(filter(None, [said, None if entry.verified else "stated by the card, not verified"])),
    )


def _row(file: ResultFile, value: float, **fields: Any) -> EvalRow:
    return EvalRow(
        value=value,
        scale_known=not 0 <= value <= 100,  # outside, it is on neither scale
        higher_is_better=direction(fields["metric"]),
        source=str(file.path),
        sha256=file.sha256,
        **fields,
    )


def _task(dataset: str, task: str) -> str:
    """The benchmark: the task within the data set, unless its name says nothing or leaves the benchmark out."""
    whole_set, part = canonical_task(dataset), canonical_task(task)
    if part in PARTS_OF_NO_NAME:
        return whole_set
    return part if part.startswith(whole_set) else canonical_task(f"{whole_set}_{part}")


def _with_whole_source(item: Any) -> Any:
    """A name without an address is no reason to lose a score, as it would be to the parsers of huggingface_hub."""
    source = mapping(mapping(item).get("source"))
    return item if source.get("url") or not isinstance(item, dict) else {**item, "source": None}


def _said_by(name: Any, url: Any, account: Any) -> str | None:
    said = " ".join(str(part) for part in (name, f"by {account}" if account else None, url) if part)
    return _line(f"according to {said}") if said else None


def _line(value: Any) -> str | None:
    line = " ".join(str(value).split()) if value is not None else ""
    return cut(line, LONGEST_NOTE) or None


def _date(value: Any) -> str | None:
    return value.isoformat() if isinstance(value, datetime.date) else _line(value)


def _flaw(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]


def _problem(file: ResultFile, key: str, message: str) -> EvalProblem:
    return EvalProblem(
        source=str(file.path), key=key, message=message, next_step="Correct it in the repository, or pass it by."
    )
