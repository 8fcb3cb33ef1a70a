"""From a `Document` to what `read_paper` gives back."""

from __future__ import annotations

import re

from mlintern.common.text import cut, cut_line
from mlintern.tools.errors import BadInput
from mlintern.tools.papers.document import Block, Document, Float, Reference, Section, page
from mlintern.tools.papers.paper_results import (
    CitedWork,
    Match,
    OutlineEntry,
    ReadResult,
    TableRecords,
    shown_authors,
)
from mlintern.tools.papers.tables import Table
from mlintern.tools.papers.text_sources import Text
from mlintern.tools.service_status import SourceReport, Status, overall

_MOST_MATCHES = 20
_MOST_OUTLINE = 300
_AROUND = 120
_LONGEST_REFERENCE = 400
_LONGEST_CAPTION = 120
_CITED_KEY = re.compile(r"\[#([^\]\s]+)\]")
_ROADBLOCKS = ("rate_limited", "offline", "blocked", "error")


def read_document(
    text: Text,
    *,
    section: str | None,
    offset: int,
    max_chars: int,
    find: str | None,
    subsections: bool,
    records: bool = False,
) -> ReadResult:
    """The part of ``text`` that was asked for; with ``records`` its tables by heading.

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
    if records:
        return _recorded(result, document, section, offset=offset, max_chars=max_chars)
    if section is None:
        return _outlined(result, document)
    return _paged(result, document, section, offset=offset, max_chars=max_chars, subsections=subsections)


def cited_work(reference: Reference) -> CitedWork:
    """A bibliography entry as it is shown."""
    ids = (("arxiv", reference.arxiv), ("doi", reference.doi), ("s2", reference.s2))
    key = next((f"{kind}:{value}" for kind, value in ids if value), "")
    text = cut(reference.text, _LONGEST_REFERENCE)
    return CitedWork(
        key=reference.key,
        text=text,
        title=reference.title,
        year=reference.year,
        paper_id=key,
        arxiv=reference.arxiv,
        doi=reference.doi,
        url=reference.url,
    )


def _outlined(result: ReadResult, document: Document) -> ReadResult:
    entries: list[OutlineEntry] = []
    for section in document.sections:
        inside = [one for one in document.floats if one.section == section.id and one.heading]
        entries += [_entry(section), *(_float_entry(one, section.level + 1) for one in inside)]
    result.outline = entries[:_MOST_OUTLINE]
    if len(entries) > _MOST_OUTLINE:
        result.notes.append(f"Cut: the outline has {len(entries)} entries; the first {_MOST_OUTLINE} are here.")
    if document.sections:
        result.notes.append(
            "Read a section by its id or number, a table by its label: read_paper(paper_id, section='Table 1')."
        )
    return result


def _recorded(
    result: ReadResult, document: Document, wanted: str | None, *, offset: int, max_chars: int
) -> ReadResult:
    """The tables of the paper, of a section or of one label as records; ``offset`` counts rows over all of them."""
    chosen = [one for one in document.floats if one.tables]
    if wanted is not None:
        section, block = document.locate(wanted)
        named = document.float_named(wanted)
        within = {section.id, *(one.id for one in document.sections if _is_inside(document, one, section))}
        chosen = [one for one in chosen if (one == named if named else one.section in within)]
        result.section, result.section_title = block.id if block else section.id, section.heading
    seen, left = 0, max_chars
    told: list[Table] = []
    for one in chosen:
        for table in one.tables:
            if any(table is other for other in told):
                continue  # of a part of a figure that was told with the whole
            told.append(table)
            rows = table.records()
            begin = max(0, offset - seen)
            shown: list[dict[str, str]] = []
            for row in rows[begin:]:
                left -= sum(len(key) + len(value) + 6 for key, value in row.items())
                if left < 0 and (shown or result.tables):
                    result.next_offset = seen + begin + len(shown)
                    break
                shown.append(row)
            if shown or not rows:
                result.tables.append(
                    TableRecords(
                        id=one.id,
                        label=one.label,
                        caption=one.caption,
                        section=one.section,
                        columns=list(table.keys),
                        rows=shown,
                        rows_total=len(rows),
                    )
                )
            if result.next_offset is not None:
                return result
            seen += len(rows)
    result.offset, result.total_chars = offset, sum(len(one.text) for one in chosen)
    if not chosen:
        where = "in this part of the paper" if wanted is not None else f"in the text from {document.source}"
        result.notes.append(f"There is no table {where}.")
    return result


def _is_inside(document: Document, section: Section, outer: Section) -> bool:
    above = section.parent
    while above:
        if above == outer.id:
            return True
        above = next((one.parent for one in document.sections if one.id == above), "")
    return False


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
    result.page = block.page if block is not None else _page_at(section, offset)
    if section in document.sections:
        inside = document.children(section)
        result.subsections = [] if subsections else [_entry(child) for child in inside]
        result.next_section = _following(document, section, skip_inside=subsections)
        if inside and not subsections and block is None:
            result.notes.append(
                "What is inside this section is read by its own id, or at once with subsections=true."
            )
    cited = set(_CITED_KEY.findall(result.text))
    result.references = [cited_work(entry) for entry in document.references if entry.key in cited]
    return result


def _page_at(section: Section, offset: int) -> int | None:
    """The page of the block that stands at ``offset`` of the section's text."""
    end = 0
    for block in section.blocks:
        end += len(block.text) + 2
        if offset < end:
            return block.page
    return None


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
            Match(
                section=section.id,
                heading=section.heading,
                paragraph=block.id,
                offset=start,
                page=block.page,
                text=around,
            )
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


def _float_entry(one: Float, level: int) -> OutlineEntry:
    return OutlineEntry(
        id=one.id,
        number="",
        title=cut_line(one.heading, _LONGEST_CAPTION),
        level=level,
        chars=len(one.text),
        kind=one.kind,
    )


def _following(document: Document, section: Section, *, skip_inside: bool) -> str | None:
    start = document.sections.index(section)
    for other in document.sections[start + 1 :]:
        if not skip_inside or other.level <= section.level:
            return other.id
    return None
