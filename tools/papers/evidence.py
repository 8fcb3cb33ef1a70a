"""Passages of full texts that bear on a question, and those that disagree: evidence, not an answer."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlintern.tools.papers.document import Block, Document, Section
from mlintern.tools.papers.ranking import closeness
from mlintern.tools.papers.terms import terms_of

LONGEST_QUOTATION = 700
_LEAST_WORDS = 8
_MOST_OF_ONE_PAPER = 0.5
"""Share of the passages that one paper may have while others have some."""
_UP = re.compile(
    r"\b(?:improv\w*|outperform\w*|better|gains?|increas\w*|helps?|effective|benefi\w*|boosts?|surpass\w*|"
    r"superior|succeed\w*)\b",
    re.IGNORECASE,
)
_DOWN = re.compile(
    r"\b(?:degrad\w*|hurts?|worse\w*|decreas\w*|fails?|failed|harm\w*|drops?|ineffective|no (?:gain|improvement|"
    r"benefit|evidence)|"
    r"not (?:improve|help|better|effective)|does not|do not|did not|without (?:gain|improvement)|inferior|"
    r"underperform\w*)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Evidence:
    """A passage of the paper numbered ``paper``."""

    paper: int
    section: Section
    block: Block
    text: str
    score: float
    terms: tuple[str, ...]


def passages(question: str, documents: Sequence[Document], *, most: int) -> list[Evidence]:
    """The passages that answer best, over all papers, each a paragraph, table row block or abstract."""
    units = [(number, *unit) for number, document in enumerate(documents) for unit in _units(document)]
    scores = closeness(question, [(section.heading, text) for _, section, _, text in units])
    key = terms_of(question).key
    ranked = sorted(zip(units, scores, strict=True), key=lambda pair: -pair[1])
    allowed = max(1, round(most * _MOST_OF_ONE_PAPER)) if len(documents) > 1 else most
    chosen: list[Evidence] = []
    for (number, section, block, text), score in ranked:
        if score <= 0 or len(chosen) == most:
            break
        if sum(one.paper == number for one in chosen) < allowed:
            quoted = _quotation(text, key)
            held = tuple(term for term in key if re.search(rf"\b{re.escape(term[:6])}", text, re.IGNORECASE))
            chosen.append(Evidence(number, section, block, quoted, round(score, 3), held))
    return chosen


def disagreements(found: Sequence[Evidence]) -> Iterator[tuple[Evidence, Evidence, tuple[str, ...]]]:
    """Pairs of passages from two papers about the same terms, one of which says better and the other worse."""
    for one, other in itertools.combinations(found, 2):
        shared = tuple(term for term in one.terms if term in other.terms)
        if one.paper != other.paper and len(shared) >= 2 and _leaning(one.text) * _leaning(other.text) < 0:
            yield one, other, shared


def _leaning(text: str) -> int:
    """1 if a passage speaks of a gain, -1 of a loss, 0 of neither or of both alike."""
    up, down = len(_UP.findall(text)), len(_DOWN.findall(text))
    return (up > down) - (up < down)


def _units(document: Document) -> Iterator[tuple[Section, Block, str]]:
    if document.abstract:
        yield Section("abstract", "", "Abstract", 1, ()), Block("abstract", document.abstract), document.abstract
    for section in document.sections:
        if section.id == "bib":
            continue
        for block in section.blocks:
            if len(block.text.split()) >= _LEAST_WORDS and block.text != document.abstract:
                yield section, block, block.text


def _quotation(text: str, key: Sequence[str]) -> str:
    """``text``, or of a long one the window with most of the question's terms; a cut is marked."""
    if len(text) <= LONGEST_QUOTATION:
        return text
    sentences = re.split(r"(?<=[.!?])\s+|\n", text)
    stems = [term[:6].lower() for term in key]
    best, best_score, length = (0, 1), -1, len(sentences)
    for start in range(length):
        end, size = start, 0
        while end < length and size + len(sentences[end]) <= LONGEST_QUOTATION:
            size += len(sentences[end]) + 1
            end += 1
        window = " ".join(sentences[start:end]).lower()
        score = sum(stem in window for stem in stems)
        if score > best_score:
            best, best_score = (start, max(end, start + 1)), score
    quoted = " ".join(sentences[best[0] : best[1]])[:LONGEST_QUOTATION]
    return (
        f"{'... ' if best[0] else ''}{quoted}{' ...' if best[1] < length or len(quoted) == LONGEST_QUOTATION else ''}"
    )
