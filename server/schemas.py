"""Tool schemas as models should read them: closed, and without what pydantic adds for machines alone.

Every tool's schema is sent with every request to the model. Generated titles repeat the name ("Script Id" of
``script_id``), ``anyOf [X, null], default null`` and an empty default say of an optional argument only that it may be
left out, and lengths are beyond what anybody gives. Of a choice the first is the default, and a number's default is a
sensible one: neither is repeated, nor what the description says. Without all that the list is much shorter. Arguments
are validated as before, by the models themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

NAMED = frozenset({"properties", "$defs", "patternProperties"})
"""Keywords whose keys are names, not keywords."""


BOUNDS = frozenset(
    {"minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems"}
    | {"pattern"}
)
"""What nobody passes by chance, and what the refusal says in full."""


def input_schema(schema: Schema) -> Schema:
    """What a tool takes: concise, and closed, which the server enforces."""
    short: Schema = _concise(schema, optional_nulls=False)
    definitions = short.get("$defs", {})
    used = _used(short["properties"], definitions)
    short.pop("$defs", None)
    kept = {name: definition for name, definition in definitions.items() if name in used}
    return {**short, **({"$defs": kept} if kept else {}), "additionalProperties": False}


def output_schema(schema: Schema) -> Schema:
    """What a tool answers. Null stays: results say what is not known."""
    short: Schema = _concise(schema, optional_nulls=True)
    return short


def _concise(node: Any, optional_nulls: bool) -> Any:
    if isinstance(node, list):
        return [_concise(item, optional_nulls) for item in node]
    if not isinstance(node, dict):
        return node
    short: Schema = {}
    for key, value in node.items():
        if key == "title" and isinstance(value, str):
            continue
        if not optional_nulls and (key in BOUNDS or (key == "default" and _says_nothing(value, node))):
            continue
        if not optional_nulls and key == "additionalProperties" and value in (True, {"type": "string"}):
            continue
        if key in NAMED and isinstance(value, dict):
            short[key] = {name: _concise(item, optional_nulls) for name, item in value.items()}
        elif key in ("default", "const", "enum", "examples", "mapping"):
            short[key] = value
        else:
            short[key] = _concise(value, optional_nulls)
    return short if optional_nulls else _without_null_branch(short)


def _says_nothing(default: Any, node: Schema) -> bool:
    """Whether a model fills in the argument alike without this default."""
    empty_or_number = default in ("", [], {}) or isinstance(default, int | float)
    told = str(default) in re.findall(r"\w+", node.get("description", ""))
    return empty_or_number or told or default in node.get("enum", [])[:1]


def _without_null_branch(node: Schema) -> Schema:
    branches = node.get("anyOf")
    if not branches or "default" not in node or node["default"] is not None or {"type": "null"} not in branches:
        return node
    rest = [branch for branch in branches if branch != {"type": "null"}]
    others = {key: value for key, value in node.items() if key not in ("anyOf", "default")}
    choices = [choice for branch in rest for choice in branch.get("enum", [branch.get("const")])]
    if all(isinstance(choice, str) for choice in choices):
        return {"type": "string", "enum": choices, **others}
    return {**rest[0], **others} if len(rest) == 1 else {"anyOf": rest, **others}


def _used(node: Any, definitions: Schema) -> set[str]:
    """Names of the definitions that ``node`` reaches."""
    found: set[str] = set()
    waiting = list(_references(node))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _references(definitions[name])
    return found


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield _name(node["$ref"])
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]
