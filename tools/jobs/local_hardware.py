"""What this machine has: cores, memory, GPUs. Nothing heavy is imported, no GPU library is loaded."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PROBE_SECONDS = 10.0
_LISTED = re.compile(
    r"GPU \d+: .*\(UUID: (?P<gpu>GPU-[^)]+)\)|\s+MIG (?P<profile>\S+).*\(UUID: (?P<slice>MIG-[^)]+)\)"
)
_GIGABYTES = re.compile(r"(\d+)gb")


@dataclass(frozen=True)
class Gpu:
    """``device`` is what ``CUDA_VISIBLE_DEVICES`` calls it, with CUDA's devices in the order of the PCI bus.

    A slice of a GPU (MIG) counts as one; CUDA gives a process no more than one of these. ``memory_gib`` is 0 where
    the GPU has none of its own.
    """

    device: str
    model: str
    memory_gib: float

    @property
    def is_slice(self) -> bool:
        return self.device.startswith("MIG-")


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


_FEATURES = {
    "amx_bf16": "AMX bf16",
    "amx_int8": "AMX int8",
    "amx_fp16": "AMX fp16",
    "avx512_bf16": "AVX-512 bf16",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
    "asimd": "NEON",
    "sve": "SVE",
}
"""Flags of the kernel's list that decide how fast a CPU trains; AVX2 goes without saying where AVX-512 is."""


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """``Intel Xeon ...: AMX bf16, AMX int8, AVX-512 bf16, AVX-512``; empty where the kernel does not say."""
    try:
        lines = cpuinfo.read_text(errors="replace").split("\n\n", 1)[0].splitlines()
    except OSError:
        return ""
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    features = [words for flag, words in _FEATURES.items() if flag in flags]
    if "avx512f" in flags and "AVX2" in features:
        features.remove("AVX2")
    return ": ".join(part for part in (fields.get("model name", ""), ", ".join(features)) if part)


def _memory_bytes() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def _gpus(visible_devices: str | None) -> tuple[Gpu, ...]:
    program = shutil.which("nvidia-smi")
    if program is None or visible_devices == "":
        return ()
    try:
        listing = _ask(program, "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits")
        slices = _slices(_ask(program, "-L"))
    except (OSError, subprocess.SubprocessError):
        return ()  # the program is there but no driver answers: no GPU that a job could use
    by_name: dict[str, tuple[Gpu, ...]] = {}
    for line in listing.splitlines():
        index, uuid, model, mebibytes = (field.strip() for field in line.split(","))
        own = float(mebibytes) if mebibytes.isdigit() else 0.0  # "[N/A]" where it shares the machine's memory
        whole = Gpu(device=index, model=model, memory_gib=round(own / 1024, 1))
        parts = tuple(Gpu(device, f"{model} MIG {profile}", gib) for device, profile, gib in slices.get(uuid, ()))
        by_name[index] = by_name[uuid] = parts or (whole,)
        by_name.update({part.device: (part,) for part in parts})
    if visible_devices is None:
        return tuple(dict.fromkeys(gpu for gpus in by_name.values() for gpu in gpus))
    seen: dict[Gpu, None] = {}
    for name in visible_devices.split(","):
        if (found := _named(name.strip(), by_name)) is None:
            break  # CUDA, too, takes no device after one that it does not know
        seen.update(dict.fromkeys(found))
    return tuple(seen)


def _named(name: str, by_name: Mapping[str, tuple[Gpu, ...]]) -> tuple[Gpu, ...] | None:
    """The devices of that index or UUID; of a UUID the beginning is enough, if it is no other's too."""
    if name in by_name:
        return by_name[name]
    beginning = [known for known in by_name if name.startswith(("GPU-", "MIG-")) and known.startswith(name)]
    return by_name[beginning[0]] if len(beginning) == 1 else None


def _slices(listing: str) -> dict[str, list[tuple[str, str, float]]]:
    """(device, profile, GiB) of the MIG slices of each GPU that is cut into some, by its UUID."""
    found: dict[str, list[tuple[str, str, float]]] = {}
    gpu = ""
    for line in listing.splitlines():
        if (match := _LISTED.match(line)) is None:
            continue
        if match["gpu"]:
            gpu = match["gpu"]
        else:
            size = _GIGABYTES.search(match["profile"])
            found.setdefault(gpu, []).append((match["slice"], match["profile"], float(size[1]) if size else 0.0))
    return found


def _ask(program: str, *arguments: str) -> str:
    return subprocess.run(
        [program, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_PROBE_SECONDS,
        check=True,
    ).stdout
