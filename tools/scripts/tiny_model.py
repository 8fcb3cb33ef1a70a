"""Makes a tiny random model of the same architecture as a real one, then runs a script.

    python tiny_model.py MODEL_FILES TINY_MODEL SCRIPT [TRIAL]

With TRIAL, the file `trial.py` in a folder with what it imports, that one runs the script in this process; else the
script takes this process's place.

``MODEL_FILES`` holds the real model's config.json and tokenizer, no weights; ``TINY_MODEL`` is written. It runs in
the environment of the script, where mlintern may be missing: it uses the standard library, and transformers.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

SMALL = {
    "hidden_size": 32, "n_embd": 32, "d_model": 32, "embedding_size": 32, "word_embed_proj_dim": 32,
    "intermediate_size": 64, "ffn_dim": 64, "n_inner": 64, "d_ff": 64, "ffn_hidden_size": 64,
    "num_attention_heads": 2, "n_head": 2, "n_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2,
    "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "num_experts": 4, "num_local_experts": 4,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_topk": 2, "n_group": 1, "topk_group": 1,
    "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16,
    "v_head_dim": 16, "global_head_dim": 16, "num_kv_shared_layers": 0, "max_window_layers": 2,
    "hidden_size_per_layer_input": 16, "depth": 2,
}  # fmt: skip
"""What is made smaller, under the names that architectures give it. A value that is smaller already stays."""

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth")
MOST_LAYERS = 4
DROPPED = ("quantization_config", "auto_map", "_name_or_path", "_attn_implementation")


def shrink(config: dict[str, Any]) -> dict[str, Any]:
    """``config`` (a config.json with its defaults filled in) of the same model, a few dozen dimensions wide.

    The vocabulary stays, so that tokens beyond it still fail. Of layers of several types one of each type is kept.
    """
    layers = next((config[name] for name in LAYERS if isinstance(config.get(name), int)), 0)
    kept = _layers_to_keep(config, layers)
    small: dict[str, Any] = {}
    for name, value in config.items():
        if name in DROPPED:
            continue
        if name in LAYERS and isinstance(value, int):
            value = min(value, len(kept))
        elif name in SMALL and isinstance(value, int) and not isinstance(value, bool):
            value = min(value, SMALL[name])
        elif isinstance(value, list) and layers > len(kept) and len(value) == layers:
            value = [value[index] for index in kept]
        elif name in ("rope_scaling", "rope_parameters") and isinstance(value, dict):
            value = _plain_rope(value)
        elif isinstance(value, dict) and name.endswith("_config"):
            value = shrink(value)
        small[name] = value
    if "dtype" in small or "torch_dtype" in small:
        small.pop("torch_dtype", None)
        small["dtype"] = "float32"
    return small


def _layers_to_keep(config: dict[str, Any], layers: int) -> list[int]:
    """Indices of the first layer of each kind, filled up to two from the start."""
    described = [value for value in config.values() if isinstance(value, list) and layers and len(value) == layers]
    first: dict[str, int] = {}
    for index in range(layers):
        first.setdefault(repr([value[index] for value in described]), index)
    kept = list(first.values())[:MOST_LAYERS]
    kept += [index for index in range(layers) if index not in kept][: max(0, 2 - len(kept))]
    return sorted(kept)


def _plain_rope(rope: dict[str, Any]) -> dict[str, Any]:
    """Rotary settings without the factors by dimension, which fit the real head size only."""
    if any(isinstance(value, dict) for value in rope.values()):  # one for each type of layer
        return {name: _plain_rope(value) if isinstance(value, dict) else value for name, value in rope.items()}
    if not any(isinstance(value, list) for value in rope.values()):
        return rope
    theta = {"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}
    return {"rope_type": "default", **theta}


def make(source: Path, target: Path) -> None:
    """Save a random model with the shrunk configuration of ``source`` in ``target``, beside the real tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    set_seed(0)
    target.mkdir(parents=True, exist_ok=True)
    config = AutoConfig.from_pretrained(source)
    small = type(config).from_dict(shrink(config.to_dict()))
    model = AutoModelForCausalLM.from_config(small)
    if model.generation_config is not None and (source / "generation_config.json").is_file():
        shutil.copyfile(source / "generation_config.json", target / "generation_config.json")
        model.generation_config = type(model.generation_config).from_pretrained(source)
    model.save_pretrained(target)
    for file in source.iterdir():
        if file.is_file() and is_tokenizer_file(file.name):
            shutil.copyfile(file, target / file.name)


def is_tokenizer_file(name: str) -> bool:
    """Whether a file of a model belongs to its tokenizer."""
    return name.startswith(("tokenizer", "vocab", "special_tokens", "added_tokens", "merges", "chat_template")) or (
        name.endswith((".model", ".tiktoken", ".jinja"))
    )


def main(source: str, target: str, script: str, trial: str = "") -> None:
    make(Path(source), Path(target))
    if trial:
        folder = Path(trial).parent
        sys.path.insert(0, str(folder.parent))
        module = importlib.import_module(f"{folder.name}.trial")
        sys.argv[:] = [script]
        module.run(script)
        return
    os.execv(sys.executable, [sys.executable, script])


if __name__ == "__main__":
    main(*sys.argv[1:])
