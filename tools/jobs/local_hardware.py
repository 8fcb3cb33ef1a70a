"""What this machine has: cores, memory, GPUs. Nothing heavy is imported, no GPU library is loaded."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_PROBE_SECONDS = 10.0


@dataclass(frozen=True)
class Gpu:
    """``device`` is what ``CUDA_VISIBLE_DEVICES`` calls it."""

    device: str
    model: str
    memory_gib: float


@dataclass(frozen=True)
class Machine:
    cores: tuple[int, ...]
    memory_gib: float
    gpus: tuple[Gpu, ...] = ()


def probe(*, visible_devices: str | None = None) -> Machine:
    """This machine, as far as this process may use it: CPU affinity, container limits, ``CUDA_VISIBLE_DEVICES``."""
    return Machine(cores=_cores(), memory_gib=round(_memory_bytes() / 2**30, 2), gpus=_gpus(visible_devices))


def _cores() -> tuple[int, ...]:
    linux = hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if linux else list(range(os.cpu_count() or 1))
    with contextlib.suppress(OSError, ValueError):  # a container's share, in microseconds of CPU per period
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = cores[: max(1, round(int(quota) / int(period)))]
    return tuple(cores)


def _memory_bytes() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def _gpus(visible_devices: str | None) -> tuple[Gpu, ...]:
    program = shutil.which("nvidia-smi")
    if program is None or visible_devices == "":
        return ()
    query = [program, "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()  # the program is there but no driver answers: no GPU that a job could use
    by_name: dict[str, Gpu] = {}
    for line in listing.splitlines():
        index, uuid, model, mebibytes = (field.strip() for field in line.split(","))
        gpu = Gpu(device=index, model=model, memory_gib=round(float(mebibytes) / 1024, 1))
        by_name[index] = by_name[uuid] = gpu
    if visible_devices is None:
        return tuple(dict.fromkeys(by_name.values()))
    named = (name.strip() for name in visible_devices.split(","))
    return tuple(by_name[name] for name in named if name in by_name)
