"""Which package a setting of a trainer or a model needs beyond those that every training script has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

VERSIONS: Mapping[str, str] = {
    "bitsandbytes": "0.50.2",
    "deepspeed": "0.19.8",
    "kernels": "0.17.2",
    "liger-kernel": "0.8.5",
    "mlflow": "3.18.0",
    "tensorboard": "2.21.0",
    "trackio": "0.43.0",
    "wandb": "0.31.0",
    "vllm": "0.31.0",
}
"""Versions that rendered scripts name of what a setting needs; vLLM: the newest that TRL 1.16 takes."""

REPORTERS: Mapping[str, str] = {
    "wandb": "wandb",
    "trackio": "trackio",
    "mlflow": "mlflow",
    "tensorboard": "tensorboard",
    "comet_ml": "comet-ml",
    "clearml": "clearml",
    "neptune": "neptune",
    "codecarbon": "codecarbon",
    "swanlab": "swanlab",
    "dvclive": "dvclive",
    "flyte": "flytekit",
}
"""`report_to` -> distribution."""

OPTIMIZERS: Mapping[str, str] = {
    "torch_4bit": "torchao",
    "torch_8bit": "torchao",
    "8bit": "bitsandbytes",
    "paged": "bitsandbytes",
    "ademamix": "bitsandbytes",
    "adamw_bnb": "bitsandbytes",
    "galore": "galore-torch",
    "lomo": "lomo-optim",
    "grokadamw": "grokadamw",
    "schedule_free": "schedulefree",
    "apollo": "apollo-torch",
    "adamw_apex": "apex",
    "stable_adamw": "torch-optimi",
    "adamw_anyprecision": "torchdistx",
}
"""A part of the name in `optim` -> distribution; the first that fits counts."""

ATTENTION: Mapping[str, tuple[str, ...]] = {
    "flash_attention_2": ("flash-attn", "kernels"),
    "kernels-community/": ("kernels",),
}
"""How `attn_implementation` begins -> distributions, of which one is enough."""

FLAGS: Mapping[str, str] = {
    "use_vllm": "vllm",
    "use_liger_kernel": "liger-kernel",
    "use_kernels": "kernels",
    "deepspeed": "deepspeed",
    "load_in_4bit": "bitsandbytes",
    "load_in_8bit": "bitsandbytes",
}
"""Setting that is on -> distribution."""


def packages_of(values: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """(distributions of which one is needed, the setting as ``name=value``) for each of ``values`` that needs one.

    Args:
        values: keyword -> value; None where the value is not known.
    """
    for name, package in FLAGS.items():
        if values.get(name):
            yield (package,), f"{name}={values[name]!r:.40}"
    reporters = values.get("report_to")
    for reporter in [reporters] if isinstance(reporters, str) else reporters or ():
        if isinstance(reporter, str) and reporter in REPORTERS:
            yield (REPORTERS[reporter],), f"report_to={reporter!r}"
    optimizer = str(values.get("optim") or "")
    named = next((package for part, package in OPTIMIZERS.items() if part in optimizer), None)
    if named:
        yield (named,), f"optim={optimizer!r}"
    attention = str(values.get("attn_implementation") or "")
    for beginning, packages in ATTENTION.items():
        if attention.startswith(beginning):
            yield packages, f"attn_implementation={attention!r}"
    quantization = values.get("quantization_config")
    if isinstance(quantization, Mapping) and (quantization.get("load_in_4bit") or quantization.get("load_in_8bit")):
        yield ("bitsandbytes",), "quantization_config"
    elif quantization == "bitsandbytes":
        yield ("bitsandbytes",), "quantization_config=BitsAndBytesConfig"
