"""Jobs as the ledger has them, each with its recipe and its money: the statements, and the row as an object."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass
from typing import Any, cast

from mlintern.common.commands import shown_command
from mlintern.common.text import did_you_mean
from mlintern.tools.cursors import make_cursor, read_cursor
from mlintern.tools.errors import Conflict, NotFound, WorkspaceError
from mlintern.tools.jobs.spec import FINAL, JobHandle, JobSpec, JobState, may_follow

_SELECT = """
    SELECT jobs.*, scripts.name AS script_name, scripts.recipe, COALESCE(money.usd_charged, 0) AS usd,
           COALESCE(money.usd_reserved, 0) AS usd_reserved, COALESCE(money.settled, 1) AS settled
    FROM jobs LEFT JOIN scripts USING (script_id) LEFT JOIN money USING (job_id)
"""


@dataclass(frozen=True)
class JobRecord:
    """A job. Times are Unix seconds, money US dollars.

    Attributes:
        summary: what was collected when the job ended, None before.
        recipe: what its script was rendered from; None for a script that was written or edited by hand.
        usd: charged so far. usd_reserved: its worst cost; held until ``settled``.
    """

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
    script_name: str
    recipe: dict[str, Any] | None
    usd: float
    usd_reserved: float
    settled: bool

    @property
    def run_id(self) -> str:
        """What people call it as a trial of an experiment."""
        return self.spec.run_name or self.job_id

    @property
    def trainer(self) -> str | None:
        return str(self.recipe["trainer"]) if self.recipe and self.recipe.get("trainer") else None

    @property
    def seconds(self) -> float | None:
        """Wall time, if the job is over."""
        if self.started_at is None or self.finished_at is None:
            return None
        return max(0.0, self.finished_at - self.started_at)

    @property
    def over(self) -> bool:
        return self.state in FINAL

    @classmethod
    def of(cls, row: sqlite3.Row) -> JobRecord:
        """Raises WorkspaceError: what the row holds is damaged."""
        try:
            return cls._of(row)
        except (ValueError, KeyError, TypeError) as error:
            raise WorkspaceError(
                f"What the ledger says of the job {row['job_id']} is damaged: {type(error).__name__}: {error}.",
                next_step="Its folder below jobs/ has its log and results. More: "
                + shown_command("mlintern-server", "doctor"),
            ) from error

    @classmethod
    def _of(cls, row: sqlite3.Row) -> JobRecord:
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
            summary=_object(row["summary"]),
            script_name=row["script_name"] or "",
            recipe=_object(row["recipe"]) or None,
            usd=row["usd"],
            usd_reserved=row["usd_reserved"],
            settled=bool(row["settled"]),
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
    row = connection.execute(f"{_SELECT} WHERE jobs.job_id = ?", (job_id,)).fetchone()
    if row is not None:
        return JobRecord.of(row)
    recent = connection.execute("SELECT job_id FROM jobs ORDER BY created_at DESC LIMIT 1000").fetchall()
    raise NotFound(
        f"There is no job {job_id!r} in this workspace.",
        next_step=did_you_mean(
            job_id, (str(known["job_id"]) for known in recent), otherwise="list_jobs shows the jobs that there are."
        ),
    )


def named(connection: sqlite3.Connection, text: str) -> str:
    """The id of the job with that id, else of the one job whose id begins so, else of the latest run of that name.

    Raises:
        NotFound: there is none; the message names the nearest.
        Conflict: several ids begin so.
    """
    beginning = text if text.startswith("job-") else f"job-{text}"
    found = connection.execute(
        "SELECT job_id FROM jobs WHERE substr(job_id, 1, length(?)) = ? ORDER BY job_id LIMIT 4", (beginning,) * 2
    ).fetchall()
    names = [str(row["job_id"]) for row in found]
    if beginning in names:
        return beginning
    if len(names) > 1:
        raise Conflict(f"Several jobs begin with {text!r}.", next_step=f"Write more of one of: {', '.join(names)}.")
    if names:
        return names[0]
    run = connection.execute(
        "SELECT job_id FROM jobs WHERE run_name = ? ORDER BY created_at DESC LIMIT 1", (text,)
    ).fetchone()
    return str(run["job_id"]) if run else get(connection, text).job_id


def by_reference(connection: sqlite3.Connection, *, backend: str, reference: str) -> str | None:
    """The id of the latest job that the backend calls ``reference``, or None."""
    row = connection.execute(
        "SELECT job_id FROM jobs WHERE backend = ? AND json_extract(handle, '$.reference') = ?"
        " ORDER BY created_at DESC LIMIT 1",
        (backend, reference),
    ).fetchone()
    return str(row["job_id"]) if row else None


def set_handle(connection: sqlite3.Connection, job_id: str, *, handle: JobHandle) -> None:
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
    return _found(connection, "jobs.state IN ('queued', 'running') ORDER BY jobs.created_at, job_id")


def trials(connection: sqlite3.Connection, *, experiment: str | None = None) -> list[JobRecord]:
    """All jobs, or those of an experiment, the first created first. A schedule is none; what it starts is."""
    where = "jobs.schedule IS NULL" + (" AND jobs.experiment = ?" if experiment is not None else "")
    values = () if experiment is None else (experiment,)
    return _found(connection, f"{where} ORDER BY jobs.created_at, job_id", *values)


def runs_of(connection: sqlite3.Connection, schedule: str) -> list[JobRecord]:
    """The runs of a schedule (a job id), the latest first."""
    return _found(connection, "jobs.run_of = ? ORDER BY jobs.created_at DESC, job_id DESC", schedule)


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
    given = {"experiment": experiment, "backend": backend, "state": status if status != "active" else None}
    values: list[object] = [value for value in given.values() if value is not None]
    where = " AND ".join(
        ["TRUE", *(f"jobs.{name} = ?" for name, value in given.items() if value is not None)]
        + (["jobs.state IN ('queued', 'running')"] if status == "active" else [])
    )
    total = connection.execute(f"SELECT COUNT(*) FROM jobs WHERE {where}", values).fetchone()[0]
    request = json.dumps([status, experiment, backend])
    if cursor is not None:
        place = read_cursor(cursor, tool="list_jobs", request=request, shape=(float, str))
        where, values = f"{where} AND (jobs.created_at, job_id) < (?, ?)", [*values, *place]
    order = "ORDER BY jobs.created_at DESC, job_id DESC LIMIT ?"
    found = _found(connection, f"{where} {order}", *values, limit + 1)
    more, found = len(found) > limit, found[:limit]
    return found, int(total), make_cursor([found[-1].created_at, found[-1].job_id], request) if more else None


def _found(connection: sqlite3.Connection, condition: str, *values: object) -> list[JobRecord]:
    return [JobRecord.of(row) for row in connection.execute(f"{_SELECT} WHERE {condition}", values)]


def _object(text: str | None) -> dict[str, Any] | None:
    value = json.loads(text) if text else None
    return value if isinstance(value, dict) else None
