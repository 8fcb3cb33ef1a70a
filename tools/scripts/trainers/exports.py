"""What the training libraries export, what their calls take, and what an installation of them brings along."""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Mapping
from typing import Any

from mlintern.tools.scripts.trainers.schema import did_you_mean, versions

OPEN = (
    *("transformers.models", "transformers.testing_utils", "transformers.kernels", "transformers.cli"),
    *("peft.tuners", "accelerate.commands", "accelerate.test_utils", "trl.cli", "datasets.packaged_modules"),
)
"""Modules that were not read, so that an import from them is not judged."""

LIBRARIES = ("trl", "transformers", "peft", "datasets", "accelerate")

REPLACED: Mapping[tuple[str, str], str] = {
    ("trl", "DataCollatorForCompletionOnlyLM"): "SFTTrainer with `prompt` and `completion` columns: the loss is on "
    "the completion only (or assistant_only_loss=True for messages)",
    ("trl", "ConstantLengthDataset"): "SFTConfig(packing=True)",
    ("trl", "setup_chat_format"): "trl.clone_chat_template, or SFTConfig(chat_template_path=...)",
    ("trl", "AutoModelForCausalLMWithValueHead"): "GRPOTrainer or RLOOTrainer, which need no value head",
    ("trl", "AutoModelForSeq2SeqLMWithValueHead"): "GRPOTrainer or RLOOTrainer with a decoder model",
    ("trl", "PPOTrainer"): "GRPOTrainer or RLOOTrainer",
    ("trl", "PPOConfig"): "GRPOConfig or RLOOConfig",
    ("trl", "PPOv2Trainer"): "GRPOTrainer or RLOOTrainer",
    ("trl", "PPOv2Config"): "GRPOConfig or RLOOConfig",
    ("trl", "DPODataCollatorWithPadding"): "nothing: DPOTrainer makes its own collator",
    ("trl", "RewardDataCollatorWithPadding"): "nothing: RewardTrainer makes its own collator",
    ("trl", "IterativeSFTTrainer"): "SFTTrainer",
    ("trl", "IterativeSFTConfig"): "SFTConfig",
    ("trl", "AlignPropTrainer"): "nothing: TRL trains no diffusion models any more",
    ("trl", "DDPOTrainer"): "nothing: TRL trains no diffusion models any more",
    ("trl", "BCOTrainer"): 'DPOTrainer with loss_type=["bco_pair"]',
    ("trl", "BCOConfig"): 'DPOConfig(loss_type=["bco_pair"])',
    ("trl", "PRMTrainer"): "RewardTrainer on whole completions",
    ("trl", "XPOTrainer"): "DPOTrainer, or GRPOTrainer with a reward function",
    ("trl", "NashMDTrainer"): "DPOTrainer, or GRPOTrainer with a reward function",
    ("trl", "SFTScriptArguments"): "trl.ScriptArguments",
    ("trl", "DPOScriptArguments"): "trl.ScriptArguments",
    ("trl", "RewardModelerConfig"): "RewardConfig",
    ("trl", "get_kbit_device_map"): 'device_map="auto", or nothing: the trainer places the model',
    ("transformers", "AdamW"): "torch.optim.AdamW",
    ("transformers", "TFAutoModel"): "AutoModel: transformers 5 is for PyTorch only",
    ("transformers", "TFAutoModelForCausalLM"): "AutoModelForCausalLM: transformers 5 is for PyTorch only",
    ("transformers", "FlaxAutoModelForCausalLM"): "AutoModelForCausalLM: transformers 5 is for PyTorch only",
    ("transformers", "AutoModelWithLMHead"): "AutoModelForCausalLM",
    ("transformers", "LineByLineTextDataset"): "datasets.load_dataset",
    ("transformers", "TextDataset"): "datasets.load_dataset",
    ("transformers", "AutoModelForVision2Seq"): "AutoModelForImageTextToText",
    ("peft", "prepare_model_for_int8_training"): "prepare_model_for_kbit_training",
    ("datasets", "load_metric"): "the `evaluate` package",
    ("datasets", "list_datasets"): "huggingface_hub.list_datasets",
    ("datasets", "list_metrics"): "the `evaluate` package",
}
"""(library, name that it once had) -> what to use instead."""


@functools.cache
def _data() -> dict[str, Any]:
    text = importlib.resources.files(__package__).joinpath("exports.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def library_of(dotted: str) -> str | None:
    """The library that a dotted name belongs to, if it is one of `LIBRARIES`."""
    root = dotted.split(".")[0]
    return root if root in LIBRARIES else None


@functools.cache
def names_in(module: str) -> frozenset[str] | None:
    """What can be imported from ``module``; None if it was not read, or is no module."""
    names = _data()["modules"].get(module)
    return None if names is None else frozenset(names.split())


def knows_module(module: str) -> bool:
    """Whether ``module`` is one of a library, or lies where modules were not read."""
    folders = {f"{module}.".startswith(f"{place}.") for place in OPEN}
    return module in _data()["modules"] or True in folders


def why_missing(module: str, name: str) -> tuple[str, str] | None:
    """(message, fix) if ``name`` cannot be imported from ``module`` of a library."""
    library = library_of(module)
    if library is None:
        return None
    names = names_in(module)
    if (names is None and knows_module(module)) or (names is not None and name in names):
        return None
    if knows_module(f"{module}.{name}"):
        return None
    version = _version(library)
    replaced = REPLACED.get((library, name))
    if names is None:
        message = f"{library}{version} has no module {module}."
        elsewhere = _elsewhere(library, name)
        return message, f"Use {replaced}." if replaced else elsewhere or "Import from the top of the package."
    message = f"{module}{version} has no {name}."
    if replaced:
        return message, f"Use {replaced}."
    return message, _elsewhere(library, name) or did_you_mean(name, names) or "Look it up with search_docs."


def _elsewhere(library: str, name: str) -> str:
    """Where else in the library the name is, the shortest module first."""
    modules = [
        module
        for module, names in _data()["modules"].items()
        if module.split(".")[0] == library and name in names.split() and ".dummy_" not in module
    ]
    public = sorted((m for m in modules if "._" not in m), key=lambda m: (len(m.split(".")), m))
    return f"Write `from {public[0]} import {name}`." if public else ""


def _version(library: str) -> str:
    found = versions().get(library)
    return f" {found}" if found else ""


def signature(library: str, name: str) -> tuple[str, ...] | None:
    """Parameters of a function or trainer class, ``**`` among them if it takes any keyword; None if unknown."""
    found = _data()["signatures"].get(library, {}).get(name)
    return None if found is None else tuple(found.split())


def brings(distribution: str, extras: frozenset[str] = frozenset()) -> frozenset[str]:
    """What is installed along with a distribution, by canonical names."""
    known = _data()["brings"]
    found = set(known.get(distribution, ()))
    for extra in extras:
        found |= set(known.get(f"{distribution}[{extra}]", ()))
        found |= set(EXTRAS.get((distribution, extra), ()))
    return frozenset(found)


EXTRAS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("trl", "peft"): ("peft",),
    ("trl", "vllm"): ("vllm",),
    ("trl", "quantization"): ("bitsandbytes",),
    ("trl", "deepspeed"): ("deepspeed",),
    ("trl", "liger"): ("liger-kernel",),
    ("trl", "kernels"): ("kernels",),
    ("transformers", "torch"): ("torch", "accelerate"),
    ("transformers", "sentencepiece"): ("sentencepiece", "protobuf"),
}
"""Extras whose packages are not installed where the lists were extracted."""
