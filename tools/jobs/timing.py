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

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from mlintern.tools.jobs.hardware import Hardware
from mlintern.tools.jobs.job_results import DurationEstimate
from mlintern.tools.jobs.measured import Past
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

LAYER_OVERHEAD = 0.8e-3
"""Seconds a layer and token that `transformers` needs to launch its kernels, whatever their size: about 25 ms a token
of a model of 32 layers."""

CPU_CORE = (60e9, 8e9)
"""Of one core with AVX-512 in float32: 2 x 16 x 2 operations a cycle at about 2 GHz, halved for memory."""


@dataclass(frozen=True)
class Step:
    """Seconds of one optimizer step: passes through the model, and the writing of completions."""

    training: float
    writing: float

    @property
    def seconds(self) -> float:
        return self.training + self.writing


def duration(
    recipe: Mapping[str, Any],
    shape: ModelShape,
    work: Workload,
    hardware: Hardware,
    *,
    on_gpu: bool,
    history: Sequence[tuple[Past, ModelShape, Workload]] = (),
) -> DurationEstimate | None:
    """Seconds of training; None where the recipe does not say how many steps there are, or the device is unknown.

    Args:
        history: what jobs on the same hardware measured, each with the sizes of its model and its workload. Their
            ratio to what the model says corrects it, and data that they read has the length that they saw.
    """
    minutes = recipe.get("max_minutes")
    if minutes:
        seconds = 60.0 * float(minutes)
        return DurationEstimate(low=0.5 * seconds, likely=seconds, high=1.1 * seconds, dominant="max_minutes")
    if not work.trains:
        return None
    seen = [one for one in history if _same_data(one[0].recipe, recipe)]
    tokens = next((length for one in seen if (length := _tokens(one)) > 0), None)
    steps = recipe.get("max_steps") or next((_steps(recipe, work, one) for one in seen), None)
    step = step_of(recipe, shape, work, hardware, on_gpu=on_gpu, tokens=tokens)
    if not steps or step is None:
        return None
    dominant = "generation" if step.writing > step.training else "training"
    near = [one for one in history if _kind(one[0].recipe) == _kind(recipe)] or list(history)
    ratios = []
    for past, its_shape, its_work in near:
        said = step_of(
            past.recipe,
            its_shape,
            its_work,
            hardware,
            on_gpu=on_gpu,
            tokens=_tokens((past, its_shape, its_work)) or None,
        )
        if said is not None and said.seconds > 0:
            ratios.append(past.seconds_per_step / said.seconds)
    if ratios:
        likely = float(steps) * step.seconds * median(ratios) + median(past.startup_seconds for past, _, _ in near)
        wide = 1.0 if tokens else 1.5  # how long the rows are is not known
        return DurationEstimate(
            low=round(0.75 * likely / wide, 1),
            likely=round(likely, 1),
            high=round(1.3 * likely * wide, 1),
            dominant=f"{dominant}, corrected by {len(ratios)} earlier job{'s' if len(ratios) > 1 else ''} there",
        )
    training, writing = float(steps) * step.training, float(steps) * step.writing
    return DurationEstimate(
        low=round(0.4 * training + 0.3 * writing, 1),
        likely=round(training + writing, 1),
        high=round(3.5 * training + 3.0 * writing, 1),
        dominant=dominant,
    )


def measured(past: Past) -> DurationEstimate:
    """What a job of the same script took on the same hardware, to its end."""
    likely = past.startup_seconds + past.seconds_per_step * max(0.0, past.total_steps - 1)
    return DurationEstimate(
        low=round(0.85 * likely, 1),
        likely=round(likely, 1),
        high=round(1.15 * likely, 1),
        dominant=f"measured by {past.job_id} over {past.steps:.0f} steps",
    )


def step_of(
    recipe: Mapping[str, Any],
    shape: ModelShape,
    work: Workload,
    hardware: Hardware,
    *,
    on_gpu: bool,
    tokens: float | None = None,
) -> Step | None:
    """What one step should take by operations and bandwidth. ``tokens`` of a sequence; else half of the longest."""
    speed = _speed(hardware, on_gpu=on_gpu)
    if speed is None:
        return None
    operations, bandwidth = speed
    positions = float(parts_of(recipe, work)) * work.batch * (tokens or 0.5 * work.length)
    each = (4.0 if work.lora_rank else 6.0) + (2.0 if work.checkpointing else 0.0) + (2.0 if work.reference else 0.0)
    training = positions * each * shape.parameters / (operations * (0.35 if on_gpu else 0.5))
    writing = 0.0
    if work.trainer in ("grpo", "rloo", "online_dpo"):
        given: Mapping[str, Any] = recipe.get("hyperparameters") or {}
        length = float(given.get("max_completion_length") or given.get("max_new_tokens") or 512)
        writing = length * 2.0 * shape.parameters / (bandwidth * 0.3)
    return Step(training, writing)


def parts_of(recipe: Mapping[str, Any], work: Workload) -> int:
    """Micro-batches of one optimizer step; where the recipe does not say, those of our scripts."""
    given: Mapping[str, Any] = recipe.get("hyperparameters") or {}
    return int(given.get("gradient_accumulation_steps") or {"dpo": 8, "grpo": 4, "rloo": 4}.get(work.trainer, 2))


def _kind(recipe: Mapping[str, Any]) -> tuple[Any, bool]:
    return recipe.get("trainer"), bool(recipe.get("lora") or recipe.get("quantize"))


_DATA = ("trainer", "model", "dataset", "datasets", "dataset_config", "split", "prepare", "filter", "columns")


def _same_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(name) == other.get(name) for name in _DATA)


def _tokens(one: tuple[Past, ModelShape, Workload]) -> float:
    """Tokens of a sequence that a job saw; 0 where it did not count them."""
    past, _, work = one
    return past.tokens_per_step / (parts_of(past.recipe, work) * work.batch)


def _steps(recipe: Mapping[str, Any], work: Workload, one: tuple[Past, ModelShape, Workload]) -> float | None:
    """Steps of ``recipe``, from those of a job that went through the same rows a known number of times."""
    past, _, its_work = one
    if past.recipe.get("max_steps") or past.recipe.get("limit") != recipe.get("limit"):
        return None
    passes = float(recipe.get("epochs") or 1.0) / float(past.recipe.get("epochs") or 1.0)
    size = parts_of(past.recipe, its_work) * its_work.batch / (parts_of(recipe, work) * work.batch)
    return past.total_steps * passes * size


def evaluation(
    recipe: Mapping[str, Any], shape: ModelShape, work: Workload, hardware: Hardware, *, items: int, on_gpu: bool
) -> DurationEstimate | None:
    """Seconds of an evaluation of ``items`` items by the model itself; None where the device is unknown.

    Every prompt is read once (2 operations a parameter and token; of multiple choice once with each option), and
    every batch writes as many tokens as its longest answer, each of which reads all weights.
    """
    speed = _speed(hardware, on_gpu=on_gpu)
    if speed is None or recipe.get("endpoint") or recipe.get("engine") == "endpoint":
        return None
    operations, bandwidth = speed
    samples = int(recipe.get("samples") or 1)
    items *= 1 + len(recipe.get("candidates") or ())
    likelihood = recipe.get("kind", "multiple_choice") == "multiple_choice"
    prompt = 256.0 * (1 + int(recipe.get("fewshot") or 0))
    reading = items * prompt * 2.0 * shape.parameters / (operations * (0.35 if on_gpu else 0.5))
    tokens = float(recipe.get("max_new_tokens") or (16 if likelihood else 256))
    writes = recipe.get("scorer") != "likelihood"
    batches = math.ceil(items * samples / max(1, work.batch))
    step = 2.0 * shape.parameters / (bandwidth * 0.3)
    if recipe.get("engine") != "vllm":
        step = max(step, LAYER_OVERHEAD * shape.layers)
    writing = batches * tokens * step if writes else 0.0
    return DurationEstimate(
        low=round(0.3 * reading + 0.2 * writing, 1),
        likely=round(reading + 0.6 * writing, 1),
        high=round(4.0 * reading + 3.0 * writing, 1),
        dominant="generation" if writing > reading else "reading prompts",
    )


def _speed(hardware: Hardware, *, on_gpu: bool) -> tuple[float, float] | None:
    """Operations and bytes a second of all devices together."""
    if not on_gpu:
        cores = hardware.cpus or 1
        return CPU_CORE[0] * cores, CPU_CORE[1] * cores
    name = f"{hardware.accelerator or ''} {hardware.name}".lower()
    found = next((peak for part, peak in PEAKS.items() if part in name), None)
    return None if found is None else (found[0] * hardware.accelerators, found[1])
