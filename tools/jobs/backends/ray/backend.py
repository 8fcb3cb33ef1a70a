"""Ray, by the REST API of its job server; ray itself is not installed here.

The script travels as a working directory. The job's id is Ray's submission id, so a submission cannot happen twice.
Ray has no time limit of its own: coreutils' ``timeout`` holds it, on the node. Nor does it tell when a job that had
to wait began to run (its ``start_time`` is that of the submission), so the job prints it as its first line.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio

from mlintern.common.clock import iso
from mlintern.tools.config import RayHardware, RaySettings
from mlintern.tools.errors import BackendError, BadInput, NotFound
from mlintern.tools.jobs.backend import BackendStatus, Capabilities, ForeignJob, LogChunk, Submission
from mlintern.tools.jobs.backends.ray.package import STARTED, archive_of
from mlintern.tools.jobs.backends.ray.rest import REQUEST_SECONDS, RayRest, date_of, json_of
from mlintern.tools.jobs.backends.script_launch import ENDED, GRACE_SECONDS, SAMPLES_IN_LOG, processes_for
from mlintern.tools.jobs.hardware import Hardware
from mlintern.tools.jobs.spec import FINAL, JobHandle, JobState

if TYPE_CHECKING:
    import httpx2

HEAD_BYTES = 64 * 1024
"""Ray writes a few lines of its own before a job's first one, which is looked for in so much of its log."""

STATES: Mapping[str, JobState] = {
    "PENDING": "queued",
    "RUNNING": "running",
    "STOPPED": "cancelled",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
}


class RayBackend:
    """`mlintern.tools.jobs.spec.Backend` on a Ray cluster."""

    name = "ray"

    def __init__(
        self,
        *,
        settings: RaySettings,
        transport: httpx2.AsyncBaseTransport | None = None,
        grace_seconds: int = GRACE_SECONDS,
    ) -> None:
        """``grace_seconds`` is how long a script that got TERM at its limit has before it is killed."""
        kept = settings.folder is not None
        here = urlsplit(settings.url).hostname in ("localhost", "127.0.0.1", "::1")
        self.capabilities = Capabilities(
            lookup_seconds=0.0,
            poll_seconds=2.0,
            keeps_output=kept,
            visible_paths=None if here else (settings.folder,) if settings.folder else (),
        )
        self._settings = settings
        self._grace_seconds = grace_seconds
        self._rest = RayRest(url=settings.url, token=settings.token, transport=transport)
        self._started: dict[str, float] = {}

    async def hardware(self) -> Sequence[Hardware]:
        """The configured names, else ``default`` (one CPU), with what the cluster has in all as its note."""
        if self._settings.hardware:
            return [_described(name, hardware) for name, hardware in self._settings.hardware.items()]
        answer = await self._rest.ask("GET", "/api/cluster_status")
        usage = _deep(answer, "data", "clusterStatus", "loadMetricsReport", "usage") or {}
        parts = [f"{used[1]:g} {name} ({used[0]:g} used)" for name, used in usage.items() if name in ("CPU", "GPU")]
        note = f"the cluster has {', '.join(parts)}; " if parts else ""
        return [_described("default", RayHardware(), note=f"{note}configure [ray.hardware] to reserve GPUs")]

    async def submit(self, submission: Submission) -> JobHandle:
        """Upload the working directory, then start the job under its own id."""
        if submission.secrets and not self._settings.send_secrets:
            names = ", ".join(submission.secrets)
            raise BadInput(
                f"Ray shows a job's environment to everyone who can see its dashboard, so {names} is not sent.",
                next_step="Set it on the cluster and leave it out of secrets, or set send_secrets in [ray].",
            )
        hardware = self._hardware(submission.spec.hardware)
        package = await self._upload(
            archive_of(
                submission,
                launch=self._settings.launch,
                processes=processes_for(submission.script, int(hardware.gpus)),
                output=self._output(submission.job_id),
                grace_seconds=self._grace_seconds,
            )
        )
        body: dict[str, Any] = {
            "entrypoint": "bash run.sh",
            "submission_id": submission.job_id,
            "metadata": {"mlintern_job": submission.job_id, "script": submission.spec.script_id},
            "runtime_env": {
                "working_dir": package,
                "env_vars": {
                    **dict(submission.spec.env),
                    **submission.secrets,
                    **SAMPLES_IN_LOG,
                    "MLINTERN_JOB_ID": submission.job_id,
                    "PYTHONUNBUFFERED": "1",
                },
            },
            "entrypoint_num_cpus": hardware.cpus,
        }
        if hardware.gpus:
            body["entrypoint_num_gpus"] = hardware.gpus
        if hardware.memory_gib:
            body["entrypoint_memory"] = int(hardware.memory_gib * 2**30)
        if hardware.resources:
            body["entrypoint_resources"] = dict(hardware.resources)
        try:
            await self._rest.ask("POST", "/api/jobs/", body=body)
        except BackendError:
            if (known := await self.find(submission.job_id)) is not None:  # it was submitted before
                return known
            raise
        return JobHandle(self.name, submission.job_id)

    async def find(self, job_id: str) -> JobHandle | None:
        try:
            await self._rest.ask("GET", f"/api/jobs/{job_id}")
        except NotFound:
            return None
        return JobHandle(self.name, job_id)

    async def status(self, handle: JobHandle) -> BackendStatus:
        """Ray's state; an entry point that ``timeout`` had to end is ``timed_out``."""
        try:
            answer = await self._rest.answer("GET", f"/api/jobs/{handle.reference}")
        except NotFound:
            return BackendStatus(state="lost", error="Ray knows no such job; was the cluster started anew?")
        job = json_of(answer, holding="status")
        state = STATES.get(str(job["status"]), "running")
        exit_code = job.get("driver_exit_code")
        if state == "failed" and exit_code == ENDED:
            state = "timed_out"
        message = str(job.get("message") or "")
        if state == "timed_out":
            message = "The time-out was reached; the script was ended."
        submitted, ended = _seconds(job.get("start_time")), _seconds(job.get("end_time"))
        began, known = await self._began(handle.reference) if state != "queued" else (None, True)
        if began is not None and submitted is not None:
            began = max(began, submitted)  # the clock of its node may be behind that of the head
        if state in FINAL and not known:  # its node is gone: it ran, and for how long nobody can tell
            began, ended = submitted, None
        until = ended if state in FINAL else date_of(answer)
        never = 0.0 if state in FINAL and known else None
        return BackendStatus(
            state=state,
            started_at=began,
            finished_at=ended,
            run_seconds=max(0.0, until - began) if until and began else never,
            exit_code=0 if state == "succeeded" else exit_code,
            error=None
            if state in ("succeeded", "cancelled")
            else message.partition(", last available logs")[0] or None,
            detail=message if state in ("queued", "running") else "",
            url=self._rest.address(f"/#/jobs/{handle.reference}"),
            output=self._output(handle.reference),
        )

    async def logs(self, handle: JobHandle, cursor: str | None) -> LogChunk:
        """Ray gives a job's whole log at once; what was seen before is cut off here."""
        try:
            answer = json_of(await self._rest.answer("GET", f"/api/jobs/{handle.reference}/logs"), holding="logs")
        except NotFound:
            return LogChunk(b"", cursor or "0")
        data = str(answer["logs"]).encode(errors="replace")  # a script may print half characters
        return LogChunk(data[int(cursor or 0) :], str(max(len(data), int(cursor or 0))), complete=True)

    async def cancel(self, handle: JobHandle, *, reason: str) -> None:
        """Ask Ray to stop it. A job that still waits for resources ends only when its turn comes, as it starts."""
        await self._rest.ask("POST", f"/api/jobs/{handle.reference}/stop")

    async def finish(self, handle: JobHandle) -> None:
        output = self._output(handle.reference)
        if output is None or not await anyio.Path(output).is_dir():
            raise BadInput(
                "The output folder of this job cannot be reached from here, so it cannot be told to save.",
                next_step="For later jobs, set folder in [ray] of config.toml to storage that this machine shares "
                "with it. max_minutes of a recipe ends training by the clock.",
            )
        await anyio.Path(output, "finish").touch()

    async def foreign(self, reference: str) -> ForeignJob:
        """The job of that submission id, submitted by any user."""
        if not re.fullmatch(r"[\w-]+", reference):
            raise BadInput(f"{reference!r} names no job of Ray.", next_step="Give ray:SUBMISSION_ID.")
        try:
            job = await self._rest.ask("GET", f"/api/jobs/{reference}")
        except NotFound as error:
            raise NotFound(f"Ray knows no job {reference}.", next_step="Ray's dashboard lists them.") from error
        began = _seconds(job.get("start_time"))
        details = [("Created", iso(began) if began else ""), ("Command", str(job.get("entrypoint") or ""))]
        return ForeignJob(
            backend=self.name,
            reference=reference,
            name=str((job.get("metadata") or {}).get("name") or reference),
            state=STATES.get(str(job["status"]), "running"),
            details=tuple((label, value) for label, value in details if value),
            identity=str(job.get("start_time") or ""),
        )

    async def cancel_foreign(self, job: ForeignJob) -> None:
        await self.cancel(JobHandle(self.name, job.reference), reason="")

    async def examine(self) -> str:
        """Which Ray answers, and what outlives a job there.

        Raises:
            Offline, Blocked, BackendError: what is missing.
        """
        version = await self._rest.ask("GET", "/api/version")
        if not isinstance(version, dict) or "ray_version" not in version:
            raise BackendError(
                f"{self._settings.url} answers, but not as Ray's job server does.",
                next_step="Set url in [ray] of config.toml to the dashboard's address.",
            )
        kept = (
            f"output in {self._settings.folder}" if self._settings.folder else "no folder: output ends with the job"
        )
        return f"Ray {version['ray_version']} at {self._settings.url}; {kept}"

    def _output(self, job_id: str) -> str | None:
        """The job's output folder on shared storage; None if there is none."""
        folder = self._settings.folder
        return f"{folder.rstrip('/')}/{job_id}/output" if folder else None

    def _hardware(self, name: str) -> RayHardware:
        known = self._settings.hardware or {"default": RayHardware()}
        if name not in known:
            raise BadInput(f"Ray hardware {name!r} is not configured.", next_step=f"Known: {', '.join(known)}.")
        return known[name]

    async def _upload(self, archive: bytes) -> str:
        name = f"_ray_pkg_{hashlib.sha256(archive).hexdigest()[:16]}.zip"
        try:
            await self._rest.ask("GET", f"/api/packages/gcs/{name}")
        except NotFound:
            await self._rest.ask("PUT", f"/api/packages/gcs/{name}", content=archive)
        return f"gcs://{name}"

    async def _began(self, job_id: str) -> tuple[float | None, bool]:
        """When the job itself began, Unix seconds, from the head of its log, and whether the log could tell.

        A log that can be read and has no such line is that of a job that has not begun.
        """
        import httpx2

        if job_id in self._started:
            return self._started[job_id], True
        head, whole = b"", True
        try:
            async with (
                httpx2.AsyncClient(transport=self._rest.transport, timeout=REQUEST_SECONDS) as client,
                client.stream(
                    "GET", self._rest.address(f"/api/jobs/{job_id}/logs"), headers=self._rest.headers()
                ) as answer,
            ):
                async for data in answer.aiter_bytes():
                    head += data
                    if STARTED.search(head) or len(head) > HEAD_BYTES:
                        whole = False
                        break
        except httpx2.TransportError as error:
            raise self._rest.offline(error) from error
        if answer.is_success and (found := STARTED.search(head)):
            self._started[job_id] = float(found[1])
            return self._started[job_id], True
        return None, answer.is_success and whole


def _described(name: str, hardware: RayHardware, *, note: str = "") -> Hardware:
    return Hardware(
        name=name,
        backend="ray",
        cpus=hardware.cpus,
        memory_gib=hardware.memory_gib,
        accelerator=hardware.gpu_type or ("gpu" if hardware.gpus else None),
        accelerators=int(hardware.gpus),
        accelerator_memory_gib=hardware.gpu_memory_gib,
        usd_per_hour=hardware.usd_per_hour,
        note=note,
    )


def _seconds(milliseconds: Any) -> float | None:
    return milliseconds / 1000 if isinstance(milliseconds, int | float) else None


def _deep(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
