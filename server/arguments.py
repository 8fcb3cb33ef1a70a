"""Arguments that do not fit are refused in words a model can act on: the name, what is wrong, what was meant."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from mlintern.common.text import cut, did_you_mean

MOST_SHOWN = 8
LONGEST_VALUE = 80
LONGEST_PATH = 200
_EMPTY_ANSWER = "received an accepted elicitation with no content"
"""What the SDK says of an answer that holds none of the fields that were asked for."""

Schema = Mapping[str, Any]


def refuse_unknown(tool: str, *, known: Iterable[str], given: Iterable[str]) -> str | None:
    """A refusal that names every argument in ``given`` that is not in ``known``, or None if there is none."""
    names = list(known)
    unknown = [name for name in given if name not in names]
    if not unknown:
        return None
    refusals = " ".join(f"{tool} has no argument {name!r}.{_suggestion(name, names)}" for name in unknown)
    return f"{refusals} Its arguments are: {', '.join(names) or 'none'}. Nothing was done."


def refuse_broken_text(tool: str, arguments: Mapping[str, Any]) -> str | None:
    """A refusal of text that is no Unicode, or None: neither files nor the ledger can hold it."""
    try:
        json.dumps(arguments, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        broken = error.object[error.start : error.end]
        return f"{tool} cannot use these arguments: {broken!a} is half a character. Send it whole, or leave it out."
    return None


def explain(tool: str, error: ValidationError, *, schema: Schema) -> str:
    """``error`` as one line for each argument that does not fit, with the name that was probably meant."""
    problems = error.errors(include_url=False, include_context=False)
    lines = [_explain_one(problem, schema) for problem in problems[:MOST_SHOWN]]
    if len(problems) > MOST_SHOWN:
        lines.append(f"and {len(problems) - MOST_SHOWN} more")
    return f"{tool} cannot use these arguments:\n" + "\n".join(f"- {line}" for line in lines)


def explain_outside(tool: str, error: Exception) -> str | None:
    """What kept ``tool`` from its work although its arguments fit: the system, or a host's answer to a question."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.strerror:
        place = f" ({cut(str(cause.filename), LONGEST_PATH)})" if cause.filename else ""
        said = f"{tool} cannot go on, since the system says: {cause.strerror}{place}."
        return f"{said} Correct that, or name another place."
    if _EMPTY_ANSWER in str(error):
        return (
            f"{tool} did nothing: the host accepted its question without an answer. Call it again, or ask the user to"
            " answer with mlintern-server approvals."
        )
    return None


def _explain_one(problem: Mapping[str, Any], schema: Schema) -> str:
    location = tuple(problem["loc"])
    path = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        siblings = _properties(schema, location[:-1])
        listing = f" Known: {', '.join(siblings)}." if siblings else ""
        return f"{path}: there is no such field.{_suggestion(str(location[-1]), siblings)}{listing}"
    if problem["type"] == "missing":
        return f"{path}: required, and not given."
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "value_error" or isinstance(problem.get("input"), dict | list):
        return f"{path}: {message}"
    value = repr(problem.get("input"))
    return f"{path}: {message}; got {cut(value, LONGEST_VALUE)}"


def _suggestion(name: str, known: Iterable[str]) -> str:
    return f" {did_you_mean(name, known, otherwise='')}".rstrip()


def _properties(root: Schema, location: tuple[int | str, ...]) -> list[str]:
    """The names allowed at ``location`` of a pydantic error, which also holds list indices and tags of unions."""
    nodes = [root]
    for part in location:
        nodes = [found for node in nodes for found in _step(root, node, part)]
    return sorted({name for node in nodes for name in _resolve(root, node).get("properties", {})})


def _step(root: Schema, node: Schema, part: int | str) -> list[Schema]:
    node = _resolve(root, node)
    if isinstance(part, str) and part in node.get("properties", {}):
        return [node["properties"][part]]
    tagged = node.get("discriminator", {}).get("mapping", {}).get(part)
    if tagged is not None:
        return [{"$ref": tagged}]
    if isinstance(part, int) and "items" in node:
        return [node["items"]]
    branches = [*node.get("anyOf", []), *node.get("oneOf", [])]
    stepped = [found for branch in branches for found in _step(root, branch, part)]
    return stepped or branches


def _resolve(root: Schema, node: Schema) -> Schema:
    while "$ref" in node:
        node = root["$defs"][node["$ref"].rpartition("/")[2]]
    return node
