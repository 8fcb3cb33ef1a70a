"""Python literals as ``ruff format`` would leave them: what a rendered script says is data, never code."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlintern.tools.errors import BadInput

LINE = 88
"""Columns of a line, the default of ruff and black."""


class Expression(str):
    """Source that stands in a script as it is. Only the product makes one, never a value of a recipe."""


def assignment(name: str, value: Any, *, open_up: bool = False) -> str:
    """``name = value`` at the left margin; ``open_up`` puts every item of a collection on a line of its own."""
    return f"{name} = {_after(f'{name} = ', value, 0, open_up=open_up)}"


def keyword(name: str, value: Any, *, indent: int) -> str:
    """``name=value,`` as one argument of a call whose arguments stand on lines of their own."""
    lead = f"{' ' * indent}{name}="
    return f"{lead}{_collection_or_atom(value, indent, _width(lead) + 1)},"


def python_literal(value: Any) -> str:
    """``value`` on one line: `ast.literal_eval` gives it back.

    Raises:
        BadInput: the value is neither a number, string, boolean, None nor a list or dictionary of them.
    """
    if isinstance(value, Expression):
        return str(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise BadInput(f"{value} cannot stand in a script.", next_step="Give a finite number.")
    if value is None or isinstance(value, bool | int | float):
        return repr(value).replace("e+", "e")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{python_literal(key)}: {python_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(python_literal, value)) + "]"
    raise BadInput(f"A {type(value).__name__} cannot stand in a script.", next_step="Use JSON values.")


def _string(value: str) -> str:
    """Double quotes unless single ones need fewer backslashes; what does not print is escaped."""
    quote = "'" if value.count('"') > value.count("'") else '"'
    return quote + "".join(_character(character, quote) for character in value) + quote


def _character(character: str, quote: str) -> str:
    if character in (quote, "\\"):
        return f"\\{character}"
    if character.isprintable():
        return character
    return repr(character)[1:-1]


def _after(lead: str, value: Any, indent: int, *, open_up: bool) -> str:
    """The right side of an assignment; a long atom that fits on a line of its own goes into parentheses."""
    if isinstance(value, Mapping | list | tuple):
        return _exploded(value, indent) if open_up and value else _collection_or_atom(value, indent, _width(lead))
    atom = python_literal(value)
    if _width(lead) + _width(atom) > LINE and indent + 4 + _width(atom) <= LINE:
        return f"(\n{' ' * (indent + 4)}{atom}\n{' ' * indent})"
    return atom


def _collection_or_atom(value: Any, indent: int, used: int) -> str:
    text = python_literal(value)
    if isinstance(value, Mapping | list | tuple) and value and used + _width(text) > LINE:
        return _exploded(value, indent)
    return text


def _exploded(value: Mapping[str, Any] | Sequence[Any], indent: int) -> str:
    inner = " " * (indent + 4)
    lines: list[str] = []
    for lead, item in _items(value):
        start = f"{inner}{lead}"
        lines.append(f"{start}{_collection_or_atom(item, indent + 4, _width(start) + 1)},")
    left, right = ("{", "}") if isinstance(value, Mapping) else ("[", "]")
    return "\n".join([left, *lines, " " * indent + right])


def _items(value: Mapping[str, Any] | Sequence[Any]) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return ((f"{python_literal(key)}: ", item) for key, item in value.items())
    return (("", item) for item in value)


def _width(text: str) -> int:
    """Columns that ``text`` takes: wide East Asian characters count two, combining marks none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
