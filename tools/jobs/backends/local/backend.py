"""Jobs on this machine, each under a supervisor process that outlives the server."""

from __future__ import annotations

import hashlib
import math
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio.to_thread

from mlintern.common.clock import Clock
from mlintern.common.files import write_durably
from mlintern.tools.config import LocalSettings
from mlintern.tools.jobs import local_hardware
from mlintern.tools.jobs.backend import BackendStatus, Capabilities, LogChunk, Submission
from mlintern.tools.jobs.backends.job_folder import UNSTARTED, JobFolder, bury
from mlintern.tools.jobs.backends.local import launch, process_table, slots
from mlintern.tools.jobs.backends.local.confinement import Isolation
from mlintern.tools.jobs.backends.local.interpreter import choose
from mlintern.tools.jobs.disk import named_disk_errors
from mlintern.tools.jobs.hardware import Hardware
from mlintern.tools.jobs.spec import JobHandle
from mlintern.tools.sandbox.isolation import FindMethod
from mlintern.tools.workspace import Workspace

MAX_LAUNCHES = 3
_CHUNK_BYTES = 1 << 20


class LocalBackend:
    """Runs scripts on this machine: hardware ``cpu``, and with GPUs ``gpu``, ``gpux2``, ...

    Args:
        slots: how many CPU jobs run at once; each GPU is a slot of its own. The others queue in order of submission.
        python: interpreter to try before uv makes an environment; None is the one that runs the server.
        memory_limit_gib: a job whose processes together pass it is killed and has ``failed``. None: no limit.
        cpus: cores that a job is confined to (Linux). None: not confined, only told how many threads to use.
        grace_seconds: time between TERM and KILL when a job is ended.
        environments: where the environments made by uv are kept; by default in the workspace.
        isolation: finds what keeps jobs apart from the rest of the machine, when one is started; None, or a method
            that is None, lets them do what this user can. It may raise `MissingDependency`.
        protected: the workspace that isolated jobs do not see; by default that in which they lie.
    """

    name = "local"
    capabilities = Capabilities(shares_files=True, lookup_seconds=0.0, poll_seconds=0.25, enforces_timeout=True)

    def __init__(
        self,
        *,
        workspace: Workspace,
        clock: Clock,
        slots: int = 1,
        python: str | None = None,
        memory_limit_gib: float | None = None,
        cpus: int | None = None,
        grace_seconds: float = 10.0,
        environ: Mapping[str, str] | None = None,
        machine: local_hardware.Machine | None = None,
        environments: Path | None = None,
        isolation: FindMethod | None = None,
        protected: Path | None = None,
    ) -> None:
        LocalSettings(slots=slots, cpus=cpus, memory_limit_gib=memory_limit_gib)  # refuses what cannot be
        self._workspace = workspace
        self._clock = clock
        self._limits = launch.Limits(
            slots=slots, memory_limit_gib=memory_limit_gib, cpus=cpus, grace_seconds=grace_seconds
        )
        self._python = python
        self._environ = os.environ if environ is None else environ
        self._machine = machine
        self._environments = environments
        self._find_method = isolation
        self._protected = protected or workspace.root

    async def hardware(self) -> list[Hardware]:
        machine = await anyio.to_thread.run_sync(self._probe)
        plain = Hardware(
            name="cpu",
            backend=self.name,
            cpus=min(len(machine.cores), self._limits.cpus or len(machine.cores)),
            memory_gib=min(machine.memory_gib, self._limits.memory_limit_gib or math.inf),
            slots=self._limits.slots,
            processor=local_hardware.processor(),
            note=f"{self._limits.threads(machine, on_gpu=False)} thread(s) a job",
        )
        with_gpus = []
        most = min(len(machine.gpus), 1) if any(gpu.is_slice for gpu in machine.gpus) else len(machine.gpus)
        for count in range(1, most + 1):
            gpus = machine.gpus[:count]
            changes = {
                "name": "gpu" if count == 1 else f"gpux{count}",
                "accelerator": gpus[0].model,
                "accelerators": count,
                "accelerator_memory_gib": round(sum(gpu.memory_gib for gpu in gpus), 1) or None,
                "slots": len(machine.gpus) // count,
                "note": f"{self._limits.threads(machine, on_gpu=True)} thread(s) a job",
            }
            with_gpus.append(plain.model_copy(update=changes))
        return [*with_gpus, plain]

    async def submit(self, submission: Submission) -> JobHandle:
        with named_disk_errors(submission.folder):
            return await anyio.to_thread.run_sync(self._submit, submission)

    async def find(self, job_id: str) -> JobHandle | None:
        folder = self._workspace.job(job_id)
        known = await anyio.to_thread.run_sync(JobFolder(folder).read, "state")
        return self._handle(job_id, folder) if known else None

    async def status(self, handle: JobHandle) -> BackendStatus:
        with named_disk_errors(self._folder(handle).path):
            return await anyio.to_thread.run_sync(self._status, handle)

    async def logs(self, handle: JobHandle, cursor: str | None) -> LogChunk:
        return await anyio.to_thread.run_sync(_read_log, self._folder(handle).log, int(cursor or 0))

    async def cancel(self, handle: JobHandle, *, reason: str) -> None:
        folder = self._folder(handle)
        with named_disk_errors(folder.path):
            await anyio.to_thread.run_sync(self._cancel, folder, reason)

    async def finish(self, handle: JobHandle) -> None:
        folder = self._folder(handle)
        with named_disk_errors(folder.path):
            await anyio.to_thread.run_sync((folder.output / "finish").touch)

    # What the async methods do, on a worker thread

    def _submit(self, submission: Submission) -> JobHandle:
        folder = JobFolder(submission.folder)
        handle = self._handle(submission.job_id, folder.path)
        for path in (folder.path, folder.work, folder.output):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = folder.claim()
        if lock is None:
            return handle  # its supervisor lives
        try:
            state = folder.read("state") or {"phase": "submitted", "launches": 0}
            if state["phase"] in UNSTARTED and folder.read("exit") is None:
                self._launch(submission, folder, lock, launches=int(state["launches"]) + 1)
        finally:
            os.close(lock)
        return handle

    def _launch(self, submission: Submission, folder: JobFolder, lock: int, *, launches: int) -> None:
        now = self._clock.now()
        method = self._find_method() if self._find_method else None
        script, text = folder.script, submission.script.text.encode()
        write_durably(script, text)
        environments = self._environments or self._workspace.folder("environments")
        interpreter = choose(
            text=submission.script.text,
            requirements=submission.script.requirements,
            python=submission.script.python,
            configured=self._python,
            environments=environments,
        )
        launch_plan = launch.plan(
            submission,
            argv=[str(script), *submission.spec.args],
            interpreter=interpreter,
            machine=self._probe(),
            limits=self._limits,
            server=self._environ,
            slots_folder=self._workspace.folder("local", "slots"),
            created_at=now,
            isolation=Isolation(method, self._protected, environments) if method else None,
        )
        folder.write("launch", launch_plan)
        folder.set_aside_ending()
        ticket, ticket_lock = slots.take_ticket(self._queue(submission.spec.hardware), submission.job_id)
        try:
            record = {"phase": "submitted", "job_id": submission.job_id, "created_at": now, "launches": launches}
            folder.write("state", {**record, "queue": str(ticket.parent)})
            launch.start_supervisor(
                folder,
                lock=lock,
                ticket=ticket,
                ticket_lock=ticket_lock,
                sha256=hashlib.sha256(text).hexdigest(),
                server=self._environ,
                secrets=submission.secrets,
            )
        finally:
            os.close(ticket_lock)

    def _status(self, handle: JobHandle) -> BackendStatus:
        folder = self._folder(handle)
        # In this order: a supervisor writes the final record before it lets go of its lock.
        alive = folder.supervised()
        final = folder.read("exit")
        if final is not None:
            return _final_status(final)
        state = folder.read("state")
        if state is None:
            return BackendStatus("lost", error=f"The folder {folder.path} of the job is gone.")
        if not alive and state["phase"] in UNSTARTED:
            return self._status_unstarted(folder, state)
        if not alive:
            buried = bury(folder, now=self._clock.now())
            if buried is not None:
                return _final_status(buried)
        if state["phase"] != "running":
            ahead = slots.jobs_ahead(Path(state["queue"]), handle.reference)
            return BackendStatus("queued", detail=_queue_detail(ahead))
        return BackendStatus("running", started_at=state["started_at"], run_seconds=_run_seconds(state))

    def _status_unstarted(self, folder: JobFolder, state: dict[str, Any]) -> BackendStatus:
        """The supervisor died, or was never started, before the script ran: it may be started again, a few times."""
        if state["launches"] < MAX_LAUNCHES:
            return BackendStatus("queued", detail="its supervisor is gone; it has not run", restartable=True)
        error = f"Its supervisor was started {MAX_LAUNCHES} times and vanished each time before the script ran."
        return self._end_unsupervised(folder, {"state": "lost", "error": error})

    def _cancel(self, folder: JobFolder, reason: str) -> None:
        if folder.read("exit") is not None or not folder.path.is_dir():
            return
        folder.write_cancel({"reason": reason, "at": self._clock.now()})
        state = folder.read("state") or {}
        supervisor = process_table.find(state["supervisor"]) if "supervisor" in state else None
        if supervisor is not None and supervisor.started == state["supervisor_started"]:
            process_table.send([supervisor], signal.SIGUSR1)
        elif not folder.supervised() and state.get("phase", "submitted") in UNSTARTED:
            self._end_unsupervised(folder, {"state": "cancelled", "error": reason or "Cancelled on request."})

    def _end_unsupervised(self, folder: JobFolder, record: dict[str, Any]) -> BackendStatus:
        lock = folder.claim()
        if lock is None:
            return BackendStatus("queued", detail="being started")
        try:
            folder.write_exit({**record, "finished_at": self._clock.now(), "exit_code": None, "started_at": None})
            return _final_status(folder.read("exit") or record)
        finally:
            os.close(lock)

    # Small things

    def _probe(self) -> local_hardware.Machine:
        if self._machine is None:
            self._machine = local_hardware.probe(visible_devices=self._environ.get("CUDA_VISIBLE_DEVICES"))
        return self._machine

    def _queue(self, hardware: str) -> Path:
        return self._workspace.folder("local", f"queue-{launch.queue_kind(hardware)}")

    def _folder(self, handle: JobHandle) -> JobFolder:
        return JobFolder(self._workspace.job(handle.reference))

    def _handle(self, job_id: str, folder: Path) -> JobHandle:
        return JobHandle(self.name, job_id, {"folder": str(folder)})


def _final_status(record: Mapping[str, Any]) -> BackendStatus:
    measured = ("wall_seconds", "cpu_seconds", "peak_rss_bytes")
    return BackendStatus(
        record["state"],
        started_at=record.get("started_at"),
        finished_at=record.get("finished_at"),
        run_seconds=record.get("wall_seconds"),
        exit_code=record.get("exit_code"),
        error=record.get("error"),
        resources={name: float(record[name]) for name in measured if record.get(name) is not None},
    )


def _run_seconds(state: Mapping[str, Any]) -> float | None:
    """Seconds since the script was started, by the clock that its supervisor goes by. None when nobody can tell.

    That clock stands still while the machine sleeps, as the job does, and nobody can set it. Between the script's end
    and its final record the process is gone. The wall clock would be no substitute: where it was set forward, the job
    would look overdue and be cancelled.
    """
    process = process_table.find(state["pid"])
    if process is None or process.started != state["pid_started"]:
        return None
    started = state.get("started_monotonic")
    return max(0.0, time.monotonic() - started) if started is not None else process_table.age_seconds(process)


def _queue_detail(ahead: int | None) -> str:
    if ahead is None:
        return "starting"
    if ahead == 0:
        return "next in the queue"
    return f"{ahead} job{'s' if ahead > 1 else ''} ahead in the queue"


def _read_log(path: Path, position: int) -> LogChunk:
    try:
        with path.open("rb") as file:
            file.seek(position)
            data = file.read(_CHUNK_BYTES)
    except FileNotFoundError:
        data = b""
    return LogChunk(data, str(position + len(data)))
