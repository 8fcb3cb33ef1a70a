"""The search for evaluation texts in training rows, and the judgement at its end of what was boilerplate."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from mlintern.tools.data.near_copies import LEAST_TOKENS, NearHit, NearIndex
from mlintern.tools.data.ngram_index import SEPARATOR, EvaluationIndex, Hit, Match, longest_run
from mlintern.tools.data.text_tokens import tokenise

MOST_KEPT = 400
"""Partial hits of one evaluation text that are kept to be judged at the end; whole ones are all kept."""
SHARED_ROWS, SHARED_PART = 3, 0.02
"""An evaluation text in so many rows and this part of them (a refusal, "All of the above") is no item of its own."""
LEAST_SEEN, MOST_SEEN, SEEN_PART = 4, 20, 0.05
"""An n-gram is a training set's template in more than a twentieth of its rows, at least 4 and at most 20 rows."""
OWNERS_PART = 0.002
"""An n-gram is a benchmark's template in more than 2 texts and more than this part of them."""
PHRASE, COMMON_TEXT = 8, 25
"""Texts of fewer tokens are taken for phrases, or for common answers, where many training rows have them."""
NEAR_SHARE = 0.25


Kept = TypeVar("Kept", Hit, NearHit)


@dataclass
class Outcome:
    """What was found: the best match of each evaluation row, and the training rows that hold one."""

    best: dict[int, Match] = field(default_factory=dict)
    templates: dict[int, Match] = field(default_factory=dict)
    train_rows: set[int] = field(default_factory=set)
    common_texts: int = 0
    """Evaluation texts that so many rows share that they prove nothing."""


class ContaminationSearch:
    """Takes the evaluation set, then the training rows one by one; judges at the end.

    Boilerplate is known by its frequency, and that only when all rows have been seen: of what matched in part, only
    the n-grams that are the text's own count.
    """

    def __init__(self, *, ngram: int, threshold: float) -> None:
        self.index = EvaluationIndex(ngram=ngram, threshold=threshold)
        self._near = NearIndex()
        self._near_built = 0
        self._whole: dict[int, array[int]] = {}
        self._parts: dict[int, list[Hit]] = {}
        self._near_hits: dict[int, list[NearHit]] = {}

    def add(self, row: int, texts: Iterable[str]) -> None:
        """Take a row of the evaluation set."""
        self.index.add(row, texts)
        for number in range(self._near_built, len(self.index.texts)):
            self._near.add(number, self.index.texts[number].tokens)
        self._near_built = len(self.index.texts)

    def look(self, row: int, texts: Iterable[str]) -> None:
        """Look for evaluation texts in a training row."""
        tokens = [tokenise(text) for text in texts]
        joined = [token for one in tokens for token in (*one, SEPARATOR)]
        near = self._near.shared(joined)
        # A shared n-gram is made of short ones, which are shared too: without any, the longer pass is saved.
        hits = self.index.hits(row, tokens, joined, whole_only=self.index.ngram >= LEAST_TOKENS and not near)
        whole = {hit.number for hit in hits if hit.whole}
        for number in whole:
            self._whole.setdefault(number, array("q")).append(row)
        varied: set[int] = set()
        for alike in self._near.hits(row, joined, near, known=whole):
            _keep(self._near_hits, alike.number, alike)
            varied |= {alike.number} if alike.only_numbers else set()
        for hit in hits:
            if not hit.whole and hit.number not in varied and self._share(hit) >= self.index.threshold:
                _keep(self._parts, hit.number, hit)

    def outcome(self, *, train_rows: int, evaluation_rows: int) -> Outcome:
        found = Outcome()
        most_rows = max(LEAST_SEEN, min(MOST_SEEN, int(SEEN_PART * train_rows)))
        most_texts = max(2, int(OWNERS_PART * len(self.index.texts)))
        for number, text in enumerate(self.index.texts):
            if len(text.rows) >= max(SHARED_ROWS, SHARED_PART * evaluation_rows):
                found.common_texts += 1
                continue
            whole = self._whole.get(number, array("q"))
            if whole and not self._common(len(text.tokens), len(whole), train_rows, most_rows):
                hit = Hit(number, whole[0], (), True)
                self._add(found, self.index.match(hit, [True] * len(text.tokens), text.rows[0]), text.rows, whole)
            for part in self._parts.get(number, ()):
                if (match := self._judged(part, most_texts=most_texts, most_rows=most_rows)) is not None:
                    self._add(found, match, text.rows, [part.train_row])
            for near in self._near_hits.get(number, ()):
                if self._near.own_share(near, most_texts=most_texts, most_rows=most_rows) >= NEAR_SHARE:
                    self._add_near(found, near, text.rows)
        for row in found.best:
            found.templates.pop(row, None)
        return found

    def _judged(self, part: Hit, *, most_texts: int, most_rows: int) -> Match | None:
        """A partial match by the n-grams that are the text's own; None if that is too little."""
        tokens = self.index.texts[part.number].tokens
        own = self.index.grams.own_places(tokens, most_texts=most_texts, most_rows=most_rows)
        covered = self.index.covered(tokens, own & set(part.places))
        possible = sum(self.index.covered(tokens, own))
        # What is a template is left out of both; but a text must be half its own for a half of that to mean anything.
        if not possible or sum(covered) < self.index.threshold * max(possible, len(tokens) / 2):
            return None
        return self.index.match(part, self.index.covered(tokens, part.places), 0)

    def _share(self, hit: Hit) -> float:
        covered = self.index.covered(self.index.texts[hit.number].tokens, hit.places)
        return sum(covered) / len(covered)

    def _add_near(self, found: Outcome, near: NearHit, rows: Sequence[int]) -> None:
        tokens = self.index.texts[near.number].tokens[: len(near.has)]
        overlap = round(sum(near.has) / len(near.has), 4)
        kind = "same_template" if near.only_numbers else "near"
        match = Match(rows[0], near.train_row, overlap, longest_run(tokens, list(near.has)), kind)
        if near.only_numbers:
            for row in rows:
                _better(found.templates, row, match)
        else:
            self._add(found, match, rows, [near.train_row])

    def _add(self, found: Outcome, match: Match, rows: Sequence[int], train_rows: Iterable[int]) -> None:
        found.train_rows.update(train_rows)
        for row in rows:
            _better(found.best, row, match)

    def _common(self, tokens: int, times: int, train_rows: int, most_rows: int) -> bool:
        """Whether a text that stands whole in so many training rows is a phrase or a common answer."""
        if tokens < min(PHRASE, self.index.ngram):
            return times > most_rows
        return tokens < COMMON_TEXT and times > max(MOST_SEEN, SEEN_PART * train_rows)


def _keep(kept: dict[int, list[Kept]], number: int, hit: Kept) -> None:
    hits = kept.setdefault(number, [])
    if len(hits) < MOST_KEPT:
        hits.append(hit)


def _better(best: dict[int, Match], row: int, match: Match) -> None:
    known = best.get(row)
    if known is None or match.overlap > known.overlap:
        best[row] = Match(row, match.train_row, match.overlap, match.text, match.kind)
