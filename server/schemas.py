"""Tool schemas as models should read them: closed, and without what pydantic adds for machines alone.

Every tool's schema is sent with every request to the model. Generated titles repeat the name ("Script Id" of
``script_id``), and ``anyOf [X, null], default null`` says of an optional argument only that it may be left out. The
list is much shorter without them. Arguments are validated as before: an explicit null is still taken.
"""

from __future__ import annotations

from typing import Any

NAMED = frozenset({"properties", "$defs", "patternProperties"})
"""Keywords whose keys are names, not keywords."""


def close(schema: dict[str, Any]) -> dict[str, Any]:
    """Say that a tool takes no other arguments, which `mlintern.server.arguments.refuse_unknown` enforces."""
    return {**schema, "additionalProperties": False}


def concise(schema: dict[str, Any], *, optional_nulls: bool = True) -> dict[str, Any]:
    """``schema`` without generated titles and, unless ``optional_nulls`` are to stay, without their null branch."""
    return _concise(schema, optional_nulls)  # type: ignore[no-any-return]


def _concise(node: Any, optional_nulls: bool) -> Any:
    if isinstance(node, list):
        return [_concise(item, optional_nulls) for item in node]
    if not isinstance(node, dict):
        return node
    short: dict[str, Any] = {}
    for key, value in node.items():
        if key == "title" and isinstance(value, str):
            continue
        if key in NAMED and isinstance(value, dict):
            short[key] = {name: _concise(item, optional_nulls) for name, item in value.items()}
        elif key in ("default", "const", "enum", "examples", "mapping"):
            short[key] = value
        else:
            short[key] = _concise(value, optional_nulls)
    return short if optional_nulls else _without_null_branch(short)


def _without_null_branch(node: dict[str, Any]) -> dict[str, Any]:
    branches = node.get("anyOf")
    if not branches or "default" not in node or node["default"] is not None or {"type": "null"} not in branches:
        return node
    rest = [branch for branch in branches if branch != {"type": "null"}]
    others = {key: value for key, value in node.items() if key not in ("anyOf", "default")}
    return {**rest[0], **others} if len(rest) == 1 else {"anyOf": rest, **others}
