"""One MCP server: its client lives in a task of its own, is called from any, and is made anew after it broke."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import mcp.types as types
from anyio.abc import TaskStatus
from mcp import Client, MCPError
from mcp.client.session import ClientRequestContext
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.dispatcher import ProgressFnT
from mcp.types import CONNECTION_CLOSED

from mlintern.orchestrator.call_progress import listener
from mlintern.orchestrator.errors import OrchestratorError
from mlintern.orchestrator.mcp_config import ServerEntry, child_environment

LIST_PAGES = 50
LAST_WORDS_CHARS = 300


class ServerFailed(OrchestratorError):
    """The server could not be reached or refused. The text is for people and models.

    Attributes:
        lost: the connection is gone (else the server answered, with a refusal).
        sent: the request may have reached the server.
    """

    def __init__(self, message: str, *, lost: bool, sent: bool = False) -> None:
        self.lost = lost
        self.sent = sent
        super().__init__(message)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a server asks a person while a tool runs. ``tool`` and ``arguments`` are those of the call, if known.

    ``meta`` is for programs: our server describes there, as data, what it asks consent for.
    """

    server: str
    message: str
    schema: Mapping[str, Any] = field(default_factory=dict)
    url: str = ""
    tool: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """accept carries ``content`` by the question's schema; decline is a no, cancel is no answer."""

    action: str
    content: dict[str, Any] | None = None


Elicit = Callable[[Question], Awaitable[Answer]]


@dataclass(eq=False)
class _Call:
    tool: str
    arguments: Mapping[str, Any]
    scope: anyio.CancelScope
    asking: int = 0


_this_call: ContextVar[_Call | None] = ContextVar("_this_call", default=None)


class Connection:
    """See the module. Every wait is bounded, except for a person's answer."""

    def __init__(
        self, entry: ServerEntry, *, tasks: anyio.abc.TaskGroup, elicit: Elicit, logs: Path, call_seconds: float
    ) -> None:
        self.entry = entry
        self.tools: list[types.Tool] = []
        self.instructions = ""
        self._tasks = tasks
        self._elicit = elicit
        self._log = logs / f"mcp-{re.sub(r'[^A-Za-z0-9_-]', '_', entry.name)}.log"
        self._call_seconds = call_seconds
        self._connect_seconds = 60.0
        self._client: Client | None = None
        self._failure = ""
        self._closing = anyio.Event()
        self._closed = anyio.Event()
        self._opening = anyio.Lock()
        self._calls: list[_Call] = []

    async def open(self, *, seconds: float) -> None:
        """Connect and list the tools.

        Raises:
            ServerFailed: it did not start, did not answer in time, or answered nonsense.
        """
        self._connect_seconds = seconds
        self._closing, self._closed = anyio.Event(), anyio.Event()
        self._failure = f"it did not answer within {seconds:g} s{self._last_words()}"
        with anyio.move_on_after(seconds):  # if time runs out, the task is cancelled with it
            await self._tasks.start(self._hold_open)
        if self._client is None:
            raise ServerFailed(self._failure, lost=True)

    async def close(self) -> None:
        """End the connection; a stdio server is ended with it."""
        self._closing.set()
        if self._client is not None:
            await self._closed.wait()

    async def call(self, tool: str, arguments: dict[str, Any]) -> types.CallToolResult:
        """Call ``tool`` by the server's own name for it, connecting again first if need be.

        Raises:
            ServerFailed: no result.
        """
        client = await self._connected()
        with anyio.CancelScope(deadline=anyio.current_time() + self._call_seconds) as scope:
            call = _Call(tool, arguments, scope)
            self._calls.append(call)
            token = _this_call.set(call)
            try:
                async with self._named_failures(client):
                    return await client.call_tool(tool, arguments, progress_callback=_progress_callback())
            finally:
                _this_call.reset(token)
                self._calls.remove(call)
        raise ServerFailed(f"{tool} gave no answer within {self._call_seconds:.0f} s.", lost=True, sent=True)

    async def read_text(self, uri: str) -> str:
        """The text of a resource.

        Raises:
            ServerFailed: it cannot be read.
        """
        client = await self._connected()
        with anyio.move_on_after(30):
            async with self._named_failures(client):
                result = await client.read_resource(uri)
            return "\n".join(c.text for c in result.contents if isinstance(c, types.TextResourceContents))
        raise ServerFailed(f"{uri} gave no answer.", lost=False)

    async def _connected(self) -> Client:
        async with self._opening:
            if self._client is None:
                await self.open(seconds=self._connect_seconds)
            assert self._client is not None, "open() raises or connects"
            return self._client

    async def _hold_open(self, *, task_status: TaskStatus[None]) -> None:
        """Hold the connection open from its own task: a transport must be left in the task that entered it."""
        closing, closed = self._closing, self._closed
        connected = False
        try:
            async with contextlib.AsyncExitStack() as stack:
                client = await stack.enter_async_context(await self._new_client(stack))
                self.tools = await _all_tools(client)
                self.instructions = (client.instructions or "").strip()
                self._client, connected = client, True
                task_status.started()
                await closing.wait()
        except _FAULTS as error:
            self._failure = f"{_reason(error)}{self._last_words()}"
            if not connected:
                task_status.started()
        finally:
            self._client = None
            closed.set()

    async def _new_client(self, stack: contextlib.AsyncExitStack) -> Client:
        entry = self.entry
        if not entry.url:
            log = stack.enter_context(self._log.open("a", encoding="utf-8"))
            parameters = StdioServerParameters(
                command=entry.command, args=list(entry.args), env=child_environment(entry), cwd=entry.cwd
            )
            return Client(stdio_client(parameters, errlog=log), elicitation_callback=self._ask)
        import httpx2
        from mcp.client.streamable_http import streamable_http_client

        timeout = httpx2.Timeout(30.0, read=self._call_seconds)
        http = await stack.enter_async_context(httpx2.AsyncClient(headers=dict(entry.headers), timeout=timeout))
        return Client(streamable_http_client(entry.url, http_client=http), elicitation_callback=self._ask)

    async def _ask(
        self, context: ClientRequestContext, params: types.ElicitRequestParams
    ) -> types.ElicitResult | types.ErrorData:
        """Pass a server's question on. The clock of the call that asks stands still meanwhile."""
        call = self._asking_call()
        question = Question(
            server=self.entry.name,
            message=params.message,
            schema=getattr(params, "requested_schema", None) or {},
            meta=dict(params.meta or {}),
            url=getattr(params, "url", "") or "",
            tool=call.tool if call else "",
            arguments=call.arguments if call else {},
        )
        with self._clock_stopped(call):
            answer = await self._elicit(question)
        if answer.action == "accept":
            return types.ElicitResult(action="accept", content=answer.content)
        return types.ElicitResult(action="decline" if answer.action == "decline" else "cancel")

    def _asking_call(self) -> _Call | None:
        call = _this_call.get()  # the question came back as the call's own answer (2026-07-28)
        if call in self._calls:
            return call
        return self._calls[0] if len(self._calls) == 1 else None  # an older server's, from the reading task

    @contextlib.contextmanager
    def _clock_stopped(self, call: _Call | None) -> Iterator[None]:
        stopped = [call] if call else list(self._calls)
        for each in stopped:
            each.asking += 1
            each.scope.deadline = math.inf
        try:
            yield
        finally:
            for each in stopped:
                each.asking -= 1
                if not each.asking:
                    each.scope.deadline = anyio.current_time() + self._call_seconds

    @asynccontextmanager
    async def _named_failures(self, client: Client) -> AsyncIterator[None]:
        try:
            yield
        except MCPError as error:
            if error.code != CONNECTION_CLOSED:
                raise ServerFailed(str(error), lost=False) from error
            await self._drop(client)
            raise ServerFailed(f"the connection closed{self._last_words()}", lost=True, sent=True) from error
        except (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            await self._drop(client)
            raise ServerFailed("the connection is closed", lost=True, sent=True) from error
        except (ValueError, RuntimeError) as error:  # a result of another shape; questions without end
            raise ServerFailed(f"the server's answer cannot be read: {_reason(error)}", lost=False) from error

    async def _drop(self, client: Client) -> None:
        if self._client is client:
            await self.close()

    def _last_words(self) -> str:
        if self.entry.url:
            return ""
        with contextlib.suppress(OSError):
            said = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
            last = next((line.strip() for line in reversed(said) if line.strip()), "")
            return f"; its last words ({self._log}): {last[:LAST_WORDS_CHARS]}" if last else ""
        return ""


def _progress_callback() -> ProgressFnT | None:
    listening = listener()
    if listening is None:
        return None

    async def report(progress: float, total: float | None, message: str | None) -> None:
        listening(progress, total, message or "")

    return report


async def _all_tools(client: Client) -> list[types.Tool]:
    tools: list[types.Tool] = []
    cursor: str | None = None
    for _ in range(LIST_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        cursor = page.next_cursor
        if not cursor:
            break
    return tools


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error).splitlines()[0] if str(error) else type(error).__name__


_FAULTS = (
    *(OSError, MCPError, ValueError, RuntimeError, ExceptionGroup),
    *(anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream),
)
"""What connecting to a stranger's program or address can end in."""
