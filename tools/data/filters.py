"""Filters that a recipe may name; each is a function of a prepared row that a script carries with it."""

from __future__ import annotations

import re

from mlintern.common.text import did_you_mean
from mlintern.tools.errors import BadInput

SOURCES = {
    "no_empty_answer": '''
def no_empty_answer(row):
    """Keep rows whose answers all say something."""
    for name in ("text", "completion", "chosen", "rejected"):
        if name not in row:
            continue
        value = row[name]
        last = value[-1] if isinstance(value, list) and value else value
        said = last.get("content") or last.get("tool_calls") if isinstance(last, dict) else last
        if not (said.strip() if isinstance(said, str) else said):
            return False
    if row.get("messages") is not None:
        said = [m for m in row["messages"] if m["role"] == "assistant" and (m.get("content") or m.get("tool_calls"))]
        return bool(said)
    return True
''',
    "deduplicate": '''
import hashlib
import json


def deduplicate(row, seen=set()):
    """Keep the first of rows that are the same but for upper case and white space."""
    text = " ".join(json.dumps(row, sort_keys=True, default=str).lower().split())
    key = hashlib.sha256(text.encode()).digest()
    if key in seen:
        return False
    seen.add(key)
    return True
''',
    "max_characters": '''
def max_characters(row):
    """Keep rows whose texts together have at most LIMIT characters."""
    names = ("text", "prompt", "completion", "messages", "chosen", "rejected")
    total = 0
    for name in names:
        value = row.get(name)
        for part in value if isinstance(value, list) else [value]:
            text = part.get("content") if isinstance(part, dict) else part
            total += len(text) if isinstance(text, str) else 0
    return total <= LIMIT
''',
    "script": '''
import unicodedata


def script(row):
    """Keep rows of which most letters are of the script NAME."""
    letters = ours = 0
    for name in ("text", "prompt", "completion", "messages", "chosen"):
        value = row.get(name)
        for part in value if isinstance(value, list) else [value]:
            text = part.get("content") if isinstance(part, dict) else part
            for letter in text[:2000] if isinstance(text, str) else "":
                if letter.isalpha():
                    letters += 1
                    ours += unicodedata.name(letter, "").startswith("NAME")
    return letters == 0 or ours * 2 > letters
''',
}
HELP = "no_empty_answer, deduplicate, max_characters=N (texts of a row together), script=LATIN|CYRILLIC|CJK|..."


def named_filter(text: str) -> str:
    """The source of the filter that a recipe names: ``no_empty_answer``, ``max_characters=8000``, ``script=LATIN``.

    Raises:
        BadInput: there is no such filter, or its value is wrong.
    """
    name, _, value = text.strip().partition("=")
    if name not in SOURCES:
        raise BadInput(
            f"There is no filter {text!r:.80}.",
            next_step=did_you_mean(name, SOURCES, otherwise=f"Give the source of a function, or one of: {HELP}."),
        )
    source = SOURCES[name].strip("\n") + "\n"
    if name == "max_characters":
        if not re.fullmatch(r"[1-9]\d{0,11}", value):
            raise BadInput(f"max_characters needs a number, not {value!r:.40}.", next_step="max_characters=8000")
        return source.replace("LIMIT", value)
    if name == "script":
        if not re.fullmatch(r"[A-Za-z]{2,20}", value):
            raise BadInput(f"script needs a name, not {value!r:.40}.", next_step="script=LATIN")
        return source.replace("NAME", value.upper())
    if value:
        raise BadInput(f"The filter {name} takes no value.", next_step=f"Write {name} alone.")
    return source
