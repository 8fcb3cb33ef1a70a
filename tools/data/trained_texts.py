"""The texts of a row that a trainer hands to the tokenizer, before any chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlintern.tools.data.cells import plain_key
from mlintern.tools.data.content import leaves
from mlintern.tools.data.trl_rules import is_from_value, split_prompt, to_messages

Row = dict[str, Any]
ASKED = frozenset(
    [
        "context",
        "input",
        "system",
        "system_prompt",
        "history",
        "passage",
        "background",
        "choices",
        "options",
        "question",
        "instruction",
        "query",
        "problem",
    ]
)
"""Columns that a trainer of rewards must have in the prompt; the others reach the reward function."""


def trained_texts(trainer: str, first: Row, *, row: Row) -> list[str]:
    """All texts that ``trainer`` trains on or asks with, when the dataset starts with ``first``."""
    if trainer in ("grpo", "rloo"):
        others = {name: value for name, value in row.items() if name != "prompt" and plain_key(name) not in ASKED}
        return [*_of(row, ("prompt",)), *(str(text) for _, _, text in leaves(others))]
    if trainer == "sft":
        if is_from_value(first):
            row = to_messages(row)
        if "prompt" in row:
            return _of(row, ("prompt", "completion", "tools"))
        return _of(row, ("messages", "tools") if "messages" in row else ("text",))
    if trainer == "kto" and "completion" in row:
        return _of(row, ("prompt", "completion", "tools"))
    if "prompt" not in first and trainer != "reward":
        split_prompt(row)  # raises where TRL stops; each answer is read after the prompt that it was split off
        return _of(row, ("chosen", "rejected", "tools"))
    return _of(row, ("prompt", "chosen", "rejected", "tools"))


def _of(row: Row, names: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for name in names:
        value = row.get(name)
        if isinstance(value, str):
            found.append(value)
        elif name == "tools":
            found.append(json.dumps(value, ensure_ascii=False, default=str))
        elif isinstance(value, list):
            for message in value:
                found += _of_message(message) if isinstance(message, Mapping) else []
    return found


def _of_message(message: Mapping[str, Any]) -> list[str]:
    """What a chat template may print of a message. Content that is no text is printed by few; it does not count."""
    found = [message["content"]] if isinstance(message.get("content"), str) else []
    for key, value in message.items():
        if key not in ("content", "role", "function_call") and value:  # no template knows function_call
            found.append(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
    return found
