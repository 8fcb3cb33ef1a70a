"""Slurm, by its own commands: ``sbatch``, ``squeue``, ``scontrol``, ``sacct``, ``scancel``.

The batch script carries the script, so nothing but the commands has to reach the cluster (``prefix`` may be an ssh).
They are asked for plain text, which every release writes alike; their JSON changes from one to the next, is not built
in everywhere, and names every job of the cluster in Slurm 22.
"""

from __future__ import annotations

import base64
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from mlintern.common.clock import iso
from mlintern.tools.config import SlurmHardware, SlurmSettings
from mlintern.tools.errors import BackendError, BadInput, NotFound, Offline
from mlintern.tools.jobs.backend import BackendStatus, Capabilities, ForeignJob, LogChunk, Submission
from mlintern.tools.jobs.backends.script_launch import (
    GRACE_SECONDS,
    SAMPLES_IN_LOG,
    launch_line,
    limit_seconds,
    processes_for,
)
from mlintern.tools.jobs.backends.slurm.batch import RECORD, Record, batch_script
from mlintern.tools.jobs.backends.slurm.login import COMMAND_SECONDS, Login
from mlintern.tools.jobs.backends.slurm.states import FORGOTTEN, STATES, Known, moment, shown_jobs, status_of
from mlintern.tools.jobs.hardware import Hardware
from mlintern.tools.jobs.spec import JobHandle
from mlintern.tools.workspace import Workspace

LOG_CHUNK_BYTES = 1 << 20
PASSED_ON = "HOME,PATH,USER,LOGNAME,SHELL,LANG,HF_HOME,UV_CACHE_DIR,SSL_CERT_FILE,SSL_CERT_DIR,HTTPS_PROXY,NO_PROXY"

SBATCH_SECONDS = 20
"""How long ``sbatch`` may try. A connection that is cut does not end it over there, so that it ends itself: after
`COMMAND_SECONDS` and these, a job that cannot be found does not come any more (`Capabilities.lookup_seconds`)."""

ACCOUNTS = "JobName,State,ExitCode,Start,End,ElapsedRaw,TimelimitRaw"


class SlurmBackend:
    """`mlintern.tools.jobs.spec.Backend` on a Slurm cluster."""

    name = "slurm"

    def __init__(
        self,
        *,
        settings: SlurmSettings,
        workspace: Workspace | None = None,
        command_seconds: float = COMMAND_SECONDS,
    ) -> None:
        """``workspace`` is where job folders lie when ``settings`` name no other place."""
        self._settings = settings
        self._workspace = workspace
        self._login = Login(prefix=settings.prefix, environment=settings.environment, seconds=command_seconds)
        self.capabilities = Capabilities(
            shares_files=settings.folder is None and not settings.prefix,
            lookup_seconds=COMMAND_SECONDS + SBATCH_SECONDS + 10.0,
            poll_seconds=5.0,
            visible_paths=((settings.folder,) if settings.folder else ()) if settings.prefix else None,
        )

    async def hardware(self) -> Sequence[Hardware]:
        """The configured names, else the partitions that ``sinfo`` lists."""
        configured = self._settings.hardware
        if configured:
            return [_described(name, hardware) for name, hardware in configured.items()]
        out = await self._login.run("sinfo -h -o '%P|%c|%m|%G|%l|%a'")
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
            f"--comment={submission.job_id}",
            f"--signal=B:TERM@{GRACE_SECONDS}",
            f"--time={math.ceil(limit / 60) + 1}",
            *self._resources(submission.spec.hardware),
            # What finding, following and starting once rest on comes last, and wins.
            f"--job-name={submission.job_id}",
            f"--output={folder.replace('%', '%%')}/log.txt",
            "--open-mode=append",
            "--no-requeue",
            f"--chdir={folder}/work",
            f"--export={','.join([PASSED_ON, *submission.secrets])}",
        ]
        script, path = self._batch_script(submission, folder).encode(), shlex.quote(f"{folder}/batch.sh")
        # A connection that breaks here must not leave half a script to sbatch, so that it is counted first.
        line = (
            f"umask 077; {shlex.join(['mkdir', '-p', f'{folder}/work', f'{folder}/output'])} && cat > {path} && "
            f'{{ [ "$(wc -c < {path})" -eq {len(script)} ] || {{ echo "Half the script came." >&2; exit 1; }}; }} '
            f"&& exec {shlex.join(['timeout', str(SBATCH_SECONDS), 'sbatch', '--parsable', *options])} {path}"
        )
        out = await self._login.run(line, stdin=script, variables=submission.secrets)
        reference = out.strip().splitlines()[-1].split(";")[0] if out.strip() else ""
        if not reference.isdigit():
            raise Offline(f"sbatch answered {out.strip()[:300]!r} instead of a job number.", service=self.name)
        return JobHandle(self.name, reference, {"folder": folder})

    async def find(self, job_id: str) -> JobHandle | None:
        """By the job's name, which is its id; when Slurm has forgotten it, by the record that it left."""
        folder = self._known_folder(job_id)
        line = f"squeue -h --states=all --name={shlex.quote(job_id)} -o '%A %Z' || exit; echo @record;"
        if folder is not None:
            line += f" cat {shlex.quote(f'{folder}/{RECORD}')} 2>/dev/null;"
        queued, _, recorded = (await self._login.run(f"{line} true")).partition("@record\n")
        claimed = Record.read(recorded).number
        for number, _, work in (row.partition(" ") for row in queued.splitlines()):
            if number.isdigit() and claimed in (None, number):
                return JobHandle(self.name, number, {"folder": folder or str(PurePosixPath(work).parent)})
        return JobHandle(self.name, claimed, {"folder": folder}) if claimed else None

    async def status(self, handle: JobHandle) -> BackendStatus:
        """The job's own record of its end if there is one, else what Slurm says; neither means ``lost``.

        Raises:
            Offline: Slurm did not answer, which says nothing about the job.
        """
        number, folder = handle.reference, handle.details["folder"]
        name = PurePosixPath(folder).name
        # The accounts are asked only about what the controller has forgotten: they may be slow, or many.
        line = (
            f"export SLURM_TIME_FORMAT=%s; date +%s.%N; cat {shlex.quote(f'{folder}/{RECORD}')} 2>/dev/null; echo;"
            f" echo @scontrol; said=$(scontrol show job -o {number} 2>&1); printf '%s\\n' \"$said\"; echo @sacct;"
            f' case "$said" in *" JobName={name} "*) ;; *"{FORGOTTEN}"*|*JobId=*)'
            f" sacct -X -D -n -P -j {number} -S 1970-01-01 -o {ACCOUNTS} 2>&1;; esac; true"
        )
        recorded, _, rest = (await self._login.run(line)).partition("@scontrol\n")
        scontrol, _, sacct = rest.partition("@sacct\n")
        now, _, recorded = recorded.partition("\n")
        ours = Record.read(recorded)
        if ours.number not in (None, number):  # another copy of it claimed the folder first
            return await self.status(JobHandle(self.name, str(ours.number), handle.details))
        theirs = Known.read(scontrol=scontrol, sacct=sacct, name=name, now=float(now))
        if theirs.silent and ours.exit_code is None:
            raise Offline(
                f"Slurm did not say what became of the job: {(sacct.strip() or scontrol.strip())[-300:]}",
                service=self.name,
                next_step="Ask again later.",
            )
        return replace(status_of(ours, theirs, now=float(now)), output=f"{folder}/output")

    async def logs(self, handle: JobHandle, cursor: str | None) -> LogChunk:
        start = int(cursor or 0)
        path = shlex.quote(f"{handle.details['folder']}/log.txt")
        line = f"tail -c +{start + 1} {path} 2>/dev/null | head -c {LOG_CHUNK_BYTES} | base64 -w0"
        data = base64.b64decode(await self._login.run(line))
        return LogChunk(data, str(start + len(data)), complete=len(data) < LOG_CHUNK_BYTES)

    async def cancel(self, handle: JobHandle, *, reason: str) -> None:
        """Say in our record that it is a cancellation, then ``scancel``; TERM reaches the script first."""
        folder = handle.details["folder"]
        record, name = shlex.quote(f"{folder}/{RECORD}"), shlex.quote(PurePosixPath(folder).name)
        # With its name, since a cluster that was started anew counts from 1 again and the number is another job's.
        line = (
            f"echo cancel $(date +%s) >> {record} 2>/dev/null; said=$(scancel --full --name={name} {handle.reference}"
            f' 2>&1) && exit; code=$?; case "$said" in *"{FORGOTTEN}"*) exit 0;; esac; echo "$said" >&2; exit $code'
        )
        await self._login.run(line)

    async def finish(self, handle: JobHandle) -> None:
        await self._login.run(f"touch {shlex.quote(handle.details['folder'] + '/output/finish')}")

    async def foreign(self, reference: str) -> ForeignJob:
        """The job of that number, submitted by any user."""
        if not reference.isdigit():
            raise BadInput(
                f"{reference!r} is no job number of Slurm.", next_step="Give slurm:NUMBER, as squeue does."
            )
        out = await self._login.run(f"export SLURM_TIME_FORMAT=%s; scontrol show job -o {reference} 2>&1; true")
        jobs = shown_jobs(out)
        if not jobs and FORGOTTEN not in out:
            raise Offline(f"Slurm did not say: {out.strip()[-300:]}", service=self.name, next_step="Ask again later.")
        if not jobs:
            raise NotFound(
                f"Slurm knows no job {reference} (any more).", next_step="squeue lists those that wait or run."
            )
        job = jobs[0]
        owner, submitted = job.get("UserId", "").partition("(")[0], moment(job.get("SubmitTime"))
        details = [
            ("Submitted by", owner),
            ("Created", iso(submitted) if submitted else ""),
            ("Hardware", f"partition {job.get('Partition')}, {job.get('NodeList') or 'no node yet'}"),
            ("Command", job.get("Command", "").replace("(null)", "")),
        ]
        return ForeignJob(
            backend=self.name,
            reference=reference,
            name=job.get("JobName") or reference,
            state=STATES.get(job.get("JobState", ""), "running"),
            details=tuple((label, value) for label, value in details if value),
            identity=f"{owner} {submitted}",
        )

    async def cancel_foreign(self, job: ForeignJob) -> None:
        await self._login.run(f"scancel {shlex.quote(job.reference)}")

    async def examine(self) -> str:
        """Which Slurm answers and where, its partitions, its accounting, and whether job folders can be written.

        Raises:
            BackendError, Blocked, Offline: what is missing.
        """
        base = self._settings.folder or (str(self._workspace.root / "jobs") if self._workspace else "/tmp")
        make = f"mkdir -p {shlex.quote(base)} && test -w {shlex.quote(base)} || echo unwritable"
        out = await self._login.run(
            f"sbatch --version && sinfo -h -o '%R %a %D' && {{ {make}; }} && echo @sacct &&"
            " { sacct -n -X -S now 2>&1; echo @code $?; }"
        )
        answers, _, accounts = out.partition("@sacct\n")
        version, *partitions = answers.splitlines()
        if "unwritable" in partitions:
            raise BackendError(
                f"{base} cannot be written on the cluster.", next_step="Set folder in [slurm] of config.toml."
            )
        if not partitions:
            raise BackendError("Slurm answers, but shows you no partition.", next_step="Ask the cluster's operators.")
        listed = ", ".join("{} ({}, {} nodes)".format(*line.split()) for line in partitions if len(line.split()) == 3)
        through = f" through {self._login.place}" if self._settings.prefix else ""
        return (
            f"{version}{through}; partitions {listed}; {_accounting(accounts)};"
            f" jobs lie in {base}, which compute nodes must see"
        )

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


def _accounting(sacct: str) -> str:
    """What ``examine`` says of the answer of ``sacct``."""
    said, _, code = sacct.partition("@code ")
    if code.strip() == "0":
        return "accounting answers"
    if "disabled" in said or "not found" in said or "not running a supported" in said:
        return "no accounting, so a job's own record tells how it ended"
    return f"accounting does not answer ({' '.join(said.split())[-120:]}), so a job's own record tells how it ended"


def _number(text: str) -> float:
    found = re.match(r"\d+(?:\.\d+)?", text)
    return float(found[0]) if found else 0.0
