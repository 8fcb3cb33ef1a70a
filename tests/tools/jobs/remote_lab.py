"""A jobs service over one remote backend; `server` is another one on the same workspace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mlintern.common.clock import Clock
from mlintern.tools.evals.service import EvalService
from mlintern.tools.jobs.backend import Backend
from mlintern.tools.jobs.job_results import JobStatus
from mlintern.tools.jobs.service import JobService
from mlintern.tools.jobs.spec import FINAL
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.tools.jobs.local_lab import WrittenScripts, eventually


@dataclass
class RemoteLab:
    workspace: Workspace
    ledger: Ledger
    clock: Clock
    backend: Backend
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scripts = WrittenScripts(self.ledger)
        self.jobs = self.server()

    def server(self) -> JobService:
        evals = EvalService(workspace=self.workspace, ledger=self.ledger, clock=self.clock)
        return JobService(
            workspace=self.workspace,
            ledger=self.ledger,
            clock=self.clock,
            scripts=self.scripts,
            backends={self.backend.name: self.backend},
            collect_evaluations=evals.collect,
            **({"environ": {}} | self.options),
        )

    async def start(self, text: str, *, timeout: str = "1h", **arguments: Any) -> str:
        spec = await self.jobs.planner.plan(
            script_id=self.scripts.add(text), backend=self.backend.name, timeout=timeout, **arguments
        )
        await self.jobs.submit(spec)
        return spec.job_id

    async def end_of(self, job_id: str) -> JobStatus:
        return await eventually(lambda: self.jobs.poll(job_id), lambda status: status.state in FINAL)

    def log(self, job_id: str) -> str:
        return (self.workspace.job(job_id) / "log.txt").read_text()

    def entries(self, job_id: str) -> list[tuple[str, float]]:
        """The movements of money of a job, in order."""
        with self.ledger.read() as connection:
            rows = connection.execute("SELECT kind, usd FROM money_entries WHERE job_id = ? ORDER BY id", (job_id,))
            return [(row["kind"], row["usd"]) for row in rows]
