"""Waiting for a job as an MCP task (extension ``io.modelcontextprotocol/tasks``, SEP-2663).

`poll_job` with ``wait_seconds`` answers after 45 seconds at most, because hosts end longer calls. A host that
declares the extension gets a task instead: it polls by itself, its model is woken when the job is over or something
new was found, and no tokens are spent on waiting. Everyone else sees nothing of this module.

Built on the SDK's public extension API; it goes away when the SDK brings its own. A task is a way of looking at a
job, so there is nothing to store: its id names the job and what was known when the watch began. To cancel the task
ends the watch, not the job; `cancel_job` does that.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver.server import require_client_extension
from mcp.types import INVALID_PARAMS, CallToolRequestParams, RequestParams
from pydantic import Field

from mlintern.common.clock import iso
from mlintern.server.job_progress import in_short
from mlintern.server.services import Lab
from mlintern.server.strict_server import as_result
from mlintern.server.toolsets.jobs import MOST_WAIT_SECONDS
from mlintern.tools.errors import MlinternError, NotFound
from mlintern.tools.jobs.job_results import JobStatus
from mlintern.tools.jobs.spec import FINAL

TASKS = "io.modelcontextprotocol/tasks"
SINCE = frozenset({"2026-07-28"})
POLL_INTERVAL_MS = 5_000
REMEMBERED_CANCELLATIONS = 1_000
TASK_ID = re.compile(r"([\w-]+)\.(\d{1,6})\.(\d{1,14})", re.ASCII)


class TaskParams(RequestParams):
    task_id: str = Field(alias="taskId", max_length=200)


@dataclass(frozen=True)
class Watch:
    """What a task id says: which job, how many findings were known, when the watch began (ms since the epoch)."""

    job_id: str
    findings: int
    began_ms: int

    def __str__(self) -> str:
        return f"{self.job_id}.{self.findings}.{self.began_ms}"

    @classmethod
    def parse(cls, task_id: str) -> Watch:
        match = TASK_ID.fullmatch(task_id)
        if match is None:
            raise _unknown(task_id)
        return cls(match[1], int(match[2]), int(match[3]))

    def is_over(self, status: JobStatus) -> bool:
        return status.state in FINAL or len(status.findings) > self.findings


class JobTasks(Extension):
    """Turns a waiting `poll_job` into a task, for clients that declare the extension."""

    identifier = TASKS

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._cancelled: OrderedDict[str, None] = OrderedDict()

    def methods(self) -> Sequence[MethodBinding]:
        return [
            MethodBinding("tasks/get", TaskParams, self._get, SINCE),
            MethodBinding("tasks/update", TaskParams, self._update, SINCE),
            MethodBinding("tasks/cancel", TaskParams, self._cancel, SINCE),
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        arguments = params.arguments or {}
        waits = params.name == "poll_job" and set(arguments) - {"since"} == {"job_id", "wait_seconds"}
        if not waits or not _is_a_wait(arguments["wait_seconds"]) or not _declares_tasks(ctx):
            return await call_next(ctx)
        try:
            status = await self._lab.jobs.poll(str(arguments["job_id"]))
        except MlinternError:
            return await call_next(ctx)  # the tool itself says what is wrong
        if status.state in FINAL:
            return await call_next(ctx)
        watch = Watch(status.job_id, len(status.findings), int(self._lab.clock.now() * 1000))
        return {"resultType": "task", **self._task(watch, "working", message=in_short(status))}

    async def _get(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> HandlerResult:
        require_client_extension(ctx, TASKS)
        watch = Watch.parse(params.task_id)
        if params.task_id in self._cancelled:
            return {"resultType": "complete", **self._task(watch, "cancelled")}
        try:
            status = await self._lab.jobs.poll(watch.job_id)
        except NotFound:
            raise _unknown(params.task_id) from None
        except MlinternError as error:  # the backend does not answer just now; the job may go on
            return {"resultType": "complete", **self._task(watch, "working", message=str(error))}
        if not watch.is_over(status):
            return {"resultType": "complete", **self._task(watch, "working", message=in_short(status))}
        result = as_result(status.model_dump(mode="json")).model_dump(mode="json", by_alias=True, exclude_none=True)
        return {"resultType": "complete", **self._task(watch, "completed"), "result": result}

    async def _update(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> HandlerResult:
        """A watch never asks for input, so there is nothing to take."""
        require_client_extension(ctx, TASKS)
        Watch.parse(params.task_id)
        return {"resultType": "complete"}

    async def _cancel(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> HandlerResult:
        require_client_extension(ctx, TASKS)
        watch = Watch.parse(params.task_id)
        try:
            status = await self._lab.jobs.poll(watch.job_id)
        except NotFound:
            raise _unknown(params.task_id) from None
        if not watch.is_over(status):
            self._cancelled[params.task_id] = None
            while len(self._cancelled) > REMEMBERED_CANCELLATIONS:
                self._cancelled.popitem(last=False)
        return {"resultType": "complete"}

    def _task(self, watch: Watch, status: str, *, message: str = "") -> dict[str, Any]:
        task = {
            "taskId": str(watch),
            "status": status,
            "createdAt": iso(watch.began_ms / 1000),
            "lastUpdatedAt": iso(self._lab.clock.now()),
            "ttlMs": None,
            "pollIntervalMs": POLL_INTERVAL_MS,
        }
        return {**task, "statusMessage": message} if message else task


def _is_a_wait(seconds: object) -> bool:
    """Whether `poll_job` itself would wait so long; what it would refuse, it shall refuse."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return False
    return 0 < seconds <= MOST_WAIT_SECONDS


def _declares_tasks(ctx: ServerRequestContext[Any, Any]) -> bool:
    capabilities = ctx.session.client_capabilities
    return ctx.protocol_version in SINCE and TASKS in ((capabilities and capabilities.extensions) or {})


def _unknown(task_id: str) -> MCPError:
    return MCPError(code=INVALID_PARAMS, message=f"Unknown task {task_id!r}")
