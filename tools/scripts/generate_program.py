"""The program of a recipe that lets a model write data."""

from __future__ import annotations

from mlintern.tools.scripts.evaluation_program import (
    ENGINES,
    PACKAGES,
    TRANSFORMERS,
    VLLM,
    endpoint_settings,
    engine_form,
    is_adapter,
    scorer_program,
)
from mlintern.tools.scripts.generate_recipe import GenerateRecipe
from mlintern.tools.scripts.program import Program, SourceNames, source_names
from mlintern.tools.scripts.snippets import read_snippet

TEMPLATE = "generate.py.j2"
ROOM = 512
"""Tokens of an answer, where the recipe does not say."""


def generate_program(recipe: GenerateRecipe) -> Program:
    """The script that asks, verifies and keeps."""
    prepare = recipe.prepare and read_snippet(recipe.prepare, what="prepare", parameters=1, prefer="prepare")
    adapter = is_adapter(recipe.model)
    engine = engine_form(recipe.engine, recipe.endpoint)
    listed = not isinstance(recipe.prompts, str)
    held_out = [(f"HELD_OUT[{number}]", source_names(source).kind) for number, source in enumerate(recipe.held_out)]
    own = Program(
        template=TEMPLATE,
        switches={
            "engine": engine,
            "prompts_source": None if listed else source_names(str(recipe.prompts), "PROMPTS"),
            "prompts_prepare": prepare.function if prepare else None,
            "fills_prompt": recipe.template is not None,
            "needs_gold": recipe.needs_gold,
            "by_reward": recipe.reward_model is not None,
            "held_out": [SourceNames(kind, name, "None", "None", "None") for name, kind in held_out],
            "keep": recipe.keep,
            "format": recipe.format,
            "verifies": recipe.verifier is not None,
            "multiple_choice": False,
            "likelihood": False,
            "writes": True,
            "reasons": True,
            "reports_progress": True,
            "several_models": False,
            "adapters": adapter,
            "result_file": "generation.json",
        },
        constants={
            "NAME": recipe.title,
            "MODEL": recipe.model,
            "REVISION": recipe.revision,
            "ENGINE": recipe.engine,
            "ENDPOINT": endpoint_settings(recipe.endpoint, recipe, model=recipe.model),
            "TERMS": recipe.terms,
            "DTYPE": recipe.dtype,
            "GPU_MEMORY": 0.9 if recipe.reward_model is None else 0.6,
            "REWARD_MODEL": recipe.reward_model,
            "SEED": recipe.seed,
            "USE_CPU": recipe.device_expression,
            "PROMPTS": recipe.prompts if listed else None,
            "PROMPTS_DATASET": "a list" if listed else recipe.prompts,
            "PROMPTS_CONFIG": recipe.prompts_config,
            "PROMPTS_SPLIT": recipe.split,
            "PROMPTS_REVISION": recipe.prompts_revision,
            "PROMPT_COLUMN": recipe.prompt_column,
            "ANSWER_COLUMN": recipe.answer_column,
            "ID_COLUMN": recipe.id_column,
            "PROMPT": recipe.template,
            "LIMIT": recipe.limit,
            "EVALUATION_BATCH_SIZE": recipe.batch_size,
            "VERIFIER": recipe.verified_by,
            "THRESHOLD": recipe.threshold,
            "KEEP": recipe.keep,
            "MAX_PER_PROMPT": recipe.max_per_prompt,
            "PASS_RATE": list(recipe.pass_rate),
            "CHARACTERS": list(recipe.characters),
            "SIMILAR": recipe.similar,
            "KEEP_CUT": recipe.keep_cut,
            "HELD_OUT": recipe.held_out,
            "NGRAM": recipe.ngram,
            "SHORTEST": min(recipe.ngram, 5),
            "MAX_NEW_TOKENS": recipe.max_new_tokens or ROOM,
            "PACKAGES": list(PACKAGES),
        },
        snippets=(prepare,) if prepare else (),
        packages=frozenset({"peft"} if adapter and engine != "endpoint" else ()),
        base=ENGINES[engine] if recipe.reward_model is None or engine == "vllm" else TRANSFORMERS,
        requirements=(*(VLLM if engine == "vllm" else ()), *recipe.requirements),
    )
    scoring = scorer_program(recipe, recipe.verified_by or "none", source=recipe.verifier)
    return own.including(scoring, several=True)
