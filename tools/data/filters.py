"""Filters that a recipe may name; each is a function of a prepared row that a script carries with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
import re


def deduplicate(rows):
    """Keep the first of rows that are the same but for upper case and white space."""
    seen, kept = set(), []
    for number, row in enumerate(rows):
        text = json.dumps(row, sort_keys=True, default=str).lower()
        text = re.sub(r"(?:\\\\[nrt]|\\s)+", " ", text)
        key = hashlib.sha256(text.encode()).digest()
        if key not in seen:
            seen.add(key)
            kept.append(number)
    return rows.select(kept)
''',
    "drop_rows": '''
def drop_rows(rows):
    """Leave out rows by their numbers, which count from 0 in the data as it is."""
    dropped = set()
    for part in "NUMBERS".split(","):
        first, _, last = part.partition("-")
        dropped.update(range(int(first), int(last or first) + 1))
    return rows.select([n for n in range(len(rows)) if n not in dropped])
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
    "language": '''
import re


def language(row):
    """Keep rows in NAME, by the commonest words of some languages; what shows none of them stays."""
    common = {
        "en": "the of and to in is that it for was with are this you what which from have not",
        "de": "der die und das ist nicht ein eine zu den mit auf wie ich sie wird auch dem",
        "fr": "le la les et des est une dans que pour qui pas sur avec vous ce sont au",
        "es": "el la los las de y que en es un una por con para como se del qué",
        "it": "il di che e la per non è un una sono con come del della gli nel",
        "pt": "o a os as de que e é um uma para com não em do da por como",
        "nl": "de het een en van is dat niet op te met voor zijn wat ik er",
        "sv": "och att det är som en på av för med inte den till jag har ett",
        "pl": "i w nie na się z jest do to że jak co dla czy od po",
    }
    texts = []
    for name in ("text", "prompt", "completion", "messages", "chosen"):
        value = row.get(name)
        for part in value if isinstance(value, list) else [value]:
            text = part.get("content") if isinstance(part, dict) else part
            texts += [text[:4000]] if isinstance(text, str) else []
    words = re.findall(r"[^\\W\\d_]+", " ".join(texts).lower())
    found = {name: 0 for name in common}
    for name, listed in common.items():
        listed = set(listed.split())
        found[name] = sum(word in listed for word in words)
    most = max(found.values())
    return most < 3 or found["NAME"] == most
''',
}
LANGUAGES = ("de", "en", "es", "fr", "it", "nl", "pl", "pt", "sv")
HELP = (
    "no_empty_answer, deduplicate, longest=N (characters of a row's texts together), language=en, "
    "script=LATIN|CYRILLIC|CJK|..., drop_rows=3,17-19 (numbers of rows as check_contamination gives them)"
)
OTHER_NAMES = {"longest": "max_characters"}
MOST_NUMBERS = 100_000


@dataclass(frozen=True)
class NamedFilter:
    """A filter that a recipe names.

    Attributes:
        source: Python of its function.
        of: what the function takes: one prepared row; all prepared rows; all rows as they are loaded.
        dropped: numbers of rows that it leaves out, of a filter of loaded rows.
    """

    source: str
    of: Literal["row", "rows", "loaded"]
    dropped: frozenset[int] = frozenset()


def named_filter(text: str) -> NamedFilter:
    """The filter of a name such as ``no_empty_answer``, ``longest=8000``, ``language=en``, ``drop_rows=3,17-19``.

    Raises:
        BadInput: there is no such filter, or its value is wrong.
    """
    given, _, value = text.strip().partition("=")
    name = OTHER_NAMES.get(given, given)
    if name not in SOURCES:
        raise BadInput(
            f"There is no filter {text!r:.80}.",
            next_step=did_you_mean(
                name, [*SOURCES, *OTHER_NAMES], otherwise=f"Give the source of a function, or one of: {HELP}."
            ),
        )
    source = SOURCES[name].strip("\n") + "\n"
    if name == "drop_rows":
        numbers = row_numbers(value)
        return NamedFilter(source.replace("NUMBERS", "".join(value.split())), "loaded", numbers)
    if name in VALUES:
        pattern, example, placeholder = VALUES[name]
        if not re.fullmatch(pattern, value):
            raise BadInput(
                f"{given} needs a value such as {example}, not {value!r:.40}.", next_step=f"{given}={example}"
            )
        value = value.lower() if name == "language" else value.upper()
        return NamedFilter(source.replace(placeholder, value), "row")
    if value:
        raise BadInput(f"The filter {name} takes no value.", next_step=f"Write {name} alone.")
    return NamedFilter(source, "rows" if name == "deduplicate" else "row")


VALUES = {
    "max_characters": (r"[1-9]\d{0,11}", "8000", "LIMIT"),
    "script": (r"[A-Za-z]{2,20}", "LATIN", "NAME"),
    "language": (f"(?i:{'|'.join(LANGUAGES)})", "en", "NAME"),
}
"""Name -> what its value looks like, an example, and what in the source stands for it."""


def row_numbers(value: str) -> frozenset[int]:
    """The numbers that ``3,17-19`` names.

    Raises:
        BadInput: it is no such list.
    """
    found: set[int] = set()
    for part in value.split(","):
        ends = re.fullmatch(r"\s*(\d{1,12})(?:-(\d{1,12}))?\s*", part)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (0, -1)
        if first > last or last - first >= MOST_NUMBERS or len(found) >= MOST_NUMBERS:
            raise BadInput(
                f"drop_rows needs numbers of rows, not {value!r:.60}.",
                next_step="drop_rows=3,17-19; for very many, check_contamination writes a copy (write_filtered).",
            )
        found.update(range(first, last + 1))
    return frozenset(found)


def numbers_text(numbers: Iterable[int]) -> str:
    """Numbers as ``drop_rows`` takes them: ``3,17-19``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def first_of_each(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Which of ``rows`` the filter `deduplicate` keeps."""

    class Numbered(list[Mapping[str, Any]]):
        def select(self, numbers: list[int]) -> list[int]:
            return numbers

    names: dict[str, Any] = {}
    exec(SOURCES["deduplicate"], names)
    kept: list[int] = names["deduplicate"](Numbered(rows))
    return kept
