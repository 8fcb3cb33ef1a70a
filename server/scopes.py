"""What a client that signed in with a token may do. Over pipes and on a loopback address nobody signs in.

A tool that only reads needs ``read``, `publish_to_hub` needs ``publish``, the approval card's tool ``approve``, and
every other tool ``submit``. The answer to a question needs ``approve`` too: a client without it is not asked, the
question waits for ``mlintern-server approve``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver.tools import Tool
from mcp.types import INVALID_REQUEST, CallToolResult, TextContent

from mlintern.server.apps.approval_card import CARD_TOOL

PUBLISHES = "publish_to_hub"

FREE = frozenset(
    {"initialize", "ping", "server/discover", "logging/setLevel", "tools/list", "prompts/list"}
    | {"resources/list", "resources/templates/list"}
)
"""What every token may: to learn what there is. Notifications are free as well; they answer nothing."""

Scoped = Callable[[ServerRequestContext[Any, Any], CallNext], Any]


def granted(request: Any) -> frozenset[str] | None:
    """The scopes of the token that came with an HTTP ``request``; None if it was not signed in."""
    user = request.scope.get("user") if request is not None else None
    scopes = getattr(user, "scopes", None)
    return None if scopes is None else frozenset(scopes)


def may_answer(request: Any) -> bool:
    """Whether the client behind ``request`` may answer a question; those that need no token may."""
    scopes = granted(request)
    return scopes is None or "approve" in scopes


def needed_for(tool: Tool) -> str:
    """The scope that a call of ``tool`` needs."""
    if tool.name == PUBLISHES:
        return "publish"
    if tool.name == CARD_TOOL:
        return "approve"
    return "read" if tool.annotations is not None and tool.annotations.read_only_hint else "submit"


def hold_to_scopes(tools: Iterable[Tool]) -> Scoped:
    """Middleware for a server where everybody signs in: what is beyond the token is refused by name."""
    needed = {tool.name: needed_for(tool) for tool in tools}

    async def hold(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        if ctx.method in FREE or ctx.request_id is None:
            return await call_next(ctx)
        called = str((ctx.params or {}).get("name")) if ctx.method == "tools/call" else ""
        scope = needed.get(called, "read")
        has = granted(ctx.request) or frozenset()
        if scope in has:
            return await call_next(ctx)
        wanted = ",".join(sorted({*has, scope}))
        refusal = (
            f"{called or ctx.method} needs the scope {scope}; this token has {', '.join(sorted(has)) or 'none'}."
            f" Tell the user: mlintern-server token --scopes {wanted}, on the server's machine, makes one with it."
        )
        if called:
            return CallToolResult(content=[TextContent(type="text", text=refusal)], is_error=True)
        raise MCPError(code=INVALID_REQUEST, message=refusal)

    return hold
