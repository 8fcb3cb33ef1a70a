"""A server with one tool that asks, for tests of the gate: `launch` counts what it really started."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from mcp import Client
from mcp.client import ClientRequestContext
from mcp.server.mcpserver import Context, Resolve
from mcp.types import ElicitRequestParams, ElicitResult
from pydantic import BaseModel

from mlintern.common.consent import Action
from mlintern.server.asking import Asked, Consent, Gate, send_actions_along
from mlintern.server.registry import Registry
from mlintern.server.strict_server import StrictServer


class Launched(BaseModel):
    status: str
    note: str = ""
    digest: str = ""
    how_to_approve: str | None = None
    launches: int = 0


def action_for(name: str, hours: float = 1.0, usd: float = 0.0) -> Action:
    """As for a job, the price is not part of what the digest names."""
    digest = hashlib.sha256(f"{name} {hours}".encode()).hexdigest()[:12]
    return Action(
        kind="submit_job",
        what="Start",
        name=name,
        where="local",
        hardware="cpu",
        seconds=hours * 3600,
        usd_worst=usd,
        digest=digest,
        details=(("Script", f"{name}, 12 lines"),),
    )


async def consent(name: str, hours: float, usd: float, ctx: Context[Gate]) -> Asked:
    return await ctx.request_context.lifespan_context.ask(action_for(name, hours, usd), ctx)


def asking_server(gate: Gate, launches: list[str]) -> StrictServer:
    """A server whose tool `launch` appends to ``launches`` when, and only when, a person agreed."""
    registry = Registry()

    @registry.tool(title="Launch", read_only=False, open_world=False, destructive=True)
    async def launch(
        name: str,
        ctx: Context[Gate],
        consent: Annotated[Consent, Resolve(consent)],
        hours: float = 1.0,
        usd: float = 0.0,
    ) -> Launched:
        """Launch something."""
        action = action_for(name, hours, usd)
        settled = await gate.settle(action, consent, ctx, tool="launch")
        if settled.refusal is not None:
            return Launched(launches=len(launches), **settled.refusal)
        if action.digest not in launches:
            launches.append(action.digest)
        return Launched(status="approved", note=settled.note, launches=len(launches))

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[Gate]:
        yield gate

    return StrictServer("asking", tools=registry.tools, lifespan=lifespan, middleware=[send_actions_along])


class Person:
    """Answers every question the same way and remembers what was asked."""

    def __init__(self, answer: ElicitResult) -> None:
        self.answer = answer
        self.asked: list[ElicitRequestParams] = []

    async def __call__(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        self.asked.append(params)
        return self.answer


YES = ElicitResult(action="accept", content={"approve": True})
UNTICKED = ElicitResult(action="accept", content={"approve": False})
NO = ElicitResult(action="decline")
CLOSED = ElicitResult(action="cancel")


def client(server: StrictServer, era: str, person: Person | None) -> Client:
    return Client(server, mode=era, elicitation_callback=person)
