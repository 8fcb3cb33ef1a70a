"""The program of a training recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlintern.tools.scripts.data_sources import load_options
from mlintern.tools.scripts.evaluation_program import plan_program
from mlintern.tools.scripts.filter_snippets import read_filters
from mlintern.tools.scripts.hyperparameters import SET_BY_SCRIPT
from mlintern.tools.scripts.program import Program, source_names
from mlintern.tools.scripts.recipe import GrpoRecipe, TrainingRecipe
from mlintern.tools.scripts.reward_functions import reward_functions
from mlintern.tools.scripts.snippets import read_snippet
from mlintern.tools.scripts.trainers.advice import key_fields
from mlintern.tools.scripts.trainers.schema import config_schema

SUMMARIES: Mapping[str, str] = {
    "sft": "Fine-tune a language model on examples (TRL's SFTTrainer).",
    "dpo": "Fine-tune a language model on preferences (TRL's DPOTrainer).",
    "grpo": "Fine-tune a language model on rewards (TRL's GRPOTrainer).",
}


def training_program(recipe: TrainingRecipe) -> Program:
    """The script that trains, and measures the model at its end where the recipe plans that."""
    given = recipe.hyperparameters
    prepare = recipe.prepare and read_snippet(recipe.prepare, what="prepare", parameters=1, prefer="prepare")
    filters = read_filters(recipe.filter)
    rewards = reward_functions(recipe.rewards if isinstance(recipe, GrpoRecipe) else ())
    packages = {"trl"} | ({"peft"} if recipe.lora else set()) | ({"huggingface_hub"} if recipe.push_to_hub else set())
    training = Program(
        template="training.py.j2",
        switches={
            "trainer": recipe.trainer,
            "summary": SUMMARIES[recipe.trainer],
            "trainer_class": recipe.config_class.replace("Config", "Trainer"),
            "config_class": recipe.config_class,
            "training_source": source_names(recipe.dataset, config=recipe.dataset_config),
            "prepare": prepare.function if prepare else None,
            "own_filters": [snippet.function for snippet in filters.own],
            "named_filters": [snippet.function for snippet in filters.named],
            "reward_list": rewards.argument,
            "renames": bool(recipe.columns),
            "keeps_only_renamed": recipe.trainer != "grpo",  # rewards may read the other columns
            "validates": recipe.validation_rows > 0,
            "chooses_precision": bool({"bf16", "fp16"} & set(given)),
            "jit_checkpoint": recipe.save_steps > 0 and "enable_jit_checkpoint" not in given,
            "more_model_arguments": bool(given.get("model_init_kwargs")),
            "lora": recipe.lora is not None,
            "resumes": recipe.resume,
            "resumes_from": recipe.resume_from_checkpoint is not None,
            "evaluates": recipe.evaluation is not None,
            "pushes": recipe.push_to_hub is not None,
        },
        constants={
            "NAME": recipe.title,
            "MODEL": recipe.model,
            "REVISION": recipe.revision,
            "DTYPE": recipe.weights_dtype,
            "SEED": recipe.seed,
            "DATASET": recipe.dataset,
            "DATASET_CONFIG": recipe.dataset_config,
            "DATASET_OPTIONS": load_options(recipe.dataset),
            "DATASET_REVISION": recipe.dataset_revision,
            "SPLIT": recipe.split,
            "COLUMNS": {theirs: ours for ours, theirs in recipe.columns.items()},
            "LIMIT": recipe.limit,
            "VALIDATION_ROWS": recipe.validation_rows,
            "HYPERPARAMETERS": hyperparameters(recipe),
            "MODEL_INIT_KWARGS": given.get("model_init_kwargs"),
            "LORA": recipe.lora.model_dump() if recipe.lora is not None else None,
            "CHECKPOINT": recipe.resume_from_checkpoint,
            "PUSH_TO_HUB": recipe.push_to_hub,
            "HUB_PRIVATE": recipe.hub_private,
            "USE_CPU": recipe.device_expression,
            **rewards.constants,
        },
        snippets=(*((prepare,) if prepare else ()), *filters.own, *filters.named, *rewards.snippets),
        rewards=rewards.built_in,
        packages=frozenset(packages),
        requirements=tuple(recipe.requirements),
    )
    return training.including(plan_program(recipe.evaluation)) if recipe.evaluation else training


def hyperparameters(recipe: TrainingRecipe) -> dict[str, Any]:
    """Fields for the configuration class: what the recipe gives, and the main ones that it leaves to the defaults."""
    schema = config_schema(recipe.config_class)
    values: dict[str, Any] = {}
    if recipe.max_steps is not None:
        values["max_steps"] = recipe.max_steps
    else:
        values["num_train_epochs"] = recipe.epochs if recipe.epochs is not None else 1.0
    values |= {name: schema.fields[name].default for name in key_fields(recipe.trainer)}
    if recipe.max_steps is not None:
        values["logging_steps"] = min(10, max(1, recipe.max_steps // 20))
    if recipe.validation_rows:
        values |= {"eval_strategy": "steps", "eval_steps": 0.2}
    if recipe.save_steps:
        steps = int(recipe.save_steps) if recipe.save_steps >= 1 else recipe.save_steps
        values |= {"save_strategy": "steps", "save_steps": steps, "save_total_limit": recipe.save_total_limit}
    else:
        values["save_strategy"] = "no"
    if isinstance(recipe, GrpoRecipe) and any(reward.weight != 1 for reward in recipe.rewards):
        values["reward_weights"] = [reward.weight for reward in recipe.rewards]
    elsewhere = {"model_init_kwargs", *SET_BY_SCRIPT}
    return values | {name: value for name, value in recipe.hyperparameters.items() if name not in elsewhere}
