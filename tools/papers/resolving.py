"""Entries of a bibliography that name no id, by their titles: in bulk at arXiv, what is left at Semantic Scholar."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import anyio

from mlintern.tools.errors import NotFound, ServiceError
from mlintern.tools.papers.document import Reference
from mlintern.tools.papers.paper import SHORTEST_TITLE, Paper, near_years, same_authors, same_titles, title_key
from mlintern.tools.papers.paper_results import ReadResult
from mlintern.tools.papers.sources.arxiv import TITLES_A_CALL, ArxivSource
from mlintern.tools.papers.sources.semantic_scholar import SemanticScholarSource
from mlintern.tools.papers.text_sources import Text
from mlintern.tools.service_status import SourceReport, answered, failed

MOST_AT_ARXIV = 40
"""Titles that arXiv is asked for: four requests, three seconds apart."""
MOST_AT_SEMANTIC_SCHOLAR = 5
"""Titles that Semantic Scholar is asked for: one request each, three seconds apart without a key."""


@dataclass
class Resolved:
    """A paper after the look-up of its ``references``. ``notes`` say what was found and what was not asked for."""

    _text: Text
    references: list[Reference]
    sources: list[SourceReport] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def text(self) -> Text:
        """The paper with these references."""
        document = self._text.document
        if document is None:
            return self._text
        return replace(self._text, document=replace(document, references=tuple(self.references)))

    def report(self, result: ReadResult) -> ReadResult:
        """``result`` with what the look-up did; its text is whole whether or not a title was found."""
        result.sources += self.sources
        result.notes += self.notes
        if result.status == "ok" and any(one.status != "ok" for one in self.sources):
            result.status = "partial"
        return result


async def resolve(
    text: Text, *, arxiv: ArxivSource, semantic_scholar: SemanticScholarSource, deadline: float
) -> Resolved:
    """References of ``text`` that have only a title with their ids, as far as ``deadline`` (seconds) allows."""
    found = Resolved(text, [] if text.document is None else list(text.document.references))
    bare = [place for place, entry in enumerate(found.references) if can_be_found_by_title(entry)]
    if not bare:
        return found
    asked: set[int] = set()
    with anyio.move_on_after(deadline):
        await _at_arxiv(found, bare, asked, arxiv)
        left = [place for place in bare if not _has_id(found.references[place])]
        await _at_semantic_scholar(found, left, asked, semantic_scholar)
    named = sum(_has_id(found.references[place]) for place in bare)
    unasked = len(set(bare) - asked)
    found.notes.append(
        f"{named} of {len(bare)} entries without an id were found by their titles"
        + ("." if named == len(bare) else "; the others are as printed.")
        + (f" {unasked} titles were not looked up: the look-up is bounded in requests and time." if unasked else "")
    )
    return found


async def _at_arxiv(found: Resolved, places: Sequence[int], asked: set[int], arxiv: ArxivSource) -> None:
    for start in range(0, min(len(places), MOST_AT_ARXIV), TITLES_A_CALL):
        some = places[start : start + TITLES_A_CALL]
        try:
            papers = await arxiv.by_title([found.references[place].title for place in some])
        except (ServiceError, NotFound) as error:
            found.sources.append(failed(arxiv.name, error))
            return
        asked.update(some)
        for place in some:
            found.references[place] = named_by(found.references[place], papers)
    found.sources.append(answered(arxiv.name))


async def _at_semantic_scholar(
    found: Resolved, places: Sequence[int], asked: set[int], semantic_scholar: SemanticScholarSource
) -> None:
    for place in places[:MOST_AT_SEMANTIC_SCHOLAR]:
        try:
            paper = await semantic_scholar.by_title(found.references[place].title)
        except ServiceError as error:
            found.sources.append(failed(semantic_scholar.name, error))
            return
        asked.add(place)
        if paper is not None:
            found.references[place] = named_by(found.references[place], [paper])
    if places:
        found.sources.append(answered(semantic_scholar.name))


def can_be_found_by_title(entry: Reference) -> bool:
    """Whether an entry names no id and a title that is long enough to be one paper's."""
    return not _has_id(entry) and len(title_key(entry.title)) >= SHORTEST_TITLE


def named_by(entry: Reference, found: Sequence[Paper]) -> Reference:
    """``entry`` with the ids of the one of ``found`` that has its title, its authors and about its year.

    Title and authors agree as they do where papers are merged; of an entry whose style does not set the authors
    apart, the first author's surname stands in it.
    """
    for paper in found:
        titled = same_titles(entry.title, paper.title) and near_years(entry.year, paper.year)
        if titled and _by_its_authors(entry, paper):
            ids = {kind: value for kind, _, value in (key.partition(":") for key in reversed(paper.keys))}
            return replace(entry, arxiv=ids.get("arxiv", ""), doi=ids.get("doi", ""), s2=ids.get("s2", ""))
    return entry


def _by_its_authors(entry: Reference, paper: Paper) -> bool:
    if entry.authors:
        return same_authors(entry.authors, paper.authors)
    surname = title_key(re.split(r"[\s.]+", paper.authors[0].strip())[-1]) if paper.authors else ""
    return bool(surname) and surname in map(title_key, re.split(r"[\s,.;]+", entry.text))


def _has_id(entry: Reference) -> bool:
    return bool(entry.arxiv or entry.doi or entry.s2)
