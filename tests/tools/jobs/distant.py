"""A backend far away, in memory: answers that get lost, states that the test decides, a log that comes in pieces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mlintern.common.clock import Clock
from mlintern.tools.errors import BackendError, MlinternError, Offline
from mlintern.tools.jobs.backend import BackendStatus, Capabilities, LogChunk, Submission
from mlintern.tools.jobs.hardware import Hardware
from mlintern.tools.jobs.service import JobService
from mlintern.tools.jobs.spec import JobHandle
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.tools.jobs.local_lab import WrittenScripts


@dataclass
class DistantBackend:
    """``jobs`` maps job ids to their status: what really exists over there, whatever the caller was told."""

    name: str = "distant"
    capabilities: Capabilities = field(default_factory=lambda: Capabilities(lookup_seconds=60.0, poll_seconds=5.0))
    usd_per_hour: float = 2.0
    jobs: dict[str, BackendStatus] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    log: bytes = b""
    chunk_bytes: int = 7
    answer_lost: bool = False
    never_arrives: bool = False
    refusal: str | None = None
    unreachable: bool = False
    failing: MlinternError | None = None
    failures: int = 0

    async def hardware(self) -> list[Hardware]:
        self._reach()
        return [Hardware(name="a10g", backend=self.name, usd_per_hour=self.usd_per_hour, accelerators=1)]

    async def submit(self, submission: Submission) -> JobHandle:
        if self.refusal is not None:
            raise BackendError(self.refusal)
        if not self.never_arrives:
            self.created.append(submission.job_id)
            self.jobs[submission.job_id] = BackendStatus("queued")
        if self.answer_lost or self.never_arrives:
            raise Offline("The connection was cut.", service=self.name)
        return JobHandle(self.name, f"far-{submission.job_id}")

    async def find(self, job_id: str) -> JobHandle | None:
        self._reach()
        return JobHandle(self.name, f"far-{job_id}") if job_id in self.jobs else None

    async def status(self, handle: JobHandle) -> BackendStatus:
        self._reach()
        return self.jobs[handle.reference.removeprefix("far-")]

    async def logs(self, handle: JobHandle, cursor: str | None) -> LogChunk:
        self._reach()
        start = int(cursor or 0)
        data = self.log[start : start + self.chunk_bytes]
        return LogChunk(data, str(start + len(data)))

    async def cancel(self, handle: JobHandle, *, reason: str) -> None:
        job_id = handle.reference.removeprefix("far-")
        self.cancelled.append(job_id)
        self.jobs[job_id] = BackendStatus("cancelled", started_at=1.0, run_seconds=90.0, error=reason)

    def _reach(self) -> None:
        if self.unreachable:
            raise Offline("It cannot be reached.", service=self.name)
        if self.failing is not None:
            self.failures += 1
            raise self.failing


@dataclass
class DistantLab:
    workspace: Workspace
    ledger: Ledger
    clock: Clock
    backend: DistantBackend = field(default_factory=DistantBackend)
    options: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scripts = WrittenScripts(self.ledger)
        self.jobs = self.server()

    def server(self) -> JobService:
        """A server on the workspace; it remembers nothing of the others."""
        return JobService(
            workspace=self.workspace,
            ledger=self.ledger,
            clock=self.clock,
            scripts=self.scripts,
            backends={"distant": self.backend},
            environ={},
            **self.options,  # type: ignore[arg-type]
        )

    async def start(self, text: str = "print(1)", *, timeout: str = "1h", **arguments: Any) -> str:
        spec = await self.jobs.planner.plan(
            script_id=self.scripts.add(text), backend="distant", timeout=timeout, **arguments
        )
        await self.jobs.submit(spec)
        return spec.job_id

    def entries(self, job_id: str) -> list[tuple[str, float]]:
        """The movements of money of a job, in order."""
        with self.ledger.read() as connection:
            rows = connection.execute("SELECT kind, usd FROM money_entries WHERE job_id = ? ORDER BY id", (job_id,))
            return [(row["kind"], row["usd"]) for row in rows]
