"""Searching four sources at once: fused, filtered, paged, and honest when they fail."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from pathlib import Path

import anyio
import pytest
import yaml  # type: ignore[import-untyped]

from mlintern.tools.errors import BadInput
from mlintern.tools.papers.paper import Paper
from mlintern.tools.papers.query import Query
from mlintern.tools.papers.search import SEEDS, Ranking, fuse
from mlintern.tools.papers.service import PaperService
from mlintern.tools.papers.sources import Found
from mlintern.tools.papers.sources.semantic_scholar import SemanticScholarSource, paper_of
from mlintern.tools.web import Web
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services import standin
from tests.services.corpus import Corpus
from tests.tools.papers.conftest import World, open_world

pytestmark = pytest.mark.anyio


async def pages(papers: PaperService, **arguments: object) -> list[list[str]]:
    """The ids on every page until there is no more, at most ten pages."""
    result = await papers.search(**arguments)  # type: ignore[arg-type]
    found = [[item.paper_id for item in result.items]]
    for _ in range(10):
        if result.next_cursor is None or not result.items:
            break
        result = await papers.search(cursor=result.next_cursor, limit=int(str(arguments.get("limit", 10))))
        found.append([item.paper_id for item in result.items])
    return found


async def test_one_paper_found_by_four_sources_is_one_item_with_all_its_names(
    papers: PaperService, world: World
) -> None:
    result = await papers.search(query="reward optimization study 1", limit=1)
    (item,) = result.items
    entry = world.corpus.entries[1]
    assert result.status == "ok" and {report.status for report in result.sources} == {"ok"}
    assert item.paper_id == f"arxiv:{entry.arxiv}"
    assert set(item.found_in) == {"arxiv", "hf_papers", "semantic_scholar", "openalex"}
    assert set(item.aliases) == {f"s2:{entry.corpus_id}", f"s2:{entry.sha}", f"openalex:{entry.work}"}
    assert (item.year, item.citations, item.categories) == (entry.year, entry.citations, [entry.category])


async def test_a_sentence_is_stripped_before_lexical_sources_see_it(papers: PaperService, world: World) -> None:
    result = await papers.search(query="find me papers about low-rank adaptation")
    assert result.query == "low-rank adaptation" and result.items
    assert world.api.seen[0].query["search_query"] == '(all:"low rank" AND all:adaptation)'
    assert world.semantic_scholar.seen[0].query["query"] == "low rank adaptation"
    assert world.openalex.seen[0].query["search"] == "low rank adaptation"


async def test_pages_cover_everything_once(papers: PaperService, world: World) -> None:
    found = [key for page in await pages(papers, query="reward", limit=3) for key in page]
    assert len(found) == len(set(found))
    assert {f"arxiv:{one.arxiv}" for one in world.corpus.matching("reward")} <= set(found)


async def test_a_cursor_gives_the_same_page_again_also_after_a_restart(
    papers: PaperService, web: Web, workspace: Workspace, clock: FakeClock
) -> None:
    first = await papers.search(query="reward", limit=2)
    once = await papers.search(cursor=first.next_cursor, limit=2)
    again = await PaperService(web, workspace, clock).search(cursor=first.next_cursor, limit=2)
    assert once.items == again.items and once.items != first.items


@pytest.mark.parametrize("names", [["semantic_scholar"], ["arxiv", "openalex"], ["hf_papers", "arxiv", "openalex"]])
async def test_pages_stay_put_while_sources_fail_and_recover(
    papers: PaperService, world: World, names: list[str]
) -> None:
    services = {"semantic_scholar": world.semantic_scholar, "arxiv": world.api, "openalex": world.openalex,
                "hf_papers": world.hugging_face}  # fmt: skip
    for name in names:
        services[name].fail_always(standin.BROKEN)
    first = await papers.search(query="reward", limit=4)
    assert first.status == "partial" and first.items and first.next_cursor
    for name in names:
        services[name].recover()
    found = [item.paper_id for item in first.items]
    cursor: str | None = first.next_cursor
    for _ in range(8):
        if cursor is None:
            break
        result = await papers.search(cursor=cursor, limit=4)
        found += [item.paper_id for item in result.items]
        cursor = result.next_cursor
    assert len(found) == len(set(found))
    assert {f"arxiv:{one.arxiv}" for one in world.corpus.matching("reward")} <= set(found)
    assert cursor is None and result.status == "ok", "a source that is back was not asked again"


async def test_pages_that_shift_at_the_source_repeat_nothing_here(papers: PaperService, world: World) -> None:
    world.semantic_scholar.shifting = True
    found = [
        key for page in await pages(papers, query="reward", limit=3, sources=["semantic_scholar"]) for key in page
    ]
    assert len(found) == len(set(found))


async def test_a_403_of_openalex_is_a_rate_limit_and_the_advice_names_its_daily_allowance(
    papers: PaperService, world: World
) -> None:
    world.openalex.fail_always(standin.FORBIDDEN)
    result = await papers.search(query="reward", sources=["openalex"])
    (report,) = result.sources
    assert (result.status, report.status, report.http_status) == ("rate_limited", "rate_limited", 403)
    assert report.retry_after_seconds and "10 US cents a day" in report.message


async def test_one_source_down_is_partial_and_says_which_and_when(papers: PaperService, world: World) -> None:
    world.semantic_scholar.fail_always(standin.too_many(77))
    result = await papers.search(query="reward")
    assert result.status == "partial" and result.items
    (limited,) = [report for report in result.sources if report.status != "ok"]
    assert (limited.name, limited.status, limited.http_status) == ("semantic_scholar", "rate_limited", 429)
    assert limited.retry_after_seconds == 77
    assert "semantic_scholar (rate_limited)" in result.notes[-1]


@pytest.mark.parametrize(
    ("fault", "status"),
    [(standin.too_many(60), "rate_limited"), (standin.FORBIDDEN, "blocked"), (standin.ACCESS_DENIED, "blocked"),
     (standin.BROKEN, "error"), (standin.CUT, "error"), (standin.RESET, "error")],
)  # fmt: skip
async def test_when_every_source_fails_alike_that_is_the_status_and_not_no_results(
    papers: PaperService, world: World, fault: standin.Fault, status: str
) -> None:
    for service in world.services:
        service.fail_always(fault)
    result = await papers.search(query="reward", sources=["arxiv", "hf_papers", "semantic_scholar"])
    assert (result.status, result.items) == (status, [])
    assert "says nothing about what exists" in result.notes[-1]
    assert result.next_cursor is not None
    for service in world.services:
        service.recover()


async def test_offline_is_offline(workspace: Workspace, clock: FakeClock, papers: PaperService, world: World) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as gone:
        nowhere = f"http://127.0.0.1:{gone.getsockname()[1]}"
    web = Web(workspace, clock, environ=dict.fromkeys(world.environ, nowhere))
    offline = PaperService(web, workspace, clock)
    searched = await offline.search(query="reward")
    read = await offline.read(paper_id="2301.10000")
    walked = await offline.walk(paper_id="2301.10000")
    trending = await offline.search(trending=True)
    assert {searched.status, read.status, walked.status, trending.status} == {"offline"}
    for result in (searched, read, walked, trending):
        assert any("later" in note for note in result.notes)
        assert all(report.status == "offline" for report in result.sources)
    await web.close()


async def test_what_was_found_before_is_found_offline_too(papers: PaperService, world: World) -> None:
    online = await papers.search(query="reward")
    for service in world.services:
        service.fail_always(standin.RESET)
    assert [item.paper_id for item in (await papers.search(query="reward")).items] == [
        item.paper_id for item in online.items
    ]


async def test_a_source_that_hangs_is_not_waited_for_beyond_the_deadline(
    web: Web, workspace: Workspace, clock: FakeClock, world: World
) -> None:
    world.openalex.fail_always(standin.STALL)
    world.api.fail_always(standin.STALL)
    papers = PaperService(web, workspace, clock, search_deadline=0.7)
    with anyio.fail_after(10):
        result = await papers.search(query="reward")
    late = {report.name: report for report in result.sources if report.status != "ok"}
    assert result.status == "partial" and result.items
    assert set(late) == {"arxiv", "openalex"} and "0.7 s" in late["openalex"].message


async def test_filters_hold_for_every_source_whether_it_knows_them_or_not(papers: PaperService, world: World) -> None:
    result = await papers.search(
        query="reward", year_from=2019, year_to=2023, min_citations=50, categories=["cs.LG"], limit=50
    )
    expected = {
        f"arxiv:{one.arxiv}"
        for one in world.corpus.entries
        if "reward" in one.title.lower()
        and 2019 <= one.year <= 2023
        and one.citations >= 50
        and one.category == "cs.LG"
    }
    assert expected and {item.paper_id for item in result.items} == expected


async def test_counts_that_a_source_does_not_know_are_looked_up_in_one_request(
    papers: PaperService, world: World
) -> None:
    result = await papers.search(query="reward", min_citations=50, sources=["hf_papers"], limit=50)
    assert result.items and all((item.citations or 0) >= 50 for item in result.items)
    assert [seen.path for seen in world.semantic_scholar.seen] == ["/graph/v1/paper/batch"]


async def test_what_a_filter_cannot_judge_is_left_out_and_said(papers: PaperService, world: World) -> None:
    world.semantic_scholar.fail_always(standin.too_many(60))
    result = await papers.search(query="reward", min_citations=50, sources=["hf_papers"])
    assert result.items == []
    assert any("left out because their number of citations" in note for note in result.notes)
    assert any("could not be looked up" in note for note in result.notes)


async def test_a_whole_archive_is_a_category(papers: PaperService) -> None:
    every = await papers.search(query="reward", categories=["cs"], limit=50)
    none = await papers.search(query="reward", categories=["math"], limit=50)
    assert every.items and not none.items


async def test_sorting_orders_what_was_found(papers: PaperService) -> None:
    by_count = (await papers.search(query="reward", sort="citations", limit=50)).items
    counts = [item.citations for item in by_count]
    assert counts == sorted(counts, key=lambda count: -(count or 0)) and len(counts) > 3
    by_date = (await papers.search(query="reward", sort="date", limit=50)).items
    dates = [item.published for item in by_date]
    assert dates == sorted(dates, reverse=True)


async def test_orders_and_operators_go_to_the_bulk_search(papers: PaperService, world: World) -> None:
    await papers.search(query="reward", sort="citations", sources=["semantic_scholar"])
    await papers.search(query='"reward" AND tuning', sources=["semantic_scholar"])
    assert [seen.path.rpartition("/")[2] for seen in world.semantic_scholar.seen] == ["bulk", "bulk"]
    assert world.semantic_scholar.seen[0].query["sort"] == "citationCount:desc"


async def test_passages_carry_the_text_and_the_papers_real_ids(papers: PaperService, world: World) -> None:
    result = await papers.search(query="reward alignment", mode="passages", limit=3)
    assert result.status == "ok"
    for item in result.items:
        assert item.paper_id.startswith("arxiv:") and "reward" in item.passages[0].text and item.year
    assert len(world.semantic_scholar.seen) == 2, "one search and one batch"


async def test_without_semantic_scholar_passages_are_refused_honestly(papers: PaperService, world: World) -> None:
    world.semantic_scholar.fail_always(standin.too_many(60))
    result = await papers.search(query="reward", mode="passages")
    assert result.status == "rate_limited" and "read_paper" in result.notes[0]
    with pytest.raises(BadInput):
        await papers.search(query="reward", mode="passages", sources=["arxiv"])


async def test_an_empty_query_gives_the_daily_papers(papers: PaperService, world: World) -> None:
    for arguments in ({}, {"query": "  "}, {"trending": True}):
        result = await papers.search(limit=5, **arguments)
        assert [item.paper_id for item in result.items] == [f"arxiv:{one.arxiv}" for one in world.corpus.entries[:5]]
    matching = await papers.search(trending=True, query="reward", limit=50)
    assert matching.items and all("reward" in item.title.lower() for item in matching.items)
    assert {seen.path for seen in world.hugging_face.seen} == {"/api/daily_papers"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"limit": 0}, {"limit": 51}, {"year_from": 2024, "year_to": 2020}, {"year_from": 20}, {"min_citations": -1},
        {"categories": ["cs.CL OR x"]}, {"sort": "best"}, {"sources": ["semantic-scholar"]}, {"mode": "full"},
        {"cursor": "nonsense"}, {"cursor": "d2FsayBhYiAw"}, {"query": "x" * 1001},
    ],
)  # fmt: skip
async def test_what_cannot_be_used_is_refused_by_name(papers: PaperService, arguments: dict[str, object]) -> None:
    with pytest.raises(BadInput) as refused:
        await papers.search(**{"query": "reward", **arguments})  # type: ignore[arg-type]
    assert refused.value.next_step


async def test_a_name_that_is_nearly_right_is_guessed(papers: PaperService) -> None:
    with pytest.raises(BadInput) as refused:
        await papers.search(query="reward", sources=["semantic-scholar"])
    assert "Did you mean 'semantic_scholar'?" in str(refused.value)


def test_fusion_prefers_what_several_sources_rank_high() -> None:
    def found(*names: str) -> Found:
        return Found(tuple(Paper(keys=(f"s2:{name}",), title=f"Paper {name}", found_in=("x",)) for name in names))

    fused = fuse(
        {"a": found("1", "2", "3"), "b": found("3", "4"), "c": found("3", "1")}, Ranking(Query(text="", words=""))
    )
    assert [paper.key for paper in fused] == ["s2:3", "s2:1", "s2:2", "s2:4"]
    assert fused[0].score == pytest.approx(1 / 63 + 1 / 61 + 1 / 61)


def test_the_order_of_sources_does_not_decide_who_is_one_with_whom() -> None:
    pages_by_source = {
        "a": Found((Paper(keys=("arxiv:1",), title="T"),)),
        "b": Found((Paper(keys=("doi:x", "arxiv:1"), title="T"),)),
        "c": Found((Paper(keys=("doi:x",), title="T"), Paper(keys=("arxiv:2", "doi:x"), title="T"))),
    }
    partitions = set()
    for order in itertools.permutations(pages_by_source):
        fused = fuse({name: pages_by_source[name] for name in order}, Ranking(Query(text="", words="")))
        partitions.add(frozenset(frozenset(paper.keys) for paper in fused))
    assert len(partitions) == 1


def test_recorded_answers_of_semantic_scholar_are_read(recorded: Path) -> None:
    """Cassettes of danielnsilva/semanticscholar: a batch with unknown ids, recommendations, a search by year."""

    def bodies(name: str) -> list[object]:
        cassette = yaml.safe_load((recorded / "semantic-scholar" / f"{name}.yaml").read_text())
        responses = [interaction["response"] for interaction in cassette["interactions"]]
        return [json.loads(one["content"] if "content" in one else one["body"]["string"]) for one in responses]

    (batch, *_) = bodies("test_get_papers_return_not_found")
    assert isinstance(batch, list)
    assert None in batch
    known = [paper_of(item) for item in batch if item]
    assert all(paper.keys and paper.title and paper.year for paper in known)
    assert known[0].key.startswith("doi:10.2139/")
    (recommended, *_) = bodies("test_get_recommended_papers")
    assert all(paper_of(item).title for item in recommended["recommendedPapers"])  # type: ignore[index]


@pytest.mark.parametrize("name", ["test_empty_paginated_results", "test_not_found", "test_bad_query_parameters"])
async def test_recorded_refusals_of_semantic_scholar_are_told_apart(
    recorded: Path, workspace: Workspace, clock: FakeClock, name: str, tmp_path: Path
) -> None:
    import httpx2

    from mlintern.tools.errors import NotFound, ServiceError

    cassette = yaml.safe_load((recorded / "semantic-scholar" / f"{name}.yaml").read_text())
    response = cassette["interactions"][0]["response"]
    status = response["status_code"] if "status_code" in response else response["status"]["code"]
    content = response["content"] if "content" in response else response["body"]["string"]
    transport = httpx2.MockTransport(lambda _: httpx2.Response(status, text=content))
    source = SemanticScholarSource(
        Web(workspace, clock, environ={"XDG_CACHE_HOME": str(tmp_path)}, transport=transport)
    )
    asked = source.search(Query(text="x", words="x"), position="", limit=5)
    if name == "test_empty_paginated_results":
        assert (await asked).papers == ()
        return
    with pytest.raises(NotFound if status == 404 else ServiceError) as refused:
        await asked
    assert "not found" in str(refused.value) or "unsupported fields" in str(refused.value)


async def test_citations_of_the_best_hits_are_followed_and_each_says_where_it_comes_from(
    workspace: Workspace, clock: FakeClock
) -> None:
    with contextlib.ExitStack() as stack:
        world = open_world(stack, Corpus(size=400, fan_out=24))
        web = Web(workspace, clock, environ=world.environ)
        papers = PaperService(web, workspace, clock)
        question = world.corpus.entries[0].title
        alone = await papers.search(query=question, limit=1, sources=["arxiv"])
        page = await papers.search(query=question, limit=50, sources=["arxiv"], mode="citations")
        assert len(world.semantic_scholar.seen) <= 2 * SEEDS
        assert page.items[0].paper_id == alone.items[0].paper_id, "a hit that answers best stays first"
        items = list(page.items)
        while page.next_cursor and len(items) < 200:
            page = await papers.search(limit=50, cursor=page.next_cursor)
            items += page.items
        await web.close()
    led = [one for one in items if "cite" in one.why]
    assert led and all("semantic_scholar" in one.found_in for one in led)
    assert all(re.search(r"(?:title|abstract): .+; (?:cited by|cites) ", one.why) for one in led)
    assert len({one.paper_id for one in items}) == len(items)


async def test_without_citations_the_hits_stand_and_the_failure_is_told(papers: PaperService, world: World) -> None:
    world.semantic_scholar.fail_always(standin.too_many(300))
    found = await papers.search(query=world.corpus.entries[0].title, sources=["arxiv"], mode="citations")
    assert found.items and found.status == "partial"
    assert any("could not be asked" in note for note in found.notes)
