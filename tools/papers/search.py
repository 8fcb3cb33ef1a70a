"""Search in all sources side by side: fused by rank, deduplicated, filtered, in pages that stay put.

A page is cut from a ranking that is kept in the workspace and only ever grows, so a page never shifts, repeats or
skips because a source failed or came back in between. When the ranking runs out, every source is asked from where it
stopped; one that failed before is asked from its start, and what it adds comes after what was already shown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mlintern.common.text import cut_line
from mlintern.tools.errors import BadInput, MlinternError, NotFound, ServiceError
from mlintern.tools.papers import paper_cursors
from mlintern.tools.papers.paper import Paper, Passage, group, merge
from mlintern.tools.papers.query import Query
from mlintern.tools.papers.ranking import WEIGHTS, Weights, answers
from mlintern.tools.papers.sources import Found, SearchSource
from mlintern.tools.papers.sources.arxiv import ArxivSource
from mlintern.tools.papers.sources.semantic_scholar import BATCH_SIZE, SemanticScholarSource
from mlintern.tools.service_status import SourceReport, answered, failed
from mlintern.tools.web import shape_errors

RANK_CONSTANT = 60
"""k of reciprocal rank fusion, 1 / (k + rank) summed over sources (Cormack, Clarke, Buettcher, SIGIR 2009)."""
MOST_ROUNDS = 3
"""How often the sources are asked for one page when filters leave too little of what they give."""
_BATCH = 30
_POOL = 100
"""Papers that each source is asked for at once: what is ranked here must first be here."""
SEEDS, _NEIGHBOURS, _LONGEST_SEED = 3, 100, 60
"""Hits whose citations are followed, papers that each is asked for in a direction, characters of its title."""
Given = TypeVar("Given")
_LOOK_UP = 100


@dataclass
class Ranking:
    """A search under way; what a cursor points at.

    Attributes:
        papers: the fused ranking; only appended to, and an entry only gains keys and sources.
        positions: where each source goes on; None where it has no more.
        offered: how many papers each source has given so far, which is where its ranks go on.
        totals: how many hits each source counts.
        reports: what each source did last.
    """

    query: Query
    papers: list[Paper] = field(default_factory=list)
    positions: dict[str, str | None] = field(default_factory=dict)
    offered: dict[str, int] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    reports: dict[str, SourceReport] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def open(self) -> list[str]:
        return [name for name, position in self.positions.items() if position is not None]


class Search:
    """Asks sources side by side and grows a `Ranking`."""

    def __init__(
        self,
        sources: Sequence[SearchSource],
        *,
        arxiv: ArxivSource,
        semantic_scholar: SemanticScholarSource,
        deadline: float,
        year: int | None = None,
    ) -> None:
        self._year = year
        self._sources = {source.name: source for source in sources}
        self._arxiv = arxiv
        self._semantic_scholar = semantic_scholar
        self._deadline = deadline

    async def grow(self, ranking: Ranking, *, wanted: int) -> None:
        """Ask until ``ranking`` holds ``wanted`` papers or the sources have no more."""
        reports: dict[str, SourceReport] = {}
        for _ in range(MOST_ROUNDS):
            names = [name for name in ranking.open if reports.get(name, answered(name)).status == "ok"]
            if len(ranking.papers) >= wanted or not names:
                break
            size = _POOL if ranking.query.sort == "relevance" else max(_BATCH, 2 * (wanted - len(ranking.papers)))
            size = min(_POOL, size)
            found = await self._round(ranking, names, size, reports)
            fresh = fuse(found, ranking)
            for name, page in found.items():
                ranking.positions[name] = page.next_position
                ranking.offered[name] = ranking.offered.get(name, 0) + len(page.papers)
                if page.total is not None:
                    ranking.totals[name] = page.total
            unapplied = frozenset[str]().union(*(page.unapplied for page in found.values()))
            kept = await self._filtered(ranking, fresh, unapplied)
            ranking.papers += await self._ordered(kept, ranking.query)
        ranking.reports.update(reports)

    async def expand(self, ranking: Ranking) -> None:
        """Add what the best hits cite and what cites them, and rank all of it by the question.

        For a ranking of which nothing was shown yet. A paper says by which hit it was found.
        """
        import anyio

        seeds = [paper for paper in ranking.papers if _known_to_semantic_scholar(paper)][:SEEDS]
        calls = {
            (place, direction): partial(
                getattr(self._semantic_scholar, direction),
                _known_to_semantic_scholar(seed),
                limit=_NEIGHBOURS,
                abstracts=True,
            )
            for place, seed in enumerate(seeds)
            for direction in ("references", "citations")
        }
        answers = await side_by_side({f"{place} {way}": call for (place, way), call in calls.items()}, self._deadline)
        near: list[Paper] = []
        ways: dict[str, list[str]] = {}
        for (place, way), answer in zip(calls, answers.values(), strict=True):
            if isinstance(answer, MlinternError):
                ranking.reports["semantic_scholar"] = failed("semantic_scholar", answer)
                _note(ranking, f"The {way} of {seeds[place].title!r} could not be asked: {answer}")
                continue
            said = "cited by" if way == "references" else "cites"
            for edge in answer.edges:
                if edge.paper.keys and edge.paper.title:
                    by = f"{said} {cut_line(seeds[place].title, _LONGEST_SEED)}"
                    ways.setdefault(edge.paper.key, []).append(by)
                    near.append(dataclasses.replace(edge.paper, score=0.0, found_in=("semantic_scholar",)))
        query = ranking.query
        first = len(ranking.papers)
        together = [*ranking.papers, *near]
        fresh = [merge([together[index] for index in indices]) for indices in group(together) if indices[0] >= first]
        fresh = await self._filtered(ranking, fresh, query.filters)
        if not fresh:
            return
        everything = [*ranking.papers, *fresh]
        led = {paper.key: ways.get(paper.key, [])[:2] for paper in fresh}
        ranked = await anyio.to_thread.run_sync(lambda: judged(query.text, everything, year=self._year))
        ranking.papers = [
            dataclasses.replace(paper, why="; ".join(filter(None, [paper.why, *led.get(paper.key, ())])))
            for paper in ranked
            if paper.why or paper.key not in led  # a neighbour that holds no word of the question is none
        ]

    async def _ordered(self, papers: list[Paper], query: Query) -> list[Paper]:
        """``papers`` by how well they answer; how high the sources rank them decides where that is equal."""
        import anyio

        if query.sort != "relevance" or not papers:
            return in_order(papers, query)
        return await anyio.to_thread.run_sync(lambda: judged(query.text, papers, year=self._year))

    async def _round(
        self, ranking: Ranking, names: Sequence[str], size: int, reports: dict[str, SourceReport]
    ) -> dict[str, Found]:
        """One page of each source, in the order of ``names``; failures go to ``reports``, never further."""

        async def ask(name: str) -> Found:
            source = self._sources[name]
            return await source.search(ranking.query, position=ranking.positions[name] or "", limit=size)

        answers = await side_by_side({name: partial(ask, name) for name in names}, self._deadline)
        found: dict[str, Found] = {}
        for name, answer in answers.items():
            if isinstance(answer, MlinternError):
                reports[name] = failed(name, answer)
            else:
                reports[name] = answered(name)
                found[name] = answer
        return found

    async def _filtered(self, ranking: Ranking, papers: list[Paper], unapplied: frozenset[str]) -> list[Paper]:
        """``papers`` that pass the filters. What a source did not apply is applied here; the unknown is told."""
        query = ranking.query
        if "min_citations" in query.filters and any(paper.citations is None for paper in papers):
            papers = await self._with_citations(ranking, papers)
        if "categories" in unapplied and any(not paper.categories for paper in papers):
            papers = await self._with_categories(ranking, papers)
        kept: list[Paper] = []
        unknown: dict[str, int] = {}
        for paper in papers:
            verdicts = {name: passes(paper, query, name) for name in query.filters}
            if all(verdict is True for verdict in verdicts.values()):
                kept.append(paper)
            elif False not in verdicts.values():
                for name in (name for name, verdict in verdicts.items() if verdict is None):
                    unknown[name] = unknown.get(name, 0) + 1
        for name, count in unknown.items():
            _note(ranking, f"{count} papers were left out because their {_SPOKEN[name]} could not be found out.")
        return kept

    async def _with_citations(self, ranking: Ranking, papers: list[Paper]) -> list[Paper]:
        """One batch look-up for all papers whose citations no source told."""
        keys = [paper.key for paper in papers if paper.citations is None and paper.keys][:BATCH_SIZE]
        try:
            found, _ = await self._semantic_scholar.batch([key for key in keys if not key.startswith("openalex:")])
        except (ServiceError, NotFound) as error:
            _note(ranking, f"Citation counts could not be looked up: {error}")
            return papers
        return _joined(papers, [paper for paper in found if paper is not None])

    async def _with_categories(self, ranking: Ranking, papers: list[Paper]) -> list[Paper]:
        """One look-up at arXiv for the papers whose categories no source told."""
        ids = [paper.arxiv_id for paper in papers if not paper.categories and paper.arxiv_id is not None]
        if not ids:
            return papers
        try:
            found = await self._arxiv.look_up(ids[:_LOOK_UP])
        except (ServiceError, NotFound) as error:
            _note(ranking, f"Categories could not be looked up: {error}")
            return papers
        return _joined(papers, found)


async def side_by_side(
    calls: Mapping[str, Callable[[], Awaitable[Given]]], deadline: float
) -> dict[str, Given | MlinternError]:
    """What each call gave or raised; one that is not done after ``deadline`` seconds counts as failed."""
    import anyio

    answers: dict[str, Given | MlinternError] = {}

    async def run(name: str, call: Callable[[], Awaitable[Given]]) -> None:
        try:
            with shape_errors(name, name):
                answers[name] = await call()
        except MlinternError as error:
            answers[name] = error

    with anyio.move_on_after(deadline):
        async with anyio.create_task_group() as tasks:
            for name, call in calls.items():
                tasks.start_soon(run, name, call)
    for name in calls.keys() - answers.keys():
        late = f"{name} did not answer within {deadline:g} s."
        answers[name] = ServiceError(late, service=name, next_step="Try again; answers that came are cached.")
    return {name: answers[name] for name in calls}


def fuse(found: Mapping[str, Found], ranking: Ranking) -> list[Paper]:
    """New papers by reciprocal rank; those already in ``ranking`` gain the new ids and sources there instead."""
    scored = [
        dataclasses.replace(paper, score=1.0 / (RANK_CONSTANT + ranking.offered.get(name, 0) + place))
        for name, page in found.items()
        for place, paper in enumerate(page.papers, 1)
        if paper.title
    ]
    known = len(ranking.papers)
    together = [*ranking.papers, *scored]
    fresh: list[Paper] = []
    for indices in group(together):
        united = merge([together[index] for index in indices])
        if indices[0] < known:
            first = ranking.papers[indices[0]]
            ranking.papers[indices[0]] = dataclasses.replace(united, score=first.score)
        else:
            fresh.append(united)
    return sorted(fresh, key=lambda paper: -paper.score)


def judged(text: str, papers: Sequence[Paper], *, year: int | None, weights: Weights = WEIGHTS) -> list[Paper]:
    """``papers``, each with the score of the sources, by how well they answer ``text``, and why each is there."""
    found = answers(text, papers, year=year, weights=weights)
    highest = max(paper.score for paper in papers) or 1.0
    told = [
        dataclasses.replace(paper, why=how.why, score=round(how.score + weights.sources * paper.score / highest, 6))
        for paper, how in zip(papers, found, strict=True)
    ]
    return sorted(told, key=lambda paper: -paper.score)


def in_order(papers: list[Paper], query: Query) -> list[Paper]:
    """``papers`` as the user wants them sorted; unknown counts and dates come last."""
    if query.sort == "citations":
        return sorted(
            papers, key=lambda paper: (-(paper.citations if paper.citations is not None else -1), -paper.score)
        )
    if query.sort == "date":
        return sorted(papers, key=lambda paper: (paper.published or str(paper.year or ""), paper.score), reverse=True)
    return papers


def passes(paper: Paper, query: Query, name: str) -> bool | None:
    """Whether ``paper`` passes the filter ``name``; None if what it asks is not known."""
    if name == "year":
        if paper.year is None:
            return None
        return (query.year_from or 0) <= paper.year <= (query.year_to or 9999)
    if name == "min_citations":
        return None if paper.citations is None else paper.citations >= (query.min_citations or 0)
    if not paper.categories:
        return None
    # "cs" stands for all of cs.*
    return any(own == asked or own.startswith(f"{asked}.") for own in paper.categories for asked in query.categories)


def save_ranking(folder: Path, state_id: str, *, ranking: Ranking) -> None:
    reports = {name: report.model_dump() for name, report in ranking.reports.items()}
    paper_cursors.save(folder, state_id, state={**dataclasses.asdict(ranking), "reports": reports})


def load_ranking(folder: Path, state_id: str) -> Ranking:
    """The ranking behind a cursor.

    Raises:
        BadInput: it is gone, or was written by another version.
    """
    state = paper_cursors.load(folder, state_id)
    try:
        query = Query(**{**state["query"], "categories": tuple(state["query"]["categories"])})
        papers = [paper_from(record) for record in state["papers"]]
        reports = {name: SourceReport(**record) for name, record in state["reports"].items()}
        return Ranking(query, papers, state["positions"], state["offered"], state["totals"], reports, state["notes"])
    except (KeyError, TypeError) as error:
        raise BadInput("This cursor is from another version.", next_step="Ask again without a cursor.") from error


def paper_from(record: Mapping[str, Any]) -> Paper:
    """The `Paper` that `dataclasses.asdict` wrote and JSON gave back."""
    lists = {name: tuple(value) for name, value in record.items() if isinstance(value, list | tuple)}
    passages = tuple(Passage(**passage) for passage in record["passages"])
    return Paper(**{**record, **lists, "passages": passages})


_SPOKEN = {"year": "year", "min_citations": "number of citations", "categories": "categories"}


def _joined(papers: list[Paper], looked_up: list[Paper]) -> list[Paper]:
    """``papers`` with what a look-up adds; scores and order stay."""
    together = [*papers, *looked_up]
    united = list(papers)
    for indices in group(together):
        for index in (index for index in indices if index < len(papers)):
            extra = [together[other] for other in indices if other >= len(papers)]
            if extra:
                merged = merge([papers[index], *extra])
                united[index] = dataclasses.replace(
                    merged, score=papers[index].score, found_in=papers[index].found_in
                )
    return united


def _known_to_semantic_scholar(paper: Paper) -> str:
    """The key by which Semantic Scholar finds ``paper``; empty if it has no name for it."""
    return next((key for key in paper.keys if key.partition(":")[0] in ("arxiv", "doi", "s2")), "")


def _note(ranking: Ranking, note: str) -> None:
    if note not in ranking.notes:
        ranking.notes.append(note)
