"""Which rows of two sources measure the same thing, and what stands in the way where they nearly do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlintern.tools.errors import BadInput
from mlintern.tools.evals.names import UNNAMED_METRIC
from mlintern.tools.evals.protocol import differences
from mlintern.tools.evals.result_rows import EvalRow

NUMBER_OF_ITEMS = "different number of items"
"""How the one obstacle begins that scores of single items remove: what both sides answered can be compared."""


@dataclass(frozen=True)
class Pair:
    """Two rows to compare, and why they cannot be, if they cannot."""

    baseline: EvalRow
    candidate: EvalRow
    obstacles: tuple[str, ...]


def key(row: EvalRow) -> tuple[str, str, str, str | None]:
    """By what a row finds its counterpart."""
    return row.suite, row.task_raw, row.metric, row.filter


def latest(rows: Sequence[EvalRow], side: str) -> tuple[list[EvalRow], list[str]]:
    """One row a key: the latest, if an evaluation was repeated; of one model only."""
    models = sorted({row.model for row in rows if row.model is not None})
    if len(models) > 1:
        raise BadInput(
            f"The {side} holds results of {len(models)} models: {', '.join(models[:4])}.",
            next_step=f"Name the result file, or the folder, of one model as the {side}.",
        )
    last: dict[tuple[str, str, str, str | None], EvalRow] = {}
    repeated: list[str] = []
    for row in sorted(rows, key=lambda row: (row.date or "", row.source)):
        if key(row) in last:
            repeated.append(row.label)
        last[key(row)] = row
    note = f"The {side} has several results of {', '.join(sorted(set(repeated))[:3])}: the latest is used."
    return list(last.values()), [note] if repeated else []


def match(baseline: Sequence[EvalRow], candidate: Sequence[EvalRow]) -> tuple[list[Pair], list[str]]:
    """Counterparts, and the rows that have none."""
    others = {key(row): row for row in candidate}
    pairs: list[Pair] = []
    alone: list[EvalRow] = []
    for row in baseline:
        other = others.pop(key(row), None)
        if other is None:
            alone.append(row)
        else:
            pairs.append(Pair(row, other, tuple(obstacles(row, other))))
    unmatched: list[str] = []
    for row in alone:  # the same benchmark measured in another way deserves a reason, not silence
        near = _nearest(row, others.values())
        if near is None:
            unmatched.append(f"baseline only: {row.label}")
        else:
            del others[key(near)]
            pairs.append(Pair(row, near, tuple(obstacles(row, near))))
    unmatched += [f"candidate only: {row.label}" for row in others.values()]
    return pairs, unmatched


def _nearest(row: EvalRow, others: Iterable[EvalRow]) -> EvalRow | None:
    """The same benchmark and metric; else the same benchmark, where one side does not name its metric."""
    same = [other for other in others if other.task == row.task]
    exact = (other for other in same if other.metric == row.metric)
    unnamed = (other for other in same if UNNAMED_METRIC in (row.metric, other.metric))
    return next(exact, None) or next(unnamed, None)


def obstacles(a: EvalRow, b: EvalRow) -> Iterable[str]:
    """Why two rows do not measure the same thing. What only one side states is no obstacle."""
    if a.suite != b.suite:
        yield f"different harness ({a.suite}, {b.suite})"
    elif a.task_raw != b.task_raw:
        yield f"different task ({a.task_raw}, {b.task_raw})"
    if a.metric != b.metric:
        yield f"different metric, as far as it is named ({a.metric}, {b.metric})"
    if a.filter != b.filter:
        yield f"different filter ({a.filter}, {b.filter})"
    if None not in (a.version, b.version) and _version(a) != _version(b):
        yield f"different task version ({a.version}, {b.version})"
    if None not in (a.fewshot, b.fewshot) and a.fewshot != b.fewshot:
        yield f"different number of few-shot examples ({a.fewshot}, {b.fewshot})"
    if None not in (a.n, b.n) and a.n != b.n:
        yield f"{NUMBER_OF_ITEMS} ({a.n}, {b.n})"
    if a.suite == b.suite:
        yield from differences(a, b)
    unknown = [f"{row.value:g} ({side})" for side, row in (("baseline", a), ("candidate", b)) if not row.scale_known]
    if unknown:
        yield (
            f"nothing says whether {' and '.join(unknown)} is a share (0-1) or a percentage (0-100), nor over how "
            "many items; evaluate both sides with one harness instead"
        )


def _version(row: EvalRow) -> str:
    """The task's version; harnesses write a whole number as 1 and as 1.0."""
    return re.sub(r"^(\d+)(?:\.0+)?$", r"\1", row.version or "")


def circumstances(a: EvalRow, b: EvalRow) -> list[str]:
    """Circumstances that differ and that a reader should weigh."""
    notes = [f"Only one side states its {name}." for name in ("version", "fewshot", "n") if _one_sided(a, b, name)]
    if a.notes != b.notes:
        only = [f"baseline: {note}" for note in a.notes if note not in b.notes]
        only += [f"candidate: {note}" for note in b.notes if note not in a.notes]
        notes.append("Settings differ (" + "; ".join(only) + ").")
    return notes


def _one_sided(a: EvalRow, b: EvalRow, name: str) -> bool:
    return (getattr(a, name) is None) != (getattr(b, name) is None)
