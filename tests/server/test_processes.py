"""The real program: over pipes, over HTTP, and what it loads before it is asked for anything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.server.asking import YES, Person

pytestmark = pytest.mark.anyio

SERVER = [sys.executable, "-m", "mlintern.server"]
HEAVY = [
    "anthropic",
    "torch",
    "datasets",
    "transformers",
    "trl",
    "pandas",
    "numpy",
    "pyarrow",
    "duckdb",
    "jinja2",
    "lxml",
    "arxiv",
    "huggingface_hub.hf_api",
    "matplotlib",
    "typer",
    "psutil",
]

LATER = [
    "mlintern.tools.scripts.recipe",
    "mlintern.tools.scripts.checks",
    "mlintern.tools.evals.read_files",
    "mlintern.tools.data.rows",
    "mlintern.tools.web",
]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "MLINTERN_HOME": str(tmp_path / "home")}


@asynccontextmanager
async def over_pipes(
    environment: dict[str, str], *arguments: str, mode: str = "auto", person: Person | None = None
) -> AsyncIterator[Client]:
    command, *rest = [*SERVER, "serve", *arguments]
    parameters = StdioServerParameters(command=command, args=rest, env=environment)
    async with Client(stdio_client(parameters), mode=mode, elicitation_callback=person) as client:
        yield client


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_job_is_approved_and_runs_through_the_real_process(environment: dict[str, str], mode: str) -> None:
    person = Person(YES)
    async with over_pipes(environment, mode=mode, person=person) as client:
        code = "# /// script\n# dependencies = []\n# ///\nprint('done')\n"
        script = await client.call_tool("edit_script", {"code": code})
        assert script.structured_content is not None
        submitted = await client.call_tool("submit_job", {"script_id": script.structured_content["script_id"]})
        assert submitted.structured_content is not None, submitted.content
        job_id = submitted.structured_content["job_id"]
        state = "queued"
        while state in ("queued", "running"):
            status = await client.call_tool("poll_job", {"job_id": job_id, "wait_seconds": 20})
            assert status.structured_content is not None, status.content
            state = status.structured_content["state"]
        assert state == "succeeded"
    assert len(person.asked) == 1


@pytest.mark.slow
async def test_a_job_outlives_the_server_that_started_it(environment: dict[str, str]) -> None:
    wait = "import pathlib, time\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.02)\n"
    code = f"# /// script\n# dependencies = []\n# ///\n{wait}"
    async with over_pipes(environment, "--allow", "local<=1h") as client:
        script = await client.call_tool("edit_script", {"code": code})
        assert script.structured_content is not None
        submitted = await client.call_tool("submit_job", {"script_id": script.structured_content["script_id"]})
        assert submitted.structured_content is not None
        job_id = submitted.structured_content["job_id"]
    # The one folder that an isolated job shares with its starter.
    (Path(environment["MLINTERN_HOME"]) / "jobs" / job_id / "work" / "go").touch()
    async with over_pipes(environment) as client:
        state = "queued"
        while state in ("queued", "running"):
            status = await client.call_tool("poll_job", {"job_id": job_id, "wait_seconds": 20})
            assert status.structured_content is not None
            state = status.structured_content["state"]
    assert state == "succeeded"


def test_starting_and_listing_the_tools_loads_nothing_heavy(environment: dict[str, str]) -> None:
    program = (
        "import sys, anyio\n"
        "from mcp import Client\n"
        "from mlintern.server.app import build_server\n"
        "from mlintern.server.settings import Settings\n"
        "async def main():\n"
        "    async with Client(build_server(Settings())) as client:\n"
        "        assert (await client.list_tools()).tools\n"
        "anyio.run(main)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_list_of_tools_waits_for_none_of_our_own_modules_that_take_long_to_load(
    environment: dict[str, str],
) -> None:
    """Without serving: what looks after earlier jobs loads them later."""
    program = (
        "import sys, anyio\n"
        "from mlintern.server.app import build_server\n"
        "from mlintern.server.settings import Settings\n"
        "assert anyio.run(build_server(Settings()).list_tools)\n"
        f"print([name for name in {LATER!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_nothing_but_the_protocol_is_written_to_stdout(environment: dict[str, str]) -> None:
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
    messages: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": hello},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {"name": "list_jobs", "arguments": {}}},
        {"id": 3, "method": "tools/call", "params": {"name": "poll_job", "arguments": {"job_id": "none"}}},
    ]
    process = subprocess.Popen(
        [*SERVER, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stdin is not None and process.stdout is not None
    with process:
        for message in messages:
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        process.stdin.flush()
        answers = {json.loads(process.stdout.readline())["id"] for _ in range(3)}
        process.stdin.close()
        assert process.stdout.read() == b""
    assert answers == {1, 2, 3}
    assert process.returncode == 0


@contextmanager
def serving_http(home: Path, host: str = "127.0.0.1") -> Iterator[str]:
    """The address of a server on a free port, stopped afterwards."""
    command = [*SERVER, "serve", "--http", f"{host}:0", "--workspace", str(home)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "listens on " in line, line
        yield line.rpartition(" ")[2].strip()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


@pytest.fixture
def http_server(tmp_path: Path) -> Iterator[str]:
    with serving_http(tmp_path / "home") as address:
        yield address


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_same_tools_are_served_over_http_with_approvals(http_server: str, mode: str) -> None:
    person = Person(YES)
    async with Client(http_server, mode=mode, elicitation_callback=person) as client:
        script = await client.call_tool("edit_script", {"code": f"print({mode!r})\n"})
        assert script.structured_content is not None
        submitted = await client.call_tool("submit_job", {"script_id": script.structured_content["script_id"]})
        assert submitted.structured_content is not None, submitted.content
        assert submitted.structured_content["status"] == "submitted"
    assert len(person.asked) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "[::1]", "localhost"])
async def test_no_web_page_reaches_the_http_server_whatever_its_address(tmp_path: Path, host: str) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    with serving_http(tmp_path / "home", host) as address:
        async with httpx2.AsyncClient() as browser:
            with anyio.fail_after(60):
                foreign = await browser.post(address, json=body, headers={"Origin": "http://evil.example"})
                neighbour = await browser.post(address, json=body, headers={"Origin": "http://localhost:3000"})
                rebound = await browser.post(address, json=body, headers={"Host": "evil.example"})
                long = await browser.post(address, content=b"x" * 5_000_000)
    assert (foreign.status_code, neighbour.status_code) == (403, 403)
    assert rebound.status_code == 421
    assert long.status_code == 413
