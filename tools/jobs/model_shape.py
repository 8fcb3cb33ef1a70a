"""Sizes of a model and the memory that training it takes, from its config.json, without its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlintern.tools.errors import MlinternError
from mlintern.tools.hub.client import HubClient
from mlintern.tools.hub.inspect_model import MemoryOfTrainer
from mlintern.tools.jobs.memory import ModelShape, estimate, shape_of_config, workload

LARGEST_CONFIG = 1_000_000
TRAINERS = ("sft", "dpo", "grpo")


async def remote_shape(hub: HubClient, model: str) -> ModelShape | None:
    """The shape of ``model``, or None if it cannot be had: no such model, gated, offline, or not a known kind."""

    def read(api: Any) -> bytes:
        from mlintern.tools.hub.browse import read_bytes

        return read_bytes(api, model, path="config.json", kind="model", revision=None, limit=LARGEST_CONFIG)

    try:
        config = json.loads(await hub.call(f"config.json of {model}", read))
    except (MlinternError, ValueError):
        return None
    return shape_of_config(config) if isinstance(config, dict) else None


def memory_by_trainer(config: Mapping[str, Any], parameters: int | None) -> dict[str, MemoryOfTrainer]:
    """Estimates of `jobs.memory` for a full and a LoRA run of each trainer; empty for an unknown architecture."""
    shape = shape_of_config(config)
    if shape is None:
        return {}
    if parameters:
        shape = replace(shape, parameters=parameters)
    found = {}
    for trainer in TRAINERS:
        runs: dict[str, dict[str, Any]] = {}
        for kind, lora in (("full", None), ("lora", {"r": 16})):
            work, assumed = workload({"trainer": trainer, "lora": lora, "hyperparameters": {}}, shape)
            runs[kind] = {**estimate(shape, work, on_gpu=True).model_dump(), "dtype": work.dtype, "assumes": assumed}
        found[trainer] = MemoryOfTrainer(**runs)
    return found
