"""What jobs may cost and what they did cost.

The worst case of a job (time-out times price, as its backend bills it) is reserved in the transaction that records
the intent to run it, so that no two submissions together pass a budget. Measured time is charged while it runs.
What was reserved and not used is released only when the job is over. Every movement is kept in ``money_entries``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from mlintern.common.text import format_usd
from mlintern.tools.errors import OutOfBudget
from mlintern.tools.jobs.prices import billing_of
from mlintern.tools.jobs.spec import JobSpec

_COMMITTED = "COALESCE(SUM(CASE WHEN money.settled THEN usd_charged ELSE MAX(usd_reserved, usd_charged) END), 0)"
_TOLERANCE_USD = 1e-6
"""Sums of amounts that are rounded to a millionth of a dollar may be off by less than this."""


def price(usd_per_hour: float, seconds: float) -> float:
    """US dollars for ``seconds``, to a millionth."""
    return round(max(0.0, usd_per_hour) * max(0.0, seconds) / 3600.0, 6)


def worst_of(backend: str, *, usd_per_hour: float, seconds: float, jobs: int = 1) -> float:
    """The most that ``jobs`` on ``backend`` can cost that run for ``seconds`` each, as the backend bills them."""
    return round(price(usd_per_hour, billing_of(backend).at_most(seconds)) * jobs, 6)


def worst(spec: JobSpec) -> float:
    """The most that ``spec`` can cost, all its runs together, with what they may spend at served models."""
    runs = spec.schedule.runs if spec.schedule else 1
    rate, seconds = spec.usd_per_hour, spec.timeout_seconds
    return round(worst_of(spec.backend, usd_per_hour=rate, seconds=seconds, jobs=runs) + runs * spec.usd_served, 6)


def reserve(connection: sqlite3.Connection, spec: JobSpec, *, budget_usd: float | None, now: float) -> None:
    """Set the worst cost of ``spec`` aside. Call it in the transaction that inserts the job.

    Raises:
        OutOfBudget: with it the workspace or the experiment would pass its limit; nothing is reserved.
    """
    usd = worst(spec)
    if usd > 0:
        _check_limit(usd, committed(connection), budget_usd, whose="workspace")
        if spec.experiment is not None:
            limit = connection.execute(
                "SELECT budget_usd FROM experiments WHERE name = ?", (spec.experiment,)
            ).fetchone()
            spent = committed(connection, experiment=spec.experiment)
            _check_limit(usd, spent, limit["budget_usd"] if limit else None, whose=f"experiment {spec.experiment!r}")
    connection.execute(
        "INSERT INTO money (job_id, usd_per_hour, usd_reserved) VALUES (?, ?, ?)",
        (spec.job_id, spec.usd_per_hour, usd),
    )
    _enter(connection, spec.job_id, "reserve", usd, now=now)


def hand_over(connection: sqlite3.Connection, run: JobSpec, *, schedule: str, now: float) -> None:
    """Reserve for a ``run`` that has started what was reserved for it with its ``schedule`` (a job id).

    If the schedule has started more than was agreed to, only what is left is reserved; what the run uses is charged
    all the same.
    """
    row = _row(connection, schedule)
    held = float(row["usd_reserved"]) if row is not None and not row["settled"] else 0.0
    moved = min(worst(run), held)
    connection.execute(
        "UPDATE money SET usd_reserved = ROUND(usd_reserved - ?, 6) WHERE job_id = ?", (moved, schedule)
    )
    connection.execute(
        "INSERT INTO money (job_id, usd_per_hour, usd_reserved) VALUES (?, ?, ?)",
        (run.job_id, run.usd_per_hour, moved),
    )
    _enter(connection, schedule, "release", moved, now=now)
    _enter(connection, run.job_id, "reserve", moved, now=now)


def limit_experiments(connection: sqlite3.Connection, budgets: Mapping[str, float], *, now: float) -> None:
    """Set the budgets of experiments, in US dollars. They hold for every server on the workspace from now on."""
    connection.executemany(
        "INSERT INTO experiments (name, budget_usd, created_at) VALUES (?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET budget_usd = excluded.budget_usd",
        [(name, usd, now) for name, usd in budgets.items()],
    )


def charge(connection: sqlite3.Connection, job_id: str, *, seconds: float, now: float, served: float = 0.0) -> float:
    """Charge a running job for ``seconds`` of measured time so far, and for what it says it spent at served models.

    Never less than before. Returns the charge.
    """
    row = _row(connection, job_id)
    if row is None or row["settled"]:
        return 0.0 if row is None else float(row["usd_charged"])
    charged = max(float(row["usd_charged"]), round(price(row["usd_per_hour"], seconds) + served, 6))
    if charged > row["usd_charged"]:
        connection.execute("UPDATE money SET usd_charged = ? WHERE job_id = ?", (charged, job_id))
        _enter(connection, job_id, "charge", charged - float(row["usd_charged"]), now=now)
    return charged


def settle(
    connection: sqlite3.Connection, job_id: str, *, seconds: float | None, now: float, served: float = 0.0
) -> float:
    """Close the account of a job that is over. Returns what it cost.

    ``seconds`` is the measured time; None when nobody could measure it, and then the whole reservation is charged:
    that what was not measured was free is the one thing we do not assume. ``served`` are US dollars spent at served
    models.
    """
    row = _row(connection, job_id)
    if row is None:
        return 0.0
    if row["settled"]:
        return float(row["usd_charged"])
    used = float(row["usd_reserved"]) if seconds is None else price(row["usd_per_hour"], seconds) + served
    return settle_at(connection, job_id, usd=round(used, 6), now=now)


def settle_at(connection: sqlite3.Connection, job_id: str, *, usd: float, now: float) -> float:
    """Close the account of a job that cost ``usd``, or what was charged before if that is more. Returns its cost."""
    row = _row(connection, job_id)
    if row is None:
        return 0.0
    used = usd
    charged = max(float(row["usd_charged"]), used)
    connection.execute("UPDATE money SET usd_charged = ?, settled = 1 WHERE job_id = ?", (charged, job_id))
    if charged > row["usd_charged"]:
        _enter(connection, job_id, "charge", charged - float(row["usd_charged"]), now=now)
    if row["usd_reserved"] > charged:
        _enter(connection, job_id, "release", float(row["usd_reserved"]) - charged, now=now)
    return charged


def withdraw(connection: sqlite3.Connection, job_id: str, *, now: float) -> None:
    """Give a reservation back whose job was never started. Call it before the job's row is removed."""
    row = _row(connection, job_id)
    if row is not None and not row["settled"]:
        _enter(connection, job_id, "release", float(row["usd_reserved"]), now=now)


def charged(connection: sqlite3.Connection, job_id: str) -> float:
    """US dollars that the job has cost so far."""
    row = _row(connection, job_id)
    return float(row["usd_charged"]) if row else 0.0


def charged_with_runs(connection: sqlite3.Connection, job_id: str) -> float:
    """`charged`, and what the runs of a schedule have cost so far."""
    row = connection.execute(
        "SELECT COALESCE(SUM(usd_charged), 0) FROM money JOIN jobs USING (job_id) WHERE job_id = ? OR run_of = ?",
        (job_id, job_id),
    ).fetchone()
    return round(float(row[0]), 6)


def committed(connection: sqlite3.Connection, *, experiment: str | None = None) -> float:
    """US dollars spent, or set aside for jobs that are not over, in the workspace or one experiment."""
    if experiment is None:
        row = connection.execute(f"SELECT {_COMMITTED} FROM money").fetchone()
    else:
        row = connection.execute(
            f"SELECT {_COMMITTED} FROM money JOIN jobs USING (job_id) WHERE experiment = ?", (experiment,)
        ).fetchone()
    return round(float(row[0]), 6)


def _check_limit(worst: float, spent: float, limit: float | None, *, whose: str) -> None:
    if limit is not None and spent + worst > limit + _TOLERANCE_USD:
        raise OutOfBudget(
            f"At worst this job costs {format_usd(worst)}, and {format_usd(spent)} of the {format_usd(limit)} of the"
            f" {whose} are spent or set aside.",
            next_step="Choose a shorter timeout or cheaper hardware, wait for running jobs, or ask for more budget.",
        )


def _row(connection: sqlite3.Connection, job_id: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = connection.execute("SELECT * FROM money WHERE job_id = ?", (job_id,)).fetchone()
    return row


def _enter(connection: sqlite3.Connection, job_id: str, kind: str, usd: float, *, now: float) -> None:
    usd = round(usd, 6)
    if usd > 0:
        connection.execute(
            "INSERT INTO money_entries (job_id, at, kind, usd) VALUES (?, ?, ?, ?)", (job_id, now, kind, usd)
        )
