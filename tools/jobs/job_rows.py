"""What the ledger says about jobs: the statements, and the row as an object."""

from __future__ import annotations

import difflib
import json
import sqlite3
from dataclasses import asdict, dataclass
from typing import Any, cast

from mlintern.tools.cursors import make_cursor, read_cursor
from mlintern.tools.errors import Conflict, NotFound
from mlintern.tools.jobs.spec import FINAL, JobHandle, JobSpec, JobState, may_follow

ACTIVE = ("queued", "running")


@dataclass(frozen=True)
class JobRecord:
    """One row of ``jobs``. ``summary`` is what was collected when the job ended, None before."""

    job_id: str
    digest: str
    spec: JobSpec
    state: JobState
    state_since: float
    created_at: float
    started_at: float | None
    finished_at: float | None
    handle: JobHandle | None
    exit_code: int | None
    error: str | None
    summary: dict[str, Any] | None

    @property
    def over(self) -> bool:
        return self.state in FINAL

    @classmethod
    def of(cls, row: sqlite3.Row) -> JobRecord:
        return cls(
            job_id=row["job_id"],
            digest=row["digest"],
            spec=JobSpec.from_json(json.loads(row["spec"])),
            state=cast(JobState, row["state"]),
            state_since=row["state_since"],
            created_at=row["created_at"],
            started_at=row["started_at"],
            finished_at=row["finished_at"],
            handle=JobHandle(**json.loads(row["handle"])) if row["handle"] else None,
            exit_code=row["exit_code"],
            error=row["error"],
            summary=json.loads(row["summary"]) if row["summary"] else None,
        )


def insert(connection: sqlite3.Connection, spec: JobSpec, *, now: float) -> bool:
    """Record the intent to run ``spec``. False if exactly this job is on record already.

    Raises:
        Conflict: another specification has the same job id (their digests begin alike).
    """
    if spec.experiment is not None:
        connection.execute(
            "INSERT INTO experiments (name, created_at) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
            (spec.experiment, now),
        )
    row = connection.execute("SELECT digest FROM jobs WHERE job_id = ?", (spec.job_id,)).fetchone()
    if row is not None and row["digest"] != spec.digest:
        raise Conflict(
            f"The id {spec.job_id} is taken by another job.", next_step="Change run_name and submit again."
        )
    if row is not None:
        return False
    connection.execute(
        "INSERT INTO jobs (job_id, digest, script_id, backend, hardware, timeout_seconds, spec, experiment, run_name,"
        " schedule, run_of, state, state_since, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?)",
        (
            spec.job_id,
            spec.digest,
            spec.script_id,
            spec.backend,
            spec.hardware,
            spec.timeout_seconds,
            json.dumps(spec.to_json()),
            spec.experiment,
            spec.run_name,
            spec.schedule.cron if spec.schedule else None,
            spec.run_of.schedule if spec.run_of else None,
            now,
            now,
        ),
    )
    return True


def withdraw(connection: sqlite3.Connection, job_id: str) -> None:
    """Forget an intent that the backend refused: nothing was started, so the same submission may be made again."""
    connection.execute("DELETE FROM money WHERE job_id = ?", (job_id,))
    connection.execute("DELETE FROM jobs WHERE job_id = ? AND handle IS NULL AND state = 'queued'", (job_id,))


def get(connection: sqlite3.Connection, job_id: str) -> JobRecord:
    """The job of that id.

    Raises:
        NotFound: there is none; the message names the nearest.
    """
    row = connection.execute("SELECT * FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
    if row is not None:
        return JobRecord.of(row)
    recent = connection.execute("SELECT job_id FROM jobs ORDER BY created_at DESC LIMIT 1000").fetchall()
    close = difflib.get_close_matches(job_id, [known["job_id"] for known in recent], n=1)
    raise NotFound(
        f"There is no job {job_id!r} in this workspace.",
        next_step=f"Did you mean {close[0]!r}?" if close else "list_jobs shows the jobs that there are.",
    )


def by_reference(connection: sqlite3.Connection, *, backend: str, reference: str) -> str | None:
    """The id of the latest job that the backend calls ``reference``, or None."""
    row = connection.execute(
        "SELECT job_id FROM jobs WHERE backend = ? AND json_extract(handle, '$.reference') = ?"
        " ORDER BY created_at DESC LIMIT 1",
        (backend, reference),
    ).fetchone()
    return str(row["job_id"]) if row else None


def set_handle(connection: sqlite3.Connection, job_id: str, handle: JobHandle) -> None:
    connection.execute("UPDATE jobs SET handle = ? WHERE job_id = ?", (json.dumps(asdict(handle)), job_id))


def advance(
    connection: sqlite3.Connection,
    job_id: str,
    *,
    seen: JobState,
    state: JobState,
    now: float,
    started_at: float | None = None,
    finished_at: float | None = None,
    exit_code: int | None = None,
    error: str | None = None,
    summary: dict[str, Any] | None = None,
) -> bool:
    """Move a job from the state it was ``seen`` in to ``state``. False if somebody else has moved it meanwhile.

    Raises:
        Conflict: the transition is not a lawful one.
    """
    if not may_follow(seen, state):
        raise Conflict(
            f"The job {job_id} is {seen}; it cannot become {state}.", next_step="poll_job shows its state."
        )
    changed = connection.execute(
        "UPDATE jobs SET state = ?, state_since = ?, started_at = COALESCE(?, started_at), finished_at = ?,"
        " exit_code = ?, error = ?, summary = ? WHERE job_id = ? AND state = ?",
        (
            state,
            now,
            started_at,
            finished_at,
            exit_code,
            error,
            json.dumps(summary) if summary is not None else None,
            job_id,
            seen,
        ),
    )
    return changed.rowcount == 1


def active(connection: sqlite3.Connection) -> list[JobRecord]:
    """Every job that is not over, oldest first."""
    rows = connection.execute("SELECT * FROM jobs WHERE state IN ('queued', 'running') ORDER BY created_at, job_id")
    return [JobRecord.of(row) for row in rows]


def runs_of(connection: sqlite3.Connection, schedule: str) -> list[JobRecord]:
    """The runs of a schedule (a job id), the latest first."""
    rows = connection.execute(
        "SELECT * FROM jobs WHERE run_of = ? ORDER BY created_at DESC, job_id DESC", (schedule,)
    )
    return [JobRecord.of(row) for row in rows]


def page(
    connection: sqlite3.Connection,
    *,
    status: str | None,
    experiment: str | None,
    backend: str | None,
    limit: int,
    cursor: str | None,
) -> tuple[list[JobRecord], int, str | None]:
    """Jobs, newest first, how many match in all, and the cursor of the next page. Status ``active``: not over."""
    request = repr((status, experiment, backend))
    conditions: list[tuple[str, tuple[object, ...]]] = []
    if status == "active":
        conditions.append(("state IN ('queued', 'running')", ()))
    elif status is not None:
        conditions.append(("state = ?", (status,)))
    if experiment is not None:
        conditions.append(("experiment = ?", (experiment,)))
    if backend is not None:
        conditions.append(("backend = ?", (backend,)))
    total = connection.execute("SELECT COUNT(*) FROM jobs" + _where(conditions), _values(conditions)).fetchone()[0]
    if cursor is not None:
        place = read_cursor(cursor, tool="list_jobs", request=request, shape=(float, str))
        conditions.append(("(created_at, job_id) < (?, ?)", tuple(place)))
    rows = connection.execute(
        f"SELECT * FROM jobs{_where(conditions)} ORDER BY created_at DESC, job_id DESC LIMIT ?",
        (*_values(conditions), limit + 1),
    ).fetchall()
    found = [JobRecord.of(row) for row in rows[:limit]]
    more = len(rows) > limit
    return found, int(total), make_cursor([found[-1].created_at, found[-1].job_id], request) if more else None


def _where(conditions: list[tuple[str, tuple[object, ...]]]) -> str:
    return " WHERE " + " AND ".join(text for text, _ in conditions) if conditions else ""


def _values(conditions: list[tuple[str, tuple[object, ...]]]) -> tuple[object, ...]:
    return tuple(value for _, values in conditions for value in values)
