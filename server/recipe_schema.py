"""What `render_script` says of a recipe in the list of tools: the fields that most recipes have.

Every tool's schema is sent with every request to the model, and the whole schema of all recipes is longer than the
rest of the list. The other fields, with their meaning, are what `describe_trainer` answers; `parse_recipe` reads all
of them and refuses an unknown one with what was meant.
"""

from __future__ import annotations

from typing import Any

from mlintern.tools.scripts.recipe import RENDERED

_TEXT = {"type": "string"}
_OBJECT = {"type": "object"}
_COUNT = {"type": "integer"}

COMMON: dict[str, dict[str, Any]] = {
    "model": {**_TEXT, "description": "Hub id, folder or job_id"},
    "dataset": {**_TEXT, "description": "Hub id, file, folder or job_id"},
    "datasets": {"type": "array", "items": _OBJECT, "description": "A mixture"},
    "hyperparameters": {**_OBJECT, "description": "Fields of TRL's configuration class"},
    "max_steps": _COUNT,
    "lora": {**_OBJECT, "description": "Train an adapter; {} for defaults"},
    "rewards": {"type": "array", "items": {}, "description": "grpo"},
    "evaluation": {**_OBJECT, "description": "An evaluation's fields; made at the end"},
    "limit": {**_COUNT, "description": "Rows"},
    "prompt": {**_TEXT, "description": "evaluation: with {question}"},
    "prompts": {**_TEXT, "description": "generate: dataset of prompts"},
    "name": _TEXT,
    "push_to_hub": {**_TEXT, "description": "Repository"},
}

RECIPE: dict[str, Any] = {
    "type": "object",
    "properties": {"trainer": {"type": "string", "enum": list(RENDERED)}, **COMMON},
    "required": ["trainer"],
    "additionalProperties": True,
}
