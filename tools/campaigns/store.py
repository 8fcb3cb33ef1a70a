"""What the ledger says about opened experiments: plan, trials, stages, what a person agreed to, confirmations."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlintern.common.text import did_you_mean
from mlintern.tools.campaigns.state import Stage, StageKey, Trial, TrialState
from mlintern.tools.errors import Conflict, NotFound
from mlintern.tools.jobs.spec import JobSpec
from mlintern.tools.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was fixed when the experiment was opened, and never changes.

    Attributes:
        evaluation: the evaluation recipe without `trainer`, `model` and the place of its items.
        metric: what trials are judged by.
        hashes: SHA-256 of the files of the decide and the confirm half, by their names.
        fingerprint: SHA-256 (12 hex) of everything that makes two measurements comparable.
    """

    model: str
    revision: str | None
    evaluation: dict[str, Any]
    metric: str
    decide_rows: int
    confirm_rows: int
    hashes: dict[str, str]
    fingerprint: str
    usd: float | None
    parallel: int
    opened_at: float
    ends_at: float


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """One opening of the confirm half."""

    opening: int
    trial: int
    opened_at: float
    verdict: dict[str, Any] | None


def open_experiment(
    connection: sqlite3.Connection, name: str, plan: Plan, *, goal: str, target: float | None
) -> None:
    """Record the plan.

    Raises:
        Conflict: an experiment of that name was opened already.
    """
    if connection.execute("SELECT 1 FROM campaigns WHERE experiment = ?", (name,)).fetchone():
        raise Conflict(
            f"The experiment {name!r} was opened already; its protocol and its items stay as they are.",
            next_step="Go on with run_trials, or open another one under another name.",
        )
    connection.execute(
        "INSERT INTO experiments (name, goal, base_model, benchmark, target, budget_usd, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET goal = excluded.goal,"
        " base_model = excluded.base_model, benchmark = excluded.benchmark, target = excluded.target,"
        " budget_usd = COALESCE(MIN(budget_usd, excluded.budget_usd), budget_usd, excluded.budget_usd)",
        (name, goal, plan.model, str(plan.evaluation.get("task", "")), target, plan.usd, plan.opened_at),
    )
    connection.execute(
        "INSERT INTO campaigns (experiment, plan, fingerprint, opened_at, ends_at) VALUES (?, ?, ?, ?, ?)",
        (name, json.dumps(_plan_json(plan)), plan.fingerprint, plan.opened_at, plan.ends_at),
    )


def plan_of(ledger: Ledger, name: str) -> Plan:
    """The plan of an opened experiment.

    Raises:
        NotFound: none of that name was opened.
    """
    with ledger.read() as connection:
        row = connection.execute("SELECT * FROM campaigns WHERE experiment = ?", (name,)).fetchone()
        known = [str(other[0]) for other in connection.execute("SELECT experiment FROM campaigns")]
    if row is None:
        raise NotFound(
            f"No experiment {name!r} was opened.",
            next_step=did_you_mean(name, known, otherwise="open_experiment begins one."),
        )
    return Plan(**json.loads(row["plan"]), opened_at=row["opened_at"], ends_at=row["ends_at"])


def opened(ledger: Ledger) -> list[str]:
    """The names of all opened experiments."""
    with ledger.read() as connection:
        return [str(row[0]) for row in connection.execute("SELECT experiment FROM campaigns ORDER BY opened_at")]


def stop(connection: sqlite3.Connection, name: str) -> None:
    """Let nothing more be started."""
    connection.execute("UPDATE campaigns SET stopped = 1 WHERE experiment = ?", (name,))


def stopped(ledger: Ledger, name: str) -> bool:
    with ledger.read() as connection:
        row = connection.execute("SELECT stopped FROM campaigns WHERE experiment = ?", (name,)).fetchone()
    return bool(row and row[0])


def add_batch(
    connection: sqlite3.Connection, name: str, *, digest: str, body: Mapping[str, Any], usd: float, now: float
) -> bool:
    """Record what a person agreed to; False if exactly this batch is on record already."""
    row = connection.execute("SELECT 1 FROM batches WHERE experiment = ? AND digest = ?", (name, digest)).fetchone()
    if row is not None:
        return False
    connection.execute(
        "INSERT INTO batches (experiment, digest, body, usd_worst, agreed_at) VALUES (?, ?, ?, ?, ?)",
        (name, digest, json.dumps(body), usd, now),
    )
    return True


def batches(ledger: Ledger, name: str) -> list[dict[str, Any]]:
    """Everything that was agreed to, in order: digest, body, usd_worst, agreed_at."""
    with ledger.read() as connection:
        rows = connection.execute(
            "SELECT digest, body, usd_worst, agreed_at FROM batches WHERE experiment = ? ORDER BY agreed_at, digest",
            (name,),
        ).fetchall()
    return [{**dict(row), "body": json.loads(row["body"])} for row in rows]


def same_batch(ledger: Ledger, name: str, *, body: Mapping[str, Any]) -> tuple[set[int], dict[str, list[int]]]:
    """The trials of the batch with this body, and the seeds that it added to others, if it is on record.

    Asked for again, it is the same batch.
    """
    for batch in batches(ledger, name):
        if {field: value for field, value in batch["body"].items() if field != "added"} == body:
            members = {trial.number for trial, digest in trials(ledger, name) if digest == batch["digest"]}
            return members, batch["body"].get("added", {})
    return set(), {}


def add_trials(connection: sqlite3.Connection, name: str, *, trials: Iterable[Trial], batch: str, now: float) -> None:
    """Add trials; their numbers follow those that are there.

    Raises:
        Conflict: a name is taken.
    """
    taken = {str(row["name"]) for row in connection.execute("SELECT name FROM trials WHERE experiment = ?", (name,))}
    for trial in trials:
        if trial.name in taken:
            raise Conflict(f"There is a trial {trial.name!r} already.", next_step="Give the new one another name.")
        taken.add(trial.name)
        connection.execute(
            "INSERT INTO trials (experiment, trial, name, parent, spec, batch, state, reason, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, '', ?)",
            (name, trial.number, trial.name, trial.parent, json.dumps(_spec(trial)), batch, trial.state, now),
        )


def trials(ledger: Ledger, name: str) -> list[tuple[Trial, str]]:
    """All trials without their stages, in order, each with the digest of its batch."""
    with ledger.read() as connection:
        rows = connection.execute("SELECT * FROM trials WHERE experiment = ? ORDER BY trial", (name,)).fetchall()
    return [
        (
            Trial(
                number=row["trial"],
                name=row["name"],
                parent=row["parent"],
                state=row["state"],
                reason=row["reason"],
                **_from_spec(json.loads(row["spec"])),
            ),
            row["batch"],
        )
        for row in rows
    ]


def add_seeds(connection: sqlite3.Connection, name: str, *, trial: int, seeds: Iterable[int]) -> None:
    """Have a trial trained with further seeds; one that is done runs again.

    Raises:
        Conflict: it has ended in another way.
    """
    row = connection.execute("SELECT * FROM trials WHERE experiment = ? AND trial = ?", (name, trial)).fetchone()
    if row["state"] not in ("waiting", "running", "done"):
        raise Conflict(
            f"Trial {row['name']!r} is over: {row['state']}. {row['reason']}".rstrip(),
            next_step="Seeds are added to trials that wait, run or are done; give the recipe under another `name`.",
        )
    spec = json.loads(row["spec"])
    new = [seed for seed in seeds if seed not in spec["seeds"]]
    spec["seeds"] += new
    done = row["state"] == "done"
    if done:
        spec["added"] = [*spec.get("added", ()), *new]
    connection.execute(
        "UPDATE trials SET spec = ?, state = ?, ended_at = NULL WHERE experiment = ? AND trial = ?",
        (json.dumps(spec), "running" if done else row["state"], name, trial),
    )


def set_state(
    connection: sqlite3.Connection,
    name: str,
    *,
    trial: int,
    state: TrialState,
    reason: str,
    now: float,
    seeds: Sequence[int] | None = None,
) -> None:
    """A trial that is over stays as it is; with ``seeds`` also one that has got others meanwhile."""
    row = connection.execute("SELECT spec FROM trials WHERE experiment = ? AND trial = ?", (name, trial)).fetchone()
    if seeds is not None and row is not None and json.loads(row["spec"])["seeds"] != list(seeds):
        return
    connection.execute(
        "UPDATE trials SET state = ?, reason = ?, ended_at = CASE WHEN ? = 'running' THEN NULL ELSE ? END"
        " WHERE experiment = ? AND trial = ? AND state IN ('waiting', 'running')",
        (state, reason, state, now, name, trial),
    )


@dataclass(frozen=True, kw_only=True)
class StageRow:
    """A stage on record: the exact job, and what it came to."""

    key: StageKey
    attempt: int
    spec: JobSpec
    outcome: dict[str, Any] | None

    @property
    def job_id(self) -> str:
        return self.spec.job_id


def record_stage(
    connection: sqlite3.Connection, name: str, *, key: StageKey, attempt: int, spec: JobSpec, now: float
) -> None:
    """Put the exact job of a stage on record before it is submitted. The first record of an attempt stands."""
    connection.execute(
        "INSERT INTO stages (experiment, trial, rung, seed, kind, attempt, spec, recorded_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (name, key.trial, key.rung, key.seed, key.kind, attempt, json.dumps(spec.to_json()), now),
    )


def set_outcome(connection: sqlite3.Connection, name: str, *, row: StageRow, outcome: Mapping[str, Any]) -> None:
    connection.execute(
        "UPDATE stages SET outcome = ? WHERE experiment = ? AND trial = ? AND rung = ? AND seed = ? AND kind = ?"
        " AND attempt = ? AND outcome IS NULL",
        (
            json.dumps(outcome, allow_nan=False),
            name,
            row.key.trial,
            row.key.rung,
            row.key.seed,
            row.key.kind,
            row.attempt,
        ),
    )


def stages(ledger: Ledger, name: str) -> list[StageRow]:
    """All stages, every attempt, in the order in which they were recorded."""
    with ledger.read() as connection:
        rows = connection.execute(
            "SELECT * FROM stages WHERE experiment = ? ORDER BY recorded_at, rowid", (name,)
        ).fetchall()
    return [
        StageRow(
            key=StageKey(row["trial"], row["rung"], row["seed"], row["kind"]),
            attempt=row["attempt"],
            spec=JobSpec.from_json(json.loads(row["spec"])),
            outcome=json.loads(row["outcome"]) if row["outcome"] else None,
        )
        for row in rows
    ]


def add_confirmation(connection: sqlite3.Connection, name: str, *, trial: int, now: float) -> int:
    """Open the confirm half once more; returns the number of this opening, from 1."""
    (count,) = connection.execute("SELECT COUNT(*) FROM confirmations WHERE experiment = ?", (name,)).fetchone()
    connection.execute(
        "INSERT INTO confirmations (experiment, opening, trial, opened_at) VALUES (?, ?, ?, ?)",
        (name, count + 1, trial, now),
    )
    return int(count) + 1


def set_verdict(connection: sqlite3.Connection, name: str, *, opening: int, verdict: Mapping[str, Any]) -> None:
    connection.execute(
        "UPDATE confirmations SET verdict = ? WHERE experiment = ? AND opening = ? AND verdict IS NULL",
        (json.dumps(verdict, allow_nan=False), name, opening),
    )


def confirmations(ledger: Ledger, name: str) -> list[Confirmation]:
    with ledger.read() as connection:
        rows = connection.execute(
            "SELECT * FROM confirmations WHERE experiment = ? ORDER BY opening", (name,)
        ).fetchall()
    return [
        Confirmation(
            opening=row["opening"],
            trial=row["trial"],
            opened_at=row["opened_at"],
            verdict=json.loads(row["verdict"]) if row["verdict"] else None,
        )
        for row in rows
    ]


def with_stages(trial: Trial, stages: Iterable[Stage]) -> Trial:
    """``trial`` with the latest attempt of each of its stages."""
    latest: dict[StageKey, Stage] = {}
    for stage in stages:
        known = latest.get(stage.key)
        if stage.key.trial == trial.number and (known is None or stage.attempt >= known.attempt):
            latest[stage.key] = stage
    return replace(trial, stages=latest)


def _plan_json(plan: Plan) -> dict[str, Any]:
    fields = dict(vars(plan))
    del fields["opened_at"], fields["ends_at"]
    return fields


def _spec(trial: Trial) -> dict[str, Any]:
    return {
        "recipe": trial.recipe,
        "seeds": list(trial.seeds),
        "rungs": list(trial.rungs),
        "added": list(trial.added),
        "change": dict(trial.change),
        "data": trial.data,
        "measure": dict(trial.measure),
        "place": dict(trial.place),
    }


def _from_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    lists = {name: tuple(spec.get(name, ())) for name in ("seeds", "rungs", "added")}
    return {**spec, **lists}
