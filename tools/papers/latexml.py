"""Elements of LaTeXML's HTML as text: formulas, tables, lists, notes, citations."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lxml.html import HtmlElement

SKIPPED_TAGS = frozenset(("script", "style", "svg", "nav", "button", "noscript", "template", "head"))
SKIPPED = frozenset(
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
DEEPEST = 200
"""Nesting beyond this is read as plain text."""
_SPACE = re.compile(r"[ \t\r\n\f\v\u00a0\u2003\u2004\u2005\u2009\u200a]+")
_LONE_FORMULA = re.compile(r"\$+[^$]+\$+")
_BREAK = "\x01"
"""A line break that is meant; one in the HTML is a space."""
_KEPT_SPACE = "\x02"
"""A space of code, which squeezing leaves alone."""
_LOOSE = " \t\r\n" + _BREAK


def text_of(element: HtmlElement | None) -> str:
    """``element`` as text, one line a paragraph, item or row."""
    if element is None:
        return ""
    parts: list[str] = []
    _render(element, parts, 0)
    return _laid_out(parts)


def line_of(element: HtmlElement | None) -> str:
    """`text_of` in one line."""
    return " ".join(text_of(element).split())


def _render(element: HtmlElement, out: list[str], depth: int) -> None:
    tag, classes = element.tag, classes_of(element)
    if tag in SKIPPED_TAGS or classes & SKIPPED:
        return
    if tag == "math":
        out.append(_formula(element))
    elif tag == "br":
        out.append(_BREAK)
    elif depth > DEEPEST:
        out.append(squeezed(element.text_content()))
    elif "ltx_note_content" in classes:
        out.append(" [footnote: ")
        _inside(element, out, depth)
        out.append("]")
    elif "ltx_eqn_table" in classes or ("ltx_equation" in classes and tag != "tr") or "ltx_equationgroup" in classes:
        out += (_BREAK, _BREAK.join(_equations(element)), _BREAK)
    elif "ltx_tabular" in classes:
        out += (_BREAK, _BREAK.join(_rows(element)), _BREAK)
    elif "ltx_listingline" in classes or tag == "pre":
        code = "".join(element.itertext()).replace("\u00a0", " ").strip("\n").rstrip()
        out += (_BREAK, code.replace(" ", _KEPT_SPACE).replace("\n", _BREAK), _BREAK)
    elif tag == "li":
        mark = next((line_of(child) for child in element if "ltx_tag_item" in classes_of(child)), "")
        inside: list[str] = []
        _inside(element, inside, depth)
        bullet = mark if any(map(str.isalnum, mark)) else "-"
        out += (_BREAK, f"{bullet} ", "".join(inside).strip(_LOOSE), _BREAK)
    elif "ltx_tag_item" in classes:
        pass
    elif tag == "a":
        _inside(element, out, depth)
        key = element.get("href", "").rpartition("#")[2]
        if key.startswith("bib."):
            out.append(f" [#{key}]")
    elif tag in _LINE_TAGS:
        out.append(_BREAK)
        _inside(element, out, depth)
        out.append(_BREAK)
    else:
        _inside(element, out, depth)


def _inside(element: HtmlElement, out: list[str], depth: int) -> None:
    if element.text:
        out.append(element.text)
    for child in element:
        _render(child, out, depth + 1)
        if child.tail:
            out.append(child.tail)


def _formula(math: HtmlElement) -> str:
    """The LaTeX of a formula, once: MathML repeats it as symbols and as an annotation."""
    tex = math.get("alttext")
    if tex is None:
        notes = [note for note in math.iter("annotation") if note.get("encoding") == "application/x-tex"]
        tex = "".join(notes[0].itertext()) if notes else "".join(math.itertext())
    tex = squeezed(re.sub(r"%\s*\n", "", tex)).removeprefix("\\displaystyle").strip()
    return "" if not tex else f"$${tex}$$" if math.get("display") == "block" else f"${tex}$"


def _equations(element: HtmlElement) -> Iterator[str]:
    """Displayed equations, a line each, with their number."""
    for row in list(element.iter("tr")) or [element]:
        cells = [line_of(cell) for cell in row if "ltx_eqn_eqno" not in classes_of(cell)]
        number = " ".join(line_of(cell) for cell in with_class(row, "ltx_eqn_eqno"))
        cells = list(filter(None, cells))
        if cells and all(_LONE_FORMULA.fullmatch(cell) for cell in cells):
            tex = " ".join(cell.strip("$") for cell in cells)
            yield f"$${tex}$$ {number}".strip()
        elif cells:  # words between formulas ("such that"), or a line of text inside an alignment
            yield " ".join([*cells, number]).strip()


def _rows(table: HtmlElement) -> Iterator[str]:
    """Rows of a table, cells between bars; a table inside a cell stays inside it."""
    for row in with_class(table, "ltx_tr"):
        if _table_of(row) is not table:
            continue
        cells = [cell for cell in row if classes_of(cell) & {"ltx_td", "ltx_th"}]
        texts = [text_of(cell).replace("\n", " / ") for cell in cells]
        if any(texts):
            yield " | ".join(texts)


def _table_of(row: HtmlElement) -> HtmlElement | None:
    for ancestor in row.iterancestors():
        if "ltx_tabular" in classes_of(ancestor):
            return ancestor
    return None


def title_of(element: HtmlElement) -> str:
    """The title of the paper without the thanks in it."""
    parts: list[str] = []
    _inside(element, parts, 0)
    return " ".join(re.sub(r"\[footnote: .*?\]", "", _laid_out(parts)).split())


def with_class(element: HtmlElement, name: str) -> list[HtmlElement]:
    """`lxml`'s ``find_class``, which builds an XPath each time, for small elements."""
    return [one for one in element.iter() if name in classes_of(one)]


def classes_of(element: HtmlElement) -> frozenset[str]:
    """The classes of ``element``."""
    return _split(element.get("class") or "")


def squeezed(text: str) -> str:
    """``text`` with one space for each run of white space, and none around it."""
    return _SPACE.sub(" ", text).strip()


def _laid_out(parts: list[str]) -> str:
    text = _SPACE.sub(" ", "".join(parts))
    lines = (line.strip(" ") for line in text.split(_BREAK))
    return "\n".join(filter(None, lines)).replace(_KEPT_SPACE, " ")


@functools.lru_cache(maxsize=4096)
def _split(names: str) -> frozenset[str]:
    return frozenset(names.split())
