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
* copies for autocast: weights in float32 are multiplied in bfloat16 on a GPU; the copies last from the forward to
  the backward pass, 2 bytes a parameter (`torch.autocast`), and activations are in 16 bit.
* cache of generation: 2 x layers x key-value heads x head size, a token (Pope et al. 2022, section 3.3); GRPO and
  RLOO generate all sequences of an accumulated step at once (`trl/trainer/grpo_trainer.py`, `generation_batch_size`).
* mixture of experts: all experts are held, though few are used for a token (Shazeer et al. 2017).
* optimizers: 8 bit, two bytes a parameter (Dettmers et al. 2022); Adafactor, a row and a column a matrix (Shazeer and
  Stern 2018); sharding by n devices divides weights, gradients and optimizer by n (ZeRO stage 3, FSDP).
* 4 bit: nf4 with double quantization takes 0.52 bytes a parameter (Dettmers et al. 2023, section 3); the embeddings
  stay in 16 bit.
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
FRAGMENTED = 0.05
"""Share of what stays that an allocator loses between blocks: a rule of thumb."""
DEFAULT_BATCH = {"dpo": 4, "orpo": 4, "cpo": 4, "distillation": 4, "gkd": 4, "online_dpo": 4}
"""Rows at once that rendered scripts take where a recipe does not say; 8 for the other trainers."""
PAIRED = ("dpo", "reward", "orpo", "cpo", "kto")
SAMPLED = ("grpo", "rloo", "online_dpo", "distillation", "gkd")
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
    embeddings: int = 0
    source: str = ""


@dataclass(frozen=True)
class Workload:
    """What a recipe does with the model. ``batch`` and ``length`` are of one forward pass on one device.

    Attributes:
        generated: sequences that are generated at once; 0: as many as ``batch``.
        shards: devices that weights, gradients and optimizer are spread over.
    """

    trainer: str
    dtype: str
    batch: int
    length: int
    lora_rank: int | None = None
    checkpointing: bool = True
    reference: bool = False
    generates: bool = False
    generated: int = 0
    optimizer: str = "adamw_torch"
    quantized: bool = False
    shards: int = 1

    @property
    def trains(self) -> bool:
        return self.trainer not in ("evaluation", "generate")


def estimate(shape: ModelShape, work: Workload, *, on_gpu: bool) -> MemoryEstimate:
    """Peak memory of one device (or, without one, of the process), GiB.

    ``low`` takes half of what comes and goes within a step, ``high`` twice of it and a tenth more of what stays:
    allocators keep what they have freed, and libraries differ. Trainers other than TRL's hold all logits (2 bytes in
    16 bit, 4 in float32, 4 for their gradient), which ``high`` counts too.
    """
    lasting = lasting_bytes(shape, work)
    passing = passing_bytes(shape, work, on_gpu=on_gpu)
    overhead = GPU_OVERHEAD_BYTES if on_gpu else CPU_OVERHEAD_BYTES
    stays, comes = sum(lasting.values()), sum(passing.values())
    lost = FRAGMENTED * stays if on_gpu else 0.0
    terms = {**lasting, **passing, "runtime": overhead}
    whole_logits = 10.0 * work.batch * work.length * shape.vocabulary if work.trains and on_gpu else 0.0
    buckets = lasting.get("gradients", 0.0) if on_gpu else 0.0  # the second copy that DDP reduces
    return MemoryEstimate(
        low=_gib(stays + 0.5 * comes + 0.9 * overhead),
        likely=_gib(stays + comes + lost + overhead),
        high=_gib(1.1 * stays + 2.0 * comes + 1.5 * overhead + whole_logits + buckets),
        dominant=max(terms, key=lambda name: terms[name]),
    )


def lasting_bytes(shape: ModelShape, work: Workload) -> dict[str, float]:
    """What is held all along: weights, gradients, optimizer, reference model."""
    width = DTYPE_BYTES[work.dtype]
    weights = float(shape.parameters * width)
    if work.quantized:
        weights = 0.52 * (shape.parameters - shape.embeddings) + 2.0 * shape.embeddings
    terms = {"weights": weights}
    if work.trains:
        if work.lora_rank is None:
            terms["gradients"] = shape.parameters * width
            terms["optimizer"] = optimizer_bytes(work.optimizer, width) * shape.parameters
        else:
            terms["adapters"] = 16.0 * adapter_parameters(shape, work.lora_rank)
        if work.reference:
            terms["reference model"] = shape.parameters * width
    return {name: size / work.shards for name, size in terms.items()}


def optimizer_bytes(name: str, width: int) -> float:
    """Bytes a parameter of the state of an optimizer, by its name in `optim`."""
    if "8bit" in name:
        return 2.0
    if "4bit" in name:
        return 1.0
    if "adafactor" in name or "galore" in name or "apollo" in name:
        return 0.1
    if name in ("sgd", "signsgd") or "lomo" in name:
        return 0.0
    one_moment = "lion" in name or name in ("rmsprop", "adagrad")
    return float(width if one_moment else 2 * width)


def checkpoint_bytes(shape: ModelShape, work: Workload, *, kept: int) -> float:
    """Disk for the checkpoints that are kept and the saved model: weights, and the optimizer's state in each."""
    width = DTYPE_BYTES[work.dtype]
    model = float(shape.parameters * width)
    if work.lora_rank is not None:
        return kept * 12.0 * adapter_parameters(shape, work.lora_rank) + 2.0 * shape.parameters
    return kept * (model + optimizer_bytes(work.optimizer, width) * shape.parameters) + model


def passing_bytes(shape: ModelShape, work: Workload, *, on_gpu: bool) -> dict[str, float]:
    """What comes and goes within one step: activations, logits, the cache of generation."""
    width = DTYPE_BYTES[work.dtype]
    positions = work.batch * work.length
    autocast = on_gpu and work.trains and work.dtype == "float32"
    kept = 2 if autocast else width
    wide = max(1.0, shape.intermediate / (4 * shape.hidden)) if shape.intermediate < 8 * shape.hidden else 1.0
    layer = 17.0 * kept * positions * shape.hidden * wide
    if not work.trains:
        activations = layer
    elif work.checkpointing:
        activations = kept * positions * shape.hidden * shape.layers + layer
    else:
        activations = layer * shape.layers
    if work.trains:
        tile = float(min(positions, TILE_POSITIONS)) * min(shape.vocabulary, TILE_VOCABULARY)
        logits = tile * (width if on_gpu else CPU_TILE_COPIES * 4)
    else:
        logits = float(positions) * shape.vocabulary * (width + 4)
    terms = {"activations": activations, "logits": logits}
    if autocast and work.lora_rank is None:
        terms["autocast copies"] = 2.0 * shape.parameters / work.shards
    if work.generates:
        tokens = (work.generated or work.batch) * work.length
        terms["generation cache"] = 2.0 * kept * tokens * shape.layers * shape.key_value
    return terms


def adapter_parameters(shape: ModelShape, rank: int) -> int:
    """Trainable parameters of LoRA on every linear layer of the blocks."""
    hidden, middle, narrow = shape.hidden, shape.intermediate, shape.key_value
    attention = 2 * (hidden + hidden) + 2 * (hidden + narrow)
    return rank * shape.layers * (attention + 3 * (hidden + middle))


def workload(recipe: Mapping[str, Any], shape: ModelShape, *, devices: int = 1) -> tuple[Workload, list[str]]:
    """What ``recipe`` asks of one of ``devices``, and what was assumed where it does not say."""
    given: Mapping[str, Any] = recipe.get("hyperparameters") or {}
    trainer = str(recipe["trainer"])
    lora = recipe.get("lora")
    rank = int(lora.get("r", 16)) if isinstance(lora, Mapping) else None
    if rank is None and recipe.get("quantize"):
        rank = 16
    dtype = recipe.get("dtype") or ("float32" if rank is None else "bfloat16")
    dtype = shape.dtype if dtype == "auto" else dtype
    usual = DEFAULT_BATCH.get(trainer, 8)
    assumed = [] if "per_device_train_batch_size" in given else [f"batch of {usual}, the default of our scripts"]
    batch = int(given.get("per_device_train_batch_size") or usual)
    generated = 0
    if trainer in ("evaluation", "generate"):
        answers = int(recipe.get("max_new_tokens") or 256)
        batch, length = int(recipe.get("batch_size") or 32), answers + 512
        assumed = [f"prompts of 512 tokens before answers of {answers}"]
    elif trainer in SAMPLED:
        completion = int(given.get("max_completion_length") or given.get("max_new_tokens") or 512)
        length = completion + 512
        parts = given.get("steps_per_generation") or given.get("gradient_accumulation_steps") or 4
        generated = (
            int(given.get("generation_batch_size") or batch * int(parts)) if trainer in ("grpo", "rloo") else 0
        )
        assumed.append(f"prompts of 512 tokens before completions of {completion}")
    else:
        length = int(given.get("max_length") or 1024)
        assumed += [] if given.get("max_length") else ["sequences of 1024 tokens, the default of TRL"]
    sampled_reference = trainer in ("grpo", "online_dpo") and float(given.get("beta") or 0.0) != 0.0
    paired_reference = trainer in ("dpo", "kto") and not given.get("precompute_ref_log_probs")
    keeps_reference = sampled_reference or paired_reference or (trainer == "rloo" and given.get("beta") != 0.0)
    shards = max(1, devices) if recipe.get("scale") in ("fsdp2", "zero3") else 1
    return (
        Workload(
            trainer=trainer,
            dtype=str(dtype) if dtype in DTYPE_BYTES else "float32",
            batch=batch * 2 if trainer in PAIRED else batch,  # chosen and rejected go through together
            length=length,
            lora_rank=rank,
            checkpointing=bool(given.get("activation_checkpointing", given.get("gradient_checkpointing", True))),
            reference=keeps_reference and rank is None,
            generates=trainer in SAMPLED or trainer in ("evaluation", "generate"),
            generated=generated,
            optimizer=str(given.get("optim") or "adamw_torch"),
            quantized=recipe.get("quantize") == "nf4",
            shards=shards,
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
    attention = 2 * hidden * heads * head + 2 * hidden * narrow
    feed_forward = _feed_forward(text, hidden=hidden, middle=middle, layers=layers)
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return ModelShape(
        parameters=embeddings + layers * attention + feed_forward,
        hidden=hidden,
        layers=layers,
        vocabulary=vocabulary,
        intermediate=middle,
        key_value=narrow,
        dtype=dtype if dtype in DTYPE_BYTES else "float32",
        embeddings=embeddings,
        source="the model's configuration",
    )


def _feed_forward(config: Mapping[str, Any], *, hidden: int, middle: int, layers: int) -> int:
    """Parameters of all feed-forward layers; of a mixture of experts every expert counts."""
    names = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    experts = next((int(config[name]) for name in names if isinstance(config.get(name), int)), 0)
    dense = 3 * hidden * middle
    if experts < 2:
        return layers * dense
    width = int(config.get("moe_intermediate_size") or middle)
    shared = config.get("shared_expert_intermediate_size") or (config.get("n_shared_experts") or 0) * width
    sparse = 3 * hidden * (experts * width + int(shared)) + hidden * experts
    first = int(config.get("first_k_dense_replace") or 0)
    every = max(1, int(config.get("decoder_sparse_step") or config.get("moe_layer_freq") or 1))
    only = config.get("mlp_only_layers")
    plain = set(only) if isinstance(only, list) else set()
    number = sum(layer >= first and (layer + 1) % every == 0 and layer not in plain for layer in range(layers))
    return number * sparse + (layers - number) * dense


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
