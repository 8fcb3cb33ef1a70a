"""From what Slurm and the job's own record say to the state of a job."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlintern.tools.jobs.backends.slurm_batch import TAKEN, Record
from mlintern.tools.jobs.spec import FINAL, BackendStatus, JobState

STATES: Mapping[str, JobState] = {
    "PENDING": "queued",
    "REQUEUED": "queued",
    "CONFIGURING": "running",
    "RUNNING": "running",
    "SUSPENDED": "running",
    "STOPPED": "running",
    "SIGNALING": "running",
    "STAGE_OUT": "running",
    "COMPLETING": "running",
    "COMPLETED": "succeeded",
    "FAILED": "failed",
    "BOOT_FAIL": "failed",
    "NODE_FAIL": "failed",
    "OUT_OF_MEMORY": "failed",
    "PREEMPTED": "failed",
    "REVOKED": "failed",
    "CANCELLED": "cancelled",
    "TIMEOUT": "timed_out",
    "DEADLINE": "timed_out",
}
ADVICE = {
    "OUT_OF_MEMORY": "The job used more memory than it had asked for: raise memory of this hardware, or lower batch.",
    "NODE_FAIL": "The node failed; submit again under another run_name.",
    "BOOT_FAIL": "The node did not start; submit again under another run_name.",
    "PREEMPTED": "A job of higher priority took the node; submit again under another run_name.",
}
PENDING_ADVICE = {
    "PartitionTimeLimit": "The timeout is longer than the partition allows, so it will never start: cancel it and"
    " submit with a shorter one.",
    "PartitionNodeLimit": "The partition is too small for it, so it will never start: cancel it.",
    "PartitionDown": "The partition is down; it starts when the cluster's operators bring it up.",
    "ReqNodeNotAvail": "The nodes it needs are down or reserved.",
    "JobHeldUser": "It is held; `scontrol release` lets it start.",
    "JobHeldAdmin": "An operator holds it.",
}


ENDED_BY_OTHERS = "Somebody ended it on the cluster (scancel), not through mlintern."


@dataclass(frozen=True)
class Known:
    """What Slurm itself says about a job; ``state`` None: it has forgotten the job. Times are Unix seconds."""

    state: str | None = None
    reason: str = ""
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None

    @classmethod
    def first(cls, queued: list[dict[str, Any]], *, scontrol: str, sacct: str) -> Known:
        """From whichever of ``squeue --json``, ``scontrol show job -o`` and ``sacct`` still knows it."""
        for job in queued:
            state = job["job_state"]
            return cls(
                state=state if isinstance(state, str) else state[0],
                reason=str(job.get("state_reason", "")),
                started=moment(job.get("start_time")),
                ended=moment(job.get("end_time")),
                exit_code=_exit_code(scontrol),
            )
        if found := re.search(r"JobState=(\S+) Reason=(\S+)", scontrol):
            return cls(state=found[1], reason=found[2], exit_code=_exit_code(scontrol))
        if found := re.search(r"^([A-Z_]+)", sacct.strip()):
            return cls(state=found[1], exit_code=_exit_code(sacct))
        return cls()


def status_of(ours: Record, theirs: Known, *, now: float) -> BackendStatus:
    """The job's own record of its end if there is one, else what Slurm says; neither means ``lost``.

    Args:
        now: Unix seconds by the cluster's clock.
    """
    if ours.exit_code is not None:
        return _recorded(ours, theirs)
    if theirs.state is None:
        return BackendStatus(
            state="cancelled" if ours.cancelled and ours.started is None else "lost",
            started_at=ours.started,
            error=None
            if ours.cancelled and ours.started is None
            else "Slurm knows no such job any more and it left no record of its end.",
        )
    state = STATES.get(theirs.state, "running")
    if state == "succeeded" and theirs.exit_code == TAKEN:
        state = "failed"
    detail = _with_reason(theirs)
    started = ours.started or (theirs.started if state != "queued" else None)
    ended = theirs.ended if state in FINAL else None
    error = None
    if state in ("failed", "timed_out"):
        error = f"{detail}. {ADVICE.get(theirs.state, '')}".strip()
    elif state == "cancelled" and not ours.cancelled:
        error = ENDED_BY_OTHERS
    elif state == "queued":
        detail = f"{detail}. {PENDING_ADVICE.get(theirs.reason, '')}".removesuffix(". ")
    return BackendStatus(
        state=state,
        started_at=started,
        finished_at=ended,
        run_seconds=max(0.0, (ended or now) - started) if started and (ended or state == "running") else None,
        exit_code=theirs.exit_code if state in ("succeeded", "failed") else None,
        error=error,
        detail=detail,
    )


def _recorded(ours: Record, theirs: Known) -> BackendStatus:
    state: JobState = "succeeded" if ours.exit_code == 0 else "failed"
    error = None if state == "succeeded" else f"exit code {ours.exit_code}"
    if ours.cancelled and (ours.terminated or ours.exit_code != 0):
        state, error = "cancelled", None
    elif ours.limited:
        state, error = "timed_out", "The time limit was reached; TERM was sent in time for a checkpoint."
    elif ours.terminated:
        state, error = _ended_from_outside(theirs)
    seconds = max(0.0, ours.ended - ours.started) if ours.started and ours.ended else None
    return BackendStatus(
        state=state,
        started_at=ours.started,
        finished_at=ours.ended,
        run_seconds=seconds,
        exit_code=ours.exit_code,
        error=error,
        detail=theirs.state or "",
    )


def _ended_from_outside(theirs: Known) -> tuple[JobState, str]:
    """TERM came, but neither from us nor at our limit: what Slurm calls it, or that somebody ended it."""
    state = STATES.get(theirs.state or "", "cancelled")
    if state in ("failed", "timed_out") and theirs.state is not None:
        return state, f"{_with_reason(theirs)}. {ADVICE.get(theirs.state, '')}".strip()
    return "cancelled", ENDED_BY_OTHERS


def jobs_in(text: str, **wanted: str | int) -> list[dict[str, Any]]:
    """The jobs in ``squeue --json``'s answer that have the ``wanted`` values.

    Filtered here too: the JSON of Slurm 22 holds every job, whatever ``--jobs`` or ``--name`` ask for.
    """
    try:
        jobs: list[dict[str, Any]] = json.loads(text)["jobs"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return []
    return [job for job in jobs if all(job.get(key) == value for key, value in wanted.items())]


def answered(text: str) -> bool:
    """Whether ``squeue --json`` got its answer from Slurm; without one it succeeds too, with no jobs and errors."""
    try:
        answer = json.loads(text)
    except json.JSONDecodeError:
        return False
    return "jobs" in answer and not answer.get("errors")


def _with_reason(known: Known) -> str:
    return f"{known.state}: {known.reason}" if known.reason not in ("", "None", "(null)") else str(known.state)


def _exit_code(text: str) -> int | None:
    found = re.search(r"(?:ExitCode=|\|)(\d+):\d+", text)
    return int(found[1]) if found else None


def moment(value: Any) -> float | None:
    """A time in Slurm's JSON: a number, or since 23.11 an object that says whether it is set."""
    if isinstance(value, dict):
        value = value.get("number") if value.get("set") else None
    return float(value) if isinstance(value, int | float) and value > 0 else None
