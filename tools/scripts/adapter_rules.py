"""Whether the modules that a script gives an adapter are in its model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from mlintern.tools.hub.inspect_model import read_config
from mlintern.tools.scripts.dry_settings import Constants
from mlintern.tools.scripts.script_results import Check

_LLAMA = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"})
PARTS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3"), _LLAMA),
    "gpt2": frozenset({"c_attn", "c_proj", "c_fc", "lm_head"}),
    "gpt_neox": frozenset({"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h", "embed_out"}),
}
"""Architecture -> the names of its linear layers."""


def adapter_findings(constants: Constants, folder: Path) -> list[Check]:
    """An error where no module of the model in ``folder`` gets an adapter."""
    return list(_modules(constants, folder))


def _modules(constants: Constants, folder: Path) -> Iterator[Check]:
    lora = constants.values.get("LORA")
    targets = lora.get("target_modules") if isinstance(lora, Mapping) else None
    kind = str(read_config((folder / "config.json").read_text(encoding="utf-8")).get("model_type"))
    parts = PARTS.get(kind)
    if parts is None or not isinstance(targets, list | tuple) or not targets:
        return
    if not any(str(target).rpartition(".")[2] in parts for target in targets):
        yield Check(
            rule="lora_targets",
            severity="error",
            message=f"A {kind} model has no module {', '.join(map(str, targets))}: peft finds nothing to adapt.",
            fix=f"Use 'all-linear', or some of {', '.join(sorted(parts))}.",
        )
