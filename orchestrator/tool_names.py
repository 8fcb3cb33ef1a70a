"""From the tools that MCP servers list to those that the Messages API takes: names, schemas, what a call may do."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

import mcp.types

from mlintern.orchestrator.tool import SideEffect, Tool

MAX_NAME = 64
POLL_NAME = re.compile(r"^(poll|wait|watch)(_|$)|_(status|wait)$")
WAIT_PARAMETERS = frozenset({"wait_seconds", "max_wait_s", "wait", "poll_interval"})
ROOT_UNIONS = ("anyOf", "oneOf", "allOf")


def legal_names(listed: Iterable[tuple[str, str]], *, reserved: Collection[str] = ()) -> dict[tuple[str, str], str]:
    """A unique name that the API takes for every (server, tool).

    A tool keeps its own name where no other has it; else it becomes ``server__tool``. The same list gives the same
    names, in whatever order.
    """
    pairs = sorted(set(listed))
    counts = Counter(_legal(tool) for _, tool in pairs)
    names: dict[tuple[str, str], str] = {}
    taken = set(reserved)
    for server, tool in pairs:
        plain = _legal(tool)
        name = plain if counts[plain] == 1 and plain not in taken else _legal(f"{server}__{tool}")
        if name in taken:
            digest = hashlib.sha256(f"{server}\0{tool}".encode()).hexdigest()[:8]
            name = f"{name[: MAX_NAME - 9]}_{digest}"
        taken.add(name)
        names[server, tool] = name
    return names


def _legal(name: str) -> str:
    legal = re.sub(r"[^a-zA-Z0-9_-]", "_", name) or "_"
    if len(legal) <= MAX_NAME:
        return legal
    return f"{legal[: MAX_NAME - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def for_model(tool: mcp.types.Tool) -> bool:
    """Whether the model may see it: tools for an app's page alone are not for the model."""
    ui = (tool.meta or {}).get("ui")
    visibility = ui.get("visibility") if isinstance(ui, dict) else None
    return not (isinstance(visibility, list) and visibility and "model" not in visibility)


def hosted(tool: mcp.types.Tool, *, name: str, server: str) -> Tool:
    """``tool`` of ``server`` under ``name``."""
    side_effect = side_effect_of(tool.annotations)
    return Tool(
        name=name,
        description=tool.description or tool.title or tool.name,
        input_schema=portable_schema(tool.input_schema),
        side_effect=side_effect,
        polls=_polls(tool, side_effect),
        server=server,
    )


def side_effect_of(annotations: mcp.types.ToolAnnotations | None) -> SideEffect:
    """What a server says about repeating a call; a tool that says nothing may do anything."""
    if annotations is None:
        return "side_effect"
    if annotations.read_only_hint:
        return "read_only"
    return "idempotent" if annotations.idempotent_hint and not annotations.destructive_hint else "side_effect"


def _polls(tool: mcp.types.Tool, side_effect: SideEffect) -> bool:
    if side_effect != "read_only":
        return False
    return bool(POLL_NAME.search(tool.name)) or bool(WAIT_PARAMETERS & set(tool.input_schema.get("properties") or {}))


def portable_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema`` as the API takes it: an object, no union at its root, none of the titles that generators add."""
    cleaned: dict[str, Any] = _untitled(schema)
    for union in ROOT_UNIONS:
        cleaned.pop(union, None)
    return {"type": "object", "properties": {}, **cleaned}


def _untitled(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: _untitled(value) for key, value in node.items() if not (key == "title" and isinstance(value, str))
        }
    return [_untitled(each) for each in node] if isinstance(node, list) else node
