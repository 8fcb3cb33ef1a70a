"""The program of an evaluation: a script of its own, or the part of a training script that measures at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlintern.tools.scripts.data_sources import NamedSource, is_local, load_options, read_source
from mlintern.tools.scripts.evaluation_plan import WITHOUT_GOLD, Asking, Endpoint, EvaluationPlan
from mlintern.tools.scripts.program import Program, source_names
from mlintern.tools.scripts.recipe import EvaluationRecipe
from mlintern.tools.scripts.snippets import Snippet, read_snippet

TEMPLATE = "evaluation.py.j2"
TRANSFORMERS = frozenset({"accelerate", "datasets", "torch", "transformers"})
ENGINES: Mapping[str, frozenset[str]] = {
    "transformers": TRANSFORMERS,
    "vllm": frozenset({"datasets"}),
    "endpoint": frozenset({"datasets"}),
}
VLLM = ("vllm==0.31.0", "accelerate==1.15.0", "torch==2.13.0", "transformers==5.17.0")
"""The newest vLLM that TRL 1.16 takes, with the torch and a transformers (below 5.18) that it asks for."""
PACKAGES = ("torch", "transformers", "vllm", "peft", "datasets", "math-verify")
"""Whose versions a result names."""


def evaluation_program(recipe: EvaluationRecipe) -> Program:
    """The script that measures a model."""
    adapters = any(map(is_adapter, (recipe.model, *recipe.candidates)))
    engine = engine_form(recipe.engine, recipe.endpoint)
    whole = Program(
        template=TEMPLATE,
        switches={
            "reports_progress": True,
            "engine": engine,
            "several_models": bool(recipe.candidates),
            "adapters": adapters,
        },
        constants={
            "NAME": recipe.title,
            "MODEL": recipe.model,
            "REVISION": recipe.revision,
            "CANDIDATES": [[one.name, one.revision] for one in map(candidate, recipe.candidates)],
            "ENGINE": recipe.engine,
            "ENDPOINT": endpoint_settings(recipe.endpoint, recipe, model=recipe.model),
            "DTYPE": recipe.dtype,
            "GPU_MEMORY": 0.9,
            "SEED": recipe.seed,
            "USE_CPU": recipe.device_expression,
        },
        packages=frozenset({"peft"} if adapters and engine != "endpoint" else ()),
        base=ENGINES[engine],
        requirements=(*(VLLM if engine == "vllm" else ()), *recipe.requirements),
    )
    return whole.including(plan_program(recipe))


def is_adapter(model: str) -> bool:
    """Whether a model is the folder of a LoRA adapter on this machine."""
    return is_local(model) and (Path(model) / "adapter_config.json").is_file()


def candidate(model: str) -> NamedSource:
    """Name and revision of one of a recipe's `candidates`."""
    return read_source(model, kind="model", revision=None)


def engine_form(engine: str, endpoint: Endpoint | None) -> str:
    """Which of the three forms of the engine a script has: transformers, vllm or endpoint."""
    if endpoint is not None:
        return "endpoint"
    return "vllm" if engine == "vllm" else "transformers"


def endpoint_settings(endpoint: Endpoint | None, asking: Asking, *, model: str) -> dict[str, Any] | None:
    """The constant ENDPOINT or JUDGE of a script."""
    if endpoint is None:
        return None
    return {
        "model": model,
        **endpoint.model_dump(),
        "usd_per_million": list(endpoint.usd_per_million),
        "max_tokens": asking.max_new_tokens or 4096,
        "temperature": asking.temperature,
        "top_p": asking.top_p if asking.top_p < 1 else None,
    }


def plan_program(plan: EvaluationPlan) -> Program:
    """What a plan adds to the script that carries it out."""
    prepare = plan.prepare and read_snippet(
        plan.prepare, what="prepare of the evaluation", parameters=1, prefer="prepare"
    )
    multiple_choice = plan.kind == "multiple_choice"
    prompt = plan.prompt or ("{question}\n{choices}\nAnswer:" if multiple_choice else "{question}")
    shown = plan.examples_from
    scoring = scorer_program(plan, plan.scored_by, source=plan.scorer)
    own = Program(
        template=TEMPLATE,
        switches={
            "evaluation_source": source_names(plan.dataset, "EVALUATION", config=plan.dataset_config),
            "evaluation_holdout": plan.holdout is not None,
            "evaluation_prepare": prepare.function if prepare else None,
            "fewshot_source": source_names(shown[0], "FEWSHOT") if shown else None,
            "shows_column": plan.fewshot_column is not None,
            "multiple_choice": multiple_choice,
            "likelihood": multiple_choice,
            "writes": plan.writes,
            "needs_gold": plan.scored_by not in WITHOUT_GOLD,
            "reasons": plan.scored_by != "exact" or plan.extract is not None,
            "shows_choices": "{choices}" in prompt,
            "fills_prompt": prompt != "{question}",
            "reports_progress": False,
            "several_models": False,
            "result_file": "evaluation.json",
            "engine": "transformers",
        },
        constants={
            "TASK": plan.task or plan.dataset.rstrip("/").rsplit("/", 1)[-1].split(".")[0] or "evaluation",
            "EVALUATION_DATASET": plan.dataset,
            "HOLDOUT": plan.holdout.model_dump() if plan.holdout else None,
            "EVALUATION_CONFIG": plan.dataset_config,
            "EVALUATION_OPTIONS": load_options(plan.dataset),
            "EVALUATION_REVISION": plan.dataset_revision,
            "EVALUATION_SPLIT": plan.scored_split,
            "EVALUATION_LIMIT": plan.limit,
            "EVALUATION_BATCH_SIZE": plan.batch_size,
            "QUESTION_COLUMN": plan.question_column,
            "CHOICES_COLUMN": plan.choices_column,
            "ANSWER_COLUMN": plan.answer_column,
            "ID_COLUMN": plan.id_column,
            "PROMPT": prompt,
            "FEWSHOT": plan.fewshot,
            "FEWSHOT_DATASET": shown[0] if shown else None,
            "FEWSHOT_CONFIG": plan.dataset_config if shown and shown[0] == plan.dataset else None,
            "FEWSHOT_OPTIONS": load_options(shown[0]) if shown else None,
            "FEWSHOT_SPLIT": shown[1] if shown else None,
            "FEWSHOT_REVISION": plan.dataset_revision if shown and shown[0] == plan.dataset else None,
            "FEWSHOT_COLUMN": plan.fewshot_column,
            "METRICS": (["accuracy"] if multiple_choice else []) + (written_metrics(plan) if plan.writes else []),
            "WRITTEN_METRICS": written_metrics(plan),
            "HOW": how(plan),
            "PACKAGES": list(PACKAGES),
            "ENDPOINT": None,  # of a training script, which asks none but a judge
        },
        snippets=(prepare,) if prepare else (),
    )
    return own.including(scoring)


def scorer_program(asking: Asking, scorer: str, *, source: str | None) -> Program:
    """What judging written answers adds to a script."""
    function: Snippet | None = None
    if scorer == "python":
        function = read_snippet(source or "", what="scorer", parameters=2, prefer="score")
    settings = {"numeric": "TOLERANCE", "code": "CODE_SECONDS", "judge": "[RUBRIC, JUDGE]"}
    if asking.json_schema is not None:
        settings["json"] = "SCHEMA"
    if function is not None:
        settings["python"] = f"inspect.getsource({function.function})"
    judge = asking.judge
    packages = {"math_verify": {"math-verify"}, "json": {"jsonschema"} if asking.json_schema is not None else set()}
    return Program(
        template=TEMPLATE,
        switches={
            "scorer": scorer,
            "scorer_function": function.function if function else None,
            "scorer_settings": settings.get(scorer),
            "extracts": asking.extract is not None,
            "several": asking.samples > 1,
            "has_schema": asking.json_schema is not None,
            "pairwise": judge is not None and judge.pairwise,
        },
        constants={
            "SYSTEM": asking.system,
            "CHAT_TEMPLATE": asking.chat_template,
            "CHAT_TEMPLATE_KWARGS": asking.chat_template_kwargs,
            "MAX_NEW_TOKENS": asking.max_new_tokens,
            "SAMPLES": asking.samples,
            "TEMPERATURE": asking.temperature,
            "TOP_P": asking.top_p,
            "TOP_K": asking.top_k,
            "EXTRACT": asking.extract,
            "IGNORE_CASE": asking.ignore_case,
            "TOLERANCE": asking.tolerance,
            "SCHEMA": asking.json_schema,
            "CODE_SECONDS": asking.code_seconds,
            "PASS_AT": pass_at(asking.samples),
            "RUBRIC": judge.rubric if judge else None,
            "JUDGE": _judge_settings(asking),
        },
        snippets=(function,) if function else (),
        packages=frozenset(packages.get(scorer, set())),
    )


def pass_at(samples: int) -> list[int]:
    """The k of pass@k: powers of two up to the number of samples, and that."""
    powers = [2**power for power in range(samples.bit_length()) if 2**power <= samples]
    return sorted({*powers, samples})


def written_metrics(plan: EvaluationPlan) -> list[str]:
    """The names of the results of written answers."""
    if plan.samples > 1:
        return [f"avg@{plan.samples}", *(f"pass@{k}" for k in pass_at(plan.samples)), f"maj@{plan.samples}"]
    return ["exact_match" if plan.scored_by == "exact" else "accuracy"]


def how(plan: EvaluationPlan) -> str:
    """What the results call the way of scoring."""
    drawn = "greedy" if plan.temperature == 0 else "sampled"
    return drawn if plan.scored_by == "exact" else f"{plan.scored_by}, {drawn}"


def _judge_settings(asking: Asking) -> dict[str, Any] | None:
    judge = asking.judge
    if judge is None:
        return None
    found = endpoint_settings(judge.endpoint, asking, model=judge.model) or {}
    return {**found, "max_tokens": judge.max_tokens, "temperature": 0.0, "top_p": None}
