"""The program of an evaluation: a script of its own, or the part of a training script that measures at the end."""

from __future__ import annotations

from pathlib import Path

from mlintern.tools.scripts.data_sources import is_local
from mlintern.tools.scripts.program import Program, source_names
from mlintern.tools.scripts.recipe import EvaluationRecipe
from mlintern.tools.scripts.recipe_parts import EvaluationPlan
from mlintern.tools.scripts.snippets import read_snippet

TEMPLATE = "evaluation.py.j2"


def evaluation_program(recipe: EvaluationRecipe) -> Program:
    """The script that measures a model."""
    adapter = is_local(recipe.model) and (Path(recipe.model) / "adapter_config.json").is_file()
    whole = Program(
        template=TEMPLATE,
        switches={"reports_progress": True},
        constants={
            "NAME": recipe.title,
            "MODEL": recipe.model,
            "REVISION": recipe.revision,
            "DTYPE": recipe.dtype,
            "SEED": recipe.seed,
            "USE_CPU": recipe.device_expression,
        },
        packages=frozenset({"peft"} if adapter else ()),
        requirements=tuple(recipe.requirements),
    )
    return whole.including(plan_program(recipe))


def plan_program(plan: EvaluationPlan) -> Program:
    """What a plan adds to the script that carries it out."""
    prepare = plan.prepare and read_snippet(
        plan.prepare, what="prepare of the evaluation", parameters=1, prefer="prepare"
    )
    prompt = plan.prompt or ("{question}\n{choices}\nAnswer:" if plan.kind == "multiple_choice" else "{question}")
    return Program(
        template=TEMPLATE,
        switches={
            "evaluation_source": source_names(plan.dataset, "EVALUATION"),
            "evaluation_prepare": prepare.function if prepare else None,
            "multiple_choice": plan.kind == "multiple_choice",
            "shows_choices": "{choices}" in prompt,
            "fills_prompt": prompt != "{question}",
            "extracts": plan.extract is not None,
            "ignore_case": plan.ignore_case,
            "reports_progress": False,
        },
        constants={
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
            "PROMPT": prompt,
            "SYSTEM": plan.system,
            "FEWSHOT": plan.fewshot,
            "MAX_NEW_TOKENS": plan.max_new_tokens or (16 if plan.kind == "multiple_choice" else 256),
            "EXTRACT": plan.extract,
            "CHAT_TEMPLATE": plan.chat_template,
            "CHAT_TEMPLATE_KWARGS": plan.chat_template_kwargs,
        },
        snippets=(prepare,) if prepare else (),
    )
