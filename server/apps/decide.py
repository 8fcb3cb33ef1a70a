"""The tool through which the approval card decides. A server that offers a tool that asks offers it too."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import anyio.to_thread
from mcp.server.apps import client_supports_apps
from mcp.server.mcpserver import Context
from pydantic import BaseModel, Field

from mlintern.server.apps.approval_card import TOOL_META
from mlintern.server.registry import Registry
from mlintern.server.services import Lab
from mlintern.tools.errors import BadInput


class Decided(BaseModel):
    digest: str
    state: str


def register(registry: Registry, lab: Lab) -> None:
    @registry.tool(title="Decide on job", read_only=False, open_world=False, destructive=True, meta=TOOL_META)
    async def decide_on_job(
        digest: Annotated[str, Field(description="The action")],
        decision: Annotated[Literal["run", "refuse"], Field(description="The user's decision")],
        card_token: Annotated[str, Field(description="Shows that the card asks; models do not have it")],
        ctx: Context[Lab],
        note: Annotated[str, Field(max_length=2000, description="The user's words to the agent")] = "",
    ) -> Decided:
        """Record what the user decided on the approval card, about a job or a publication; for the card alone.

        The card is shown by hosts with MCP Apps when submit_job or publish_to_hub needs an approval. Calls without
        the card's token are refused: agents ask by calling those tools.
        """
        if not client_supports_apps(ctx):
            raise BadInput(
                "This host shows no cards.", next_step="Only a person decides: submit_job and publish_to_hub say how."
            )
        lab.card_tokens.demand(digest, card_token)
        act = lab.approvals.approve if decision == "run" else lab.approvals.deny
        decided = await anyio.to_thread.run_sync(partial(act, digest, note=note, via="approval card"))
        return Decided(digest=decided.digest, state=decided.state)
