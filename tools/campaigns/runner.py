"""Carries an experiment on: reads where it stands, decides, acts, waits. Everything it knows is in the ledger.

Any number of runners may exist; one at a time holds the experiment's lock. A runner can be killed at any moment: a
stage's exact job is on record before it is submitted, and the same job submitted again is the same job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any, Protocol

import anyio.to_thread

from mlintern.common.clock import Clock
from mlintern.tools.campaigns import search, store
from mlintern.tools.campaigns.confirmation import confirm_keys, confirm_verdict
from mlintern.tools.campaigns.ranking import best_trial, score_of
from mlintern.tools.campaigns.requests import SearchRequest, change_name, changed
from mlintern.tools.campaigns.sizing import MARGIN
from mlintern.tools.campaigns.state import Pace, Situation, Stage, StageKey, Trial
from mlintern.tools.campaigns.steps import End, Start, Step, Stop, next_steps
from mlintern.tools.errors import Conflict, MlinternError, NotFound, Offline, OutOfBudget
from mlintern.tools.jobs.spec import FINAL, JobSpec
from mlintern.tools.ledger import Ledger

LOOK_SECONDS = 2.0
"""How often the jobs of an experiment are looked at while nothing else happens."""
PATIENCE = 5
"""Submissions in a row that may fail with the same backend before a trial is given up."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """A job as it is now.

    Attributes:
        model: where a trained model, or dataset that was generated, lies.
        scores: of an evaluation: each item's score, larger is better; None for any other job.
        value: the metric of the evaluation itself.
        row: the evaluation row that the value comes from.
        model_sha256: of the weights that were measured.
        pace: of a training or a probe: the fields of `state.Pace`.
    """

    state: str
    seconds: float | None = None
    error: str = ""
    failing: str = ""
    model: str | None = None
    scores: Mapping[str, float] | None = None
    value: float | None = None
    row: dict[str, Any] | None = None
    model_sha256: str | None = None
    pace: Mapping[str, float] | None = None


class Work(Protocol):
    """What a runner needs of the rest: jobs from recipes, and what they came to."""

    async def plan(
        self, experiment: str, trial: Trial, key: StageKey, *, attempt: int, inputs: Mapping[str, str]
    ) -> JobSpec:
        """The exact job of a stage. ``inputs``: ``model`` and ``dataset`` that stages before it have made."""
        ...

    async def submit(self, spec: JobSpec) -> None:
        """Start it; the same spec again is the same job."""
        ...

    async def look(self, spec: JobSpec, kind: str) -> Look:
        """What it is doing; with everything that is kept of it once it is over."""
        ...

    async def stop(self, job_id: str, *, reason: str) -> None:
        """Ask for its end; harmless if it is over."""
        ...

    async def keep_best(self, experiment: str, trial: Trial, model: str) -> None:
        """Keep a copy of the best model so far; called only when it has changed."""
        ...


class Runner:
    """One experiment, from where the ledger has it to its end."""

    def __init__(self, *, experiment: str, ledger: Ledger, clock: Clock, work: Work) -> None:
        self.experiment = experiment
        self._ledger = ledger
        self._clock = clock
        self._work = work
        self._kept: tuple[int, int] | None = None
        self._refusals: dict[StageKey, int] = {}

    async def run(self) -> None:
        """Work until nothing is left to do."""
        while await self.step():
            await self._clock.sleep(LOOK_SECONDS)

    async def step(self) -> bool:
        """Look, decide and act once. False when the experiment has nothing left to do."""
        situation = await self.look()
        situation = await self._search_further(situation)
        steps = next_steps(situation) + self._confirmation_steps(situation)
        for step in steps:
            await self._carry_out(step, situation)
        await self._settle_confirmations(situation)
        await self._keep_best(situation)
        return bool(steps) or self._unfinished(situation)

    async def look(self) -> Situation:
        """The experiment now: every active job is asked after, and what has ended is put on record."""
        rows = await anyio.to_thread.run_sync(store.stages, self._ledger, self.experiment)
        stages = [await self._stage(row) for row in rows]
        return await anyio.to_thread.run_sync(
            lambda: read_situation(self._ledger, self.experiment, stages=stages, now=self._clock.now())
        )

    async def _stage(self, row: store.StageRow) -> Stage:
        if row.outcome is not None:
            return ended_stage(row)
        try:
            look = await self._work.look(row.spec, row.key.kind)
        except NotFound:
            return Stage(key=row.key, attempt=row.attempt, job_id=row.job_id, state="intended")
        except MlinternError:  # the backend does not answer now; the job is as it was
            return Stage(key=row.key, attempt=row.attempt, job_id=row.job_id, state="queued")
        if look.state not in FINAL:
            return Stage(key=row.key, attempt=row.attempt, job_id=row.job_id, state=look.state, failing=look.failing)
        outcome = {name: value for name, value in vars(look).items() if name != "failing" and value not in (None, "")}
        outcome["at"] = self._clock.now()
        await self._keep_outcome(row, outcome)
        return ended_stage(replace(row, outcome=outcome))

    async def _keep_outcome(self, row: store.StageRow, outcome: Mapping[str, Any]) -> None:
        def keep() -> None:
            with self._ledger.transaction() as connection:
                store.set_outcome(connection, self.experiment, row=row, outcome=outcome)

        await anyio.to_thread.run_sync(keep)

    async def _carry_out(self, step: Step, situation: Situation) -> None:
        match step:
            case Stop(job_id, reason):
                await self._stop(job_id, reason)
            case End(number, state, reason):
                trial = next(trial for trial in situation.trials if trial.number == number)
                await self._set_state(number, state, reason, seeds=trial.seeds if state == "done" else None)
            case Start(key, attempt):
                await self._start(key, attempt, situation)

    async def _stop(self, job_id: str, reason: str) -> None:
        try:
            await self._work.stop(job_id, reason=reason)
        except (Conflict, Offline):  # it ended meanwhile, or the next look asks again
            return
        except NotFound:  # it was on record and never submitted
            rows = await anyio.to_thread.run_sync(store.stages, self._ledger, self.experiment)
            for row in rows:
                if row.job_id == job_id and row.outcome is None:
                    await self._keep_outcome(row, {"state": "cancelled", "error": reason, "at": self._clock.now()})

    async def _set_state(self, number: int, state: Any, reason: str, *, seeds: tuple[int, ...] | None = None) -> None:
        def write() -> None:
            with self._ledger.transaction() as connection:
                store.set_state(
                    connection,
                    self.experiment,
                    trial=number,
                    state=state,
                    reason=reason,
                    now=self._clock.now(),
                    seeds=seeds,
                )

        await anyio.to_thread.run_sync(write)

    async def _start(self, key: StageKey, attempt: int, situation: Situation) -> None:
        trial = next(trial for trial in situation.trials if trial.number == key.trial)
        try:
            spec = await self._recorded(trial, key, attempt)
            await self._work.submit(spec)
        except Offline:
            return  # on record: the next look finds out
        except OutOfBudget as error:
            await self._set_state(key.trial, "ended" if trial.best_rung is not None else "refused", str(error))
            return
        except MlinternError as error:
            self._refusals[key] = self._refusals.get(key, 0) + 1
            if self._refusals[key] >= PATIENCE or not isinstance(error, Conflict):
                await self._set_state(key.trial, "failed", f"{key.kind} of rung {key.rung} was refused: {error}")
            return
        self._refusals.pop(key, None)
        if trial.state == "waiting":
            await self._set_state(key.trial, "running", "")

    async def _recorded(self, trial: Trial, key: StageKey, attempt: int) -> JobSpec:
        """The job of a stage: the one on record, else the one that is planned and recorded now."""
        spec = await self._work.plan(
            self.experiment, trial, key, attempt=attempt, inputs=await self._inputs(trial, key)
        )

        def record() -> JobSpec:
            with self._ledger.transaction() as connection:
                store.record_stage(
                    connection, self.experiment, key=key, attempt=attempt, spec=spec, now=self._clock.now()
                )
            rows = store.stages(self._ledger, self.experiment)
            return next(row.spec for row in rows if row.key == key and row.attempt == attempt)

        return await anyio.to_thread.run_sync(record)

    async def _inputs(self, trial: Trial, key: StageKey) -> dict[str, str]:
        rows = await anyio.to_thread.run_sync(store.stages, self._ledger, self.experiment)
        made = {row.key: row.outcome["model"] for row in rows if row.outcome and row.outcome.get("model")}
        inputs = {}
        if key.kind in ("train", "probe") and trial.data is not None:
            inputs["dataset"] = made[StageKey(trial.number, 0, trial.seeds[0], "generate")]
        if key.kind in ("measure", "confirm") and not trial.baseline:
            rung = key.rung if key.kind == "measure" else trial.best_rung or 0
            inputs["model"] = made[StageKey(trial.number, rung, key.seed, "train")]
        return inputs

    async def _search_further(self, situation: Situation) -> Situation:
        """Let each agreed search add trials while slots are free."""
        if situation.stopped or situation.seconds_left <= 0 or len(situation.active) >= situation.parallel:
            return situation
        before = len(situation.trials)
        for batch in await anyio.to_thread.run_sync(store.batches, self._ledger, self.experiment):
            if batch["body"].get("search"):
                await anyio.to_thread.run_sync(self._extend, batch, situation)
        rows = await anyio.to_thread.run_sync(store.trials, self._ledger, self.experiment)
        return await self.look() if len(rows) > before else situation

    def _extend(self, batch: Mapping[str, Any], situation: Situation) -> None:
        request = SearchRequest.model_validate(batch["body"]["search"])
        known = store.trials(self._ledger, self.experiment)
        base = next((trial for trial, _ in known if trial.name == request.base), None)
        if base is None or base.recipe is None:
            return
        members = {
            trial.number for trial, digest in known if digest == batch["digest"] and trial.number != base.number
        }
        own = [trial for trial in situation.trials if trial.number in members and trial.change]
        tried = [search.Tried(trial.change, score_of(trial), trial.over) for trial in own]
        waiting = sum(trial.state == "waiting" for trial in situation.trials)
        wanted = max(0, situation.parallel - len(situation.active) - waiting)
        number = max((trial.number for trial, _ in known), default=0)
        found = []
        for change in search.next_changes(request, tried, count=wanted):
            number += 1
            found.append(
                Trial(
                    number=number,
                    name=f"{request.base}: {change_name(change)}"[:120],
                    state="waiting",
                    recipe=changed(base.recipe, change),
                    parent=base.number,
                    change=change,
                    seeds=tuple(request.seeds),
                    rungs=tuple(batch["body"].get("rungs", (1.0,))),
                    data=base.data,
                    place=base.place,
                )
            )
        if found:
            with self._ledger.transaction() as connection:
                store.add_trials(
                    connection, self.experiment, trials=found, batch=batch["digest"], now=self._clock.now()
                )

    def _confirmation_steps(self, situation: Situation) -> list[Step]:
        """The measurements of an opened confirm half, before anything else and beyond any rung."""
        steps: list[Step] = []
        free = max(1, situation.parallel) - len(situation.active)
        for confirmation in store.confirmations(self._ledger, self.experiment):
            if confirmation.verdict is not None:
                continue
            for key in confirm_keys(situation.trials, confirmation):
                trial = next(trial for trial in situation.trials if trial.number == key.trial)
                stage = trial.stages.get(key)
                attempt = 1 if stage is None else stage.attempt + 1
                if free > 0 and (stage is None or (stage.state == "lost" and attempt <= 2)):
                    steps.append(Start(key, attempt))
                    free -= 1
        return steps

    async def _settle_confirmations(self, situation: Situation) -> None:
        for confirmation in store.confirmations(self._ledger, self.experiment):
            if confirmation.verdict is not None:
                continue
            verdict = confirm_verdict(situation.trials, confirmation)
            if verdict is None:
                continue

            def write(opening: int = confirmation.opening, found: dict[str, Any] = verdict) -> None:
                with self._ledger.transaction() as connection:
                    store.set_verdict(connection, self.experiment, opening=opening, verdict=found)

            await anyio.to_thread.run_sync(write)

    async def _keep_best(self, situation: Situation) -> None:
        best = best_trial(situation.trials)
        if best is None or best.best_rung is None or (best.number, best.best_rung) == self._kept:
            return
        rows = await anyio.to_thread.run_sync(store.stages, self._ledger, self.experiment)
        made = {row.key: row.outcome["model"] for row in rows if row.outcome and row.outcome.get("model")}
        by_seed = {seed: fmean(scores.values()) for seed, scores in best.scores(best.best_rung).items()}
        seed = max(by_seed, key=lambda one: by_seed[one])
        model = made.get(StageKey(best.number, best.best_rung, seed, "train"))
        if model is not None:
            await self._work.keep_best(self.experiment, best, model)
            self._kept = (best.number, best.best_rung)

    def _unfinished(self, situation: Situation) -> bool:
        open_half = any(one.verdict is None for one in store.confirmations(self._ledger, self.experiment))
        return bool(situation.active) or open_half or any(not trial.over for trial in situation.trials)


def ended_stage(row: store.StageRow) -> Stage:
    """The stage of a job that is over, as its outcome has it."""
    outcome = row.outcome or {}
    return Stage(
        key=row.key,
        attempt=row.attempt,
        job_id=row.job_id,
        state=outcome["state"],
        seconds=outcome.get("seconds"),
        scores=outcome.get("scores"),
        value=outcome.get("value"),
        error=outcome.get("error", ""),
        pace=Pace(**outcome["pace"]) if outcome.get("pace") else None,
    )


def read_situation(ledger: Ledger, experiment: str, *, stages: Sequence[Stage], now: float) -> Situation:
    """The experiment as the ledger has it, with these stages."""
    plan = store.plan_of(ledger, experiment)
    trials = tuple(store.with_stages(trial, stages) for trial, _ in store.trials(ledger, experiment))
    agreed = store.batches(ledger, experiment)
    measured = [
        stage.seconds for stage in stages if stage.key.kind == "measure" and stage.succeeded and stage.seconds
    ]
    confirmed = bool(store.confirmations(ledger, experiment))
    most_seeds = max((len(trial.seeds) for trial in trials), default=1)
    rounds = -(-(1 + most_seeds) // plan.parallel)
    return Situation(
        trials=trials,
        now=now,
        ends_at=plan.ends_at,
        parallel=plan.parallel,
        end_failing=any(batch["body"].get("end_failing") for batch in agreed),
        stopped=store.stopped(ledger, experiment),
        keep_free=0.0 if confirmed or not measured else median(measured) * MARGIN * rounds,
    )
