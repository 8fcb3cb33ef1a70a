"""Runs as the ledger has them: a job, its script's recipe, its money."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlintern.tools.errors import NotFound
from mlintern.tools.evals.eval_ledger import of_jobs
from mlintern.tools.evals.result_rows import EvalRow
from mlintern.tools.ledger import Ledger
from mlintern.tools.suggestions import did_you_mean, nearest

_COLUMNS = """
    SELECT jobs.*, scripts.sha256, scripts.name AS script_name, scripts.recipe,
           COALESCE(money.usd_charged, 0) AS usd, COALESCE(money.usd_reserved, 0) AS usd_reserved,
           COALESCE(money.settled, 1) AS settled
    FROM jobs JOIN scripts USING (script_id) LEFT JOIN money USING (job_id)
"""


@dataclass(frozen=True)
class RunRecord:
    """One job seen as a trial. Times are Unix seconds; ``recipe`` is None for a script that was not rendered."""

    job_id: str
    run_name: str | None
    experiment: str | None
    state: str
    backend: str
    hardware: str
    script_id: str
    script_sha256: str
    script_name: str
    recipe: dict[str, Any] | None
    spec: dict[str, Any]
    created_at: float
    started_at: float | None
    finished_at: float | None
    usd: float
    usd_reserved: float
    settled: bool
    error: str | None

    @property
    def run_id(self) -> str:
        return self.run_name or self.job_id

    @property
    def trainer(self) -> str | None:
        return str(self.recipe["trainer"]) if self.recipe and self.recipe.get("trainer") else None

    @property
    def seconds(self) -> float | None:
        """Wall time, if the job is over."""
        if self.started_at is None or self.finished_at is None:
            return None
        return max(0.0, self.finished_at - self.started_at)


@dataclass(frozen=True)
class Experiment:
    """A goal and what it is measured by."""

    name: str
    goal: str
    base_model: str
    benchmark: str
    target: float | None
    budget_usd: float | None


def runs(ledger: Ledger, *, experiment: str | None = None) -> list[RunRecord]:
    """All runs, or those of an experiment, the first created first. A schedule is none; what it starts is."""
    where = "WHERE jobs.schedule IS NULL" + (" AND jobs.experiment = ?" if experiment is not None else "")
    with ledger.read() as connection:
        rows = connection.execute(
            f"{_COLUMNS} {where} ORDER BY jobs.created_at, jobs.job_id", () if experiment is None else (experiment,)
        ).fetchall()
    return [
        RunRecord(
            job_id=row["job_id"],
            run_name=row["run_name"],
            experiment=row["experiment"],
            state=row["state"],
            backend=row["backend"],
            hardware=row["hardware"],
            script_id=row["script_id"],
            script_sha256=row["sha256"],
            script_name=row["script_name"],
            recipe=_object(row["recipe"]) or None,
            spec=_object(row["spec"]),
            created_at=row["created_at"],
            started_at=row["started_at"],
            finished_at=row["finished_at"],
            usd=row["usd"],
            usd_reserved=row["usd_reserved"],
            settled=bool(row["settled"]),
            error=row["error"],
        )
        for row in rows
    ]


def reserved_by_schedules(ledger: Ledger, *, experiment: str) -> float:
    """US dollars that are set aside for what schedules of an experiment have not started yet."""
    with ledger.read() as connection:
        row = connection.execute(
            "SELECT COALESCE(SUM(usd_reserved), 0) FROM money JOIN jobs USING (job_id)"
            " WHERE jobs.schedule IS NOT NULL AND NOT money.settled AND jobs.experiment = ?",
            (experiment,),
        ).fetchone()
    return float(row[0])


def experiment(ledger: Ledger, name: str) -> Experiment:
    """The experiment ``name``.

    Raises:
        NotFound: there is none; near names are suggested.
    """
    with ledger.read() as connection:
        row = connection.execute("SELECT * FROM experiments WHERE name = ?", (name,)).fetchone()
        if row is None:
            known = [str(other[0]) for other in connection.execute("SELECT name FROM experiments")]
            there = f"There are: {', '.join(known[:8])}." if known else "submit_job(experiment=...) begins one."
            raise NotFound(f"There is no experiment {name!r}.", next_step=did_you_mean(nearest(name, known)) or there)
    return Experiment(
        name=row["name"],
        goal=row["goal"],
        base_model=row["base_model"],
        benchmark=row["benchmark"],
        target=row["target"],
        budget_usd=row["budget_usd"],
    )


def describe(ledger: Ledger, name: str, *, goal: str | None, target: float | None) -> None:
    """Set goal and target of an experiment, where given."""
    with ledger.transaction() as connection:
        connection.execute(
            "UPDATE experiments SET goal = COALESCE(?, goal), target = COALESCE(?, target) WHERE name = ?",
            (goal, target, name),
        )


def evaluations(ledger: Ledger, *, job_ids: Sequence[str]) -> list[tuple[str, EvalRow]]:
    """(Job id, row) of everything that these jobs measured, job by job."""
    stored = of_jobs(ledger, job_ids)
    return [(job_id, row) for job_id in job_ids for row in stored[job_id]]


def _object(text: str | None) -> dict[str, Any]:
    value = json.loads(text) if text else {}
    return value if isinstance(value, dict) else {}
