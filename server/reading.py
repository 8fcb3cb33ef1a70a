"""Questions about reading: what lies outside of the workspace, the working directory, the Hugging Face cache and the
folders of ``--data`` is read only after a person agreed to exactly these paths.

The resolvers stand at module level, since their names travel to the host and back; each takes the arguments of its
tool that may name paths.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio.to_thread
from mcp.server.mcpserver import Context
from pydantic import BaseModel

from mlintern.common.consent import Action
from mlintern.common.text import cut_list
from mlintern.server.asking import Asked, Consent, Verdict
from mlintern.server.services import Lab
from mlintern.tools.errors import Blocked

_SOURCES = re.compile(
    r"(^|_)(model|dataset|datasets|data|prompts|held_out|teacher|checkpoint|tokenizer|processor|adapter|path|files?)(_|$)"
)
"""Fields of recipes, and of the libraries' own configurations in them, that name files."""

READABLE = "the workspace, the working directory, the Hugging Face cache and the folders of --data"


async def consent_to_dataset(dataset: str, model: str | None, *, ctx: Context[Lab]) -> Asked:
    return await _ask([dataset, model], ctx)


async def consent_to_model(model: str, ctx: Context[Lab]) -> Asked:
    return await _ask([model], ctx)


async def consent_to_comparing_data(train: str, evaluation: str, *, ctx: Context[Lab]) -> Asked:
    return await _ask([train, evaluation], ctx)


async def consent_to_source(source: str, ctx: Context[Lab]) -> Asked:
    return await _ask([source], ctx)


async def consent_to_evaluation(source: str, against: str, *, ctx: Context[Lab]) -> Asked:
    return await _ask([source, against], ctx)


async def consent_to_comparing(baseline: str | list[str], candidate: str | list[str], *, ctx: Context[Lab]) -> Asked:
    return await _ask([*listed(baseline), *listed(candidate)], ctx)


async def consent_to_recipe(recipe: BaseModel, ctx: Context[Lab]) -> Asked:
    return await _ask(named_in(recipe.model_dump(mode="json")), ctx)


async def consent_to_opening(model: str, evaluation: dict[str, Any], *, ctx: Context[Lab]) -> Asked:
    return await _ask([model, *named_in(evaluation)], ctx)


def named_in(recipe: Mapping[str, Any]) -> list[str]:
    """What a recipe names by the fields that may hold a path; other texts of it are prompts, code or names."""
    return list(_named(recipe, of_sources=False))


def listed(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


def reading(names: Iterable[str | None], lab: Lab) -> Action | None:
    """Reading what ``names`` name on this machine, described for the person who decides; None if nobody need be.

    Raises:
        Blocked: one is a place where credentials are kept.
    """
    from mlintern.tools.hub.addresses import local_path, path_exists
    from mlintern.tools.hub.result_sources import job_of

    paths = []
    for name in filter(None, names):
        try:
            paths += [local_path(name), local_path(name.strip())]  # tools differ in whether they strip
        except (RuntimeError, ValueError):  # ~ of nobody, a NUL byte: the tool says what is wrong
            continue
        if job := job_of(name, lab.ledger) or name.strip().partition("/")[0].strip("."):
            # what a job left may be a link to what it could not read itself
            paths += [folder for folder in [lab.workspace.job(job)] if path_exists(str(folder))]
    outside = [str(path) for path in lab.reading_places.outside(paths)]
    if not outside:
        return None
    return Action(
        kind="read_files",
        what="Show the model what stands in",
        name=outside[0],
        where="local",
        digest=hashlib.sha256(json.dumps(["read_files", *outside]).encode()).hexdigest()[:12],
        always_ask=(f"it is outside of {READABLE}",),
        details=tuple(("Path", path) for path in outside),
    )


async def settle(
    names: Iterable[str | None], consent: Consent, *, ctx: Context[Any, Any], lab: Lab, tool: str
) -> None:
    """Return if the paths among ``names`` may be read.

    Raises:
        Blocked: they may not: credentials, a no, or nobody who could be asked.
    """
    action = await anyio.to_thread.run_sync(reading, list(names), lab)
    if action is None:
        return
    settled = await lab.gate.settle(action, consent, ctx, tool=tool)
    if settled.refusal is None:
        return
    shown = cut_list([value for _, value in action.details], 3)
    if settled.refusal["status"] == "denied":
        raise Blocked(
            f"The user does not want {shown} to be read: {settled.refusal['note']}",
            service="local files",
            next_step=f"Use something in {READABLE}, or ask them what to use.",
        )
    folder = Path(action.details[0][1])
    raise Blocked(
        f"{shown} is outside of {READABLE}, and this host cannot ask the user.",
        service="local files",
        next_step=f"Ask the user to run: {lab.gate.how_to_approve(action)}, then call {tool} again; or to start the"
        f" server with --data {folder if folder.is_dir() else folder.parent}",
    )


def _named(value: Any, *, of_sources: bool) -> Iterator[str]:
    if isinstance(value, str) and of_sources:
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            inside = isinstance(item, Mapping | list) and of_sources
            yield from _named(item, of_sources=inside or bool(_SOURCES.search(str(key))))
    elif isinstance(value, list):
        for item in value:
            yield from _named(item, of_sources=of_sources)


async def _ask(names: Sequence[str | None], ctx: Context[Lab]) -> Asked:
    lab = ctx.request_context.lifespan_context
    action = await anyio.to_thread.run_sync(reading, names, lab)
    return Verdict(status="approved") if action is None else await lab.gate.ask(action, ctx)
