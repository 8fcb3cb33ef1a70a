"""Many rows, one question: which rows are the headlines, what belongs under what, and the p-values that follow.

A harness writes the same answers several times: a group beside its tasks, acc beside acc_norm, two filters. To
correct for all of them as if they were separate experiments costs the power to see anything. So the headlines are
tested first; what stands under a headline is tested only where the headline differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlintern.tools.evals.result_rows import EvalRow
from mlintern.tools.evals.significance import ALPHA, holm

METRICS = (
    *("acc_norm", "accuracy", "acc", "exact_match", "em", "extractive_match", "math_verify", "pass@1", "mc2", "f1"),
    *("prompt_level_strict_acc", "mean"),
)
"""The metric of a task that is its headline, the first of these that is there; else the first row of the task."""
FILTERS = ("none", "strict-match", "custom-extract", "get-answer")
OF_ALL = frozenset({"all", "average", "overall", "mean"})


@dataclass(frozen=True)
class Adjusted:
    """A p-value after correction; ``family``: rows tested beside it; ``under``: the headline it stands under."""

    p_value: float
    family: int
    under: str | None = None


def adjust(rows: Sequence[EvalRow], p_values: Mapping[int, float]) -> dict[int, Adjusted]:
    """Correct the p-values of ``rows`` (by their place; those without one are not compared).

    Level by level: the headlines of tasks and groups that stand under no group, by Holm's method; then the members of
    groups that differ, by Holm's method over all of them; of a task's other metrics and filters each follows its
    headline. No p-value is below that of what it stands under (gatekeeping: Dmitrienko et al. 2003, Stat. Med.
    22:2387). The chance of any false alarm is at most 5 % on each level.
    """
    parents = _parents(rows, list(p_values))
    done: dict[int, Adjusted] = {}
    level = [place for place, parent in parents.items() if parent is None]
    while level:
        tested = [place for place in level if _passed(parents[place], done) and not _same_task(rows, place, parents)]
        adjusted = dict(zip(tested, holm([p_values[place] for place in tested]), strict=True))
        for place in level:
            above = parents[place]
            gate, under = (0.0, None) if above is None else (done[above].p_value, rows[above].label)
            own = adjusted.get(place, p_values[place])
            done[place] = Adjusted(max(gate, own), len(tested) if place in adjusted else 1, under)
        level = [place for place, parent in parents.items() if parent in done and place not in done]
    return done


def _parents(rows: Sequence[EvalRow], places: Sequence[int]) -> dict[int, int | None]:
    """What each row stands under: the headline of its task, or else the narrowest group that it is a member of."""
    headlines: dict[tuple[str, str], int] = {}
    for place in sorted(places, key=lambda place: _rank(rows[place], place)):
        headlines.setdefault(_task(rows[place]), place)
    groups = [place for place in headlines.values() if _is_group(rows[place])]
    found: dict[int, int | None] = {}
    for place in places:
        headline = headlines[_task(rows[place])]
        if headline != place:
            found[place] = headline
            continue
        above = [group for group in groups if group != place and _is_group_of(rows[group], rows[place])]
        found[place] = max(
            above, key=lambda group: (not _of_all(rows[group]), len(rows[group].task_raw)), default=None
        )
    return found


def _same_task(rows: Sequence[EvalRow], place: int, parents: Mapping[int, int | None]) -> bool:
    above = parents[place]
    return above is not None and _task(rows[above]) == _task(rows[place])


def is_member(group: EvalRow, row: EvalRow) -> bool:
    """Whether ``row`` is a single task under ``group``, in the same metric and filter."""
    same = (row.metric, row.filter) == (group.metric, group.filter)
    return same and row.subtasks is None and not _of_all(row) and _is_group_of(group, row)


def _passed(parent: int | None, done: Mapping[int, Adjusted]) -> bool:
    return parent is None or done[parent].p_value < ALPHA


def _rank(row: EvalRow, place: int) -> tuple[bool, int, int, int]:
    metric = METRICS.index(row.metric) if row.metric in METRICS else len(METRICS)
    kind = 0 if row.filter is None else FILTERS.index(row.filter) if row.filter in FILTERS else len(FILTERS)
    return "headline" not in row.notes, metric, kind, place


def _task(row: EvalRow) -> tuple[str, str]:
    return row.suite, row.task_raw


def _of_all(row: EvalRow) -> bool:
    return row.task_raw.lower() in OF_ALL


def _is_group(row: EvalRow) -> bool:
    return row.subtasks is not None or _of_all(row) or _stem(row) != row.task_raw


def _stem(row: EvalRow) -> str:
    return row.task_raw.removesuffix("_average").rstrip(":|_")


def _is_group_of(group: EvalRow, row: EvalRow) -> bool:
    if group.suite != row.suite or group.task_raw == row.task_raw or not _is_group(group):
        return False
    if _of_all(group):
        return not _of_all(row)
    stem = _stem(group)
    return row.task_raw.startswith(stem) and row.task_raw[len(stem) : len(stem) + 1] in ("_", "-", ":", "|", "/")
