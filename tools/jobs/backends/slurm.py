"""Slurm, by its own commands: ``sbatch``, ``squeue --json``, ``scontrol``, ``sacct``, ``scancel``.

The batch script carries the script, so nothing but the commands has to reach the cluster (``prefix`` may be an ssh).
Slurm forgets finished jobs after ``MinJobAge`` and many clusters keep no accounting, so the batch script writes what
happened to a file of ours, which is believed first.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlintern.tools.errors import BackendError, BadInput, Offline
from mlintern.tools.jobs.backends.remote_launch import launch_line
from mlintern.tools.jobs.results import Hardware
from mlintern.tools.jobs.spec import BackendStatus, Capabilities, JobHandle, JobState, LogChunk, Submission

COMMAND_SECONDS = 30.0
"""How long one command may take, an ssh included."""

LOG_CHUNK_BYTES = 1 << 20
CHECKPOINT_SECONDS = 120
"""A job with more than twice this gets TERM so long before its limit, to write a checkpoint; shorter ones get it at
their limit."""

PASSED_ON = "HOME,PATH,USER,LOGNAME,SHELL,LANG,HF_HOME,UV_CACHE_DIR,SSL_CERT_FILE,SSL_CERT_DIR,HTTPS_PROXY,NO_PROXY"

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


@dataclass(frozen=True)
class SlurmHardware:
    """What one name in ``list_hardware`` asks Slurm for; empty fields are left to the cluster's defaults."""

    partition: str = ""
    gpus: int = 0
    gpu_type: str = ""
    gpu_memory_gib: float | None = None
    cpus: int = 0
    memory: str = ""
    usd_per_hour: float = 0.0
    options: tuple[str, ...] = ()
    """Further ``sbatch`` options, such as ``("--account=lab",)``."""


@dataclass(frozen=True)
class SlurmSettings:
    """The ``[slurm]`` table of the workspace's ``config.toml``.

    Attributes:
        prefix: put before every command, such as ``("ssh", "login1")``.
        folder: where job folders lie on the cluster; None uses the workspace's own, which compute nodes must see.
        launch: the interpreter, such as ``("/envs/train/bin/python",)``; None uses ``uv run``.
        modules: names for ``module load``.
        prologue: shell lines run before the script.
        hardware: names to ask for; without any, every partition is one.
    """

    prefix: tuple[str, ...] = ()
    folder: str | None = None
    launch: tuple[str, ...] | None = None
    modules: tuple[str, ...] = ()
    prologue: str = ""
    hardware: Mapping[str, SlurmHardware] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables for Slurm's commands themselves, such as ``SLURM_CONF``."""


class SlurmBackend:
    """`mlintern.tools.jobs.spec.Backend` on a Slurm cluster."""

    name = "slurm"

    def __init__(self, *, settings: SlurmSettings) -> None:
        self._settings = settings
        self.capabilities = Capabilities(
            shares_files=settings.folder is None and not settings.prefix, lookup_seconds=30.0, poll_seconds=5.0
        )

    async def hardware(self) -> Sequence[Hardware]:
        """The configured names, else the partitions that ``sinfo`` lists."""
        configured = self._settings.hardware
        if configured:
            return [_described(name, hardware) for name, hardware in configured.items()]
        out = await self._command(["sinfo", "-h", "-o", "%P|%c|%m|%G|%l|%a"])
        rows = [line.split("|") for line in out.splitlines() if line.count("|") == 5]
        rows.sort(key=lambda row: not row[0].endswith("*"))  # the default partition first
        return [
            Hardware(
                name=partition.rstrip("*"),
                backend=self.name,
                cpus=_number(cpus),
                memory_gib=_number(memory) and round(_number(memory) / 1024, 1),
                note=f"partition, {availability}, limit {limit}, GPUs: {gpus}; configure [slurm.hardware] for GPUs",
            )
            for partition, cpus, memory, gpus, limit, availability in rows
        ]

    async def submit(self, submission: Submission) -> JobHandle:
        """``sbatch`` with the script inside. The job claims its folder as it starts, so that it cannot run twice."""
        # Values travel in sbatch's own environment, never on a command line. Behind an ssh prefix, which does not
        # pass them on, the names pick up what the cluster's environment holds.
        exported = ",".join([PASSED_ON, *submission.secrets])
        folder = self._folder(submission)
        options = [
            f"--job-name={submission.job_id}",
            f"--comment={submission.job_id}",
            f"--output={folder}/log.txt",
            "--open-mode=append",
            "--no-requeue",
            f"--chdir={folder}/work",
            f"--export={exported}",
            f"--signal=B:TERM@{CHECKPOINT_SECONDS}",
            f"--time={math.ceil((submission.spec.timeout_seconds + CHECKPOINT_SECONDS) / 60) + 1}",
            *self._resources(submission.spec.hardware),
        ]
        make = shlex.join(["mkdir", "-p", f"{folder}/work", f"{folder}/output"])
        line = f"{make} && exec {shlex.join(['sbatch', '--parsable', *options])}"
        out = await self._command(
            ["sh", "-c", line],
            stdin=self._batch_script(submission, folder).encode(),
            environment=dict(submission.secrets),
            may_have_happened=True,
        )
        reference = out.strip().splitlines()[-1].split(";")[0] if out.strip() else ""
        if not reference.isdigit():
            raise BackendError(f"sbatch answered {out.strip()[:300]!r} instead of a job number.")
        return JobHandle(self.name, reference, {"folder": folder})

    async def find(self, job_id: str) -> JobHandle | None:
        """By the job's name, which is its id; ``squeue`` shows finished jobs too while Slurm remembers them."""
        out = await self._command(["squeue", "--json", "--states=all"])
        for job in _jobs(out, name=job_id):
            folder = str(Path(str(job.get("current_working_directory", ""))).parent)
            return JobHandle(self.name, str(job["job_id"]), {"folder": folder})
        return None

    async def status(self, handle: JobHandle) -> BackendStatus:
        """Our own record of the end if there is one, else what Slurm says; neither means ``lost``."""
        number = handle.reference
        record = shlex.quote(f"{handle.details['folder']}/slurm_record")
        line = (
            f"cat {record} 2>/dev/null; echo; echo @squeue; squeue --json --states=all 2>/dev/null; echo;"
            f" echo @scontrol; scontrol show job -o {number} 2>/dev/null; echo @sacct;"
            f" sacct -X -n -P -j {number} -o State,ExitCode 2>/dev/null; true"
        )
        out = await self._command(["sh", "-c", line])
        recorded, _, rest = out.partition("@squeue")
        squeue, _, rest = rest.partition("@scontrol")
        scontrol, _, sacct = rest.partition("@sacct")
        ours = _Record.read(recorded)
        theirs = _first_state(_jobs(squeue, job_id=int(number)), scontrol=scontrol, sacct=sacct)
        return _status(ours, *theirs)

    async def logs(self, handle: JobHandle, cursor: str | None) -> LogChunk:
        start = int(cursor or 0)
        path = shlex.quote(f"{handle.details['folder']}/log.txt")
        line = f"tail -c +{start + 1} {path} 2>/dev/null | head -c {LOG_CHUNK_BYTES} | base64 -w0"
        data = base64.b64decode(await self._command(["sh", "-c", line]))
        return LogChunk(data, str(start + len(data)))

    async def cancel(self, handle: JobHandle, *, reason: str) -> None:
        """Say in our record that it is a cancellation, then ``scancel``; TERM reaches the script first."""
        record = shlex.quote(f"{handle.details['folder']}/slurm_record")
        line = f"echo cancel $(date +%s) >> {record} 2>/dev/null; exec scancel --full {handle.reference}"
        await self._command(["sh", "-c", line])

    def _folder(self, submission: Submission) -> str:
        base = self._settings.folder
        return f"{base.rstrip('/')}/{submission.job_id}" if base else str(submission.folder)

    def _resources(self, name: str) -> list[str]:
        hardware = self._settings.hardware.get(name)
        if hardware is None:
            if self._settings.hardware:
                raise BadInput(
                    f"Slurm hardware {name!r} is not configured.",
                    next_step=f"Known: {', '.join(self._settings.hardware)}.",
                )
            hardware = SlurmHardware(partition=name)
        gpus = f"{hardware.gpu_type}:{hardware.gpus}" if hardware.gpu_type else str(hardware.gpus)
        asked = {
            "--partition": hardware.partition,
            "--gres": f"gpu:{gpus}" if hardware.gpus else "",
            "--cpus-per-task": str(hardware.cpus or ""),
            "--mem": hardware.memory,
        }
        return [*(f"{option}={value}" for option, value in asked.items() if value), *hardware.options]

    def _batch_script(self, submission: Submission, folder: str) -> str:
        spec, settings = submission.spec, self._settings
        hardware = settings.hardware.get(spec.hardware, SlurmHardware())
        early = CHECKPOINT_SECONDS if spec.timeout_seconds > 2 * CHECKPOINT_SECONDS else 0
        environment = {
            **dict(spec.env),
            "MLINTERN_JOB_ID": submission.job_id,
            "MLINTERN_OUTPUT_DIR": f"{folder}/output",
            "PYTHONUNBUFFERED": "1",
        }
        return _BATCH.format(
            folder=shlex.quote(folder),
            script=base64.b64encode(submission.script.text.encode()).decode(),
            environment="\n".join(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
            modules="\n".join(f"module load {shlex.quote(module)}" for module in settings.modules),
            prologue=settings.prologue,
            seconds=f"{max(1.0, spec.timeout_seconds - early):g}",
            grace=CHECKPOINT_SECONDS,
            launch=shlex.quote(
                launch_line(
                    settings.launch, script=f"{folder}/script.py", args=spec.args, processes=max(1, hardware.gpus)
                )
            ),
        )

    async def _command(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        environment: Mapping[str, str] | None = None,
        may_have_happened: bool = False,
    ) -> str:
        """Standard output of a command on the cluster.

        Raises:
            Offline: no answer in time, or ssh did not get through: what was asked may have been done.
            BackendError: the command ran and refused, or is not installed.
        """
        import anyio

        prefix = self._settings.prefix
        command = [*prefix, shlex.join(argv)] if prefix else list(argv)
        surroundings = {**os.environ, **self._settings.environment, **(environment or {})}
        try:
            with anyio.fail_after(COMMAND_SECONDS):
                done = await anyio.run_process(command, input=stdin or b"", check=False, env=surroundings)
        except FileNotFoundError as error:
            raise BackendError(
                f"{command[0]} is not installed on this machine.",
                next_step="Install Slurm's client commands, or set prefix in [slurm] of config.toml to reach them.",
            ) from error
        except TimeoutError as error:
            raise Offline(
                f"{argv[0]} did not answer in {COMMAND_SECONDS:g} s.", service=self.name, next_step="Ask again later."
            ) from error
        out, complaint = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace").strip()
        if done.returncode == 0:
            return out
        unreachable = done.returncode == 255 and bool(prefix)
        if unreachable or "Unable to contact slurm controller" in complaint or "Socket timed out" in complaint:
            raise Offline(f"The cluster did not answer: {complaint[-300:]}", service=self.name)
        raise BackendError(f"{argv[0]} failed ({done.returncode}): {complaint[-500:] or out[-500:]}")


_BATCH = """\
#!/bin/bash
umask 077
folder={folder}
cd "$folder/work" || exit 1
record() {{ echo "$@" >> "$folder/slurm_record"; sync "$folder/slurm_record" 2>/dev/null; }}
if ! mkdir "$folder/claimed" 2>/dev/null; then
    echo "mlintern: this job was already started; it does not run twice." >&2
    exit 0
fi
trap 'code=$?; record exit $code $(date +%s)' EXIT
record start "$(date +%s)" "$SLURM_JOB_ID"
base64 -d > "$folder/script.py" <<'MLINTERN_SCRIPT'
{script}
MLINTERN_SCRIPT
{environment}
{modules}
{prologue}
timeout --verbose --kill-after={grace} {seconds} bash -c {launch} &
child=$!
trap 'record term "$(date +%s)"; kill -TERM "$child" 2>/dev/null' TERM
wait "$child"
code=$?
while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done
[ "$code" = 124 ] && record term "$(date +%s)"
exit "$code"
"""


@dataclass(frozen=True)
class _Record:
    """What the batch script and `SlurmBackend.cancel` wrote down. Times are Unix seconds."""

    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    cancelled: bool = False
    terminated: bool = False

    @classmethod
    def read(cls, text: str) -> _Record:
        words = [line.split() for line in text.splitlines() if line.strip()]
        start = next((float(each[1]) for each in words if each[0] == "start"), None)
        end = next((each for each in words if each[0] == "exit" and len(each) == 3), None)
        return cls(
            started=start,
            ended=float(end[2]) if end else None,
            exit_code=int(end[1]) if end else None,
            cancelled=any(each[0] == "cancel" for each in words),
            terminated=any(each[0] == "term" for each in words),
        )


def _status(ours: _Record, theirs: str | None, reason: str) -> BackendStatus:
    seconds = ours.ended - ours.started if ours.started and ours.ended else None
    if ours.exit_code is not None:
        state: JobState = "succeeded" if ours.exit_code == 0 else "failed"
        if ours.cancelled:
            state = "cancelled"
        elif ours.terminated:
            state = "timed_out"
        return BackendStatus(
            state=state,
            started_at=ours.started,
            finished_at=ours.ended,
            run_seconds=seconds,
            exit_code=ours.exit_code,
            error="the time limit was reached; TERM was sent in time for a checkpoint"
            if state == "timed_out"
            else (f"exit code {ours.exit_code}" if state == "failed" else None),
            detail=theirs or "",
        )
    if theirs is None:
        return BackendStatus(
            state="cancelled" if ours.cancelled else "lost",
            started_at=ours.started,
            error=None if ours.cancelled else "Slurm knows no such job and it left no record of its end.",
        )
    state = STATES.get(theirs, "running")
    detail = f"{theirs}: {reason}" if reason and reason not in ("None", "(null)") else theirs
    error = None
    if state in ("failed", "timed_out"):
        error = f"{detail}. {ADVICE.get(theirs, '')}".strip()
    return BackendStatus(state=state, started_at=ours.started, run_seconds=seconds, error=error, detail=detail)


def _first_state(queued: list[dict[str, Any]], *, scontrol: str, sacct: str) -> tuple[str | None, str]:
    """Slurm's state and its reason, from whichever of the three still knows the job."""
    for job in queued:
        state = job["job_state"]
        return (state if isinstance(state, str) else state[0]), str(job.get("state_reason", ""))
    if found := re.search(r"JobState=(\S+) Reason=(\S+)", scontrol):
        return found[1], found[2]
    if found := re.search(r"^([A-Z_]+)", sacct.strip()):
        return found[1], ""
    return None, ""


def _jobs(text: str, **wanted: str | int) -> list[dict[str, Any]]:
    """The jobs in ``squeue --json``'s answer that have the ``wanted`` values.

    Filtered here: the JSON of Slurm 22 holds every job, whatever ``-j`` or ``--name`` ask for.
    """
    try:
        jobs: list[dict[str, Any]] = json.loads(text)["jobs"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return []
    return [job for job in jobs if all(job.get(key) == value for key, value in wanted.items())]


def _described(name: str, hardware: SlurmHardware) -> Hardware:
    memory = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", hardware.memory, re.IGNORECASE)
    scale = {"K": 1 / 1024**2, "M": 1 / 1024, "": 1 / 1024, "G": 1.0, "T": 1024.0}
    return Hardware(
        name=name,
        backend="slurm",
        cpus=hardware.cpus or None,
        memory_gib=float(memory[1]) * scale[memory[2].upper()] if memory else None,
        accelerator=hardware.gpu_type or ("gpu" if hardware.gpus else None),
        accelerators=hardware.gpus,
        accelerator_memory_gib=hardware.gpu_memory_gib,
        usd_per_hour=hardware.usd_per_hour,
        note=f"partition {hardware.partition}" if hardware.partition else "",
    )


def _number(text: str) -> float:
    found = re.match(r"\d+(?:\.\d+)?", text)
    return float(found[0]) if found else 0.0
