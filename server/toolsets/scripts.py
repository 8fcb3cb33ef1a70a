"""From a recipe to one file that runs anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import anyio.to_thread
from pydantic import BeforeValidator, Field

from mlintern.server.lab import Lab
from mlintern.server.registry import Registry
from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.describe import TrainerDescription
from mlintern.tools.scripts.describe import describe_trainer as describe
from mlintern.tools.scripts.recipe import Recipe, parse_recipe
from mlintern.tools.scripts.store import LEVELS, ScriptResult


def _read(value: Any) -> Any:
    """Recipes are read by `parse_recipe`, whose refusals know TRL's history and its fields."""
    if not isinstance(value, Mapping):
        raise ValueError("a recipe is an object with a `trainer`, a `model` and, for training, a `dataset`")
    try:
        return parse_recipe(value)
    except BadInput as error:
        raise ValueError(str(error)) from None


ScriptId = Annotated[str, Field(description="script_id of a rendered or edited script")]


def register(registry: Registry, lab: Lab) -> None:
    @registry.tool(title="Describe trainer", read_only=True, open_world=False)
    async def describe_trainer(
        trainer: Annotated[str, Field(description="sft, dpo, grpo, or another TRL trainer")],
        search: Annotated[str, Field(description="Only fields whose name or help contains this")] = "",
        fields: Annotated[list[str] | None, Field(description="Only these fields, in full")] = None,
    ) -> TrainerDescription:
        """Describe a TRL trainer: every hyperparameter with type, default and help, and the data it expects.

        Knows the installed TRL generation's fields, their traps, and fields and trainers that were renamed or
        removed. Use search or fields to keep the answer short. It neither renders nor runs anything.
        """
        return describe(trainer, search=search or None, fields=fields)

    @registry.tool(title="Render script", read_only=False, open_world=False)
    async def render_script(
        recipe: Annotated[
            Recipe,
            BeforeValidator(_read),
            Field(description='The run as data; trainer is "sft", "dpo", "grpo" or "evaluation"'),
        ],
    ) -> ScriptResult:
        """Write one self-contained Python script from a recipe: training with TRL, or an evaluation of a model.

        The script names exact package versions, shows its hyperparameters at the top, reports telemetry, sets seeds
        and saves checkpoints; the same file runs on every backend. Fields that TRL does not have are refused with
        what was meant. Returns a script_id and the checks; nothing is run.
        """
        return await anyio.to_thread.run_sync(lab.scripts.render, recipe)

    @registry.tool(title="Edit script", read_only=False, open_world=False)
    async def edit_script(
        script_id: Annotated[str, Field(description="The script to change")] = "",
        code: Annotated[str, Field(description="Or a whole script of your own, to store as it is")] = "",
        old_text: Annotated[str, Field(description="Text that occurs exactly once in the script")] = "",
        new_text: Annotated[str, Field(description="What replaces it; may be empty")] = "",
        name: Annotated[str, Field(description="A name for people")] = "",
    ) -> ScriptResult:
        """Change a script by replacing a passage, or store a script that you wrote yourself.

        The result is a new script with its own script_id; the old one stays, and approvals of it do not carry over.
        Give script_id with old_text and new_text, or code alone. The checks of check_script run on the result.
        """
        edit = partial(
            lab.scripts.edit,
            script_id=script_id or None,
            code=code or None,
            old_text=old_text or None,
            new_text=new_text if old_text else None,
            name=name or None,
        )
        return await anyio.to_thread.run_sync(edit)

    @registry.tool(title="Check script", read_only=True, open_world=False)
    async def check_script(
        script_id: ScriptId,
        level: Annotated[str, Field(description=f"How thoroughly: {', '.join(LEVELS)}")] = "static",
    ) -> ScriptResult:
        """Check a script for errors that would waste a job: syntax, imports, TRL fields, traps, missing telemetry.

        Each finding names the rule, the line and the fix. A script without errors can still fail on data it has not
        seen: a short job on a few rows is the real test.
        """
        return await anyio.to_thread.run_sync(partial(lab.scripts.check, script_id, level=level))
