"""Ray, by the REST API of its job server; ray itself is not installed here.

The script travels as a working directory. The job's id is Ray's submission id, so a submission cannot happen twice.
Ray has no time limit of its own: coreutils' ``timeout`` holds it, on the node.
"""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlintern.tools.errors import BackendError, BadInput, Blocked, NotFound, Offline
from mlintern.tools.jobs.backends.remote_launch import launch_line
from mlintern.tools.jobs.results import Hardware
from mlintern.tools.jobs.spec import BackendStatus, Capabilities, JobHandle, JobState, LogChunk, Submission

if TYPE_CHECKING:
    import httpx

REQUEST_SECONDS = 30.0
GRACE_SECONDS = 120
"""Between TERM and KILL at the time limit; a job with more than twice this gets TERM so long before its limit."""

TIMED_OUT = 124
"""What ``timeout`` exits with when it had to end the command."""

STATES: Mapping[str, JobState] = {
    "PENDING": "queued",
    "RUNNING": "running",
    "STOPPED": "cancelled",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
}


@dataclass(frozen=True)
class RayHardware:
    """What one name in ``list_hardware`` reserves for the job's entry point."""

    cpus: float = 1.0
    gpus: float = 0.0
    gpu_type: str = ""
    gpu_memory_gib: float | None = None
    memory_gib: float | None = None
    usd_per_hour: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RaySettings:
    """The ``[ray]`` table of the workspace's ``config.toml``; ``url`` is also ``MLINTERN_RAY_URL``.

    Attributes:
        url: base URL of the job server, such as ``http://head:8265``.
        token: bearer token, for a proxy in front of it.
        folder: shared storage for job folders (``<folder>/<job_id>/output``). None: the output stays in Ray's own
            temporary working directory, and only what is printed or pushed to the Hub outlives the job.
        launch: the interpreter, such as ``("/envs/train/bin/python",)``; None uses ``uv run``.
        send_secrets: pass values of secrets in the job's environment, which Ray shows to everyone who can see its
            dashboard.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    folder: str | None = None
    launch: tuple[str, ...] | None = None
    send_secrets: bool = False
    hardware: Mapping[str, RayHardware] = field(default_factory=dict)


class RayBackend:
    """`mlintern.tools.jobs.spec.Backend` on a Ray cluster."""

    name = "ray"
    capabilities = Capabilities(shares_files=False, lookup_seconds=0.0, poll_seconds=2.0)

    def __init__(self, *, settings: RaySettings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._settings = settings
        self._transport = transport

    async def hardware(self) -> Sequence[Hardware]:
        """The configured names, else ``default`` (one CPU), with what the cluster has in all as its note."""
        if self._settings.hardware:
            return [_described(name, hardware) for name, hardware in self._settings.hardware.items()]
        answer = await self._ask("GET", "/api/cluster_status")
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
        package = await self._upload(self._archive(submission, processes=max(1, int(hardware.gpus))))
        body: dict[str, Any] = {
            "entrypoint": "bash run.sh",
            "submission_id": submission.job_id,
            "metadata": {"mlintern_job": submission.job_id, "script": submission.spec.script_id},
            "runtime_env": {
                "working_dir": package,
                "env_vars": {
                    **dict(submission.spec.env),
                    **submission.secrets,
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
            await self._ask("POST", "/api/jobs/", body=body)
        except BackendError:
            if (known := await self.find(submission.job_id)) is not None:  # it was submitted before
                return known
            raise
        return JobHandle(self.name, submission.job_id)

    async def find(self, job_id: str) -> JobHandle | None:
        try:
            await self._ask("GET", f"/api/jobs/{job_id}")
        except NotFound:
            return None
        return JobHandle(self.name, job_id)

    async def status(self, handle: JobHandle) -> BackendStatus:
        """Ray's state; an entry point that ``timeout`` had to end is ``timed_out``."""
        try:
            job = await self._ask("GET", f"/api/jobs/{handle.reference}")
        except NotFound:
            return BackendStatus(state="lost", error="Ray knows no such job; was the cluster started anew?")
        state = STATES.get(str(job["status"]), "running")
        exit_code = job.get("driver_exit_code")
        if state == "failed" and exit_code == TIMED_OUT:
            state = "timed_out"
        message = str(job.get("message") or "")
        started, ended = (_seconds(job.get(key)) for key in ("start_time", "end_time"))
        return BackendStatus(
            state=state,
            started_at=started if state != "queued" else None,
            finished_at=ended,
            run_seconds=ended - started if started and ended else None,
            exit_code=0 if state == "succeeded" else exit_code,
            error=message.partition(", last available logs")[0] if state in ("failed", "timed_out") else None,
            detail=message if state in ("queued", "running") else "",
            url=f"{self._settings.url.rstrip('/')}/#/jobs/{handle.reference}",
        )

    async def logs(self, handle: JobHandle, cursor: str | None) -> LogChunk:
        """Ray gives a job's whole log at once; what was seen before is cut off here."""
        try:
            answer = await self._ask("GET", f"/api/jobs/{handle.reference}/logs")
        except NotFound:
            return LogChunk(b"", cursor or "0")
        data = str(answer["logs"]).encode()
        return LogChunk(data[int(cursor or 0) :], str(max(len(data), int(cursor or 0))))

    async def cancel(self, handle: JobHandle, *, reason: str) -> None:
        """Ask Ray to stop it. A job that still waits for resources is ended when its turn comes, without running."""
        await self._ask("POST", f"/api/jobs/{handle.reference}/stop")

    def _hardware(self, name: str) -> RayHardware:
        known = self._settings.hardware or {"default": RayHardware()}
        if name not in known:
            raise BadInput(f"Ray hardware {name!r} is not configured.", next_step=f"Known: {', '.join(known)}.")
        return known[name]

    def _archive(self, submission: Submission, *, processes: int) -> bytes:
        seconds = submission.spec.timeout_seconds
        early = GRACE_SECONDS if seconds > 2 * GRACE_SECONDS else 0
        folder = self._settings.folder
        output = shlex.quote(f"{folder.rstrip('/')}/{submission.job_id}/output") if folder else '"$PWD/output"'
        line = launch_line(self._settings.launch, script="script.py", args=submission.spec.args, processes=processes)
        run = (
            f"export MLINTERN_OUTPUT_DIR={output}\n"
            'mkdir -p "$MLINTERN_OUTPUT_DIR" || exit 1\n'
            f"exec timeout --kill-after={GRACE_SECONDS} {max(1.0, seconds - early):g} bash -c {shlex.quote(line)}\n"
        )
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in (("script.py", submission.script.text), ("run.sh", run)):
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)  # same content, same name below
        return buffer.getvalue()

    async def _upload(self, archive: bytes) -> str:
        name = f"_ray_pkg_{hashlib.sha256(archive).hexdigest()[:16]}.zip"
        try:
            await self._ask("GET", f"/api/packages/gcs/{name}")
        except NotFound:
            await self._ask("PUT", f"/api/packages/gcs/{name}", content=archive)
        return f"gcs://{name}"

    async def _ask(self, method: str, path: str, *, body: Any = None, content: bytes | None = None) -> Any:
        """The JSON of an answer ({} for an empty one).

        Raises:
            NotFound: 404. Blocked: 401 or 403. BackendError: another refusal.
            Offline: no answer: what was asked may have been done.
        """
        import httpx

        headers = {"authorization": f"Bearer {self._settings.token}"} if self._settings.token else {}
        url = f"{self._settings.url.rstrip('/')}{path}"
        try:
            async with httpx.AsyncClient(transport=self._transport, timeout=REQUEST_SECONDS) as client:
                answer = await client.request(method, url, headers=headers, json=body, content=content)
        except httpx.TransportError as error:
            raise Offline(
                f"Ray at {self._settings.url} does not answer: {type(error).__name__} {error}".rstrip(),
                service=self.name,
                next_step="Check that the cluster is up and that url in [ray] of config.toml is its dashboard.",
            ) from error
        if answer.status_code == 404:
            raise NotFound(f"Ray has no {path}.")
        if answer.status_code in (401, 403):
            raise Blocked("Ray refuses us; set token in [ray].", service=self.name, http_status=answer.status_code)
        if answer.is_error:
            last = answer.text.strip().splitlines()[-1:] or [""]
            raise BackendError(f"Ray refused {method} {path} ({answer.status_code}): {last[0][:300]}")
        try:
            return json.loads(answer.content or b"{}") if method != "PUT" and "/packages/" not in path else {}
        except json.JSONDecodeError as error:
            raise BackendError(f"{url} answers, but not as Ray's job server does.") from error


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
