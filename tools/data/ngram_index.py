"""The index of an evaluation set, and the search for its texts in a stream of training rows.

An evaluation text of at least ``ngram`` tokens is found by shared n-grams and confirmed by the share of its tokens
that they cover; a shorter one (of at least `LEAST_TOKENS`) only when a training text equals it after normalisation.
The index is a dictionary of 64-bit n-gram hashes. Almost every training row shares nothing, so a row costs one
`isdisjoint` over an iterator, which never leaves C; only rows that share something are looked at again.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

LEAST_TOKENS = 4
MOST_OWNERS = 20
"""An n-gram in more evaluation texts than this is boilerplate of the benchmark and proves nothing."""
SEPARATOR = "\x00"

_WORDS = re.compile(r"\w+")
_ASCII = str.maketrans({chr(i): " " for i in range(128) if not (chr(i).isalnum() or chr(i) == "_")})


def tokenise(text: str) -> list[str]:
    """Lower-case words without punctuation (Unicode NFKC), as in GPT-3's and lm-eval's decontamination."""
    if text.isascii():
        return text.lower().translate(_ASCII).split()
    return _WORDS.findall(unicodedata.normalize("NFKC", text).lower())


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


@dataclass(frozen=True)
class Match:
    """``overlap``: share of the evaluation text's tokens in the training row; ``text``: the longest shared run."""

    evaluation_row: int
    train_row: int
    overlap: float
    text: str
    kind: str


@dataclass(frozen=True)
class _Text:
    row: int
    tokens: tuple[str, ...]


class EvaluationIndex:
    """Texts of an evaluation set by their n-grams. Memory: about 130 bytes per token of the evaluation set."""

    def __init__(self, *, ngram: int, threshold: float) -> None:
        self.ngram = ngram
        self.threshold = threshold
        self.short_texts = 0
        self._texts: list[_Text] = []
        self._owners: dict[int, int | tuple[int, ...]] = {}
        self._exact: dict[str, int] = {}

    def add(self, row: int, texts: Iterable[str]) -> None:
        for text in texts:
            tokens = tokenise(text)
            if len(tokens) >= self.ngram:
                number = len(self._texts)
                self._texts.append(_Text(row, tuple(tokens)))
                for gram in set(self._grams(tokens)):
                    known = self._owners.get(gram)
                    owners = () if known is None else known if isinstance(known, tuple) else (known,)
                    if len(owners) <= MOST_OWNERS:
                        self._owners[gram] = (*owners, number) if owners else number
            elif len(tokens) >= LEAST_TOKENS:
                self._exact.setdefault(" ".join(tokens), row)
            else:
                self.short_texts += 1

    def matches(self, row: int, texts: Iterable[str]) -> list[Match]:
        """Evaluation rows that this training row gives away."""
        joined: list[str] = []
        found: list[Match] = []
        for text in texts:
            tokens = tokenise(text)
            if self._exact and LEAST_TOKENS <= len(tokens) < self.ngram:
                whole = " ".join(tokens)
                if whole in self._exact:
                    found.append(Match(self._exact[whole], row, 1.0, whole, "exact"))
            joined += tokens
            joined.append(SEPARATOR)
        if not self._owners.keys().isdisjoint(self._grams(joined)):
            found += self._confirm(row, set(self._grams(joined)))
        return found

    def _grams(self, tokens: list[str] | tuple[str, ...]) -> Iterator[int]:
        return map(hash, zip(*(tokens[start:] for start in range(self.ngram)), strict=False))

    def _confirm(self, row: int, grams: set[int]) -> list[Match]:
        candidates: set[int] = set()
        for gram in grams & self._owners.keys():
            owners = self._owners[gram]
            if isinstance(owners, int):
                candidates.add(owners)
            elif len(owners) <= MOST_OWNERS:
                candidates.update(owners)
        found = []
        for number in sorted(candidates):
            text = self._texts[number]
            covered = [False] * len(text.tokens)
            for start, gram in enumerate(self._grams(text.tokens)):
                if gram in grams:
                    covered[start : start + self.ngram] = [True] * self.ngram
            overlap = sum(covered) / len(covered)
            if overlap >= self.threshold:
                kind = "exact" if overlap == 1.0 else "ngram"
                found.append(Match(text.row, row, round(overlap, 4), _longest_run(text.tokens, covered), kind))
        return found


def _longest_run(tokens: tuple[str, ...], covered: list[bool]) -> str:
    best, start = (0, 0), None
    for position, mark in enumerate([*covered, False]):
        if mark and start is None:
            start = position
        elif not mark and start is not None:
            if position - start > best[1] - best[0]:
                best = (start, position)
            start = None
    return " ".join(tokens[best[0] : best[1]])
