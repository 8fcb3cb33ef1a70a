"""The approval card: its capability, its tool, and its page in a real browser."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client.extension import advertise
from mcp.server.apps import APP_MIME_TYPE, EXTENSION_ID
from mcp.types import CallToolResult, TextResourceContents

from mlintern.server.apps.approval_card import CARD_TOOL, CARD_URI
from tests.server.test_jobs import QUICK, answer, desk, store, text

CARDS = advertise(EXTENSION_ID, {"mimeTypes": [APP_MIME_TYPE]})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


async def ask(client: Client) -> tuple[CallToolResult, dict[str, Any]]:
    result = await client.call_tool("submit_job", {"script_id": await store(client, QUICK)})
    return result, (result.meta or {}).get("mlintern/card", {})


def decision(card: dict[str, Any], **changes: str) -> dict[str, str]:
    return {"digest": card["digest"], "decision": "run", "card_token": card["token"], **changes}


@pytest.mark.anyio
async def test_the_card_approves_and_the_same_call_then_starts_the_job(home: Path) -> None:
    async with desk(home, extensions=[CARDS]) as client:
        asked, card = await ask(client)
        assert asked.structured_content and asked.structured_content["status"] == "approval_required"
        assert "free of charge" in card["headline"]
        assert card["script"] == QUICK, "the whole script can be read on the card"
        decided = await answer(client, CARD_TOOL, **decision(card, note="Go"))
        assert decided["state"] == "approved"
        started, _ = await ask(client)
        assert started.structured_content and started.structured_content["status"] == "submitted"
        assert "Go" in started.structured_content["note"]


@pytest.mark.anyio
async def test_the_card_denies_with_its_note(home: Path) -> None:
    async with desk(home, extensions=[CARDS]) as client:
        _, card = await ask(client)
        await answer(client, CARD_TOOL, **decision(card, decision="refuse", note="Not today"))
        denied, _ = await ask(client)
        assert denied.structured_content and denied.structured_content["status"] == "denied"
        assert denied.structured_content["note"] == "Not today"


@pytest.mark.anyio
async def test_what_the_model_sees_holds_no_token(home: Path) -> None:
    async with desk(home, extensions=[CARDS]) as client:
        asked, card = await ask(client)
        assert len(card["token"]) == 64
        assert card["token"] not in text(asked) + json.dumps(asked.structured_content)


@pytest.mark.anyio
@pytest.mark.parametrize("token", ["", "0" * 64, "ü"])
async def test_without_the_token_nothing_is_decided(home: Path, token: str) -> None:
    async with desk(home, extensions=[CARDS]) as client:
        _, card = await ask(client)
        result = await client.call_tool(CARD_TOOL, decision(card, card_token=token))
        assert result.is_error and "did not come from the card" in text(result)
        again, _ = await ask(client)
        assert again.structured_content and again.structured_content["status"] == "approval_required"


@pytest.mark.anyio
async def test_the_token_of_one_question_answers_no_other(home: Path) -> None:
    async with desk(home, extensions=[CARDS]) as client:
        _, card = await ask(client)
        longer = await client.call_tool("submit_job", {"script_id": await store(client, QUICK), "timeout": "48h"})
        digest = (longer.meta or {})["mlintern/card"]["digest"]
        result = await client.call_tool(CARD_TOOL, decision(card, digest=digest))
        assert result.is_error


@pytest.mark.anyio
async def test_a_host_without_cards_sees_neither_tool_nor_token(home: Path) -> None:
    async with desk(home) as client:
        assert CARD_TOOL not in {tool.name for tool in (await client.list_tools()).tools}
        asked, card = await ask(client)
        assert card == {} and "This host cannot ask" in text(asked)
        result = await client.call_tool(CARD_TOOL, {"digest": "x", "decision": "run", "card_token": "x"})
        assert result.is_error


@pytest.mark.anyio
async def test_a_host_with_cards_finds_the_page_and_who_may_call_the_tool(home: Path) -> None:
    async with desk(home, extensions=[CARDS]) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert (tools["submit_job"].meta or {})["ui"]["resourceUri"] == CARD_URI
        assert (tools[CARD_TOOL].meta or {})["ui"]["visibility"] == ["app"]
        [page] = (await client.read_resource(CARD_URI)).contents
        assert isinstance(page, TextResourceContents) and page.mime_type == APP_MIME_TYPE


HOST_PAGE = """<!doctype html><meta charset=utf-8><body><script>
// A host of MCP Apps: a sandboxed frame, and JSON-RPC over postMessage. At the end it posts what it has seen.
const seen = [];
const frame = document.createElement("iframe");
frame.sandbox = "allow-scripts";
frame.srcdoc = PAGE;
addEventListener("message", (event) => {
  if (event.source !== frame.contentWindow) return;
  const message = event.data;
  const reply = (result) => frame.contentWindow.postMessage({jsonrpc: "2.0", id: message.id, result}, "*");
  if (message.method === "ui/notifications/size-changed") return;
  seen.push({method: message.method, params: message.params});
  if (message.method === "ui/initialize") reply({protocolVersion: "2026-01-26", hostInfo: {name: "h", version: "1"},
    hostCapabilities: {}, hostContext: {}});
  if (message.method === "ui/notifications/initialized") frame.contentWindow.postMessage({jsonrpc: "2.0",
    method: "ui/notifications/tool-result", params: RESULT}, "*");
  if (message.method === "tools/call") reply({content: [], structuredContent: {state: "approved"}});
  if (message.method === "ui/message") fetch("/seen", {method: "POST", body: JSON.stringify(seen)});
});
document.body.append(frame);
</script>"""
PRESS = """<script>addEventListener("message", () => setTimeout(() => {
  const form = document.getElementById("form");
  if (!form.hidden && !window.pressed) {
    window.pressed = true;
    document.getElementById("note").value = "by hand";
    document.getElementById("approve").click();
  }
}, 50));</script>"""


@pytest.mark.real
@pytest.mark.anyio
async def test_in_a_real_browser_the_button_approves_this_question_alone(home: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    async with desk(home, extensions=[CARDS]) as client:
        asked, card = await ask(client)
        [page] = (await client.read_resource(CARD_URI)).contents
    assert isinstance(page, TextResourceContents)
    policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"
    strict = page.text.replace("<head>", f'<head><meta http-equiv="Content-Security-Policy" content="{policy}">')
    shown = json.dumps(strict.replace("</body>", f"{PRESS}</body>")).replace("</", "<\\/")
    result = asked.model_dump_json(by_alias=True, exclude_none=True).replace("</", "<\\/")
    host = HOST_PAGE.replace("RESULT", result).replace("PAGE", shown, 1)
    with serving(host) as (address, seen):
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        browser = subprocess.Popen(
            [chromium, *options, f"--user-data-dir={tmp_path / 'profile'}", address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            messages = {entry["method"]: entry["params"] for entry in json.loads(seen.get(timeout=60))}
        finally:
            browser.terminate()
            browser.wait(timeout=20)
    assert messages["tools/call"] == {"name": CARD_TOOL, "arguments": decision(card, note="by hand")}
    assert card["digest"][:12] in messages["ui/message"]["content"][0]["text"]


@contextmanager
def serving(page: str) -> Iterator[tuple[str, queue.Queue[bytes]]]:
    """``page`` on the loopback interface, and what it posts."""
    posted: queue.Queue[bytes] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(page.encode())

        def do_POST(self) -> None:
            posted.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(b"")

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", posted
        finally:
            server.shutdown()
            thread.join()
