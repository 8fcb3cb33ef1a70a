"""The MCP servers of a session: connected together, each failing alone, called by names that the model may use."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from mlintern.orchestrator.mcp_config import BadEntry, ServerEntry
from mlintern.orchestrator.mcp_connection import Connection, Elicit, ServerFailed
from mlintern.orchestrator.task_groups import task_group
from mlintern.orchestrator.tool import Tool, ToolOutcome
from mlintern.orchestrator.tool_names import for_model, hosted, legal_names
from mlintern.orchestrator.tool_results import SavedResults, outcome_of

UNKNOWN = (
    "The connection to the server {server} broke while {tool} was running; whether it happened is unknown."
    " Look at the state before you repeat it."
)


@dataclass(frozen=True)
class _HostedTool:
    connection: Connection
    remote: str
    tool: Tool


class McpHosts:
    """`ports.Hosts` over real servers. Use `McpHosts.connect`.

    Attributes:
        failures: the servers that are not there, each with its reason.
    """

    def __init__(self, *, saved: SavedResults) -> None:
        self.failures: list[BadEntry] = []
        self._saved = saved
        self._connections: dict[str, Connection] = {}
        self._hosted: dict[str, _HostedTool] = {}

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        entries: Sequence[ServerEntry],
        *,
        saved: SavedResults,
        elicit: Elicit,
        logs: Path,
        bad: Sequence[BadEntry] = (),
        reserved: Collection[str] = (),
        call_seconds: float = 900.0,
        connect_seconds: float = 60.0,
    ) -> AsyncGenerator[McpHosts, None]:
        """Start or reach all ``entries`` at once; what a server writes to stderr goes to a file in ``logs``."""
        hosts = cls(saved=saved)
        hosts.failures += bad
        async with task_group() as tasks:
            for entry in entries:
                hosts._connections[entry.name] = Connection(
                    entry, tasks=tasks, elicit=elicit, logs=logs, call_seconds=call_seconds
                )
            async with task_group() as starting:
                for connection in hosts._connections.values():
                    starting.start_soon(hosts._start, connection, connect_seconds)
            hosts._name_tools(reserved)
            try:
                yield hosts
            finally:
                with anyio.CancelScope(shield=True):
                    for connection in hosts._connections.values():
                        await connection.close()

    @property
    def tools(self) -> tuple[Tool, ...]:
        """Sorted by name. The list is frozen: what a server adds later would cost the cache and is left out."""
        return tuple(hosted_tool.tool for _, hosted_tool in sorted(self._hosted.items()))

    @property
    def instructions(self) -> Mapping[str, str]:
        """What servers say about their use, by server."""
        return {name: text for name, c in sorted(self._connections.items()) if (text := c.instructions)}

    def by_remote_name(self, remote: str) -> Tool | None:
        """The tool that some server calls ``remote``; None if there is none or more than one."""
        found = [hosted_tool.tool for hosted_tool in self._hosted.values() if hosted_tool.remote == remote]
        return found[0] if len(found) == 1 else None

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolOutcome:
        """See `ports.Hosts.call`. A broken connection is made anew; a call that only reads is then repeated once."""
        hosted_tool = self._hosted.get(name)
        if hosted_tool is None:
            return ToolOutcome.error(f"There is no tool {name!r} in this session any more.")
        for attempt in (1, 2):
            try:
                result = await hosted_tool.connection.call(hosted_tool.remote, arguments)
            except ServerFailed as failure:
                if not failure.lost:
                    return ToolOutcome.error(str(failure))
                if failure.sent and hosted_tool.tool.side_effect != "read_only":
                    text = UNKNOWN.format(server=hosted_tool.tool.server, tool=name)
                    return ToolOutcome.error(text, unknown=True)
                if attempt == 2:
                    return ToolOutcome.error(f"The server {hosted_tool.tool.server} is not available: {failure}")
            else:
                return outcome_of(result, tool=name, saved=self._saved)
        raise AssertionError("unreachable: the second attempt returns")

    async def read_text(self, server: str, uri: str) -> str | None:
        """The text of a resource, or None if it cannot be read."""
        connection = self._connections.get(server)
        if connection is None:
            return None
        with contextlib.suppress(ServerFailed):
            return await connection.read_text(uri)
        return None

    async def _start(self, connection: Connection, seconds: float) -> None:
        try:
            await connection.open(seconds=seconds)
        except ServerFailed as failure:
            self.failures.append(BadEntry(name=connection.entry.name, reason=str(failure)))

    def _name_tools(self, reserved: Collection[str]) -> None:
        listed = {
            (server, tool.name): (connection, tool)
            for server, connection in self._connections.items()
            for tool in connection.tools
            if for_model(tool)
        }
        for (server, remote), name in legal_names(listed, reserved=reserved).items():
            connection, tool = listed[server, remote]
            self._hosted[name] = _HostedTool(connection, remote, hosted(tool, name=name, server=server))
