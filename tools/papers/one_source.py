"""Searches of one source that have no pages: passages of full texts, and the daily papers of Hugging Face."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mlintern.tools.papers import paper_results
from mlintern.tools.papers.paper import Paper
from mlintern.tools.papers.query import Query
from mlintern.tools.papers.ranking import answers
from mlintern.tools.papers.search import Ranking, fuse, passes, side_by_side
from mlintern.tools.papers.sources import Found
from mlintern.tools.papers.sources.hf_papers import HuggingFacePapersSource
from mlintern.tools.papers.sources.semantic_scholar import SemanticScholarSource
from mlintern.tools.service_status import SourceReport, answered, failed

_DAILY_PAGES = 3


async def find_passages(
    query: Query, limit: int, *, source: SemanticScholarSource, deadline: float
) -> paper_results.SearchResult:
    """Passages by paper, with the ids and years that the passage search does not give looked up in one batch."""

    async def ask() -> Found:
        return await source.passages(query, limit=limit)

    answer = (await side_by_side({"semantic_scholar": ask}, deadline))["semantic_scholar"]
    ranking = Ranking(query)
    report = answered("semantic_scholar") if isinstance(answer, Found) else failed("semantic_scholar", answer)
    papers: list[Paper] = []
    if isinstance(answer, Found):
        papers = await _with_records(fuse({"semantic_scholar": answer}, ranking), source, deadline)
        papers = [paper for paper in papers if all(passes(paper, query, name) for name in query.filters)]
    hint = (
        []
        if report.status == "ok"
        else [
            "Passages are found at Semantic Scholar only. search_papers with "
            "mode='papers' and then read_paper with find work without it."
        ]
    )
    return paper_results.SearchResult(
        status=report.status,
        sources=[report],
        items=[paper_results.item_of(paper) for paper in papers[:limit]],
        total=None,
        next_cursor=None,
        query=query.words,
        notes=[*hint, *advice(report.status, [report], has_items=bool(papers), has_more=False)],
    )


async def _with_records(papers: list[Paper], source: SemanticScholarSource, deadline: float) -> list[Paper]:
    keys = [paper.key for paper in papers if paper.keys]
    answer = (await side_by_side({"batch": lambda: source.batch(keys)}, deadline))["batch"]
    if not isinstance(answer, tuple):
        return papers
    known = {key: paper for paper in answer[0] if paper is not None for key in paper.keys}
    better = []
    for paper in papers:
        record = known.get(paper.key)
        better.append(paper if record is None else dataclasses.replace(record, passages=paper.passages))
    return better


async def daily_papers(
    query: Query, limit: int, *, source: HuggingFacePapersSource, deadline: float
) -> paper_results.SearchResult:
    """The daily papers; with a query, those that hold any of its words, closest first."""
    wanted = query.terms.key
    pages = range(_DAILY_PAGES if wanted or query.filters else 1)
    papers: list[Paper] = []
    report: SourceReport = answered("hf_papers")
    for number in pages:
        calls = {"hf_papers": lambda number=number: source.daily(page=number, limit=100)}
        answer = (await side_by_side(calls, deadline))["hf_papers"]
        if not isinstance(answer, Found):
            report = failed("hf_papers", answer)
            break
        papers += answer.papers
        if answer.next_position is None:
            break
    papers = [paper for paper in papers if all(passes(paper, query, name) for name in query.filters)]
    if wanted:
        judged = answers(query.text, papers)
        papers = [
            dataclasses.replace(paper, why=how.why)
            for paper, how in sorted(zip(papers, judged, strict=True), key=lambda pair: -pair[1].score)
            if how.why
        ]
    notes = ["The daily papers are arXiv papers that people submitted to Hugging Face."]
    unknown = query.filters & {"min_citations", "categories"}
    if unknown:
        notes.append(f"The daily papers tell nothing about {' and '.join(sorted(unknown))}: none could be kept.")
    if len(papers) > limit:
        notes.append(f"Cut: {len(papers) - limit} more; raise limit (up to 50) or give a query.")
    return paper_results.SearchResult(
        status="partial" if report.status != "ok" and papers else report.status,
        sources=[report],
        items=[paper_results.item_of(paper) for paper in papers[:limit]],
        total=len(papers),
        next_cursor=None,
        query=query.words,
        notes=[*notes, *advice(report.status, [report], has_items=bool(papers), has_more=False)],
    )


def advice(status: str, reports: Sequence[SourceReport], *, has_items: bool, has_more: bool) -> list[str]:
    """What to do next, where something is missing."""
    waits = [report.retry_after_seconds for report in reports if report.retry_after_seconds is not None]
    if status == "ok":
        return [] if has_items else ["Nothing matches, and every source answered. Use fewer or other words."]
    missing = ", ".join(f"{report.name} ({report.status})" for report in reports if report.status != "ok")
    when = f" in {max(1, round(min(waits)))} s" if waits else " later"
    if status == "partial":
        how = "the next page asks them again" if has_more else f"ask again{when}"
        return [f"Without {missing}: {how}."]
    return [f"No source answered: {missing}. This says nothing about what exists; ask again{when}."]
