"""How long a recipe takes on some hardware, from its floating point operations and the device's peak.

Sources of the formulas:

* 6 operations a parameter and token, 2 forward and 4 backward; 8 where activations are computed again (Kaplan et al.
  2020, section 2.1; Korthikanti et al. 2022); 4 where only adapters are trained (no gradients of the weights).
* generation: every step reads all weights, so a token takes at least their bytes over the memory bandwidth
  (Pope et al. 2022).
* the share of the peak that is reached: 0.35 with a GPU (0.2 to 0.5), as MosaicML and TorchTitan publish for models
  of 1 to 70 B; on a CPU 0.5 of the peak of its vector units (0.2 to 0.8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlintern.tools.jobs.hardware import Hardware
from mlintern.tools.jobs.job_results import DurationEstimate
from mlintern.tools.jobs.memory import ModelShape, Workload

PEAKS: Mapping[str, tuple[float, float]] = {
    "b200": (2250e12, 8000e9),
    "h200": (989e12, 4800e9),
    "h100": (989e12, 3350e9),
    "rtx pro 6000": (500e12, 1790e9),
    "a100": (312e12, 2000e9),
    "l40s": (362e12, 864e9),
    "a10g": (70e12, 600e9),
    "a10": (125e12, 600e9),
    "l4": (121e12, 300e9),
    "t4": (65e12, 320e9),
    "v100": (125e12, 900e9),
    "4090": (165e12, 1008e9),
    "3090": (71e12, 936e9),
}
"""Part of a device's name -> operations a second in 16 bit (dense) and bytes a second, from data sheets."""

CPU_CORE = (60e9, 8e9)
"""Of one core with AVX-512 in float32: 2 x 16 x 2 operations a cycle at about 2 GHz, halved for memory."""


def duration(
    recipe: Mapping[str, Any], shape: ModelShape, work: Workload, hardware: Hardware, *, on_gpu: bool
) -> DurationEstimate | None:
    """Seconds of training; None where the recipe does not say how many steps there are, or the device is unknown."""
    minutes = recipe.get("max_minutes")
    if minutes:
        seconds = 60.0 * float(minutes)
        return DurationEstimate(low=0.5 * seconds, likely=seconds, high=1.1 * seconds, dominant="max_minutes")
    steps = recipe.get("max_steps")
    speed = _speed(hardware, on_gpu=on_gpu)
    if not steps or speed is None or not work.trains:
        return None
    operations, bandwidth = speed
    given: Mapping[str, Any] = recipe.get("hyperparameters") or {}
    parts = int(given.get("gradient_accumulation_steps") or {"dpo": 8, "grpo": 4, "rloo": 4}.get(work.trainer, 2))
    positions = float(steps) * parts * work.batch * work.length
    each = (4.0 if work.lora_rank else 6.0) + (2.0 if work.checkpointing else 0.0) + (2.0 if work.reference else 0.0)
    used = 0.35 if on_gpu else 0.5
    training = positions * each * shape.parameters / (operations * used)
    writing = 0.0
    if work.trainer in ("grpo", "rloo", "online_dpo"):
        tokens = float(given.get("max_completion_length") or given.get("max_new_tokens") or 512)
        writing = float(steps) * tokens * 2.0 * shape.parameters / (bandwidth * 0.3)
    likely = 0.5 * training + writing  # rows are shorter than what they are cut to
    return DurationEstimate(
        low=round(0.2 * training + 0.3 * writing, 1),
        likely=round(likely, 1),
        high=round(1.75 * training + 3.0 * writing, 1),
        dominant="generation" if writing > training else "training",
    )


def _speed(hardware: Hardware, *, on_gpu: bool) -> tuple[float, float] | None:
    """Operations and bytes a second of all devices together."""
    if not on_gpu:
        cores = hardware.cpus or 1
        return CPU_CORE[0] * cores, CPU_CORE[1] * cores
    name = f"{hardware.accelerator or ''} {hardware.name}".lower()
    found = next((peak for part, peak in PEAKS.items() if part in name), None)
    return None if found is None else (found[0] * hardware.accelerators, found[1])
