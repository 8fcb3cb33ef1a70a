"""The live page: what it shows, who may see it, and how it is in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Literal

import anyio
import httpx2
import pytest

from mlintern.server.services import Lab
from mlintern.server.settings import Settings
from mlintern.server.web.live import LivePage
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.server.asking import action_for
from tests.tools.runs.experiments import first_light

PORT = 8766
ORIGIN = f"http://127.0.0.1:{PORT}"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def lab(workspace: Workspace, ledger: Ledger) -> Lab:
    bench = first_light(workspace, ledger)
    bench.train("job-evil", run_name="evil", error=HOSTILE, state="failed")
    (workspace.job("job-evil") / "log.txt").write_text(f"{HOSTILE}\nthe last line\n")
    lab = Lab(Settings())
    lab.approvals.pending(action_for("train.py", usd=3.0))
    return lab


@pytest.fixture
def page(lab: Lab) -> LivePage:
    return LivePage(lab, port=PORT, every_seconds=0.01)


@pytest.fixture
async def browser(page: LivePage) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=page.app)
    async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN, follow_redirects=True) as client:
        yield client


@pytest.mark.anyio
async def test_the_parts_show_questions_jobs_experiments_and_the_chosen_job(page: LivePage) -> None:
    parts = await page.parts("job-evil")
    assert "at most 3.00 USD" in parts["questions"] and 'value="approve"' in parts["questions"]
    assert 'data-job="job-oom"' in parts["jobs"] and "killed: out of memory" in parts["jobs"]
    assert "maxnum" in parts["experiments"] and "87.8 % (85.8 to 89.8)" in parts["experiments"]
    assert 'aria-label="training loss"' in parts["job"] and "the last line" in parts["job"]
    assert not [name for name, html in parts.items() if "<script" in html], "what others wrote is text"


@pytest.mark.anyio
async def test_an_unknown_job_is_said_and_the_page_goes_on(page: LivePage) -> None:
    assert "There is no job" in (await page.parts("job-nothing"))["job"]


@pytest.mark.anyio
async def test_only_what_changed_is_sent(page: LivePage, lab: Lab) -> None:
    with anyio.fail_after(60):
        changes = page._changes("")
        first = json.loads((await anext(changes)).removeprefix("data: "))
        assert set(first) == {"questions", "jobs", "experiments", "job"}
        assert (await anext(changes)).startswith(":")
        lab.approvals.deny(action_for("train.py", usd=3.0).short_digest, note="", via="test")
        second = json.loads((await anext(changes)).removeprefix("data: "))
        assert second == {"questions": "<p>Nothing waits for you.</p>"}
        await changes.aclose()


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/", "/live.js", "/events", "/events?job=job-sft1"])
async def test_nobody_sees_anything_without_the_token(browser: httpx2.AsyncClient, path: str) -> None:
    response = await browser.get(path)
    assert response.status_code == 403 and "maxnum" not in response.text
    response = await browser.get(path, headers={"Host": "evil.example"})
    assert response.status_code == 421


@pytest.mark.anyio
async def test_a_question_is_decided_on_the_page(page: LivePage, browser: httpx2.AsyncClient, lab: Lab) -> None:
    response = await browser.get(page.address)
    assert response.status_code == 200 and "script-src 'self'" in response.headers["content-security-policy"]
    form = {"digest": action_for("train.py", usd=3.0).consent_digest, "decision": "approve", "note": "go"}
    refused = await browser.post("/decide", data=form, headers={"Origin": "http://evil.example"})
    assert refused.status_code == 403
    decided = await browser.post("/decide", data=form, headers={"Origin": ORIGIN})
    assert decided.status_code == 200 and "Approved" in decided.text
    assert lab.approvals.list(state="approved")


@pytest.mark.anyio
async def test_the_page_is_small_and_fetches_nothing_from_elsewhere(page: LivePage) -> None:
    folder = resources.files("mlintern.server.web")
    texts = [(folder / name).read_text() for name in ("live.html", "live.js")]
    parts = await page.parts("job-sft1")
    assert sum(map(len, [*texts, *parts.values()])) < 200_000
    assert not re.findall(r"https?://", "".join([*texts, *parts.values()]))


@pytest.mark.anyio
async def test_what_is_shown_at_first_needs_no_script(page: LivePage, browser: httpx2.AsyncClient) -> None:
    shown = (await browser.get(page.address)).text
    assert "maxnum" in shown and "job-oom" in shown and "at most 3.00 USD" in shown


@contextmanager
def served(lab: Lab) -> Iterator[str]:
    """The live page on a real port; yields the address that opens it."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as listener:
        page = LivePage(lab, port=listener.getsockname()[1], every_seconds=0.2)
        config = uvicorn.Config(page.app, log_level="error", log_config=None, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: anyio.run(lambda: server.serve(sockets=[listener])), daemon=True)
        thread.start()
        try:
            yield page.address
        finally:
            server.should_exit = True
            thread.join(timeout=20)


@pytest.mark.real
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_to_everybody_without_a_complaint(lab: Lab, scheme: Literal["light", "dark"]) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="make peers installs Playwright and axe")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    complaints: list[str] = []
    with served(lab) as address, playwright.sync_playwright() as driver:
        program = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            page = program.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
            page.set_default_timeout(25_000)
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(address, wait_until="domcontentloaded")
            page.locator("#link", has_text="Up to date.").wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, "no part is wider than a phone"
            # From the keyboard alone: the job's button is reached, pressed, and keeps the focus as parts come in.
            button = page.locator('button[data-job="job-sft2"]')
            button.focus()
            page.keyboard.press("Enter")
            page.locator('#job svg[aria-label="training loss"]').wait_for()
            page.locator('#job h3:has-text("Answered otherwise")').wait_for()
            page.locator('button[data-job="job-sft2"][aria-current]').wait_for()
            assert page.evaluate("document.activeElement.dataset.job") == "job-sft2"
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            found = axe.Axe().run(page)
            assert found.violations_count == 0, found.generate_report()
            # What happens elsewhere arrives without a reload; what is being typed stays.
            note = page.locator("input[name=note]")
            note.fill("half a senten")
            lab.approvals.deny(action_for("train.py", usd=3.0).short_digest, note="", via="test")
            page.wait_for_timeout(1000)
            assert note.input_value() == "half a senten"
            page.locator("h1").click()
            page.locator('#questions:has-text("Nothing waits for you.")').wait_for()
        finally:
            program.close()
    assert complaints == []
