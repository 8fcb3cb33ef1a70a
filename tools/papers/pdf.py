"""Papers that are there as PDF only: text by pypdfium2, sections by headings, words as people read them."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from mlintern.tools.errors import MissingDependency, ServiceError
from mlintern.tools.papers.document import Block, Document, Reference, Section
from mlintern.tools.papers.other_formats import Outline
from mlintern.tools.papers.references import reference_from_blocks

_MOST_PAGES = 300
_LEAST_HEADINGS = 3
"""With fewer headings the sections are the pages: a number at a line's start is not yet a heading."""
_HEADING = re.compile(
    r"^(?P<number>\d{1,2}(?:\.\d{1,2}){0,3}|[A-H](?:\.\d{1,2}){1,3}|[A-H])\.?\s+(?P<title>[A-Z][^.?!]{2,80})$"
)
_PLAIN_HEADING = re.compile(
    r"^(?:\d{1,2}\.?\s+)?(Abstract|Introduction|Related Work|Background|Methods?|Experiments?|Results|Discussion|"
    r"Limitations|Conclusions?|Acknowledge?ments?|References|Bibliography|Appendix)$",
    re.IGNORECASE,
)
_LIGATURES = str.maketrans({"ﬁ": "fi", "ﬂ": "fl", "ﬀ": "ff", "ﬃ": "ffi", "ﬄ": "ffl", "\u00ad": ""})
_SOFT_HYPHEN = re.compile(r"[\ufffe\x02]")
"""What PDFium gives for a hyphen at a line's end, with or without the break."""
_LETTERS_COMPARED = 80
_ENTRY = re.compile(r"^\[(\d{1,3})\]\s+")


@dataclass(frozen=True)
class _Page:
    lines: tuple[str, ...]


def read_pdf(data: bytes, *, source: str = "pdf") -> Document:
    """The text of a PDF. Hyphens at line ends are joined, running heads and page numbers left out.

    Sections are its numbered headings; where there are none, they are its pages, ``P1``, ``P2``...

    Raises:
        MissingDependency: pypdfium2 is not installed.
        ServiceError: the file is no PDF, is damaged or holds no text.
    """
    pages, count, title = _pages(data)
    if not any(page.lines for page in pages):
        raise ServiceError(
            "The PDF holds pictures of pages, no text.", service="arxiv", next_step="Read the abstract."
        )
    sections = _by_headings(pages) or tuple(
        Section(f"P{number}", "", f"Page {number}", 1, _blocks(f"P{number}", page.lines))
        for number, page in enumerate(pages, 1)
    )
    sections, references = _with_references(_with_pages(sections, pages))
    notes: tuple[str, ...] = ("This is the text of a PDF: formulas and tables may be garbled.",)
    if count > len(pages):
        notes += (f"Cut: only the first {len(pages)} of {count} pages were read.",)
    return Document(
        source=source,
        title=title or _title(pages[0]),
        abstract=next((one.text for one in sections if one.title.casefold() == "abstract"), "") or _abstract(pages),
        sections=sections,
        references=references,
        notes=notes,
    )


def _pages(data: bytes) -> tuple[list[_Page], int, str]:
    """Lines of each page, how many pages there are, and the title that the file gives itself."""
    try:
        import pypdfium2
    except ImportError as error:
        raise MissingDependency(
            "The paper is there as PDF only, and pypdfium2 is not installed.",
            next_step="Install it: pip install 'mlintern[pdf]'.",
        ) from error
    try:
        document = pypdfium2.PdfDocument(data)
        try:
            texts = []
            for number in range(min(len(document), _MOST_PAGES)):
                page = document[number]
                texts.append(page.get_textpage().get_text_bounded())
                page.close()
            title = str(document.get_metadata_dict().get("Title") or "").strip()
            count = len(document)
        finally:
            document.close()
    except (pypdfium2.PdfiumError, ValueError) as error:
        raise ServiceError(
            f"The PDF cannot be read: {error}.", service="arxiv", next_step="Read the abstract instead."
        ) from error
    written = [[_clean(line) for line in text.splitlines()] for text in texts]
    repeated = _running_heads(written)
    pages = [
        _Page(tuple(line for line in lines if line and line not in repeated and not re.fullmatch(r"\d{1,4}", line)))
        for lines in written
    ]
    return pages, count, "" if re.search(r"\.(?:dvi|tex|pdf)$|^untitled", title, re.IGNORECASE) else title


def _clean(line: str) -> str:
    joined = _SOFT_HYPHEN.sub("-", re.sub(rf"{_SOFT_HYPHEN.pattern}(?=\w)", "", line.translate(_LIGATURES)))
    return " ".join(unicodedata.normalize("NFC", joined).split())


def _running_heads(pages: list[list[str]]) -> set[str]:
    """Lines that stand at the top or the bottom of most pages."""
    edges = Counter(line for lines in pages for line in {*lines[:2], *lines[-2:]} if line)
    return {line for line, count in edges.items() if len(pages) > 3 and count > len(pages) / 2}


def _by_headings(pages: list[_Page]) -> tuple[Section, ...]:
    """Sections by headings; empty if there are too few of them, or if their numbers do not follow each other."""
    outline = Outline()
    current, lines, found = outline.open(0, number="", title="Front matter"), [], 0
    expected = 0
    for line in (line for page in pages for line in page.lines):
        numbered = _HEADING.match(line)
        plain = _PLAIN_HEADING.match(line)
        number = numbered["number"] if numbered else ""
        first = number.partition(".")[0]
        follows = (first.isdigit() and int(first) in (expected, expected + 1)) or (first.isalpha() and expected > 1)
        if not plain and not (numbered and follows):
            lines.append(line)
            continue
        outline.fill(current, _joined(lines))
        lines, found = [], found + 1
        expected = int(first) if first.isdigit() else expected
        title = numbered["title"] if numbered else plain[1] if plain else line
        current = outline.open(number.count(".") + 1, number=number, title=title)
    outline.fill(current, _joined(lines))
    return outline.sections() if found >= _LEAST_HEADINGS else ()


def _with_pages(sections: tuple[Section, ...], pages: list[_Page]) -> tuple[Section, ...]:
    """``sections`` with the page of each block: found by its letters, which joining lines does not change."""
    letters = [_letters(" ".join(page.lines)) for page in pages]
    starts = list(itertools.accumulate(map(len, letters), initial=0))[:-1]
    whole, position = "".join(letters), 0
    found = []
    for section in sections:
        blocks = []
        for block in section.blocks:
            at = whole.find(_letters(block.text)[:_LETTERS_COMPARED], position)
            if at >= 0:
                position = at
            page = bisect.bisect_right(starts, at) if at >= 0 else None
            blocks.append(dataclasses.replace(block, page=page))
        found.append(dataclasses.replace(section, blocks=tuple(blocks)))
    return tuple(found)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def _joined(lines: list[str] | tuple[str, ...]) -> str:
    """Lines as paragraphs: a hyphen at a line's end joins a word, a short line with a period ends a paragraph."""
    usual = sorted(len(line) for line in lines)[3 * len(lines) // 4] if lines else 0
    text = ""
    for line in lines:
        if text.endswith("-") and line[:1].islower() and text[-2:-1].isalpha():
            text = text[:-1] + line
        elif text.endswith("\n\n") or not text:
            text += line
        else:
            text += f" {line}"
        if len(line) < 0.7 * usual and re.search(r"[.:?!]$", line):
            text += "\n\n"
    return text.strip()


def _blocks(unit: str, lines: tuple[str, ...]) -> tuple[Block, ...]:
    parts = [part for part in _joined(lines).split("\n\n") if part]
    return tuple(Block(f"{unit}.p{place}", part) for place, part in enumerate(parts, 1))


def _title(page: _Page) -> str:
    """The first lines up to one that names people or begins the abstract."""
    lines: list[str] = []
    for line in page.lines[:4]:
        if re.match(r"arXiv:|abstract\b", line, re.IGNORECASE) or "@" in line:
            continue
        if lines and (re.search(r"\d|[∗*†‡,]", line) or len(lines) == 2):
            break
        lines.append(line)
    return " ".join(lines)


def _abstract(pages: list[_Page]) -> str:
    """What stands on the first page behind the word abstract."""
    text = _joined(pages[0].lines)
    found = re.search(r"\bAbstract\b[\s.:—–-]*(.{40,3000}?)(?=\n\n|\b1\.?\s+Introduction\b|$)", text, re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def _with_references(sections: tuple[Section, ...]) -> tuple[tuple[Section, ...], tuple[Reference, ...]]:
    """``sections`` with the entries of the bibliography told apart, where they are numbered in brackets."""
    section = next((one for one in sections if one.title.casefold() in ("references", "bibliography")), None)
    if section is None:
        return sections, ()
    parts = re.split(r"(?:(?<=\s)|^)(?=\[\d{1,3}\]\s)", section.text)
    entries = [(found[1], part[found.end() :].strip()) for part in parts if (found := _ENTRY.match(part))]
    references = tuple(
        reference_from_blocks(f"bib.bib{number}", [" ".join(text.split())], links=re.findall(r"https?://\S+", text))
        for number, text in entries
    )
    if not references:
        return sections, ()
    first = section.blocks[0].page
    blocks = tuple(Block(entry.key, f"[#{entry.key}] {entry.text}", first) for entry in references)
    told = Section("bib", section.number, section.title, section.level, blocks, section.parent)
    return tuple(told if one is section else one for one in sections), references
