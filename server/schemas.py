"""Tool schemas as models should read them: closed, and without what pydantic adds for machines alone.

Every tool's schema is sent with every request to the model. Generated titles repeat the name ("Script Id" of
``script_id``), ``anyOf [X, null], default null`` and an empty default say of an optional argument only that it may be
left out, lengths are beyond what anybody gives, a discriminator repeats the constants of its branches, and a union of
recipes repeats every field that its members share. Without all that the list is half as long. Arguments are validated
as before, by the models themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

NAMED = frozenset({"properties", "$defs", "patternProperties"})
"""Keywords whose keys are names, not keywords."""

STRUCTURE = frozenset({"type", "items", "enum", "anyOf", "oneOf", "$ref", "additionalProperties"})
"""What a field keeps that is told elsewhere: its shape, without defaults and bounds."""


def input_schema(schema: Schema) -> Schema:
    """What a tool takes: concise, the arguments' unions merged, and closed, which the server enforces."""
    short: Schema = _concise(schema, optional_nulls=False)
    definitions = short.get("$defs", {})
    for name, argument in short.get("properties", {}).items():
        short["properties"][name] = _merged(argument, definitions)
    _forget_discriminators(short)
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
        if not optional_nulls and (key in ("minLength", "maxLength") or (key == "default" and value in ("", [], {}))):
            continue
        if key in NAMED and isinstance(value, dict):
            short[key] = {name: _concise(item, optional_nulls) for name, item in value.items()}
        elif key in ("default", "const", "enum", "examples", "mapping"):
            short[key] = value
        else:
            short[key] = _concise(value, optional_nulls)
    return short if optional_nulls else _without_null_branch(short)


def _without_null_branch(node: Schema) -> Schema:
    branches = node.get("anyOf")
    if not branches or "default" not in node or node["default"] is not None or {"type": "null"} not in branches:
        return node
    rest = [branch for branch in branches if branch != {"type": "null"}]
    others = {key: value for key, value in node.items() if key not in ("anyOf", "default")}
    return {**rest[0], **others} if len(rest) == 1 else {"anyOf": rest, **others}


def _merged(argument: Schema, definitions: Schema) -> Schema:
    """A tagged union of objects as one object, each field saying which tags it is for unless it is for all.

    A superset of the union: which fields go together is told by the descriptions and enforced by the models.
    """
    tag = argument.get("discriminator", {}).get("propertyName")
    if tag is None:
        return argument
    branches = {
        name: definitions[_name(reference)] for name, reference in argument["discriminator"]["mapping"].items()
    }
    plans = {title: other for title, other in definitions.items() if other not in branches.values()}
    fields: Schema = {tag: {"enum": list(branches), "type": "string"}}
    told: dict[str, set[str]] = {}
    for name in dict.fromkeys(name for branch in branches.values() for name in branch["properties"]):
        if name != tag:
            holders = {
                key: branch["properties"][name] for key, branch in branches.items() if name in branch["properties"]
            }
            fields[name] = _field_of(name, holders, among=len(branches), plans=plans, told=told)
    if told:
        fields[tag]["description"] = " ".join(
            f"What is only marked ({only}) is told in {' and '.join(sorted(titles))}."
            for only, titles in told.items()
        )
    required = [name for name in fields if all(name in branch.get("required", []) for branch in branches.values())]
    merged = {"type": "object", "properties": fields, "required": required, "additionalProperties": False}
    return {**{key: value for key, value in argument.items() if key == "description"}, **merged}


def _field_of(name: str, holders: Schema, *, among: int, plans: Schema, told: dict[str, set[str]]) -> Schema:
    """One field of the merged object. What a plan tells of it already is left to the plan, and noted in ``told``."""
    first, *others = holders.values()
    plan = _told_in(name, first, plans)
    if plan is not None and not others:
        only = next(iter(holders))
        told.setdefault(only, set()).add(plan)
        return {key: value for key, value in first.items() if key in STRUCTURE} | {"description": f"({only})"}
    field: Schema = dict(first)
    if any(other.get("default") != first.get("default") for other in others):
        field.pop("default", None)
    meanings: dict[str, list[str]] = {}
    for tag, holder in holders.items():
        plan = _told_in(name, holder, plans)
        meanings.setdefault(f"As in {plan}." if plan else holder.get("description", ""), []).append(tag)
    if len(holders) < among or len(meanings) > 1:
        field["description"] = " ".join(f"({', '.join(tags)}) {text}".rstrip() for text, tags in meanings.items())
    return field


def _told_in(name: str, field: Schema, plans: Schema) -> str | None:
    """The definition that describes the same field already."""
    for title, plan in plans.items():
        if field.get("description") and plan.get("properties", {}).get(name) == field:
            return title
    return None


def _forget_discriminators(node: Any) -> None:
    if isinstance(node, dict):
        node.pop("discriminator", None)
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _forget_discriminators(value)


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
