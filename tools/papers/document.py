"""A paper's text as a tree of sections that can be addressed, read in pages and searched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from mlintern.common.text import nearest
from mlintern.tools.errors import BadInput
from mlintern.tools.papers.tables import Table

_SOFTEST_CUT = 0.6
"""A page ends at a paragraph or a sentence if one ends in its last 40 %; else where it is full."""
_MOST_CANDIDATES = 12


@dataclass(frozen=True)
class Block:
    """A paragraph, figure, table or equation. ``id`` is the source's own or made by place; one version keeps it.

    ``page`` is the page of the PDF on which it begins, counted from 1; None where the source has no pages.
    """

    id: str
    text: str
    page: int | None = None


@dataclass(frozen=True)
class Section:
    """A sectional unit with its own text: what stands in its subsections is theirs alone.

    Attributes:
        number: as printed ("3.2", "A"); empty if it has none.
        level: 1 for a section or an appendix, 2 for what is inside one, and so on.
        parent: id of the section around it; empty at the top.
    """

    id: str
    number: str
    title: str
    level: int
    blocks: tuple[Block, ...]
    parent: str = ""

    @property
    def text(self) -> str:
        return "\n\n".join(block.text for block in self.blocks)

    @property
    def heading(self) -> str:
        return f"{self.number} {self.title}".strip()


@dataclass(frozen=True)
class Float:
    """A table, figure, algorithm or listing with what it says.

    Attributes:
        kind: table, figure, algorithm, listing or other.
        label: as printed, ``Table 3``; empty if it has none.
        section: id of the section that it stands in.
        text: caption and contents, as they stand in the section's text.
        tables: the tables inside it, cell by cell.
    """

    id: str
    kind: str
    label: str
    caption: str
    section: str
    text: str
    tables: tuple[Table, ...] = ()

    @property
    def heading(self) -> str:
        return f"{self.label}: {self.caption}" if self.label and self.caption else self.label or self.caption


@dataclass(frozen=True)
class Reference:
    """An entry of the bibliography.

    Attributes:
        key: as it stands in the text, ``[#key]``.
        text: the whole entry, as printed.
        title: its title, where the entry sets it apart.
        s2: what Semantic Scholar knows it by, where it was looked up there by its title.
    """

    key: str
    text: str
    title: str = ""
    authors: tuple[str, ...] = ()
    year: int | None = None
    arxiv: str = ""
    doi: str = ""
    url: str = ""
    s2: str = ""


@dataclass(frozen=True)
class Document:
    """A whole paper from one source.

    Attributes:
        source: arxiv_html, ar5iv, hf_markdown, latex, pdf or abstract.
        version: the arXiv version, where the source says it.
    """

    source: str
    title: str
    abstract: str
    sections: tuple[Section, ...]
    references: tuple[Reference, ...] = ()
    floats: tuple[Float, ...] = ()
    version: int | None = None
    authors: tuple[str, ...] = ()
    license: str = ""
    notes: tuple[str, ...] = ()
    _by_id: dict[str, Section] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        self._by_id.update({section.id: section for section in self.sections})

    def children(self, section: Section) -> list[Section]:
        """The sections directly inside ``section``."""
        return [other for other in self.sections if other.parent == section.id]

    def with_descendants(self, section: Section) -> str:
        """The text of ``section`` and of all that is inside it, under their headings, in order."""
        start = self.sections.index(section)
        parts = [section.text]
        for other in self.sections[start + 1 :]:
            if other.level <= section.level:
                break
            parts += [other.heading, other.text]
        return "\n\n".join(filter(None, parts))

    def locate(self, wanted: str) -> tuple[Section, Block | None]:
        """The section (and block, if ``wanted`` is a paragraph's id) by id, number or unique title.

        Raises:
            BadInput: nothing or more than one fits; the message lists what there is.
        """
        name = " ".join(wanted.split()).strip(" .:#")
        if found := self._by_id.get(name):
            return found, None
        if standing := self.float_named(name):
            return self._by_id[standing.section], Block(standing.id, standing.text)
        for section in self.sections:
            for block in section.blocks:
                if block.id == name:
                    return section, block
        number = re.sub(r"^(?:section|sec\.?|appendix|app\.?|chapter|part|§)\s*", "", name, flags=re.IGNORECASE)
        folded = name.casefold()
        if folded in ("references", "bibliography") and "bib" in self._by_id:
            return self._by_id["bib"], None
        rules = (
            lambda section: section.id.casefold() == folded,
            lambda section: section.number and section.number.casefold() == number.casefold(),
            lambda section: section.title.casefold() == folded or section.heading.casefold() == folded,
            lambda section: (
                section.title.casefold().startswith(folded) or section.heading.casefold().startswith(folded)
            ),
            lambda section: folded in section.title.casefold(),
        )
        for fits in rules:
            candidates = [section for section in self.sections if folded and fits(section)]
            if len(candidates) == 1:
                return candidates[0], None
            if candidates:
                listed = "; ".join(f"{section.id} ({section.heading})" for section in candidates[:_MOST_CANDIDATES])
                raise BadInput(f"{wanted!r} fits several sections: {listed}.", next_step="Give one of these ids.")
        raise self._unknown(wanted)

    def float_named(self, wanted: str) -> Float | None:
        """The table, figure, algorithm or listing with this id or label: ``S1.T1``, ``Table 1``, ``fig. 2``."""
        name = " ".join(wanted.split()).strip(" .:#")
        label = re.match(r"(tab|fig|alg|list)[a-z]*\.?\s*([A-Z]?\.?\d+(?:\.\d+)*|[IVXL]+)$", name, re.IGNORECASE)
        for one in self.floats:
            if one.id == name or (one.label and one.label.casefold() == name.casefold()):
                return one
        for one in self.floats if label else ():
            kind, _, number = one.label.rpartition(" ")
            if label and kind.casefold().startswith(label[1].casefold()) and number.casefold() == label[2].casefold():
                return one
        return None

    def find(self, phrase: str, *, within: Section | None = None) -> Iterator[tuple[Section, Block, int, int]]:
        """Where ``phrase`` stands, case and spacing aside: section, block, start and end in the section's text."""
        words = phrase.split()
        if not words:
            return
        pattern = re.compile(
            r"[\s-]+".join(re.escape(word).replace(r"\-", r"[\s-]*") for word in words), re.IGNORECASE
        )
        for section in self.sections if within is None else (within,):
            start = 0
            for block in section.blocks:
                for match in pattern.finditer(block.text):
                    yield section, block, start + match.start(), start + match.end()
                start += len(block.text) + 2

    def _unknown(self, wanted: str) -> BadInput:
        titles = {section.title: section for section in self.sections if section.title}
        close = nearest(wanted, titles, most=3)
        names = [f"{titles[title].id} ({titles[title].heading})" for title in close]
        if not names:
            names = [f"{section.id} ({section.heading})" for section in self.sections if section.level == 1]
        listed = "; ".join(names[:_MOST_CANDIDATES])
        return BadInput(
            f"There is no section {wanted!r}.",
            next_step=f"{'Did you mean' if close else 'There are'}: {listed}{'?' if close else '.'}",
        )


def page(text: str, *, offset: int, max_chars: int) -> tuple[str, int | None]:
    """``text[offset:]`` up to ``max_chars``, and where the next page starts (None at the end).

    Pages joined are the text, character for character.

    Raises:
        BadInput: ``offset`` lies outside the text.
    """
    if not 0 <= offset <= len(text):
        raise BadInput(
            f"offset {offset} lies outside the text, which has {len(text)} characters.",
            next_step="Use 0 or the next_offset of the page before.",
        )
    if len(text) - offset <= max_chars:
        return text[offset:], None
    end = offset + max_chars
    earliest = offset + int(max_chars * _SOFTEST_CUT)
    for mark in ("\n\n", "\n", ". "):
        cut = text.rfind(mark, earliest, end)
        if cut >= 0 and cut + len(mark) <= end:
            end = cut + len(mark)
            break
    return text[offset:end], end
