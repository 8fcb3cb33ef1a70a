"""From a `Document` to what `read_paper` gives back."""

from __future__ import annotations

import re

from mlintern.tools.errors import BadInput
from mlintern.tools.papers.document import Block, Document, Reference, Section, page
from mlintern.tools.papers.paper_results import CitedWork, Match, OutlineEntry, ReadResult, shown_authors
from mlintern.tools.papers.text_sources import Text
from mlintern.tools.service_status import SourceReport, Status, overall

_MOST_MATCHES = 20
_MOST_OUTLINE = 300
_AROUND = 120
_LONGEST_REFERENCE = 400
_CITED_KEY = re.compile(r"\[#([^\]\s]+)\]")
_ROADBLOCKS = ("rate_limited", "offline", "blocked", "error")


def read_document(
    text: Text, *, section: str | None, offset: int, max_chars: int, find: str | None, subsections: bool
) -> ReadResult:
    """The part of ``text`` that was asked for.

    Raises:
        BadInput: the section is unknown or ambiguous, the offset lies outside it, or ``find`` is empty.
    """
    document = text.document
    if document is None:
        return _nothing(text)
    result = ReadResult(
        status=_status(text),
        sources=list(text.sources),
        paper_id=text.name.key,
        version=document.version,
        text_source=document.source,
        title=document.title,
        authors=shown_authors(document.authors),
        abstract=document.abstract if section is None and find is None else "",
        outline=[],
        references=[],
        references_total=len(document.references),
        license=document.license,
        url=text.name.url,
        notes=_notes(text, document),
    )
    if find is not None:
        return _found(result, document, find, section)
    if section is None:
        return _outlined(result, document)
    return _paged(result, document, section, offset=offset, max_chars=max_chars, subsections=subsections)


def cited_work(reference: Reference) -> CitedWork:
    """A bibliography entry as it is shown."""
    key = f"arxiv:{reference.arxiv}" if reference.arxiv else f"doi:{reference.doi}" if reference.doi else ""
    cut = (
        reference.text if len(reference.text) <= _LONGEST_REFERENCE else f"{reference.text[:_LONGEST_REFERENCE]} ..."
    )
    return CitedWork(
        key=reference.key,
        text=cut,
        title=reference.title,
        year=reference.year,
        paper_id=key,
        arxiv=reference.arxiv,
        doi=reference.doi,
        url=reference.url,
    )


def _outlined(result: ReadResult, document: Document) -> ReadResult:
    result.outline = [_entry(section) for section in document.sections[:_MOST_OUTLINE]]
    if len(document.sections) > _MOST_OUTLINE:
        result.notes.append(
            f"Cut: the outline has {len(document.sections)} entries; the first {_MOST_OUTLINE} are here."
        )
    if document.sections:
        result.notes.append("Read a section by its id or number: read_paper(paper_id, section='...').")
    return result


def _paged(
    result: ReadResult, document: Document, wanted: str, *, offset: int, max_chars: int, subsections: bool
) -> ReadResult:
    if wanted.strip().casefold() == "abstract" and document.abstract:
        section, block, whole = Section("abstract", "", "Abstract", 1, ()), None, document.abstract
    elif not document.sections:
        raise BadInput(
            f"Only the abstract of {result.paper_id} could be had, so there is no section {wanted!r}.",
            next_step="Read it with section='abstract', or ask again later; `sources` says what failed.",
        )
    else:
        section, block = document.locate(wanted)
        whole = block.text if block is not None else section.text
        if subsections and block is None:
            whole = document.with_descendants(section)
    result.text, result.next_offset = page(whole, offset=offset, max_chars=max_chars)
    result.section = block.id if block is not None else section.id
    result.section_title = section.heading
    result.offset, result.total_chars = offset, len(whole)
    if section in document.sections:
        inside = document.children(section)
        result.subsections = [] if subsections else [_entry(child) for child in inside]
        result.next_section = _following(document, section, skip_inside=subsections)
        if inside and not subsections and block is None:
            result.notes.append(
                "What is inside this section is read by its own id, or at once with subsections=true."
            )
    cited = set(_CITED_KEY.findall(result.text))
    if section.id != "bib":
        result.references = [cited_work(entry) for entry in document.references if entry.key in cited]
    return result


def _found(result: ReadResult, document: Document, phrase: str, wanted: str | None) -> ReadResult:
    if not phrase.strip():
        raise BadInput("find is empty.", next_step="Give the phrase to look for.")
    within = document.locate(wanted)[0] if wanted is not None and document.sections else None
    places = list(document.find(phrase, within=within))
    if within is None and phrase.casefold() in document.abstract.casefold():
        start = document.abstract.casefold().index(phrase.casefold())
        abstract = Section("abstract", "", "Abstract", 1, ())
        places.insert(0, (abstract, Block("abstract", document.abstract), start, start + len(phrase)))
    for section, block, start, end in places[:_MOST_MATCHES]:
        whole = document.abstract if section.id == "abstract" else section.text
        around = whole[max(0, start - _AROUND) : end + _AROUND]
        result.matches.append(
            Match(section=section.id, heading=section.heading, paragraph=block.id, offset=start, text=around)
        )
    result.matches_total = len(places)
    if len(places) > _MOST_MATCHES:
        result.notes.append(f"Cut: {len(places)} places; the first {_MOST_MATCHES} are here. Narrow it with section.")
    if not places:
        where = f"the text from {document.source}" if document.sections else "the abstract, which is all there is"
        result.notes.append(f"The phrase does not stand in {where}; other words may.")
    return result


def _nothing(text: Text) -> ReadResult:
    """No source had anything: what is true, and what to do next."""
    waits = [report.retry_after_seconds for report in text.sources if report.retry_after_seconds is not None]
    status = _status(text)
    if status == "not_found":
        advice = "No source knows this paper. Check the id, or look for its title with search_papers."
    else:
        when = f"in {max(1, round(min(waits)))} s" if waits else "later"
        advice = f"No source could be read, which says nothing about the paper. Ask again {when}; `sources` says why."
    return ReadResult(
        status=status,
        sources=list(text.sources),
        paper_id=text.name.key,
        version=text.name.version,
        text_source=None,
        title="",
        authors=[],
        abstract="",
        outline=[],
        references=[],
        url=text.name.url,
        notes=[advice],
    )


def _status(text: Text) -> Status:
    """ok: a full text. partial: less than there may be, because a better source failed."""
    failures: list[SourceReport] = [report for report in text.sources if report.status in _ROADBLOCKS]
    if text.document is None:
        return overall(failures) if failures else "not_found"
    return "partial" if text.document.source == "abstract" and failures else "ok"


def _notes(text: Text, document: Document) -> list[str]:
    notes = list(document.notes)
    failures = [report for report in text.sources if report.status in _ROADBLOCKS]
    if failures:
        listed = ", ".join(f"{report.name} ({report.status})" for report in failures)
        notes.append(f"Better sources could not be asked: {listed}. This is the text from {document.source}.")
    elif document.source == "abstract":
        notes.append("No source has the full text; this is the abstract alone.")
    if document.source in ("ar5iv", "hf_markdown"):
        notes.append(f"{document.source} does not say which version it shows; it may not be the latest.")
    return notes


def _entry(section: Section) -> OutlineEntry:
    return OutlineEntry(
        id=section.id, number=section.number, title=section.title, level=section.level, chars=len(section.text)
    )


def _following(document: Document, section: Section, *, skip_inside: bool) -> str | None:
    start = document.sections.index(section)
    for other in document.sections[start + 1 :]:
        if not skip_inside or other.level <= section.level:
            return other.id
    return None
