"""The three paper tools: `PaperService.search`, `.read` and `.walk`.

Failures of sources are part of the result, never raised; only what the caller got wrong is (`BadInput`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, get_args

import anyio
import anyio.to_thread

from mlintern.common.clock import Clock, iso
from mlintern.tools.cursors import make_cursor, read_cursor
from mlintern.tools.errors import BadInput, NotFound, ServiceError
from mlintern.tools.papers import paper_cursors, paper_results
from mlintern.tools.papers.arguments import check_choice, check_range, chosen_sources, parse_query
from mlintern.tools.papers.citations import Walker
from mlintern.tools.papers.evidence_results import gathered
from mlintern.tools.papers.graph import WalkGraph, draw
from mlintern.tools.papers.ids import parse_id, try_parse_id
from mlintern.tools.papers.neighbours import Neighbours
from mlintern.tools.papers.one_source import advice, daily_papers, find_passages
from mlintern.tools.papers.paper import Paper
from mlintern.tools.papers.query import Query, Sort
from mlintern.tools.papers.reading import read_document
from mlintern.tools.papers.recipe import recipe_of
from mlintern.tools.papers.recipe_results import add_detail, as_bibtex, as_references
from mlintern.tools.papers.resolving import resolve
from mlintern.tools.papers.search import Ranking, Search, load_ranking, save_ranking
from mlintern.tools.papers.sources.arxiv import ArxivSource
from mlintern.tools.papers.sources.hf_papers import HuggingFacePapersSource
from mlintern.tools.papers.sources.openalex import OpenAlexSource
from mlintern.tools.papers.sources.semantic_scholar import SemanticScholarSource
from mlintern.tools.papers.text_sources import Text, Texts
from mlintern.tools.papers.walking import Direction, WalkRequest
from mlintern.tools.service_status import SourceReport, answered, failed, overall
from mlintern.tools.web import Web
from mlintern.tools.workspace import Workspace

Mode = Literal["papers", "citations", "passages"]
Format = Literal["text", "records"]
Part = Literal["text", "recipe", "bibtex"]
SEARCH_DEADLINE = 20.0
"""Seconds after which a search goes on with the sources that have answered."""
WALK_DEADLINE = 40.0
"""Seconds after which a walk stops and hands back a cursor; many hosts give a tool call a minute."""
MOST_ASKED = 8
"""Papers that one question may look through: each is behind a polite wait of three seconds."""
_ASKED_BY_DEFAULT = 4


class PaperService:
    """Papers: found, read and followed along their citations.

    Args:
        web: the way out.
        workspace: keeps rankings and walks, so that a cursor works after a restart.
        clock: for recency and waits.
    """

    def __init__(
        self,
        web: Web,
        workspace: Workspace,
        clock: Clock,
        *,
        search_deadline: float = SEARCH_DEADLINE,
        walk_deadline: float = WALK_DEADLINE,
    ) -> None:
        self._clock = clock
        self._web = web
        self._read_deadline = walk_deadline
        self._searches = workspace.root / "papers" / "searches"
        self._deadline = search_deadline
        self._arxiv = ArxivSource(web)
        self._daily = HuggingFacePapersSource(web)
        self._semantic_scholar = SemanticScholarSource(web)
        openalex = OpenAlexSource(web)
        self._search = Search(
            [self._arxiv, self._daily, self._semantic_scholar, openalex],
            arxiv=self._arxiv,
            semantic_scholar=self._semantic_scholar,
            deadline=search_deadline,
            year=int(iso(clock.now())[:4]),
        )
        self._texts = Texts(web, arxiv=self._arxiv, semantic_scholar=self._semantic_scholar, openalex=openalex)
        neighbours = Neighbours(
            semantic_scholar=self._semantic_scholar,
            openalex=openalex,
            texts=self._texts,
            find_similar=self._find_similar,
        )
        self._walker = Walker(
            workspace.root / "papers" / "walks",
            clock,
            neighbours,
            deadline=walk_deadline,
        )

    async def search(
        self,
        *,
        query: str = "",
        limit: int = 10,
        cursor: str | None = None,
        year_from: int | None = None,
        year_to: int | None = None,
        min_citations: int | None = None,
        categories: Sequence[str] = (),
        sort: Sort = "relevance",
        sources: Sequence[str] = (),
        mode: Mode = "papers",
        trending: bool = False,
    ) -> paper_results.SearchResult:
        """Find papers in arXiv, Hugging Face Papers, Semantic Scholar and OpenAlex at once.

        Args:
            query: words, a title, a sentence, or arXiv's own language (``ti:mamba AND cat:cs.LG``). Empty: the daily
                papers of Hugging Face.
            limit: papers a page, 1 to 50.
            cursor: ``next_cursor`` of the page before; all other arguments but ``limit`` are then ignored.
            year_from: first year of publication.
            year_to: last year of publication.
            min_citations: only papers cited at least so often. Counts that the source does not know are looked up.
            categories: arXiv categories, any of them: ``["cs.CL", "cs.LG"]``, or ``["cs"]`` for all of cs.
            sort: relevance (fused over sources), citations or date; the latter two order what was found.
            sources: a subset of arxiv, hf_papers, semantic_scholar, openalex; all by default.
            mode: "papers"; "citations" for what the best three hits cite and what cites them too, ranked along with
                the hits (six more requests to Semantic Scholar); "passages" for the pieces of full texts that answer
                the query (Semantic Scholar only).
            trending: the daily papers that people look at most; with ``query``, those of them that match.

        Raises:
            BadInput: an argument is out of range or unknown.
        """
        check_range("limit", limit, low=1, high=50)
        if cursor is not None:
            return await self._next_page(cursor, limit)
        asked = parse_query(
            query,
            year_from=year_from,
            year_to=year_to,
            min_citations=min_citations,
            categories=categories,
            sort=sort,
        )
        check_choice("mode", mode, choices=get_args(Mode))
        if trending or not asked.text:
            return await daily_papers(asked, limit, source=self._daily, deadline=self._deadline)
        names = chosen_sources(sources)
        if mode == "passages":
            if "semantic_scholar" not in names:
                raise BadInput(
                    "Passages are found at Semantic Scholar only.",
                    next_step="Leave out sources, or use mode='papers'.",
                )
            return await find_passages(asked, limit, source=self._semantic_scholar, deadline=self._deadline)
        ranking = Ranking(asked, positions=dict.fromkeys(names, ""))
        state_id = hashlib.sha256(repr((asked, names, self._clock.now())).encode()).hexdigest()[:16]
        if mode == "citations" and sort == "relevance":
            await self._search.grow(ranking, wanted=limit)
            await self._search.expand(ranking)
        return await self._page(state_id, ranking, start=0, limit=limit)

    async def read(
        self,
        *,
        paper_id: str,
        section: str | None = None,
        offset: int = 0,
        max_chars: int = 8000,
        find: str | None = None,
        subsections: bool = False,
        format: Format = "text",
        part: Part = "text",
    ) -> paper_results.ReadResult:
        """Read a paper by section.

        Without ``section``: title, abstract and outline. The text comes from arXiv's HTML, else ar5iv, Hugging Face,
        the LaTeX source, the PDF or, at last, the abstract alone; ``text_source`` says which.

        Args:
            paper_id: an arXiv id with or without version (``2305.18290v2``), a DOI, a Semantic Scholar or OpenAlex
                id, or a URL of one of them.
            section: id (``S3.SS2``), number (``3.2``), title or its unique beginning, a paragraph's id
                (``S3.p2``), a table, figure or algorithm by its label (``Table 3``), "abstract" or "references".
            offset: where in the section to begin, in characters (in rows with records): ``next_offset`` of the page
                before.
            max_chars: the most characters of text to give, 200 to 40,000.
            find: a phrase; gives the places where it stands, with section ids (within ``section`` if that is given).
            subsections: read what is inside the section along with it.
            format: "text", or "records" for the tables of the paper, of a section or of one label as rows by heading;
                of "references" the entries, those without an id looked up by their title.
            part: "text"; "recipe" for what was trained on what and how, with the code and models that the paper and
                the Hub name; "bibtex" for the paper as an entry. With section="references": the entries, with the ids
                of those found by their title, beside the recipe or as BibTeX.

        Raises:
            BadInput: the id is none, or the section is unknown or ambiguous.
        """
        check_range("max_chars", max_chars, low=200, high=40_000)
        check_choice("format", format, choices=get_args(Format))
        check_choice("part", part, choices=get_args(Part))
        name = parse_id(paper_id)
        text = await self._texts.get(name)
        if (section or "").casefold() in ("references", "bibliography", "bib"):
            if part != "text" or format == "records":
                return await self._with_references(text, part, offset=offset, max_chars=max_chars)
        elif part == "bibtex":
            return as_bibtex(text, references=False)
        if part == "recipe":
            return await self._recipe(text)
        return read_document(
            text,
            section=section,
            offset=offset,
            max_chars=max_chars,
            find=find,
            subsections=subsections,
            records=format == "records",
        )

    async def _with_references(
        self, text: Text, part: Part, *, offset: int, max_chars: int
    ) -> paper_results.ReadResult:
        """The bibliography with ids by title: as entries, as BibTeX, or as entries beside the recipe."""
        found = await resolve(
            text, arxiv=self._arxiv, semantic_scholar=self._semantic_scholar, deadline=self._deadline
        )
        if part == "bibtex":
            return found.report(as_bibtex(found.text, references=True))
        entries = as_references(found.text, offset=offset, max_chars=max_chars)
        if part == "text":
            return found.report(entries)
        result = await self._recipe(found.text)
        result.references, result.next_offset = entries.references, entries.next_offset
        return found.report(result)

    async def _recipe(self, text: Text) -> paper_results.ReadResult:
        """The recipe in the paper, with what the Hub knows about it."""
        result = read_document(text, section=None, offset=0, max_chars=200, find=None, subsections=False)
        result.outline = []
        if text.document is None:
            return result
        document = text.document
        result.recipe = await anyio.to_thread.run_sync(recipe_of, document)
        if text.name.kind != "arxiv":
            return result
        try:
            detail = await self._daily.detail(text.name.value)
        except (ServiceError, NotFound) as error:
            result.sources.append(failed("hf_papers", error))
            result.notes.append("What the Hub knows about the paper could not be asked; sources says why.")
            return result
        result.sources.append(answered("hf_papers"))
        add_detail(result.recipe, detail, hub=self._hub_address())
        return result

    def _hub_address(self) -> str:
        return self._web.endpoint("huggingface").base

    async def ask(self, *, question: str, paper_ids: Sequence[str] = (), limit: int = 8) -> paper_results.AskResult:
        """Passages of full texts that bear on ``question``: evidence with its places, not an answer.

        Args:
            question: what is to be known.
            paper_ids: the papers to look through, at most 8; without them the best that a search finds.
            limit: passages, 1 to 20.

        Raises:
            BadInput: the question is empty, an id is none, or there are too many.
        """
        check_range("limit", limit, low=1, high=20)
        if not question.strip():
            raise BadInput("The question is empty.", next_step="Ask what the papers are to tell.")
        if len(paper_ids) > MOST_ASKED:
            raise BadInput(f"{len(paper_ids)} papers are too many.", next_step=f"Give at most {MOST_ASKED}.")
        names = [parse_id(paper_id) for paper_id in paper_ids]
        reports: list[SourceReport] = []
        found: dict[str, paper_results.SearchItem] = {}
        if not names:
            searched = await self.search(query=question, limit=_ASKED_BY_DEFAULT)
            reports += searched.sources
            found = {item.paper_id: item for item in searched.items}
            names = [name for key in found if (name := try_parse_id(key)) is not None]
        texts: list[Text] = []
        with anyio.move_on_after(self._read_deadline):
            for name in names:
                texts.append(await self._texts.get(name))
        return await anyio.to_thread.run_sync(
            lambda: gathered(question, names, texts=texts, reports=reports, found=found, limit=limit)
        )

    async def walk(
        self,
        *,
        paper_id: str = "",
        direction: Direction = "references",
        depth: int = 1,
        limit: int = 25,
        query: str = "",
        min_citations: int | None = None,
        year_from: int | None = None,
        influential_only: bool = False,
        cursor: str | None = None,
        budget: int = 30,
    ) -> paper_results.WalkResult:
        """Follow a paper's citations.

        Args:
            paper_id: where to begin, in any form that `read` takes.
            direction: references (what it cites), citations (what cites it), both, or similar.
            depth: 1, or 2 for the neighbours of the neighbours.
            limit: papers a page, 1 to 100; best first.
            query: words that bring papers close to them to the front.
            min_citations: show only papers cited at least so often.
            year_from: show only papers from this year on.
            influential_only: follow and show only citations that Semantic Scholar calls influential.
            cursor: ``next_cursor`` of the page before: goes on where that stopped, also after a rate limit, asking
                nothing twice. All other arguments but ``limit`` and ``budget`` are then ignored.
            budget: the most requests this page may take, 1 to 40.

        Raises:
            BadInput: an argument is out of range or unknown.
        """
        check_range("limit", limit, low=1, high=100)
        check_range("budget", budget, low=1, high=40)
        if cursor is not None:
            return await self._walker.go_on(cursor, limit=limit, budget=budget)
        check_range("depth", depth, low=1, high=2)
        check_choice("direction", direction, choices=get_args(Direction))
        request = WalkRequest(
            seed=parse_id(paper_id).key,
            direction=direction,
            depth=1 if direction == "similar" else depth,
            query=query,
            min_citations=min_citations,
            year_from=year_from,
            influential_only=influential_only,
        )
        return await self._walker.begin(request, limit=limit, budget=budget)

    def graph(self, walk_id: str) -> WalkGraph:
        """The whole walk ``walk_id`` as GraphML and as an SVG picture, for ``mlintern://graphs/{walk_id}``.

        Raises:
            BadInput: there is no such walk in the workspace.
        """
        return draw(self._walker.load(walk_id))

    # Search ---------------------------------------------------------------------------------------------------------

    async def _next_page(self, cursor: str, limit: int) -> paper_results.SearchResult:
        state_id, start = read_cursor(cursor, tool="search_papers", request="search_papers", shape=(str, int))
        async with paper_cursors.held(self._searches, state_id):
            return await self._page(state_id, load_ranking(self._searches, state_id), start=start, limit=limit)

    async def _page(self, state_id: str, ranking: Ranking, *, start: int, limit: int) -> paper_results.SearchResult:
        await self._search.grow(ranking, wanted=start + limit)
        reports = list(ranking.reports.values())
        save_ranking(self._searches, state_id, ranking=ranking)
        shown = ranking.papers[start : start + limit]
        more = len(ranking.papers) > start + limit or bool(ranking.open)
        status = overall(reports)
        if status not in ("ok", "partial") and shown:
            status = "partial"
        following = make_cursor([state_id, start + len(shown)], "search_papers") if more else None
        notes = [*ranking.notes, *advice(status, reports, has_items=bool(shown), has_more=following is not None)]
        if ranking.query.sort == "citations" and "arxiv" in ranking.positions:
            notes.append("arXiv and Hugging Face cannot sort by citations: what they found is sorted among the rest.")
        return paper_results.SearchResult(
            status=status,
            sources=reports,
            items=[paper_results.item_of(paper) for paper in shown],
            total=max([*ranking.totals.values(), len(ranking.papers)]) if ranking.totals else None,
            next_cursor=following,
            query=ranking.query.words,
            notes=notes,
        )

    async def _find_similar(self, title: str) -> tuple[list[Paper], list[SourceReport]]:
        """Papers like one with ``title``, where Semantic Scholar cannot recommend: a search by title elsewhere."""
        query = Query(text=title, words=title)
        ranking = Ranking(query, positions=dict.fromkeys(("hf_papers", "openalex", "arxiv"), ""))
        await self._search.grow(ranking, wanted=_SIMILAR)
        return ranking.papers, list(ranking.reports.values())


_SIMILAR = 20
