"""Texts that are not LaTeXML: Markdown and LaTeX source. Each becomes a `Document`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from mlintern.tools.errors import ServiceError
from mlintern.tools.papers.document import Block, Document, Reference, Section
from mlintern.tools.papers.latex_source import (
    group_at,
    with_inputs,
    with_own_commands,
    with_switches,
    without_comments,
)
from mlintern.tools.papers.latex_tables import floats_of
from mlintern.tools.papers.references import reference_from_blocks

_HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*$")
_NUMBER = re.compile(r"^((?:\d+|[A-Z])(?:\.\d+)*)\.?\s+(?=\S)")
_TEX_UNIT = re.compile(
    r"\\(part|chapter|section|subsection|subsubsection|paragraph|subparagraph)\*?\s*(?:\[[^\]]*\])?\s*\{"
)
_TEX_DEPTH = {"part": 1, "chapter": 1, "section": 1, "subsection": 2, "subsubsection": 3, "paragraph": 4}
_TEX_CITE = re.compile(r"\\[cC]ite\w*\*?\s*(?:\[[^\]]*\]\s*){0,2}\{([^}]+)\}")
_BIB_ITEM = re.compile(r"\\bibitem\s*(?:\[(?:[^\[\]{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\])?\s*\{([^}]+)\}")


def read_markdown(text: str, *, source: str = "hf_markdown") -> Document:
    """Sections by headings; headings inside code fences are code. Ids count: ``S2``, ``S2.1``, ``S2.1.1``."""
    outline = Outline()
    title, fenced, current = "", False, outline.open(0, number="", title="Front matter")
    lines: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        heading = None if fenced else _HEADING.match(line)
        if heading is None:
            lines.append(line)
            continue
        outline.fill(current, "\n".join(lines))
        lines = []
        depth, words = len(heading.group(1)), heading.group(2).strip("* ")
        if depth == 1 and not title:
            title, current = words, outline.open(0, number="", title="Front matter")
            continue
        number = _NUMBER.match(words)
        current = outline.open(
            depth, number=number.group(1) if number else "", title=words[number.end() :] if number else words
        )
    outline.fill(current, "\n".join(lines))
    sections = outline.sections()
    abstract = next((section.text for section in sections if section.title.casefold() == "abstract"), "")
    return Document(source=source, title=title, abstract=abstract, sections=sections)


def read_latex(files: dict[str, str], *, source: str = "latex") -> Document:
    """The paper in LaTeX ``files`` by name. Inputs are followed, comments and dead branches dropped, own commands
    replaced by what they stand for; the text stays LaTeX. Tables are read cell by cell.

    Citations become ``[#key]``, resolved by the ``.bbl`` or ``thebibliography``.

    Raises:
        ServiceError: no file begins a document.
    """
    plain = {name: without_comments(text) for name, text in files.items()}
    mains = [name for name, text in plain.items() if "\\begin{document}" in text and name.endswith(".tex")]
    if not mains:
        raise ServiceError("The LaTeX source has no main file.", service="arxiv", next_step="Read the PDF instead.")
    main = max(mains, key=lambda name: len(plain[name]))
    whole = with_own_commands(with_switches(with_inputs(plain[main], plain)))
    preamble, _, body = whole.partition("\\begin{document}")
    body = body.partition("\\end{document}")[0]
    bibliography = "\n".join([body, *(text for name, text in plain.items() if name.endswith(".bbl"))])
    body = re.sub(r"\\begin\{thebibliography\}.*?\\end\{thebibliography\}", "", body, flags=re.DOTALL)
    written = re.search(r"\\begin\{abstract\}(.*?)\\end\{abstract\}", whole, re.DOTALL)
    abstract = written[1] if written else _argument(whole, "abstract")
    body = re.sub(r"\\begin\{abstract\}.*?\\end\{abstract\}", "", body, flags=re.DOTALL).replace("\\maketitle", "")
    body = _TEX_CITE.sub(lambda cite: " ".join(f"[#{key.strip()}]" for key in cite.group(1).split(",")), body)
    references = _bib_items(bibliography)
    sections = [*_tex_sections(body)]
    if references:
        blocks = tuple(Block(entry.key, f"[#{entry.key}] {entry.text}") for entry in references)
        sections.append(Section("bib", "", "References", 1, blocks))
    return Document(
        source=source,
        title=_tex_title(preamble) or _tex_title(body),
        abstract=" ".join(abstract.split()),
        sections=tuple(sections),
        references=references,
        floats=tuple(floats_of(sections)),
        authors=_tex_authors(whole),
    )


class Outline:
    """Collects headings and texts; numbers the ids by place in the tree."""

    def __init__(self) -> None:
        self._units: list[tuple[int, str, str]] = []
        self._texts: list[str] = []

    def open(self, depth: int, *, number: str, title: str) -> int:
        self._units.append((depth, number, title))
        self._texts.append("")
        return len(self._units) - 1

    def fill(self, unit: int, text: str) -> None:
        self._texts[unit] = f"{self._texts[unit]}\n\n{text}".strip()

    def sections(self) -> tuple[Section, ...]:
        """In order; a depth that the text skips is closed up, front matter without text is left out."""
        found: list[Section] = []
        path: list[tuple[int, str, int]] = []  # depth, id, children so far
        top = 0
        for (depth, number, title), text in zip(self._units, self._texts, strict=True):
            if depth == 0:
                if text:
                    found.append(Section("front", "", title, 1, _paragraphs("front", text)))
                continue
            while path and path[-1][0] >= depth:
                path.pop()
            parent = path[-1][1] if path else ""
            if path:
                depth_above, above, count = path[-1]
                path[-1] = (depth_above, above, count + 1)
                name = f"{above}.{count + 1}"
            else:
                top += 1
                name = f"S{top}"
            path.append((depth, name, 0))
            found.append(Section(name, number, title, len(path), _paragraphs(name, text), parent))
        return tuple(found)


def _paragraphs(unit: str, text: str) -> tuple[Block, ...]:
    parts = filter(None, (part.strip() for part in re.split(r"\n\s*\n", text)))
    return tuple(Block(f"{unit}.p{place}", part) for place, part in enumerate(parts, 1))


def _tex_sections(body: str) -> Iterable[Section]:
    """Sections with the numbers that LaTeX would print: 1, 1.1, and A, A.1 behind ``\\appendix``."""
    outline = Outline()
    current = outline.open(0, number="", title="Front matter")
    start, counts = 0, [0, 0, 0]
    appendix = body.find("\\appendix")
    lettered = False
    for found in _TEX_UNIT.finditer(body):
        end = _closing_brace(body, found.end())
        outline.fill(current, body[start : found.start()].replace("\\appendix", ""))
        title = " ".join(re.sub(r"\\label\{[^}]*\}", "", body[found.end() : end]).split())
        if 0 <= appendix < found.start() and not lettered:
            counts, lettered = [0, 0, 0], True
        depth = _TEX_DEPTH.get(found.group(1), 5)
        number = ""
        if found.group(1) in ("section", "subsection", "subsubsection") and "*" not in found.group(0):
            counts[depth - 1 :] = [counts[depth - 1] + 1, *[0] * (3 - depth)]
            first = chr(ord("A") + (counts[0] - 1) % 26) if lettered and counts[0] else str(counts[0])
            number = ".".join([first, *map(str, counts[1:depth])])
        current = outline.open(depth, number=number, title=title)
        start = end + 1
    outline.fill(current, body[start:].replace("\\appendix", ""))
    return outline.sections()


def _argument(text: str, command: str) -> str:
    """What stands in the braces of ``\\command{...}``; empty if it is not there."""
    found = re.search(rf"\\{command}\s*(?:\[[^\]]*\])?\s*(?=\{{)", text)
    return group_at(text, found.end())[0] if found else ""


def _tex_authors(text: str) -> tuple[str, ...]:
    """Names of ``\\author``, or of the commands that conference styles have for one author each."""
    single = re.findall(r"\\(?:icmlauthor|Author|addauthor)\s*\{([^{}]*)\}", text)
    written = single or [
        group_at(text, found.end())[0] for found in re.finditer(r"\\author\s*(?:\[[^\]]*\])?\s*(?=\{)", text)
    ]
    names: list[str] = []
    for block in written:
        bare = re.sub(
            r"\\(?:thanks|footnotemark|footnote|textsuperscript|inst|affiliation|email|orcid|samethanks|IEEEauthorrefmark)"
            r"\*?(?:\[[^\]]*\])?(?:\s*\{(?:[^{}]|\{[^{}]*\})*\})?|\$[^$]*\$",
            "",
            block,
        )
        for part in re.split(r"\\(?:and|And|AND|quad|qquad)\b|&", bare):
            first = re.split(r"\\\\|\n\s*\n", part.strip())[0]
            for name in re.split(r",\s*(?:and\s+)?|\s+and\s+", first):
                plain = " ".join(_plain([name]))
                if re.search(r"[^\W\d]{2}", plain) and "@" not in plain and len(plain) <= 60:
                    names.append(plain.strip(" ,;*"))
    return tuple(dict.fromkeys(filter(None, names)))


def _tex_title(text: str) -> str:
    found = re.search(r"\\title\s*(?:\[[^\]]*\])?\s*\{", text)
    if found is None:
        return ""
    title = re.sub(
        r"\\thanks\s*\{(?:[^{}]|\{[^{}]*\})*\}|\\\\", " ", text[found.end() : _closing_brace(text, found.end())]
    )
    return " ".join(title.split())


def _closing_brace(text: str, start: int) -> int:
    depth = 1
    for place in range(start, min(len(text), start + 5000)):
        if text[place] == "{" and text[place - 1] != "\\":
            depth += 1
        elif text[place] == "}" and text[place - 1] != "\\":
            depth -= 1
            if depth == 0:
                return place
    return start


def _bib_items(text: str) -> tuple[Reference, ...]:
    starts = list(_BIB_ITEM.finditer(text))
    ends = [found.start() for found in starts[1:]] + [len(text)] * bool(starts)
    entries: dict[str, Reference] = {}
    for found, end in zip(starts, ends, strict=True):
        entry = text[found.end() : end].partition("\\end{thebibliography}")[0]
        key = found.group(1).strip()
        links = re.findall(r"\\(?:url|href)\s*\{([^}]+)\}", entry)
        entries[key] = reference_from_blocks(key, _plain(re.split(r"\\newblock\b", entry)), links=links)
    return tuple(entries.values())


def _plain(blocks: Sequence[str]) -> list[str]:
    """Bibliography blocks without LaTeX's commands."""
    bare = (re.sub(r"\\(?:href)\s*\{[^}]*\}", "", block) for block in blocks)
    bare = (re.sub(r"\\[a-zA-Z]+\*?\s?|[{}]|\\(?=[&%_#$])", "", block.replace("~", " ")) for block in bare)
    return [text for block in bare if (text := " ".join(block.split()))]
