"""How a local job is started: what goes into ``launch.json``, and the supervisor that reads it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.common.durations import format_duration
from mlintern.tools.errors import BackendError
from mlintern.tools.jobs.backend import Submission
from mlintern.tools.jobs.backends.job_folder import JobFolder
from mlintern.tools.jobs.backends.local.confinement import Isolation, policy_of
from mlintern.tools.jobs.backends.local.environment import job_environment
from mlintern.tools.jobs.backends.local.interpreter import Interpreter
from mlintern.tools.jobs.backends.script_launch import processes_for, spread
from mlintern.tools.jobs.local_hardware import Machine

SUPERVISOR = "mlintern.tools.jobs.backends.local.supervisor"
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Limits:
    """What a job on this machine may use; the arguments of `LocalBackend`."""

    slots: int
    memory_limit_gib: float | None
    cpus: int | None
    grace_seconds: float

    def threads(self, machine: Machine, *, on_gpu: bool) -> int:
        """Threads for the numerics of one job: its share of the cores, and one core stays free for everything else.

        Measured on two cores: 200 training steps took 10 s with two threads and 13 s with one on an idle machine, but
        120 s and 16 s beside other work.
        """
        cores = len(machine.cores)
        shares = len(machine.gpus) if on_gpu else self.slots
        return self.cpus or max(1, min(cores // shares, cores - 1))

    def cores(self, machine: Machine, slot_names: list[str]) -> dict[str, list[int]]:
        """The cores that each slot is confined to; empty where jobs are not confined."""
        if self.cpus is None:
            return {}
        width, total = min(self.cpus, len(machine.cores)), len(machine.cores)
        return {
            name: [machine.cores[(index * width + offset) % total] for offset in range(width)]
            for index, name in enumerate(slot_names)
        }


def queue_kind(hardware: str) -> str:
    """``"gpu"`` or ``"cpu"``: jobs of one kind share a queue and slots."""
    return "gpu" if hardware.startswith("gpu") else "cpu"


def gpu_count(hardware: str) -> int:
    return int(hardware.removeprefix("gpux")) if hardware.startswith("gpux") else int(hardware == "gpu")


def plan(
    submission: Submission,
    *,
    argv: list[str],
    interpreter: Interpreter,
    machine: Machine,
    limits: Limits,
    server: Mapping[str, str],
    slots_folder: Path,
    created_at: float,
    isolation: Isolation | None,
) -> dict[str, Any]:
    """The content of ``launch.json``: everything that the supervisor needs, and no secret."""
    spec = submission.spec
    kind = queue_kind(spec.hardware)
    # A GPU's slot bears its own name: servers that see other GPUs, or in another order, share the slots all the same.
    devices = {f"gpu-{gpu.device.replace('/', '_')}": gpu.device for gpu in machine.gpus} if kind == "gpu" else {}
    names = list(devices) or [f"{kind}-{index}" for index in range(limits.slots)]
    needed = gpu_count(spec.hardware) or 1
    if needed > len(names) or (kind == "gpu" and not devices):
        raise BackendError(
            f"The job needs {spec.hardware}, and this server sees {len(devices)} GPU(s).",
            next_step="list_hardware shows what there is; CUDA_VISIBLE_DEVICES of the server limits it.",
        )
    environment = job_environment(
        server=server,
        given=dict(spec.env),
        job_id=submission.job_id,
        output=JobFolder(submission.folder).output,
        threads=limits.threads(machine, on_gpu=kind == "gpu"),
        with_token="HF_TOKEN" in spec.secrets,
    )
    if devices:
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # that of nvidia-smi, whose numbers are passed on
    policy = isolation and policy_of(
        submission, isolation=isolation, interpreter=interpreter, environment=environment, server=server
    )
    return {
        "job_id": submission.job_id,
        "created_at": created_at,
        "argv": [*interpreter.command, *spread(processes_for(submission.script, needed)), *argv],
        "interpreter": interpreter.reason,
        "environment": environment,
        "policy": policy.to_json() if policy else None,
        "secrets": sorted(submission.secrets),
        "timeout_seconds": spec.timeout_seconds,
        "timeout": format_duration(spec.timeout_seconds),
        "grace_seconds": limits.grace_seconds,
        "memory_bytes": int(limits.memory_limit_gib * 2**30) if limits.memory_limit_gib else None,
        "slots_folder": str(slots_folder),
        "slot_names": names,
        "slots_needed": needed,
        "devices": devices,
        "cores": limits.cores(machine, names),
    }


def start_supervisor(
    folder: JobFolder,
    *,
    lock: int,
    ticket: Path,
    ticket_lock: int,
    sha256: str,
    server: Mapping[str, str],
    secrets: Mapping[str, str],
) -> None:
    """Start the supervisor of the job in ``folder``, handing it both locks. Returns when it is on its own.

    ``sha256`` is that of the script, which the supervisor checks when the job's turn has come; it does not stand in
    the folder, where it could be changed together with the script.

    Raises:
        BackendError: it did not come up; nothing has run.
    """
    needed = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH")
    command = [sys.executable, "-P", "-m", SUPERVISOR, str(folder.path), str(lock), str(ticket), str(ticket_lock)]
    command.append(sha256)
    with folder.supervisor_log.open("ab") as log:
        starter = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={name: server[name] for name in needed if name in server} | dict(secrets),
            cwd=folder.path,
            pass_fds=(lock, ticket_lock),
            start_new_session=True,
        )
        try:
            code = starter.wait(_START_SECONDS)  # it forks the supervisor and ends at once
        except subprocess.TimeoutExpired:
            starter.kill()
            code = starter.wait()
    if code != 0:
        said = folder.supervisor_log.read_text(errors="replace")[-500:].strip()
        raise BackendError(
            f"The supervisor could not be started (exit code {code}): {said}",
            next_step="Check the limits on processes and memory of this machine.",
        )
