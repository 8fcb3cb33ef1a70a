"""The index of an evaluation set, and the search for its texts in a stream of training rows.

An evaluation text of at least ``ngram`` tokens is found by shared n-grams and confirmed by the share of its tokens
that they cover; a shorter one (of at least `LEAST_TOKENS`) when a training text equals it after normalisation, or
contains it and it is long enough to be no mere phrase. The index is a dictionary of 64-bit n-gram hashes. Most rows
of training data share nothing, so that a row costs one `isdisjoint` over an iterator, which never leaves C; only rows
that share something are looked at again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mlintern.tools.data.text_tokens import tokenise

__all__ = ["EvaluationIndex", "Grams", "Hit", "Match", "Text", "tokenise"]

LEAST_TOKENS = 4
LEAST_PHRASE = 5
"""Tokens from which a short text counts inside a longer one; a question does from `LEAST_TOKENS` on."""
MOST_OWNERS = 20
"""An n-gram in more evaluation texts than this is boilerplate of the benchmark and proves nothing."""
MOST_SEEN = 2_000
"""Training rows after which an n-gram is no longer looked for: it is boilerplate of the training data."""
SEPARATOR = "\x00"


@dataclass(frozen=True)
class Match:
    """``overlap``: share of the evaluation text's tokens in the training row; ``text``: the longest shared run."""

    evaluation_row: int
    train_row: int
    overlap: float
    text: str
    kind: str


@dataclass
class Text:
    """One text of the evaluation set, and the rows that have it."""

    tokens: tuple[str, ...]
    rows: list[int]


@dataclass(frozen=True)
class Hit:
    """A training row that shares n-grams with an evaluation text: which ones, by their place in the text.

    ``whole``: the text stands there from its first token to its last.
    """

    number: int
    train_row: int
    places: tuple[int, ...]
    whole: bool


class Grams:
    """n-grams of texts by the texts that have them, and how many training rows had them."""

    def __init__(self, size: int, *, most_seen: int = MOST_SEEN) -> None:
        self.size = size
        self.owners: dict[int, int | tuple[int, ...]] = {}
        self.seen: Counter[int] = Counter()
        self._most_seen = most_seen

    def add(self, number: int, tokens: Sequence[str]) -> None:
        for gram in set(self.of(tokens)):
            known = self.owners.get(gram)
            owners = () if known is None else known if isinstance(known, tuple) else (known,)
            if len(owners) <= MOST_OWNERS:
                self.owners[gram] = (*owners, number) if owners else number

    def of(self, tokens: Sequence[str]) -> Iterator[int]:
        return map(hash, zip(*(tokens[start:] for start in range(self.size)), strict=False))

    def shared(self, tokens: Sequence[str]) -> set[int]:
        """The n-grams that the tokens of a training row share with the evaluation set; each counts as seen."""
        if self.owners.keys().isdisjoint(self.of(tokens)):
            return set()
        found = self.owners.keys() & set(self.of(tokens))
        for gram in found:
            self.seen[gram] += 1
            if self.seen[gram] > self._most_seen:
                self.owners[gram] = ()  # still known to be shared, but no longer followed
        return found

    def owned(self, gram: int) -> tuple[int, ...]:
        """The texts that have an n-gram; none for boilerplate of the benchmark."""
        owners = self.owners.get(gram, ())
        return (owners,) if isinstance(owners, int) else owners if len(owners) <= MOST_OWNERS else ()

    def places(self, tokens: Sequence[str], shared: set[int]) -> tuple[int, ...]:
        return tuple(place for place, gram in enumerate(self.of(tokens)) if gram in shared)

    def own_places(self, tokens: Sequence[str], *, most_texts: int, most_rows: int) -> set[int]:
        """Where a text has n-grams of its own: in no more evaluation texts and training rows than these."""
        return {
            place
            for place, gram in enumerate(self.of(tokens))
            if self.seen[gram] <= most_rows and 1 <= len(self.owned(gram)) <= most_texts
        }


class EvaluationIndex:
    """Texts of an evaluation set by their n-grams. Memory: about 130 bytes per token of the evaluation set."""

    def __init__(self, *, ngram: int, threshold: float) -> None:
        self.ngram = ngram
        self.threshold = threshold
        self.short_texts = 0
        self.texts: list[Text] = []
        self.grams = Grams(ngram)
        self._numbers: dict[tuple[str, ...], int] = {}
        self._inside: dict[int, Grams] = {}

    def add(self, row: int, texts: Iterable[str]) -> None:
        for text in texts:
            tokens = tuple(tokenise(text))
            if len(tokens) < LEAST_TOKENS:
                self.short_texts += 1
            elif tokens in self._numbers:
                rows = self.texts[self._numbers[tokens]].rows
                if rows[-1] != row:
                    rows.append(row)
            else:
                self._add(row, tokens, question=text.rstrip().endswith(("?", "？", "؟")))

    def _add(self, row: int, tokens: tuple[str, ...], *, question: bool) -> None:
        number = self._numbers[tokens] = len(self.texts)
        self.texts.append(Text(tokens, [row]))
        if len(tokens) >= self.ngram:
            self.grams.add(number, tokens)
        elif len(tokens) >= (LEAST_TOKENS if question else LEAST_PHRASE) and len("".join(tokens)) >= 2 * len(tokens):
            self._inside.setdefault(len(tokens), Grams(len(tokens))).add(number, tokens)

    def hits(
        self, row: int, texts: Sequence[Sequence[str]], joined: Sequence[str], *, whole_only: bool = False
    ) -> list[Hit]:
        """Evaluation texts that share n-grams with a training row; ``joined`` are its texts with separators.

        ``whole_only``: the row is known to share no n-gram, so that only short texts are looked for.
        """
        found: dict[int, Hit] = {}
        for tokens in texts:
            if len(tokens) >= LEAST_TOKENS and (number := self._numbers.get(tuple(tokens))) is not None:
                found[number] = Hit(number, row, (), True)
        for grams in self._inside.values():
            for gram in grams.shared(joined):
                for number in grams.owned(gram):
                    found.setdefault(number, Hit(number, row, (), True))
        shared = set() if whole_only else self.grams.shared(joined)
        if shared:
            whole = f" {' '.join(joined)} "
            for number in sorted({number for gram in shared for number in self.grams.owned(gram)} - found.keys()):
                tokens = self.texts[number].tokens
                places = self.grams.places(tokens, shared)
                stands = len(places) == len(tokens) - self.ngram + 1 and f" {' '.join(tokens)} " in whole
                found[number] = Hit(number, row, places, stands)
        return list(found.values())

    def covered(self, tokens: Sequence[str], places: Iterable[int], *, size: int = 0) -> list[bool]:
        """Which tokens of a text n-grams at these places cover."""
        covered, size = [False] * len(tokens), size or self.ngram
        for place in places:
            covered[place : place + size] = [True] * min(size, len(tokens) - place)
        return covered

    def matches(self, row: int, texts: Iterable[str]) -> list[Match]:
        """Evaluation rows that this training row gives away, by itself: boilerplate is not known before the end."""
        tokens = [tokenise(text) for text in texts]
        joined = [token for one in tokens for token in (*one, SEPARATOR)]
        found = []
        for hit in self.hits(row, tokens, joined):
            text = self.texts[hit.number]
            covered = [True] * len(text.tokens) if hit.whole else self.covered(text.tokens, hit.places)
            if sum(covered) / len(covered) >= self.threshold:
                found += [self.match(hit, covered, evaluation_row) for evaluation_row in text.rows]
        return found

    def match(self, hit: Hit, covered: list[bool], evaluation_row: int, *, kind: str = "") -> Match:
        overlap = sum(covered) / len(covered)
        kind = kind or ("exact" if overlap == 1.0 else "ngram")
        run = longest_run(self.texts[hit.number].tokens, covered)
        return Match(evaluation_row, hit.train_row, round(overlap, 4), run, kind)


def longest_run(tokens: tuple[str, ...], covered: list[bool]) -> str:
    best, start = (0, 0), None
    for position, mark in enumerate([*covered, False]):
        if mark and start is None:
            start = position
        elif not mark and start is not None:
            if position - start > best[1] - best[0]:
                best = (start, position)
            start = None
    return " ".join(tokens[best[0] : best[1]])
