"""The rows of a source that a task and a metric name, in any spelling, with near names where there are none."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from mlintern.common.text import did_you_mean
from mlintern.tools.errors import NotFound
from mlintern.tools.evals.names import canonical_task
from mlintern.tools.evals.result_rows import EvalRow


def matching(
    rows: Sequence[EvalRow], *, task: str | None = None, metric: str | None = None, what: str = "The source"
) -> list[EvalRow]:
    """The rows of a task (any spelling, ``*`` allowed) and a metric (``acc`` or ``acc,none``).

    Args:
        what: names the rows in errors.

    Raises:
        NotFound: there are rows, but none of that name; near names are suggested.
    """
    chosen = list(rows)
    if task is not None:
        names = {task.casefold(), canonical_task(task)}
        chosen = [row for row in chosen if any(_named(row, name) for name in names)]
        if not chosen and rows:
            raise _unknown(what, "task", task, sorted({row.task for row in rows}))
    if metric is not None:
        before = chosen
        chosen = [row for row in chosen if metric in (row.metric, f"{row.metric},{row.filter}")]
        if not chosen and before:
            raise _unknown(what, "metric", metric, sorted({row.metric for row in before}))
    return chosen


def _named(row: EvalRow, pattern: str) -> bool:
    return fnmatch.fnmatchcase(row.task.casefold(), pattern) or fnmatch.fnmatchcase(row.task_raw.casefold(), pattern)


def _unknown(what: str, kind: str, name: str, known: Sequence[str]) -> NotFound:
    hint = did_you_mean(name, known)
    return NotFound(f"{what} has no {kind} {name!r}.", next_step=hint)
