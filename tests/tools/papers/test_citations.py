"""Walking citations: ordered, bounded, resumable, and never pretending."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from xml.etree import ElementTree

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.tools.errors import BadInput
from mlintern.tools.papers.paper import Paper
from mlintern.tools.papers.paper_results import WalkResult
from mlintern.tools.papers.service import PaperService
from mlintern.tools.papers.sources.semantic_scholar import SemanticScholarSource
from mlintern.tools.papers.walking import Walk, WalkRequest
from mlintern.tools.web import Web
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services import standin
from tests.services.corpus import Corpus
from tests.tools.papers.conftest import World, open_world

pytestmark = pytest.mark.anyio

SEED = "2301.10000"


def keys(world: World, numbers: Sequence[int]) -> set[str]:
    return {f"arxiv:{world.corpus.entries[number].arxiv}" for number in numbers}


def shown(result: WalkResult) -> set[str]:
    return {paper.paper_id for paper in result.papers}


def requests(world: World) -> int:
    return sum(len(service.seen) for service in world.services)


async def rest(papers: PaperService, result: WalkResult, *, limit: int = 25, budget: int = 30) -> list[WalkResult]:
    """The pages after ``result``."""
    found: list[WalkResult] = []
    while result.next_cursor is not None and len(found) < 30:
        result = await papers.walk(cursor=result.next_cursor, limit=limit, budget=budget)
        found.append(result)
        if not result.papers:
            break
    return found


async def test_references_come_with_intents_contexts_and_influence(papers: PaperService, world: World) -> None:
    result = await papers.walk(paper_id=f"https://arxiv.org/abs/{SEED}v3")
    cited = world.corpus.entries[0].references
    assert result.status == "ok" and shown(result) == keys(world, cited)
    assert {paper.depth for paper in result.papers} == {1}
    edges = {edge.cited: edge for edge in result.edges}
    five = f"arxiv:{world.corpus.entries[5].arxiv}"
    assert edges[five].citing == result.seed == f"arxiv:{SEED}"
    assert edges[five].influential is True and edges[five].intents == ["methodology"]
    assert edges[five].contexts == ["As shown by study 5.", "A second sentence."]
    scores = [paper.score for paper in result.papers]
    assert scores == sorted(scores, reverse=True)


async def test_the_last_page_of_a_hub_is_cut_to_what_semantic_scholar_shows_and_the_walk_says_so(
    papers: PaperService, world: World, web: Web, workspace: Workspace
) -> None:
    """offset + limit stays below 10,000 there: a page that would pass it is answered with 400."""
    some = world.corpus.entries[1]
    world.semantic_scholar.citers[0] = [
        dataclasses.replace(some, number=n, arxiv=f"2401.{n}", title=f"A paper that cites it: number {n}")
        for n in range(10_000, 20_500)
    ]
    source = SemanticScholarSource(web)
    page = await source.citations(f"arxiv:{SEED}", offset=9000, limit=1000)
    assert (len(page.edges), page.next_offset, page.cut) == (999, None, True)
    beyond = await source.citations(f"arxiv:{SEED}", offset=9999, limit=1000)
    assert (beyond.edges, beyond.next_offset, beyond.cut) == ((), None, True)

    begun = await papers.walk(paper_id=SEED, direction="citations", limit=10)
    (state,) = (workspace.root / "papers" / "walks").glob("*.json")
    walk = json.loads(state.read_text())
    walk["tasks"][0]["position"] = "9000"  # as after nine pages
    state.write_text(json.dumps(walk))
    last = begun
    while last.next_cursor is not None and not any("9,999" in note for note in last.notes):
        last = await papers.walk(cursor=last.next_cursor, limit=100)
    assert last.status == "ok" and last.frontier_total == 0
    assert any("9,999 citations" in note for note in last.notes)


async def test_citations_point_at_the_seed(papers: PaperService, world: World) -> None:
    cited = world.corpus.entries[0].references[0]
    result = await papers.walk(paper_id=world.corpus.entries[cited].arxiv, direction="citations")
    assert shown(result) == keys(world, [one.number for one in world.corpus.citing(cited)])
    assert {edge.cited for edge in result.edges} == {result.seed}


async def test_both_directions_and_two_steps_reach_the_neighbours_of_neighbours(
    papers: PaperService, world: World
) -> None:
    result = await papers.walk(paper_id=SEED, direction="both", depth=2, limit=100, budget=40)
    first = set(world.corpus.entries[0].references)
    second = {number for one in first for number in world.corpus.entries[one].references}
    by_depth = {depth: {p.paper_id for p in result.papers if p.depth == depth} for depth in (1, 2)}
    assert by_depth[1] == keys(world, sorted(first))
    assert keys(world, sorted(second - first - {0})) <= by_depth[2]


async def test_a_query_brings_what_is_close_to_the_front(papers: PaperService) -> None:
    plain = await papers.walk(paper_id=SEED, depth=2, limit=5)
    close = await papers.walk(paper_id=SEED, depth=2, limit=5, query="curriculum")
    assert all("curriculum" in paper.title.lower() for paper in close.papers[:2])
    assert [one.paper_id for one in plain.papers] != [one.paper_id for one in close.papers]


async def test_filters_show_only_what_passes(papers: PaperService, world: World) -> None:
    result = await papers.walk(paper_id=SEED, depth=2, min_citations=100, year_from=2020, limit=100, budget=40)
    assert result.papers
    assert all((one.citations or 0) >= 100 and (one.year or 0) >= 2020 for one in result.papers)
    influential = await papers.walk(paper_id=SEED, influential_only=True)
    assert shown(influential) == keys(world, [one for one in world.corpus.entries[0].references if one % 5 == 0])


async def test_pages_show_everything_once_and_a_cursor_gives_the_same_page_again(
    papers: PaperService, web: Web, workspace: Workspace, clock: FakeClock, world: World
) -> None:
    first = await papers.walk(paper_id=SEED, depth=2, limit=7, budget=40)
    later = await rest(papers, first, limit=7)
    ids = [one.paper_id for page in (first, *later) for one in page.papers]
    assert len(ids) == len(set(ids)) == first.papers_total
    assert later[-1].next_cursor is None
    before = requests(world)
    again = await PaperService(web, workspace, clock).walk(cursor=first.next_cursor, limit=7)
    assert again.papers == later[0].papers and again.calls == 0 and requests(world) == before


async def test_the_budget_bounds_the_requests_and_the_cursor_goes_on(papers: PaperService, world: World) -> None:
    first = await papers.walk(paper_id=SEED, depth=2, limit=100, budget=5)
    assert requests(world) == first.calls <= 5
    assert first.frontier and first.frontier_total > 0 and first.next_cursor
    seen_before = [seen.path for seen in world.semantic_scholar.seen]
    later = await rest(papers, first, limit=100, budget=5)
    asked = [seen.path for seen in world.semantic_scholar.seen]
    assert len(asked) == len(set(asked)), "something known was asked for again"
    assert asked[: len(seen_before)] == seen_before
    whole = await papers.walk(paper_id=SEED, depth=2, limit=100, budget=40)
    assert set().union(*(shown(page) for page in (first, *later))) == shown(whole)


async def test_a_walk_stops_when_its_time_is_over_and_goes_on_with_the_cursor(
    web: Web, workspace: Workspace, clock: FakeClock, world: World
) -> None:
    papers = PaperService(web, workspace, clock, walk_deadline=10.0)
    first = await papers.walk(paper_id=SEED, depth=2, limit=100)
    assert first.calls < 9 and first.papers and first.frontier_total > 0 and first.next_cursor
    later = await rest(papers, first, limit=100)
    assert sum(len(page.papers) for page in later) > 0 and later[-1].next_cursor is None


async def test_after_a_rate_limit_the_walk_goes_on_where_it_stopped(
    papers: PaperService, world: World, clock: FakeClock
) -> None:
    for _ in range(3):
        world.semantic_scholar.fail(standin.too_many(), path=f"{world.corpus.entries[5].arxiv}/references")
    first = await papers.walk(paper_id=SEED, depth=2, limit=100, budget=40)
    assert first.status == "partial" and first.next_cursor is not None
    assert {one.name: one.status for one in first.sources}["semantic_scholar"] == "rate_limited"
    assert any("Go on in" in note for note in first.notes)
    clock.advance(121)
    done = {
        (seen.path, seen.query.get("offset")) for seen in world.semantic_scholar.seen if "references" in seen.path
    }
    refused = len(world.semantic_scholar.asked(f"{world.corpus.entries[5].arxiv}/references"))
    later = await rest(papers, first, limit=100)
    assert later and later[0].status == "ok"
    again = [seen.path for seen in world.semantic_scholar.seen[-20:]]
    assert sum(path.endswith(f"{world.corpus.entries[5].arxiv}/references") for path in again) >= 1
    assert refused == 3 and len(done) > 1
    first_set, second_set = set(shown(first)), set().union(*(shown(page) for page in later))
    assert not first_set & second_set


async def test_without_semantic_scholar_the_papers_own_bibliography_is_walked(
    papers: PaperService, world: World
) -> None:
    world.semantic_scholar.fail_always(standin.too_many())
    world.site.has_html |= set(range(60))
    result = await papers.walk(paper_id=SEED, limit=100)
    assert result.status == "partial"
    statuses = {one.name: one.status for one in result.sources}
    assert statuses["semantic_scholar"] == "rate_limited" and statuses["arxiv_html"] == "ok"
    cited = world.corpus.entries[0].references
    titles = {one.title for one in result.papers}
    assert titles == {world.corpus.entries[number].title for number in cited}
    assert any(one.paper_id.startswith("title:") for one in result.papers), "an entry without an id was dropped"
    assert all(one.citations is not None for one in result.papers if one.paper_id.startswith("arxiv:"))
    assert len(world.openalex.asked("/works")) <= 2, "one look-up for the level, not one a paper"


async def test_references_that_the_publisher_withholds_come_from_the_bibliography(
    papers: PaperService, world: World
) -> None:
    world.semantic_scholar.elided.add(0)
    world.site.has_html.add(0)
    result = await papers.walk(paper_id=SEED)
    assert result.status == "ok" and len(result.papers) == len(world.corpus.entries[0].references)
    batches = world.semantic_scholar.asked("batch")
    assert len(batches) == 1


async def test_openalex_is_never_asked_what_a_preprint_cites(papers: PaperService, world: World) -> None:
    world.semantic_scholar.fail_always(standin.too_many())
    result = await papers.walk(paper_id=SEED)
    assert not any("cited_by" in seen.query.get("filter", "") for seen in world.openalex.seen)
    assert (result.status, result.papers) == ("rate_limited", [])
    assert result.next_cursor is not None


async def test_without_semantic_scholar_openalex_tells_who_cites(papers: PaperService, world: World) -> None:
    world.semantic_scholar.fail_always(standin.too_many())
    cited = world.corpus.entries[0].references[0]
    result = await papers.walk(paper_id=world.corpus.entries[cited].arxiv, direction="citations", limit=100)
    assert shown(result) == keys(world, [one.number for one in world.corpus.citing(cited)])
    assert {edge.source for edge in result.edges} == {"openalex"}
    assert all(edge.influential is None for edge in result.edges)


async def test_a_work_that_carries_a_wrong_id_is_not_believed(papers: PaperService, world: World) -> None:
    world.semantic_scholar.fail_always(standin.too_many(), path="citations")
    cited = world.corpus.entries[0].references[0]
    world.openalex.mistaken.add(cited)
    result = await papers.walk(paper_id=world.corpus.entries[cited].arxiv, direction="citations")
    assert result.papers == [] and result.status == "rate_limited"
    assert not any("cites" in seen.query.get("filter", "") for seen in world.openalex.seen)


async def test_references_without_an_id_are_kept_by_title(papers: PaperService, world: World) -> None:
    nameless = world.corpus.entries[0].references[1]
    world.semantic_scholar.titles_only.add(nameless)
    result = await papers.walk(paper_id=SEED)
    (kept,) = [one for one in result.papers if one.paper_id.startswith("title:")]
    assert kept.title == world.corpus.entries[nameless].title and kept.citations is None
    assert any(edge.cited == kept.paper_id for edge in result.edges)


async def test_a_merged_id_leads_to_the_paper_that_it_became(papers: PaperService, world: World) -> None:
    old = "0" * 40
    world.semantic_scholar.merged[old] = 0
    result = await papers.walk(paper_id=old)
    assert result.seed == f"arxiv:{SEED}" and shown(result) == keys(world, world.corpus.entries[0].references)


async def test_similar_papers_are_recommended_or_else_searched_for(papers: PaperService, world: World) -> None:
    recommended = await papers.walk(paper_id=SEED, direction="similar")
    assert recommended.status == "ok" and recommended.papers and recommended.edges == []
    assert world.semantic_scholar.asked("recommendations")[0].query["from"] == "all-cs"
    world.semantic_scholar.fail_always(standin.FORBIDDEN, path="recommendations")
    searched = await papers.walk(paper_id="2302.10001", direction="similar")
    assert searched.status == "partial" and searched.papers
    assert any("search for the title" in note for note in searched.notes)


async def test_a_paper_that_nobody_knows_is_not_found(papers: PaperService) -> None:
    result = await papers.walk(paper_id="2399.99999")
    assert (result.status, result.papers, result.next_cursor) == ("not_found", [], None)


async def test_a_level_of_500_papers_is_walked_in_at_most_40_requests(workspace: Workspace, clock: FakeClock) -> None:
    with contextlib.ExitStack() as stack:
        world = open_world(stack, Corpus(size=520, fan_out=22))
        web = Web(workspace, clock, environ=world.environ)
        result = await PaperService(web, workspace, clock, walk_deadline=1e6).walk(
            paper_id=SEED, depth=2, limit=100, budget=40
        )
        assert result.papers_total >= 480
        assert requests(world) == result.calls <= 40
        await web.close()


@pytest.mark.parametrize(
    "arguments",
    [{"depth": 3}, {"depth": 0}, {"direction": "up"}, {"limit": 0}, {"budget": 41}, {"paper_id": "a title"},
     {"cursor": "x"}, {"cursor": "c2VhcmNoIGFiYyAw"}],
)  # fmt: skip
async def test_what_cannot_be_used_is_refused(papers: PaperService, arguments: dict[str, object]) -> None:
    with pytest.raises(BadInput) as refused:
        await papers.walk(**{"paper_id": SEED, **arguments})  # type: ignore[arg-type]
    assert refused.value.next_step


async def test_the_graph_holds_every_paper_and_citation_of_the_walk(papers: PaperService) -> None:
    result = await papers.walk(paper_id=SEED, depth=2, limit=5, budget=40)
    graph = papers.graph(result.walk_id)
    root = ElementTree.fromstring(graph.graphml)
    space = {"g": "http://graphml.graphdrawing.org/xmlns"}
    nodes = {node.get("id") for node in root.iterfind(".//g:node", space)}
    edges = list(root.iterfind(".//g:edge", space))
    assert len(nodes) == result.papers_total + 1 and f"arxiv:{SEED}" in nodes
    assert len(edges) == result.edges_total
    assert {edge.get("source") for edge in edges} | {edge.get("target") for edge in edges} <= nodes
    picture = ElementTree.fromstring(graph.svg)
    circles = picture.findall("{http://www.w3.org/2000/svg}circle")
    assert len([circle for circle in circles if len(circle)]) == len(nodes)
    assert result.graph == f"mlintern://graphs/{result.walk_id}"
    with pytest.raises(BadInput):
        papers.graph("0123456789ab")
    with pytest.raises(BadInput):
        papers.graph("../../ledger")


def test_a_title_that_holds_markup_does_not_break_the_graph() -> None:
    from mlintern.tools.papers.graph import draw

    walk = Walk("w", WalkRequest("arxiv:1", "references", 1))
    walk.add(Paper(keys=("arxiv:1",), title="<script>alert('&')</script>\x00", year=2020), depth=0, met_at="")
    graph = draw(walk)
    ElementTree.fromstring(graph.graphml)
    assert "<script>" not in graph.svg


entries = st.builds(
    Paper,
    keys=st.sampled_from([(), (), ("arxiv:1",), ("arxiv:2",), ("s2:1",), ("s2:1", "arxiv:1")]),
    title=st.sampled_from(
        ["Introduction", "A title that is long enough to name a paper", "Another long title of a paper"]
    ),
    year=st.sampled_from([None, 2020, 2021, 2023]),
    authors=st.sampled_from([(), ("Ann One",), ("Bo Two",)]),
)


@given(st.lists(st.tuples(entries, st.sampled_from(["arxiv:8", "arxiv:9"])), max_size=10))
def test_a_walk_never_joins_two_arxiv_papers_and_survives_being_kept(met: list[tuple[Paper, str]]) -> None:
    walk = Walk("w", WalkRequest("arxiv:9", "references", 1))
    walk.add(Paper(keys=("arxiv:9",), title=""), depth=0, met_at="")
    walk.add(Paper(keys=("arxiv:8",), title=""), depth=1, met_at="arxiv:9")
    for paper, met_at in met:
        name = walk.add(paper, depth=1, met_at=met_at)
        assert name in walk.nodes
    for node in walk.nodes.values():
        assert sum(key.startswith("arxiv:") for key in node.paper.keys) <= 1
    short = [(paper, at) for paper, at in met if paper.title == "Introduction" and not paper.keys]
    names = {name for name in walk.nodes if name.startswith("title:")}
    assert len(names) >= len({at for _, at in short}), "two papers' introductions became one"
    kept = Walk.from_json(walk.as_json())
    assert kept.nodes == walk.nodes and kept.tasks == walk.tasks and kept.links == walk.links


async def test_the_budget_holds_whatever_the_sources_make_of_a_request(papers: PaperService, world: World) -> None:
    """Retries and fallbacks count: thirty requests are thirty."""
    for service in (world.semantic_scholar, world.openalex, world.ar5iv):
        service.fail_always(standin.BROKEN)
    before = requests(world)
    result = await papers.walk(paper_id=SEED, direction="both", depth=2, budget=12)
    assert requests(world) - before <= 12 and result.calls <= 12
    assert not any("used up" in report.message for report in result.sources)


async def test_two_servers_on_one_cursor_give_one_page(
    papers: PaperService, world: World, web: Web, workspace: Workspace, clock: FakeClock
) -> None:
    first = await papers.walk(paper_id=SEED, depth=2, limit=5)
    other = PaperService(web, workspace, clock, walk_deadline=1e6)
    results: list[WalkResult] = []

    async def go_on(service: PaperService) -> None:
        results.append(await service.walk(cursor=first.next_cursor, limit=5))

    async with anyio.create_task_group() as group:
        group.start_soon(go_on, papers)
        group.start_soon(go_on, other)
    one, two = results
    assert one.papers == two.papers and one.next_cursor == two.next_cursor
    assert not shown(one) & shown(first)


async def test_a_query_is_answered_by_abstracts_and_not_by_fame(papers: PaperService, world: World) -> None:
    cited = [world.corpus.entries[number] for number in world.corpus.entries[0].references]
    wanted = min(cited, key=lambda entry: entry.citations)
    world.semantic_scholar.altered[wanted.number] = {
        "title": "Something else", "abstract": "Curriculum schedules for tiny transformers."
    }  # fmt: skip
    result = await papers.walk(paper_id=SEED, query="curriculum schedules for tiny transformers")
    assert result.papers[0].title == "Something else"
    assert "abstract" in world.semantic_scholar.asked("/references")[0].query["fields"]
