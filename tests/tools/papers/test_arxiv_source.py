"""arXiv's API: what is asked, what is read, and which failure is which error."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import anyio
import httpx2
import pytest

from mlintern.tools.errors import Blocked, NotFound, RateLimited, ServiceError
from mlintern.tools.papers.query import Query
from mlintern.tools.papers.sources.arxiv import ArxivSource
from mlintern.tools.web import SERVICES, Web
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services import standin
from tests.tools.papers.conftest import World

pytestmark = pytest.mark.anyio

REWARD = Query(text="reward", words="reward")


@pytest.fixture
def source(web: Web) -> ArxivSource:
    return ArxivSource(web)


async def test_requests_go_out_at_arxivs_pace_and_in_our_name(
    source: ArxivSource, world: World, clock: FakeClock
) -> None:
    found = await source.search(REWARD, position="", limit=3)
    (seen,) = world.api.seen
    assert seen.headers["user-agent"].startswith("mlintern/")
    assert seen.query["search_query"] == "all:reward" and seen.query["max_results"] == "3"
    assert [paper.arxiv_id for paper in found.papers] == [one.arxiv for one in world.corpus.matching("reward")[:3]]
    assert found.total == len(world.corpus.matching("reward")) and found.next_position == "3"
    await source.search(REWARD, position="3", limit=3)
    assert clock.slept[-1] == 3, "arXiv asks for three seconds between requests"


async def test_one_page_is_one_request_and_an_answer_is_cached(source: ArxivSource, world: World) -> None:
    for _ in range(2):
        await source.search(REWARD, position="", limit=3)
    assert len(world.api.seen) == 1


async def test_pages_follow_each_other_without_gap_or_repeat(source: ArxivSource, world: World) -> None:
    keys: list[str] = []
    position: str | None = ""
    while position is not None:
        found = await source.search(REWARD, position=position, limit=3)
        keys += [paper.key for paper in found.papers]
        position = found.next_position
    assert keys == [f"arxiv:{one.arxiv}" for one in world.corpus.matching("reward")]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (standin.too_many(), RateLimited),
        (standin.too_many(90), RateLimited),
        (standin.FORBIDDEN, Blocked),
        (standin.ACCESS_DENIED, Blocked),
        (standin.CAPTCHA, Blocked),
        (standin.BROKEN, ServiceError),
        (standin.RESET, ServiceError),
        (standin.CUT, ServiceError),
        (standin.MISSING_AS_PAGE, NotFound),
    ],
    ids=["429", "429 with a time", "403", "access denied as 200", "captcha", "500", "reset", "cut", "404 page"],
)
async def test_a_failure_is_an_error_of_ours_and_never_no_results(
    source: ArxivSource, world: World, fault: standin.Fault, kind: type[Exception]
) -> None:
    world.api.fail_always(fault)
    with pytest.raises(kind):
        await source.search(REWARD, position="", limit=3)


async def test_a_feed_that_was_cut_off_is_not_read_as_complete(source: ArxivSource, world: World) -> None:
    whole = await source.search(REWARD, position="", limit=10)
    assert len(whole.papers) > 2
    body = b"<?xml version='1.0'?><feed xmlns='http://www.w3.org/2005/Atom'><entry><id>http://arxiv.org/abs/2301.1"
    world.api.fail_always(standin.Fault(status=200, body=body))
    with pytest.raises(ServiceError) as refused:
        await source.search(Query(text="x", words="other"), position="", limit=3)
    assert "cut" in str(refused.value)


async def test_a_silent_server_costs_only_the_time_limit(
    world: World, workspace: Workspace, clock: FakeClock
) -> None:
    world.api.fail_always(standin.STALL)
    short = [replace(service, timeout=0.3) for service in SERVICES]
    web = Web(workspace, clock, environ=world.environ, services=short)
    with anyio.fail_after(60), pytest.raises(ServiceError, match=r"did not answer within 0\.3 s"):
        await ArxivSource(web).search(REWARD, position="", limit=3)
    assert len(world.api.seen) == 1
    await web.close()


async def test_an_empty_first_page_that_is_not_true_is_asked_again(source: ArxivSource, world: World) -> None:
    world.api.empty_pages = 1
    assert (await source.search(REWARD, position="", limit=3)).papers
    assert len(world.api.seen) == 2


async def test_an_empty_page_that_stays_empty_against_the_count_is_an_error(
    source: ArxivSource, world: World
) -> None:
    world.api.empty_pages = 9
    with pytest.raises(ServiceError):
        await source.search(REWARD, position="", limit=3)
    world.api.empty_pages = 0
    assert (await source.search(REWARD, position="", limit=3)).papers, "the untrue page was served from the cache"


async def test_no_results_is_an_answer(source: ArxivSource) -> None:
    found = await source.search(Query(text="x", words="unicornology"), position="", limit=3)
    assert (found.papers, found.total, found.next_position) == ((), 0, None)


async def test_a_malformed_id_is_asked_once_and_the_reason_is_passed_on(source: ArxivSource, world: World) -> None:
    with pytest.raises(NotFound) as refused:
        await source.look_up(["abc"])
    assert "incorrect id format for abc" in str(refused.value)
    assert len(world.api.seen) == 1


async def test_recorded_answers_of_arxiv_are_read(recorded: Path, workspace: Workspace, clock: FakeClock) -> None:
    """The five recordings of lukasschwab/arxiv.py: a search, three ids, and a malformed one."""
    answers = [json.loads(path.read_text()) for path in sorted((recorded / "arxiv").glob("*.json"))]
    by_key = {_asked(httpx2.URL(answer["url"])): answer for answer in answers}

    def replay(request: httpx2.Request) -> httpx2.Response:
        answer = by_key[_asked(request.url)]
        return httpx2.Response(answer["status_code"], text=answer["body"])

    web = Web(
        workspace, clock, environ={"XDG_CACHE_HOME": str(workspace.root)}, transport=httpx2.MockTransport(replay)
    )
    source = ArxivSource(web)
    found = await source.search(Query(text="testing", words="testing"), position="", limit=10)
    assert (len(found.papers), found.total, found.next_position) == (10, 214881, "10")
    assert found.papers[0].key == "arxiv:2202.12139"
    assert all(paper.title and paper.authors and paper.abstract and paper.year for paper in found.papers)
    (old,) = await source.look_up(["astro-ph/0601001"])
    assert (old.key, old.year) == ("arxiv:astro-ph/0601001", 2006)
    (plain,) = await source.look_up(["1707.08567"])
    assert plain.title.startswith("Proceedings of Workshop AEW10")
    assert await source.look_up(["0000.0000"]) == []
    with pytest.raises(NotFound):
        await source.look_up(["abc"])


def _asked(url: httpx2.URL) -> tuple[str, str]:
    return url.params.get("search_query", "").removeprefix("all:"), url.params.get("id_list", "")
