"""Boolean queries as arXiv and OpenAlex read them, evaluated on the text of a paper."""

from __future__ import annotations

import re
from collections.abc import Mapping

_TOKEN = re.compile(r'\(|\)|(?:[a-z]+:)?"[^"]+"|[^\s()"]+')
Fields = Mapping[str, str]


def matches(expression: str, fields: Fields, *, default: str = "all", joined_by: str = "AND") -> bool:
    """Whether ``expression`` holds for a paper.

    Args:
        fields: its texts by field name, lower case, punctuation as spaces.
        default: the field of a term without one.
        joined_by: what stands between two terms without an operator.
    """
    tokens = _TOKEN.findall(expression)
    position = 0

    def take() -> str:
        nonlocal position
        position += 1
        return tokens[position - 1]

    def following() -> str:
        return tokens[position] if position < len(tokens) else ""

    def one() -> bool:
        token = take()
        if token == "NOT":
            return not one()
        if token == "(":
            value = joined(_OR)
            if following() == ")":
                take()
            return value
        name, colon, text = token.partition(":")
        field, term = (name, text) if colon and name in fields else (default, token)
        words = " ".join(re.findall(r"\w+", term.lower()))
        return not words or f" {words} " in f" {fields[field]} "

    def joined(level: int) -> bool:
        if level == _TERM:
            return one()
        value = joined(level + 1)
        while following() and following() != ")":
            operator = following() if following() in ("AND", "OR", "ANDNOT", "NOT") else ""
            kind = operator or joined_by
            if (kind == "OR") != (level == _OR):
                break
            if operator in ("AND", "OR", "ANDNOT"):
                take()
            elif operator == "NOT":
                take()
                kind = "ANDNOT"
            other = joined(level + 1)
            value = (value or other) if kind == "OR" else value and (not other if kind == "ANDNOT" else other)
        return value

    return joined(_OR)


_OR, _AND, _TERM = 0, 1, 2


def plain(text: str) -> str:
    """``text`` as terms are compared: lower case, words only."""
    return " ".join(re.findall(r"\w+", text.lower()))
