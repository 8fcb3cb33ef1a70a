"""How well papers answer a question: BM25F over title and abstract, stemmed, and small priors.

BM25F as Robertson, Zaragoza and Taylor give it (CIKM 2004). SQLite's FTS5 cuts, stems (Porter) and counts. The
papers at hand are hits, so a word of the question stands in most of them and would count for nothing: its rarity is
taken over the hits and a background of papers that do not hold it. A second round adds the terms that the best papers
share (pseudo relevance feedback; Lavrenko and Croft, SIGIR 2001).
"""

from __future__ import annotations

import contextlib
import math
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlintern.tools.papers.paper import Paper, title_key
from mlintern.tools.papers.terms import Terms, is_common, is_content, terms_of


@dataclass(frozen=True)
class Weights:
    """What was chosen by measuring (benchmarks/paper_questions.py --folds), beside a key term in the abstract (1).

    Attributes:
        title: so many mentions in the abstract one in the title counts for.
        phrase: two terms that stand together.
        feedback: terms that the best papers share.
        sources: how high the sources rank a paper, beside how well it answers.
    """

    title: float = 3.0
    phrase: float = 0.3
    feedback: float = 0.2
    sources: float = 0.03


WEIGHTS = Weights()
_K1, _B = 1.2, (0.5, 0.75)
"""BM25F's saturation, and how much the length of title and abstract counts."""
_BACKGROUND, _COMMON_SHARE = 2_000, 0.2
"""Papers that are not at hand, and the share of them that holds a common word."""
_WEAK_WEIGHT, _SYNONYM_WEIGHT = 0.2, 0.5
_FEEDBACK_PAPERS, _FEEDBACK_TERMS = 5, 10
_LEAST_FOR_FEEDBACK = 20
"""With fewer papers the terms that the best share are those of the question."""
_CITATION_PRIOR, _RECENCY_PRIOR = 0.03, 0.02
"""Shares of the best score; enough to order papers that answer equally well, never to lift one that does not."""
_YEARS_OF_RECENCY = 5.0


@dataclass(frozen=True)
class Answering:
    """How a paper answers: ``score`` from 0 to about 1, and which key terms it holds where."""

    score: float
    in_title: tuple[str, ...] = ()
    in_abstract: tuple[str, ...] = ()

    @property
    def why(self) -> str:
        """For people and models: ``title: trading, markets; abstract: reinforcement``."""
        parts = [f"title: {', '.join(self.in_title)}"] if self.in_title else []
        parts += [f"abstract: {', '.join(self.in_abstract)}"] if self.in_abstract else []
        return "; ".join(parts)


def answers(
    text: str, papers: Sequence[Paper], *, year: int | None = None, weights: Weights = WEIGHTS
) -> list[Answering]:
    """How well each of ``papers`` answers ``text``, in their order; ``year`` is the present one, for recency."""
    terms = terms_of(text)
    if not papers or not terms.key:
        return [Answering(0.0)] * len(papers)
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        index = _Index(database, [(paper.title, paper.abstract) for paper in papers], weights)
        scores = index.scored(terms)
        if len(papers) >= _LEAST_FOR_FEEDBACK:
            shared = _shared_terms(terms, papers, scores)
            for place, score in index.score(shared).items():
                scores[place] += weights.feedback * score
        best = max(scores.values(), default=0.0) or 1.0
        titles, abstracts = index.holding(terms.key)
    whole = title_key(text)
    found = []
    for place, paper in enumerate(papers):
        score = scores[place] / best + _prior(paper, year) * (scores[place] > 0)
        if len(whole) > 8 and whole == title_key(paper.title):
            score += 1.0  # it was asked for by its title
        named = titles[place]
        found.append(Answering(score, tuple(named), tuple(term for term in abstracts[place] if term not in named)))
    return found


def closeness(text: str, documents: Sequence[tuple[str, str]]) -> list[float]:
    """BM25 of ``text`` in each (heading, body), from 0 to 1 for the best; for passages."""
    terms = terms_of(text)
    if not documents or not terms.key:
        return [0.0] * len(documents)
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        scores = _Index(database, documents, WEIGHTS).scored(terms)
    best = max(scores.values(), default=0.0) or 1.0
    return [scores[place] / best for place in range(len(documents))]


class _Index:
    """A full-text index in memory over (title, body)."""

    def __init__(self, database: sqlite3.Connection, documents: Sequence[tuple[str, str]], weights: Weights) -> None:
        self._database = database
        self._weights = weights
        self._size = len(documents)
        self._stems: dict[str, str] = {}
        spelled = [(_spelled(title), _spelled(body)) for title, body in documents]
        self._lengths: list[tuple[int, int]] = [(len(title.split()), len(body.split())) for title, body in spelled]
        total = [max(1.0, sum(lengths) / max(1, self._size)) for lengths in zip(*self._lengths, strict=True)]
        self._mean: tuple[float, float] = (float(total[0]), float(total[1]))
        database.execute("CREATE VIRTUAL TABLE texts USING fts5 (title, body, tokenize = 'porter unicode61')")
        database.execute("CREATE VIRTUAL TABLE words USING fts5vocab (texts, instance)")
        database.execute("CREATE VIRTUAL TABLE alone USING fts5 (word, tokenize = 'porter unicode61')")
        database.execute("CREATE VIRTUAL TABLE alone_words USING fts5vocab (alone, instance)")
        database.executemany(
            "INSERT INTO texts (rowid, title, body) VALUES (?, ?, ?)",
            ((place, title, body) for place, (title, body) in enumerate(spelled)),
        )

    def scored(self, terms: Terms) -> dict[int, float]:
        """Scores by place: key terms, and less for weak ones, phrases and synonyms."""
        scores: dict[int, float] = defaultdict(float)
        for words, weight in (
            (terms.key, 1.0),
            (terms.weak, _WEAK_WEIGHT),
            (terms.phrases, self._weights.phrase),
            (terms.synonyms, _SYNONYM_WEIGHT),
        ):
            for place, score in self.score(words).items():
                scores[place] += weight * score
        return scores

    def score(self, words: Iterable[str]) -> dict[int, float]:
        """BM25F of ``words`` (a word of several is a phrase), by place."""
        scores: dict[int, float] = defaultdict(float)
        for word in words:
            found = self._standing(word)
            common = _COMMON_SHARE * _BACKGROUND if is_common(word) else 0.0
            papers, holding = self._size + _BACKGROUND, len(found) + common
            rarity = math.log(1 + (papers - holding + 0.5) / (holding + 0.5))
            for place, (in_title, in_body) in found.items():
                counted = self._weights.title * in_title / self._stretch(place, 0) + in_body / self._stretch(place, 1)
                scores[place] += rarity * counted / (_K1 + counted)
        return scores

    def _stretch(self, place: int, column: int) -> float:
        share: float = _B[column]
        return float(1 - share + share * self._lengths[place][column] / self._mean[column])

    def _standing(self, word: str) -> dict[int, tuple[int, int]]:
        """How often ``word`` stands in title and body, by place."""
        asked = f'"{_spelled(word)}"'
        found: dict[int, tuple[int, int]] = {}
        if " " in word:
            rows = self._database.execute("SELECT rowid FROM texts WHERE texts MATCH ?", (f"title : {asked}",))
            titles = {place for (place,) in rows}
            rows = self._database.execute("SELECT rowid FROM texts WHERE texts MATCH ?", (asked,))
            return {place: (int(place in titles), 1) for (place,) in rows}
        stem = self._stem(word)
        query = "SELECT doc, col, count(*) FROM words WHERE term = ? GROUP BY doc, col"
        for place, column, count in self._database.execute(query, (stem,)):
            before = found.get(place, (0, 0))
            found[place] = (before[0] + count, before[1]) if column == "title" else (before[0], before[1] + count)
        return found

    def _stem(self, word: str) -> str:
        """``word`` as the tokenizer writes it, by what it writes for a text of that word alone."""
        if word not in self._stems:
            number = len(self._stems)
            self._database.execute("INSERT INTO alone (rowid, word) VALUES (?, ?)", (number, _spelled(word)))
            row = self._database.execute("SELECT term FROM alone_words WHERE doc = ?", (number,)).fetchone()
            self._stems[word] = row[0] if row else word
        return self._stems[word]

    def holding(self, words: Sequence[str]) -> tuple[list[list[str]], list[list[str]]]:
        """Which of ``words`` stand in each title and in each body."""
        titles: list[list[str]] = [[] for _ in range(self._size)]
        bodies: list[list[str]] = [[] for _ in range(self._size)]
        for word in words:
            for place, (in_title, in_body) in self._standing(word).items():
                if in_title:
                    titles[place].append(word)
                if in_body:
                    bodies[place].append(word)
        return titles, bodies


def _spelled(text: str) -> str:
    """``text`` with numbers kept whole: the tokenizer would cut 1.7B in two."""
    return re.sub(r"(?<=\d)[.,](?=\d)", "p", text.lower()).replace('"', " ")


def _shared_terms(terms: Terms, papers: Sequence[Paper], scores: dict[int, float]) -> list[str]:
    """Words that the best papers have in common and the others have not."""
    top = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:_FEEDBACK_PAPERS]
    words = {place: [word for word in _words(papers[place]) if is_content(word)] for place, _ in top}
    candidates = {word for listed in words.values() for word in listed} - {*terms.key, *terms.weak}
    spread = Counter(word for paper in papers for word in candidates.intersection(_words(paper)))
    weights: dict[str, float] = defaultdict(float)
    for place, listed in words.items():
        for word, count in Counter(listed).items():
            if word in candidates:
                weights[word] += scores[place] * count / len(listed) * math.log(len(papers) / spread[word])
    return sorted(weights, key=lambda word: (-weights[word], word))[:_FEEDBACK_TERMS]


def _words(paper: Paper) -> list[str]:
    """The words of a paper, those of the title twice."""
    return re.findall(r"[^\W\d_]{3,}", f"{paper.title} {paper.title} {paper.abstract}".lower())


def _prior(paper: Paper, year: int | None) -> float:
    fame = min(1.0, math.log10(1 + (paper.citations or 0)) / 5)
    age = None if year is None or paper.year is None else max(0, year - paper.year)
    return _CITATION_PRIOR * fame + (0.0 if age is None else _RECENCY_PRIOR * math.exp(-age / _YEARS_OF_RECENCY))
