"""Scheduled Jobs of Hugging Face: made, found, looked at, deleted; and the jobs that they have started.

The service starts a scheduled job for as long as there is the schedule. What bounds it is put into its command: from
its last moment on a run ends at once, also when no mlintern is there to delete the schedule.
"""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

from mlintern.common.clock import iso
from mlintern.tools.errors import BackendError
from mlintern.tools.jobs.backend import BackendStatus, StartedRun
from mlintern.tools.jobs.spec import JobHandle, Schedule

if TYPE_CHECKING:
    from huggingface_hub import HfApi, JobInfo

Ask = Callable[..., Awaitable[Any]]
"""(question, *, doing) -> the answer: `HfJobsBackend._ask`."""

LABEL = "mlintern"

MOST_JOBS_LOOKED_AT = 1_000
"""Jobs of a namespace among which the runs of a schedule are looked for, where they came without its label."""


def not_after(until: float) -> str:
    """Shell text in front of a scheduled command: does nothing from ``until`` (Unix seconds) on."""
    said = shlex.quote(f"mlintern: this schedule was over at {iso(until)}; nothing was run.")
    return f'if [ "$(date +%s)" -ge {until:.0f} ]; then echo {said}; exit 0; fi; '


async def create(ask: Ask, request: dict[str, Any], *, schedule: Schedule, name: str, job_id: str) -> JobHandle:
    """Make the schedule: ``request`` has the arguments of `HfApi.run_job`. One run at a time."""
    info = await ask(
        lambda api: api.create_scheduled_job(schedule=schedule.cron, concurrency=False, **request),
        doing="make the schedule",
    )
    return _handle(name, info.id, namespace=request["namespace"], job_id=job_id)


async def find(ask: Ask, *, name: str, namespace: str, job_id: str) -> JobHandle | None:
    """The schedule of the submission ``job_id``, or None."""
    found = await ask(
        lambda api: api.list_scheduled_jobs(labels={LABEL: job_id}, namespace=namespace), doing="look the schedule up"
    )
    return _handle(name, found[0].id, namespace=namespace, job_id=job_id) if found else None


async def status(ask: Ask, handle: JobHandle) -> BackendStatus | None:
    """``queued`` with the time of its next run; None if the service has no such schedule (any more)."""
    from huggingface_hub.errors import JobNotFoundError

    try:
        info = await ask(
            lambda api: api.inspect_scheduled_job(
                scheduled_job_id=handle.reference, namespace=handle.details["namespace"]
            ),
            doing="read the schedule",
        )
    except BackendError as error:
        if isinstance(error.__cause__, JobNotFoundError):
            return None
        raise
    following = info.status.next_job_run_at.timestamp() if info.status.next_job_run_at else None
    if info.suspend:
        detail = "it was suspended at Hugging Face"
    else:
        detail = f"the next starts at {iso(following)}" if following else ""
    return BackendStatus(state="queued", run_seconds=0.0, detail=detail, next_at=following)


async def runs(ask: Ask, handle: JobHandle, *, handle_of: Callable[[JobInfo], JobHandle]) -> list[StartedRun]:
    """What the schedule has started, oldest first: by what the service says, and its last job in any case.

    Its label only narrows the question: a job that a person started again by hand carries it too, and is no run.
    Where the last job came without the label, all jobs of the namespace are looked through.
    """
    namespace, job_id = handle.details["namespace"], handle.details["job_id"]

    def look(api: HfApi) -> list[JobInfo]:
        labelled = api.list_jobs(labels={LABEL: job_id}, namespace=namespace)
        found = {job.id: job for job in labelled if _started_by(job, handle, label=job_id)}
        last = _last_job(api, handle)
        if last is not None and last not in found:
            every = islice(api.list_jobs(namespace=namespace), MOST_JOBS_LOOKED_AT)
            found |= {job.id: job for job in every if _started_by(job, handle, label=job_id)}
        if last is not None and last not in found:
            found[last] = api.inspect_job(job_id=last, namespace=namespace)
        return list(found.values())

    def run(job: JobInfo) -> StartedRun:
        return StartedRun(handle_of(job), at=job.created_at.timestamp() if job.created_at else 0.0)

    jobs = await ask(look, doing="list what the schedule has started")
    return sorted(map(run, jobs), key=lambda started: (started.at, started.handle.reference))


def _started_by(job: JobInfo, handle: JobHandle, *, label: str) -> bool:
    """Whether the schedule of ``handle`` has started ``job``: by its initiator, else (none is given) by its label."""
    if job.initiator is not None:
        return job.initiator.type == "scheduled-job" and job.initiator.id == handle.reference
    return (job.labels or {}).get(LABEL) == label


def _last_job(api: HfApi, handle: JobHandle) -> str | None:
    from huggingface_hub.errors import JobNotFoundError

    try:
        info = api.inspect_scheduled_job(scheduled_job_id=handle.reference, namespace=handle.details["namespace"])
    except JobNotFoundError:
        return None
    return info.status.last_job.id if info.status.last_job else None


async def delete(ask: Ask, handle: JobHandle) -> None:
    """Delete the schedule; harmless if it is gone."""
    from huggingface_hub.errors import JobNotFoundError

    try:
        await ask(
            lambda api: api.delete_scheduled_job(
                scheduled_job_id=handle.reference, namespace=handle.details["namespace"]
            ),
            doing="delete the schedule",
        )
    except BackendError as error:
        if not isinstance(error.__cause__, JobNotFoundError):
            raise


def _handle(name: str, reference: str, *, namespace: str, job_id: str) -> JobHandle:
    return JobHandle(name, reference, {"schedule": True, "namespace": namespace, "job_id": job_id})
