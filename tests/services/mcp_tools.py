"""A small real MCP server, in a process of its own: one tool for each thing that a tool can do to its caller.

    python -m tests.services.mcp_tools FOLDER [--http PORT | --older]

What has an effect appends a line to ``FOLDER/effects.txt``; what is to be seen from outside lies in FOLDER too.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Annotated

import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver import AcceptedElicitation, Context, Resolve
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import (
    METHOD_NOT_FOUND,
    AudioContent,
    CallToolResult,
    ImageContent,
    ResourceLink,
    TextContent,
    ToolAnnotations,
)
from pydantic import BaseModel

from mlintern.common.consent import Action
from mlintern.common.durations import parse_duration
from mlintern.server.asking import Asked, Consent, put, send_actions_along

READS = ToolAnnotations(read_only_hint=True)
WRITES = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False)
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


class Job(BaseModel):
    job_id: str
    state: str


class Jobs(BaseModel):
    items: list[Job]


class Submitted(BaseModel):
    status: str
    job_id: str = ""
    note: str = ""


async def consent(backend: str, timeout: str, usd: float, ctx: Context) -> Asked:
    action = Action(
        kind="submit_job",
        what="Start script",
        name="train",
        where=backend,
        hardware="cpu",
        usd_worst=usd,
        seconds=parse_duration(timeout),
        digest="ab12cd34ef56",
    )
    return await put(action, ctx)


class State:
    """What the server remembers, in files: it may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.effects = folder / "effects.txt"

    def effect(self, line: str) -> int:
        with self.effects.open("a") as file:
            file.write(line + "\n")
        return len(self.effects.read_text().splitlines())

    def count(self, name: str) -> int:
        path = self.folder / f"count-{name}"
        number = int(path.read_text()) + 1 if path.exists() else 1
        path.write_text(str(number))
        return number


def speak_the_older_protocol(command: list[str]) -> int:
    """Stand before the server ``command`` and not know ``server/discover``, as servers of 2025 do not."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None and server.stdout is not None
        threading.Thread(target=_pass_on, args=(server.stdout, sys.stdout.buffer), daemon=True).start()
        for line in sys.stdin.buffer:
            message = json.loads(line)
            if message.get("method") == "server/discover":
                error = {"code": METHOD_NOT_FOUND, "message": "Method not found"}
                line = json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}).encode() + b"\n"
                _pass_on([line], sys.stdout.buffer)
            else:
                _pass_on([line], server.stdin)
        server.stdin.close()
        return server.wait(timeout=10)


def _pass_on(lines: Iterable[bytes], to: IO[bytes]) -> None:
    for line in lines:
        to.write(line)
        to.flush()


def build(folder: Path) -> MCPServer:
    server = MCPServer("tools", instructions="Use echo to hear yourself.", middleware=[send_actions_along])
    state = State(folder)
    _add_readers(server, state)
    _add_writers(server, state)
    _add_contents(server)
    return server


def _add_readers(server: MCPServer, state: State) -> None:
    @server.tool(annotations=READS)
    async def echo(text: str) -> str:
        """Say it back."""
        state.count("echo")
        return f"you said {text}"

    @server.tool(annotations=READS)
    async def protocol(ctx: Context) -> str:
        """The version that was agreed on."""
        return ctx.protocol_version or ""

    @server.tool(annotations=READS)
    async def environment(name: str) -> str:
        """The value of an environment variable."""
        return os.environ.get(name, "(not set)")

    @server.tool(annotations=READS)
    async def poll_job(job_id: str, wait_seconds: float = 0) -> Job:
        """The state of a job: running twice, then done."""
        return Job(job_id=job_id, state="running" if state.count(f"poll-{job_id}") <= 2 else "succeeded")

    @server.tool(annotations=READS)
    async def list_jobs(limit: int = 10, status: str | None = None) -> Jobs:
        """The jobs that were submitted; all of them run."""
        lines = state.effects.read_text().splitlines() if state.effects.exists() else []
        jobs = [line.removeprefix("job ") for line in lines if line.startswith("job ")]
        return Jobs(items=[Job(job_id=job, state="running") for job in jobs[:limit]])

    @server.tool(annotations=READS)
    async def wait_for_file(name: str, ctx: Context) -> str:
        """Wait until a file of that name appears in the folder."""
        await ctx.report_progress(1, 4, "looking for the file")
        (state.folder / f"{name}.waiting").touch()
        with anyio.fail_after(60):
            while not (state.folder / name).exists():
                await anyio.sleep(0.02)
        return "it is there"

    @server.tool(annotations=READS)
    async def fails(why: str) -> str:
        """Fail with a reason."""
        raise ToolError(f"it failed: {why}")

    @server.tool(annotations=READS)
    async def dies_once() -> str:
        """End the server's process the first time, answer the second."""
        if state.count("dies") == 1:
            os._exit(1)
        return "alive again"

    @server.tool(annotations=READS, meta={"ui": {"visibility": ["app"]}})
    async def for_the_page_only() -> str:
        """Not for a model."""
        return "secret"


def _add_writers(server: MCPServer, state: State) -> None:
    @server.tool(annotations=WRITES)
    async def write(line: str) -> str:
        """Have an effect."""
        return f"effect number {state.effect(line)}"

    @server.tool(annotations=WRITES)
    async def write_and_die(line: str) -> str:
        """Have an effect, then end the server's process without an answer."""
        state.effect(line)
        os._exit(1)

    @server.tool(annotations=WRITES)
    async def write_and_hang(line: str) -> str:
        """Have an effect, then answer only when a file ``go`` appears in the folder."""
        state.effect(line)
        with anyio.fail_after(60):
            while not (state.folder / "go").exists():
                await anyio.sleep(0.02)
        return "done at last"

    @server.tool(annotations=ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True))
    async def submit_job(
        backend: str,
        timeout: str,
        usd: float,
        answer: Annotated[Consent, Resolve(consent)],
    ) -> Submitted:
        """Start a job; asks."""
        given = answer.data if isinstance(answer, AcceptedElicitation) else None
        if given is None or not getattr(given, "approve", False):
            return Submitted(status="denied", note=getattr(given, "note", None) or answer.action)
        number = state.effect(f"job j{state.count('job')}")
        return Submitted(status="submitted", job_id=f"j{number}", note=answer.data.note or "")


def _add_contents(server: MCPServer) -> None:
    @server.resource("mlintern://scripts/{script_id}")
    async def script(script_id: str) -> str:
        """A script."""
        return f"print({script_id!r})"

    @server.tool(annotations=READS)
    async def big(characters: int) -> str:
        """A long text."""
        return "".join(f"line {number}\n" for number in range(characters // 8))

    @server.tool(annotations=READS)
    async def picture() -> CallToolResult:
        """A text, a picture, a link, a sound."""
        png = base64.b64encode(PNG).decode()
        return CallToolResult(
            content=[
                TextContent(type="text", text="a text"),
                ImageContent(type="image", data=png, mime_type="image/png"),
                ResourceLink(type="resource_link", name="log", uri="file:///tmp/log.txt", description="the log"),
                AudioContent(type="audio", data=png, mime_type="audio/wav"),
            ]
        )

    @server.tool(annotations=READS)
    async def both() -> Annotated[CallToolResult, Job]:
        """Text and structured content that differ."""
        content = [TextContent(type="text", text="in words")]
        return CallToolResult(content=content, structured_content={"job_id": "j9", "state": "queued"})

    @server.tool(name="odd.name/with slash", annotations=READS)
    async def odd() -> str:
        """A name that the API does not take."""
        return "odd"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--http", type=int)
    parser.add_argument("--older", action="store_true")
    chosen = parser.parse_args()
    if chosen.older:
        return speak_the_older_protocol([sys.executable, "-m", "tests.services.mcp_tools", str(chosen.folder)])
    server = build(chosen.folder)
    if chosen.http is None:
        server.run()
    else:
        server.run(transport="streamable-http", port=chosen.http)
    return 0


if __name__ == "__main__":
    sys.exit(main())
