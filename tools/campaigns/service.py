"""Experiments: open, run trials, look, confirm. What the server's experiment tools call."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio.to_thread

from mlintern.common.clock import Clock
from mlintern.common.durations import parse_duration
from mlintern.tools.campaigns import halves, store
from mlintern.tools.campaigns.batch import Batch, check_search, expand, most_jobs
from mlintern.tools.campaigns.campaign_results import ExperimentStatus, OpenedExperiment, Remaining
from mlintern.tools.campaigns.confirmation import confirm_keys
from mlintern.tools.campaigns.more_seeds import more_seeds
from mlintern.tools.campaigns.opening import prepare
from mlintern.tools.campaigns.ranking import baseline_trial, best_trial
from mlintern.tools.campaigns.requests import Limits, SearchRequest, TrialRequest
from mlintern.tools.campaigns.runner import ended_stage, read_situation
from mlintern.tools.campaigns.state import Situation, Stage, Trial
from mlintern.tools.campaigns.status import status_of
from mlintern.tools.deadlines import CALL_SECONDS
from mlintern.tools.errors import BadInput, Conflict, NotFound
from mlintern.tools.hub.client import HubClient
from mlintern.tools.jobs import job_rows, money
from mlintern.tools.jobs.detectable import detectable
from mlintern.tools.jobs.hardware import Hardware
from mlintern.tools.jobs.served_models import most_usd, paid_endpoints
from mlintern.tools.jobs.service import JobService
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace

MAX_WAIT_SECONDS = CALL_SECONDS
POLL_SECONDS = 1.0


class CampaignService:
    """One workspace's experiments.

    Args:
        ensure_runner: starts the process that carries an experiment on, unless one is at it.
    """

    def __init__(
        self,
        *,
        workspace: Workspace,
        ledger: Ledger,
        clock: Clock,
        hub: HubClient,
        jobs: JobService,
        ensure_runner: Callable[[str], None],
    ) -> None:
        self._workspace = workspace
        self._ledger = ledger
        self._clock = clock
        self._hub = hub
        self._jobs = jobs
        self._ensure_runner = ensure_runner

    async def open(
        self,
        name: str,
        *,
        model: str,
        evaluation: Mapping[str, Any],
        limits: Limits,
        goal: str = "",
        target: float | None = None,
        metric: str | None = None,
        revision: str | None = None,
        decide_rows: int | None = None,
        confirm_rows: int | None = None,
    ) -> OpenedExperiment:
        """Fix the goal, the protocol and the items of an experiment, and start its clock.

        Raises:
            BadInput: the evaluation cannot be rendered, its items cannot be read or are too few, a limit is wrong.
            Conflict: an experiment of that name was opened already.
        """
        if not name or len(name) > 100:
            raise BadInput("An experiment needs a name of at most 100 characters.", next_step="Give `name`.")
        opening = await prepare(
            self._hub,
            model=model,
            evaluation=evaluation,
            metric=metric,
            decide_rows=decide_rows,
            confirm_rows=confirm_rows,
        )

        def record() -> store.Plan:
            with self._ledger.read() as connection:
                if connection.execute("SELECT 1 FROM campaigns WHERE experiment = ?", (name,)).fetchone():
                    raise Conflict(
                        f"The experiment {name!r} was opened already; its protocol and items stay as they are.",
                        next_step="Go on with run_trials, or open another one under another name.",
                    )
            hashes = opening.write(halves.folder_of(self._workspace, name))
            now = self._clock.now()
            plan = store.Plan(
                model=opening.model,
                revision=revision,
                evaluation=opening.evaluation,
                metric=opening.metric,
                decide_rows=len(opening.decide),
                confirm_rows=len(opening.confirm),
                hashes=hashes,
                fingerprint=halves.experiment_fingerprint(opening.evaluation, hashes),
                usd=limits.usd,
                parallel=limits.parallel,
                opened_at=now,
                ends_at=now + limits.hours * 3600,
            )
            with self._ledger.transaction() as connection:
                store.open_experiment(connection, name, plan, goal=goal, target=target)
            return plan

        plan = await anyio.to_thread.run_sync(record)
        return OpenedExperiment(
            experiment=name,
            fingerprint=plan.fingerprint,
            metric=plan.metric,
            decide_rows=len(opening.decide),
            confirm_rows=len(opening.confirm),
            detectable=detectable(len(opening.decide)),
            remaining=await self.remaining(name),
            next_step="run_trials: the first batch also measures the base model, zero-shot and few-shot.",
        )

    async def plan_batch(
        self,
        name: str,
        trials: Sequence[TrialRequest],
        *,
        rungs: Sequence[float] = (1.0,),
        search: SearchRequest | None = None,
        backend: str = "local",
        hardware: str | None = None,
        timeout: str = "1h",
        measure_timeout: str = "30m",
        end_failing: bool = False,
    ) -> Batch:
        """What a batch would run, with its worst cost. Starts and records nothing; the same request, the same batch.

        Raises:
            NotFound: no experiment of that name was opened.
            BadInput: a trial, a rung, a limit or the search cannot be used.
        """
        plan = await anyio.to_thread.run_sync(store.plan_of, self._ledger, name)
        body: dict[str, Any] = {
            "trials": [trial.model_dump(mode="json") for trial in trials],
            "rungs": [float(rung) for rung in rungs],
            "search": search.model_dump(mode="json") if search else None,
            "timeouts": [timeout, measure_timeout],
            "end_failing": end_failing,
        }
        chosen = await self._jobs.planner.hardware_named(backend, hardware)
        place = {"backend": backend, "hardware": chosen.name, "train": timeout, "measure": measure_timeout}
        existing = [trial for trial, digest in await anyio.to_thread.run_sync(store.trials, self._ledger, name)]
        before, added = await anyio.to_thread.run_sync(lambda: store.same_batch(self._ledger, name, body=body))
        kept = [trial for trial in existing if trial.number not in before]
        more, new = more_seeds(trials, model=plan.model, existing=kept, place=place, added=added)
        if more and any(one.verdict is None for one in store.confirmations(self._ledger, name)):
            raise Conflict(
                "The confirm half is being measured; its trials keep their seeds meanwhile.",
                next_step="Wait with poll_experiment, then add seeds.",
            )
        if more:
            body["added"] = {one.trial.name: list(one.seeds) for one in more}
        folder = halves.folder_of(self._workspace, name)
        found = expand(
            new,
            plan=plan,
            existing=kept,
            rungs=rungs,
            place=place,
            forbidden=[str(folder / halves.DECIDE), str(folder / halves.CONFIRM), str(plan.evaluation["dataset"])],
        )
        if search is not None:
            check_search(search, [*existing, *found])
        most, again = most_jobs(found, search, rungs=rungs), sum(one.jobs for one in more)
        making, measuring = most.making + again, most.measuring + again
        worst = {parse_duration(timeout): making}
        short = parse_duration(measure_timeout)
        worst[short] = worst.get(short, 0) + measuring + most.probing
        rate = chosen.usd_per_hour
        usd = sum(money.worst_of(backend, usd_per_hour=rate, seconds=each, jobs=n) for each, n in worst.items())
        usd += measuring * most_usd(plan.evaluation) + sum(most_usd(trial.data) for trial in found)
        return Batch(
            experiment=name,
            trials=tuple(found),
            more=tuple(more),
            body=body,
            backend=backend,
            hardware=chosen.name,
            jobs=making + measuring + most.probing,
            usd_worst=round(usd, 6),
            seconds_worst=sum(each * jobs for each, jobs in worst.items()),
            note=serially(plan.parallel, chosen),
            served=tuple(dict.fromkeys(paid_endpoints([plan.evaluation, *(trial.data for trial in found)]))),
        )

    async def start(self, batch: Batch) -> bool:
        """Begin what a person agreed to; False if exactly this batch was begun before."""

        def record() -> bool:
            with self._ledger.transaction() as connection:
                new = store.add_batch(
                    connection,
                    batch.experiment,
                    digest=batch.digest,
                    body=batch.body,
                    usd=batch.usd_worst,
                    now=self._clock.now(),
                )
                if new:
                    store.add_trials(
                        connection, batch.experiment, trials=batch.trials, batch=batch.digest, now=self._clock.now()
                    )
                    for one in batch.more:
                        store.add_seeds(connection, batch.experiment, trial=one.trial.number, seeds=one.seeds)
            self._ensure_runner(batch.experiment)
            return new

        return await anyio.to_thread.run_sync(record)

    async def poll(self, name: str, *, wait_seconds: float = 0.0) -> ExperimentStatus:
        """Where the experiment stands; with ``wait_seconds`` (at most 45) as soon as a stage or trial has changed."""
        deadline = self._clock.monotonic() + min(max(0.0, wait_seconds), MAX_WAIT_SECONDS)
        seen: str | None = None
        while True:
            situation = await anyio.to_thread.run_sync(self._situation, name)
            if self._needs_runner(name, situation):
                await anyio.to_thread.run_sync(self._ensure_runner, name)
            now = _mark(situation, store.confirmations(self._ledger, name))
            left = deadline - self._clock.monotonic()
            if left <= 0 or (seen is not None and now != seen) or not self._needs_runner(name, situation):
                return await anyio.to_thread.run_sync(self._status, name, situation)
            seen = now
            await self._clock.sleep(min(left, POLL_SECONDS))

    async def cancel_trial(self, name: str, trial: str, *, reason: str = "Cancelled on request.") -> None:
        """End a trial; its running job is stopped by the runner.

        Raises:
            NotFound: there is no such trial. Conflict: it is over.
        """

        def write() -> None:
            store.plan_of(self._ledger, name)
            known = [one for one, _ in store.trials(self._ledger, name)]
            found = next((one for one in known if one.name == trial), None)
            if found is None:
                raise NotFound(f"There is no trial {trial!r}.", next_step="poll_experiment lists them.")
            if found.over:
                raise Conflict(f"The trial {trial!r} is over: {found.state}.", next_step="Nothing is to be done.")
            with self._ledger.transaction() as connection:
                store.set_state(
                    connection, name, trial=found.number, state="cancelled", reason=reason, now=self._clock.now()
                )

        await anyio.to_thread.run_sync(write)

    async def plan_confirmation(self, name: str) -> tuple[Trial, str, float, float]:
        """The trial that would be confirmed, the digest of the opening, its worst cost and seconds.

        Raises:
            Conflict: trials still run, nothing was measured, or an opening is under way.
        """

        def read() -> tuple[Trial, str, int, dict[str, str]]:
            situation = self._situation(name)
            waiting = [trial.name for trial in situation.trials if not trial.over]
            if waiting:
                raise Conflict(
                    f"{len(waiting)} trial(s) are not over: {', '.join(waiting[:5])}.",
                    next_step="Wait with poll_experiment: the confirm half is opened once the choice is made.",
                )
            best = best_trial(situation.trials)
            if best is None or baseline_trial(situation.trials) is None:
                raise Conflict("There is no measured trial and baseline to confirm.", next_step="run_trials first.")
            openings = store.confirmations(self._ledger, name)
            under_way = bool(openings) and openings[-1].verdict is None
            opening = len(openings) + (0 if under_way else 1)
            probe = store.Confirmation(opening=opening, trial=best.number, opened_at=0.0, verdict=None)
            return (
                best,
                f"{name}/{best.number}/{opening}",
                len(confirm_keys(situation.trials, probe)),
                dict(best.place),
            )

        best, identity, jobs, place = await anyio.to_thread.run_sync(read)
        hardware = await self._jobs.planner.hardware_named(place["backend"], place.get("hardware"))
        seconds = parse_duration(place["measure"])
        usd = money.worst_of(place["backend"], usd_per_hour=hardware.usd_per_hour, seconds=seconds, jobs=jobs)
        plan = await anyio.to_thread.run_sync(store.plan_of, self._ledger, name)
        usd = round(usd + jobs * most_usd(plan.evaluation), 6)
        digest = hashlib.sha256(f"confirm/{identity}/{hardware.usd_per_hour}".encode()).hexdigest()[:32]
        return best, digest, usd, jobs * seconds

    async def open_confirm_half(self, name: str, trial: Trial) -> int:
        """Open the confirm half for ``trial``; the opening under way if there is one. Returns its number."""

        def write() -> int:
            openings = store.confirmations(self._ledger, name)
            if openings and openings[-1].verdict is None:
                return openings[-1].opening
            with self._ledger.transaction() as connection:
                opening = store.add_confirmation(connection, name, trial=trial.number, now=self._clock.now())
            return opening

        opening = await anyio.to_thread.run_sync(write)
        await anyio.to_thread.run_sync(self._ensure_runner, name)
        return opening

    async def remaining(self, name: str) -> Remaining:
        """What the experiment has left.

        Raises:
            NotFound: none of that name was opened.
        """
        return await anyio.to_thread.run_sync(self._remaining, name)

    def opened(self) -> list[str]:
        """The names of all opened experiments."""
        return store.opened(self._ledger)

    def resume_all(self) -> None:
        """Have a runner at every experiment that is not over: for a server that starts."""
        for name in self.opened():
            if self._needs_runner(name, self._situation(name)):
                self._ensure_runner(name)

    def _remaining(self, name: str) -> Remaining:
        plan = store.plan_of(self._ledger, name)
        trials = [trial for trial, _ in store.trials(self._ledger, name)]
        with self._ledger.read() as connection:
            committed = money.committed(connection, experiment=name)
        return Remaining(
            hours=round(max(0.0, plan.ends_at - self._clock.now()) / 3600, 3),
            usd=None if plan.usd is None else round(max(0.0, plan.usd - committed), 2),
            trials_running=sum(trial.state == "running" for trial in trials),
            trials_waiting=sum(trial.state == "waiting" for trial in trials),
            confirmed=any(one.verdict is not None for one in store.confirmations(self._ledger, name)),
        )

    def _situation(self, name: str) -> Situation:
        """As the ledger has it; jobs that the runner has not seen end yet are as the jobs table has them."""
        stages = []
        with self._ledger.read() as connection:
            for row in store.stages(self._ledger, name):
                if row.outcome is not None:
                    stages.append(ended_stage(row))
                    continue
                state = "intended"
                with contextlib.suppress(NotFound):
                    state = "queued" if job_rows.get(connection, row.job_id).state == "queued" else "running"
                stages.append(Stage(key=row.key, attempt=row.attempt, job_id=row.job_id, state=state))
        return read_situation(self._ledger, name, stages=stages, now=self._clock.now())

    def _needs_runner(self, name: str, situation: Situation) -> bool:
        if any(one.verdict is None for one in store.confirmations(self._ledger, name)):
            return True
        return bool(situation.active) or any(not trial.over for trial in situation.trials)

    def _status(self, name: str, situation: Situation) -> ExperimentStatus:
        return status_of(
            name,
            situation,
            ledger=self._ledger,
            remaining=self._remaining(name),
            folder=halves.folder_of(self._workspace, name),
            going=self._needs_runner(name, situation),
        )


def _mark(situation: Situation, confirmations: Sequence[store.Confirmation]) -> str:
    stages = sorted(
        (key, stage.attempt, stage.active) for trial in situation.trials for key, stage in trial.stages.items()
    )
    openings = [(one.opening, one.verdict is None) for one in confirmations]
    return repr(([(trial.number, trial.state) for trial in situation.trials], stages, openings))


def serially(parallel: int, hardware: Hardware) -> str:
    """What to know where fewer jobs run at once than the experiment allows; empty where as many do."""
    if hardware.slots is None or hardware.slots >= parallel:
        return ""
    return (
        f"The experiment allows {parallel} jobs at once and {hardware.name} runs {hardware.slots}: the others queue. "
        "The server's --slots, or `slots` of [local] in config.toml, sets how many."
    )
