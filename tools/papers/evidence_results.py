"""What `ask_papers` gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlintern.tools.papers.evidence import Evidence, disagreements, passages
from mlintern.tools.papers.ids import PaperId
from mlintern.tools.papers.paper_results import AskResult, Disagreement, EvidencePaper, EvidencePassage, SearchItem
from mlintern.tools.papers.text_sources import Text
from mlintern.tools.service_status import SourceReport, overall

_MOST_DISAGREEMENTS = 5
_ROADBLOCKS = ("rate_limited", "offline", "blocked", "error")


def gathered(
    question: str,
    names: Sequence[PaperId],
    *,
    texts: Sequence[Text],
    reports: Sequence[SourceReport],
    found: Mapping[str, SearchItem],
    limit: int,
) -> AskResult:
    """The passages of ``texts`` that bear on ``question``; what could not be read is told."""
    readable = [text for text in texts if text.document is not None]
    documents = [text.document for text in readable if text.document is not None]
    evidence = passages(question, documents, most=limit)
    told = [*reports, *(report for text in texts for report in text.sources if report.status in _ROADBLOCKS)]
    notes: list[str] = []
    unread = [name.key for name in names[len(texts) :]]
    if unread:
        notes.append(f"Not read for want of time: {', '.join(unread)}. Ask again with these as paper_ids.")
    bare = [text.name.key for text in readable if text.document and text.document.source == "abstract"]
    if bare:
        notes.append(f"Only the abstract could be had of {', '.join(bare)}.")
    if not evidence:
        notes.append(
            "No passage holds words of the question." if readable else "No paper could be read; see sources."
        )
    status = overall(told) if told else ("ok" if readable else "not_found")
    if readable and (status not in ("ok", "partial") or unread):
        status = "partial"

    def shown(one: Evidence) -> EvidencePassage:
        return EvidencePassage(
            paper_id=readable[one.paper].name.key,
            section=one.section.id,
            heading=one.section.heading,
            paragraph=one.block.id,
            page=one.block.page,
            quotation=one.text,
            score=one.score,
        )

    return AskResult(
        status=status,
        sources=told,
        question=question,
        passages=[shown(one) for one in evidence],
        papers=[
            EvidencePaper(
                paper_id=text.name.key,
                title=text.document.title if text.document else "",
                year=found[text.name.key].year if text.name.key in found else None,
                text_source=text.document.source if text.document else None,
                url=text.name.url,
            )
            for text in texts
        ],
        disagreements=[
            Disagreement(terms=list(terms), one=shown(one), other=shown(other))
            for one, other, terms in list(disagreements(evidence))[:_MOST_DISAGREEMENTS]
        ],
        notes=notes,
    )
