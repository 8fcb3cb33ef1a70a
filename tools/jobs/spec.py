"""What a job is: its states, its specification, and the seam between the service and a compute backend."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, Self, get_args, runtime_checkable

from mlintern.tools.jobs.job_results import Hardware

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled", "timed_out", "lost"]
STATES: tuple[JobState, ...] = get_args(JobState)
FINAL: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled", "timed_out", "lost"})


def may_follow(state: JobState, following: JobState) -> bool:
    """Whether a job recorded in ``state`` may be recorded as ``following`` next. Final states are final.

    A queued job may end without ever having been seen to run: it was short, or cancelled, or refused.
    """
    if state in FINAL:
        return False
    return following in FINAL or (state == "queued" and following == "running")


@dataclass(frozen=True)
class Schedule:
    """When a backend starts a job again and again by itself, and how often at most.

    ``cron`` is five fields in UTC or a name such as ``@daily`` (`mlintern.tools.jobs.cron`).
    """

    cron: str
    runs: int


@dataclass(frozen=True)
class RunOf:
    """Of which schedule a job is a run: the schedule's ``job_id``, and the backend's own name of the run."""

    schedule: str
    reference: str


@dataclass(frozen=True)
class JobSpec:
    """Everything that decides what a job does, where, and at what worst cost.

    With a ``schedule`` it is many runs, each of which becomes a job of its own with ``run_of`` once it has started;
    ``timeout_seconds`` is that of each.

    ``env`` holds plain values and ``secrets`` the names of variables whose values the job gets without their ever
    being written down. ``usd_per_hour`` and ``usd_worst`` (time-out times price, of all runs) say what was known at
    planning; they are not part of the digest, so that a changed price list does not make a second job of the same
    one. ``billed_to`` is the account that pays, where the backend knows one; another account is another job.
    """

    script_id: str
    script_sha256: str
    backend: str
    hardware: str
    timeout_seconds: float
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()
    experiment: str | None = None
    run_name: str | None = None
    usd_per_hour: float = 0.0
    usd_worst: float = 0.0
    schedule: Schedule | None = None
    run_of: RunOf | None = None
    billed_to: str | None = None

    @cached_property
    def digest(self) -> str:
        """32 hex of the SHA-256 of the canonical JSON of the specification: what a person's consent is bound to."""
        identity = asdict(self)
        del identity["usd_per_hour"], identity["usd_worst"]
        for name in ("schedule", "run_of", "billed_to"):  # what a job may lack leaves the ids of others as they were
            if identity[name] is None:
                del identity[name]
        canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]

    @property
    def job_id(self) -> str:
        """``job-`` and the first 12 hex of the digest: the same specification is the same job, in every server."""
        return f"job-{self.digest[:12]}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        known = dict(value)
        known["args"] = tuple(known["args"])
        known["env"] = tuple((name, text) for name, text in known["env"])
        known["secrets"] = tuple(known["secrets"])
        known["schedule"] = Schedule(**known["schedule"]) if known.get("schedule") else None
        known["run_of"] = RunOf(**known["run_of"]) if known.get("run_of") else None
        return cls(**known)


@dataclass(frozen=True)
class JobHandle:
    """How a backend finds a job again: ``reference`` is its own id for it, ``details`` is JSON of its choosing."""

    backend: str
    reference: str
    details: dict[str, Any] = field(default_factory=dict)


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

    ``until`` is when a schedule is over (Unix seconds): what it starts from then on must do nothing.
    """

    job_id: str
    spec: JobSpec
    script: ScriptFile
    folder: Path
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    until: float | None = None


@dataclass(frozen=True)
class BackendStatus:
    """What a backend knows about a job at this moment.

    Attributes:
        run_seconds: measured (not wall-clock) seconds that are paid for so far, None if the backend cannot tell.
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
    exit_code: int | None = None
    error: str | None = None
    detail: str = ""
    restartable: bool = False
    resources: Mapping[str, float] = field(default_factory=dict)
    url: str | None = None
    output: str | None = None
    next_at: float | None = None


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
        keeps_output: what a job writes into its output folder is there after its end.
    """

    shares_files: bool = False
    lookup_seconds: float = 120.0
    poll_seconds: float = 5.0
    enforces_timeout: bool = True
    keeps_output: bool = True


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
