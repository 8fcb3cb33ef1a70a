"""The protocols of the loop's parts that have more than one implementation."""

from __future__ import annotations

from typing import Any, Protocol

from mlintern.orchestrator.events import Event
from mlintern.orchestrator.tool import Tool, ToolOutcome


class LocalTool(Protocol):
    """A tool that the orchestrator has itself (`update_plan`, `research`)."""

    @property
    def tool(self) -> Tool: ...

    async def call(self, arguments: dict[str, Any]) -> ToolOutcome:
        """Run it. Bad arguments are an error outcome, not an exception."""
        ...


class Hosts(Protocol):
    """The tools of all connected MCP servers, or the part of them that a sub-agent has."""

    @property
    def tools(self) -> tuple[Tool, ...]:
        """Sorted by name, frozen for the session."""
        ...

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolOutcome:
        """Call a tool. Whatever goes wrong with it is an error outcome."""
        ...


class Journal(Protocol):
    """The record of an agent: a session on disk, a sub-agent's file in it."""

    def append(self, kind: str, **fields: Any) -> None:
        """Write one event durably before anything is done about it."""
        ...


class Ui(Protocol):
    """Shows a run. Never raises, never blocks for long."""

    def show(self, event: Event) -> None: ...

    def typed(self) -> list[str]:
        """What the person typed while the agent worked, taken out of the queue."""
        ...
