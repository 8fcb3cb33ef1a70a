"""Texts as tokens: words where a script writes spaces, characters where it does not."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Any

_ASCII = str.maketrans({chr(i): " " for i in range(128) if not (chr(i).isalnum() or chr(i) == "_")})
_SPACELESS = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff\u0f00-\u0fff"  # Burmese, Khmer, Tibetan
    "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
NUMBER = "0"


def tokenise(text: str) -> list[str]:
    """Lower-case words without punctuation (Unicode NFKC), as in GPT-3's and lm-eval's decontamination.

    Han, Kana, Thai, Lao, Burmese, Khmer and Tibetan are written without spaces: there each character, with the marks
    on it, is a token. Marks elsewhere (Devanagari, Arabic, Hebrew) belong to their word.
    """
    if text.isascii():
        return text.lower().translate(_ASCII).split()
    return _pattern().findall(unicodedata.normalize("NFKC", text).casefold())


def without_numbers(tokens: list[str]) -> list[str]:
    """The tokens with every number in its place replaced by the same one."""
    if not any(map(str.isdigit, tokens)):
        return tokens
    return [NUMBER if token.isdigit() else token for token in tokens]


def texts_in(value: Any) -> Iterator[str]:
    """Every text inside a value; of a message its content only, not the name of its role."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts_in(item)
    elif isinstance(value, dict):
        content = next((key for key in ("content", "value") if key in value), None)
        for item in (value[content],) if content and {"role", "from"} & set(value) else value.values():
            yield from texts_in(item)


@cache
def _pattern() -> re.Pattern[str]:
    marks = _marks()
    return re.compile(rf"[{_SPACELESS}][{marks}]*|(?:(?![{_SPACELESS}])[\w{marks}])+")


def _marks() -> str:
    """The combining marks of the basic plane as ranges for a character class."""
    places = [place for place in range(0x300, 0xFFFF) if unicodedata.category(chr(place)) in ("Mn", "Mc")]
    ranges: list[list[int]] = []
    for place in places:
        if ranges and ranges[-1][1] == place - 1:
            ranges[-1][1] = place
        else:
            ranges.append([place, place])
    return "".join(f"{chr(first)}-{chr(last)}" if last > first else chr(first) for first, last in ranges)
