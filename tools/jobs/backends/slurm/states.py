"""From what Slurm and the job's own record say to the state of a job."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mlintern.tools.jobs.backend import BackendStatus
from mlintern.tools.jobs.backends.slurm.batch import TAKEN, Record
from mlintern.tools.jobs.spec import FINAL, JobState

STATES: Mapping[str, JobState] = {
    "PENDING": "queued",
    "REQUEUED": "queued",
    "REQUEUE_HOLD": "queued",
    "REQUEUE_FED": "queued",
    "SPECIAL_EXIT": "queued",
    "RESV_DEL_HOLD": "queued",
    "EXPEDITING": "queued",
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
    "LAUNCH_FAILED": "failed",
    "RECONFIG_FAIL": "failed",
    "OUT_OF_MEMORY": "failed",
    "PREEMPTED": "failed",
    "REVOKED": "failed",
    "CANCELLED": "cancelled",
    "TIMEOUT": "timed_out",
    "DEADLINE": "timed_out",
}
"""What ``scontrol`` and ``sacct`` call it, in old releases and new ones. Any other word is taken to be a state of a
job that still runs, which only a final one ends."""

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
STARTED_AGAIN = (
    "Slurm ended it and put it back into the queue, but a job of mlintern never runs twice; submit again under"
    " another run_name."
)
FORGOTTEN = "Invalid job id"
"""What Slurm answers about a job that it does not know. Any other silence says nothing about the job."""

NO_ACCOUNTS_NOW = ("talking to the database", "persistent connection", "PersistInit", "Unable to contact")
"""What ``sacct`` says when there is accounting that does not answer."""

UNNAMED = "allocation"
"""What ``sacct`` calls a job of whose end alone the accounts heard, since slurmdbd was away when it started."""

ACCOUNTS_BEHIND_SECONDS = 600.0
"""How long after a job's limit the accounts may still hear of its end."""

VERDICT_SECONDS = 60.0
"""How long a failed script waits for Slurm to say why: that its memory was used up, that its node was taken."""


@dataclass(frozen=True)
class Known:
    """What Slurm itself says about a job. Times are Unix seconds.

    Attributes:
        state: None: it has forgotten the job.
        silent: it did not answer, so that ``state`` says nothing.
        run_seconds: whole seconds that it counts, suspensions left out, over all attempts; None if it cannot tell.
    """

    state: str | None = None
    reason: str = ""
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    run_seconds: float | None = None
    silent: bool = False

    @classmethod
    def read(cls, *, scontrol: str, sacct: str, name: str, now: float) -> Known:
        """From ``scontrol show job -o``, or from ``sacct`` about a job that the former has forgotten.

        Args:
            name: the job's name. A cluster that was started anew counts from 1 again, so that the number alone may
                be another job's.
            now: Unix seconds by the cluster's clock.
        """
        jobs = shown_jobs(scontrol)
        for job in jobs:
            if job.get("JobName") == name:
                return cls(
                    state=job["JobState"],
                    reason=job.get("Reason", ""),
                    started=moment(job.get("StartTime")),
                    ended=moment(job.get("EndTime")),
                    exit_code=_exit_code(job.get("ExitCode", "")),
                    run_seconds=_duration(job.get("RunTime", "")) if job.get("Restarts", "0") == "0" else None,
                )
        if not jobs and FORGOTTEN not in scontrol:
            return cls(silent=True)
        every = [row for row in (line.split("|") for line in sacct.splitlines()) if len(row) == 7]
        rows = [row for row in every if row[0] == name] or [row for row in every if row[0] == UNNAMED]
        return _accounted(rows, now=now) if rows else cls(silent=any(words in sacct for words in NO_ACCOUNTS_NOW))


def shown_jobs(scontrol: str) -> list[dict[str, str]]:
    """The jobs of ``scontrol show job -o``, a line each, by field; a value ends at its first space."""
    shown = (line for line in scontrol.splitlines() if line.startswith("JobId="))
    return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in shown]


def _accounted(rows: list[list[str]], *, now: float) -> Known:
    """A row for each time that Slurm started the job; the last one counts, and all of them were paid for."""
    _, state, exit_code, started, ended, _, limit = rows[-1]
    state, start, end = state.split(" ")[0], moment(started), moment(ended)
    if STATES.get(state, "running") in FINAL:
        seconds = sum(float(row[5]) for row in rows if row[5].isdigit())
        return Known(state, started=start, ended=end, exit_code=_exit_code(exit_code), run_seconds=seconds)
    # The controller, who would know, has forgotten it: the accounts are behind, or its end never reached them.
    behind = start is not None and limit.isdigit() and now < start + 60.0 * float(limit) + ACCOUNTS_BEHIND_SECONDS
    return Known(silent=behind)


def status_of(ours: Record, theirs: Known, *, now: float) -> BackendStatus:
    """The job's own record of its end if there is one, else what Slurm says; neither means ``lost``.

    Args:
        now: Unix seconds by the cluster's clock.
    """
    if ours.exit_code is not None:
        return _recorded(ours, theirs, now=now)
    if theirs.state is None:
        return BackendStatus(
            state="cancelled" if ours.cancelled and ours.started is None else "lost",
            started_at=ours.started,
            error=None
            if ours.cancelled and ours.started is None
            else "Slurm knows no such job any more and it left no record of its end.",
        )
    state = STATES.get(theirs.state, "running")
    detail = _with_reason(theirs)
    started = ours.started or (theirs.started if state != "queued" else None)
    ended = theirs.ended if state in FINAL else None
    error = None
    if state in ("failed", "timed_out"):
        again = theirs.exit_code == TAKEN and ours.started is not None
        error = f"{detail}. {STARTED_AGAIN if again else ADVICE.get(theirs.state, '')}".strip()
    elif state == "cancelled" and not ours.cancelled:
        error = ENDED_BY_OTHERS
    elif state == "queued":
        detail = f"{detail}. {PENDING_ADVICE.get(theirs.reason, '')}".removesuffix(". ")
    until = ended or (now if state == "running" else None)
    return BackendStatus(
        state=state,
        started_at=started,
        finished_at=ended,
        run_seconds=_paid(started, until, theirs),
        exit_code=theirs.exit_code if state in ("succeeded", "failed") else None,
        error=error,
        detail=detail,
    )


def _recorded(ours: Record, theirs: Known, *, now: float) -> BackendStatus:
    known_why = ours.cancelled or ours.limited or (ours.exit_code == 0 and not ours.terminated)
    still = theirs.state is not None and STATES.get(theirs.state, "running") == "running"
    if still and not known_why and now - (ours.ended or 0.0) < VERDICT_SECONDS:
        return BackendStatus(
            state="running",
            started_at=ours.started,
            run_seconds=_paid(ours.started, ours.ended, theirs),
            detail=f"{theirs.state}: the script ended with exit code {ours.exit_code}; Slurm has not said yet why.",
        )
    state: JobState = "succeeded" if ours.exit_code == 0 else "failed"
    error = None if state == "succeeded" else f"exit code {ours.exit_code}"
    if ours.cancelled and (ours.terminated or ours.exit_code != 0):
        state, error = "cancelled", None
    elif ours.limited:
        state, error = "timed_out", "The time limit was reached; TERM was sent in time for a checkpoint."
    elif ours.terminated:
        state, error = _ended_from_outside(theirs)
    elif state == "failed" and theirs.state in ADVICE:
        error = f"{_with_reason(theirs)}. {ADVICE[theirs.state]}"
    return BackendStatus(
        state=state,
        started_at=ours.started,
        finished_at=ours.ended,
        run_seconds=_paid(ours.started, ours.ended, theirs),
        exit_code=ours.exit_code,
        error=error,
        detail=theirs.state or "",
    )


def _paid(started: float | None, until: float | None, theirs: Known) -> float | None:
    """Seconds from ``started`` to ``until`` less suspensions, which only Slurm's own count of whole seconds has."""
    if started is None or until is None:
        return None
    seconds = max(0.0, until - started)
    return seconds if theirs.run_seconds is None else min(seconds, theirs.run_seconds + 1.0)


def _ended_from_outside(theirs: Known) -> tuple[JobState, str]:
    """TERM came, but neither from us nor at our limit: what Slurm calls it, or that somebody ended it."""
    state = STATES.get(theirs.state or "", "cancelled")
    if state == "queued" or theirs.exit_code == TAKEN:
        return "failed", STARTED_AGAIN
    if state in ("failed", "timed_out") and theirs.state is not None:
        return state, f"{_with_reason(theirs)}. {ADVICE.get(theirs.state, '')}".strip()
    return "cancelled", ENDED_BY_OTHERS


def _with_reason(known: Known) -> str:
    return f"{known.state}: {known.reason}" if known.reason not in ("", "None", "(null)") else str(known.state)


def _exit_code(text: str) -> int | None:
    """Of Slurm's ``code:signal``, as a shell would say it. None for what is neither, such as its 0:125 for memory."""
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if not found:
        return None
    code, number = int(found[1]), int(found[2])
    return code if code or not number else 128 + number if number <= _LAST_SIGNAL else None


_LAST_SIGNAL = 64


def moment(text: str | None) -> float | None:
    """A time under ``SLURM_TIME_FORMAT=%s``; ``Unknown``, ``None`` and ``N/A`` are none."""
    return float(text) if text and text.isdigit() and int(text) > 0 else None


def _duration(text: str) -> float | None:
    """Seconds of ``[days-]hours:minutes:seconds``."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
