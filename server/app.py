"""The only place that assembles: services, toolsets, resources, prompts and extensions become one server."""

from __future__ import annotations

import importlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from typing import TYPE_CHECKING, Any

import anyio
from mcp.server import CacheHint, MCPServer
from mcp.server.extension import Extension

from mlintern.server.apps import decide
from mlintern.server.apps.approval_card import hide_card_tool
from mlintern.server.apps.pages import pages
from mlintern.server.asking import send_actions_along
from mlintern.server.instructions import INSTRUCTIONS
from mlintern.server.job_subscriptions import CountingBus, announce_changes
from mlintern.server.prompts import register_prompts
from mlintern.server.registry import Registry
from mlintern.server.resources import register_resources
from mlintern.server.scopes import hold_to_scopes
from mlintern.server.services import Lab
from mlintern.server.settings import CORE, CORE_TOOLS, TOOLSETS, Settings
from mlintern.server.skills import Skills
from mlintern.server.strict_server import StrictServer
from mlintern.server.tasks import JobTasks
from mlintern.tools.errors import MlinternError

if TYPE_CHECKING:
    from mlintern.server.http import Guard

logger = logging.getLogger(__name__)

ASKING = frozenset({"jobs", "hub", "experiments"})
"""Toolsets with a tool that asks the user."""

RECONCILE_AFTER_SECONDS = 1.0
"""Picking up the jobs of an earlier server waits until the host has its list of tools."""

RECONCILE_EVERY_SECONDS = 60.0


def build_server(settings: Settings, *, lab: Lab | None = None, guard: Guard | None = None) -> MCPServer[Lab]:
    """The MCP server of one workspace, not yet served on any transport.

    Args:
        settings: what the person who starts it decided.
        lab: the services to use; by default built from ``settings`` when first needed.
        guard: where every client signs in, and is held to what its token may.
    """
    lab = lab or Lab(settings)
    registry = Registry()
    core = CORE in settings.toolsets
    for name in TOOLSETS:
        if name in settings.toolsets or core:
            chosen = registry if name in settings.toolsets else registry.only(CORE_TOOLS)
            importlib.import_module(f"mlintern.server.toolsets.{name}").register(chosen, lab)
    asks = core or not ASKING.isdisjoint(settings.toolsets)
    if asks:
        decide.register(registry, lab)
    extensions: list[Extension] = [Skills()]
    extensions += [JobTasks(lab)] if core or "jobs" in settings.toolsets else []
    draws = "ledger" in settings.toolsets
    extensions += [pages(asks=asks, draws=draws)] if asks or draws else []
    bus = CountingBus()
    signing_in: dict[str, Any] = {} if guard is None else {"auth": guard.settings, "token_verifier": guard}
    scoped = [] if guard is None else [hold_to_scopes(registry.tools)]
    server = StrictServer(
        "mlintern",
        tools=registry.tools,
        known_secrets=lambda: lab.known_secrets(),  # built when it is first needed
        lab=lab,
        title="mlintern",
        version=metadata.version("mlintern"),
        description="Post-trains language models: papers, data, training scripts, jobs, evaluations.",
        instructions=INSTRUCTIONS,
        subscriptions=bus,
        extensions=extensions,
        middleware=[*scoped, hide_card_tool, send_actions_along],
        lifespan=_with_background_work(lab, bus),
        cache_hints={"tools/list": CacheHint(ttl_ms=60_000, scope="private")},
        log_level="WARNING",
        **signing_in,
    )
    register_resources(server, lab)
    register_prompts(server)
    return server


def _with_background_work(lab: Lab, bus: CountingBus) -> Any:
    @asynccontextmanager
    async def lifespan(_: MCPServer[Lab]) -> AsyncIterator[Lab]:
        try:
            async with anyio.create_task_group() as background:
                background.start_soon(_watch_jobs, lab)
                background.start_soon(announce_changes, lab, bus)
                yield lab
                background.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await lab.close()

    return lifespan


def _carry_on_experiments(lab: Lab) -> None:
    """Have a runner at every experiment with something left to do; loads nothing where none was ever opened."""
    with lab.ledger.read() as connection:
        if connection.execute("SELECT 1 FROM campaigns LIMIT 1").fetchone() is None:
            return
    lab.campaigns.resume_all()


async def _watch_jobs(lab: Lab) -> None:
    """Pick up the jobs of an earlier server, and then see after all of them though nobody may be polling.

    What a job measured has to be collected while its storage is there, and one that is stuck has to be ended when
    its reservation is used up. Never returns.
    """
    await lab.clock.sleep(RECONCILE_AFTER_SECONDS)
    while True:
        try:
            found = await lab.jobs.reconcile()
            await anyio.to_thread.run_sync(_carry_on_experiments, lab)
        except* MlinternError as errors:
            logger.warning("Jobs could not be looked after: %s", errors.exceptions[0])
        else:
            for problem in found.problems:
                logger.warning("%s", problem)
        await anyio.sleep(RECONCILE_EVERY_SECONDS)  # not a polite wait, so it is not scaled
