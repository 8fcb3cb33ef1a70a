"""A jobs service over the real local backend, with scripts written by the tests."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import anyio

from mlintern.common.clock import Clock, SystemClock
from mlintern.tools.errors import NotFound
from mlintern.tools.jobs.backend import Backend
from mlintern.tools.jobs.backends.job_folder import JobFolder
from mlintern.tools.jobs.backends.local.backend import LocalBackend
from mlintern.tools.jobs.job_results import JobStatus
from mlintern.tools.jobs.service import JobService
from mlintern.tools.jobs.spec import FINAL, JobSpec
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace

DEADLINE_SECONDS = 30.0
T = TypeVar("T")


@dataclass(frozen=True)
class WrittenScript:
    text: str
    name: str = "script"
    recipe: dict[str, Any] | None = None
    requirements: tuple[str, ...] = ()
    python: str | None = None

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def script_id(self) -> str:
        return self.sha256[:12]


@dataclass
class WrittenScripts:
    """Scripts of a test, on record in the ledger as a job's foreign key demands."""

    ledger: Ledger
    kept: dict[str, WrittenScript] = field(default_factory=dict)

    def add(self, text: str, **details: Any) -> str:
        script = WrittenScript(text, **details)
        self.kept[script.script_id] = script
        with self.ledger.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO scripts (script_id, sha256, name, created_at) VALUES (?, ?, ?, 0)",
                (script.script_id, script.sha256, script.name),
            )
        return script.script_id

    def get(self, script_id: str, /) -> WrittenScript:
        if script_id not in self.kept:
            raise NotFound(f"There is no script {script_id!r}.")
        return self.kept[script_id]


@dataclass
class LocalLab:
    """One workspace with a service; `another_server` is a second one on the same workspace."""

    workspace: Workspace
    clock: Clock = field(default_factory=lambda: SystemClock(wait_scale=1.0))
    backend_options: dict[str, Any] = field(default_factory=dict)
    service_options: dict[str, Any] = field(default_factory=dict)
    backend_class: type[LocalBackend] = LocalBackend
    environ: Mapping[str, str] = field(
        default_factory=lambda: {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    )

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.workspace.ledger)
        self.scripts = WrittenScripts(self.ledger)
        self.backend = self.backend_class(
            workspace=self.workspace,
            clock=self.clock,
            environ=self.environ,
            **{"grace_seconds": 0.5, "python": sys.executable, **self.backend_options},
        )
        backends: dict[str, Backend] = {"local": self.backend}
        self.jobs = JobService(
            workspace=self.workspace,
            ledger=self.ledger,
            clock=self.clock,
            scripts=self.scripts,
            backends=backends,
            environ=self.environ,
            **self.service_options,
        )

    def another_server(self) -> LocalLab:
        other = LocalLab(
            self.workspace,
            self.clock,
            self.backend_options,
            self.service_options,
            self.backend_class,
            self.environ,
        )
        other.scripts.kept = self.scripts.kept
        return other

    async def plan(self, text: str, *, timeout: str = "1m", **arguments: Any) -> JobSpec:
        return await self.jobs.planner.plan(script_id=self.scripts.add(text), timeout=timeout, **arguments)

    async def start(self, text: str, **arguments: Any) -> str:
        spec = await self.plan(text, **arguments)
        await self.jobs.submit(spec)
        return spec.job_id

    async def end_of(self, job_id: str) -> JobStatus:
        return await eventually(lambda: self.jobs.poll(job_id), lambda status: status.state in FINAL)

    async def running(self, job_id: str) -> dict[str, Any]:
        """The record of the supervisor once the script runs and has printed something."""
        folder = self.folder(job_id)

        async def look() -> dict[str, Any] | None:
            printed = folder.log.exists() and folder.log.stat().st_size > 0
            return folder.read("state") if printed else None

        state = await eventually(look, lambda state: state is not None and state["phase"] == "running")
        assert state is not None
        return state

    def folder(self, job_id: str) -> JobFolder:
        return JobFolder(self.workspace.job(job_id))

    def log(self, job_id: str) -> str:
        return self.folder(job_id).log.read_text()


async def eventually(
    look: Callable[[], Awaitable[T]], good: Callable[[T], bool], *, seconds: float = DEADLINE_SECONDS
) -> T:
    """Look again and again until what is seen is good; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        seen = await look()
        if good(seen):
            return seen
        assert time.monotonic() < deadline, f"still {seen!r} after {seconds} s"
        await anyio.sleep(0.02)


async def true_eventually(condition: Callable[[], bool]) -> None:
    async def look() -> bool:
        return condition()

    await eventually(look, bool)


def alive(pid: int) -> bool:
    """Whether the process exists and is not merely waiting to be collected."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] not in "ZX"
