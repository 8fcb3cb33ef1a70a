"""Slurm, by its own commands: ``sbatch``, ``squeue --json``, ``scontrol``, ``sacct``, ``scancel``.

The batch script carries the script, so nothing but the commands has to reach the cluster (``prefix`` may be an ssh).
"""

from __future__ import annotations

import base64
import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlintern.common.clock import iso
from mlintern.tools.errors import BackendError, BadInput, NotFound, Offline
from mlintern.tools.jobs.backends.remote_launch import (
    GRACE_SECONDS,
    SAMPLES_IN_LOG,
    launch_line,
    limit_seconds,
    processes_for,
)
from mlintern.tools.jobs.backends.slurm_batch import RECORD, Record, batch_script
from mlintern.tools.jobs.backends.slurm_states import STATES, Known, answered, jobs_in, moment, status_of
from mlintern.tools.jobs.results import Hardware
from mlintern.tools.jobs.spec import BackendStatus, Capabilities, ForeignJob, JobHandle, LogChunk, Submission
from mlintern.tools.workspace import Workspace

COMMAND_SECONDS = 30.0
"""How long one command may take, an ssh included."""

LOG_CHUNK_BYTES = 1 << 20
PASSED_ON = "HOME,PATH,USER,LOGNAME,SHELL,LANG,HF_HOME,UV_CACHE_DIR,SSL_CERT_FILE,SSL_CERT_DIR,HTTPS_PROXY,NO_PROXY"

FORGOTTEN = "Invalid job id"
"""What Slurm answers about a job that it does not know. Any other silence says nothing about the job."""

UNREACHABLE = ("Unable to contact slurm", "Socket timed out", "Connection refused", "Zero Bytes were transmitted")


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

    def __init__(self, *, settings: SlurmSettings, workspace: Workspace | None = None) -> None:
        """``workspace`` is where job folders lie when ``settings`` name no other place."""
        self._settings = settings
        self._workspace = workspace
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
        folder = self._folder(submission)
        limit = submission.spec.timeout_seconds + GRACE_SECONDS
        options = [
            f"--job-name={submission.job_id}",
            f"--comment={submission.job_id}",
            f"--output={folder}/log.txt",
            "--open-mode=append",
            "--no-requeue",
            f"--chdir={folder}/work",
            f"--export={','.join([PASSED_ON, *submission.secrets])}",
            f"--signal=B:TERM@{GRACE_SECONDS}",
            f"--time={math.ceil(limit / 60) + 1}",
            *self._resources(submission.spec.hardware),
        ]
        # Secrets come as the first lines of the input: no command line shows them, and an ssh prefix carries them.
        read = "".join(
            f'IFS= read -r line && {name}=$(printf %s "$line" | base64 -d) && export {name} || exit 1; '
            for name in submission.secrets
        )
        values = "".join(f"{base64.b64encode(value.encode()).decode()}\n" for value in submission.secrets.values())
        make = shlex.join(["mkdir", "-p", f"{folder}/work", f"{folder}/output"])
        out = await self._command(
            ["sh", "-c", f"{read}{make} && exec {shlex.join(['sbatch', '--parsable', *options])}"],
            stdin=(values + self._batch_script(submission, folder)).encode(),
        )
        reference = out.strip().splitlines()[-1].split(";")[0] if out.strip() else ""
        if not reference.isdigit():
            raise Offline(f"sbatch answered {out.strip()[:300]!r} instead of a job number.", service=self.name)
        return JobHandle(self.name, reference, {"folder": folder})

    async def find(self, job_id: str) -> JobHandle | None:
        """By the job's name, which is its id; when Slurm has forgotten it, by the record that it left."""
        folder = self._known_folder(job_id)
        line = f"squeue --json --states=all --name={job_id}; echo; echo @record;"
        if folder is not None:
            line += f" cat {shlex.quote(f'{folder}/{RECORD}')} 2>/dev/null;"
        squeue, _, recorded = (await self._command(["sh", "-c", f"{line} true"])).partition("@record")
        if not answered(squeue):
            raise Offline("Slurm did not answer squeue.", service=self.name, next_step="Ask again later.")
        claimed = Record.read(recorded).number
        for job in jobs_in(squeue, name=job_id):
            if claimed in (None, str(job["job_id"])):
                there = str(Path(str(job.get("current_working_directory", ""))).parent)
                return JobHandle(self.name, str(job["job_id"]), {"folder": folder or there})
        return JobHandle(self.name, claimed, {"folder": folder}) if claimed else None

    async def status(self, handle: JobHandle) -> BackendStatus:
        """The job's own record of its end if there is one, else what Slurm says; neither means ``lost``.

        Raises:
            Offline: Slurm did not answer, which says nothing about the job.
        """
        number, folder = handle.reference, handle.details["folder"]
        line = (
            f"echo @now; date +%s.%N; cat {shlex.quote(f'{folder}/{RECORD}')} 2>/dev/null; echo;"
            f" echo @squeue; squeue --json --states=all --jobs={number} 2>/dev/null; echo;"
            f" echo @scontrol; scontrol show job -o {number} 2>&1; echo;"
            f" echo @sacct; sacct -X -n -P -j {number} -o State,ExitCode 2>/dev/null; true"
        )
        out = await self._command(["sh", "-c", line])
        recorded, _, rest = out.partition("@now\n")[2].partition("@squeue")
        squeue, _, rest = rest.partition("@scontrol")
        scontrol, _, sacct = rest.partition("@sacct")
        now, _, recorded = recorded.partition("\n")
        ours = Record.read(recorded)
        if ours.number not in (None, number):  # another copy of it claimed the folder first
            return await self.status(JobHandle(self.name, str(ours.number), handle.details))
        theirs = Known.first(jobs_in(squeue, job_id=int(number)), scontrol=scontrol, sacct=sacct)
        if theirs.state is None and ours.exit_code is None and FORGOTTEN not in scontrol:
            raise Offline(f"Slurm did not answer: {scontrol.strip()[-300:]}", service=self.name)
        return replace(status_of(ours, theirs, now=float(now)), output=f"{folder}/output")

    async def logs(self, handle: JobHandle, cursor: str | None) -> LogChunk:
        start = int(cursor or 0)
        path = shlex.quote(f"{handle.details['folder']}/log.txt")
        line = f"tail -c +{start + 1} {path} 2>/dev/null | head -c {LOG_CHUNK_BYTES} | base64 -w0"
        data = base64.b64decode(await self._command(["sh", "-c", line]))
        return LogChunk(data, str(start + len(data)), complete=len(data) < LOG_CHUNK_BYTES)

    async def cancel(self, handle: JobHandle, *, reason: str) -> None:
        """Say in our record that it is a cancellation, then ``scancel``; TERM reaches the script first."""
        record = shlex.quote(f"{handle.details['folder']}/{RECORD}")
        line = f"echo cancel $(date +%s) >> {record} 2>/dev/null; exec scancel --full {handle.reference}"
        await self._command(["sh", "-c", line])

    async def foreign(self, reference: str) -> ForeignJob:
        """The job of that number, whoever submitted it."""
        if not reference.isdigit():
            raise BadInput(
                f"{reference!r} is no job number of Slurm.", next_step="Give slurm:NUMBER, as squeue does."
            )
        out = await self._command(["sh", "-c", f"squeue --json --states=all --jobs={reference} 2>&1; true"])
        if not answered(out) and FORGOTTEN not in out:
            raise Offline("Slurm did not answer squeue.", service=self.name, next_step="Ask again later.")
        found = jobs_in(out, job_id=int(reference))
        if not found:
            raise NotFound(
                f"Slurm knows no job {reference} (any more).", next_step="squeue lists those that wait or run."
            )
        known = Known.first(found, scontrol="", sacct="")
        submitted = moment(found[0].get("submit_time"))
        details = [
            ("Submitted by", str(found[0].get("user_name") or "")),
            ("Created", iso(submitted) if submitted else ""),
            ("Hardware", f"partition {found[0].get('partition')}, {found[0].get('nodes') or 'no node yet'}"),
            ("Command", str(found[0].get("command") or "")),
        ]
        return ForeignJob(
            backend=self.name,
            reference=reference,
            name=str(found[0].get("name") or reference),
            state=STATES.get(str(known.state), "running"),
            details=tuple((label, value) for label, value in details if value),
            identity=f"{found[0].get('user_name')} {submitted}",
        )

    async def cancel_foreign(self, job: ForeignJob) -> None:
        await self._command(["scancel", job.reference])

    async def examine(self) -> str:
        """Which Slurm answers, its partitions, and whether job folders can be written from here.

        Raises:
            BackendError, Offline: what is missing.
        """
        base = self._settings.folder or (str(self._workspace.root / "jobs") if self._workspace else "/tmp")
        make = f"mkdir -p {shlex.quote(base)} && test -w {shlex.quote(base)} || echo unwritable"
        out = await self._command(["sh", "-c", f"sbatch --version && sinfo -h -o '%R %a %D' && {{ {make}; }}"])
        version, *partitions = out.splitlines()
        if "unwritable" in partitions:
            raise BackendError(
                f"{base} cannot be written on the cluster.", next_step="Set folder in [slurm] of config.toml."
            )
        if not partitions:
            raise BackendError("Slurm answers, but shows you no partition.", next_step="Ask the cluster's operators.")
        listed = ", ".join("{} ({}, {} nodes)".format(*line.split()) for line in partitions if len(line.split()) == 3)
        return f"{version}; partitions {listed}; jobs lie in {base}, which compute nodes must see"

    def _folder(self, submission: Submission) -> str:
        base = self._settings.folder
        return f"{base.rstrip('/')}/{submission.job_id}" if base else str(submission.folder)

    def _known_folder(self, job_id: str) -> str | None:
        """The job's folder on the cluster, as far as it is known without its submission."""
        if self._settings.folder:
            return f"{self._settings.folder.rstrip('/')}/{job_id}"
        return str(self._workspace.job(job_id)) if self._workspace else None

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
        gpus = settings.hardware.get(spec.hardware, SlurmHardware()).gpus
        return batch_script(
            folder=folder,
            script=submission.script.text,
            environment={
                **dict(spec.env),
                **({} if self.capabilities.shares_files else SAMPLES_IN_LOG),
                "MLINTERN_JOB_ID": submission.job_id,
                "MLINTERN_OUTPUT_DIR": f"{folder}/output",
                "PYTHONUNBUFFERED": "1",
            },
            modules=settings.modules,
            prologue=settings.prologue,
            seconds=limit_seconds(spec.timeout_seconds),
            grace=GRACE_SECONDS,
            launch=launch_line(
                settings.launch,
                script=f"{folder}/script.py",
                args=spec.args,
                processes=processes_for(submission.script, gpus),
            ),
        )

    async def _command(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
    ) -> str:
        """Standard output of a command on the cluster.

        Raises:
            Offline: no answer in time, or ssh did not get through: what was asked may have been done.
            BackendError: the command ran and refused, or is not installed.
        """
        import anyio

        prefix = self._settings.prefix
        command = [*prefix, shlex.join(argv)] if prefix else list(argv)
        surroundings = {**os.environ, **self._settings.environment}
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
        if unreachable or any(words in complaint for words in UNREACHABLE):
            raise Offline(
                f"The cluster did not answer: {complaint[-300:]}",
                service=self.name,
                next_step="Check that the login node and slurmctld are up.",
            )
        raise BackendError(f"{argv[0]} failed ({done.returncode}): {complaint[-500:] or out[-500:]}")


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
