"""Change one value in a JSON file as people keep them: comments, last commas and indentation stay as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*[\s\S]*?\*/|,(?=(?:\s|//[^\n]*|/\*[\s\S]*?\*/)*[}\]])')
_DECODER = json.JSONDecoder()


def plain(text: str) -> str:
    """``text`` as JSON of the same length: comments, and commas before a closing bracket, are blanks."""

    def blank(match: re.Match[str]) -> str:
        found = match[0]
        return found if found.startswith('"') else re.sub(r"[^\n]", " ", found)

    return _TOKENS.sub(blank, text)


def read(text: str) -> Any:
    """The value of ``text``; an empty file is an empty object.

    Raises:
        ValueError: it is not JSON, comments aside.
    """
    return json.loads(plain(text)) if text.strip() else {}


def put(text: str, keys: tuple[str, ...], *, value: Any) -> str:
    """``text`` with ``value`` at ``keys``; objects on the way are made. Everything else stays as it is written.

    Raises:
        ValueError: it is not JSON, or something on the way is not an object.
    """
    text = text if text.strip() else "{}\n"
    start, depth = _first(plain(text)), 0
    while True:
        members = list(_members(plain(text), start))
        found = next(((begin, end) for key, begin, end in members if key == keys[0]), None)
        if found is None:
            for key in reversed(keys[1:]):
                value = {key: value}
            return _insert(text, start, members, keys[0], value, depth=depth)
        if len(keys) == 1:
            return text[: found[0]] + _shown(value, depth + 1) + text[found[1] :]
        start, keys, depth = found[0], keys[1:], depth + 1


def drop(text: str, keys: tuple[str, ...]) -> str:
    """``text`` without the member at ``keys``, if it is there."""
    start = _first(plain(text))
    for last in (False,) * (len(keys) - 1) + (True,):
        key, *rest = keys
        members = list(_members(plain(text), start))
        position = next((number for number, (name, _, _) in enumerate(members) if name == key), None)
        if position is None:
            return text
        _, begin, end = members[position]
        if last:
            before = members[position - 1][2] if position else start + 1
            after = members[position + 1 :]
            comma = plain(text).find(",", end) if after else -1
            return text[:before] + (text[comma:] if position and after else text[comma + 1 if after else end :])
        start, keys = begin, tuple(rest)
    return text


def _first(text: str) -> int:
    start = len(text) - len(text.lstrip("\ufeff \t\r\n"))
    if text[start : start + 1] != "{":
        raise ValueError("it is not an object")
    return start


def _members(text: str, start: int) -> Iterator[tuple[str, int, int]]:
    """(key, begin of the value, end of the value) of the object that begins at ``start``."""
    if text[start : start + 1] != "{":
        raise ValueError("it does not hold its servers in an object")
    position = _skip(text, start + 1)
    while text[position : position + 1] != "}":
        key, position = _DECODER.raw_decode(text, position)
        position = _skip(text, position)
        if not isinstance(key, str) or text[position : position + 1] != ":":
            raise ValueError("it is not JSON")
        begin = _skip(text, position + 1)
        _, end = _DECODER.raw_decode(text, begin)
        yield key, begin, end
        position = _skip(text, end)
        position = _skip(text, position + 1) if text[position : position + 1] == "," else position


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _insert(text: str, start: int, members: list[tuple[str, int, int]], key: str, value: Any, *, depth: int) -> str:
    indent = "  " * (depth + 1)
    member = f"\n{indent}{json.dumps(key)}: {_shown(value, depth + 1)}"
    if members:
        end = members[-1][2]
        rest = plain(text)[end:]
        given_comma = re.match(r"\s*,", text[end:]) if not re.match(r"\s*,", rest) else None
        if given_comma:  # a comma that stands at the end already
            return text[: end + given_comma.end()] + member + text[end + given_comma.end() :]
        return f"{text[:end]},{member}{text[end:]}"
    close = plain(text).index("}", start)
    return f"{text[: start + 1]}{member}\n{'  ' * depth}{text[start + 1 : close].strip()}{text[close:]}"


def _shown(value: Any, depth: int) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False).replace("\n", "\n" + "  " * depth)
