"""LaTeXML's HTML (arXiv, ar5iv) into a `Document`: every section by its id, mathematics once, nothing twice."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mlintern.tools.papers.classes import classes_of, with_class
from mlintern.tools.papers.document import Block, Document, Float, Reference, Section
from mlintern.tools.papers.latexml import (
    DEEPEST,
    SKIPPED,
    SKIPPED_TAGS,
    inside_of,
    line_of,
    outside_address,
    squeezed,
    table_of,
    text_of,
    title_of,
)
from mlintern.tools.papers.references import reference_from_blocks

if TYPE_CHECKING:
    from lxml.html import HtmlElement

_UNITS = frozenset(
    f"ltx_{name}"
    for name in (
        *("part", "chapter", "section", "subsection", "subsubsection", "paragraph", "subparagraph"),
        *("appendix", "bibliography", "acknowledgements", "index", "glossary"),
    )
)
_BLOCK_CLASSES = frozenset(
    f"ltx_{name}"
    for name in (
        *("para", "p", "figure", "table", "float", "equation", "equationgroup", "eqn_table", "itemize", "enumerate"),
        *(
            "description",
            "listing",
            "tabular",
            "theorem",
            "proof",
            "quote",
            "verbatim",
            "minipage",
            "block",
            "keywords",
        ),
        *("classification", "note", "algorithm", "logical-block", "inline-block"),
    )
)
_BLOCK_TAGS = frozenset(("p", "pre", "ul", "ol", "table", "figure", "span", "a", "math"))
_WATERMARK = re.compile(rb'id="watermark-tr"[^>]*>\s*arXiv:[\w./-]+?v(\d+)')
"""Stamped on the page by arXiv; the same form in a bibliography would be another paper's."""
_BASE = re.compile(rb'<base href="/html/[^"]*?v(\d+)/?"')
_FAILED = b"Conversion to HTML had a Fatal error and exited abruptly"


def is_paper(page: bytes) -> bool:
    """Whether ``page`` is a converted paper: not a stub ("No HTML is available") and not a conversion that died."""
    return b"ltx_document" in page and _FAILED not in page


def read_latexml(page: bytes, *, source: str) -> Document:
    """The paper in a LaTeXML ``page`` that `is_paper`.

    Mathematics is kept once, as LaTeX between dollars; tables as Markdown, on the grid that a browser would draw;
    figures and tables with their captions; footnotes and the addresses of links in place; citations with their key,
    ``[#bib.bib5]``, which `Document.references` resolves.
    """
    import lxml.html

    parser = lxml.html.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    root: Any = lxml.html.document_fromstring(page, parser=parser)
    found = root.find_class("ltx_document")
    article = found[0] if found else root
    title = _front(article, "ltx_title_document")
    thanks = [] if title is None else with_class(title, "ltx_note")
    people = _front(article, "ltx_authors")
    reading = _Reading(holders=_holders(article))
    reading.unit(article, unit_id="front", number="", title="Front matter", level=0, parent="")
    front = reading.sections[0]
    said = [*(squeezed(inside_of(note)) for note in thanks), *_author_notes(people)]
    notes = (Block(f"front.n{place}", text) for place, text in enumerate(filter(None, said), 1))
    reading.sections[0] = replace(front, level=1, blocks=(*notes, *front.blocks))
    sections = tuple(section for section in reading.sections if section is not reading.sections[0] or section.blocks)
    version = _WATERMARK.search(page) or _BASE.search(page[:20_000])
    return Document(
        source=source,
        title="" if title is None else title_of(title),
        abstract=_abstract(article),
        sections=sections,
        references=tuple(reading.references),
        floats=tuple(one for one in reading.floats if any(one.section == section.id for section in sections)),
        version=int(version.group(1)) if version else None,
        authors=_authors(people),
        license=_license(root),
    )


@dataclass
class _Reading:
    """One pass over the article; sections come out in the order of the text."""

    sections: list[Section] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    floats: list[Float] = field(default_factory=list)
    holders: set[HtmlElement] = field(default_factory=set)
    taken: set[str] = field(default_factory=set)

    def unit(self, element: HtmlElement, *, unit_id: str, number: str, title: str, level: int, parent: str) -> None:
        """A sectional unit: its own blocks, then the units inside it."""
        place = len(self.sections)
        name = self._free(unit_id)
        self.sections.append(Section(name, number, title, level, ()))
        blocks: list[Block] = []
        if "ltx_bibliography" in classes_of(element):
            self._bibliography(element, blocks)
        else:
            self._collect(element, blocks, name, level, top=True, depth=0)
        own = tuple(block for block in blocks if block.text)
        self.sections[place] = Section(name, number, title, level, own, parent)

    def _collect(
        self, element: HtmlElement, blocks: list[Block], unit: str, level: int, *, top: bool, depth: int
    ) -> None:
        if depth > DEEPEST:
            blocks.append(Block(self._place(unit, blocks), squeezed(element.text_content())))
            return
        self._loose(element.text, blocks, unit)
        for child in element:
            classes = classes_of(child)
            if child.tag in SKIPPED_TAGS or classes & SKIPPED or (top and "ltx_title" in classes):
                pass
            elif classes & _UNITS:
                number, title = _heading(child)
                parent = "" if level == 0 else unit
                name = child.get("id") or f"{unit}.s{len(self.sections)}"
                self.unit(child, unit_id=name, number=number, title=title, level=level + 1, parent=parent)
            elif classes & _BLOCK_CLASSES or child.tag in _BLOCK_TAGS:
                name = child.get("id") or self._place(unit, blocks)
                blocks.append(Block(self._free(name), text_of(child)))
                if child in self.holders:
                    self._floats(child, blocks[-1], unit)
            else:
                self._collect(child, blocks, unit, level, top=False, depth=depth + 1)
            self._loose(child.tail, blocks, unit)

    def _floats(self, element: HtmlElement, block: Block, unit: str) -> None:
        """The tables, figures, algorithms and listings in ``element``, which is ``block`` of the section ``unit``."""
        grids = {
            table: table_of(table)
            for table in element.iter("table", "span", "div")
            if "ltx_tabular" in classes_of(table)
            and not any("ltx_tabular" in classes_of(above) for above in table.iterancestors())
        }
        floating: set[HtmlElement] = set()
        for one in element.iter("figure", "div", "span"):
            kind = _kind_of(classes_of(one))
            if kind is None:
                continue
            inside = [table for table in grids if one in table.iterancestors()]
            floating.update(inside)
            caption = next((child for child in one if "ltx_caption" in classes_of(child)), None)
            tag = None if caption is None else next(iter(with_class(caption, "ltx_tag")), None)
            label = "" if tag is None else squeezed(inside_of(tag)).rstrip(_AFTER_LABEL)
            words = squeezed(line_of(caption)).removeprefix(label).strip(_AFTER_LABEL)
            tables = tuple(table for table in map(grids.get, inside) if table is not None)
            text = block.text if one is element else text_of(one)
            self.floats.append(Float(one.get("id") or block.id, kind, label, words, unit, text, tables))
        for place, (element_of_table, table) in enumerate(grids.items(), 1):
            if element_of_table not in floating and table is not None and len(table.columns) > 1:
                name = element_of_table.get("id") or f"{block.id}.t{place}"
                self.floats.append(Float(name, "table", "", "", unit, text_of(element_of_table), (table,)))

    def _bibliography(self, element: HtmlElement, blocks: list[Block]) -> None:
        for item in with_class(element, "ltx_bibitem"):
            key = item.get("id") or f"bib.bib{len(blocks) + 1}"
            tag = next(iter(with_class(item, "ltx_tag_bibitem")), None)
            label = "" if tag is None else squeezed(inside_of(tag))
            parts = [line_of(block) for block in with_class(item, "ltx_bibblock")] or [line_of(item)]
            title = line_of(next(iter(with_class(item, "ltx_bib_title")), None))
            links = [href for link in item.iter("a") if (href := outside_address(link.get("href", "")))]
            entry = reference_from_blocks(key, list(filter(None, parts)), links=links, title=title, label=label)
            self.references.append(entry)
            blocks.append(Block(self._free(key), f"[#{key}] {entry.text}"))

    def _loose(self, text: str | None, blocks: list[Block], unit: str) -> None:
        """Text that stands between blocks, in no element of its own."""
        if text and (bare := squeezed(text)):
            blocks.append(Block(self._free(self._place(unit, blocks)), bare))

    def _place(self, unit: str, blocks: list[Block]) -> str:
        return f"{unit}.b{len(blocks) + 1}"

    def _free(self, name: str) -> str:
        """``name``, or with a suffix if it is taken: an id names one thing."""
        free, count = name, 1
        while free in self.taken:
            count += 1
            free = f"{name}~{count}"
        self.taken.add(free)
        return free


def _heading(unit: HtmlElement) -> tuple[str, str]:
    """Number and title of a sectional unit."""
    heading = next((child for child in unit if "ltx_title" in classes_of(child)), None)
    if heading is None:
        return "", ""
    tag = next(iter(with_class(heading, "ltx_tag")), None)
    title, label = line_of(heading), line_of(tag)
    number = label.split()[-1].strip(".:§") if label else ""
    return number, title.removeprefix(label).strip() if label else title


def _front(article: HtmlElement, name: str) -> HtmlElement | None:
    """A part of the front matter: a child of the article, or wherever it stands."""
    child = next((child for child in article if name in classes_of(child)), None)
    return child if child is not None else next(iter(article.find_class(name)), None)


_AFTER_LABEL = " :.|—–-"
_KINDS = {
    "ltx_float_algorithm": "algorithm",
    "ltx_algorithm": "algorithm",
    "ltx_lstlisting": "listing",
    "ltx_table": "table",
    "ltx_figure": "figure",
    "ltx_float": "other",
}


def _holders(article: HtmlElement) -> set[HtmlElement]:
    """The elements that are a float or a table, or hold one: the others need not be looked through."""
    found: set[HtmlElement] = set()
    for one in article.xpath('.//*[contains(@class, "ltx_tabular") or contains(@class, "ltx_caption")]'):
        element: HtmlElement | None = one
        while element is not None and element is not article and element not in found:
            found.add(element)
            element = element.getparent()
    return found


def _kind_of(classes: frozenset[str]) -> str | None:
    """What a float is, by its classes; None for what is no float."""
    if "ltx_listing" in classes:
        return None  # the lines inside a float, not the float
    return next((kind for name, kind in _KINDS.items() if name in classes), None)


def _authors(people: HtmlElement | None) -> tuple[str, ...]:
    """Names without marks and footnotes; of a name over several lines the first, the rest are addresses."""
    if people is None:
        return ()
    names: list[str] = []
    for written in with_class(people, "ltx_personname"):
        bare = re.sub(r"\[footnote: [^\]]*\]|\$[^$]*\$|\S*@\S+", " ", inside_of(written))
        lines = [line for line in bare.split("\n") if re.search(r"[^\W\d]", line)]
        for name in re.split(r"\s+&\s+|\s{2,}", lines[0]) if lines else ():
            names.append(" ".join(name.strip(" ,;*†‡§¶&0123456789").split()))
    return tuple(filter(None, names))


def _author_notes(people: HtmlElement | None) -> list[str]:
    """What stands beside each name: addresses, e-mail, "equal contribution", where the code is."""
    said: list[str] = []
    for creator in () if people is None else with_class(people, "ltx_role_author"):
        names = [squeezed(title_of(name)) for name in with_class(creator, "ltx_personname")]
        beside = [squeezed(inside_of(note)) for note in with_class(creator, "ltx_author_notes")]
        beside += [squeezed(inside_of(note)) for note in with_class(creator, "ltx_note_content")]
        text = "; ".join(dict.fromkeys(note.replace("\n", " ") for note in beside if re.search(r"[^\W\d]", note)))
        if text:
            said.append(f"{', '.join(filter(None, names))}: {text}" if any(names) else text)
    return said


def _abstract(article: HtmlElement) -> str:
    found = _front(article, "ltx_abstract")
    if found is None:
        return ""
    parts = [text_of(child) for child in found if "ltx_title" not in classes_of(child)]
    loose = squeezed(found.text or "")
    return "\n".join(filter(None, (loose, *parts)))


def _license(root: HtmlElement) -> str:
    found = root.get_element_by_id("license-tr", None)
    return "" if found is None else squeezed(found.text_content()).removeprefix("License:").strip()
