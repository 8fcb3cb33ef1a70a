"""Where the text of a paper comes from: the best source that has it, and an honest word about the others.

arXiv HTML, then ar5iv, then Hugging Face's Markdown, then the LaTeX source, then the PDF, then the abstract. A source
that does not say which version it shows (ar5iv, Hugging Face) is not used when a version was asked for: a
substitution is never made.
"""

from __future__ import annotations

import io
import re
import tarfile
import zlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import ParamSpec

from mlintern.tools.errors import BadInput, MissingDependency, NotFound, ServiceError
from mlintern.tools.papers.document import Document
from mlintern.tools.papers.ids import PaperId, parse_id
from mlintern.tools.papers.other_formats import read_latex, read_markdown
from mlintern.tools.papers.paper import Paper
from mlintern.tools.papers.pdf import read_pdf
from mlintern.tools.papers.reader import is_paper, read_latexml
from mlintern.tools.papers.sources.arxiv import ArxivSource
from mlintern.tools.papers.sources.openalex import OpenAlexSource
from mlintern.tools.papers.sources.semantic_scholar import SemanticScholarSource
from mlintern.tools.sandbox import worker
from mlintern.tools.service_status import SourceReport, answered, failed
from mlintern.tools.web import DAY, FOREVER, Web

P = ParamSpec("P")

_MOST_SOURCE_BYTES = 60 << 20
_MOST_FILE_BYTES = 4 << 20
_KEPT = 8
_KINDS_OF_TEX = (".tex", ".bbl", ".ltx")
_PROBLEMS = (ServiceError, NotFound, MissingDependency)
_FULL_TEXTS = ("arxiv_html", "ar5iv", "hf_markdown", "latex", "pdf")


@dataclass(frozen=True)
class Text:
    """A paper's text and what it took to get it. ``document`` is None if no source had anything."""

    name: PaperId
    document: Document | None
    sources: tuple[SourceReport, ...]


class Texts:
    """Fetches and reads papers; keeps the last few in memory, so that paging does not read them again."""

    def __init__(
        self, web: Web, *, arxiv: ArxivSource, semantic_scholar: SemanticScholarSource, openalex: OpenAlexSource
    ) -> None:
        self._web = web
        self._arxiv = arxiv
        self._semantic_scholar = semantic_scholar
        self._openalex = openalex
        self._read: OrderedDict[str, Text] = OrderedDict()

    async def get(self, name: PaperId) -> Text:
        """The text of ``name`` from the first source that has it. Failures are in ``sources``, never raised."""
        known = self._read.get(str(name))
        if known is not None:
            self._read.move_to_end(str(name))
            return known
        text = await (self._by_arxiv(name) if name.kind == "arxiv" else self._by_other(name))
        complete = text.document is not None and text.document.source in _FULL_TEXTS
        if complete or all(report.status in ("ok", "not_found") for report in text.sources):
            self._read[str(name)] = text
            while len(self._read) > _KEPT:
                self._read.popitem(last=False)
        return text

    async def bibliography(self, name: PaperId) -> Text:
        """Like `get`, but only sources whose bibliography can be told apart: for the citation walk."""
        known = self._read.get(str(name))
        if known is not None:
            return known
        return await self._first(
            name, [step for step in self._steps(name) if step[0] in ("arxiv_html", "ar5iv", "latex")]
        )

    async def _by_arxiv(self, name: PaperId) -> Text:
        return await self._first(name, [*self._steps(name), ("abstract", self._abstract)])

    def _steps(self, name: PaperId) -> list[tuple[str, Callable[[PaperId], Awaitable[Document]]]]:
        steps: list[tuple[str, Callable[[PaperId], Awaitable[Document]]]] = [("arxiv_html", self._html)]
        if name.version is None:
            steps += [("ar5iv", self._ar5iv), ("hf_markdown", self._markdown)]
        return [*steps, ("latex", self._latex), ("pdf", self._pdf)]

    async def _first(self, name: PaperId, steps: list[tuple[str, Callable[[PaperId], Awaitable[Document]]]]) -> Text:
        reports: list[SourceReport] = []
        for label, step in steps:
            try:
                document = await step(name)
            except _PROBLEMS as error:
                reports.append(failed(label, error))
                continue
            reports.append(answered(label))
            return Text(name, document, tuple(reports))
        return Text(name, None, tuple(reports))

    async def _by_other(self, name: PaperId) -> Text:
        """A paper named by a DOI or a graph's id: its arXiv text if it has one, else its open PDF, else abstract."""
        reports: list[SourceReport] = []
        paper: Paper | None = None
        for label, look_up in (("semantic_scholar", self._semantic_scholar.paper), ("openalex", self._in_openalex)):
            try:
                paper = await look_up(name)
            except (ServiceError, NotFound) as error:
                reports.append(failed(label, error))
                continue
            reports.append(answered(label))
            break
        if paper is None:
            return Text(name, None, tuple(reports))
        if paper.arxiv_id is not None:
            twin = await self._by_arxiv(parse_id(paper.arxiv_id))
            return replace(twin, sources=(*reports, *twin.sources))
        if paper.pdf_url:
            try:
                document = await self._open_pdf(paper)
            except (*_PROBLEMS, BadInput) as error:
                reports.append(failed("pdf", error))
            else:
                return Text(name, document, (*reports, answered("pdf")))
        return Text(name, _only_abstract(paper), tuple(reports))

    async def _in_openalex(self, name: PaperId) -> Paper:
        return await self._openalex.work(name.key)

    # The sources ----------------------------------------------------------------------------------------------------

    async def _html(self, name: PaperId) -> Document:
        return await self._latexml("arxiv", name, "arxiv_html", age=DAY if name.version is None else FOREVER)

    async def _ar5iv(self, name: PaperId) -> Document:
        return await self._latexml("ar5iv", name, "ar5iv", age=30 * DAY)

    async def _latexml(self, service: str, name: PaperId, source: str, *, age: float) -> Document:
        answer = await self._web.get(service, f"html/{name.versioned}", expect="html", cache=age)
        if not is_paper(answer.body):
            raise NotFound(
                f"{source} has no text of {name.versioned}: the page is a stub or a conversion that failed.",
                next_step="Another source is tried.",
            )
        document = await _read(read_latexml, answer.body, source=source)
        if not any(section.text for section in document.sections if section.id not in ("bib", "front")):
            raise NotFound(
                f"{source} has a page for {name.versioned} without a text: the conversion lost it.",
                next_step="Another source is tried.",
            )
        version = document.version or _version_in(answer.url)
        if name.version is not None and version not in (None, name.version):
            raise NotFound(
                f"{source} has version {version} of {name.value}, not version {name.version}.",
                next_step="Another source is tried.",
            )
        return replace(document, version=version or name.version)

    async def _markdown(self, name: PaperId) -> Document:
        answer = await self._web.get("huggingface", f"papers/{name.value}.md", cache=DAY)
        if answer.headers.get("content-type", "").startswith("text/html") or len(answer.body) < 500:
            raise NotFound(f"Hugging Face has no text of {name.value}.", next_step="Another source is tried.")
        return await _read(read_markdown, answer.text)

    async def _latex(self, name: PaperId) -> Document:
        answer = await self._web.get("arxiv", f"src/{name.versioned}", cache=DAY if name.version is None else FOREVER)
        document = await _read(read_source, answer.body)
        return replace(document, version=name.version)

    async def _pdf(self, name: PaperId) -> Document:
        answer = await self._web.get("arxiv", f"pdf/{name.versioned}", cache=DAY if name.version is None else FOREVER)
        document = await _read(read_pdf, answer.body)
        return replace(await self._with_names(document, name), version=name.version)

    async def _with_names(self, document: Document, name: PaperId) -> Document:
        """``document`` with title, authors and abstract of arXiv's API, which a PDF does not tell apart."""
        try:
            found = await self._arxiv.look_up([name.versioned])
        except _PROBLEMS:
            return document
        if not found:
            return document
        return replace(document, title=found[0].title, abstract=found[0].abstract, authors=found[0].authors)

    async def _open_pdf(self, paper: Paper) -> Document:
        answer = await self._web.get("web", paper.pdf_url, max_bytes=64 << 20, timeout=60.0, cache=30 * DAY)
        document = await _read(read_pdf, answer.body)
        return replace(document, title=paper.title or document.title, abstract=paper.abstract, authors=paper.authors)

    async def _abstract(self, name: PaperId) -> Document:
        found = await self._arxiv.look_up([name.versioned])
        if not found:
            raise NotFound(f"arXiv has no paper {name.versioned}.", next_step="Check the id, or use search_papers.")
        return replace(_only_abstract(found[0]), version=name.version)


async def _read(function: Callable[P, Document], *args: P.args, **kwargs: P.kwargs) -> Document:
    """``function`` in the worker: what others wrote may take it down, or for ever.

    Raises:
        ServiceError: the text takes more memory or time than reading may.
    """
    try:
        return await worker.run(function, *args, **kwargs)
    except worker.TooMuch as error:
        raise ServiceError(f"The text cannot be read: {error.message}", service="papers", next_step="") from error


def read_source(data: bytes) -> Document:
    """The paper in what arXiv serves as its LaTeX source; raises as `unpack_source`."""
    return read_latex(unpack_source(data))


def _version_in(url: str) -> int | None:
    """The version in the address that a page came from, where the site led to one."""
    found = re.search(r"\d{4}\.\d{4,5}v(\d+)", url)
    return int(found[1]) if found else None


def _only_abstract(paper: Paper) -> Document:
    return Document(source="abstract", title=paper.title, abstract=paper.abstract, sections=(), authors=paper.authors)


def unpack_source(data: bytes) -> dict[str, str]:
    """The TeX files in what arXiv serves as source: a gzipped tar, a gzipped file, or a plain file.

    Only texts are kept, each of at most 4 MiB; reading stops at 60 MiB, so a bomb does no harm.

    Raises:
        NotFound: the source is a PDF, or holds no TeX.
        ServiceError: it is damaged.
    """
    if data.startswith(b"%PDF"):
        raise NotFound("This paper was submitted as PDF; it has no LaTeX source.", next_step="The PDF is read.")
    try:
        plain = _gunzip(data) if data[:2] == b"\x1f\x8b" else data
        files = _untar(plain)
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise ServiceError(
            f"The LaTeX source is damaged: {error}.", service="arxiv", next_step="Try again later."
        ) from error
    if files is None:
        files = {"main.tex": plain.decode("utf-8", "replace")}
    if not any("\\begin{document}" in text for text in files.values()):
        raise NotFound("The source of this paper holds no LaTeX document.", next_step="The PDF is read.")
    return files


def _gunzip(data: bytes) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    return stream.decompress(data, _MOST_SOURCE_BYTES)


def _untar(data: bytes) -> dict[str, str] | None:
    """Texts by name; None if ``data`` is no tar. Nothing is written to disk, so no name in it can do harm."""
    if len(data) < 512 or data[257:262] != b"ustar":
        return None
    files: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for member in archive:
            if not member.isfile() or not member.name.endswith(_KINDS_OF_TEX) or member.size > _MOST_FILE_BYTES:
                continue
            stream = archive.extractfile(member)
            if stream is not None:
                files[member.name.removeprefix("./")] = stream.read().decode("utf-8", "replace")
    return files
