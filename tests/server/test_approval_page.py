from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx2
import pytest

from mlintern.server.web.door import COOKIE
from mlintern.server.web.page import ApprovalPage
from mlintern.tools.approvals import Approvals
from mlintern.tools.ledger import Ledger
from tests.clock import FakeClock
from tests.server.asking import action_for

pytestmark = pytest.mark.anyio

PORT = 8765
ORIGIN = f"http://127.0.0.1:{PORT}"
ACTION = replace(
    action_for("train.py", usd=3.0),
    what="Run <script>alert(1)</script>",
    details=(("Arguments", '"><script>alert(1)</script>&'),),
)


@pytest.fixture
def approvals(ledger: Ledger, clock: FakeClock) -> Approvals:
    service = Approvals(ledger=ledger, clock=clock)
    service.pending(ACTION)
    return service


@pytest.fixture
def page(approvals: Approvals) -> ApprovalPage:
    return ApprovalPage(approvals, port=PORT, workspace="/home/someone/.mlintern")


@pytest.fixture
async def browser(page: ApprovalPage) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=page.app)
    async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN, follow_redirects=True) as client:
        yield client


async def decide(browser: httpx2.AsyncClient, **changes: str) -> httpx2.Response:
    form = {"digest": ACTION.consent_digest, "decision": "approve", "note": "be kind", **changes}
    return await browser.post("/decide", data=form, headers={"Origin": ORIGIN})


async def test_the_printed_address_opens_the_page_and_its_token_leaves_the_address_bar(
    page: ApprovalPage, browser: httpx2.AsyncClient
) -> None:
    response = await browser.get(page.address)
    assert response.status_code == 200
    assert str(response.url) == f"{ORIGIN}/"
    assert "at most 3.00 USD" in response.text


async def test_what_others_wrote_is_shown_and_never_run(page: ApprovalPage, browser: httpx2.AsyncClient) -> None:
    response = await browser.get(page.address)
    assert "<script>" not in response.text
    assert "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in response.text
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]


@pytest.mark.parametrize("decision, state", [("approve", "approved"), ("deny", "denied"), ("nonsense", "denied")])
async def test_a_decision_on_the_page_is_recorded_with_its_note(
    page: ApprovalPage, browser: httpx2.AsyncClient, approvals: Approvals, decision: str, state: str
) -> None:
    await browser.get(page.address)
    response = await decide(browser, decision=decision)
    assert response.status_code == 200 and "Nothing waits" in response.text
    found = approvals.decision(ACTION)
    assert found is not None
    assert (found.state, found.via, found.note) == (state, "approval page", "be kind")


async def test_the_address_works_once(page: ApprovalPage, browser: httpx2.AsyncClient) -> None:
    await browser.get(page.address)
    browser.cookies.clear()
    assert (await browser.get(page.address)).status_code == 403


async def test_the_code_of_the_terminal_opens_the_page(page: ApprovalPage, browser: httpx2.AsyncClient) -> None:
    assert 'name="code"' in (await browser.get("/")).text
    response = await browser.post("/code", data={"code": f" {page.code.upper()} "}, headers={"Origin": ORIGIN})
    assert response.status_code == 200 and "at most 3.00 USD" in response.text


async def test_codes_cannot_be_guessed_nor_sent_by_another_page(
    page: ApprovalPage, browser: httpx2.AsyncClient
) -> None:
    stranger = await browser.post("/code", data={"code": page.code}, headers={"Origin": "http://evil.example"})
    assert stranger.status_code == 403
    for guess in range(5):
        response = await browser.post("/code", data={"code": f"{guess:04}-0000"}, headers={"Origin": ORIGIN})
        assert response.status_code == 403
    right = await browser.post("/code", data={"code": page.code}, headers={"Origin": ORIGIN})
    assert right.status_code == 403 and "Run the command again" in right.text


async def test_the_page_shows_the_whole_script_as_text(approvals: Approvals) -> None:
    page = ApprovalPage(
        approvals, port=PORT, workspace="w", script_text=lambda name: f"# {name}\nx = '<b>\u202e'\n" * 30
    )
    approvals.pending(replace(ACTION, script_id="abc"))
    transport = httpx2.ASGITransport(app=page.app)
    async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN, follow_redirects=True) as browser:
        text = (await browser.get(page.address)).text
    assert text.count("x = &#x27;&lt;b&gt; &#x27;") == 30 and "The whole script, 60 lines" in text
    assert "\u202e" not in text


@pytest.mark.parametrize("path", ["/", "/?token=", "/?token=wrong", "/?token=%C3%BC"])
async def test_nobody_gets_in_without_the_token(browser: httpx2.AsyncClient, path: str) -> None:
    response = await browser.get(path)
    assert response.status_code == 403 and "train" not in response.text


async def test_a_decision_without_the_cookie_counts_for_nothing(
    browser: httpx2.AsyncClient, approvals: Approvals
) -> None:
    assert (await decide(browser)).status_code == 403
    browser.cookies.set(COOKIE, "guessed")
    assert (await decide(browser)).status_code == 403
    assert approvals.list(state="pending")


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "https://127.0.0.1:8765", "http://127.0.0.1"]
)
async def test_a_decision_from_another_page_counts_for_nothing(
    page: ApprovalPage, browser: httpx2.AsyncClient, approvals: Approvals, origin: str | None
) -> None:
    await browser.get(page.address)
    headers = {} if origin is None else {"Origin": origin}
    form = {"digest": ACTION.consent_digest, "decision": "approve"}
    assert (await browser.post("/decide", data=form, headers=headers)).status_code == 403
    assert approvals.list(state="pending")


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:1"])
async def test_a_name_that_was_rebound_to_this_machine_is_refused(
    page: ApprovalPage, browser: httpx2.AsyncClient, host: str
) -> None:
    response = await browser.get(f"/?token={page.token}", headers={"Host": host})
    assert response.status_code == 421


async def test_what_cannot_be_decided_is_said_on_the_page(page: ApprovalPage, browser: httpx2.AsyncClient) -> None:
    await browser.get(page.address)
    response = await decide(browser, digest="0123456789ab")
    assert response.status_code == 409 and "No question with digest 0123456789ab is open" in response.text


async def test_a_form_that_is_too_long_is_refused(page: ApprovalPage, browser: httpx2.AsyncClient) -> None:
    await browser.get(page.address)
    assert (await decide(browser, note="x" * 20_000)).status_code == 413


async def test_no_address_or_token_is_ever_part_of_the_page(page: ApprovalPage, browser: httpx2.AsyncClient) -> None:
    response = await browser.get(page.address)
    assert not re.search(re.escape(page.token), response.text)
