"""LaTeXML's HTML (arXiv, ar5iv) into a `Document`: every section by its id, mathematics once, nothing twice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mlintern.tools.papers.document import Block, Document, Reference, Section
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
_SKIPPED_TAGS = frozenset(("script", "style", "svg", "nav", "button", "noscript", "template", "head"))
_SKIPPED = frozenset(
    f"ltx_{name}"
    for name in (
        *("TOC", "page_footer", "page_header", "page_navbar", "page_logo", "pagination", "authors", "dates"),
        *(
            "title_document",
            "abstract",
            "bib_cited",
            "rdf",
            "tag_bibitem",
            "note_mark",
            "tag_note",
            "role_creation",
            "listing_data",
        ),
    )
)
_LINE_TAGS = frozenset(("p", "div", "li", "figure", "figcaption", "section", "dt", "dd", "blockquote", "table", "tr"))
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
_SPACE = re.compile(r"[ \t\r\n\f\v\u00a0\u2003\u2004\u2005\u2009\u200a]+")
_WATERMARK = re.compile(rb'id="watermark-tr"[^>]*>\s*arXiv:[\w./-]+?v(\d+)')
"""Stamped on the page by arXiv; the same form in a bibliography would be another paper's."""
_BASE = re.compile(rb'<base href="/html/[^"]*?v(\d+)/?"')
_FAILED = b"Conversion to HTML had a Fatal error and exited abruptly"
_LONE_FORMULA = re.compile(r"\$+[^$]+\$+")
_DEEPEST = 200


def is_paper(page: bytes) -> bool:
    """Whether ``page`` is a converted paper: not a stub ("No HTML is available") and not a conversion that died."""
    return b"ltx_document" in page and _FAILED not in page


def read_latexml(page: bytes, *, source: str) -> Document:
    """The paper in a LaTeXML ``page`` that `is_paper`.

    Mathematics is kept once, as LaTeX between dollars; tables as rows of cells; figures and tables with their
    captions; footnotes in place; citations with their key, ``[#bib.bib5]``, which `Document.references` resolves.
    """
    import lxml.html

    parser = lxml.html.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    root: Any = lxml.html.document_fromstring(page, parser=parser)
    found = root.find_class("ltx_document")
    article = found[0] if found else root
    reading = _Reading()
    thanks = [note for title in article.find_class("ltx_title_document") for note in title.find_class("ltx_note")]
    reading.unit(article, unit_id="front", number="", title="Front matter", level=0, parent="")
    front = reading.sections[0]
    notes = (Block(f"front.n{place}", _text(note)) for place, note in enumerate(thanks, 1))
    reading.sections[0] = replace(front, level=1, blocks=(*notes, *front.blocks))
    sections = tuple(section for section in reading.sections if section is not reading.sections[0] or section.blocks)
    version = _WATERMARK.search(page) or _BASE.search(page[:20_000])
    return Document(
        source=source,
        title=_first(article, "ltx_title_document"),
        abstract=_abstract(article),
        sections=sections,
        references=tuple(reading.references),
        version=int(version.group(1)) if version else None,
        authors=tuple(filter(None, (_line(name) for name in article.find_class("ltx_personname")))),
        license=_license(root),
    )


@dataclass
class _Reading:
    """One pass over the article; sections come out in the order of the text."""

    sections: list[Section] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def unit(self, element: HtmlElement, *, unit_id: str, number: str, title: str, level: int, parent: str) -> None:
        """A sectional unit: its own blocks, then the units inside it."""
        place = len(self.sections)
        name = self._free(unit_id)
        self.sections.append(Section(name, number, title, level, ()))
        blocks: list[Block] = []
        if "ltx_bibliography" in _classes(element):
            self._bibliography(element, blocks)
        else:
            self._collect(element, blocks, name, level, top=True, depth=0)
        own = tuple(block for block in blocks if block.text)
        self.sections[place] = Section(name, number, title, level, own, parent)

    def _collect(
        self, element: HtmlElement, blocks: list[Block], unit: str, level: int, *, top: bool, depth: int
    ) -> None:
        if depth > _DEEPEST:
            blocks.append(Block(self._place(unit, blocks), _squeeze(element.text_content())))
            return
        self._loose(element.text, blocks, unit)
        for child in element:
            classes = _classes(child)
            if child.tag in _SKIPPED_TAGS or classes & _SKIPPED or (top and "ltx_title" in classes):
                pass
            elif classes & _UNITS:
                number, title = _heading(child)
                parent = "" if level == 0 else unit
                name = child.get("id") or f"{unit}.s{len(self.sections)}"
                self.unit(child, unit_id=name, number=number, title=title, level=level + 1, parent=parent)
            elif classes & _BLOCK_CLASSES or child.tag in (
                "p",
                "pre",
                "ul",
                "ol",
                "table",
                "figure",
                "span",
                "a",
                "math",
            ):
                name = child.get("id") or self._place(unit, blocks)
                blocks.append(Block(self._free(name), _text(child)))
            else:
                self._collect(child, blocks, unit, level, top=False, depth=depth + 1)
            self._loose(child.tail, blocks, unit)

    def _bibliography(self, element: HtmlElement, blocks: list[Block]) -> None:
        for item in element.find_class("ltx_bibitem"):
            key = item.get("id") or f"bib.bib{len(blocks) + 1}"
            label = _line(next(iter(item.find_class("ltx_tag_bibitem")), None))
            parts = [_line(block) for block in item.find_class("ltx_bibblock")] or [_line(item)]
            title = _line(next(iter(item.find_class("ltx_bib_title")), None))
            links = [link.get("href", "") for link in item.iter("a")]
            entry = reference_from_blocks(key, list(filter(None, parts)), links=links, title=title, label=label)
            self.references.append(entry)
            blocks.append(Block(self._free(key), f"[#{key}] {entry.text}"))

    def _loose(self, text: str | None, blocks: list[Block], unit: str) -> None:
        """Text that stands between blocks, in no element of its own."""
        if text and (bare := _squeeze(text)):
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


def _text(element: HtmlElement | None) -> str:
    """``element`` as text, one line a paragraph, item or row."""
    if element is None:
        return ""
    parts: list[str] = []
    _render(element, parts, 0)
    text = re.sub(r" {2,}", " ", "".join(parts))
    text = re.sub(r" *\n *", "\n", text)
    return re.sub(r"\n{2,}", "\n", text).strip().replace("\x00", " ")


def _line(element: HtmlElement | None) -> str:
    return " ".join(_text(element).split())


def _render(element: HtmlElement, out: list[str], depth: int) -> None:
    tag, classes = element.tag, _classes(element)
    if tag in _SKIPPED_TAGS or classes & _SKIPPED:
        return
    if tag == "math":
        out.append(_formula(element))
    elif tag == "br":
        out.append("\n")
    elif depth > _DEEPEST:
        out.append(_squeeze(element.text_content()))
    elif "ltx_note_content" in classes:
        out.append(" [footnote: ")
        _inside(element, out, depth)
        out.append("]")
    elif "ltx_eqn_table" in classes or ("ltx_equation" in classes and tag != "tr") or "ltx_equationgroup" in classes:
        out.append("\n" + "\n".join(_equations(element)) + "\n")
    elif "ltx_tabular" in classes:
        out.append("\n" + "\n".join(_rows(element)) + "\n")
    elif "ltx_listingline" in classes or tag == "pre":
        code = "".join(element.itertext()).replace("\u00a0", " ").strip("\n").rstrip()
        out.append("\n" + code.replace(" ", "\x00") + "\n")  # a space that squeezing leaves alone
    elif tag == "li":
        mark = next((_line(child) for child in element if "ltx_tag_item" in _classes(child)), "")
        inside: list[str] = []
        _inside(element, inside, depth)
        bullet = mark if any(map(str.isalnum, mark)) else "-"
        out.append(f"\n{bullet} {''.join(inside).strip()}\n")
    elif "ltx_tag_item" in classes:
        pass
    elif tag == "a":
        _inside(element, out, depth)
        key = element.get("href", "").rpartition("#")[2]
        if key.startswith("bib."):
            out.append(f" [#{key}]")
    elif tag in _LINE_TAGS:
        out.append("\n")
        _inside(element, out, depth)
        out.append("\n")
    else:
        _inside(element, out, depth)


def _inside(element: HtmlElement, out: list[str], depth: int) -> None:
    if element.text:
        out.append(_SPACE.sub(" ", element.text))
    for child in element:
        _render(child, out, depth + 1)
        if child.tail:
            out.append(_SPACE.sub(" ", child.tail))


def _formula(math: HtmlElement) -> str:
    """The LaTeX of a formula, once: MathML repeats it as symbols and as an annotation."""
    tex = math.get("alttext")
    if tex is None:
        notes = [note for note in math.iter("annotation") if note.get("encoding") == "application/x-tex"]
        tex = "".join(notes[0].itertext()) if notes else "".join(math.itertext())
    tex = _squeeze(re.sub(r"%\s*\n", "", tex)).removeprefix("\\displaystyle").strip()
    return "" if not tex else f"$${tex}$$" if math.get("display") == "block" else f"${tex}$"


def _equations(element: HtmlElement) -> Iterator[str]:
    """Displayed equations, a line each, with their number."""
    for row in list(element.iter("tr")) or [element]:
        cells = [_line(cell) for cell in row if "ltx_eqn_eqno" not in _classes(cell)]
        number = " ".join(_line(cell) for cell in row.find_class("ltx_eqn_eqno"))
        cells = list(filter(None, cells))
        if cells and all(_LONE_FORMULA.fullmatch(cell) for cell in cells):
            tex = " ".join(cell.strip("$") for cell in cells)
            yield f"$${tex}$$ {number}".strip()
        elif cells:  # words between formulas ("such that"), or a line of text inside an alignment
            yield " ".join([*cells, number]).strip()


def _rows(table: HtmlElement) -> Iterator[str]:
    """Rows of a table, cells between bars; a table inside a cell stays inside it."""
    for row in table.find_class("ltx_tr"):
        if _table_of(row) is not table:
            continue
        cells = [cell for cell in row if _classes(cell) & {"ltx_td", "ltx_th"}]
        texts = [_text(cell).replace("\n", " / ") for cell in cells]
        if any(texts):
            yield " | ".join(texts)


def _table_of(row: HtmlElement) -> HtmlElement | None:
    for ancestor in row.iterancestors():
        if "ltx_tabular" in _classes(ancestor):
            return ancestor
    return None


def _heading(unit: HtmlElement) -> tuple[str, str]:
    """Number and title of a sectional unit."""
    heading = next((child for child in unit if "ltx_title" in _classes(child)), None)
    if heading is None:
        return "", ""
    tag = next(iter(heading.find_class("ltx_tag")), None)
    title, label = _line(heading), _line(tag)
    number = label.split()[-1].strip(".:§") if label else ""
    return number, title.removeprefix(label).strip() if label else title


def _abstract(article: HtmlElement) -> str:
    found = next(iter(article.find_class("ltx_abstract")), None)
    if found is None:
        return ""
    parts = [_text(child) for child in found if "ltx_title" not in _classes(child)]
    loose = _squeeze(found.text or "")
    return "\n".join(filter(None, (loose, *parts)))


def _license(root: HtmlElement) -> str:
    found = root.get_element_by_id("license-tr", None)
    return "" if found is None else _squeeze(found.text_content()).removeprefix("License:").strip()


def _first(article: HtmlElement, name: str) -> str:
    found = article.find_class(name)
    if not found:
        return ""
    parts: list[str] = []
    _inside(found[0], parts, 0)
    bare = re.sub(r"\[footnote: .*?\]", "", "".join(parts))  # thanks, in the title of the paper
    return " ".join(bare.split())


def _classes(element: HtmlElement) -> frozenset[str]:
    return _split(element.get("class") or "")


def _squeeze(text: str) -> str:
    return _SPACE.sub(" ", text).strip()


def _split(names: str, _known: dict[str, frozenset[str]] = {}) -> frozenset[str]:  # noqa: B006 - a memo: few are distinct
    found = _known.get(names)
    if found is None:
        found = frozenset(names.split())
        if len(_known) < 5000:
            _known[names] = found
    return found
