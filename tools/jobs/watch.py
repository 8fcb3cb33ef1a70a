"""Following jobs: what the backend says, what the telemetry says, and what is kept when a job is over."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from pydantic import BaseModel

from mlintern.common.clock import Clock, iso
from mlintern.common.redact import redact
from mlintern.tools.errors import MlinternError, RateLimited
from mlintern.tools.health.findings import Diagnosis, Finding
from mlintern.tools.health.series import Run
from mlintern.tools.jobs import cancellation, job_rows, logs, money
from mlintern.tools.jobs.backend import Backend, BackendStatus, SchedulingBackend
from mlintern.tools.jobs.disk import named_disk_errors
from mlintern.tools.jobs.job_rows import JobRecord
from mlintern.tools.jobs.mirror import mirror
from mlintern.tools.jobs.rebuild import remember_end
from mlintern.tools.jobs.schedules import Schedules
from mlintern.tools.jobs.served_models import spent_usd
from mlintern.tools.jobs.spec import FINAL, may_follow
from mlintern.tools.jobs.submission import Submitter
from mlintern.tools.jobs.telemetry import Telemetry, evaluation_rows
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace

TAIL_LINES, TAIL_CHARS = 12, 1200
FAILURE_LINES, FAILURE_CHARS = 40, 4000
OVERDUE_SECONDS = 300.0
"""A running job is cancelled when its reservation has been used up for this long and its backend did not end it."""
_SMALLEST_CHARGE_USD = 0.01
_TIME_USED_UP = "Its reserved time is used up."
LONGEST_PAUSE_SECONDS = 300.0
"""The longest that a backend is left alone that asks to wait; it is also the window of Hugging Face's limits."""
COLLECT_SECONDS = 600.0
"""How long the end of a job waits for the rest of its log, which holds its evaluation."""


Diagnose = Callable[[Run], Diagnosis]
CollectEvaluations = Callable[[str], Awaitable[Sequence[BaseModel]]]


@dataclass
class Live:
    """What this server holds in memory about a job that is not over: the digest of its telemetry, not the rows."""

    telemetry: Telemetry
    findings: list[Finding] = field(default_factory=list)
    verdict: str | None = None
    diagnosed_rows: int = 0
    detail: str = ""
    problem: str = ""
    """Why the job could not be asked about the last time; empty if it was."""
    url: str | None = None
    paid_seconds: float | None = None
    over_since: float | None = None
    ask_again_at: float = 0.0
    """By the monotonic clock: a backend that asked to wait is left alone so long."""
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    """Held while the job is looked at: a poll and the server's own watch may come at the same moment."""
    runs: frozenset[str] = frozenset()
    """Of a schedule: the jobs that it has started."""

    @property
    def news(self) -> frozenset[str]:
        """What a waiting poll returns for when it grows: findings, by kind and severity, and runs."""
        return frozenset({finding.news for finding in self.findings} | self.runs)


class Watcher:
    def __init__(
        self,
        *,
        workspace: Workspace,
        ledger: Ledger,
        clock: Clock,
        backends: Mapping[str, Backend],
        submitter: Submitter,
        collect_evaluations: CollectEvaluations | None,
        diagnose: Diagnose | None,
        known_secrets: Callable[[], Sequence[str]],
    ) -> None:
        self._workspace = workspace
        self._ledger = ledger
        self._clock = clock
        self._backends = backends
        self._submitter = submitter
        self._collect_evaluations = collect_evaluations
        self._diagnose = diagnose
        self._known_secrets = known_secrets
        self._schedules = Schedules(workspace=workspace, ledger=ledger, clock=clock, refresh=self.refresh)
        self._live: dict[str, Live] = {}

    def live(self, job_id: str) -> Live:
        if job_id not in self._live:
            folder = self._workspace.job(job_id)
            telemetry = Telemetry(
                folder / "output" / "metrics.jsonl",
                within=folder,
                clean=lambda text: redact(text, known=self._known_secrets()),
            )
            self._live[job_id] = Live(telemetry)
        return self._live[job_id]

    async def refresh(self, job_id: str) -> JobRecord:
        """Ask the backend and the telemetry about a job and record what has changed.

        A backend that cannot be asked now leaves the job in its last known state, and `Live.detail` says so.

        Raises:
            NotFound: there is no such job.
        """
        await anyio.to_thread.run_sync(self.load, job_id)  # nothing is held in memory about what does not exist
        live = self.live(job_id)
        async with live.lock:
            record = await anyio.to_thread.run_sync(self.load, job_id)
            if record.over:
                self._live.pop(job_id, None)
                return record
            if self._clock.monotonic() < live.ask_again_at:
                return record
            live.problem = ""
            try:
                with named_disk_errors(self._workspace.job(job_id)):
                    return await self._ask(record, live)
            except MlinternError as error:
                if isinstance(error, RateLimited):
                    live.ask_again_at = self._clock.monotonic() + min(
                        error.retry_after_seconds or 0.0, LONGEST_PAUSE_SECONDS
                    )
                live.problem = str(error)
                live.detail = f"Last known state; it could not be brought up to date: {error}"
                return await anyio.to_thread.run_sync(self.load, job_id)

    def load(self, job_id: str) -> JobRecord:
        with self._ledger.read() as connection:
            return job_rows.get(connection, job_id)

    def log_bytes(self, job_id: str) -> int:
        """How much of the job's log is here."""
        try:
            return (self._workspace.job(job_id) / "log.txt").stat().st_size
        except OSError:  # it has not printed anything, or its folder is gone
            return 0

    def tail(self, job_id: str, *, lines: int = TAIL_LINES, chars: int = TAIL_CHARS) -> str:
        """The last lines of the job's log, telemetry left out."""
        path = self._workspace.job(job_id) / "log.txt"
        return logs.read_tail(path, lines=lines, max_chars=chars, known=self._known_secrets()).text

    async def _ask(self, record: JobRecord, live: Live) -> JobRecord:
        if record.handle is None:
            await self._submitter.act(record.job_id, answer_to_caller=False)
            record = await anyio.to_thread.run_sync(self.load, record.job_id)
            if record.handle is None:
                live.detail = "" if record.over else "The backend has not confirmed the submission yet."
                return record
        backend = self._backends.get(record.spec.backend)
        if backend is None:
            live.problem = f"the backend {record.spec.backend!r} is not set up in this server."
            live.detail = f"Last known state; {live.problem}"
            return record
        if record.spec.schedule is not None:
            assert isinstance(backend, SchedulingBackend), "nothing else is planned with a schedule"
            record, live.runs, live.detail = await self._schedules.follow(record, backend)
            if record.over:
                self._live.pop(record.job_id, None)
            return record
        assert record.handle is not None
        status = await backend.status(record.handle)
        if status.restartable:
            await self._submitter.act(record.job_id, answer_to_caller=False, restart=True)
            status = await backend.status(record.handle)
        if not math.isfinite(status.run_seconds or 0.0) or not math.isfinite(status.billed_seconds or 0.0):
            # No measurement, and no sum of money would be one after it.
            status = replace(status, run_seconds=None, billed_seconds=None)
        live.detail, live.url, live.paid_seconds = status.detail, status.url, status.paid_seconds
        over, problem = status.state in FINAL, ""
        if not backend.capabilities.shares_files:
            problem = await self._copy_log(record, backend, over=over)
        await anyio.to_thread.run_sync(self._read_telemetry, live)
        if over:
            if problem and not self._waited_enough(live):
                live.detail = f"It is over ({status.state}); {problem}"
                return record
            return await self._conclude(record, live, status, problem)
        if request := cancellation.asked(self._workspace.job(record.job_id)):
            live.detail = f"Its end was asked for at {iso(request.at)}. {live.detail}".rstrip()
        live.detail = f"{live.detail} ({problem})".strip() if problem else live.detail
        await self._end_if_overdue(record, backend, status)
        return await anyio.to_thread.run_sync(self._note, record, status)

    async def _copy_log(self, record: JobRecord, backend: Backend, *, over: bool) -> str:
        """Copy what is new in the log of a job elsewhere. Returns what hinders, or keeps the end from being whole."""
        assert record.handle is not None
        try:
            whole = await mirror(backend, record.handle, folder=self._workspace.job(record.job_id))
        except MlinternError as error:
            return f"its log cannot be copied now: {error}"
        return "its log is still being copied." if over and not whole else ""

    def _waited_enough(self, live: Live) -> bool:
        now = self._clock.monotonic()
        live.over_since = now if live.over_since is None else live.over_since
        return now - live.over_since >= COLLECT_SECONDS

    def _note(self, record: JobRecord, status: BackendStatus) -> JobRecord:
        """Record a job's start and what it has cost so far."""
        now = self._clock.now()
        started = may_follow(record.state, status.state)
        served = spent_usd(self.live(record.job_id).telemetry.metrics, most=record.spec.usd_served) or 0.0
        owed = money.price(record.spec.usd_per_hour, status.paid_seconds or 0.0) + served
        if not started and owed - record.usd < _SMALLEST_CHARGE_USD:
            return record
        with self._ledger.transaction() as connection:
            if started:
                since = status.started_at if status.started_at is not None else now
                job_rows.advance(
                    connection, record.job_id, seen=record.state, state=status.state, now=now, started_at=since
                )
            seconds = status.paid_seconds or 0.0
            money.charge(connection, record.job_id, seconds=seconds, served=served, now=now)
            return job_rows.get(connection, record.job_id)

    async def _end_if_overdue(self, record: JobRecord, backend: Backend, status: BackendStatus) -> None:
        """The second line behind the backend's own time-out: what is reserved is the most that may be used."""
        used = status.run_seconds
        if record.handle is not None and used is not None and used > record.spec.timeout_seconds + OVERDUE_SECONDS:
            await backend.cancel(record.handle, reason=_TIME_USED_UP)
            folder, now = self._workspace.job(record.job_id), self._clock.now()
            await anyio.to_thread.run_sync(lambda: cancellation.remember(folder, reason=_TIME_USED_UP, now=now))

    async def _conclude(self, record: JobRecord, live: Live, status: BackendStatus, problem: str) -> JobRecord:
        """Collect what has to outlive the job's storage, then record the end and settle the bill, in one step."""
        problems = [f"Given up after {COLLECT_SECONDS:.0f} s: {problem}"] if problem else []
        evaluations = [row for evaluation in live.telemetry.evaluations for row in evaluation_rows(evaluation)]
        if self._collect_evaluations is not None:
            try:
                rows = await self._collect_evaluations(record.job_id)
                evaluations = [row.model_dump(mode="json", exclude_none=True) for row in rows] or evaluations
            except MlinternError as error:
                problems.append(f"Its evaluations could not be read: {error}")
        return await anyio.to_thread.run_sync(self._record_end, record, live, status, evaluations, problems)

    def _record_end(
        self,
        record: JobRecord,
        live: Live,
        status: BackendStatus,
        evaluations: list[dict[str, Any]],
        problems: list[str],
    ) -> JobRecord:
        now = self._clock.now()
        tail = self.tail(record.job_id, lines=FAILURE_LINES, chars=FAILURE_CHARS)
        progress = live.telemetry.progress
        summary = {
            "metrics": live.telemetry.metrics,
            "progress": progress.model_dump() if progress else None,
            "evaluations": evaluations,
            "findings": [finding.model_dump(mode="json") for finding in live.findings],
            "verdict": live.verdict,
            "resources": {**status.resources, **live.telemetry.measured},
            "artifacts": self._artifacts(record, live.telemetry, status),
            "log_tail": tail,
            "url": status.url,
            "problems": problems,
        }
        with self._ledger.transaction() as connection:
            ended = job_rows.advance(
                connection,
                record.job_id,
                seen=record.state,
                state=status.state,
                now=now,
                started_at=status.started_at,
                finished_at=status.finished_at if status.finished_at is not None else now,
                exit_code=status.exit_code,
                error=_reason(status, tail) or self._why_cancelled(record, status),
                summary=summary,
            )
            if ended:
                seconds = _paid_seconds(status)
                served = spent_usd(live.telemetry.metrics, most=record.spec.usd_served)
                if served is None:  # it does not say: what was agreed to, if it ran at all
                    served = record.spec.usd_served if seconds else 0.0
                money.settle(connection, record.job_id, seconds=seconds, served=served, now=now)
            current = job_rows.get(connection, record.job_id)
        remember_end(self._workspace.job(record.job_id), current)
        self._live.pop(record.job_id, None)
        return current

    def _why_cancelled(self, record: JobRecord, status: BackendStatus) -> str | None:
        request = cancellation.asked(self._workspace.job(record.job_id)) if status.state == "cancelled" else None
        return request.reason if request else None

    def _read_telemetry(self, live: Live) -> None:
        """Bring the digest up to date, and look for trouble in its curves if rows have come."""
        telemetry = live.telemetry
        telemetry.update()
        if self._diagnose is None or telemetry.rows_read == live.diagnosed_rows:
            return
        live.diagnosed_rows = telemetry.rows_read
        diagnosis = self._diagnose(telemetry.curves.run())
        live.verdict = diagnosis.verdict
        live.findings = diagnosis.findings

    def _artifacts(self, record: JobRecord, telemetry: Telemetry, status: BackendStatus) -> dict[str, Any]:
        """Where things lie: copies in the job folder here, model and checkpoints where the job wrote them."""
        folder = self._workspace.job(record.job_id)
        output = folder / "output"
        found: dict[str, Any] = {"folder": str(folder), "output": str(output)}
        if (output / "evaluation.json").is_file():
            found["evaluation"] = str(output / "evaluation.json")
        backend = self._backends.get(record.spec.backend)
        shared = backend is not None and backend.capabilities.shares_files
        there = str(output) if shared else status.output
        written = [path for path in (telemetry.model_path, *telemetry.checkpoints) if path is not None]
        if there is None and any("://" not in path for path in written):
            found["not_kept"] = f"{record.spec.backend} keeps no output, so what was not pushed to the Hub is gone."
            return found | ({"model": telemetry.model_path} if "://" in (telemetry.model_path or "") else {})
        if telemetry.model_path is not None:
            found["model"] = _address(there, telemetry.model_path)
        elif (output / "model").is_dir():
            found["model"] = str(output / "model")
        if (output / "dataset").is_dir():
            found["dataset"] = str(output / "dataset")
        if telemetry.checkpoints:
            addresses = [_address(there, path) for path in telemetry.checkpoints]
            # The trainer deletes what is beyond save_total_limit; nobody can go on from that.
            found["checkpoints"] = [path for path in addresses if not shared or Path(path).exists()]
        return found


def _reason(status: BackendStatus, tail: str) -> str | None:
    if status.state == "succeeded":
        return None
    raised = logs.last_error(tail) if status.state == "failed" else None
    return f"{raised} ({status.error})" if raised and status.error else raised or status.error


def _paid_seconds(status: BackendStatus) -> float | None:
    """Measured seconds that a finished job is charged for; None if nobody knows."""
    if status.paid_seconds is not None:
        return status.paid_seconds
    if status.started_at is None:
        return None if status.state == "lost" else 0.0
    if status.finished_at is not None and status.state != "lost":
        return max(0.0, status.finished_at - status.started_at)
    return None


def _address(output: str | None, path: str) -> str:
    return f"{output}/{path}" if output and "://" not in path and not path.startswith("/") else path
