"""From a recipe to one file that runs anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import anyio.to_thread
from mcp.server.mcpserver import Context, Resolve
from pydantic import BeforeValidator, Field, WithJsonSchema

from mlintern.common.consent import Action
from mlintern.server.asking import Asked, Consent, Verdict
from mlintern.server.job_question import what_runs
from mlintern.server.reading import consent_to_recipe, named_in, reading, settle
from mlintern.server.recipe_schema import RECIPE
from mlintern.server.registry import Registry
from mlintern.server.services import Lab
from mlintern.server.settings import NOT_ISOLATED
from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.script_results import LEVELS, CheckResult, ScriptResult, digest_of_trial, not_tried
from mlintern.tools.scripts.trainer_description import TrainerDescription

WAIT_SECONDS = 40.0
"""Desktop hosts end a call after about 60 seconds; a dry run that takes longer goes on, and is asked for again."""


def _read(value: Any) -> Any:
    """Recipes are read by `parse_recipe`, whose refusals know TRL's history and its fields.

    Imported when the first one comes: building the classes of recipes takes longer than the list of all tools.
    """
    from mlintern.tools.scripts.recipe import parse_recipe

    if not isinstance(value, Mapping):
        raise ValueError("a recipe is an object with a `trainer`, a `model` and, for training, a `dataset`")
    try:
        return parse_recipe(value)
    except BadInput as error:
        raise ValueError(str(error)) from None


def trying(script_id: str, level: str, lab: Lab) -> Action | None:
    """The dry run of a script, or reading data that is not open to all tools, described for the person who decides;
    None where neither happens.
    """
    if level == "template":
        return reading(lab.checker.named_paths(script_id), lab)
    script = lab.checker.to_be_run(script_id) if level == "dry_run" else None
    if script is None:
        return None
    limit = lab.checker.limit_seconds
    return Action(
        kind="check_script",
        what="Dry run of script",
        name=script.name,
        where="local",
        hardware="cpu",
        seconds=limit,
        script_id=script.script_id,
        digest=digest_of_trial(script.sha256, limit_seconds=limit),
        details=(
            *what_runs(script),
            *([("Not isolated", NOT_ISOLATED)] if lab.settings.unsandboxed else []),
            ("What happens", "two steps with a tiny random model and a few rows, without secrets; nothing is kept"),
        ),
    )


async def consent_to_try(script_id: str, level: str, ctx: Context[Lab]) -> Asked:
    """Nobody is asked about the levels that only read."""
    lab = ctx.request_context.lifespan_context
    action = await anyio.to_thread.run_sync(trying, script_id, level, lab)
    return Verdict(status="approved") if action is None else await lab.gate.ask(action, ctx)


ScriptId = Annotated[str, Field(description="Of render_script")]


def register(registry: Registry, lab: Lab) -> None:
    @registry.tool(title="Describe trainer", read_only=True, open_world=False)
    async def describe_trainer(
        trainer: Annotated[
            str,
            Field(description="Such as sft, evaluation, generate"),
        ],
        search: Annotated[str, Field(description="Name or help contains this")] = "",
        fields: Annotated[list[str] | None, Field(description="Only these, in full")] = None,
    ) -> TrainerDescription:
        """Describe a trainer: the recipe's fields, hyperparameters with type, default and help, the data it takes.

        Also traps, renamed and removed ones. search or fields keep it short.
        """
        from mlintern.tools.scripts.describe import describe_trainer as describe

        return describe(trainer, search=search or None, fields=fields)

    @registry.tool(title="Render script", read_only=False, open_world=False)
    async def render_script(
        recipe: Annotated[
            Any,
            BeforeValidator(_read),
            WithJsonSchema(RECIPE),
        ],
        ctx: Context[Lab],
        consent: Annotated[Consent, Resolve(consent_to_recipe)],
    ) -> ScriptResult:
        """Write one self-contained Python script from a recipe: training, evaluation, or data that a model writes.

        Exact versions, telemetry, seeds, checkpoints; the same file runs on every backend. Unknown fields are
        refused with what was meant; nothing is run.
        """
        await settle(named_in(recipe.model_dump(mode="json")), consent, ctx=ctx, lab=lab, tool="render_script")
        return await anyio.to_thread.run_sync(lab.scripts.render, recipe)

    @registry.tool(title="Edit script", read_only=False, open_world=False)
    async def edit_script(
        script_id: Annotated[str, Field(description="The script to change")] = "",
        code: Annotated[str, Field(description="Or a whole script of your own")] = "",
        old_text: Annotated[str, Field(description="Occurs exactly once")] = "",
        new_text: Annotated[str, Field(description="Replaces it; may be empty")] = "",
        name: Annotated[str, Field(description="For people")] = "",
    ) -> ScriptResult:
        """Change a script by replacing a passage, or store one of your own.

        Gives a new script_id; approvals of the old one do not carry over. Give script_id with old_text and new_text,
        or code alone; the result is checked.
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

    @registry.tool(title="Check script", read_only=False, open_world=True, destructive=True)
    async def check_script(
        script_id: ScriptId,
        ctx: Context[Lab],
        consent: Annotated[Consent, Resolve(consent_to_try)],
        level: Annotated[str, Field(description=", ".join(LEVELS))] = "static",
    ) -> CheckResult:
        """Find what would waste a job, each with its line and fix.

        static reads the code: syntax, imports, TRL fields, traps. template also renders the first rows. dry_run, once
        the user agreed, runs two steps here with a tiny random model; "running": call again.
        """
        action = await anyio.to_thread.run_sync(trying, script_id, level, lab)
        if action is not None:
            settled = await lab.gate.settle(action, consent, ctx, tool="check_script")
            if settled.refusal is not None:
                found = await anyio.to_thread.run_sync(lab.scripts.check, script_id)
                return not_tried(found, **settled.refusal)
            tried = await lab.checker.check(script_id, level=level, wait_seconds=WAIT_SECONDS)
            return tried.model_copy(update={"digest": action.consent_digest, "note": settled.with_note(tried.note)})
        return await lab.checker.check(script_id, level=level, wait_seconds=WAIT_SECONDS)
