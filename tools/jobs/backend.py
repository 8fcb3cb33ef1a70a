"""The seam between the jobs service and a place where jobs run: what a backend is given, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mlintern.tools.jobs.hardware import Hardware
from mlintern.tools.jobs.spec import JobHandle, JobSpec, JobState


class ScriptFile(Protocol):
    """The part of a stored script that a job needs (`mlintern.tools.scripts.store.Script` has it)."""

    @property
    def script_id(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def recipe(self) -> dict[str, Any] | None: ...
    @property
    def requirements(self) -> tuple[str, ...]: ...
    @property
    def python(self) -> str | None: ...


@dataclass(frozen=True)
class Submission:
    """All that a backend is given to start a job. ``secrets`` maps names to values: never write or log them.

    ``until`` is when a schedule is over (Unix seconds): what it starts from then on must do nothing. An
    isolated job sees ``reads`` beside what its recipe, arguments and script name, and of ``names`` what it may see;
    without ``network`` it reaches no other machine, where the backend can see to that.
    """

    job_id: str
    spec: JobSpec
    script: ScriptFile
    folder: Path
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    until: float | None = None
    reads: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    network: bool = True


@dataclass(frozen=True)
class BackendStatus:
    """What a backend knows about a job at this moment.

    Attributes:
        run_seconds: measured (not wall-clock) seconds that it has run so far, None if the backend cannot tell.
        billed_seconds: seconds that are paid for so far, where the backend bills others than ``run_seconds``.
        detail: why it is where it is, for people: ``"2 jobs ahead"``, ``"PENDING: Resources"``.
        restartable: the backend has a record of the job, but surely nothing of it ran or will run by itself; the
            service submits it again.
        resources: measured use: ``cpu_seconds``, ``peak_rss_bytes``, ``wall_seconds``.
        output: the job's output folder over there, by the path that later jobs on this backend find it under; None
            if it ends with the job, or is that of the job folder.
        next_at: of a schedule: when it starts its next run, by the backend's own reckoning (Unix seconds).
    """

    state: JobState
    started_at: float | None = None
    finished_at: float | None = None
    run_seconds: float | None = None
    billed_seconds: float | None = None
    exit_code: int | None = None
    error: str | None = None
    detail: str = ""
    restartable: bool = False
    resources: Mapping[str, float] = field(default_factory=dict)
    url: str | None = None
    output: str | None = None
    next_at: float | None = None

    @property
    def paid_seconds(self) -> float | None:
        """Seconds that are paid for so far; None if the backend cannot tell."""
        return self.run_seconds if self.billed_seconds is None else self.billed_seconds


@dataclass(frozen=True)
class LogChunk:
    """New bytes of a job's log since a cursor, and the cursor to ask with next time.

    ``complete`` says that at this moment there is no more; so does an empty ``data``.
    """

    data: bytes
    cursor: str
    complete: bool = False


@dataclass(frozen=True)
class Capabilities:
    """What the service may take for granted about a backend.

    Attributes:
        shares_files: ``log.txt`` and ``output/`` of the job folder are written by the job itself; otherwise the
            service copies the log and rebuilds the telemetry and an evaluation's samples from its marked lines.
        lookup_seconds: `Backend.find` is to be trusted when it finds nothing that long after the submission was
            sent. 0 means at once: then an unconfirmed submission is simply made again.
        poll_seconds: how often it is polite to ask for the status while someone waits.
        enforces_timeout: it ends an overdue job by itself; the service's own limit is then only a second line.
        visible_paths: folders of this machine that a job sees under the same path; None: all of them.
        keeps_output: what a job writes into its output folder is there after its end.
    """

    shares_files: bool = False
    lookup_seconds: float = 120.0
    poll_seconds: float = 5.0
    enforces_timeout: bool = True
    keeps_output: bool = True
    visible_paths: tuple[str, ...] | None = None


class Backend(Protocol):
    """A place where scripts run. One file each in `backends/`.

    Every method may raise `ServiceError` or `BackendError`. For `submit` the kind matters: `Offline` says "no answer
    came, the job may exist" and makes the service look it up; every other error says that surely nothing was started.
    """

    @property
    def name(self) -> str: ...
    @property
    def capabilities(self) -> Capabilities: ...

    async def hardware(self) -> Sequence[Hardware]:
        """What can be asked for, the default first."""
        ...

    async def submit(self, submission: Submission) -> JobHandle:
        """Start the job, marked with its ``job_id`` so that `find` can see it. Idempotent where the backend can."""
        ...

    async def find(self, job_id: str) -> JobHandle | None:
        """The handle of a submission whose answer never came, or None if the backend has no such job."""
        ...

    async def status(self, handle: JobHandle) -> BackendStatus:
        """The state now. A job that the backend does not know any more is ``lost``."""
        ...

    async def logs(self, handle: JobHandle, cursor: str | None) -> LogChunk:
        """New log output since ``cursor`` (None: from the start); unused where ``shares_files``."""
        ...

    async def cancel(self, handle: JobHandle, *, reason: str) -> None:
        """Ask for the end of the job and return; `status` tells when it is over. Harmless on a finished job."""
        ...


@runtime_checkable
class FinishingBackend(Backend, Protocol):
    """A backend whose running jobs can be given a file."""

    async def finish(self, handle: JobHandle) -> None:
        """Write an empty file `finish` into the job's output folder: a rendered training ends by it, and saves.

        Raises:
            BadInput: no way leads to that folder from here.
        """
        ...


@dataclass(frozen=True)
class StartedRun:
    """A run that a schedule has started, and when (Unix seconds)."""

    handle: JobHandle
    at: float


@runtime_checkable
class SchedulingBackend(Backend, Protocol):
    """A backend that can also start a job by itself at set times.

    A submission with a schedule gives the handle of the schedule. Its `status` is ``queued`` while there is one and
    ``cancelled`` when it was deleted; `cancel` deletes it and ends what it has started.
    """

    async def runs(self, handle: JobHandle) -> Sequence[StartedRun]:
        """What the schedule has started so far, oldest first."""
        ...

    async def end_schedule(self, handle: JobHandle) -> None:
        """Delete the schedule; what it has started goes on. Harmless if it is gone."""
        ...


@dataclass(frozen=True)
class ForeignJob:
    """A job that this workspace did not submit, as its backend describes it.

    Attributes:
        reference: what the backend calls it; for Hugging Face ``NAMESPACE/ID``.
        name: what its owner calls it.
        details: (label, value) pairs for the person who decides about it.
        identity: what tells it from another job that the backend calls the same, such as when it was submitted.
    """

    backend: str
    reference: str
    name: str
    state: JobState
    details: tuple[tuple[str, str], ...] = ()
    identity: str = ""

    @property
    def job_id(self) -> str:
        return f"{self.backend}:{self.reference}"


@runtime_checkable
class SharedBackend(Backend, Protocol):
    """A backend on which others run jobs too, and on which they can be ended from here."""

    async def foreign(self, reference: str) -> ForeignJob:
        """The job that the backend calls ``reference``.

        Raises:
            BadInput: the backend calls no job like that. NotFound: it knows none of that name.
        """
        ...

    async def cancel_foreign(self, job: ForeignJob) -> None:
        """Ask for its end and return."""
        ...


@runtime_checkable
class Billed(Protocol):
    """A backend whose jobs are paid for by an account with a name."""

    async def payer(self) -> str:
        """The account that a job planned now would be billed to. May raise `ServiceError`."""
        ...
