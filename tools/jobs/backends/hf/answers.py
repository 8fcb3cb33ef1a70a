"""What Hugging Face says of jobs, hardware and tokens, in our words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlintern.tools.jobs.backend import BackendStatus
from mlintern.tools.jobs.backends.script_launch import ENDED, KILLED
from mlintern.tools.jobs.hardware import Hardware
from mlintern.tools.jobs.prices import HF_JOBS
from mlintern.tools.jobs.spec import JobState

if TYPE_CHECKING:
    from huggingface_hub import JobInfo

STAGES: Mapping[str, JobState] = {
    "SCHEDULING": "queued",
    "RUNNING": "running",
    "COMPLETED": "succeeded",
    "CANCELED": "cancelled",
    "CANCELLED": "cancelled",
    "ERROR": "failed",
    "DELETED": "lost",
}


def status_of(info: JobInfo, *, limit: float | None) -> BackendStatus:
    """``limit`` is when the script gets TERM: before the service's own limit, which says "Job timeout"."""
    stage = str(getattr(info.status.stage, "value", info.status.stage))
    state = STAGES.get(stage, "running")
    message = str(info.status.message or "")
    said = re.search(r"exit code: (\d+)", message)
    exit_code = int(said[1]) if said else (0 if state == "succeeded" else None)
    ran_out = limit is not None and info.durations and (info.durations.running_secs or 0) >= limit
    if state == "failed" and (
        "job timeout" in message.lower() or exit_code == ENDED or (exit_code == KILLED and ran_out)
    ):
        state = "timed_out"
    durations = info.durations
    running = float(durations.running_secs) if durations and durations.running_secs is not None else None
    waited = f" for {durations.scheduling_secs:.0f} s" if durations and durations.scheduling_secs is not None else ""
    return BackendStatus(
        state=state,
        started_at=info.started_at.timestamp() if info.started_at else None,
        finished_at=info.finished_at.timestamp() if info.finished_at else None,
        run_seconds=running,
        billed_seconds=_billed_seconds(info, state),
        exit_code=exit_code,
        error=(message or stage) if state in ("failed", "timed_out", "lost") else None,
        detail=f"{stage}{waited if state == 'queued' else ''}{': ' + message if message else ''}",
        url=info.url,
    )


def _billed_seconds(info: JobInfo, state: JobState) -> float | None:
    """What is paid for so far; None: nobody can tell. Waiting is free, and what was cancelled before it ran."""
    durations = info.durations
    running: float | None = durations.running_secs if durations else None
    if running is None and info.started_at is not None and info.finished_at is not None:
        running = max(0.0, (info.finished_at - info.started_at).total_seconds())
    if state == "queued" or (state == "cancelled" and info.started_at is None and not running):
        return 0.0
    if running is None and state not in ("failed", "timed_out"):
        return None
    waited = durations.scheduling_secs if durations else None
    before = HF_JOBS.starting_seconds if waited is None else waited
    return HF_JOBS.billed(running or 0.0, before=before)


def described(info: Any) -> Hardware | None:
    """None if it is not clear what an hour costs."""
    accelerator = info.accelerator
    hours = {"second": 3600, "minute": 60, "hour": 1}.get(info.unit_label)
    if hours is None:
        return None
    return Hardware(
        name=info.name,
        backend="hf_jobs",
        cpus=_amount(info.cpu),
        memory_gib=_amount(info.ram),
        accelerator=accelerator.model if accelerator else None,
        accelerators=int(accelerator.quantity) if accelerator else 0,
        accelerator_memory_gib=_amount(accelerator.vram) if accelerator else None,
        usd_per_hour=round(info.unit_cost_micro_usd * hours / 1e6, 4),
        note=info.pretty_name,
    )


def missing_right(who: Mapping[str, Any], namespace: str) -> str:
    """Why the token that ``whoami`` describes may not start jobs for ``namespace``; empty if nothing says so."""
    token = who.get("auth", {}).get("accessToken", {})
    if token.get("role") == "read":
        return "may only read"
    if token.get("role") != "fineGrained":
        return ""
    scopes = token.get("fineGrained", {}).get("scoped", [])
    mine = [scope for scope in scopes if scope.get("entity", {}).get("name") == namespace]
    allowed = any("job.write" in scope.get("permissions", []) for scope in mine)
    return "" if allowed else f"lacks the right job.write for {namespace}"


def _amount(text: str | None) -> float | None:
    found = re.match(r"\s*([\d.]+)", text or "")
    return float(found[1]) if found else None
