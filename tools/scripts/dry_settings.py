"""What a dry run changes in a script: the constants at its top, by the variable that every rendered script reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.tools import python_source
from mlintern.tools.scripts.data_sources import is_local
from mlintern.tools.scripts.hand_written import settings_of
from mlintern.tools.scripts.script_ast import UNPARSED, Code
from mlintern.tools.scripts.script_inputs import DataSource
from mlintern.tools.scripts.trainers.schema import config_schema, known_classes

VARIABLE = "MLINTERN_DRY_RUN"
SEAM = f"""\
if "{VARIABLE}" in os.environ:  # a trial: a tiny model, few rows and steps
    globals().update(json.loads(os.environ["{VARIABLE}"]))"""

STEPS, ROWS, ITEMS, TOKENS, LONGEST = 2, 16, 4, 16, 1024

ALWAYS: Mapping[str, Any] = {
    "max_steps": STEPS,
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "logging_steps": 1,
    "report_to": "none",
    "num_generations": 2,
}
IF_GIVEN: Mapping[str, Any] = {
    "save_steps": 1,
    "eval_steps": 1,
    "tf32": None,
    "optim": "adamw_torch",
    "torch_compile": False,
    "deepspeed": None,
    "fsdp": None,
    "fsdp_config": None,
    "dataloader_num_workers": 0,
    "dataloader_prefetch_factor": None,
    "dataloader_persistent_workers": False,
    "dataset_num_proc": None,
    "use_liger_kernel": False,
    "activation_offloading": False,
    "use_vllm": False,
    "generation_batch_size": None,
    "steps_per_generation": None,
    "num_generations_eval": None,
    "push_to_hub": False,
}
"""Hyperparameters that need a GPU, other packages or other processes, or that say how much is done."""

NOT_USED = frozenset({"vllm", "bitsandbytes", "deepspeed", "liger-kernel", "flash-attn"})
"""Packages of settings that `ALWAYS` and `OTHER_WEIGHTS` replace: a dry run does without them."""


def without_replaced(requirements: tuple[str, ...]) -> tuple[str, ...]:
    """``requirements`` of a script without the packages that its dry run does not use, and without the versions of
    others that only those ask for.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    names = {one: canonicalize_name(Requirement(one).name) for one in requirements}
    loose = {"transformers"} if "vllm" in names.values() else set()
    return tuple(name if name in loose else one for one, name in names.items() if name not in NOT_USED)


AT_MOST: Mapping[str, int] = {"max_length": LONGEST, "max_completion_length": TOKENS}
OTHER_WEIGHTS = (
    *("attn_implementation", "device_map", "quantization_config", "load_in_4bit", "load_in_8bit", "max_memory"),
)
"""Ways of loading the weights that a tiny model on a CPU has no use for."""


OTHER_MODEL = re.compile(r"REWARD_MODEL(_\d+)?|TEACHER")
"""Constants that name further models; of them a dry run loads no weights either."""


@dataclass(frozen=True)
class Constants:
    """The top-level literals of a script, by name."""

    values: Mapping[str, Any]
    config_class: str | None

    @classmethod
    def of(cls, text: str) -> Constants | None:
        """None for what is not Python."""
        try:
            code = Code.of(text, python_source.parse(text))
        except UNPARSED:
            return None
        found = {name: code.literal(node) for name, node in code.constants.items()}
        values = {name: value for name, (known, value) in found.items() if known}
        if "MODEL" not in values:
            values = {**settings_of(code), **values}
        used = [name for name in known_classes() if re.search(rf"\b{name}\(", text)]
        return cls(values, next((name for name in used if name.endswith("Config") and name != "LoraConfig"), None))

    @property
    def model(self) -> str | None:
        value = self.values.get("MODEL")
        return value if isinstance(value, str) else None

    @property
    def revision(self) -> str | None:
        value = self.values.get("REVISION")
        return value if isinstance(value, str) else None

    @property
    def other_models(self) -> list[str]:
        """The models that it names beside the one it is about."""
        named = [value for name, value in self.values.items() if OTHER_MODEL.fullmatch(name)]
        return [value for value in named if isinstance(value, str)]

    @property
    def uses_hub(self) -> bool:
        """Whether its model, its data or its chat template is not a path."""
        names = [self.model or "", *(source.name for source in self.data().values())]
        given = self.values.get("HYPERPARAMETERS")
        template = given.get("chat_template_path") if isinstance(given, dict) else None
        elsewhere = isinstance(template, str) and not Path(template).exists()
        return elsewhere or not all(map(is_local, names))

    def data(self) -> dict[str, DataSource]:
        """The datasets that it reads, by the constant that names each."""
        found = {}
        parts = sorted(name for name in self.values if re.fullmatch(r"PART_\d+_DATASET", name))
        for name, prefix in (*_DATASETS, *((part, part.removesuffix("DATASET")) for part in parts)):
            value = self.values.get(name)
            listed = name == "PROMPTS_DATASET" and isinstance(self.values.get("PROMPTS"), list)
            if isinstance(value, str) and not listed:
                split = self.values.get("SPLIT" if name == "DATASET" else f"{prefix}SPLIT")
                config, revision = self.values.get(f"{prefix}CONFIG"), self.values.get(f"{prefix}REVISION")
                found[name] = DataSource(value, config, split if isinstance(split, str) else "train", revision)
        return found


_DATASETS = (
    ("DATASET", "DATASET_"),
    ("EVALUATION_DATASET", "EVALUATION_"),
    ("FEWSHOT_DATASET", "FEWSHOT_"),
    ("PROMPTS_DATASET", "PROMPTS_"),
)
"""Constants that name datasets, and how the constants that belong to them begin."""


def has_seam(text: str) -> bool:
    return VARIABLE in text


def dry_settings(constants: Constants, *, model: Path, data: Mapping[str, Path]) -> dict[str, Any]:
    """New values for the constants of a script.

    Args:
        model: the tiny model.
        data: constant -> the local copy that takes the place of a dataset of the Hub.
    """
    offered: dict[str, Any] = {
        "MODEL": str(model),
        "CANDIDATES": [],
        "REVISION": None,
        "DTYPE": "float32",
        "USE_CPU": True,
        "LIMIT": ROWS,
        "CHECKPOINT": None,
        "PUSH_TO_HUB": None,
        "EVALUATION_LIMIT": ITEMS,
        "EVALUATION_BATCH_SIZE": ITEMS,
        "ENGINE": "transformers",
        **{name: str(path) for name, path in data.items()},
        **{name.replace("DATASET", "REVISION" if name != "DATASET" else "DATASET_REVISION"): None for name in data},
    }
    known = constants.values
    settings = {name: value for name, value in offered.items() if name in known or name == "USE_CPU"}
    for name, value in known.items():
        if OTHER_MODEL.fullmatch(name) and isinstance(value, str):
            settings[name] = str(model)
        if re.fullmatch(r"PART_\d+_ROWS", name) and isinstance(value, int):
            settings[name] = min(value, ROWS)
    if isinstance(known.get("VALIDATION_ROWS"), int):
        settings["VALIDATION_ROWS"] = min(known["VALIDATION_ROWS"], ITEMS)
    if "MAX_NEW_TOKENS" in known:
        given = known["MAX_NEW_TOKENS"]
        settings["MAX_NEW_TOKENS"] = min(given, TOKENS) if isinstance(given, int) else TOKENS
    for name in ("ENDPOINT", "JUDGE"):
        if isinstance(known.get(name), dict):
            settings[name] = {**known[name], "url": None}  # nobody is asked
    if isinstance(known.get("HYPERPARAMETERS"), dict) and constants.config_class:
        settings["HYPERPARAMETERS"] = small_hyperparameters(known["HYPERPARAMETERS"], constants.config_class)
    if isinstance(known.get("MODEL_INIT_KWARGS"), dict):
        kept = {name: value for name, value in known["MODEL_INIT_KWARGS"].items() if name not in OTHER_WEIGHTS}
        settings["MODEL_INIT_KWARGS"] = kept
    if isinstance(known.get("LORA"), dict):
        chosen = ("layers_to_transform", "layers_pattern", "quantization_config", "loftq_config")
        settings["LORA"] = {name: value for name, value in known["LORA"].items() if name not in chosen}
    return settings


def small_hyperparameters(given: Mapping[str, Any], class_name: str) -> dict[str, Any]:
    """``given``, with what makes a run long, large or dependent on a GPU replaced; everything else as it stands."""
    fields = config_schema(class_name).fields
    small = dict(given)
    small |= {name: value for name, value in ALWAYS.items() if name in fields}
    small |= {name: value for name, value in IF_GIVEN.items() if name in given}
    if {"bf16", "fp16"} & set(given):
        small |= {"bf16": False, "fp16": False}
    for name, most in AT_MOST.items():
        if name in fields:
            value = given.get(name, fields[name].default)
            small[name] = min(value, most) if isinstance(value, int) else most
    if class_name in ("DPOConfig", "KTOConfig"):
        small["per_device_train_batch_size"] = small["per_device_eval_batch_size"] = 1
    return small
