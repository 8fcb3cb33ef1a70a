"""Whom to ask for the neighbours of a paper.

References come from Semantic Scholar, else from the bibliography of the arXiv HTML; never from OpenAlex, whose list
is empty for preprints. Citations come from Semantic Scholar, else from OpenAlex. Similar papers are recommendations
of Semantic Scholar, else a search by title.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mlintern.tools.errors import MlinternError, NotFound, ServiceError
from mlintern.tools.papers.document import Reference
from mlintern.tools.papers.ids import parse_id
from mlintern.tools.papers.paper import Paper, page_of
from mlintern.tools.papers.sources.openalex import MOST_DOIS, OpenAlexSource
from mlintern.tools.papers.sources.semantic_scholar import BATCH_SIZE, Cited, SemanticScholarSource, reference
from mlintern.tools.papers.text_sources import Texts
from mlintern.tools.papers.walking import Task, Walk
from mlintern.tools.service_status import SourceReport, answered, failed

FindSimilar = Callable[[str], Awaitable[tuple[list[Paper], list[SourceReport]]]]
Reports = dict[str, SourceReport]
"""What each source did for one page, by name."""

_SEED_PAGE = 1000
_NEIGHBOUR_PAGE = 100
_SIMILAR = 100
_PASSING = ("rate_limited", "offline", "error")
"""Failures after which asking again later makes sense, so that the task stays open."""


class Neighbours:
    """Asks the sources for what stands around a paper and puts it into a `Walk`."""

    def __init__(
        self,
        *,
        semantic_scholar: SemanticScholarSource,
        openalex: OpenAlexSource,
        texts: Texts,
        find_similar: FindSimilar,
    ) -> None:
        self._semantic_scholar = semantic_scholar
        self._openalex = openalex
        self._texts = texts
        self._find_similar = find_similar

    async def meet_seed(self, walk: Walk, reports: Reports) -> None:
        """Learn the seed's title and other ids from a source that knows it."""
        name = parse_id(walk.request.seed)

        async def by_openalex() -> Paper:
            return await self._openalex.work(name.key)

        async def by_semantic_scholar() -> Paper:
            return await self._semantic_scholar.paper(name)

        for label, ask in (("semantic_scholar", by_semantic_scholar), ("openalex", by_openalex)):
            try:
                paper = await ask()
            except MlinternError as error:
                _report(reports, failed(label, error))
                continue
            _report(reports, answered(label))
            walk.add(paper, depth=0, met_at="")
            walk.seed_known = True
            return

    async def expand(self, walk: Walk, task: Task, *, reports: Reports) -> bool:
        """Ask for one page of neighbours; True if it was given, False if the task is to wait for another day."""
        ask = {"references": self._references, "citations": self._citations, "similar": self._similar}[task.direction]
        try:
            await ask(walk, task, reports)
        except MlinternError as error:
            if not isinstance(error, ServiceError) or error.status not in _PASSING:
                task.done = True  # nobody has it; asking again would not help
            return False
        return True

    async def _references(self, walk: Walk, task: Task, reports: Reports) -> None:
        first = not task.position
        try:
            if await self._by_semantic_scholar(walk, task, reports) or not first:
                return
            missing: MlinternError = NotFound(f"Semantic Scholar lists no references of {task.node}.")
        except (ServiceError, NotFound) as error:
            if not first:
                raise
            missing = error
        await self._by_bibliography(walk, task, reports, missing)

    async def _by_semantic_scholar(self, walk: Walk, task: Task, reports: Reports) -> bool:
        """One page of edges; whether there was any."""
        paper = walk.nodes[task.node].paper
        call = getattr(self._semantic_scholar, task.direction)
        size = _SEED_PAGE if walk.nodes[task.node].depth == 0 else _NEIGHBOUR_PAGE
        try:
            page = await call(
                _known_to_semantic_scholar(paper),
                offset=int(task.position or 0),
                limit=size,
                abstracts=bool(walk.request.query),  # a query is answered by abstracts
            )
        except (ServiceError, NotFound) as error:
            _report(reports, failed("semantic_scholar", error))
            raise
        _report(reports, answered("semantic_scholar"))
        for edge in page.edges:
            _take(walk, task, edge, source="semantic_scholar")
        if page.cut:
            walk.note(
                f"Semantic Scholar shows 9,999 {task.direction} of a paper at most, the newest first; "
                f"{paper.title or task.node} has more, which cannot be had there."
            )
        task.position = "" if page.next_offset is None else str(page.next_offset)
        task.done = page.next_offset is None
        return bool(page.edges)

    async def _by_bibliography(self, walk: Walk, task: Task, reports: Reports, missing: MlinternError) -> None:
        """The entries printed in the paper itself; raises ``missing`` if that cannot be had either."""
        arxiv_id = walk.nodes[task.node].paper.arxiv_id
        if arxiv_id is None:
            if isinstance(missing, NotFound):
                task.done = True
                return
            raise missing
        text = await self._texts.bibliography(parse_id(arxiv_id))
        for report in text.sources:
            _report(reports, report)
        if text.document is None or not text.document.references:
            failures = [report for report in text.sources if report.status in _PASSING]
            task.done = isinstance(missing, NotFound) and not failures
            if task.done:
                return
            raise (
                missing
                if not isinstance(missing, NotFound)
                else ServiceError(
                    f"The bibliography of {task.node} could not be read.", service="arxiv", next_step="Go on later."
                )
            )
        if walk.nodes[task.node].depth == 0 and not walk.nodes[task.node].paper.title:
            walk.add(Paper(keys=(walk.request.seed,), title=text.document.title), depth=0, met_at="")
        for entry in text.document.references:
            edge = Cited(paper_of_reference(entry))
            if edge.paper.title:
                _take(walk, task, edge, source=text.document.source)
        task.done = True

    async def _citations(self, walk: Walk, task: Task, reports: Reports) -> None:
        if task.source == "openalex":
            await self._by_openalex(walk, task, reports)
            return
        first = not task.position
        try:
            await self._by_semantic_scholar(walk, task, reports)
        except (ServiceError, NotFound) as error:
            if not first:
                raise
            try:
                await self._by_openalex(walk, task, reports)
            except NotFound:
                raise error from None  # OpenAlex does not have it, but who was busy may

    async def _by_openalex(self, walk: Walk, task: Task, reports: Reports) -> None:
        """Who cites the preprint or its published twin, by OpenAlex, where they are two works."""
        position = task.position if task.source == "openalex" else ""
        works, _, cursor = position.partition(" ")
        try:
            if not works:
                works = "|".join(await self._works(walk, task))
            papers, following, _ = await self._openalex.citing(works.split("|"), cursor=cursor or "*")
        except (ServiceError, NotFound) as error:
            _report(reports, failed("openalex", error))
            raise
        _report(reports, answered("openalex"))
        for paper in papers:
            _take(walk, task, Cited(paper), source="openalex")
        task.source, task.position = "openalex", f"{works} {following}" if following else ""
        task.done = following is None

    async def _works(self, walk: Walk, task: Task) -> list[str]:
        """OpenAlex's ids of a paper, each checked against the title that is known."""
        paper = walk.nodes[task.node].paper
        own = [key.removeprefix("openalex:") for key in paper.keys if key.startswith("openalex:")]
        named = [key for key in paper.keys if key.startswith(("arxiv:", "doi:"))]
        found: list[str] = list(own)
        last: MlinternError = NotFound(f"OpenAlex has no name for {task.node}.")
        for key in named[: 2 if not own else 1]:
            try:
                work = await self._openalex.work(key, title=paper.title)
            except NotFound as error:
                last = error
                continue
            found += [other.removeprefix("openalex:") for other in work.keys if other.startswith("openalex:")]
        if not found:
            raise last
        return list(dict.fromkeys(found))

    async def _similar(self, walk: Walk, task: Task, reports: Reports) -> None:
        paper = walk.nodes[task.node].paper
        try:
            papers, _ = await self._semantic_scholar.recommendations(
                _known_to_semantic_scholar(paper), limit=_SIMILAR
            )
        except (ServiceError, NotFound) as error:
            _report(reports, failed("semantic_scholar", error))
            if not paper.title:
                raise
            papers, searched = await self._find_similar(paper.title)
            for report in searched:
                _report(reports, report)
            if not papers:
                raise
            walk.note("Semantic Scholar could not recommend; these are the papers that a search for the title finds.")
        else:
            _report(reports, answered("semantic_scholar"))
        for other in papers:
            if not set(other.keys) & set(paper.keys):
                walk.add(other, depth=1, met_at=task.node)
        task.done = True

    async def look_up(self, walk: Walk, reports: Reports, *, year: int, level: int | None = None) -> None:
        """Fill in what is not known of the papers of ``level``: one request for all of them, not one a paper."""
        bare = [
            name
            for name, node in walk.nodes.items()
            if node.depth > 0
            and level in (None, node.depth)
            and not node.looked_up
            and node.paper.keys
            and node.paper.citations is None
        ]
        best = sorted(bare, key=lambda name: -walk.score(name, year))
        askable = [name for name in best if not walk.nodes[name].paper.key.startswith("openalex:")][:BATCH_SIZE]
        if not askable:
            return
        keys = [walk.nodes[name].paper.key for name in askable]
        try:
            found = [paper for paper in (await self._semantic_scholar.batch(keys))[0] if paper is not None]
            _report(reports, answered("semantic_scholar"))
        except (ServiceError, NotFound) as error:
            _report(reports, failed("semantic_scholar", error))
            askable, keys = askable[:MOST_DOIS], keys[:MOST_DOIS]
            try:
                found, _ = await self._openalex.by_doi(keys)
                _report(reports, answered("openalex"))
            except (ServiceError, NotFound) as other:
                _report(reports, failed("openalex", other))
                return
        for name in askable:
            walk.nodes[name].looked_up = True
        for paper in found:
            known = walk.find(paper)
            if known is not None:
                walk.add(paper, depth=walk.nodes[known].depth, met_at=known)


def paper_of_reference(entry: Reference) -> Paper:
    """A bibliography entry as a paper: with its ids where it names them, else by its title."""
    keys = [f"arxiv:{entry.arxiv}"] if entry.arxiv else []
    keys += [f"doi:{entry.doi}"] if entry.doi else []
    return Paper(
        keys=tuple(keys),
        title=entry.title or entry.text[:200],
        authors=entry.authors,
        year=entry.year,
        published=str(entry.year or ""),
        url=page_of(keys) or entry.url,
    )


def _take(walk: Walk, task: Task, edge: Cited, *, source: str) -> None:
    """Put the far end of ``edge`` and the citation itself into the walk."""
    if walk.request.influential_only and not edge.influential:
        if edge.influential is None:
            walk.note(f"{source} does not tell influential citations from others; what it gave was left out.")
        return
    far = walk.add(edge.paper, depth=walk.nodes[task.node].depth + 1, met_at=task.node)
    citing, cited = (task.node, far) if task.direction == "references" else (far, task.node)
    walk.connect(
        citing,
        cited,
        influential=edge.influential,
        intents=edge.intents,
        contexts=edge.contexts,
        source=source,
        far=far,
    )


def _known_to_semantic_scholar(paper: Paper) -> str:
    """The first key that Semantic Scholar understands.

    Raises:
        NotFound: there is none.
    """
    for key in paper.keys:
        if not key.startswith("openalex:"):
            reference(key)
            return key
    raise NotFound(f"Semantic Scholar has no name for {paper.key}.", next_step="Use a DOI or an arXiv id.")


def _report(reports: Reports, report: SourceReport) -> None:
    """Keep the worst that a source did for this page: one refusal among answers is worth knowing.

    "Not found" gives way to an answer: that one paper is unknown says nothing about the source.
    """
    if "requests of this page are used up" in report.message:
        return  # the walk stopped itself
    known = reports.get(report.name)
    if known is None or known.status == "not_found" or (known.status == "ok" and report.status != "not_found"):
        reports[report.name] = report
