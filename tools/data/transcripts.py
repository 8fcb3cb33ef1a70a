"""Conversations written as one text, each turn behind its speaker's name and a colon."""

from __future__ import annotations

import re
from collections.abc import Sequence

KEYS = frozenset({"text", "transcript", "content", "chat_text", "full_text"})
"""Columns that may hold one, beside those that are named after conversations."""

_SPEAKERS = (
    *("user", "human", "prompter", "customer", "client"),
    *("assistant", "gpt", "chatgpt", "bot", "chatbot", "model", "ai", "agent"),
    *("system", "function response", "function result", "tool", "observation"),
)
_NAME = re.compile(rf"(?im)(?:^[ \t]*|###[ \t]*)({'|'.join(re.escape(name) for name in _SPEAKERS)})[ \t]*:")
_ASKS = frozenset(_SPEAKERS[:5])
_SAYS = frozenset(_SPEAKERS[5:12])
END = "<|endoftext|>"


def pattern_of(texts: Sequence[str]) -> str | None:
    """A pattern that splits each of ``texts`` into nothing, a name, what was said, a name, and so on.

    None if one of them does not begin with a speaker, or no question or no answer is among them.
    """
    names: dict[str, None] = {}
    for text in texts:
        first = _NAME.search(text)
        if first is None or text[: first.start()].strip():
            return None
        names |= dict.fromkeys(found[1] for found in _NAME.finditer(text))
    lowered = {name.lower() for name in names}
    if not lowered & _ASKS or not lowered & _SAYS:
        return None
    return rf"(?m)(?:^[ \t]*|###[ \t]*)({'|'.join(map(re.escape, sorted(names)))})[ \t]*:"


def split(text: str, pattern: str) -> list[dict[str, str]]:
    """The turns of ``text``; those that say nothing are left out."""
    pieces = re.split(pattern, text)
    said = ((name, one.replace(END, "").strip()) for name, one in zip(pieces[1::2], pieces[2::2], strict=True))
    return [{"role": name, "content": one} for name, one in said if one]


def split_code(access: str, pattern: str, *, ends: bool) -> str:
    """Python for `split`."""
    said = f's.replace("{END}", "").strip()' if ends else "s.strip()"
    return (
        f'[{{"role": who, "content": {said}}} for p in [re.split({pattern!r}, {access})]'
        " for who, s in zip(p[1::2], p[2::2]) if s.strip()]"
    )


def turns_in(text: str) -> list[str]:
    """What is said in ``text``, if it is such a conversation."""
    pattern = pattern_of([text])
    return [turn["content"] for turn in split(text, pattern)] if pattern else []
