"""The program of an evaluation that a harness makes: lm-evaluation-harness, Inspect or lighteval, pinned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlintern.tools.errors import BadInput
from mlintern.tools.evals.suites import Harness, Suite, find_suite
from mlintern.tools.scripts.evaluation_program import TRANSFORMERS, VLLM, engine_form
from mlintern.tools.scripts.program import Program
from mlintern.tools.scripts.recipe import EvaluationRecipe

TEMPLATE = "harness.py.j2"
PINNED: Mapping[Harness, tuple[str, ...]] = {
    "lm_eval": ("lm_eval[hf]==0.4.13",),
    "inspect": ("inspect-ai==0.3.285",),
    "lighteval": ("lighteval==0.13.0",),
}
INSPECT_EVALS = "inspect-evals==0.28.0"
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "ifeval": ("langdetect==1.0.9", "immutabledict==4.2.1", "nltk==3.9.2"),
    "math": ("math-verify==0.9.0", "sympy==1.14.0", "antlr4-python3-runtime==4.13.2"),
}
"""What some tasks of lm-eval need beside it."""


@dataclass(frozen=True)
class Plan:
    """What a harness is to do: a suite's settings under those that the recipe gives itself."""

    harness: Harness
    tasks: tuple[str, ...]
    suite: Suite | None
    settings: Mapping[str, Any]

    def get(self, name: str) -> Any:
        return self.settings.get(name)


SETTINGS = (
    "fewshot",
    "limit",
    "samples",
    "temperature",
    "top_p",
    "max_new_tokens",
    "system",
    "chat_template",
    "engine",
)


def plan_of(recipe: EvaluationRecipe) -> Plan:
    """Harness, tasks and settings of ``recipe``.

    Raises:
        BadInput: there is no such suite, or the harness cannot do what is asked.
    """
    suite = find_suite(recipe.suite) if recipe.suite is not None else None
    harness = suite.harness if suite is not None else recipe.harness
    assert harness is not None
    tasks = tuple(recipe.tasks) or (suite.tasks if suite is not None else ())
    if not tasks:
        raise BadInput(f"The harness {harness} needs tasks.", next_step='Give "tasks": ["gsm8k"], or a `suite`.')
    given = {name: getattr(recipe, name) for name in SETTINGS if name in recipe.model_fields_set}
    plan = Plan(harness, tasks, suite, {**(suite.settings if suite is not None else {}), **given})
    if harness == "lm_eval" and (plan.get("samples") or 1) > 1:
        raise BadInput(
            "lm-eval draws several answers only where its task says so (`repeats`).",
            next_step="Run it with several seeds, or use a suite of Inspect, which takes `samples`.",
        )
    return plan


def harness_program(recipe: EvaluationRecipe) -> Program:
    """The script that runs the harness on the model."""
    plan = plan_of(recipe)
    engine = engine_form(plan.get("engine") or recipe.engine, recipe.endpoint)
    runs_code = plan.suite.runs_code if plan.suite else any("humaneval" in t or "mbpp" in t for t in plan.tasks)
    needs = [*PINNED[plan.harness]]
    needs += [INSPECT_EVALS] if any(task.startswith("inspect_evals/") for task in plan.tasks) else []
    if plan.harness == "lm_eval":
        needs += [name for word in EXTRAS for name in EXTRAS[word] if any(word in task for task in plan.tasks)]
    pins_own = plan.harness == "lighteval" or engine != "transformers"
    return Program(
        template=TEMPLATE,
        switches={"harness": plan.harness, "engine": engine, "runs_code": runs_code, "gated": _gated(plan)},
        constants={
            "NAME": recipe.title,
            "MODEL": recipe.model,
            "REVISION": recipe.revision,
            "SUITE": plan.suite.name if plan.suite else None,
            "TASKS": list(plan.tasks),
            "TASK_PATH": recipe.task_path,
            "FEWSHOT": plan.get("fewshot"),
            "EVALUATION_LIMIT": plan.get("limit"),
            "SAMPLES": plan.get("samples") or 1,
            "TEMPERATURE": plan.get("temperature"),
            "TOP_P": plan.get("top_p"),
            "MAX_NEW_TOKENS": plan.get("max_new_tokens"),
            "SYSTEM": plan.get("system"),
            "CHAT_TEMPLATE": bool(plan.get("chat_template")),
            "EVALUATION_BATCH_SIZE": recipe.batch_size,
            "HARNESS_ARGUMENTS": recipe.harness_arguments,
            "ENDPOINT_URL": recipe.endpoint.url if recipe.endpoint else None,
            "ENDPOINT_KEY": recipe.endpoint.key_variable if recipe.endpoint else None,
            "ENDPOINT_API": recipe.endpoint.api if recipe.endpoint else None,
            "DTYPE": recipe.dtype,
            "SEED": recipe.seed,
            "USE_CPU": recipe.device_expression,
        },
        base=frozenset() if pins_own else TRANSFORMERS,
        requirements=(*needs, *(VLLM if engine == "vllm" else ()), *recipe.requirements),
    )


def _gated(plan: Plan) -> str | None:
    from mlintern.tools.evals.suites import gated_by

    return plan.suite.gated if plan.suite is not None else gated_by(plan.tasks)
