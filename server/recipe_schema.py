"""What `render_script` says of a recipe in the list of tools: the fields that most recipes have.

Every tool's schema is sent with every request to the model, and the whole schema of all recipes is longer than the
rest of the list. The other fields, with their meaning, are what `describe_trainer` answers; `parse_recipe` reads all
of them and refuses an unknown one with what was meant.
"""

from __future__ import annotations

from typing import Any

from mlintern.tools.scripts.rendered import RENDERED

_TEXT = {"type": "string"}
_OBJECT = {"type": "object"}

COMMON: dict[str, dict[str, Any]] = {
    "model": {**_TEXT, "description": "Hub id, folder or job_id"},
    "dataset": {**_TEXT, "description": "Hub id, file, folder or job_id"},
    "hyperparameters": {**_OBJECT, "description": "Of TRL's configuration class"},
    "lora": {**_OBJECT, "description": "{} for defaults"},
    "evaluation": {**_OBJECT, "description": "An evaluation's fields; made at the end"},
    "name": _TEXT,
}
OTHERS = ("datasets", "filter", "max_steps", "rewards", "prompt", "limit", "suite", "prompts", "push_to_hub")
"""Fields that many recipes have, told by name alone."""

RECIPE: dict[str, Any] = {
    "type": "object",
    "properties": {"trainer": {"type": "string", "enum": list(RENDERED)}, **COMMON},
    "required": ["trainer"],
    "additionalProperties": True,
    "description": f"Also {', '.join(OTHERS)} and more: describe_trainer",
}
