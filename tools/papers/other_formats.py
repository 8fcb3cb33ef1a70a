"""Texts that are not LaTeXML: Markdown, LaTeX source, PDF, a bare abstract. Each becomes a `Document`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from mlintern.tools.errors import MissingDependency, ServiceError
from mlintern.tools.papers.document import Block, Document, Reference, Section
from mlintern.tools.papers.references import reference_from_blocks

_HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*$")
_NUMBER = re.compile(r"^((?:\d+|[A-Z])(?:\.\d+)*)\.?\s+(?=\S)")
_TEX_COMMENT = re.compile(r"(?<!\\)%.*")
_TEX_UNIT = re.compile(
    r"\\(part|chapter|section|subsection|subsubsection|paragraph|subparagraph)\*?\s*(?:\[[^\]]*\])?\s*\{"
)
_TEX_DEPTH = {"part": 1, "chapter": 1, "section": 1, "subsection": 2, "subsubsection": 3, "paragraph": 4}
_TEX_INPUT = re.compile(r"\\(?:input|include|subfile)\s*\{([^}]+)\}")
_TEX_CITE = re.compile(r"\\[cC]ite\w*\*?\s*(?:\[[^\]]*\]\s*){0,2}\{([^}]+)\}")
_BIB_ITEM = re.compile(r"\\bibitem\s*(?:\[(?:[^\[\]{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\])?\s*\{([^}]+)\}")
_MOST_INPUTS = 200
_MOST_PAGES = 300


def read_markdown(text: str, *, source: str = "hf_markdown") -> Document:
    """Sections by headings; headings inside code fences are code. Ids count: ``S2``, ``S2.1``, ``S2.1.1``."""
    outline = _Outline()
    title, fenced, current = "", False, outline.open(0, "", "Front matter")
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
            title, current = words, outline.open(0, "", "Front matter")
            continue
        number = _NUMBER.match(words)
        current = outline.open(depth, number.group(1) if number else "", words[number.end() :] if number else words)
    outline.fill(current, "\n".join(lines))
    sections = outline.sections()
    abstract = next((section.text for section in sections if section.title.casefold() == "abstract"), "")
    return Document(source=source, title=title, abstract=abstract, sections=sections)


def read_latex(files: dict[str, str], *, source: str = "latex") -> Document:
    """The paper in LaTeX ``files`` by name. Inputs are followed, comments dropped; the text stays LaTeX.

    Citations become ``[#key]``, resolved by the ``.bbl`` or ``thebibliography``.

    Raises:
        ServiceError: no file begins a document.
    """
    plain = {name: _TEX_COMMENT.sub("", text) for name, text in files.items()}
    mains = [name for name, text in plain.items() if "\\begin{document}" in text and name.endswith(".tex")]
    if not mains:
        raise ServiceError("The LaTeX source has no main file.", service="arxiv", next_step="Read the PDF instead.")
    main = max(mains, key=lambda name: len(plain[name]))
    whole = _follow_inputs(plain[main], plain, depth=0, left=[_MOST_INPUTS])
    preamble, _, body = whole.partition("\\begin{document}")
    body = body.partition("\\end{document}")[0]
    bibliography = "\n".join([body, *(text for name, text in plain.items() if name.endswith(".bbl"))])
    body = re.sub(r"\\begin\{thebibliography\}.*?\\end\{thebibliography\}", "", body, flags=re.DOTALL)
    abstract = re.search(r"\\begin\{abstract\}(.*?)\\end\{abstract\}", body, re.DOTALL)
    if abstract:
        body = body.replace(abstract.group(0), "")
    body = body.replace("\\maketitle", "")
    body = _TEX_CITE.sub(lambda cite: " ".join(f"[#{key.strip()}]" for key in cite.group(1).split(",")), body)
    references = _bib_items(bibliography)
    sections = [*_tex_sections(body)]
    if references:
        blocks = tuple(Block(entry.key, f"[#{entry.key}] {entry.text}") for entry in references)
        sections.append(Section("bib", "", "References", 1, blocks))
    return Document(
        source=source,
        title=_tex_title(preamble) or _tex_title(body),
        abstract=" ".join(abstract.group(1).split()) if abstract else "",
        sections=tuple(sections),
        references=references,
    )


def read_pdf(data: bytes, *, source: str = "pdf") -> Document:
    """The pages of a PDF as sections ``P1``, ``P2``...: a PDF does not say where its sections are.

    Raises:
        MissingDependency: pypdf is not installed.
        ServiceError: the file is no PDF, is damaged or holds no text.
    """
    try:
        import pypdf
        from pypdf.errors import PyPdfError
    except ImportError as error:
        raise MissingDependency(
            "The paper is there as PDF only, and pypdf is not installed.",
            next_step="Install it: pip install 'mlintern[pdf]'.",
        ) from error
    from io import BytesIO

    try:
        reader = pypdf.PdfReader(BytesIO(data))
        texts = [page.extract_text() for page in reader.pages[:_MOST_PAGES]]
        count = len(reader.pages)
        title = str((reader.metadata or {}).get("/Title") or "")
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ServiceError(
            f"The PDF cannot be read: {error}.", service="arxiv", next_step="Read the abstract instead."
        ) from error
    if not any(text.strip() for text in texts):
        raise ServiceError(
            "The PDF holds pictures of pages, no text.", service="arxiv", next_step="Read the abstract."
        )
    sections = tuple(
        Section(f"P{number}", "", f"Page {number}", 1, _paragraphs(f"P{number}", text))
        for number, text in enumerate(texts, 1)
    )
    notes: tuple[str, ...] = ("A PDF has pages, not sections: formulas and tables may be garbled.",)
    if count > _MOST_PAGES:
        notes += (f"Cut: only the first {_MOST_PAGES} of {count} pages were read.",)
    return Document(source=source, title=title.strip(), abstract="", sections=sections, notes=notes)


class _Outline:
    """Collects headings and texts; numbers the ids by place in the tree."""

    def __init__(self) -> None:
        self._units: list[tuple[int, str, str]] = []
        self._texts: list[str] = []

    def open(self, depth: int, number: str, title: str) -> int:
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


def _follow_inputs(text: str, files: dict[str, str], *, depth: int, left: list[int]) -> str:
    def replace(found: re.Match[str]) -> str:
        name = found.group(1).strip().removeprefix("./")
        inner = next((files[one] for one in (name, f"{name}.tex") if one in files), None)
        left[0] -= 1
        if inner is None or depth > 10 or left[0] < 0:
            return ""
        return _follow_inputs(inner, files, depth=depth + 1, left=left)

    return _TEX_INPUT.sub(replace, text)


def _tex_sections(body: str) -> Iterable[Section]:
    outline = _Outline()
    current = outline.open(0, "", "Front matter")
    start = 0
    for found in _TEX_UNIT.finditer(body):
        end = _closing_brace(body, found.end())
        outline.fill(current, body[start : found.start()])
        title = " ".join(re.sub(r"\\label\{[^}]*\}", "", body[found.end() : end]).split())
        current = outline.open(_TEX_DEPTH.get(found.group(1), 5), "", title)
        start = end + 1
    outline.fill(current, body[start:])
    return outline.sections()


def _tex_title(text: str) -> str:
    found = re.search(r"\\title\s*(?:\[[^\]]*\])?\s*\{", text)
    if found is None:
        return ""
    title = re.sub(r"\\thanks\s*\{[^{}]*\}|\\\\", " ", text[found.end() : _closing_brace(text, found.end())])
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
