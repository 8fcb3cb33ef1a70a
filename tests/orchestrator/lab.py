"""The parts of an agent that a test does not want to be real: tools in the process, a record, a watcher."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mlintern.orchestrator.anthropic_model import AnthropicModel
from mlintern.orchestrator.budget import ModelBudget
from mlintern.orchestrator.events import Event
from mlintern.orchestrator.model import EndpointProfile
from mlintern.orchestrator.prices import PRICES
from mlintern.orchestrator.rehearsal.messages_server import MessagesServer
from mlintern.orchestrator.retry import RetryPolicy
from mlintern.orchestrator.tool import SideEffect, Tool, ToolOutcome
from tests.clock import FakeClock

Answerer = Callable[[dict[str, Any]], Awaitable[str] | str]


class Tools:
    """`ports.Hosts` over plain functions from arguments to text; a raised `ValueError` is an error outcome."""

    def __init__(self) -> None:
        self.called: list[tuple[str, dict[str, Any]]] = []
        self._tools: dict[str, tuple[Tool, Answerer]] = {}

    def add(self, name: str, answer: Answerer, *, side_effect: SideEffect = "read_only", polls: bool = False) -> None:
        schema = {"type": "object"}
        tool = Tool(
            name=name, description=name, input_schema=schema, side_effect=side_effect, polls=polls, server="lab"
        )
        self._tools[name] = (tool, answer)

    @property
    def tools(self) -> tuple[Tool, ...]:
        return tuple(tool for _, (tool, _) in sorted(self._tools.items()))

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolOutcome:
        self.called.append((name, arguments))
        try:
            answer = self._tools[name][1](arguments)
            text = answer if isinstance(answer, str) else await answer
        except ValueError as error:
            return ToolOutcome.error(str(error))
        return ToolOutcome(content=[{"type": "text", "text": text}])

    def by_remote_name(self, remote: str) -> Tool | None:
        return self._tools[remote][0] if remote in self._tools else None


class Record:
    """A `ports.Journal` that only remembers."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def append(self, kind: str, **fields: Any) -> None:
        self.events.append({"kind": kind, **fields})

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["kind"] == kind]

    def usd(self) -> float:
        return sum(float(event["usd"]) for event in self.of("spend"))


class Watcher:
    """A `ports.Ui` that only remembers. ``queue`` is what the person types."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self.queue: list[str] = []

    def show(self, event: Event) -> None:
        self.seen.append(event)

    def typed(self) -> list[str]:
        typed, self.queue = self.queue, []
        return typed


def money(limit: float | None = 50.0) -> ModelBudget:
    return ModelBudget(limit, PRICES, day=lambda: dt.date(2026, 11, 23))


def client(server: MessagesServer, profile: EndpointProfile, *, attempts: int = 6) -> AnthropicModel:
    return AnthropicModel(
        profile=profile,
        clock=FakeClock(),
        base_url=server.url,
        api_key="test",
        policy=RetryPolicy(attempts=attempts),
        jitter=lambda: 0.0,
    )


def texts(request: Mapping[str, Any]) -> str:
    """All that a request's messages say, results included."""
    found = []
    for message in request["messages"]:
        content = message["content"]
        for block in [{"text": content}] if isinstance(content, str) else content:
            inner = block.get("content")
            parts = inner if isinstance(inner, list) else [{"text": inner or block.get("text", "")}]
            found += [part.get("text", "") for part in parts]
    return "\n".join(found)
