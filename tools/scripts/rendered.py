"""What `trainer` of a recipe may be, apart from the recipes: their classes take long to build."""

from __future__ import annotations

RENDERED = (
    *("sft", "dpo", "grpo", "rloo", "kto", "reward", "distillation", "gkd", "orpo", "cpo", "online_dpo"),
    *("evaluation", "generate"),
)
"""In the order of `recipe.AnyRecipe`, of which each has one."""
