"""Copies that share no long n-gram: every few words replaced, or every number changed.

Candidates share `SIZE`-grams, with all numbers alike, with an evaluation text; they are confirmed by aligning the two
token by token. A text of which every word stays and only numbers differ is the same template, which is a class of its
own: two draws of one generator are that, and so is a test item that was varied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from mlintern.tools.data.ngram_index import Grams
from mlintern.tools.data.text_tokens import without_numbers

SIZE = 4
LEAST_TOKENS = 8
LEAST_SHARE = 0.2
"""Share of a text's `SIZE`-grams that a row must have to be looked at; every seventh word replaced leaves 43 %."""
LEAST_ALIKE = 0.7
"""Share of a text's tokens that must stand in the row in the same order."""
MOST_SEEN = 300
LONGEST = 600
"""Tokens of a text that are aligned."""


@dataclass(frozen=True)
class NearHit:
    """A row that is nearly an evaluation text: which tokens it has, and whether only numbers differ."""

    number: int
    train_row: int
    places: tuple[int, ...]
    has: tuple[bool, ...]
    only_numbers: bool


class NearIndex:
    """The short n-grams of evaluation texts. Memory: about 130 bytes per token of the evaluation set."""

    def __init__(self) -> None:
        self.grams = Grams(SIZE, most_seen=MOST_SEEN)
        self._texts: dict[int, tuple[tuple[str, ...], list[str]]] = {}

    def add(self, number: int, tokens: tuple[str, ...]) -> None:
        if len(tokens) >= LEAST_TOKENS:
            plain = without_numbers(list(tokens))
            self._texts[number] = tokens, plain
            self.grams.add(number, plain)

    def shared(self, joined: list[str]) -> set[int]:
        """The short n-grams that a training row shares with the evaluation set."""
        return self.grams.shared(without_numbers(joined))

    def hits(self, row: int, joined: list[str], shared: set[int], *, known: set[int]) -> list[NearHit]:
        """Texts that are nearly in a row that has ``shared``, without those that are ``known`` to be there."""
        if len(shared) < 2:
            return []
        plain = without_numbers(joined)
        counts = Counter(number for gram in shared for number in self.grams.owned(gram))
        found = []
        for number, count in counts.items():
            tokens, _ = self._texts[number]
            if number in known or count < max(2, LEAST_SHARE * (len(tokens) - SIZE + 1)):
                continue
            hit = self._aligned(number, row, joined, plain, shared)
            if hit is not None:
                found.append(hit)
        return found

    def own_share(self, hit: NearHit, *, most_texts: int, most_rows: int) -> float:
        """Share of the text's own n-grams that the row has; 0 for a text with hardly any of its own."""
        _, masked = self._texts[hit.number]
        own = self.grams.own_places(masked, most_texts=most_texts, most_rows=most_rows)
        if len(own) < max(2, 0.2 * (len(masked) - SIZE + 1)):
            return 0.0
        stand = (place for place in own & set(hit.places) if all(hit.has[place : place + SIZE]))
        return sum(1 for _ in stand) / len(own)

    def _aligned(
        self, number: int, row: int, joined: Sequence[str], plain: Sequence[str], shared: set[int]
    ) -> NearHit | None:
        tokens, masked = self._texts[number]
        places = self.grams.places(masked, shared)
        first, last = _window(self.grams, plain, set(self.grams.of(masked)) & shared, len(tokens))
        there, plain_there = list(joined[first:last]), list(plain[first:last])
        has = _has(masked[:LONGEST], plain_there)
        if sum(has) < LEAST_ALIKE * len(has):
            return None
        same = _has(list(tokens[:LONGEST]), there)
        only_numbers = sum(has) >= 0.9 * len(has) and any(
            h and not s and any(map(str.isdigit, token)) for h, s, token in zip(has, same, tokens, strict=False)
        )
        if not only_numbers and sum(same) < LEAST_ALIKE * len(same):
            only_numbers = True  # so many numbers differ that little else is left
        return NearHit(number, row, places, tuple(has if only_numbers else same), only_numbers)


def _window(grams: Grams, tokens: Sequence[str], wanted: set[int], length: int) -> tuple[int, int]:
    """The part of a row that has most of the wanted n-grams, of about the length of the text."""
    at = [place for place, gram in enumerate(grams.of(tokens)) if gram in wanted]
    reach = length + length // 3 + SIZE
    best, start = (0, 0, 0), 0
    for end, place in enumerate(at):
        while place - at[start] > reach:
            start += 1
        best = max(best, (end - start + 1, at[start], place))
    return max(0, best[1] - length // 3 - SIZE), best[2] + length // 3 + 2 * SIZE


def _has(tokens: Sequence[str], there: Sequence[str]) -> list[bool]:
    has = [False] * len(tokens)
    for block in SequenceMatcher(None, tokens, there, autojunk=False).get_matching_blocks():
        has[block.a : block.a + block.size] = [True] * block.size
    return has
