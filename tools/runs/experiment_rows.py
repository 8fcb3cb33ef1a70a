"""Experiments as the ledger has them: goal and budget, the jobs that are trials, what they measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlintern.common.text import did_you_mean
from mlintern.tools.errors import NotFound
from mlintern.tools.evals.eval_ledger import of_jobs
from mlintern.tools.evals.result_rows import EvalRow
from mlintern.tools.jobs import job_rows
from mlintern.tools.jobs.job_rows import JobRecord
from mlintern.tools.ledger import Ledger


@dataclass(frozen=True)
class Experiment:
    """A goal and what it is measured by."""

    name: str
    goal: str
    base_model: str
    benchmark: str
    target: float | None
    budget_usd: float | None


def trials(ledger: Ledger, *, experiment: str | None = None) -> list[JobRecord]:
    """All jobs, or those of an experiment, the first created first. A schedule is none; what it starts is."""
    with ledger.read() as connection:
        return job_rows.trials(connection, experiment=experiment)


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
            raise NotFound(f"There is no experiment {name!r}.", next_step=did_you_mean(name, known, otherwise=there))
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
