"""The evaluation tools: read what any harness wrote, compare two of them, keep what jobs measured."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Sequence

import anyio.to_thread

from mlintern.common.clock import Clock
from mlintern.tools.cursors import make_cursor, read_cursor
from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.evals import records
from mlintern.tools.evals.compare import Comparison, compare_rows
from mlintern.tools.evals.documents import Reading
from mlintern.tools.evals.names import canonical_task
from mlintern.tools.evals.read import read_path
from mlintern.tools.evals.rows import EvalPage, EvalRow
from mlintern.tools.evals.sources import HubResults, Source, locate
from mlintern.tools.ledger import Ledger
from mlintern.tools.suggestions import did_you_mean, nearest
from mlintern.tools.workspace import Workspace

DEFAULT_LIMIT = 40
MOST_ROWS = 500
SHOWN = 50
"""Problems and task names shown on a page."""


class EvalService:
    """Reads, compares and keeps evaluation results. All methods are safe to call from several tasks at once."""

    def __init__(self, *, workspace: Workspace, ledger: Ledger, clock: Clock, hub: HubResults | None = None) -> None:
        self.workspace = workspace
        self.ledger = ledger
        self.clock = clock
        self.hub = hub

    async def read(
        self, source: str, *, task: str | None = None, limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> EvalPage:
        """Rows of a job, a result file, a folder of them, or a Hub repository.

        Args:
            task: a task in any harness's spelling; ``*`` stands for anything (``mmlu_*``). All tasks if None.
            limit: rows on a page, 1 to 500.

        Raises:
            NotFound: no such source, no results in it, or no such task in it (near ones are named).
            BadInput: a broken file, an unusable limit or cursor.
        """
        if not 1 <= limit <= MOST_ROWS:
            raise BadInput(f"limit is {limit}.", next_step=f"Give a number from 1 to {MOST_ROWS}.")
        reading = await anyio.to_thread.run_sync(self._read, source)
        rows = matching(reading.rows, task=task)
        digest = hashlib.sha256(repr([source, task, [row.sha256 for row in rows]]).encode()).hexdigest()[:12]
        start = _offset(cursor, digest, len(rows))
        end = min(start + limit, len(rows))
        tasks = sorted({row.task for row in reading.rows})
        return EvalPage(
            rows=rows[start:end],
            total=len(rows),
            tasks=tasks[:SHOWN],
            problems=reading.problems[:SHOWN],
            notes=_notes(reading, tasks),
            next_cursor=make_cursor([end], digest) if end < len(rows) else None,
        )

    async def compare(
        self, baseline: str, candidate: str, *, task: str | None = None, metric: str | None = None
    ) -> Comparison:
        """Is the candidate better than the baseline? See `compare_rows` for method and verdicts.

        Args:
            baseline, candidate: sources as in `read`.
            task, metric: compare only these; all that both sides have if None.

        Raises:
            NotFound, BadInput: as `read`, for either side.
        """
        return await anyio.to_thread.run_sync(
            lambda: compare_rows(
                self._one_side(baseline, task=task, metric=metric),
                self._one_side(candidate, task=task, metric=metric),
            )
        )

    async def collect(self, job_id: str) -> list[EvalRow]:
        """Read what the job has measured and keep it in the ledger; an empty list if it measured nothing.

        Raises:
            NotFound: the ledger has no such job.
        """
        return await anyio.to_thread.run_sync(self._collect, job_id)

    def _collect(self, job_id: str) -> list[EvalRow]:
        found = locate(job_id, workspace=self.workspace, ledger=self.ledger)
        if found.job_id is None:
            raise NotFound(f"There is no job {job_id!r}.", next_step="list_jobs shows the jobs of this workspace.")
        rows = _read_job(found).rows
        records.store(self.ledger, job_id=job_id, rows=rows, now=self.clock.now())
        return rows

    def _one_side(self, source: str, *, task: str | None, metric: str | None) -> list[EvalRow]:
        reading = self._read(source)
        rows = matching(reading.rows, task=task, metric=metric)
        if not rows and reading.problems:
            problem = reading.problems[0]
            raise BadInput(f"{problem.source}: {problem.message}", next_step=problem.next_step)
        return rows

    def _read(self, source: str) -> Reading:
        found = locate(source, workspace=self.workspace, ledger=self.ledger, hub=self.hub)
        if found.job_id is None:
            return read_path(found.path)
        reading = _read_job(found)
        if reading.rows or reading.problems:
            return reading
        kept = records.of_jobs(self.ledger, [found.job_id])[found.job_id]
        if kept:
            return Reading(rows=kept)
        raise NotFound(
            f"The job {found.job_id} (state {found.state}) has no evaluation result.",
            next_step="Wait with poll_job until it has one, or read its log: a training script evaluates only if its "
            "recipe asks for it.",
        )


def matching(rows: Sequence[EvalRow], *, task: str | None = None, metric: str | None = None) -> list[EvalRow]:
    """The rows of a task (any spelling, ``*`` allowed) and a metric (``acc`` or ``acc,none``).

    Raises:
        NotFound: there are rows, but none of that name; near names are suggested.
    """
    chosen = list(rows)
    if task is not None:
        names = {task.casefold(), canonical_task(task)}
        chosen = [row for row in chosen if any(_named(row, name) for name in names)]
        if not chosen and rows:
            raise _unknown("task", task, sorted({row.task for row in rows}))
    if metric is not None:
        before = chosen
        chosen = [row for row in chosen if metric in (row.metric, f"{row.metric},{row.filter}")]
        if not chosen and before:
            raise _unknown("metric", metric, sorted({row.metric for row in before}))
    return chosen


def _named(row: EvalRow, pattern: str) -> bool:
    return fnmatch.fnmatchcase(row.task.casefold(), pattern) or fnmatch.fnmatchcase(row.task_raw.casefold(), pattern)


def _unknown(kind: str, name: str, known: Sequence[str]) -> NotFound:
    hint = did_you_mean(nearest(name, known)) or f"There are: {', '.join(known[:12])}."
    return NotFound(f"The source has no {kind} {name!r}.", next_step=hint)


def _read_job(found: Source) -> Reading:
    """Results in the job's output folder, else the evaluation rows that its script printed."""
    output, log = found.path / "output", found.path / "log.txt"
    for path in (output, log):
        if not path.exists():
            continue
        try:
            return read_path(path)
        except NotFound:
            continue
        except BadInput:
            if path == output:
                raise
    return Reading()


def _notes(reading: Reading, tasks: Sequence[str]) -> list[str]:
    notes: list[str] = []
    if len(tasks) > SHOWN:
        notes.append(f"{len(tasks) - SHOWN} more tasks are not named here; filter with task.")
    if len(reading.problems) > SHOWN:
        notes.append(f"{len(reading.problems) - SHOWN} more problems are not shown.")
    if any(row.stderr_derived for row in reading.rows):
        notes.append("stderr_derived: the harness gave no standard error; it is sqrt(p(1-p)/n).")
    return notes


def _offset(cursor: str | None, digest: str, total: int) -> int:
    if cursor is None:
        return 0
    other = "The cursor belongs to other results: source or task differ, or the files have changed."
    place = read_cursor(cursor, tool="read_eval", request=digest, otherwise=other)
    if len(place) != 1 or not isinstance(place[0], int) or not 0 <= place[0] <= total:
        raise BadInput(other, next_step="Leave it out to start again.")
    return place[0]
