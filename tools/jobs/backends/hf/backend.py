"""Hugging Face Jobs, through `huggingface_hub` on worker threads.

The job's id is a label, so that a submission whose answer never came is found again.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from mlintern.common.clock import iso
from mlintern.tools.config import HfJobsSettings
from mlintern.tools.errors import BackendError, BadInput, Blocked, MlinternError, NotFound
from mlintern.tools.hub.errors import hub_errors, no_token, shape_errors
from mlintern.tools.jobs.backend import BackendStatus, Capabilities, ForeignJob, LogChunk, StartedRun, Submission
from mlintern.tools.jobs.backends.hf import schedules
from mlintern.tools.jobs.backends.hf.answers import described, missing_right, status_of
from mlintern.tools.jobs.backends.hf.log_stream import read_logs
from mlintern.tools.jobs.backends.hf.request import limit_in, request_for
from mlintern.tools.jobs.backends.hf.schedules import LABEL
from mlintern.tools.jobs.hardware import Hardware
from mlintern.tools.jobs.prices import hf_jobs_fallback
from mlintern.tools.jobs.spec import FINAL, JobHandle

if TYPE_CHECKING:
    from huggingface_hub import HfApi, JobInfo

Result = TypeVar("Result")

REQUEST_SECONDS = 60.0
LIST_SECONDS = 10.0
"""The list of hardware is asked for among those of other backends, and there is a dated one."""


class HfJobsBackend:
    """`mlintern.tools.jobs.spec.Backend` on Hugging Face Jobs.

    Args:
        api: makes the client for one call; its endpoint and token are its own.
    """

    name = "hf_jobs"

    def __init__(self, *, api: Callable[[], HfApi], settings: HfJobsSettings) -> None:
        kept = settings.output is not None
        self.capabilities = Capabilities(
            lookup_seconds=60.0,
            poll_seconds=5.0,
            keeps_output=kept,
            visible_paths=tuple(volume.mount_path for volume in settings.volumes),
        )
        self._api = api
        self._settings = settings
        self._namespace = settings.namespace
        self._over: set[str] = set()
        """Jobs that were seen to be over: their logs end, and are waited for."""

    async def hardware(self) -> Sequence[Hardware]:
        """The live list with its prices; without an account or an answer a dated one, which says so."""
        if not self._api().token:
            return hf_jobs_fallback("set HF_TOKEN for the live list")
        try:
            listed = await self._ask(
                lambda api: api.list_jobs_hardware(), doing="list the hardware", seconds=LIST_SECONDS
            )
        except MlinternError:
            return hf_jobs_fallback()
        dated = {each.name: each for each in hf_jobs_fallback("its live price is not understood")}
        known = (described(each) or dated.get(each.name) for each in listed)
        return [each for each in known if each is not None]

    async def submit(self, submission: Submission) -> JobHandle:
        """``run_job`` with the script inside, always with a time limit; on a schedule, if the job has one."""
        namespace = submission.spec.billed_to or await self._resolved_namespace()
        request = await request_for(
            submission,
            self._settings,
            namespace=namespace,
            accelerators=await self._accelerators(submission.spec.hardware),
            ask=self._ask,
        )
        if submission.spec.schedule is not None:
            return await schedules.create(
                self._ask,
                request,
                schedule=submission.spec.schedule,
                name=self.name,
                job_id=submission.job_id,
            )
        info = await self._ask(lambda api: api.run_job(**request), doing="start the job")
        return self._handle(info, namespace=namespace, output=self._settings.kept_output_of(submission.job_id))

    async def find(self, job_id: str) -> JobHandle | None:
        namespace = await self._resolved_namespace()
        schedule = await schedules.find(self._ask, name=self.name, namespace=namespace, job_id=job_id)
        if schedule is not None:  # first, since what it has started has its label too
            return schedule

        def look(api: HfApi) -> JobInfo | None:
            jobs = api.list_jobs(labels={LABEL: job_id}, namespace=namespace)
            return next((job for job in jobs if (job.labels or {}).get(LABEL) == job_id), None)

        job = await self._ask(look, doing="look the job up")
        kept = self._settings.kept_output_of(job_id)
        return self._handle(job, namespace=namespace, output=kept) if job else None

    async def status(self, handle: JobHandle) -> BackendStatus:
        """The stage as a state; how long it has been scheduling is said, and an unknown stage counts as running."""
        from huggingface_hub.errors import JobNotFoundError

        if handle.details.get("schedule"):
            return await self._status_of_schedule(handle)
        try:
            info = await self._ask(
                lambda api: api.inspect_job(job_id=handle.reference, namespace=handle.details["namespace"]),
                doing="read the job",
            )
        except BackendError as error:
            if not isinstance(error.__cause__, JobNotFoundError):
                raise
            await self._demand_sight_of(handle.details["namespace"])
            return BackendStatus(state="lost", error="Hugging Face knows no such job any more.")
        status = status_of(info, limit=handle.details.get("limit"))
        if status.state in FINAL:
            self._over.add(handle.reference)
        return replace(status, output=handle.details.get("output"))

    async def _status_of_schedule(self, handle: JobHandle) -> BackendStatus:
        status = await schedules.status(self._ask, handle)
        if status is not None:
            return status
        await self._demand_sight_of(handle.details["namespace"])
        return BackendStatus(state="cancelled", run_seconds=0.0, error="The schedule was deleted at Hugging Face.")

    async def runs(self, handle: JobHandle) -> Sequence[StartedRun]:
        """What a schedule has started so far."""
        namespace, job_id = handle.details["namespace"], handle.details["job_id"]

        def handle_of(run: JobInfo) -> JobHandle:
            kept = self._settings.kept_output_of(job_id, run=run.id)
            return self._handle(run, namespace=namespace, output=kept)

        return await schedules.runs(self._ask, handle, handle_of=handle_of)

    async def end_schedule(self, handle: JobHandle) -> None:
        await schedules.delete(self._ask, handle)

    async def logs(self, handle: JobHandle, cursor: str | None) -> LogChunk:
        api = self._api()
        url = f"{api.endpoint}/api/jobs/{handle.details['namespace']}/{handle.reference}/logs"
        over = handle.reference in self._over
        return await read_logs(url, token=str(api.token) if api.token else None, cursor=cursor, over=over)

    async def cancel(self, handle: JobHandle, *, reason: str) -> None:
        if handle.details.get("schedule"):
            await self.end_schedule(handle)
            for run in await self.runs(handle):
                await self.cancel(run.handle, reason=reason)
            return
        if (await self.status(handle)).state in FINAL:
            return
        try:
            await self._ask(
                lambda api: api.cancel_job(job_id=handle.reference, namespace=handle.details["namespace"]),
                doing="cancel the job",
            )
        except BackendError:
            if (await self.status(handle)).state not in FINAL:  # else it ended in between
                raise

    async def foreign(self, reference: str) -> ForeignJob:
        """The job ``NAMESPACE/ID``, submitted by any user."""
        from huggingface_hub.errors import JobNotFoundError

        namespace, _, job_id = reference.partition("/")
        if not namespace or not job_id.isalnum():
            raise BadInput(f"{reference!r} names no job of Hugging Face.", next_step="Give hf_jobs:NAMESPACE/ID.")
        try:
            info = await self._ask(
                lambda api: api.inspect_job(job_id=job_id, namespace=namespace), doing="read the job"
            )
        except BackendError as error:
            if not isinstance(error.__cause__, JobNotFoundError):
                raise
            raise NotFound(
                f"Hugging Face shows this token no job {reference}.",
                next_step="Check its page, and whose token it is.",
            ) from error
        by = info.initiator.name if info.initiator and info.initiator.name else info.owner.name
        command = shlex.join([*(info.command or ()), *(info.arguments or ())])
        details = [
            ("Submitted by", by),
            ("Created", iso(info.created_at.timestamp()) if info.created_at else ""),
            ("Hardware", str(info.flavor or "")),
            ("Command", command),
        ]
        return ForeignJob(
            backend=self.name,
            reference=reference,
            name=(info.labels or {}).get("name") or job_id,
            state=status_of(info, limit=None).state,
            details=tuple((label, value) for label, value in details if value),
        )

    async def cancel_foreign(self, job: ForeignJob) -> None:
        namespace, _, job_id = job.reference.partition("/")
        await self.cancel(JobHandle(self.name, job_id, {"namespace": namespace}), reason="")

    async def payer(self) -> str:
        """The namespace that runs and pays for jobs: the configured one, else the token's own user."""
        return await self._resolved_namespace()

    async def examine(self) -> str:
        """Who pays, and what the token may do; nothing is started.

        Raises:
            ServiceError: what is missing, and how to get it.
        """
        if not self._api().token:
            raise no_token("run jobs")
        who = await self._ask(lambda api: api.whoami(), doing="find out whose token this is")
        namespace = self._settings.namespace or str(who["name"])
        await self._demand_sight_of(namespace)
        lacks = missing_right(who, namespace)
        if lacks:
            raise Blocked(
                f"The token of {who['name']} {lacks}.",
                service="huggingface",
                next_step=f"Make one that may start jobs for {namespace}: huggingface.co/settings/tokens",
            )
        pays = "" if who.get("canPay", True) else "; no way to pay is set: huggingface.co/settings/billing"
        return f"{namespace} pays for jobs, with the token of {who['name']}{pays}"

    def _handle(self, info: JobInfo, *, namespace: str, output: str | None) -> JobHandle:
        """``limit`` is when its script gets TERM, which tells a time-out from a kill; ``output`` what it keeps."""
        details = {"namespace": namespace, "limit": limit_in(info.command), "output": output}
        return JobHandle(self.name, info.id, details)

    async def _accelerators(self, flavor: str) -> int:
        listed = {each.name: each for each in await self.hardware()}
        if flavor not in listed:
            raise BadInput(f"Hugging Face Jobs has no hardware {flavor!r}.", next_step="list_hardware names them.")
        return max(1, listed[flavor].accelerators)

    async def _demand_sight_of(self, namespace: str) -> None:
        """A job is gone only if its namespace can be seen without it: another token sees nothing of it either.

        Raises:
            Blocked: the namespace is not this token's to see.
        """
        try:
            await self._ask(
                lambda api: next(iter(api.list_jobs(namespace=namespace)), None),
                doing=f"list the jobs of {namespace}",
            )
        except BackendError as error:
            raise Blocked(
                f"The token may not see the jobs of {namespace}.",
                service="huggingface",
                next_step=f"Set HF_TOKEN to one of a member of {namespace}, with the right to run jobs.",
            ) from error

    async def _resolved_namespace(self) -> str:
        if self._namespace is None:
            who = await self._ask(lambda api: api.whoami(cache=True), doing="find out whose token this is")
            self._namespace = str(who["name"])
        return self._namespace

    async def _ask(
        self, question: Callable[[HfApi], Result], *, doing: str, seconds: float = REQUEST_SECONDS
    ) -> Result:
        """The answer to ``question``, which runs on a worker thread for ``seconds`` at most.

        Raises:
            Offline: no answer came; what was asked may have been done.
            RateLimited, Blocked, BackendError: it surely was not.
        """
        import anyio
        import anyio.to_thread

        api = self._api()
        if not api.token:
            raise no_token(doing)
        with shape_errors(f"the request to {doing}"), hub_errors(doing, purpose="job"), anyio.fail_after(seconds):
            return await anyio.to_thread.run_sync(question, api, abandon_on_cancel=True)
