"""The approval card: a question inside the conversation, for hosts that render MCP Apps but have no dialogs.

The card decides through the tool `decide_on_job`, which demands a token of this very question. The token travels in
the ``_meta`` of the result of the tool that asks (`submit_job`, `publish_to_hub`), which hosts hand to the card and
not to the model; it is given only to a client that says that it renders cards. So a model that calls the tool by
itself is refused. Clients without cards do not see the tool at all.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any

from mcp.server.apps import client_supports_apps
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

from mlintern.common.consent import Action
from mlintern.common.text import cut, printable
from mlintern.tools.errors import BadInput

MOST_SCRIPT = 200_000
"""Characters of a script on a card; what is longer says so and is read with `mlintern-server approvals --web`."""

CARD_URI = "ui://mlintern/approval.html"
CARD_TOOL = "decide_on_job"
CARD_META = {"ui": {"resourceUri": CARD_URI}}
"""On a tool that asks: the host shows the card with its result."""
TOOL_META = {"ui": {"resourceUri": CARD_URI, "visibility": ["app"]}}
"""On `decide_on_job`: for the card alone."""


class CardTokens:
    """Makes and checks the tokens of cards. They end with the process that made them."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def issue(self, digest: str) -> str:
        return hmac.new(self._secret, digest.encode(), hashlib.sha256).hexdigest()

    def demand(self, digest: str, token: str) -> None:
        """Raises:
        BadInput: ``token`` was not issued for ``digest``.
        """
        if not hmac.compare_digest(self.issue(digest).encode(), token.encode()):
            raise BadInput(
                "This decision did not come from the card that was shown to the user.",
                next_step="Only a person decides: show them the command in how_to_approve.",
            )


def card_of(action: Action, tokens: CardTokens, *, tool: str, script: str = "") -> dict[str, Any]:
    """What the card of ``action``, which ``tool`` asks about, shows and needs, as ``_meta`` of a result."""
    card = {
        "digest": action.consent_digest,
        "headline": action.headline,
        "lines": action.lines,
        "script": cut(printable(script, keep="\n\t"), MOST_SCRIPT),
        "token": tokens.issue(action.consent_digest),
        "tool": tool,
    }
    return {"mlintern/card": card}


async def hide_card_tool(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Middleware: ``tools/list`` without the card's tool for clients that render no cards."""
    result = await call_next(ctx)
    if ctx.method != "tools/list" or not isinstance(result, dict) or client_supports_apps(ctx):
        return result
    return {**result, "tools": [tool for tool in result["tools"] if tool["name"] != CARD_TOOL]}
