"""Where a request may not go, and where a token may not."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from mlintern.tools.errors import Blocked, ServiceError
from mlintern.tools.web import Web
from mlintern.tools.web.private_networks import check_url, is_public, resolve_by_system
from mlintern.tools.web.services import SERVICES, Endpoint, locate
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services.standin import StandIn

pytestmark = pytest.mark.anyio

PRIVATE = [
    "http://127.0.0.1/",
    "http://localhost:8080/",
    "http://10.1.2.3/",
    "http://192.168.0.1/admin",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]/",
    "http://[fe80::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://0.0.0.0/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://metadata.internal/",
    "http://user:secret@example.org/",
    "http://user@example.org/",
    "http://:secret@example.org/",
    "http://[2002:a00:1::]/",
    "http://[2002:7f00:1::1]/",
    "http://224.0.0.1/",
    "http://[ff02::1]/",
    "http://[ff0e::1]/",
    "http://100.64.0.1/",
    "http://printer.local./",
]


def _endpoint(name: str, environ: dict[str, str]) -> Endpoint:
    return locate(next(service for service in SERVICES if service.name == name), environ)


def recording(
    seen: list[httpx2.Request], answer: Callable[[httpx2.Request], httpx2.Response]
) -> httpx2.MockTransport:
    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return answer(request)

    return httpx2.MockTransport(handle)


@pytest.mark.parametrize("url", PRIVATE)
async def test_an_address_inside_the_network_is_refused_before_anything_is_sent(
    url: str, workspace: Workspace, clock: FakeClock
) -> None:
    sent: list[httpx2.Request] = []
    web = Web(workspace, clock, environ={}, transport=recording(sent, lambda _: httpx2.Response(200)))
    with pytest.raises(Blocked):
        await web.get("web", url)
    assert not sent


@pytest.mark.parametrize("url", PRIVATE)
async def test_a_redirect_into_the_network_is_refused(
    url: str, workspace: Workspace, clock: FakeClock, tmp_path: object
) -> None:
    sent: list[httpx2.Request] = []
    transport = recording(sent, lambda _: httpx2.Response(302, headers={"location": url}))
    web = Web(workspace, clock, environ={"XDG_CACHE_HOME": str(tmp_path)}, transport=transport)
    with pytest.raises(Blocked):
        await web.get("arxiv", "html/2305.18290")
    assert len(sent) == 1


async def test_a_name_that_resolves_into_the_network_is_refused(workspace: Workspace, clock: FakeClock) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["93.184.216.34", "127.0.0.1"]

    with StandIn([]).running() as inside:
        web = Web(workspace, clock, environ={}, resolve=resolve)
        with pytest.raises(Blocked) as refused:
            await web.get("web", f"http://paper.example:{inside.port}/x")
        assert not inside.seen
        assert "resolves" in str(refused.value)
        await web.close()


@pytest.mark.parametrize("addresses", [["10.0.0.1", "93.184.216.34"], ["93.184.216.34", "10.0.0.1"]])
async def test_one_private_address_among_several_is_enough_to_refuse(
    addresses: list[str], workspace: Workspace, clock: FakeClock
) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return addresses

    web = Web(workspace, clock, environ={}, resolve=resolve)
    with pytest.raises(Blocked):
        await web.get("web", "http://paper.example/x")
    await web.close()


@pytest.mark.parametrize("unreachable", [1, 2, 3])
async def test_an_address_without_an_answer_is_followed_by_the_next(
    unreachable: int, workspace: Workspace, clock: FakeClock
) -> None:
    async def hello(request: Request) -> Response:
        return PlainTextResponse("hello")

    with StandIn([Route("/x", hello)]).running() as home:
        dead = ["127.0.0.2", "127.0.0.3", "127.0.0.4"][:unreachable]

        async def resolve(host: str, port: int) -> list[str]:
            return [*dead, "127.0.0.1", "127.0.0.5"]

        web = Web(workspace, clock, environ={"HF_ENDPOINT": f"http://mirror.example:{home.port}"}, resolve=resolve)
        assert (await web.get("huggingface", "x")).text == "hello"
        await web.close()


async def test_at_most_four_addresses_of_a_name_are_tried(workspace: Workspace, clock: FakeClock) -> None:
    async def hello(request: Request) -> Response:
        return PlainTextResponse("hello")

    with StandIn([Route("/x", hello)]).running() as home:

        async def resolve(host: str, port: int) -> list[str]:
            return ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.1"]

        web = Web(workspace, clock, environ={"HF_ENDPOINT": f"http://mirror.example:{home.port}"}, resolve=resolve)
        with pytest.raises(ServiceError):
            await web.get("huggingface", "x")
        assert not home.seen
        await web.close()


@pytest.mark.parametrize("found", [[], OSError("no such name")])
async def test_a_name_without_an_address_is_a_named_failure(
    found: list[str] | OSError, workspace: Workspace, clock: FakeClock
) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        if isinstance(found, OSError):
            raise found
        return found

    web = Web(workspace, clock, environ={}, resolve=resolve)
    with pytest.raises(ServiceError) as refused:
        await web.get("web", "http://paper.example/x")
    assert not isinstance(refused.value, Blocked)
    await web.close()


async def test_the_system_resolver_gives_addresses() -> None:
    assert set(await resolve_by_system("localhost", 80)) & {"127.0.0.1", "::1"}


@pytest.mark.parametrize("url", ["ftp://example.org/x", "file:///etc/passwd", "http:///nothing"])
def test_an_address_that_is_not_http_is_not_followed(url: str) -> None:
    with pytest.raises(Blocked, match="not an http"):
        check_url(url, _endpoint("web", {}))


def test_only_a_home_that_a_person_chose_may_lie_inside() -> None:
    chosen = _endpoint("huggingface", {"HF_ENDPOINT": "http://127.0.0.1:8080"})
    check_url("http://127.0.0.1:8080/x", chosen)
    with pytest.raises(Blocked, match="HF_ENDPOINT"):
        check_url("http://127.0.0.1:8081/x", chosen)
    with pytest.raises(Blocked):
        check_url("http://127.0.0.1:8080/x", _endpoint("web", {}))


async def test_what_was_checked_is_what_is_connected_to(workspace: Workspace, clock: FakeClock) -> None:
    """A name server that gives a second answer (DNS rebinding) is not asked a second time."""
    answers = [["127.0.0.1"], ["10.0.0.1"]]

    async def resolve(host: str, port: int) -> list[str]:
        return answers.pop(0)

    async def hello(request: Request) -> Response:
        return PlainTextResponse(request.headers["host"])

    with StandIn([Route("/x", hello)]).running() as home:
        base = f"http://mirror.example:{home.port}"
        web = Web(workspace, clock, environ={"HF_ENDPOINT": base}, resolve=resolve)
        answer = await web.get("huggingface", "x")
        assert answer.text == f"mirror.example:{home.port}"
        assert answers == [["10.0.0.1"]]
        await web.close()


async def test_a_configured_base_url_may_be_inside_but_only_for_its_own_service(
    workspace: Workspace, clock: FakeClock
) -> None:
    async def hello(request: Request) -> Response:
        return PlainTextResponse("hello")

    with StandIn([Route("/x", hello)]).running() as home:
        web = Web(workspace, clock, environ={"HF_ENDPOINT": home.url})
        assert (await web.get("huggingface", "x")).text == "hello"
        for service, url in (("web", f"{home.url}/x"), ("huggingface", f"http://127.0.0.1:{home.port + 1}/x")):
            with pytest.raises(Blocked):
                await web.get(service, url)
        await web.close()


async def test_a_redirect_never_carries_a_token_to_another_host(workspace: Workspace, clock: FakeClock) -> None:
    sent: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.host == "huggingface.co":
            return httpx2.Response(302, headers={"location": "https://cdn.example.org/blob"})
        return httpx2.Response(200, text="blob")

    web = Web(workspace, clock, environ={"HF_TOKEN": "hf_secret"}, transport=recording(sent, answer))
    await web.get("huggingface", "a/resolve/main/x", headers={"X-Mine": "private"})
    assert [request.headers.get("authorization") for request in sent] == ["Bearer hf_secret", None]
    assert "x-mine" not in sent[1].headers


@pytest.mark.parametrize(
    "url",
    [
        "https://huggingface.co.evil.org/x",
        "https://evil.org/huggingface.co/x",
        "https://evil.org/?https://huggingface.co",
        "https://evil.org#huggingface.co",
        "http://huggingface.co/x",
        "https://huggingface.co:8443/x",
        "https://datasets-server.huggingface.co/x",
    ],
)
async def test_a_token_goes_to_its_own_origin_compared_as_parsed(
    url: str, workspace: Workspace, clock: FakeClock
) -> None:
    sent: list[httpx2.Request] = []
    transport = recording(sent, lambda _: httpx2.Response(200))
    web = Web(workspace, clock, environ={"HF_TOKEN": "hf_secret"}, transport=transport)
    await web.get("huggingface", url)
    assert "authorization" not in sent[0].headers
    assert "hf_secret" not in str(sent[0].url)


async def test_a_token_in_a_parameter_is_sent_but_neither_shown_nor_stored(
    workspace: Workspace, clock: FakeClock
) -> None:
    sent: list[httpx2.Request] = []
    transport = recording(sent, lambda _: httpx2.Response(200, json={}))
    web = Web(workspace, clock, environ={"OPENALEX_API_KEY": "oa_secret"}, transport=transport)
    answer = await web.get("openalex", "works", params={"search": "x"})
    assert sent[0].url.params["api_key"] == "oa_secret"
    assert "oa_secret" not in answer.url
    files = [path for path in workspace.root.rglob("*") if path.is_file()]
    assert files and all(b"oa_secret" not in path.read_bytes() for path in files)


async def test_a_token_that_a_service_echoes_is_redacted(workspace: Workspace, clock: FakeClock) -> None:
    echo = httpx2.MockTransport(lambda _: httpx2.Response(400, json={"error": "bad key oa_secret"}))
    web = Web(workspace, clock, environ={"OPENALEX_API_KEY": "oa_secret"}, transport=echo)
    with pytest.raises(ServiceError) as refused:
        await web.get("openalex", "works")
    assert "oa_secret" not in str(refused.value)


async def test_what_one_token_may_see_is_not_served_to_another(workspace: Workspace, clock: FakeClock) -> None:
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, text=request.headers["authorization"]))
    for token in ("one", "two"):
        web = Web(workspace, clock, environ={"HF_TOKEN": token}, transport=transport)
        assert (await web.get("huggingface", "x")).text == f"Bearer {token}"


async def test_redirects_without_end_end(workspace: Workspace, clock: FakeClock) -> None:
    async def around(request: Request) -> Response:
        return RedirectResponse("/x")

    with StandIn([Route("/x", around)]).running() as home:
        web = Web(workspace, clock, environ={"HF_ENDPOINT": home.url})
        with pytest.raises(ServiceError):
            await web.get("huggingface", "x")
        assert len(home.seen) == 6
        await web.close()


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_as_public_wrapped_in_ipv6_as_bare(address: object) -> None:
    assert is_public(f"::ffff:{address}") == is_public(str(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "10.0.0.1", "127.0.0.1", "192.168.1.255"])
@pytest.mark.parametrize("form", ["::ffff:{0}", "64:ff9b::{0}", "2002:{1:02x}{2:02x}:{3:02x}{4:02x}::1"])
def test_each_way_to_carry_an_ipv4_address_is_as_public_as_the_address(address: str, form: str) -> None:
    assert is_public(form.format(address, *(int(part) for part in address.split(".")))) == is_public(address)
