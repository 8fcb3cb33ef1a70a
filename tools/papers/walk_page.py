"""What a page of a walk says: papers, citations, what is missing and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

from mlintern.tools.cursors import make_cursor
from mlintern.tools.papers.paper_results import Edge, FrontierEntry, WalkedPaper, WalkResult, shown_authors
from mlintern.tools.papers.walking import Link, Task, Walk
from mlintern.tools.service_status import SourceReport, overall

_FRONTIER_SHOWN = 10
_MOST_EDGES = 100


def page_result(
    walk: Walk, names: Sequence[str], *, number: int, reports: dict[str, SourceReport], calls: int, year: int
) -> WalkResult:
    """Page ``number`` of ``walk``: the papers ``names``, after ``calls`` requests that went as ``reports`` say."""
    open_tasks = walk.pending(year, continued=True)
    told = list((reports or walk.reports).values())
    more = bool(open_tasks) or bool(walk.unshown()) or number + 1 < len(walk.pages)
    status = overall(told)
    failures = [report for report in told if report.status not in ("ok", "not_found")]
    if status not in ("ok", "partial") and names:
        status = "partial"
    elif status == "partial" and not names and failures:
        status = overall(failures)  # that the seed was found elsewhere is no answer
    following = number + 1 if names else number
    cursor = make_cursor([walk.walk_id, following], "walk_citations") if more else None
    edges = _edges_of(walk, names)
    return WalkResult(
        status=status,
        sources=told,
        walk_id=walk.walk_id,
        seed=walk.nodes[next(iter(walk.nodes))].paper.key,
        papers=[_shown(walk, name, year) for name in names],
        edges=edges[:_MOST_EDGES],
        edges_total=len(walk.links),
        papers_total=sum(1 for _ in walk.visible()),
        frontier=_frontier(walk, open_tasks, year),
        frontier_total=len({task.node for task in open_tasks}),
        calls=calls,
        next_cursor=cursor,
        graph=f"mlintern://graphs/{walk.walk_id}",
        notes=[*walk.notes, *_advice(walk, told, status, bool(names), len(edges))],
    )


def _edges_of(walk: Walk, names: Sequence[str]) -> list[Edge]:
    shown = set(names)
    return [
        Edge(
            citing=walk.nodes[link.citing].paper.key if walk.nodes[link.citing].paper.keys else link.citing,
            cited=walk.nodes[link.cited].paper.key if walk.nodes[link.cited].paper.keys else link.cited,
            influential=link.influential,
            intents=list(link.intents),
            contexts=list(link.contexts),
            source=link.source,
        )
        for link in walk.links.values()
        if _belongs(walk, link, shown)
    ]


def _belongs(walk: Walk, link: Link, shown: set[str]) -> bool:
    """Whether ``link`` led to a paper of the page, or joins two of them."""
    citing, cited = walk.nodes[link.citing].depth, walk.nodes[link.cited].depth
    reached = link.citing if citing > cited else link.cited
    return reached in shown if citing != cited else {link.citing, link.cited} <= shown


def _shown(walk: Walk, name: str, year: int) -> WalkedPaper:
    node = walk.nodes[name]
    paper = node.paper
    return WalkedPaper(
        paper_id=paper.key if paper.keys else name,
        title=paper.title,
        authors=shown_authors(paper.authors),
        year=paper.year,
        citations=paper.citations,
        depth=node.depth,
        score=round(walk.score(name, year), 3),
        url=paper.url,
    )


def _frontier(walk: Walk, tasks: Sequence[Task], year: int) -> list[FrontierEntry]:
    names = list(dict.fromkeys(task.node for task in tasks))[:_FRONTIER_SHOWN]
    return [
        FrontierEntry(
            paper_id=walk.nodes[name].paper.key,
            title=walk.nodes[name].paper.title,
            score=round(walk.score(name, year), 3),
        )
        for name in names
    ]


def _advice(walk: Walk, reports: Sequence[SourceReport], status: str, has_papers: bool, edges: int) -> list[str]:
    """What is missing, why, and what to do next."""
    notes: list[str] = []
    untold = walk.untold()
    if untold:
        notes.append(f"{untold} papers are not shown: the year or the citations that a filter needs are not known.")
    if edges > _MOST_EDGES:
        notes.append(
            f"Cut: {edges} citations belong to this page; the first {_MOST_EDGES} are here, all are in the graph."
        )
    begun = next((task for task in walk.tasks if task.direction == "citations" and task.position.isdigit()), None)
    if begun is not None and not begun.done and walk.nodes[begun.node].depth == 0:
        notes.append(
            f"Ranked are the newest {int(begun.position):,} citations, as Semantic Scholar lists them; next_cursor "
            "goes on to older ones."
        )
    missing = [report for report in reports if report.status not in ("ok", "not_found")]
    waits = [report.retry_after_seconds for report in missing if report.retry_after_seconds is not None]
    when = f"in {max(1, round(min(waits)))} s" if waits else "later"
    listed = ", ".join(f"{report.name} ({report.status})" for report in missing)
    if missing and walk.pending(year=0, continued=True):
        notes.append(f"Without {listed}. Go on {when} with cursor=next_cursor: what is known is not asked for again.")
    elif missing and has_papers:
        notes.append(f"Without {listed}: what it alone knows (influence, intents, contexts) may be missing.")
    elif status == "not_found":
        notes.append("No source knows this paper's neighbours. Check the id, or search for its title.")
    elif not has_papers and not missing:
        notes.append("Every source answered, and there are no such papers; loosen the filters or change direction.")
    return notes
