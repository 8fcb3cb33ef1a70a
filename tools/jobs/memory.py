"""How much memory a training run needs, from the sizes of the model and the recipe. No model is loaded.

Sources of the formulas:

* weights, gradients and Adam's two moments: Rajbhandari et al. 2020 (ZeRO), section 3.1. All three are held in the
  data type that the weights are loaded in: 16 bytes a parameter in float32 (4 + 4 + 8), 8 in bfloat16.
* activations: Korthikanti et al. 2022 ("Reducing Activation Recomputation"), equation 2 without the attention term,
  which fused attention does not keep: 34 bytes x batch x length x hidden a layer in 16 bit. With checkpointing,
  2 bytes x batch x length x hidden a layer and one whole layer at a time.
* logits: the trainers of trl 1.16 never hold all of them (`trl/kernels/chunked_logprob.py`), but one tile of at most
  4096 positions and 32768 entries of the vocabulary. Its Triton kernel holds the tile once; the fallback in plain
  torch, used without a GPU, about eight times in float32.
* adapters: Hu et al. 2021 (LoRA): rank x (inputs + outputs) for each adapted matrix.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.tools.jobs.job_results import MemoryEstimate

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CPU_OVERHEAD_BYTES = 0.5 * 2**30
"""Python, torch and the trainer: 434 MiB imported, 480 to 550 MiB at the end of tiny runs (torch 2.13, trl 1.16).

This and the copies of a tile were chosen from seven runs of SFT on a CPU (0.1 to 29 M parameters, 64 to 4096
positions a step, vocabularies of 35 to 100,003, peaks of 0.5 to 5 GiB); on those the likely value is off by at most
8 %.
"""
GPU_OVERHEAD_BYTES = 2.0 * 2**30
"""CUDA context, kernels and fragmentation: a rule of thumb, not measured here."""
TILE_POSITIONS, TILE_VOCABULARY, CPU_TILE_COPIES = 4096, 32768, 8


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a decoder. ``source`` says where they come from, for the reader of an estimate."""

    parameters: int
    hidden: int
    layers: int
    vocabulary: int
    intermediate: int
    key_value: int
    dtype: str = "float32"
    source: str = ""


@dataclass(frozen=True)
class Workload:
    """What a recipe does with the model. ``batch`` and ``length`` are of one forward pass on one device."""

    trainer: str
    dtype: str
    batch: int
    length: int
    lora_rank: int | None = None
    checkpointing: bool = True
    reference: bool = False
    generates: bool = False

    @property
    def trains(self) -> bool:
        return self.trainer != "evaluation"


def estimate(shape: ModelShape, work: Workload, *, on_gpu: bool) -> MemoryEstimate:
    """Peak memory of one device (or, without one, of the process), GiB.

    ``low`` takes half of what comes and goes within a step, ``high`` twice of it and a tenth more of what stays:
    allocators keep what they have freed, and libraries differ.
    """
    lasting = lasting_bytes(shape, work)
    passing = passing_bytes(shape, work, on_gpu=on_gpu)
    overhead = GPU_OVERHEAD_BYTES if on_gpu else CPU_OVERHEAD_BYTES
    stays, comes = sum(lasting.values()), sum(passing.values())
    terms = {**lasting, **passing, "runtime": overhead}
    return MemoryEstimate(
        low=_gib(stays + 0.5 * comes + 0.9 * overhead),
        likely=_gib(stays + comes + overhead),
        high=_gib(1.1 * stays + 2.0 * comes + 1.5 * overhead),
        dominant=max(terms, key=lambda name: terms[name]),
    )


def lasting_bytes(shape: ModelShape, work: Workload) -> dict[str, float]:
    """What is held all along: weights, gradients, optimizer, reference model."""
    width = DTYPE_BYTES[work.dtype]
    terms: dict[str, float] = {"weights": shape.parameters * width}
    if work.trains:
        if work.lora_rank is None:
            terms["gradients"] = shape.parameters * width
            terms["optimizer"] = 2.0 * shape.parameters * width
        else:
            terms["adapters"] = 16.0 * adapter_parameters(shape, work.lora_rank)
        if work.reference:
            terms["reference model"] = shape.parameters * width
    return terms


def passing_bytes(shape: ModelShape, work: Workload, *, on_gpu: bool) -> dict[str, float]:
    """What comes and goes within one step: activations, logits, the cache of generation."""
    width = DTYPE_BYTES[work.dtype]
    positions = work.batch * work.length
    layer = 17.0 * width * positions * shape.hidden
    if not work.trains:
        activations = layer
    elif work.checkpointing:
        activations = width * positions * shape.hidden * shape.layers + layer
    else:
        activations = layer * shape.layers
    if work.trains:
        tile = float(min(positions, TILE_POSITIONS)) * min(shape.vocabulary, TILE_VOCABULARY)
        logits = tile * (width if on_gpu else CPU_TILE_COPIES * 4)
    else:
        logits = float(positions) * shape.vocabulary * (width + 4)
    terms = {"activations": activations, "logits": logits}
    if work.generates:
        terms["generation cache"] = 2.0 * width * positions * shape.layers * shape.key_value
    return terms


def adapter_parameters(shape: ModelShape, rank: int) -> int:
    """Trainable parameters of LoRA on every linear layer of the blocks."""
    hidden, middle, narrow = shape.hidden, shape.intermediate, shape.key_value
    attention = 2 * (hidden + hidden) + 2 * (hidden + narrow)
    return rank * shape.layers * (attention + 3 * (hidden + middle))


def workload(recipe: Mapping[str, Any], shape: ModelShape) -> tuple[Workload, list[str]]:
    """What ``recipe`` asks of the machine, and what was assumed where it does not say."""
    given: Mapping[str, Any] = recipe.get("hyperparameters") or {}
    trainer = str(recipe["trainer"])
    lora = recipe.get("lora")
    rank = int(lora.get("r", 16)) if isinstance(lora, Mapping) else None
    dtype = recipe.get("dtype") or ("float32" if rank is None else "bfloat16")
    dtype = shape.dtype if dtype == "auto" else dtype
    assumed = [] if "per_device_train_batch_size" in given else ["batch of 8, the default of TRL"]
    batch = int(given.get("per_device_train_batch_size") or 8)
    if trainer == "evaluation":
        batch, length, assumed = int(recipe.get("batch_size") or 32), 512, ["sequences of 512 tokens"]
    elif trainer == "grpo":
        completion = int(given.get("max_completion_length") or 512)
        length = completion + 512
        assumed.append(f"prompts of 512 tokens before completions of {completion}")
    else:
        length = int(given.get("max_length") or 1024)
        assumed += [] if given.get("max_length") else ["sequences of 1024 tokens, the default of TRL"]
    beta = float(given.get("beta") or 0.0)
    keeps_reference = (trainer == "dpo" and not given.get("precompute_ref_log_probs")) or (
        trainer == "grpo" and beta != 0.0
    )
    return (
        Workload(
            trainer=trainer,
            dtype=str(dtype) if dtype in DTYPE_BYTES else "float32",
            batch=batch * 2 if trainer == "dpo" else batch,  # chosen and rejected go through together
            length=length,
            lora_rank=rank,
            checkpointing=bool(given.get("gradient_checkpointing", True)),
            reference=keeps_reference and rank is None,
            generates=trainer == "grpo",
        ),
        assumed,
    )


def local_shape(folder: Path) -> ModelShape | None:
    """The sizes of a saved model, from ``config.json`` and the headers of its safetensors files; None without."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    shape = shape_of_config(config)
    counted = sum(_parameters_in(path) for path in sorted(folder.glob("*.safetensors")))
    if shape is None or not counted:
        return shape
    return ModelShape(**{**vars(shape), "parameters": counted, "source": f"the files of {folder.name}"})


def shape_of_config(config: Mapping[str, Any]) -> ModelShape | None:
    """The sizes that a transformers configuration implies; None if it is not that of a decoder."""
    text = config.get("text_config")
    text = text if isinstance(text, Mapping) else config
    hidden = text.get("hidden_size") or text.get("n_embd")
    layers = text.get("num_hidden_layers") or text.get("n_layer")
    vocabulary = text.get("vocab_size")
    if not (isinstance(hidden, int) and isinstance(layers, int) and isinstance(vocabulary, int)):
        return None
    heads = int(text.get("num_attention_heads") or text.get("n_head") or 1)
    head = int(text.get("head_dim") or hidden // heads)
    narrow = int(text.get("num_key_value_heads") or heads) * head
    middle = int(text.get("intermediate_size") or text.get("n_inner") or 4 * hidden)
    embeddings = vocabulary * hidden * (1 if config.get("tie_word_embeddings", True) else 2)
    block = 2 * hidden * heads * head + 2 * hidden * narrow + 3 * hidden * middle
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return ModelShape(
        parameters=embeddings + layers * block,
        hidden=hidden,
        layers=layers,
        vocabulary=vocabulary,
        intermediate=middle,
        key_value=narrow,
        dtype=dtype if dtype in DTYPE_BYTES else "float32",
        source="the model's configuration",
    )


def shape_from_name(model: str) -> ModelShape | None:
    """A guess from a size in the name, such as ``Qwen3-0.6B``: depth and width as models of that size have them."""
    match = re.search(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", model.rsplit("/", 1)[-1], re.IGNORECASE)
    if match is None:
        return None
    parameters = float(match[1]) * (1e9 if match[2].lower() == "b" else 1e6)
    layers = max(2, round(24 * (parameters / 1e9) ** (1 / 3)))
    hidden = max(64, 64 * round(math.sqrt(parameters / (12 * layers)) / 64))
    return ModelShape(
        parameters=int(parameters),
        hidden=hidden,
        layers=layers,
        vocabulary=150_000,
        intermediate=4 * hidden,
        key_value=hidden // 4,
        dtype="bfloat16",
        source=f"the size in the name {model!r}; depth, width and vocabulary are typical ones",
    )


def _parameters_in(path: Path) -> int:
    """Number of values in a safetensors file. Its first 8 bytes are the length of a JSON header (little endian)."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, 100 << 20)))
    except (OSError, ValueError, struct.error):
        return 0
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def _gib(size: float) -> float:
    return round(size / 2**30, 3)
