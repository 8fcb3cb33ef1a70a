"""An agent for tests: the real loop, model client, guard and budget; tools in the process; a record in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from mlintern.orchestrator.compaction import HistoryCompactor, summarizers
from mlintern.orchestrator.conversation import Conversation
from mlintern.orchestrator.loop import Orchestrator
from mlintern.orchestrator.model import ANTHROPIC, EndpointProfile, Message
from mlintern.orchestrator.paid_calls import PaidCalls
from mlintern.orchestrator.plan import Plan
from mlintern.orchestrator.ports import Journal, LocalTool
from mlintern.orchestrator.rehearsal.messages_server import MessagesServer
from mlintern.orchestrator.rehearsal.turns import Answer
from mlintern.orchestrator.settings import LoopSettings
from mlintern.orchestrator.summary import Caller
from tests.clock import FakeClock
from tests.orchestrator.lab import Record, Tools, Watcher, client, money

Script = Sequence[Answer] | Callable[[dict[str, Any]], Answer]


@dataclass
class Lab:
    orchestrator: Orchestrator
    server: MessagesServer
    tools: Tools
    record: Record
    ui: Watcher
    clock: FakeClock
    plan: Plan

    @property
    def messages(self) -> list[Message]:
        return self.orchestrator.conversation.messages

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [recorded.json for recorded in self.server.requests]

    def results(self) -> list[dict[str, Any]]:
        """All tool results of the history, in order."""
        return [
            block
            for message in self.messages
            if message["role"] == "user" and not isinstance(message["content"], str)
            for block in message["content"]
        ]


def some_tools() -> Tools:
    tools = Tools()
    tools.add("look", lambda arguments: f"seen {arguments.get('at', 'nothing')}")
    tools.add("write", lambda arguments: "written", side_effect="side_effect")
    tools.add("fail", _fail)
    return tools


def _fail(arguments: dict[str, Any]) -> str:
    raise ValueError(f"it failed: {arguments.get('why')}")


@asynccontextmanager
async def lab(
    script: Script,
    *,
    tools: Tools | None = None,
    limit_usd: float | None = 50.0,
    compact_at: int = 170_000,
    window: int = 200_000,
    compactor: HistoryCompactor | None = None,
    journal: Journal | None = None,
    denied: Sequence[str] = (),
    attempts: int = 6,
    fallback_model: str | None = None,
    profile: EndpointProfile = ANTHROPIC,
    **settings: Any,
) -> AsyncGenerator[Lab, None]:
    """An agent with the goal still to be said, on a scripted server."""
    tools, clock, ui, record, plan = tools or some_tools(), FakeClock(), Watcher(), Record(), Plan()
    loop = replace(LoopSettings(model="claude-sonnet-5-5", caching=True, max_tokens=1000), **settings)
    local: list[LocalTool] = [plan]
    journal = journal or record
    async with MessagesServer(script) as server, aclosing(client(server, profile, attempts=attempts)) as model:
        calls = PaidCalls(model=model, budget=money(limit_usd), journal=journal, ui=ui, fallback_model=fallback_model)
        caller = Caller(calls=calls, settings=loop)
        orchestrator = Orchestrator(
            calls=calls,
            hosts=tools,
            local=local,
            conversation=Conversation(
                system="s", tools=[tool.definition() for tool in (*tools.tools, *(each.tool for each in local))]
            ),
            compactor=compactor
            or HistoryCompactor(
                summarizers(profile, caller, window=window), trigger=compact_at, window=window, plan=plan
            ),
            settings=loop,
            clock=clock,
            plan=plan,
            denied=denied,
        )
        yield Lab(orchestrator, server, tools, record, ui, clock, plan)
