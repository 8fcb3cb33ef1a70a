"""Hugging Face Jobs, through `huggingface_hub` on worker threads.

A script goes along compressed in environment variables, which need no upload and no token inside the job; a very
large one goes to a private repository that is mounted at its commit. The job's id is a label, so that a submission
whose answer never came is found again.
"""

from __future__ import annotations

import base64
import gzip
import io
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mlintern.common.clock import iso
from mlintern.tools.errors import BackendError, BadInput, Blocked, MlinternError, NotFound
from mlintern.tools.jobs.backends import hf_schedules
from mlintern.tools.jobs.backends.hf_errors import ask, no_token
from mlintern.tools.jobs.backends.hf_logs import read_logs
from mlintern.tools.jobs.backends.remote_launch import (
    ENDED,
    GRACE_SECONDS,
    KILLED,
    SAMPLES_IN_LOG,
    launch_line,
    limit_seconds,
    processes_for,
)
from mlintern.tools.jobs.inputs import MAX_ARGUMENT_BYTES
from mlintern.tools.jobs.prices import hf_jobs_fallback
from mlintern.tools.jobs.results import Hardware
from mlintern.tools.jobs.spec import (
    FINAL,
    BackendStatus,
    Capabilities,
    ForeignJob,
    JobHandle,
    JobState,
    LogChunk,
    StartedRun,
    Submission,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi, JobInfo

Result = TypeVar("Result")

REQUEST_SECONDS = 60.0
LIST_SECONDS = 10.0
"""The list of hardware is asked for among those of other backends, and there is a dated one."""

LABEL = hf_schedules.LABEL
IMAGE = "ghcr.io/astral-sh/uv:python3.12-bookworm"
"""The image that Hugging Face's own ``hf jobs uv run`` uses: uv, and no CUDA toolkit, which PyTorch brings along."""

PIECE_CHARACTERS = 96 * 1024
"""Linux takes at most 128 KiB in one environment string."""

MAX_PIECES = 4
STAGES: Mapping[str, JobState] = {
    "SCHEDULING": "queued",
    "RUNNING": "running",
    "COMPLETED": "succeeded",
    "CANCELED": "cancelled",
    "CANCELLED": "cancelled",
    "ERROR": "failed",
    "DELETED": "lost",
}


@dataclass(frozen=True)
class HfVolume:
    """A repository or bucket mounted into the job, authorised by whoever submits."""

    type: Literal["bucket", "model", "dataset", "space"]
    source: str
    mount_path: str
    revision: str | None = None
    read_only: bool = True


@dataclass(frozen=True)
class HfJobsSettings:
    """The ``[hf_jobs]`` table of the workspace's ``config.toml``.

    Attributes:
        namespace: who runs and pays for jobs; None is the token's own user.
        image: container image; it must have uv unless ``launch`` names an interpreter.
        launch: the interpreter inside the image, such as ``("python",)``; None uses ``uv run``.
        folder: where inside the container the script lies and works.
        output: a folder on a writable volume that keeps each job's output, below its id. None: what the job neither
            prints nor pushes is gone with it.
        volumes: what is mounted, besides the script's own repository if it needs one.
    """

    namespace: str | None = None
    image: str = IMAGE
    launch: tuple[str, ...] | None = None
    folder: str = "/tmp/mlintern"
    output: str | None = None
    volumes: tuple[HfVolume, ...] = field(default_factory=tuple)


class HfJobsBackend:
    """`mlintern.tools.jobs.spec.Backend` on Hugging Face Jobs.

    Args:
        api: makes the client for one call; its endpoint and token are its own.
    """

    name = "hf_jobs"

    def __init__(self, *, api: Callable[[], HfApi], settings: HfJobsSettings) -> None:
        kept = settings.output is not None
        self.capabilities = Capabilities(lookup_seconds=60.0, poll_seconds=5.0, keeps_output=kept)
        self._api = api
        self._settings = settings
        self._namespace = settings.namespace

    async def hardware(self) -> Sequence[Hardware]:
        """The live list with its prices; without an account or an answer a dated one, which says so."""
        if _token(self._api()) is None:
            return hf_jobs_fallback("set HF_TOKEN for the live list")
        try:
            listed = await self._ask(
                lambda api: api.list_jobs_hardware(), doing="list the hardware", seconds=LIST_SECONDS
            )
        except MlinternError:
            return hf_jobs_fallback()
        dated = {each.name: each for each in hf_jobs_fallback("its live price is not understood")}
        described = (_described(each) or dated.get(each.name) for each in listed)
        return [each for each in described if each is not None]

    async def submit(self, submission: Submission) -> JobHandle:
        """``run_job`` with the script inside, always with a time limit; on a schedule, if the job has one."""
        namespace = submission.spec.billed_to or await self._resolved_namespace()
        request = await self._request(submission, namespace)
        limit = limit_seconds(submission.spec.timeout_seconds)
        if submission.spec.schedule is not None:
            return await hf_schedules.create(
                self._ask,
                request,
                schedule=submission.spec.schedule,
                name=self.name,
                job_id=submission.job_id,
                limit=limit,
            )
        info = await self._ask(lambda api: api.run_job(**request), doing="start the job")
        details = {"namespace": namespace, "limit": limit, "output": self._kept(submission.job_id)}
        return JobHandle(self.name, info.id, details)

    async def _request(self, submission: Submission, namespace: str) -> dict[str, Any]:
        """The arguments of ``run_job`` and ``create_scheduled_job``."""
        from huggingface_hub import Volume

        volumes = [
            Volume(
                type=volume.type,
                source=volume.source,
                mount_path=volume.mount_path,
                revision=volume.revision,
                read_only=volume.read_only,
            )
            for volume in self._settings.volumes
        ]
        pieces = _packed(submission.script.text)
        if len(pieces) <= MAX_PIECES:
            environment = {f"MLINTERN_SCRIPT_{index}": piece for index, piece in enumerate(pieces)}
            unpack = "".join(f'"$MLINTERN_SCRIPT_{index}"' for index in range(len(pieces)))
            fetch = f"printf %s {unpack} | base64 -d | gzip -d > script.py"
        else:
            environment = {}
            volumes.append(await self._uploaded(submission, namespace))
            fetch = f"cp /mlintern-script/{submission.spec.script_id}.py script.py"
        environment |= {
            **dict(submission.spec.env),
            **SAMPLES_IN_LOG,
            "MLINTERN_JOB_ID": submission.job_id,
            "MLINTERN_OUTPUT_DIR": self._output(submission.job_id),
            "PYTHONUNBUFFERED": "1",
            "UV_NO_PROGRESS": "1",
        }
        accelerators = await self._accelerators(submission.spec.hardware)
        processes = processes_for(submission.script, accelerators)
        command = self._command(submission, fetch=fetch, processes=processes)
        if len(command.encode()) >= MAX_ARGUMENT_BYTES:
            raise BadInput(
                "The arguments together are over 128 KiB, which no container could be started with.",
                next_step="Put them in a dataset, or in the script.",
            )
        return {
            "image": self._settings.image,
            "command": ["/bin/sh", "-c", command],
            "env": environment,
            "secrets": dict(submission.secrets) or None,
            "flavor": submission.spec.hardware,
            "timeout": math.ceil(submission.spec.timeout_seconds),
            "labels": {LABEL: submission.job_id},
            "volumes": volumes or None,
            "namespace": namespace,
        }

    async def find(self, job_id: str) -> JobHandle | None:
        namespace = await self._resolved_namespace()
        schedule = await hf_schedules.find(self._ask, name=self.name, namespace=namespace, job_id=job_id)
        if schedule is not None:  # first, since what it has started has its label too
            return schedule

        def look(api: HfApi) -> JobInfo | None:
            jobs = api.list_jobs(labels={LABEL: job_id}, namespace=namespace)
            return next((job for job in jobs if (job.labels or {}).get(LABEL) == job_id), None)

        job = await self._ask(look, doing="look the job up")
        details = {"namespace": namespace, "output": self._kept(job_id)}
        return JobHandle(self.name, job.id, details) if job else None

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
        return replace(_status(info, limit=handle.details.get("limit")), output=handle.details.get("output"))

    async def _status_of_schedule(self, handle: JobHandle) -> BackendStatus:
        status = await hf_schedules.status(self._ask, handle)
        if status is not None:
            return status
        await self._demand_sight_of(handle.details["namespace"])
        return BackendStatus(state="cancelled", run_seconds=0.0, error="The schedule was deleted at Hugging Face.")

    async def runs(self, handle: JobHandle) -> Sequence[StartedRun]:
        """What a schedule has started so far."""
        job_id = handle.details["job_id"]
        return await hf_schedules.runs(self._ask, handle, output=lambda run: self._kept(job_id, run=run))

    async def end_schedule(self, handle: JobHandle) -> None:
        await hf_schedules.delete(self._ask, handle)

    async def logs(self, handle: JobHandle, cursor: str | None) -> LogChunk:
        api = self._api()
        url = f"{api.endpoint}/api/jobs/{handle.details['namespace']}/{handle.reference}/logs"
        return await read_logs(url, token=_token(api), cursor=cursor)

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
        """The job ``NAMESPACE/ID`` of whoever submitted it."""
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
            state=_status(info, limit=None).state,
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
        if _token(self._api()) is None:
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

    def _output(self, job_id: str, *, run: str = "") -> str:
        """Where a job writes. The runs of a schedule, by their own ids, do not share a folder: none goes on with the
        checkpoints of another."""
        base = self._settings.output
        folder = f"{base.rstrip('/')}/{job_id}" if base else self._settings.folder
        return f"{folder}/{run}/output" if run else f"{folder}/output"

    def _kept(self, job_id: str, *, run: str = "") -> str | None:
        return self._output(job_id, run=run) if self._settings.output else None

    def _command(self, submission: Submission, *, fetch: str, processes: int) -> str:
        """What the container runs: the script from a file, so that it has a path and can start workers."""
        seconds = limit_seconds(submission.spec.timeout_seconds)
        folder = self._settings.folder
        line = launch_line(
            self._settings.launch, script=f"{folder}/script.py", args=submission.spec.args, processes=processes
        )
        begin = "set -e; "
        if submission.until is not None:
            begin += hf_schedules.not_after(submission.until)
            if self._settings.output:  # on a volume, which all runs of a schedule see; the service sets JOB_ID
                begin += 'MLINTERN_OUTPUT_DIR="${MLINTERN_OUTPUT_DIR%/output}/${JOB_ID:?}/output"; '
        return (
            f'{begin}mkdir -p {shlex.quote(folder)} "$MLINTERN_OUTPUT_DIR"; cd {shlex.quote(folder)}; '
            f"{fetch}; exec timeout -k {GRACE_SECONDS} {seconds:g} /bin/sh -c {shlex.quote(line)}"
        )

    async def _uploaded(self, submission: Submission, namespace: str) -> Any:
        """The script in a private repository, as a volume at the commit that holds just it."""
        from huggingface_hub import Volume

        repository = f"{namespace}/mlintern-scripts"

        def upload(api: HfApi) -> str:
            api.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
            commit = api.upload_file(
                path_or_fileobj=io.BytesIO(submission.script.text.encode()),
                path_in_repo=f"{submission.spec.script_id}.py",
                repo_id=repository,
                repo_type="dataset",
                commit_message=f"Script {submission.spec.script_id}",
            )
            return str(commit.oid)

        revision = await self._ask(upload, doing="upload the script")
        return Volume(type="dataset", source=repository, mount_path="/mlintern-script", revision=revision)

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
        return await ask(question, self._api(), doing=doing, seconds=seconds)


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


def _status(info: JobInfo, *, limit: float | None) -> BackendStatus:
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
        exit_code=exit_code,
        error=(message or stage) if state in ("failed", "timed_out", "lost") else None,
        detail=f"{stage}{waited if state == 'queued' else ''}{': ' + message if message else ''}",
        url=info.url,
    )


def _packed(text: str) -> list[str]:
    packed = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
    return [packed[start : start + PIECE_CHARACTERS] for start in range(0, len(packed), PIECE_CHARACTERS)]


def _described(info: Any) -> Hardware | None:
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


def _amount(text: str | None) -> float | None:
    found = re.match(r"\s*([\d.]+)", text or "")
    return float(found[1]) if found else None


def _token(api: HfApi) -> str | None:
    from huggingface_hub import get_token

    return api.token if isinstance(api.token, str) else (get_token() if api.token is not False else None)
