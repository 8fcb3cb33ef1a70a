"""Holds the hyperparameters of a recipe against the configuration classes, before a job is paid for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.trainers.rules import cross_field_problems
from mlintern.tools.scripts.trainers.schema import (
    ConfigSchema,
    Problem,
    check_name,
    check_value,
    config_schema,
    did_you_mean,
)

CONFIG_CLASSES: Mapping[str, str] = {
    "sft": "SFTConfig",
    "dpo": "DPOConfig",
    "grpo": "GRPOConfig",
    "rloo": "RLOOConfig",
    "kto": "KTOConfig",
    "reward": "RewardConfig",
    "distillation": "DistillationConfig",
    "gkd": "GKDConfig",
    "orpo": "ORPOConfig",
    "cpo": "CPOConfig",
    "online_dpo": "OnlineDPOConfig",
}
"""Trainer -> its configuration class."""

HOISTED: Mapping[str, str] = {
    "max_steps": "max_steps",
    "num_train_epochs": "epochs",
    "seed": "seed",
    "save_steps": "save_steps",
    "save_total_limit": "save_total_limit",
    "use_cpu": "use_cpu",
    "resume_from_checkpoint": "resume_from_checkpoint",
}
"""Hyperparameters that are fields of the recipe itself, and are moved there."""

DEPRECATED: Mapping[str, str] = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
"""Names that transformers 5.23 takes with a warning, and those that it has now."""

SET_BY_SCRIPT: Mapping[str, tuple[Any, str]] = {
    "output_dir": (None, "A job has an output folder of its own (MLINTERN_OUTPUT_DIR)."),
    "logging_nan_inf_filter": (False, "True would log a NaN loss as 0."),
    "disable_tqdm": (True, "A progress bar garbles the log of a job."),
    "push_to_hub": (False, "Set `push_to_hub` of the recipe to the repository's id."),
    "hub_model_id": (None, "Set `push_to_hub` of the recipe to the repository's id."),
    "hub_private_repo": (None, "Set `hub_private` of the recipe."),
    "hub_token": (None, "A token never stands in a script; give HF_TOKEN to the job by name."),
    "do_train": (True, "The script trains."),
    "save_strategy": ("steps", "Set `save_steps` of the recipe; 0 saves no checkpoints."),
}
"""Fields that the script fixes: the value that may be repeated, and why another may not."""


def hoist_recipe_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    """``data`` with the hyperparameters that belong to the recipe moved to where they belong.

    Raises:
        BadInput: the same thing is given at both places with different values.
    """
    given = data.get("hyperparameters")
    if not isinstance(given, Mapping):
        return dict(data)
    moved, kept = dict(data), _with_new_names(given)
    for name, target in HOISTED.items():
        if name in kept:
            value = kept.pop(name)
            if moved.get(target, value) != value:
                raise BadInput(
                    f"{target} is {moved[target]!r} in the recipe and {value!r} as {name} in hyperparameters.",
                    next_step="Keep the one in the recipe.",
                )
            moved[target] = value
    if kept.get("resume_from_checkpoint") is None and isinstance(moved.get("resume_from_checkpoint"), bool):
        moved["resume"] = moved.pop("resume_from_checkpoint")
    return {**moved, "hyperparameters": kept}


def _with_new_names(given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` without the names that the libraries still take, and warn about.

    Raises:
        BadInput: a field is given under both of its names, with different values.
    """
    kept = dict(given)
    for old, new in DEPRECATED.items():
        if old in kept:
            value = kept.pop(old)
            if kept.get(new, value) != value:
                raise BadInput(f"{old} is the old name of {new}, and they differ.", next_step=f"Keep {new}.")
            kept[new] = value
    if kept.get("loss_type") == "chunked_nll":
        kept["loss_type"] = "nll"  # computed the same way since TRL 1.16
    return kept


def check_hyperparameters(
    class_name: str, given: Mapping[str, Any], *, validation: bool, seed: int, push_every: int | None = None
) -> None:
    """Refuse fields that do not exist, values that they cannot have, and combinations that TRL refuses.

    Args:
        validation: whether rows are held out for a loss during training.
        seed: of the recipe; a field of the same name counts with the cross-field rules.
        push_every: steps between checkpoints where these are pushed.

    Raises:
        BadInput: names everything that is wrong, each with what to write instead.
    """
    schema = config_schema(class_name)
    problems = [problem for name, value in given.items() if (problem := _problem(schema, name, value))]
    if not problems:
        rendered = {"eval_strategy": "steps", "eval_steps": push_every or 0.2} if validation else {}
        values = {"seed": seed, **rendered, **given}
        # what is saved is what was evaluated, so that the best can be loaded
        if push_every is None:
            values |= {
                "save_steps": values.get("eval_steps", 500),
                "save_strategy": values.get("eval_strategy", "no"),
            }
        else:
            values |= {"save_steps": push_every, "save_strategy": "steps"}
        problems = cross_field_problems(class_name, values)
        if given.get("eval_strategy", "no") != "no" and not validation:
            problems.append(
                Problem(
                    "cross_field",
                    "error",
                    "eval_strategy",
                    "eval_strategy is set, but nothing is held out to evaluate on.",
                    "Set validation_rows of the recipe.",
                )
            )
    _refuse(problems)


def check_lora(given: Mapping[str, Any]) -> None:
    """Refuse fields that peft.LoraConfig does not have.

    Raises:
        BadInput: names everything that is wrong.
    """
    schema = config_schema("LoraConfig")
    _refuse([problem for name, value in given.items() if (problem := _problem(schema, name, value))])


def unknown_recipe_field(name: str, fields: Iterable[str], *, class_name: str | None) -> str:
    """What to say about a recipe field that does not exist."""
    problem = check_name(config_schema(class_name), name) if class_name is not None else None
    if class_name is not None and problem is None:
        return f"{name} is no field of the recipe but one of {class_name}: put it into `hyperparameters`."
    if problem is not None and problem.rule == "removed_field":
        return str(problem)
    known = [field for field in fields if field != "trainer"]
    return f"The recipe has no field {name}. " + (did_you_mean(name, known) or f"Fields: {', '.join(known)}.")


def _problem(schema: ConfigSchema, name: str, value: Any) -> Problem | None:
    if schema.name != "LoraConfig" and name in SET_BY_SCRIPT:
        allowed, reason = SET_BY_SCRIPT[name]
        if value != allowed:
            return Problem("set_by_script", "error", name, f"{name} is set by the script.", reason)
    if (
        name == "model_init_kwargs"
        and isinstance(value, Mapping)
        and {"dtype", "torch_dtype", "revision"} & set(value)
    ):
        message = "model_init_kwargs names the dtype or revision of the weights."
        return Problem("set_by_script", "error", name, message, "Set `dtype` and `revision` of the recipe.")
    wrong_name = check_name(schema, name)
    if wrong_name is not None:
        return wrong_name if wrong_name.severity == "error" else None
    return check_value(schema, name, value=value)


def _refuse(problems: list[Problem]) -> None:
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        raise BadInput(" ".join(str(problem) for problem in errors))
