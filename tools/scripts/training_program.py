"""The program of a training recipe."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mlintern.tools.scripts.data_sources import is_local
from mlintern.tools.scripts.evaluation_program import plan_program
from mlintern.tools.scripts.filter_snippets import read_filters
from mlintern.tools.scripts.hyperparameters import SET_BY_SCRIPT
from mlintern.tools.scripts.mixture_program import training_data
from mlintern.tools.scripts.program import READ, Program
from mlintern.tools.scripts.recipe import TrainingRecipe
from mlintern.tools.scripts.reward_functions import reward_functions
from mlintern.tools.scripts.setting_packages import VERSIONS, packages_of
from mlintern.tools.scripts.trainer_columns import columns_beside
from mlintern.tools.scripts.trainers.advice import TRAINERS, key_fields
from mlintern.tools.scripts.trainers.schema import config_schema
from mlintern.tools.scripts.training_recipe import WithRewards, WithTeacher

PAIRS = frozenset({"dpo", "reward", "orpo", "cpo", "kto"})
"""Trainers that put two sequences through the model for each row."""


def training_program(recipe: TrainingRecipe) -> Program:
    """The script that trains, and measures the model at its end where the recipe plans that."""
    given = recipe.hyperparameters
    known = TRAINERS[recipe.trainer]
    mixed = bool(recipe.datasets)
    text_field = str(given.get("dataset_text_field", "text"))
    beside = partial(columns_beside, known.trainer_class, text_field=text_field)
    data = training_data(recipe.parts, mixed=mixed, limit=recipe.limit, beside=beside)
    filters = read_filters(recipe.filter if mixed else None)
    over_all = (*filters.own, *filters.named, *filters.whole)
    rewards = reward_functions(recipe.rewards if isinstance(recipe, WithRewards) else ())
    lora = recipe.lora is not None
    adapter = is_local(recipe.model) and (Path(recipe.model) / "adapter_config.json").is_file()
    sharded = recipe.scale in ("fsdp2", "zero3")
    packages = {"trl"} | ({"peft"} if lora or adapter else set())
    packages |= ({"huggingface_hub"} if recipe.push_to_hub else set()) | set(rewards.packages)
    passes = {"has_passes": True} if any(reward.kind == "code" for reward in rewards.built_in) else {}
    training = Program(
        template="training.py.j2",
        switches={
            "trainer": recipe.trainer,
            "summary": f"{known.does} (TRL's {known.trainer_class}).",
            "trainer_class": known.trainer_class,
            "config_class": recipe.config_class,
            "model_class": known.model_class,
            "pads": known.experimental,
            "task_type": "SEQ_CLS" if recipe.trainer == "reward" else "CAUSAL_LM",
            "sequences": 2 if recipe.trainer in PAIRS else 1,
            "completion_length": _completion_length(recipe),
            "reference": recipe.trainer in ("dpo", "kto") and not lora,
            "parts": data.parts,
            "mixed": mixed,
            "interleaves": recipe.mix == "interleave",
            "mixture_filters": [snippet.function for snippet in (*filters.own, *filters.named)],
            "mixture_whole_filters": [snippet.function for snippet in filters.whole],
            "rewarded": isinstance(recipe, WithRewards),
            "reward_list": rewards.argument,
            "teacher": isinstance(recipe, WithTeacher),
            "validates": recipe.validation_rows > 0,
            "chooses_precision": not {"bf16", "fp16"} & set(given),
            "chooses_checkpointing": "activation_checkpointing" not in given,
            "own_batch": "per_device_train_batch_size" not in given and not isinstance(recipe, WithRewards),
            "chooses_dtype": lora and recipe.dtype is None,
            "dtype": "dtype" if lora and recipe.dtype is None else "DTYPE",
            "jit_checkpoint": recipe.save_steps > 0 and "enable_jit_checkpoint" not in given,
            "more_model_arguments": bool(given.get("model_init_kwargs")),
            "lora": lora,
            "quantized": recipe.quantize is not None,
            "merges_anew": recipe.quantize is not None or sharded,
            "sharded": sharded,
            "saves_dtype": lora or not sharded,
            "freezes": recipe.freeze is not None,
            "by_time": recipe.max_minutes is not None,
            "resumes": recipe.resume,
            "resumes_from": recipe.resume_from_checkpoint is not None,
            "evaluates": recipe.evaluation is not None,
            "pushes": recipe.push_to_hub is not None,
            "pushes_checkpoints": recipe.push_every is not None,
            **passes,
        },
        constants=_constants(recipe, data.constants) | rewards.constants,
        snippets=tuple(dict.fromkeys((*data.snippets, *over_all, *rewards.snippets))),
        rewards=rewards.built_in,
        packages=frozenset(packages),
        requirements=(*recipe.requirements, *_further(recipe)),
    )
    if recipe.evaluation is None:
        return training
    return training.including(plan_program(recipe.evaluation))


def _constants(recipe: TrainingRecipe, data: Mapping[str, Any]) -> dict[str, Any]:
    dtype = recipe.dtype or (None if recipe.lora is not None else "float32")
    return {
        "NAME": recipe.title,
        "MODEL": recipe.model,
        "REVISION": recipe.revision,
        "TEACHER": recipe.teacher if isinstance(recipe, WithTeacher) else None,
        "DTYPE": dtype,
        "SEED": recipe.seed,
        **data,
        "LIMIT": recipe.limit,
        "STREAM_ABOVE": 2 * 2**30,
        "READ": list(READ),
        "VALIDATION_ROWS": recipe.validation_rows,
        "MAX_MINUTES": recipe.max_minutes,
        "HYPERPARAMETERS": hyperparameters(recipe),
        "MODEL_INIT_KWARGS": recipe.hyperparameters.get("model_init_kwargs"),
        "LORA": recipe.lora.model_dump() if recipe.lora is not None else None,
        "FREEZE": recipe.freeze.model_dump() if recipe.freeze else None,
        "CHECKPOINT": recipe.resume_from_checkpoint,
        "PUSH_TO_HUB": recipe.push_to_hub,
        "HUB_PRIVATE": recipe.hub_private,
        "USE_CPU": recipe.device_expression,
    }


def _completion_length(recipe: TrainingRecipe) -> int:
    fields = config_schema(recipe.config_class).fields
    name = next((name for name in ("max_completion_length", "max_new_tokens") if name in fields), None)
    generates = name is not None and recipe.trainer != "sft"
    return int(fields[name].default or 0) if generates and name else 0


def prompts_at_once(recipe: TrainingRecipe) -> int:
    """Prompts of one round of answers on one process: of fewer rows GRPO and RLOO make no step. Else 1."""
    if recipe.trainer not in ("grpo", "rloo"):
        return 1
    fields, values = config_schema(recipe.config_class).fields, hyperparameters(recipe)
    steps = values.get("steps_per_generation") or values["gradient_accumulation_steps"]
    batch = values.get("generation_batch_size") or values["per_device_train_batch_size"] * steps
    return max(1, int(batch // values.get("num_generations", fields["num_generations"].default)))


def _further(recipe: TrainingRecipe) -> list[str]:
    """Requirements of what the settings need, those of the recipe's own left out."""
    settings = dict(recipe.hyperparameters) | dict(recipe.hyperparameters.get("model_init_kwargs") or {})
    if recipe.quantize is not None:
        settings["quantization_config"] = "bitsandbytes"
    if recipe.scale == "zero3":
        settings["deepspeed"] = True
    named = {requirement.split("=")[0].split("[")[0].strip().lower() for requirement in recipe.requirements}
    needed = {packages[0] for packages, _ in packages_of(settings) if named.isdisjoint(packages)}
    return sorted(f"{name}=={VERSIONS[name]}" if name in VERSIONS else name for name in needed)


def hyperparameters(recipe: TrainingRecipe) -> dict[str, Any]:
    """Fields for the configuration class: what the recipe gives, and the main ones with our defaults."""
    schema = config_schema(recipe.config_class)
    values: dict[str, Any] = {}
    if recipe.max_steps is not None:
        values["max_steps"] = recipe.max_steps
    elif recipe.max_minutes is not None and recipe.epochs is None:
        values["num_train_epochs"] = 1000.0
    else:
        values["num_train_epochs"] = recipe.epochs if recipe.epochs is not None else 1.0
    values |= {name: schema.fields[name].default for name in key_fields(recipe.trainer) if name in schema.fields}
    values |= TRAINERS[recipe.trainer].defaults(lora=recipe.lora is not None)
    if recipe.trainer == "sft" and not recipe.hyperparameters.get("packing"):
        values["train_sampling_strategy"] = "group_by_length"
    if recipe.max_minutes is not None:
        values |= {"lr_scheduler_type": "constant", "warmup_steps": 0}  # the clock decays it
    if recipe.max_steps is not None:
        values["logging_steps"] = min(10, max(1, recipe.max_steps // 20))
    if recipe.validation_rows:
        best = recipe.hyperparameters.get("load_best_model_at_end")
        every = recipe.push_every if best and recipe.push_every else 0.2  # what is saved has been evaluated
        values |= {"eval_strategy": "steps", "eval_steps": every}
    values |= _saving(recipe)
    if recipe.scale == "fsdp2":
        values |= {"fsdp": True, "fsdp_config": {"version": 2}}
    if recipe.scale == "zero3":
        values["deepspeed"] = ZERO3
    if isinstance(recipe, WithRewards) and any(reward.weight != 1 for reward in recipe.rewards):
        values["reward_weights"] = [reward.weight for reward in recipe.rewards]
    elsewhere = {"model_init_kwargs", *SET_BY_SCRIPT}
    return values | {name: value for name, value in recipe.hyperparameters.items() if name not in elsewhere}


def _saving(recipe: TrainingRecipe) -> dict[str, Any]:
    share = recipe.push_every or recipe.save_steps
    if recipe.hyperparameters.get("load_best_model_at_end") and not recipe.push_every:
        given = recipe.hyperparameters
        if given.get("eval_strategy", "steps") == "epoch":
            return {"save_strategy": "epoch", "save_total_limit": recipe.save_total_limit}
        share = given.get("eval_steps", 0.2)  # what was saved must have been evaluated
    if not share:
        return {"save_strategy": "no"}
    steps = int(share) if share >= 1 else share
    return {"save_strategy": "steps", "save_steps": steps, "save_total_limit": recipe.save_total_limit}


ZERO3: Mapping[str, Any] = {
    "zero_optimization": {
        "stage": 3,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "stage3_gather_16bit_weights_on_model_save": True,
    },
    "bf16": {"enabled": "auto"},
    "gradient_clipping": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "train_batch_size": "auto",
}
"""DeepSpeed stage 3; what is "auto" is filled in from the training arguments by transformers."""
