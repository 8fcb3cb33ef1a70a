"""Jobs: submit, follow, read, cancel, on whatever backend. What the server's job tools call."""

from __future__ import annotations

import builtins
import contextlib
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.to_thread

from mlintern.common.clock import Clock
from mlintern.common.text import did_you_mean
from mlintern.tools.deadlines import CALL_SECONDS
from mlintern.tools.errors import BackendError, BadInput, Conflict, NotFound, Offline
from mlintern.tools.jobs import cancellation, hardware, job_rows, job_views, logs, money
from mlintern.tools.jobs import estimate as estimates
from mlintern.tools.jobs.backend import Backend
from mlintern.tools.jobs.finishing import finish
from mlintern.tools.jobs.gated import GatedRepos
from mlintern.tools.jobs.job_results import HardwareList, JobPage, JobStatus, LogPage, Reconciled, SubmitResult
from mlintern.tools.jobs.job_rows import JobRecord
from mlintern.tools.jobs.passed_secrets import PassedSecrets
from mlintern.tools.jobs.planning import Planner, secret_value
from mlintern.tools.jobs.seen import Seen
from mlintern.tools.jobs.spec import STATES, JobSpec
from mlintern.tools.jobs.submission import Scripts, Submitter
from mlintern.tools.jobs.telemetry import evaluation_rows
from mlintern.tools.jobs.watch import CollectEvaluations, Diagnose, Watcher
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace

MAX_WAIT_SECONDS = CALL_SECONDS
"""The longest that one poll waits."""
CANCEL_SECONDS = 5.0
LIST_SECONDS = 8.0
"""How long a list waits for the backends of what is not over."""
AT_ONCE = 8
"""Jobs that are asked about at the same time."""
DEFAULT_TAIL = 100


class JobService:
    """One workspace's jobs, from plan to result. Any number of servers may run one on the same workspace.

    Args:
        collect_evaluations: reads and keeps what a finished job measured (`EvalService.collect`).
        diagnose: looks for trouble in training curves (`mlintern.tools.health.diagnose.diagnose_run`).
        budget_usd: what all jobs of the workspace together may cost; None for no limit.

        environ: where the values of a job's named secrets come from; this process's own if None.

    The others are those of `Planner`. ``planner`` describes jobs and machines and starts nothing.
    """

    def __init__(
        self,
        *,
        workspace: Workspace,
        ledger: Ledger,
        clock: Clock,
        scripts: Scripts,
        backends: Mapping[str, Backend],
        collect_evaluations: CollectEvaluations | None = None,
        diagnose: Diagnose | None = None,
        model_shape: estimates.FindModelShape | None = None,
        budget_usd: float | None = None,
        environ: Mapping[str, str] | None = None,
        gated: GatedRepos | None = None,
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._backends = dict(backends)
        self.planner = Planner(
            scripts=scripts,
            backends=self._backends,
            environ=self._environ,
            model_shape=model_shape,
            ledger=ledger,
            gated=gated,
        )
        self._scripts = scripts
        self._workspace = workspace
        self._ledger = ledger
        self._clock = clock
        self._submitter = Submitter(
            workspace=workspace,
            ledger=ledger,
            clock=clock,
            scripts=scripts,
            backends=self._backends,
            secret_value=lambda name: secret_value(name, self._environ),
            budget_usd=budget_usd,
        )
        self.known_secrets = PassedSecrets(
            ledger=ledger, environ=self._environ, value_of=lambda name: secret_value(name, self._environ)
        )
        self._watcher = Watcher(
            workspace=workspace,
            ledger=ledger,
            clock=clock,
            backends=self._backends,
            submitter=self._submitter,
            collect_evaluations=collect_evaluations,
            diagnose=diagnose,
            known_secrets=self.known_secrets,
        )

    # A job

    async def submit(self, spec: JobSpec) -> SubmitResult:
        """Start the job of ``spec``; the caller has seen to consent. The same spec again is the same job.

        Raises:
            OutOfBudget: it would pass the budget of the workspace or the experiment.
            BackendError, WorkspaceError, BadInput: it could not be started; nothing is left behind.
        """
        self.planner.backend(spec.backend)
        script = await anyio.to_thread.run_sync(self._scripts.get, spec.script_id)
        foreseen = self.planner.warnings(script, spec.backend, secrets=spec.secrets)
        created = await anyio.to_thread.run_sync(self._submitter.record_intent, spec)
        note = ""
        try:
            await self._submitter.act(spec.job_id, answer_to_caller=True)
            record = await anyio.to_thread.run_sync(self._watcher.load, spec.job_id)
        except Offline as error:
            note = f"No answer came ({error}); whether it was started will be found out, it is not started twice."
            record = await anyio.to_thread.run_sync(self._watcher.load, spec.job_id)
        except NotFound as error:
            raise BackendError(
                "Another server submitted the same job at the same moment and was refused.",
                next_step="Submit it again to see the reason.",
            ) from error
        return SubmitResult(
            status="submitted" if created else "already_submitted",
            job_id=spec.job_id,
            digest=spec.digest,
            state=record.state,
            usd_worst=spec.usd_worst,
            note=" ".join([note or job_views.note_after_submit(record, created=created), *foreseen]),
        )

    async def poll(
        self, job_id: str, *, wait_seconds: float = 0.0, since: str | None = None, only_new: bool = False
    ) -> JobStatus:
        """The job now; with ``wait_seconds`` (at most 45) as soon as its state changes or a finding appears.

        Args:
            since: ``next_since`` of an earlier answer: what changed after that one is new. None: what changes from
                now on.
            only_new: leave findings, runs and log lines out that were there at ``since``.

        Raises:
            NotFound: there is no such job.
            BadInput: ``since`` is none that this method gave.
        """
        before = Seen.parse(since) if since else None
        deadline = self._clock.monotonic() + min(max(0.0, wait_seconds), MAX_WAIT_SECONDS)
        while True:
            record = await self._watcher.refresh(job_id)
            news = frozenset() if record.over else self._watcher.live(job_id).news
            before = before or Seen(record.state, news)
            left = deadline - self._clock.monotonic()
            if record.over or record.state != before.state or before.lacks(news) or left <= 0:
                status = await anyio.to_thread.run_sync(self._status, record)
                log = await anyio.to_thread.run_sync(self._watcher.log_bytes, job_id)
                status.next_since = str(Seen(record.state, news, log))
                return job_views.only_new(status, before) if since and only_new else status
            await self._clock.sleep(min(left, self._poll_seconds(record)))

    async def finish(self, job_id: str) -> JobStatus:
        """Ask a training to end after its present step and to save its model, as if it had come to its end.

        Raises:
            Conflict: it does not run.
            BadInput: its script does not look for that, or its backend cannot tell it.
        """
        record = await self._watcher.refresh(job_id)
        script = await anyio.to_thread.run_sync(self._scripts.get, record.spec.script_id)
        await finish(record, self.planner.backend(record.spec.backend), script=script.text)
        return await anyio.to_thread.run_sync(self._status, await self._watcher.refresh(job_id))

    async def cancel(self, job_id: str, *, reason: str = "") -> JobStatus:
        """End a job and its whole tree of processes.

        Raises:
            Conflict: it is over, or its submission is not confirmed yet.
        """
        record = await self._watcher.refresh(job_id)
        if record.over:
            raise Conflict(f"The job {job_id} is over: {record.state}.", next_step="poll_job shows how it ended.")
        why = reason or "Cancelled on request."
        handle = record.handle
        if handle is None and not await self._submitter.forget_unsent(job_id, error=why):
            # It may run although that could not be written down: a job that fills the disk must be stoppable.
            handle = await self._submitter.find_unconfirmed(record)
            if handle is None:
                raise Conflict(
                    f"The submission of {job_id} is not confirmed yet.", next_step="Try again in half a minute."
                )
        if handle is not None:
            await self.planner.backend(record.spec.backend).cancel(handle, reason=why)
            folder, now = self._workspace.job(job_id), self._clock.now()
            with contextlib.suppress(OSError):  # a full disk: the backend was asked all the same
                await anyio.to_thread.run_sync(lambda: cancellation.remember(folder, reason=why, now=now))
        deadline = self._clock.monotonic() + CANCEL_SECONDS
        record = await self._watcher.refresh(job_id)
        while not record.over and self._clock.monotonic() < deadline:
            await self._clock.sleep(min(0.25, self._poll_seconds(record)))
            record = await self._watcher.refresh(job_id)
        return await anyio.to_thread.run_sync(self._status, record)

    async def read_logs(
        self,
        job_id: str,
        *,
        tail: int | None = None,
        offset: int | None = None,
        grep: str | None = None,
        max_chars: int = 20_000,
    ) -> LogPage:
        """The end of a job's log, a page from ``offset`` bytes on, or the lines that match ``grep``."""
        if tail is not None and offset is not None:
            raise BadInput("tail and offset exclude each other.", next_step="Give one of them.")
        if max_chars < 1 or (tail is not None and tail < 1) or (offset is not None and offset < 0):
            raise BadInput("max_chars and tail must be at least 1, offset at least 0.", next_step="Correct them.")
        record = await self._watcher.refresh(job_id)
        path = self._workspace.job(job_id) / "log.txt"
        known = self.known_secrets()

        def read() -> logs.Slice:
            if grep:
                limit = tail or DEFAULT_TAIL
                return logs.search(path, pattern=grep, limit=limit, max_chars=max_chars, offset=offset, known=known)
            if offset is not None:
                return logs.read_page(path, offset=offset, max_chars=max_chars, known=known)
            return logs.read_tail(path, lines=tail or DEFAULT_TAIL, max_chars=max_chars, known=known)

        found = await anyio.to_thread.run_sync(read)
        page = LogPage(job_id=job_id, **vars(found))
        if record.spec.schedule is not None:
            page.note = "A schedule prints nothing; poll_job names its runs, and each has a log."
        elif not path.exists():
            page.note = "The log is gone." if record.over else "The job has not printed anything yet."
        if not grep and not offset and (measured := job_views.measured(self._evaluations(record))):
            page.note = f"{page.note} Measured: {measured}. read_eval reads all of it.".lstrip()
        return page

    # All jobs

    async def list(
        self,
        *,
        status: str | None = None,
        experiment: str | None = None,
        backend: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> JobPage:
        """Jobs, newest first, those that are not over asked about just now. ``status`` is a state, or ``active``."""
        allowed = (*STATES, "active")
        if status is not None and status not in allowed:
            raise BadInput(f"There is no status {status!r}.", next_step=did_you_mean(status, allowed))
        unasked = await self.bring_up_to_date(experiment=experiment, backend=backend)

        def read() -> JobPage:
            now = self._clock.now()
            with self._ledger.read() as connection:
                found, total, following = job_rows.page(
                    connection, status=status, experiment=experiment, backend=backend, limit=limit, cursor=cursor
                )
                items = [
                    job_views.row(
                        record,
                        None if record.over else self._watcher.live(record.job_id),
                        usd=money.charged_with_runs(connection, record.job_id),
                        now=now,
                    )
                    for record in found
                ]
            asked_in_vain = [
                f"{record.job_id}: {unasked[record.job_id]}" for record in found if record.job_id in unasked
            ]
            note = f"Not up to date: {'; '.join(asked_in_vain)}" if asked_in_vain else ""
            return JobPage(items=items, total=total, next_cursor=following, note=note)

        return await anyio.to_thread.run_sync(read)

    async def bring_up_to_date(
        self, *, experiment: str | None = None, backend: str | None = None, seconds: float = LIST_SECONDS
    ) -> dict[str, str]:
        """Ask about every job that is not over, for ``seconds`` at most. Returns why, of each that did not answer."""
        waiting = [
            record.job_id
            for record in await anyio.to_thread.run_sync(self._active)
            if experiment in (None, record.spec.experiment) and backend in (None, record.spec.backend)
        ]
        unasked = dict.fromkeys(waiting, f"no answer within {seconds:.0f} s.")
        limiter = anyio.CapacityLimiter(AT_ONCE)

        async def ask(job_id: str) -> None:
            async with limiter:
                record = await self._watcher.refresh(job_id)
            problem = "" if record.over else self._watcher.live(job_id).problem
            if problem:
                unasked[job_id] = problem
            else:
                del unasked[job_id]

        with anyio.move_on_after(seconds):
            async with anyio.create_task_group() as group:
                for job_id in waiting:
                    group.start_soon(ask, job_id)
        return unasked

    async def hardware(self, backend: str | None = None) -> HardwareList:
        """As `Planner.hardware`, with the places that are free now, what can be had at once and for nothing first.

        Without ``backend`` those that rent machines by the hour are told in a line each.
        """
        listing = await self.planner.hardware(backend)

        def running() -> Counter[tuple[str, str]]:
            found = [record for record in self._active() if record.state == "running"]
            return Counter((record.spec.backend, record.spec.hardware) for record in found)

        busy = await anyio.to_thread.run_sync(running)
        items = [hardware.with_free(item, busy=busy[item.backend, item.name]) for item in listing.items]
        notes = [listing.note] if listing.note else []
        if backend is None:
            items, rented = hardware.own_and_rented(items)
            notes += rented
        return listing.model_copy(update={"items": sorted(items, key=hardware.order), "note": " ".join(notes)})

    async def reconcile(self) -> Reconciled:
        """Pick up every job that is not over: submit what was only intended, record what has ended meanwhile."""
        result = Reconciled(checked=0, submitted=0, finished=0, lost=0)
        limiter = anyio.CapacityLimiter(AT_ONCE)

        async def check(before: JobRecord) -> None:
            async with limiter:
                after = await self._watcher.refresh(before.job_id)
            result.checked += 1
            result.submitted += before.handle is None and after.handle is not None
            result.finished += after.over
            result.lost += after.state == "lost"
            if not after.over and (problem := self._watcher.live(after.job_id).problem):
                result.problems.append(f"{after.job_id}: {problem}")

        unfinished = await anyio.to_thread.run_sync(self._active)
        async with anyio.create_task_group() as group:
            for record in unfinished:
                group.start_soon(check, record)
        return result

    def named(self, text: str) -> str:
        """The id of the job that a person means by its id, the beginning of its id, or its run name.

        Raises:
            NotFound: there is none; the message names the nearest.
            Conflict: several begin so.
        """
        with self._ledger.read() as connection:
            return job_rows.named(connection, text)

    def _active(self) -> builtins.list[JobRecord]:
        with self._ledger.read() as connection:
            return job_rows.active(connection)

    # Small things

    def _evaluations(self, record: JobRecord) -> builtins.list[dict[str, Any]]:
        """What the job has measured so far, a row a metric."""
        if record.over:
            return builtins.list((record.summary or {}).get("evaluations") or ())
        return [
            row for each in self._watcher.live(record.job_id).telemetry.evaluations for row in evaluation_rows(each)
        ]

    def _poll_seconds(self, record: JobRecord) -> float:
        backend = self._backends.get(record.spec.backend)
        return backend.capabilities.poll_seconds if backend else 5.0

    def _status(self, record: JobRecord) -> JobStatus:
        now = self._clock.now()
        if record.spec.schedule is not None:
            return self._schedule_status(record, now=now)
        if record.over:
            return job_views.finished(record, now=now)
        live = self._watcher.live(record.job_id)
        return job_views.unfinished(record, live, now=now, log_tail=self._watcher.tail(record.job_id))

    def _schedule_status(self, record: JobRecord, *, now: float) -> JobStatus:
        with self._ledger.read() as connection:
            runs = job_rows.runs_of(connection, record.job_id)
            usd = money.charged_with_runs(connection, record.job_id)
        live = None if record.over else self._watcher.live(record.job_id)
        return job_views.schedule(record, runs, detail=live.detail if live else "", usd=usd, now=now)
