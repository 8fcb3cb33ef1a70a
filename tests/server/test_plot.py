"""`plot_run`: a page for hosts with MCP Apps, a PNG for the others, words for the model."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest
from mcp import Client
from mcp.client.extension import advertise
from mcp.server.apps import APP_MIME_TYPE, EXTENSION_ID
from mcp.types import CallToolResult, ImageContent, TextContent, TextResourceContents

from mlintern.server.app import build_server
from mlintern.server.apps.pages import PLOT_URI
from mlintern.server.settings import Settings
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.server.test_approval_card import HOST_PAGE, serving
from tests.tools.runs.experiments import Bench, first_light

pytestmark = pytest.mark.anyio
APPS = advertise(EXTENSION_ID, {"mimeTypes": [APP_MIME_TYPE]})


@pytest.fixture
def bench(workspace: Workspace, ledger: Ledger) -> Bench:
    return first_light(workspace, ledger)


async def plot(bench: Bench, *, apps: bool = False, **arguments: str) -> CallToolResult:
    settings = Settings(workspace=bench.workspace.root)
    async with Client(build_server(settings), extensions=[APPS] if apps else []) as client:
        return await client.call_tool("plot_run", arguments)


def text(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


async def test_a_host_without_pages_gets_a_picture_and_the_words(bench: Bench) -> None:
    result = await plot(bench, job_id="job-sft1")
    answer = result.structured_content
    assert not result.is_error and answer, text(result)
    assert any(line.startswith("training loss: ") and "60 points" in line for line in answer["shown"])
    [picture] = [block for block in result.content if isinstance(block, ImageContent)]
    png = base64.b64decode(picture.data)
    assert png.startswith(b"\x89PNG") and Path(answer["path"]).read_bytes() == png
    assert "mlintern/plot" not in (result.meta or {})


async def test_a_host_with_pages_gets_the_drawing_beside_what_the_model_reads(bench: Bench) -> None:
    result = await plot(bench, apps=True, job_id="job-sft1")
    assert 'aria-label="training loss"' in (result.meta or {})["mlintern/plot"]
    assert "<svg" not in text(result) and "<svg" not in json.dumps(result.structured_content)
    assert not [block for block in result.content if isinstance(block, ImageContent)]


async def test_an_experiment_is_drawn_as_its_scores_with_intervals(bench: Bench) -> None:
    answer = (await plot(bench, experiment="maxnum")).structured_content
    assert answer and any("(baseline)" in line for line in answer["shown"])
    assert any(line.startswith("sft-800: 0.878 ± 0.02") for line in answer["shown"]), answer["shown"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "Give job_id or experiment"),
        ({"job_id": "job-sft1", "experiment": "maxnum"}, "Give job_id or experiment"),
        ({"job_id": "job-none"}, "There is no job"),
        ({"job_id": "job-oom"}, "nothing to draw yet"),
        ({"experiment": "none"}, "no experiment"),
    ],
)
async def test_what_cannot_be_drawn_is_said(bench: Bench, arguments: dict[str, str], said: str) -> None:
    result = await plot(bench, **arguments)
    assert result.is_error and said in text(result)


async def test_what_others_named_is_text_on_the_page(bench: Bench) -> None:
    bench.train("job-evil", run_name="<script>alert(1)</script>")
    result = await plot(bench, apps=True, experiment="maxnum")
    assert "<script" not in (result.meta or {})["mlintern/plot"]


@pytest.mark.real
async def test_the_page_shows_the_drawing_in_a_real_browser(bench: Bench) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    playwright = pytest.importorskip("playwright.async_api", reason="make peers installs Playwright")
    async with Client(build_server(Settings(workspace=bench.workspace.root)), extensions=[APPS]) as client:
        [page] = (await client.read_resource(PLOT_URI)).contents
        result = await client.call_tool("plot_run", {"job_id": "job-sft1"})
    assert isinstance(page, TextResourceContents)
    answered = result.model_dump_json(by_alias=True, exclude_none=True).replace("</", "<\\/")
    host = HOST_PAGE.replace("RESULT", answered).replace("PAGE", json.dumps(page.text).replace("</", "<\\/"), 1)
    with serving(host) as (address, _):
        async with playwright.async_playwright() as driver:
            program = await driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            shown = await program.new_page()
            frame = shown.frame_locator("iframe")
            await shown.goto(address)
            await frame.locator('svg[aria-label="training loss"]').wait_for(timeout=25_000)
            assert await frame.locator("h1").inner_text() == "Curves of job-sft1"
            await program.close()
