"""The way out: manners, memory and honesty of one request."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from mlintern.common.files import exclusive_lock
from mlintern.tools.errors import BadInput, Blocked, NotFound, Offline, RateLimited, ServiceError
from mlintern.tools.web import Web
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services import standin
from tests.services.ports import free_port
from tests.services.standin import StandIn, too_many

pytestmark = pytest.mark.anyio


def _routes() -> list[Route]:
    async def echo(request: Request) -> Response:
        return JSONResponse({"query": dict(request.query_params)})

    async def validated(request: Request) -> Response:
        if request.headers.get("if-none-match") == '"one"':
            return Response(status_code=304)
        return JSONResponse({"value": 1}, headers={"etag": '"one"'})

    async def large(request: Request) -> Response:
        return PlainTextResponse("x" * 100_000)

    async def missing(request: Request) -> Response:
        return JSONResponse({"error": "Paper with id 0 not found"}, status_code=404)

    return [
        Route("/echo", echo),
        Route("/validated", validated),
        Route("/large", large),
        Route("/missing", missing),
        Route("/batch", echo, methods=["POST"]),
    ]


@pytest.fixture
def service() -> Iterator[StandIn]:
    with StandIn(_routes()).running() as running:
        yield running


@pytest.fixture
async def hub(service: StandIn, workspace: Workspace, clock: FakeClock) -> AsyncIterator[Web]:
    client = Web(workspace, clock, environ={"HF_ENDPOINT": service.url}, rng=random.Random(0))
    yield client
    await client.close()


async def test_a_refused_call_closes_itself_and_no_other_call_of_the_service(service: StandIn, hub: Web) -> None:
    service.fail_always(too_many(120), path="/large")
    with pytest.raises(RateLimited):
        await hub.get("huggingface", "/large")
    with pytest.raises(RateLimited):
        await hub.get("huggingface", "/large")
    assert len(service.asked("/large")) == 1, "it asked to be left alone"
    assert (await hub.get("huggingface", "/echo")).json() == {"query": {}}


@pytest.mark.parametrize(
    ("contact", "sent"),
    [
        ("ada@example.org", "(MCP server for post-training research; +mailto:ada@example.org)"),
        ("https://example.org/ada", "(MCP server for post-training research; +https://example.org/ada)"),
        ("a\nb: c@example.org", "(MCP server for post-training research; +mailto:ab: c@example.org)"),
        ("", "(MCP server for post-training research)"),
    ],
)
async def test_arxiv_alone_is_told_whom_to_write_to(
    service: StandIn, workspace: Workspace, clock: FakeClock, contact: str, sent: str
) -> None:
    environ = {"MLINTERN_ARXIV_URL": service.url, "HF_ENDPOINT": service.url, "MLINTERN_CONTACT": contact}
    web = Web(workspace, clock, environ=environ)
    for name in ("arxiv", "huggingface"):
        await web.get(name, "/echo")
    arxiv, hub = (seen.headers["user-agent"] for seen in service.seen)
    assert arxiv.endswith(sent) and hub.endswith("(MCP server for post-training research)")
    await web.close()


def test_the_pages_of_arxiv_come_from_the_site_for_programs(workspace: Workspace, clock: FakeClock) -> None:
    web = Web(workspace, clock, environ={})
    assert web.endpoint("arxiv").url("html/2305.18290") == "https://export.arxiv.org/html/2305.18290"


@pytest.fixture
async def web(service: StandIn, workspace: Workspace, clock: FakeClock) -> AsyncIterator[Web]:
    client = Web(workspace, clock, environ={"MLINTERN_S2_URL": service.url}, rng=random.Random(0))
    yield client
    await client.close()


async def test_an_answer_carries_its_status_body_and_where_it_came_from(web: Web, service: StandIn) -> None:
    answer = await web.get("semantic_scholar", "echo", params={"q": "a b", "none": None, "n": 3}, expect="json")
    assert answer.status == 200
    assert answer.json() == {"query": {"q": "a b", "n": "3"}}
    assert answer.url == f"{service.url}/echo?q=a+b&n=3"
    assert service.seen[0].headers["user-agent"].startswith("mlintern/")


async def test_a_fresh_answer_is_not_asked_for_again_and_an_old_one_is(
    web: Web, service: StandIn, clock: FakeClock
) -> None:
    first = await web.get("semantic_scholar", "echo", cache=100)
    clock.advance(99)
    again = await web.get("semantic_scholar", "echo", cache=100)
    assert (first.from_cache, again.from_cache, again.body) == (False, True, first.body)
    assert again.age_seconds == 99
    clock.advance(2)
    assert not (await web.get("semantic_scholar", "echo", cache=100)).from_cache
    assert len(service.seen) == 2


async def test_the_cache_survives_a_restart(
    web: Web, service: StandIn, workspace: Workspace, clock: FakeClock
) -> None:
    await web.get("semantic_scholar", "echo")
    restarted = Web(workspace, clock, environ={"MLINTERN_S2_URL": service.url})
    assert (await restarted.get("semantic_scholar", "echo")).from_cache
    await restarted.close()


async def test_an_old_answer_is_confirmed_by_its_validator_instead_of_sent_again(
    web: Web, service: StandIn, clock: FakeClock
) -> None:
    await web.get("semantic_scholar", "validated", cache=10)
    clock.advance(11)
    confirmed = await web.get("semantic_scholar", "validated", cache=10)
    assert confirmed.json() == {"value": 1}
    assert service.seen[1].headers["if-none-match"] == '"one"'
    clock.advance(9)
    assert (await web.get("semantic_scholar", "validated", cache=10)).from_cache


async def test_a_cut_cache_file_is_as_good_as_none(web: Web, workspace: Workspace) -> None:
    await web.get("semantic_scholar", "echo")
    (stored,) = [path for path in (workspace.cache / "web").rglob("*") if path.is_file()]
    stored.write_bytes(stored.read_bytes()[:-3])
    assert not (await web.get("semantic_scholar", "echo")).from_cache


async def test_retry_after_is_honoured_with_jitter_but_never_shortened(
    web: Web, service: StandIn, clock: FakeClock
) -> None:
    service.fail(too_many(4))
    answer = await web.get("semantic_scholar", "echo")
    assert answer.status == 200
    waited = [wait for wait in clock.slept if wait >= 4]
    assert len(waited) == 1 and waited[0] <= 5


async def test_three_refusals_open_the_breaker_and_a_restart_remembers(
    web: Web, service: StandIn, workspace: Workspace, clock: FakeClock
) -> None:
    service.fail_always(too_many())
    with pytest.raises(RateLimited) as refused:
        await web.get("semantic_scholar", "echo")
    assert len(service.seen) == 3
    assert (refused.value.http_status, refused.value.retry_after_seconds) == (429, 120)
    restarted = Web(workspace, clock, environ={"MLINTERN_S2_URL": service.url})
    clock.advance(20)
    with pytest.raises(RateLimited) as remembered:
        await restarted.get("semantic_scholar", "echo")
    assert len(service.seen) == 3, "a service that asked to be left alone was asked"
    assert remembered.value.retry_after_seconds == pytest.approx(100)
    clock.advance(101)
    service.recover()
    assert (await restarted.get("semantic_scholar", "echo")).status == 200
    await restarted.close()


async def test_the_breaker_stays_open_twice_as_long_the_second_time(
    web: Web, service: StandIn, clock: FakeClock
) -> None:
    service.fail_always(too_many())
    with pytest.raises(RateLimited):
        await web.get("semantic_scholar", "echo")
    clock.advance(121)
    with pytest.raises(RateLimited) as again:
        await web.get("semantic_scholar", "echo")
    assert again.value.retry_after_seconds == 240
    assert len(service.seen) == 4, "one refusal is enough once the service has asked for peace"


async def test_a_service_that_names_a_long_wait_is_left_alone_that_long(
    web: Web, service: StandIn, clock: FakeClock
) -> None:
    service.fail(too_many(900))
    with pytest.raises(RateLimited) as refused:
        await web.get("semantic_scholar", "echo")
    assert refused.value.retry_after_seconds == 900
    assert len(service.seen) == 1 and sum(clock.slept) < 10


async def test_a_cached_answer_is_served_while_the_service_is_left_alone(web: Web, service: StandIn) -> None:
    await web.get("semantic_scholar", "echo", params={"q": "known"})
    service.fail_always(too_many(900))
    with pytest.raises(RateLimited):
        await web.get("semantic_scholar", "echo", params={"q": "new"})
    assert (await web.get("semantic_scholar", "echo", params={"q": "known"})).from_cache


@pytest.mark.parametrize("fault", [standin.BROKEN, standin.RESET, standin.CUT], ids=["500", "reset", "cut"])
async def test_a_passing_failure_is_tried_again(web: Web, service: StandIn, fault: standin.Fault) -> None:
    service.fail(fault)
    assert (await web.get("semantic_scholar", "echo")).status == 200
    assert len(service.seen) == 2


@pytest.mark.parametrize(
    ("fault", "kind", "status"),
    [
        (standin.BROKEN, ServiceError, 500),
        (standin.RESET, ServiceError, None),
        (standin.FORBIDDEN, Blocked, 403),
        (standin.ACCESS_DENIED, Blocked, 200),
        (standin.CAPTCHA, Blocked, 200),
        (standin.Fault(status=200, body=b"<!doctype html><html><p>Hello</p></html>"), ServiceError, 200),
        (standin.Fault(status=200, body=b'{"data": ['), ServiceError, 200),
        (standin.Fault(status=400, body=b'{"error":"Unrecognized or unsupported fields: [x]"}'), ServiceError, 400),
    ],
)
async def test_a_lasting_failure_is_named_and_not_cached(
    web: Web, service: StandIn, fault: standin.Fault, kind: type[ServiceError], status: int | None
) -> None:
    service.fail_always(fault)
    with pytest.raises(kind) as failure:
        await web.get("semantic_scholar", "echo", expect="json")
    assert type(failure.value).status == kind.status
    assert failure.value.http_status == status
    service.recover()
    assert not (await web.get("semantic_scholar", "echo", expect="json")).from_cache


async def test_the_reason_that_a_service_gives_is_passed_on(web: Web, service: StandIn) -> None:
    with pytest.raises(NotFound) as missing:
        await web.get("semantic_scholar", "missing")
    assert "Paper with id 0 not found" in str(missing.value)
    service.fail(standin.MISSING_AS_PAGE)
    with pytest.raises(NotFound) as page:
        await web.get("semantic_scholar", "echo")
    assert "html" not in str(page.value).lower()


async def test_a_service_that_never_answers_costs_only_its_time_limit(web: Web, service: StandIn) -> None:
    service.fail_always(standin.STALL)
    with anyio.fail_after(60), pytest.raises(ServiceError) as stalled:
        await web.get("semantic_scholar", "echo", timeout=0.2)
    assert "0.2 s" in str(stalled.value)
    assert len(service.seen) == 1


async def test_a_service_that_is_not_there_is_offline(workspace: Workspace, clock: FakeClock) -> None:
    web = Web(workspace, clock, environ={"MLINTERN_S2_URL": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(Offline):
        await web.get("semantic_scholar", "echo")
    await web.close()


async def test_a_body_larger_than_the_limit_is_refused(web: Web) -> None:
    with pytest.raises(ServiceError) as refused:
        await web.get("semantic_scholar", "large", max_bytes=1000)
    assert "1,000 bytes" in str(refused.value)
    assert len((await web.get("semantic_scholar", "large")).body) == 100_000


async def test_requests_of_one_service_keep_their_distance(web: Web, clock: FakeClock) -> None:
    for number in range(3):
        await web.get("semantic_scholar", "echo", params={"n": number})
    assert [round(wait, 3) for wait in clock.slept] == [0, 3, 3]


async def test_a_key_buys_the_shorter_distance_and_is_sent(
    service: StandIn, workspace: Workspace, clock: FakeClock
) -> None:
    web = Web(workspace, clock, environ={"MLINTERN_S2_URL": service.url, "S2_API_KEY": "k"})
    for number in range(2):
        await web.get("semantic_scholar", "echo", params={"n": number})
    assert clock.slept[-1] == pytest.approx(1.1)
    assert service.seen[0].headers["x-api-key"] == "k"
    await web.close()


async def test_two_workspaces_of_one_user_share_the_promise_to_arxiv(tmp_path: Path) -> None:
    import httpx2

    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, text="ok"))
    clock = FakeClock()
    for name in ("one", "two"):
        web = Web(Workspace.open(tmp_path / name), clock, environ=environ, transport=transport)
        await web.get("arxiv", "html/2305.18290")
        await web.close()
    assert clock.slept == [0, 3]


async def test_while_another_process_talks_to_arxiv_this_one_waits(
    service: StandIn, workspace: Workspace, clock: FakeClock
) -> None:
    web = Web(workspace, clock, environ={"MLINTERN_ARXIV_URL": service.url})
    with exclusive_lock(workspace.folder("web") / "arxiv.lock"):
        with anyio.move_on_after(0.2) as waiting:
            await web.get("arxiv", "echo")
        assert waiting.cancelled_caught and not service.seen
    assert (await web.get("arxiv", "echo")).status == 200
    await web.close()


async def test_a_batch_look_up_is_cached_by_what_it_asks(web: Web, service: StandIn) -> None:
    for ids in (["a"], ["a"], ["b"]):
        await web.post("semantic_scholar", "batch", payload={"ids": ids}, cache=60)
    assert len(service.asked("batch")) == 2


async def test_an_unknown_service_and_a_bad_base_url_are_refused_by_name(
    workspace: Workspace, clock: FakeClock
) -> None:
    web = Web(workspace, clock, environ={"MLINTERN_S2_URL": "ftp://x"})
    with pytest.raises(BadInput):
        await web.get("scholar", "x")
    with pytest.raises(BadInput) as bad:
        await web.get("semantic_scholar", "x")
    assert "MLINTERN_S2_URL" in str(bad.value)
