"""Whether a script fits a machine and what it costs there at worst."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio.to_thread

from mlintern.common.durations import format_duration
from mlintern.tools.jobs import memory, money, timing
from mlintern.tools.jobs.backend import ScriptFile
from mlintern.tools.jobs.detectable import detectable, items_of
from mlintern.tools.jobs.hardware import Hardware
from mlintern.tools.jobs.job_results import JobEstimate, MemoryEstimate
from mlintern.tools.jobs.measured import Past
from mlintern.tools.jobs.memory import ModelShape, Workload
from mlintern.tools.jobs.prices import billing_of
from mlintern.tools.jobs.served_models import most_usd, paid_endpoints

FindModelShape = Callable[[str], Awaitable[ModelShape | None]]
"""The sizes of a model of the Hub by its id, None if they cannot be had."""

NO_RECIPE = (
    "the script was not rendered from a recipe, so its memory is not known: try it with a short timeout and read"
    " peak_rss_bytes in poll_job"
)
SPARE = 0.9
"""A run whose likely peak passes this share of a device's memory is said not to fit."""


async def estimate(
    script: ScriptFile,
    hardware: Hardware,
    *,
    timeout_seconds: float,
    find_shape: FindModelShape | None,
    history: Sequence[Past] = (),
) -> JobEstimate:
    """Memory, duration and worst cost of ``script`` on ``hardware``; of one without a recipe what was measured.

    ``history`` is what jobs on that hardware measured, the latest first: of the same script it is the answer, of
    others it corrects the duration.
    """
    recipe = script.recipe or {}
    on_gpu = hardware.accelerators > 0 and recipe.get("use_cpu") is not True
    available = _available_gib(hardware, on_gpu=on_gpu)
    items = await anyio.to_thread.run_sync(items_of, recipe)
    found = None
    advice: list[str] = []
    disk = None
    duration = None
    if script.recipe is None:
        basis = [NO_RECIPE]
    else:
        shape, basis = await _shape(str(recipe.get("model", "")), find_shape)
        if shape is not None:
            work, assumed = memory.workload(recipe, shape, devices=hardware.accelerators)
            work, found = _chosen(shape, work, recipe, available=available, on_gpu=on_gpu)
            basis += _basis(shape, work, assumed, recipe)
            if found is not None and available is not None and found.likely > SPARE * available:
                advice = _advice(shape, work, available=available, on_gpu=on_gpu)
            if work.trains:
                disk = memory.checkpoint_bytes(shape, work, kept=_kept(recipe)) / 2**30
            known = (
                []
                if recipe.get("max_minutes")
                else await _workloads(history, hardware, find_shape, available=available, on_gpu=on_gpu)
            )
            duration = timing.duration(recipe, shape, work, hardware, on_gpu=on_gpu, history=known)
            if recipe.get("trainer") == "evaluation" and items is not None:
                duration = timing.evaluation(recipe, shape, work, hardware, items=items, on_gpu=on_gpu)
    same = next((past for past in history if past.script_id == script.script_id), None)
    if same is not None:
        duration = timing.measured(same) if not recipe.get("max_minutes") else duration
        found = _measured_memory(same, on_gpu=on_gpu) or found
        basis.append(f"duration and memory as {same.job_id} measured them on this hardware")
        advice = advice if found is None or available is None or found.likely > SPARE * available else []
    if found is not None and on_gpu and hardware.accelerators > 1 and recipe.get("scale") not in ("fsdp2", "zero3"):
        basis.append(f"each of the {hardware.accelerators} devices holds a whole copy (data parallel)")
    if items is not None:
        basis.append(detectable(items))
    basis.append(_cost_basis(hardware, timeout_seconds))
    served = most_usd(recipe)
    basis += [f"a served model: {said}" for said in paid_endpoints(recipe)]
    return JobEstimate(
        script_id=script.script_id,
        backend=hardware.backend,
        hardware=hardware.name,
        memory_gib=found,
        available_gib=available,
        fits=None if found is None or available is None else found.likely <= SPARE * available,
        timeout_seconds=timeout_seconds,
        usd_worst=round(
            money.worst_of(hardware.backend, usd_per_hour=hardware.usd_per_hour, seconds=timeout_seconds) + served, 6
        ),
        usd_per_hour=hardware.usd_per_hour,
        basis=basis,
        disk_gib=None if disk is None else round(disk, 2),
        duration_seconds=duration,
        advice=advice,
    )


def _cost_basis(hardware: Hardware, timeout_seconds: float) -> str:
    """What the worst cost is made of."""
    said = f"worst cost: {format_duration(timeout_seconds)} at ${hardware.usd_per_hour:g} an hour"
    billing = billing_of(hardware.backend)
    if billing.starting_seconds:
        said += f", with up to {format_duration(billing.starting_seconds)} of starting, which is paid for too"
    if billing.step_seconds:
        step = format_duration(billing.step_seconds).removeprefix("1 ").replace("min", "minute")
        said += f"; billed by the {step}, each that has begun"
    return said


async def _workloads(
    history: Sequence[Past],
    hardware: Hardware,
    find_shape: FindModelShape | None,
    *,
    available: float | None,
    on_gpu: bool,
) -> list[tuple[Past, ModelShape, Workload]]:
    """What was measured, with the sizes of its model and its workload; jobs whose model is not known are left out."""
    shapes: dict[str, ModelShape | None] = {}
    found = []
    for past in history:
        model = str(past.recipe.get("model", ""))
        if model not in shapes:
            shapes[model] = (await _shape(model, find_shape))[0]
        shape = shapes[model]
        if shape is not None and past.recipe.get("trainer"):
            work, _ = memory.workload(past.recipe, shape, devices=hardware.accelerators)
            work, _ = _chosen(shape, work, past.recipe, available=available, on_gpu=on_gpu)
            found.append((past, shape, work))
    return found


def _open_choice(recipe: Mapping[str, Any]) -> bool:
    """Whether the script decides by itself if activations are kept."""
    given = recipe.get("hyperparameters") or {}
    return not {"activation_checkpointing", "gradient_checkpointing"} & set(given)


def _measured_memory(past: Past, *, on_gpu: bool) -> MemoryEstimate | None:
    """Peak memory of a whole run from that of some steps; on a GPU that of tensors, to which CUDA's own comes."""
    peak = past.peak_memory_gib
    if not peak:
        return None
    own = memory.GPU_OVERHEAD_BYTES / 2**30 if on_gpu else 0.0
    return MemoryEstimate(
        low=round(peak + 0.25 * own, 3),
        likely=round(1.05 * peak + 0.5 * own, 3),
        high=round(1.2 * peak + own, 3),
        dominant=f"measured by {past.job_id}",
    )


def _kept(recipe: Mapping[str, Any]) -> int:
    if recipe.get("save_steps") == 0 and not recipe.get("push_every"):
        return 0
    return int(recipe.get("save_total_limit") or 2)


def _chosen(
    shape: ModelShape, work: Workload, recipe: Mapping[str, Any], *, available: float | None, on_gpu: bool
) -> tuple[Workload, MemoryEstimate]:
    """As the script chooses when it starts: activations are kept if they fit, unless the recipe says otherwise."""
    found = memory.estimate(shape, work, on_gpu=on_gpu)
    if work.trains and _open_choice(recipe) and available is not None:
        kept = replace(work, checkpointing=False)
        more = memory.estimate(shape, kept, on_gpu=on_gpu)
        if more.likely <= 0.8 * available:
            return kept, more
    return work, found


def _advice(shape: ModelShape, work: Workload, *, available: float, on_gpu: bool) -> list[str]:
    """What would make it fit, the least change first; never another method, length or data."""
    if not work.trains:
        return []
    smaller = replace(work, batch=max(1, work.batch // work.batch), generated=0, checkpointing=True)
    sharded = replace(smaller, shards=8)
    quantized = replace(smaller, lora_rank=work.lora_rank or 16, quantized=True, dtype="bfloat16", reference=False)
    adapter = replace(quantized, quantized=False)
    steps = [
        (
            smaller,
            "per_device_train_batch_size 1 with more gradient_accumulation_steps (the same batch), checkpointing",
        ),
        (adapter, "an adapter: lora {} (weights in bfloat16)"),
        (quantized, 'a 4-bit adapter: quantize "nf4"'),
        (sharded, 'eight such devices with scale "fsdp2"'),
    ]
    lines = []
    for other, text in steps:
        need = memory.estimate(shape, other, on_gpu=on_gpu)
        fits = "fits" if need.likely <= SPARE * available else "does not fit either"
        lines.append(f"{text}: {need.likely:.1f} GiB, {fits}")
        if fits == "fits":
            return lines
    return [*lines, "a device with more memory: list_hardware"]


def _available_gib(hardware: Hardware, *, on_gpu: bool) -> float | None:
    if on_gpu and hardware.accelerator_memory_gib is not None:
        return round(hardware.accelerator_memory_gib / hardware.accelerators, 2)
    return hardware.memory_gib


async def _shape(model: str, find_shape: FindModelShape | None) -> tuple[ModelShape | None, list[str]]:
    folder = Path(model).expanduser()
    if folder.is_dir():
        shape = await anyio.to_thread.run_sync(memory.local_shape, folder)
        return shape, [] if shape else [f"{folder} holds no config.json of a language model"]
    if find_shape is not None and (shape := await find_shape(model)) is not None:
        return shape, []
    guess = memory.shape_from_name(model)
    if guess is None:
        return None, [f"the sizes of {model!r} are not known and its name does not say them"]
    return guess, []


def _basis(shape: ModelShape, work: memory.Workload, assumed: list[str], recipe: Mapping[str, Any]) -> list[str]:
    how = f"LoRA of rank {work.lora_rank}" if work.lora_rank else "all weights trained"
    lines = [
        f"{shape.parameters / 1e6:.1f} M parameters, {shape.layers} layers of {shape.hidden}, from {shape.source}",
        f"{work.trainer} in {work.dtype}" + (f", {how}, Adam" if work.trains else ""),
        f"{work.batch} sequences of {work.length} tokens at once"
        + ("" if not work.trains else f", checkpointing {'on' if work.checkpointing else 'off'}"),
    ]
    if work.reference:
        lines.append("a frozen reference model is held too")
    if (recipe.get("hyperparameters") or {}).get("use_vllm"):
        lines.append("vLLM takes its own share of the device on top; that is not counted")
    return lines + [f"assumed: {text}" for text in assumed]
