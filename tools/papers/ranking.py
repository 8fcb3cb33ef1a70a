"""How well papers answer a question: BM25 over title and abstract, stemmed, and small priors.

The statistics are those of the papers at hand. SQLite's FTS5 does the counting: its ``bm25`` weighs the columns of a
document as BM25F does (Robertson, Zaragoza, Taylor, CIKM 2004), its tokenizer is Porter's stemmer. A second round
adds the terms that the best papers share (pseudo relevance feedback; Lavrenko and Croft, SIGIR 2001).
"""

from __future__ import annotations

import contextlib
import math
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mlintern.tools.papers.paper import Paper, title_key
from mlintern.tools.papers.terms import Terms, is_content, terms_of

TITLE_WEIGHT = 3.0
"""A term in the title counts as three in the abstract."""
_WEAK_WEIGHT, _PHRASE_WEIGHT, _SYNONYM_WEIGHT, _FEEDBACK_WEIGHT = 0.2, 0.3, 0.5, 0.2
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


def answers(text: str, papers: Sequence[Paper], *, year: int | None = None) -> list[Answering]:
    """How well each of ``papers`` answers ``text``, in their order; ``year`` is the present one, for recency."""
    terms = terms_of(text)
    if not papers or not terms.key:
        return [Answering(0.0)] * len(papers)
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        index = _Index(database, [(paper.title, paper.abstract) for paper in papers])
        scores = index.scored(terms)
        if len(papers) >= _LEAST_FOR_FEEDBACK:
            shared = _shared_terms(terms, papers, scores)
            for place, score in index.score(shared).items():
                scores[place] += _FEEDBACK_WEIGHT * score
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
        scores = _Index(database, documents).scored(terms)
    best = max(scores.values(), default=0.0) or 1.0
    return [scores[place] / best for place in range(len(documents))]


class _Index:
    """A full-text index in memory over (title, body)."""

    def __init__(self, database: sqlite3.Connection, documents: Sequence[tuple[str, str]]) -> None:
        self._database = database
        self._size = len(documents)
        database.execute("CREATE VIRTUAL TABLE texts USING fts5 (title, body, tokenize = 'porter unicode61')")
        database.executemany(
            "INSERT INTO texts (rowid, title, body) VALUES (?, ?, ?)",
            ((place, _spelled(title), _spelled(body)) for place, (title, body) in enumerate(documents)),
        )

    def scored(self, terms: Terms) -> dict[int, float]:
        """Scores by place: key terms, and less for weak ones, phrases and synonyms."""
        scores: dict[int, float] = defaultdict(float)
        for words, weight in (
            (terms.key, 1.0),
            (terms.weak, _WEAK_WEIGHT),
            (terms.phrases, _PHRASE_WEIGHT),
            (terms.synonyms, _SYNONYM_WEIGHT),
        ):
            for place, score in self.score(words).items():
                scores[place] += weight * score
        return scores

    def score(self, words: Iterable[str]) -> dict[int, float]:
        """BM25 of any of ``words`` (a word of several is a phrase), by place."""
        asked = " OR ".join(f'"{_spelled(word)}"' for word in words)
        if not asked:
            return {}
        rows = self._database.execute(
            "SELECT rowid, -bm25(texts, ?, 1.0) FROM texts WHERE texts MATCH ?", (TITLE_WEIGHT, asked)
        )
        # FTS5 gives a term that most documents hold an IDF just above zero, never below.
        return dict(rows)

    def holding(self, words: Sequence[str]) -> tuple[list[list[str]], list[list[str]]]:
        """Which of ``words`` stand in each title and in each body."""
        found: tuple[list[list[str]], list[list[str]]] = ([], [])
        for column, listed in zip(("title", "body"), found, strict=True):
            listed += [[] for _ in range(self._size)]
            for word in words:
                asked = f'{column} : "{_spelled(word)}"'
                for (place,) in self._database.execute("SELECT rowid FROM texts WHERE texts MATCH ?", (asked,)):
                    listed[place].append(word)
        return found


def _spelled(text: str) -> str:
    """``text`` with numbers kept whole: the tokenizer would cut 1.7B in two."""
    return re.sub(r"(?<=\d)[.,](?=\d)", "p", text.lower()).replace('"', " ")


def _shared_terms(terms: Terms, papers: Sequence[Paper], scores: dict[int, float]) -> list[str]:
    """Words that the best papers have in common and the others have not."""
    known = {*terms.key, *terms.weak}
    top = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:_FEEDBACK_PAPERS]
    words = {place: list(_words(papers[place])) for place, _ in top}
    spread = Counter(word for paper in papers for word in set(_words(paper)))
    weights: dict[str, float] = defaultdict(float)
    for place, listed in words.items():
        for word, count in Counter(listed).items():
            rarity = math.log(len(papers) / spread[word])
            weights[word] += scores[place] * count / len(listed) * rarity
    return sorted((word for word in weights if word not in known), key=lambda word: (-weights[word], word))[
        :_FEEDBACK_TERMS
    ]


def _words(paper: Paper) -> Iterator[str]:
    """The content words of a paper, those of the title twice."""
    for word in re.findall(r"[^\W_]{3,}", f"{paper.title} {paper.title} {paper.abstract}".lower()):
        if is_content(word) and not word.isdigit():
            yield word


def _prior(paper: Paper, year: int | None) -> float:
    fame = min(1.0, math.log10(1 + (paper.citations or 0)) / 5)
    age = None if year is None or paper.year is None else max(0, year - paper.year)
    return _CITATION_PRIOR * fame + (0.0 if age is None else _RECENCY_PRIOR * math.exp(-age / _YEARS_OF_RECENCY))
