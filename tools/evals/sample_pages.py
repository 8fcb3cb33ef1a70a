"""Single items of an evaluation: what was asked, what the model said and how it was judged, cut for a page."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.common.text import cut_middle
from mlintern.tools.cursors import make_cursor, read_cursor
from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.evals.read_files import SampleFiles
from mlintern.tools.evals.result_rows import EvalRow, Sample, Which

LONGEST = 1_500
"""Characters of a text of a sample that are shown, from its beginning and its end."""
MOST_ANSWERS = 16


@dataclass(frozen=True)
class SamplePage:
    row: EvalRow
    shown: list[Sample]
    total: int
    next_cursor: str | None


def row_with_samples(rows: Sequence[EvalRow], files: SampleFiles) -> tuple[EvalRow, list[Sample]]:
    """The first of ``rows`` whose harness kept its samples, and those.

    Raises:
        NotFound: none of them has any; says why where that is known.
        BadInput: they are there and damaged.
    """
    for row in rows:
        found = files.items(row)
        if found:
            return row, found
    why = next((f" ({row.samples_missing})" for row in rows if row.samples_missing), "")
    raise NotFound(
        f"There are no samples of {rows[0].label}{why}." if rows else "There are no results.",
        next_step="lm-eval keeps them with --log_samples, Inspect in its .eval logs, mlintern in samples.jsonl. "
        "Evaluate again, or name a source that kept them.",
    )


def sample_page(
    *,
    rows: list[EvalRow],
    theirs: list[EvalRow] | None,
    roots: dict[str, Path],
    request: str,
    which: Which,
    limit: int,
    cursor: str | None,
) -> SamplePage:
    """A page of the samples behind the first of ``rows`` that kept any; runs in the worker."""
    files = SampleFiles(roots)
    row, samples = row_with_samples(rows, files)
    against: dict[str, Sample] | None = None
    if theirs is not None:
        counterpart = [one for one in theirs if _same_measure(one, row)]
        against = {one.id: one for one in row_with_samples(counterpart, files)[1]} if counterpart else {}
    chosen = choose(samples, which, against=against)
    digest = hashlib.sha256(repr([request, row.label, row.sha256]).encode()).hexdigest()[:12]
    start = page_start(cursor, digest, total=len(chosen))
    end = min(start + limit, len(chosen))
    shown = [shortened(files.whole(row, one)) for one in chosen[start:end]]
    return SamplePage(row, shown, len(chosen), make_cursor([end], digest) if end < len(chosen) else None)


def page_start(cursor: str | None, digest: str, *, total: int) -> int:
    """Where the page that ``cursor`` names begins among ``total`` rows.

    Raises:
        BadInput: the cursor belongs to another request.
    """
    if cursor is None:
        return 0
    other = "The cursor belongs to other results: source or task differ, or the files have changed."
    [place] = read_cursor(cursor, tool="read_eval", request=digest, shape=(int,), otherwise=other)
    return min(int(place), total)


def _same_measure(one: EvalRow, other: EvalRow) -> bool:
    return (one.suite, one.task_raw, one.metric, one.filter) == (
        other.suite,
        other.task_raw,
        other.metric,
        other.filter,
    )


def choose(samples: Sequence[Sample], which: Which, *, against: Mapping[str, Sample] | None = None) -> list[Sample]:
    """Those of ``samples`` that ``which`` asks for.

    Args:
        against: for ``flipped``, the samples of the other evaluation, by id.

    Raises:
        BadInput: ``flipped`` without ``against``.
    """
    match which:
        case "wrong":
            return [sample for sample in samples if sample.score is not None and sample.score < 1]
        case "cut":
            return [sample for sample in samples if _is_cut(sample)]
        case "random":
            return random.Random(0).sample(list(samples), len(samples))
        case "flipped":
            if against is None:
                raise BadInput(
                    "samples=flipped compares with another evaluation.",
                    next_step="Name it in `against`, such as the baseline's job id.",
                )
            return list(_flipped(samples, against))
    return list(samples)


def shortened(sample: Sample) -> Sample:
    """The sample with long texts cut in the middle, saying so."""
    changes: dict[str, Any] = {
        name: cut_middle(text, LONGEST)
        for name in ("question", "prompt", "answer", "extracted", "target", "other_answer")
        if (text := getattr(sample, name)) is not None
    }
    changes["options"] = [cut_middle(option, LONGEST // 5) for option in sample.options[:26]]
    changes["answers"] = [
        {key: cut_middle(value, LONGEST // 3) if isinstance(value, str) else value for key, value in answer.items()}
        for answer in sample.answers[:MOST_ANSWERS]
    ]
    return sample.model_copy(update=changes)


def _is_cut(sample: Sample) -> bool:
    reasons = [sample.finish_reason, *(answer.get("finish_reason") for answer in sample.answers)]
    return any(reason in ("length", "max_tokens", "model_length") for reason in reasons)


def _flipped(samples: Iterable[Sample], against: Mapping[str, Sample]) -> Iterable[Sample]:
    for sample in samples:
        other = against.get(sample.id)
        if other is not None and other.score != sample.score:
            yield sample.model_copy(update={"other_score": other.score, "other_answer": other.answer})
