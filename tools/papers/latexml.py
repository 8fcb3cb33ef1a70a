"""Elements of LaTeXML's HTML as text: formulas, tables, lists, algorithms, code, notes, links, citations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlintern.tools.papers.classes import classes_of, with_class
from mlintern.tools.papers.tables import Table, read_table

if TYPE_CHECKING:
    from lxml.html import HtmlElement

SKIPPED_TAGS = frozenset(("script", "style", "svg", "nav", "button", "noscript", "template", "head"))
SKIPPED = frozenset(
    f"ltx_{name}"
    for name in (
        *("TOC", "page_footer", "page_header", "page_navbar", "page_logo", "pagination", "authors", "dates"),
        *("title_document", "abstract", "bib_cited", "rdf", "tag_bibitem", "note_mark", "tag_note"),
        *("role_creation", "listing_data"),
    )
)
_LINE_TAGS = frozenset(("p", "div", "figure", "figcaption", "section", "blockquote", "table", "tr"))
_SPACED_CLASSES = frozenset(("ltx_p", "ltx_para", "ltx_item"))
"""Elements that LaTeXML writes as ``span`` where HTML allows no block, but that begin a line all the same."""
DEEPEST = 200
"""Nesting beyond this is read as plain text."""
_SPACE = re.compile(r"[ \t\r\n\f\v\u00a0\u2003\u2004\u2005\u2009\u200a]+")
_LONE_FORMULA = re.compile(r"\$+[^$]+\$+")
_BREAK = "\x01"
"""A line break that is meant; one in the HTML is a space."""
_KEPT_SPACE = "\x02"
"""A space of code or of an indentation, which squeezing leaves alone."""
_LOOSE = " \t\r\n" + _BREAK
_OWN_PAGES = re.compile(r"(?:^|//)(?:www\.|export\.)?(?:arxiv\.org/html|ar5iv\.(?:labs\.arxiv\.)?org/html)/")


def text_of(element: HtmlElement | None) -> str:
    """``element`` as text, one line a paragraph, item or row."""
    if element is None:
        return ""
    parts: list[str] = []
    _render(element, parts, 0)
    return _laid_out(parts)


def inside_of(element: HtmlElement) -> str:
    """`text_of` for an element that is skipped where it stands in the text, such as a label."""
    parts: list[str] = []
    _inside(element, parts, 0)
    return _laid_out(parts)


def line_of(element: HtmlElement | None) -> str:
    """`text_of` in one line."""
    return " ".join(text_of(element).split())


def table_of(element: HtmlElement) -> Table | None:
    """The table in a ``ltx_tabular``, its cells in one line each."""
    return read_table(element, _cell)


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
        _note(element, out, depth)
    elif "ltx_eqn_table" in classes or ("ltx_equation" in classes and tag != "tr") or "ltx_equationgroup" in classes:
        out += (_BREAK, _BREAK.join(_equations(element)), _BREAK)
    elif "ltx_tabular" in classes:
        out += (_BREAK, _tabular(element), _BREAK)
    elif "ltx_listingline" in classes or tag == "pre":
        out += (_BREAK, _code(element, keep_lines=tag == "pre"), _BREAK)
    elif tag in ("li", "dd"):
        _item(element, out, depth)
    elif "ltx_tag_item" in classes or (
        tag == "dt" and (after := element.getnext()) is not None and after.tag == "dd"
    ):
        pass  # a label is printed with its item
    elif tag == "a":
        _link(element, out, depth)
    elif tag in _LINE_TAGS or classes & _SPACED_CLASSES:
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


def _note(element: HtmlElement, out: list[str], depth: int) -> None:
    """A footnote in brackets; the mark of one that stands elsewhere is nothing."""
    inside: list[str] = []
    _inside(element, inside, depth)
    text = _laid_out(inside).replace("\n", " ")
    if text and text != "footnotemark:":
        out.append(f" [footnote: {text}]")


def _link(element: HtmlElement, out: list[str], depth: int) -> None:
    """A link with its address behind it, unless it shows the address itself; a citation with the key of its entry."""
    inside: list[str] = []
    _inside(element, inside, depth)
    out += inside
    address = element.get("href", "").strip()
    target = address.rpartition("#")[2] if "#" in address else ""
    if target.startswith("bib."):
        out.append(f" [#{target}]")
    elif outside := outside_address(address):
        shown = squeezed("".join(inside).replace(_BREAK, " "))
        if not shown:
            out.append(outside)
        elif _bare(outside) == _bare(shown):
            if "://" not in shown and not outside.startswith("mailto:"):
                out[-len(inside) :] = [outside]
        elif outside not in shown:
            out.append(f" ({outside})")


def outside_address(address: str) -> str:
    """``address`` if it leads out of the paper, else empty: a place on its own page is none, nor is inlined data."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https", "ftp", "mailto") or (parts.scheme != "mailto" and not parts.netloc):
        return ""
    return "" if _OWN_PAGES.search(address) and parts.fragment else address


def _bare(text: str) -> str:
    """An address as two spellings of it are compared: without scheme, spaces and what ends it."""
    return re.sub(r"^(?:https?://|mailto:)?(?:www\.)?", "", "".join(text.split()).lower()).rstrip("/")


def _item(element: HtmlElement, out: list[str], depth: int) -> None:
    """An item of a list with its label; lists inside it stand in by two spaces."""
    label = next((child for child in element if "ltx_tag_item" in classes_of(child)), None)
    if label is None and element.tag == "dd":
        term = element.getprevious()
        if term is not None and term.tag == "dt":
            label = next(iter(with_class(term, "ltx_tag_item")), term)
    mark = " ".join(inside_of(label).split()) if label is not None else ""
    if not any(map(str.isalnum, mark)):
        mark = "-"
    elif element.tag == "dd" and mark[-1] not in ".:;)!?":
        mark += ":"
    inside: list[str] = []
    _inside(element, inside, depth)
    first, *others = (
        re.sub(r"^ +| {2,}", lambda found: _KEPT_SPACE * len(found[0]), line)
        for line in _laid_out(inside).split("\n")
    )
    out += (_BREAK, f"{mark} {first}".rstrip(), *(f"{_BREAK}{2 * _KEPT_SPACE}{line}" for line in others), _BREAK)


def _code(element: HtmlElement, *, keep_lines: bool) -> str:
    """Code with its spaces; the formulas, links and citations of an algorithm as elsewhere, once each."""
    parts: list[str] = []
    _verbatim(element, parts, 0, keep_lines=keep_lines)
    text = "".join(parts).replace("\u00a0", " ").replace("\u2003", "  ")
    text = text.strip("\n").rstrip() if keep_lines else text.strip("\n").rstrip().replace("\n", " ")
    return text.replace(" ", _KEPT_SPACE).replace("\n", _BREAK)


def _verbatim(element: HtmlElement, out: list[str], depth: int, *, keep_lines: bool) -> None:
    def take(text: str | None) -> None:
        if text:
            out.append(text if keep_lines or text.strip("\n") else "")

    take(element.text)
    for child in element:
        classes = classes_of(child)
        if child.tag == "math":
            out.append(_formula(child))
        elif child.tag == "a":
            _link(child, out, depth)
        elif child.tag == "br":
            out.append("\n")
        elif "ltx_note_content" in classes:
            _note(child, out, depth)
        elif not (child.tag in SKIPPED_TAGS or classes & SKIPPED):
            _verbatim(child, out, depth + 1, keep_lines=keep_lines)
        take(child.tail)


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
        number = " ".join(line_of(cell) for cell in row.iter("td", "span") if "ltx_eqn_eqno" in classes_of(cell))
        cells = list(filter(None, cells))
        if cells and all(_LONE_FORMULA.fullmatch(cell) for cell in cells):
            tex = " ".join(cell.strip("$") for cell in cells)
            yield f"$${tex}$$ {number}".strip()
        elif cells:  # words between formulas ("such that"), or a line of text inside an alignment
            yield " ".join([*cells, number]).strip()


def _tabular(element: HtmlElement) -> str:
    """A table as Markdown; one that sits in a cell of another as its rows in one line, one of one column as lines."""
    table = table_of(element)
    if table is None:
        return ""
    inside = any("ltx_tabular" in classes_of(ancestor) for ancestor in element.iterancestors())
    rows = [row for row in (table.columns, *table.rows) if any(row)]
    if inside or len(table.columns) == 1:
        return (" " if inside else _BREAK).join(" ".join(filter(None, dict.fromkeys(row))) for row in rows)
    return table.markdown().replace("\n", _BREAK)


def _cell(cell: HtmlElement) -> str:
    """A cell in one line; a number or a name that is set as a formula (``$32.1$``, ``$G$``) is written plainly."""
    text = " / ".join(filter(None, (line.strip() for line in inside_of(cell).split("\n"))))
    return re.sub(r"\$([A-Za-z0-9.,+%-]+)\$", r"\1", text)


def title_of(element: HtmlElement) -> str:
    """The title of the paper without the thanks in it."""
    return " ".join(re.sub(r"\[footnote: .*?\]", "", inside_of(element)).split())


def squeezed(text: str) -> str:
    """``text`` with one space for each run of white space, and none around it."""
    return _SPACE.sub(" ", text).strip()


def _laid_out(parts: list[str]) -> str:
    text = _SPACE.sub(" ", "".join(parts))
    lines = (line.strip(" ") for line in text.split(_BREAK))
    return "\n".join(filter(None, lines)).replace(_KEPT_SPACE, " ")
