"""Killed after any event, a session resumes: valid history, no effect twice, no dollar forgotten.

A session is recorded once, from its first event to its last. What a kill -9 leaves on disk is one of its prefixes,
perhaps with half a line behind it; each of them is taken up by a newly assembled agent over a real MCP server.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from mlintern.orchestrator.assemble import assemble
from mlintern.orchestrator.mcp_config import ServerEntry
from mlintern.orchestrator.options import Options
from mlintern.orchestrator.rehearsal.messages_server import MessagesServer
from mlintern.orchestrator.rehearsal.turns import Answer, Text, Thinking, ToolUse, Turn, says
from mlintern.orchestrator.session import EVENTS, read_events
from mlintern.orchestrator.stops import Stop
from tests.clock import FakeClock
from tests.orchestrator.lab import Watcher
from tests.services.ports import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

GOAL = "Write every line exactly once."
LINES = [f"line-{number}" for number in range(5)]
COMPACT_AT = 14_000
REPOSITORY = Path(__file__).parents[2]


@dataclass
class World:
    """A real MCP server in a process of its own; its effects lie in a file."""

    folder: Path
    url: str

    @property
    def effects(self) -> list[str]:
        path = self.folder / "effects.txt"
        return path.read_text().splitlines() if path.exists() else []

    def set_effects(self, lines: list[str]) -> None:
        (self.folder / "effects.txt").write_text("".join(f"{line}\n" for line in lines))

    def worker(self, request: dict[str, Any]) -> Answer:
        """A model that looks at what is written and writes the next line, reading something at the same time."""
        missing = [line for line in LINES if line not in self.effects]
        if not missing:
            return says("Every line is written.")
        read = ToolUse("echo", {"text": f"{missing[0]} " * 600})
        return Turn([Thinking("So."), Text(f"Next: {missing[0]}."), read, ToolUse("write", {"line": missing[0]})])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    port = free_port()
    command = [sys.executable, "-m", "tests.services.mcp_tools", str(folder), "--http", str(port)]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL) as process:
        while not answers(port):
            with contextlib.suppress(subprocess.TimeoutExpired):
                pytest.fail(f"the MCP server ended with {process.wait(timeout=0.05)}")
        yield World(folder, f"http://127.0.0.1:{port}/mcp")
        process.terminate()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def run(
    world: World, server: MessagesServer, sessions: Path, *, resume: str | None = None
) -> tuple[Stop, float]:
    """Start or take up a session and run it to its end; its stop and what it has cost in all."""
    options = Options(
        entries=[ServerEntry(name="tools", url=world.url)],
        base_url=server.url,
        api_key="test",
        endpoint_profile="anthropic",
        model="claude-sonnet-5-5",
        budget_usd=50.0,
        compact_at=COMPACT_AT,
        resume=resume,
        sessions=sessions,
    )
    with anyio.fail_after(120):
        async with assemble(options, ui=Watcher(), clock=FakeClock(), person=None) as agent:
            assert agent.hosts.failures == []
            if not agent.orchestrator.conversation.messages:
                agent.orchestrator.say(GOAL)
            stop = await agent.orchestrator.run()
            return stop, agent.orchestrator.budget.spent_usd


def written(events: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """The lines whose calls ended in a prefix of a session, and those whose calls had only begun."""
    asked: dict[str, str] = {}
    begun: list[str] = []
    ended: list[str] = []
    for event in events:
        if event["kind"] == "reply":
            asked |= {b["id"]: b["input"].get("line") for b in event["blocks"] if b["type"] == "tool_use"}
        elif event["kind"] in ("tool_start", "tool_end") and event["name"] == "write":
            (begun if event["kind"] == "tool_start" else ended).append(asked[event["id"]])
    return ended, [line for line in begun if line not in ended]


async def test_a_session_killed_after_any_event_goes_on_without_doing_anything_twice(
    world: World, tmp_path: Path
) -> None:
    world.set_effects([])
    async with MessagesServer(world.worker) as server:
        stop, _ = await run(world, server, tmp_path)
    assert stop.name == "done" and world.effects == LINES
    (whole,) = tmp_path.iterdir()
    lines = (whole / EVENTS).read_bytes().splitlines(keepends=True)
    events = list(read_events(whole))
    kinds = [event["kind"] for event in events]
    assert kinds.count("compaction") >= 1 and kinds.count("tool_start") == 2 * len(LINES)

    left_open = 0
    for kept in range(1, len(events)):
        ended, begun = written(events[:kept])
        left_open += len(begun)
        for happened in ([], begun) if begun else ([],):
            world.set_effects([*ended, *happened])
            name = f"killed-{kept}-{len(happened)}"
            folder = tmp_path / "killed" / name
            folder.mkdir(parents=True)
            torn = lines[kept][: len(lines[kept]) // 2] if kept % 2 else b""
            (folder / EVENTS).write_bytes(b"".join(lines[:kept]) + torn)
            before = sum(event["usd"] for event in events[:kept] if event["kind"] == "spend")
            async with MessagesServer(world.worker) as server:
                stop, spent = await run(world, server, folder.parent, resume=name)
            refused = [r for r in server.requests if not r.scripted and "compaction" not in r.json]
            where = f"killed after event {kept}, {events[kept - 1]['kind']}"
            assert refused == [], f"{where}: {json.dumps(refused[0].json['messages'][-3:])[:2000]}"
            assert stop.name == "done", f"{where}: {stop}"
            assert world.effects == LINES, where
            assert spent >= before - 1e-9, where
            resumed = list(read_events(folder))
            assert sum(event["usd"] for event in resumed if event["kind"] == "spend") == pytest.approx(spent), where
    assert left_open >= len(LINES), "some prefixes ended inside a call with an effect"
