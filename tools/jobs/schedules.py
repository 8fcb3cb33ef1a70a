"""Following a schedule: the runs that the backend has started become jobs, until all it was allowed have.

A schedule is a job that starts jobs. It is ``queued`` until its first run, ``running`` from then on, and over when
the backend has it no more and no run of it goes on. It prints and measures nothing; each run does, and each run is
charged for what it used, from what was reserved for all of them together.

What ends it: that it has started all its runs, or its last moment has passed; that somebody cancelled it or deleted
it at the backend. Should it start more than was agreed to, the runs too many are ended as well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import anyio.to_thread

from mlintern.common.clock import Clock, iso
from mlintern.tools.jobs import cancellation, cron, job_rows, money
from mlintern.tools.jobs.backend import BackendStatus, SchedulingBackend, StartedRun
from mlintern.tools.jobs.disk import named_disk_errors
from mlintern.tools.jobs.job_rows import JobRecord
from mlintern.tools.jobs.spec import FINAL, JobHandle, JobState, RunOf
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace

DONE = "done"
_LONGEST_NAME = 80
_TOO_MANY = "Its schedule has started more runs than were agreed to."


class Schedules:
    """The schedules of one workspace. Any number of servers may follow the same one.

    Args:
        refresh: brings the record of one run up to date (`Watcher.refresh`).
    """

    def __init__(
        self,
        *,
        workspace: Workspace,
        ledger: Ledger,
        clock: Clock,
        refresh: Callable[[str], Awaitable[JobRecord]],
    ) -> None:
        self._workspace = workspace
        self._ledger = ledger
        self._clock = clock
        self._refresh = refresh

    async def follow(self, record: JobRecord, backend: SchedulingBackend) -> tuple[JobRecord, frozenset[str], str]:
        """Record what has started and what has ended.

        Returns:
            The schedule's record, the jobs that are its runs, and why it is where it is.
        """
        assert record.handle is not None and record.spec.schedule is not None
        schedule = record.spec.schedule
        status = await backend.status(record.handle)
        started = await backend.runs(record.handle)  # after the status: of a schedule that is gone these are all
        runs = await anyio.to_thread.run_sync(self._adopt, record, started)
        for run in runs[: max(0, len(runs) - schedule.runs)]:
            await self._end_unpaid(run, backend)
        runs = [run if run.over else await self._refresh(run.job_id) for run in runs]
        # What comes next is the backend's to say: a server whose clock is ahead must not end what has time left.
        following = status.next_at if status.next_at is not None else self._clock.now()
        done = len(runs) >= schedule.runs or following >= cron.end(schedule, since=record.created_at)
        done = done or DONE in record.handle.details
        gone = status.state in FINAL
        if done and not gone:
            await anyio.to_thread.run_sync(self._remember_done, record.job_id, record.handle)
            await backend.end_schedule(record.handle)  # the next look tells what it started until then
        going_on = [run.job_id for run in runs if not run.over]
        if gone and not going_on:
            return await anyio.to_thread.run_sync(self._conclude, record, status, runs, done), frozenset(), ""
        detail = [f"{len(runs)} of at most {schedule.runs} runs started"]
        detail += [f"not over: {', '.join(going_on)}"] if going_on else []
        detail += [status.detail] if status.detail and not done else []
        record = await anyio.to_thread.run_sync(self._note, record, runs)
        return record, frozenset(run.job_id for run in runs), "; ".join(detail)

    async def _end_unpaid(self, run: JobRecord, backend: SchedulingBackend) -> None:
        assert run.handle is not None, "a run is recorded with its handle"
        folder, now = self._workspace.job(run.job_id), self._clock.now()
        if run.over or await anyio.to_thread.run_sync(cancellation.asked, folder) is not None:
            return
        await backend.cancel(run.handle, reason=_TOO_MANY)
        await anyio.to_thread.run_sync(lambda: cancellation.remember(folder, reason=_TOO_MANY, now=now))

    def _adopt(self, record: JobRecord, started: Sequence[StartedRun]) -> list[JobRecord]:
        """Make a job of every run that is not one yet. Returns all runs, the latest first."""
        known = {run.handle.reference for run in self._runs(record.job_id) if run.handle is not None}
        for run in started:
            if run.handle.reference in known:
                continue
            spec = replace(
                record.spec,
                schedule=None,
                run_of=RunOf(record.job_id, run.handle.reference),
                run_name=f"{(record.spec.run_name or 'scheduled')[:_LONGEST_NAME].rstrip(' .')} {iso(run.at)}",
            )
            spec = replace(spec, usd_worst=money.worst(spec))
            folder = self._workspace.job(spec.job_id)
            with named_disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._ledger.transaction() as connection:
                if job_rows.insert(connection, spec, now=run.at):
                    job_rows.set_handle(connection, spec.job_id, handle=run.handle)
                    money.hand_over(connection, spec, schedule=record.job_id, now=self._clock.now())
        return self._runs(record.job_id)

    def _remember_done(self, job_id: str, handle: JobHandle) -> None:
        """That it is deleted because it is done, and not by somebody: who looks next cannot see that any more."""
        with self._ledger.transaction() as connection:
            job_rows.set_handle(connection, job_id, handle=replace(handle, details={**handle.details, DONE: True}))

    def _runs(self, schedule: str) -> list[JobRecord]:
        with self._ledger.read() as connection:
            return job_rows.runs_of(connection, schedule)

    def _note(self, record: JobRecord, runs: Sequence[JobRecord]) -> JobRecord:
        if record.state != "queued" or not runs:
            return record
        with self._ledger.transaction() as connection:
            job_rows.advance(
                connection,
                record.job_id,
                seen=record.state,
                state="running",
                now=self._clock.now(),
                started_at=runs[-1].created_at,
            )
            return job_rows.get(connection, record.job_id)

    def _conclude(self, record: JobRecord, status: BackendStatus, runs: Sequence[JobRecord], done: bool) -> JobRecord:
        state, error = _outcome(runs)
        request = cancellation.asked(self._workspace.job(record.job_id))
        if request or not done:
            state, error = "cancelled", request.reason if request else status.error
        assert record.spec.schedule is not None
        agreed, now = record.spec.schedule.runs, self._clock.now()
        problems = [f"It started {len(runs)} runs, {agreed} were agreed to."] if len(runs) > agreed else []
        with self._ledger.transaction() as connection:
            ended = job_rows.advance(
                connection,
                record.job_id,
                seen=record.state,
                state=state,
                now=now,
                started_at=runs[-1].created_at if runs else None,
                finished_at=now,
                error=error,
                summary={"problems": problems},
            )
            if ended:
                money.settle(connection, record.job_id, seconds=0.0, now=now)  # its runs were charged
            return job_rows.get(connection, record.job_id)


def _outcome(runs: Sequence[JobRecord]) -> tuple[JobState, str | None]:
    """A schedule has succeeded if there was a run and all of them did."""
    bad = [f"{run.job_id} ({run.state})" for run in runs if run.state != "succeeded"]
    if not runs:
        return "failed", "It is over, and it has started no run."
    if bad:
        return "failed", f"{len(bad)} of {len(runs)} runs did not succeed: {', '.join(bad[:5])}"
    return "succeeded", None
