"""Waiting for a job while its progress is reported to the host."""

from __future__ import annotations

import contextlib

import anyio
from mcp.server.mcpserver import Context

from mlintern.server.services import Lab
from mlintern.tools.errors import MlinternError
from mlintern.tools.jobs.job_results import JobStatus

PROGRESS_EVERY_SECONDS = 5.0


async def wait_with_progress(
    lab: Lab, ctx: Context[Lab], *, job_id: str, wait_seconds: float, since: str | None
) -> JobStatus:
    """`poll` with a progress notification every few seconds for hosts that show it; for others it is sent nowhere."""
    outcome: JobStatus | MlinternError
    known = since or lab.last_polls.get(job_id)
    if not wait_seconds:
        return await lab.jobs.poll(job_id, since=known, only_new=since is not None)
    async with anyio.create_task_group() as group:
        group.start_soon(_report_progress, lab, ctx, job_id, wait_seconds)
        try:
            outcome = await lab.jobs.poll(job_id, wait_seconds=wait_seconds, since=known, only_new=since is not None)
        except MlinternError as error:
            outcome = error  # raised outside, where it is not wrapped into a group
        group.cancel_scope.cancel()
    if isinstance(outcome, MlinternError):
        raise outcome
    return outcome


async def _report_progress(lab: Lab, ctx: Context[Lab], job_id: str, wait_seconds: float) -> None:
    """The call's progress is the time it has waited, which only ever grows; the job's own stands in the message."""
    began = lab.clock.monotonic()
    with contextlib.suppress(MlinternError):  # the poll beside this one says what is wrong
        while True:
            status = await lab.jobs.poll(job_id)
            await ctx.report_progress(lab.clock.monotonic() - began, wait_seconds, in_short(status))
            await lab.clock.sleep(PROGRESS_EVERY_SECONDS)


def in_short(status: JobStatus) -> str:
    """``running, step 40 of 180`` or ``queued, 2 jobs ahead in the queue``."""
    if status.progress is None:
        return f"{status.state}, {status.detail}" if status.detail else status.state
    total = f" of {status.progress.total}" if status.progress.total else ""
    return f"{status.state}, step {status.progress.step}{total}"
