"""Writes the script of a recipe: one file that says all it does, and needs only what its header names."""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.data_sources import dataset_kind, is_local
from mlintern.tools.scripts.header import TESTED, write_header
from mlintern.tools.scripts.hyperparameters import SET_BY_SCRIPT
from mlintern.tools.scripts.imports import import_block, names_used
from mlintern.tools.scripts.literals import LINE, assignment
from mlintern.tools.scripts.recipe import EvaluationRecipe, GrpoRecipe, TrainingRecipe
from mlintern.tools.scripts.recipe_parts import EvaluationPlan
from mlintern.tools.scripts.snippets import Snippet, read_snippet
from mlintern.tools.scripts.trainers.advice import key_fields
from mlintern.tools.scripts.trainers.schema import config_schema

if TYPE_CHECKING:
    from jinja2 import Environment

PYTHON = ">=3.11"
DOCSTRINGS: Mapping[str, str] = {
    "sft": "Fine-tune a language model on examples (TRL's SFTTrainer).",
    "dpo": "Fine-tune a language model on preferences (TRL's DPOTrainer).",
    "grpo": "Fine-tune a language model on rewards (TRL's GRPOTrainer).",
}


@dataclass(frozen=True)
class Rendered:
    """A script's text and what its header requires."""

    text: str
    requirements: tuple[str, ...]


def render(recipe: TrainingRecipe | EvaluationRecipe) -> Rendered:
    """The script of ``recipe``. The same recipe always gives the same text.

    Raises:
        BadInput: a snippet defines a name that the script itself uses.
    """
    if isinstance(recipe, EvaluationRecipe):
        return _finish(recipe, "evaluation.py.j2", {**_plan_context(recipe), "reports_progress": True})
    context = _training_context(recipe)
    if recipe.evaluation is not None:
        context |= {**_plan_context(recipe.evaluation), "reports_progress": False}
    return _finish(recipe, "training.py.j2", context)


def _finish(recipe: TrainingRecipe | EvaluationRecipe, template: str, context: dict[str, Any]) -> Rendered:
    """Fill the template; then keep the constants and imports that the code uses."""
    snippets: list[Snippet] = context.get("training_snippets", []) + context.get("evaluation_snippets", [])
    definitions = [snippet.body for snippet in snippets]
    if context.get("builtin_rewards"):
        definitions.append(_environment().get_template("rewards.j2").render(rewards=context["builtin_rewards"]))
    requirements = _requirements(recipe, evaluates="evaluation_source" in context)
    context |= {
        "header": write_header(python=PYTHON, requirements=requirements),
        "snippets": "\n\n\n".join(text.strip("\n") for text in definitions),
        "imports": "",
        "constants": "",
    }
    page = _environment().get_template(template)
    used = names_used(page.render(context))
    constants = {name: value for name, value in _constants(recipe).items() if name in used}
    context["constants"] = _constant_block(recipe, constants, used)
    imports = [statement for snippet in snippets for statement in snippet.imports]
    context["imports"] = import_block(page.render(context), imports)
    text = page.render(context)
    _refuse_collisions(text)
    return Rendered(text, tuple(sorted(requirements)))


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("mlintern.tools.scripts"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # it writes Python; values come in as literals made by `literals`
    )


def _requirements(recipe: TrainingRecipe | EvaluationRecipe, *, evaluates: bool) -> list[str]:
    names = {"accelerate", "datasets", "torch", "transformers"}
    if isinstance(recipe, EvaluationRecipe):
        if is_local(recipe.model) and (Path(recipe.model) / "adapter_config.json").is_file():
            names.add("peft")
    else:
        names.add("trl")
        if recipe.lora is not None:
            names.add("peft")
        if recipe.push_to_hub is not None:
            names.add("huggingface_hub")
    return [f"{name}=={TESTED[name]}" for name in sorted(names)] + recipe.requirements


@dataclass(frozen=True)
class _Source:
    """How a template loads a dataset; the strings are names of constants."""

    kind: str
    name: str
    config: str
    split: str
    revision: str


def _training_context(recipe: TrainingRecipe) -> dict[str, Any]:
    snippets: list[Snippet] = []
    prepare = None
    if recipe.prepare is not None:
        snippets.append(read_snippet(recipe.prepare, what="prepare", parameters=1, prefer="prepare"))
        prepare = snippets[0].function
    rewards, builtin = _rewards(recipe, snippets) if isinstance(recipe, GrpoRecipe) else ([], [])
    prefix = recipe.trainer.upper()
    return {
        "trainer": recipe.trainer,
        "summary": DOCSTRINGS[recipe.trainer],
        "trainer_class": f"{prefix}Trainer",
        "config_class": recipe.config_class,
        "training_source": _Source(
            dataset_kind(recipe.dataset), "DATASET", "DATASET_CONFIG", "SPLIT", "DATASET_REVISION"
        ),
        "training_snippets": snippets,
        "prepare": prepare,
        "reward_list": _name_list(rewards),
        "builtin_rewards": builtin,
        "renames": bool(recipe.columns),
        "keeps_only_renamed": recipe.trainer != "grpo",  # rewards may read the other columns
        "validates": recipe.validation_rows > 0,
        "chooses_precision": {"bf16", "fp16"} & set(recipe.hyperparameters),
        "jit_checkpoint": recipe.save_steps > 0 and "enable_jit_checkpoint" not in recipe.hyperparameters,
        "model_init_kwargs": _model_init_kwargs(recipe),
        "lora": recipe.lora is not None,
        "resumes": recipe.resume,
        "resumes_from": recipe.resume_from_checkpoint is not None,
        "evaluates": recipe.evaluation is not None,
        "pushes": recipe.push_to_hub is not None,
    }


def _model_init_kwargs(recipe: TrainingRecipe) -> str:
    more = ", **MODEL_INIT_KWARGS" if recipe.hyperparameters.get("model_init_kwargs") else ""
    return f'{{"dtype": DTYPE, "revision": REVISION{more}}}'


def _rewards(recipe: GrpoRecipe, snippets: list[Snippet]) -> tuple[list[str], list[dict[str, str]]]:
    """Function names of all rewards in order, and what the template of the built-in ones needs."""
    names: list[str] = []
    builtin: list[dict[str, str]] = []
    for index, reward in enumerate(recipe.rewards):
        if reward.kind == "python":
            snippet = read_snippet(reward.source, what=f"rewards.{index}", parameters=0)
            snippets.append(snippet)
            names.append(snippet.function)
        else:
            constant = _reward_constant(recipe, index)
            function = constant.removesuffix("_COLUMN").lower()
            builtin.append({"kind": reward.kind, "function": function, "constant": constant})
            names.append(function)
    return names, builtin


def _reward_constant(recipe: GrpoRecipe, index: int) -> str:
    kind = recipe.rewards[index].kind
    number = sum(reward.kind == kind for reward in recipe.rewards[: index + 1])
    stem = "EXACT_MATCH" if kind == "exact_match" else "PATTERN"
    ending = "_COLUMN" if kind == "exact_match" else ""
    return f"{stem}{'' if number == 1 else f'_{number}'}{ending}"


def _name_list(names: list[str]) -> str:
    line = f"[{', '.join(names)}]"
    if len(f"        reward_funcs={line},") <= LINE:
        return line
    return "\n".join(["[", *(f"            {name}," for name in names), "        ]"])


def _plan_context(plan: EvaluationPlan) -> dict[str, Any]:
    snippets = []
    if plan.prepare is not None:
        snippets.append(read_snippet(plan.prepare, what="prepare of the evaluation", parameters=1, prefer="prepare"))
    prompt = _prompt(plan)
    return {
        "evaluation_source": _Source(
            dataset_kind(plan.dataset),
            "EVALUATION_DATASET",
            "EVALUATION_CONFIG",
            "EVALUATION_SPLIT",
            "EVALUATION_REVISION",
        ),
        "evaluation_snippets": snippets,
        "evaluation_prepare": snippets[0].function if snippets else None,
        "multiple_choice": plan.kind == "multiple_choice",
        "shows_choices": "{choices}" in prompt,
        "fills_prompt": prompt != "{question}",
        "extracts": plan.extract is not None,
        "ignore_case": plan.ignore_case,
    }


def _prompt(plan: EvaluationPlan) -> str:
    if plan.prompt is not None:
        return plan.prompt
    return "{question}\n{choices}\nAnswer:" if plan.kind == "multiple_choice" else "{question}"


def _constants(recipe: TrainingRecipe | EvaluationRecipe) -> dict[str, Any]:
    """Everything of the recipe that a script may show at its top; what its code does not use is left out."""
    constants: dict[str, Any] = {"NAME": recipe.title, "MODEL": recipe.model, "REVISION": recipe.revision}
    if isinstance(recipe, EvaluationRecipe):
        return {**constants, "DTYPE": recipe.dtype, "SEED": recipe.seed, **_plan_constants(recipe)}
    constants |= {
        "DTYPE": recipe.weights_dtype,
        "SEED": recipe.seed,
        "DATASET": recipe.dataset,
        "DATASET_CONFIG": recipe.dataset_config,
        "DATASET_REVISION": recipe.dataset_revision,
        "SPLIT": recipe.split,
        "COLUMNS": {theirs: ours for ours, theirs in recipe.columns.items()},
        "LIMIT": recipe.limit,
        "VALIDATION_ROWS": recipe.validation_rows,
        "HYPERPARAMETERS": hyperparameters(recipe),
        "MODEL_INIT_KWARGS": recipe.hyperparameters.get("model_init_kwargs"),
        "LORA": recipe.lora.model_dump() if recipe.lora is not None else None,
        "CHECKPOINT": recipe.resume_from_checkpoint,
        "PUSH_TO_HUB": recipe.push_to_hub,
        "HUB_PRIVATE": recipe.hub_private,
    }
    if isinstance(recipe, GrpoRecipe):
        for index, reward in enumerate(recipe.rewards):
            if reward.kind != "python":
                value = reward.column if reward.kind == "exact_match" else reward.pattern
                constants[_reward_constant(recipe, index)] = value
    return constants | (_plan_constants(recipe.evaluation) if recipe.evaluation is not None else {})


def _plan_constants(plan: EvaluationPlan) -> dict[str, Any]:
    tokens = plan.max_new_tokens or (16 if plan.kind == "multiple_choice" else 256)
    return {
        "TASK": plan.task or plan.dataset.rstrip("/").rsplit("/", 1)[-1].split(".")[0] or "evaluation",
        "EVALUATION_DATASET": plan.dataset,
        "EVALUATION_CONFIG": plan.dataset_config,
        "EVALUATION_REVISION": plan.dataset_revision,
        "EVALUATION_SPLIT": plan.split,
        "EVALUATION_LIMIT": plan.limit,
        "EVALUATION_BATCH_SIZE": plan.batch_size,
        "QUESTION_COLUMN": plan.question_column,
        "CHOICES_COLUMN": plan.choices_column,
        "ANSWER_COLUMN": plan.answer_column,
        "ID_COLUMN": plan.id_column,
        "PROMPT": _prompt(plan),
        "SYSTEM": plan.system,
        "FEWSHOT": plan.fewshot,
        "MAX_NEW_TOKENS": tokens,
        "EXTRACT": plan.extract,
        "CHAT_TEMPLATE": plan.chat_template,
        "CHAT_TEMPLATE_KWARGS": plan.chat_template_kwargs,
    }


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
    whole = recipe.save_steps >= 1
    values |= {"save_strategy": "steps", "save_steps": int(recipe.save_steps) if whole else recipe.save_steps}
    values["save_total_limit"] = recipe.save_total_limit
    if not recipe.save_steps:
        values = {name: value for name, value in values.items() if not name.startswith("save_")}
        values["save_strategy"] = "no"
    if isinstance(recipe, GrpoRecipe) and any(reward.weight != 1 for reward in recipe.rewards):
        values["reward_weights"] = [reward.weight for reward in recipe.rewards]
    elsewhere = {"model_init_kwargs", *SET_BY_SCRIPT}
    return values | {name: value for name, value in recipe.hyperparameters.items() if name not in elsewhere}


def _constant_block(recipe: TrainingRecipe | EvaluationRecipe, constants: Mapping[str, Any], used: set[str]) -> str:
    blocks: list[str] = []
    for name, value in constants.items():
        large = isinstance(value, dict) and bool(value)
        text = assignment(name, value, open_up=large)
        blocks.append(f"\n{text}\n" if large and name == "HYPERPARAMETERS" else text)
    if "USE_CPU" in used:
        device = "not torch.accelerator.is_available()" if recipe.use_cpu is None else str(recipe.use_cpu)
        blocks.append(f"USE_CPU = {device}")
    return "\n".join(blocks).strip("\n")


def _refuse_collisions(text: str) -> None:
    """Refuse a snippet that binds a name which the script binds too: the later one would win in silence."""
    bound: set[str] = set()
    for node in ast.parse(text).body:
        for name in _bound(node):
            if name in bound:
                raise BadInput(
                    f"Two parts of the script are called {name}.",
                    next_step=f"Rename {name} in your snippet; the script or another snippet uses that name.",
                )
            bound.add(name)


def _bound(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.split(".")[0] for alias in node.names]
    targets = (
        node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    )
    return [target.id for target in targets if isinstance(target, ast.Name)]


def recipe_json(recipe: TrainingRecipe | EvaluationRecipe) -> str:
    """The recipe as canonical JSON, for the ledger; the seed always stands in it."""
    given = recipe.model_dump(mode="json", exclude_defaults=True)
    return json.dumps({**given, "seed": recipe.seed}, sort_keys=True)
