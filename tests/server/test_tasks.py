"""Waiting for a job as a task, and being told of its changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from mcp import Client, MCPError
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.client.subscriptions import ListenNotSupportedError
from mcp.types import CallToolResult, Request, RequestParams, Result
from pydantic import ConfigDict

from mlintern.server.tasks import TASKS, Watch
from tests.server.asking import YES, Person
from tests.server.test_jobs import ENDLESS, answer, desk, store

pytestmark = pytest.mark.anyio


class Task(Result):
    model_config = ConfigDict(extra="allow")
    result_type: Literal["task"]
    task_id: str
    status: str
    created_at: str
    last_updated_at: str
    ttl_ms: int | None
    poll_interval_ms: int


class TaskState(Result):
    model_config = ConfigDict(extra="allow")
    task_id: str = ""
    status: str = ""
    result: dict[str, Any] | None = None


class TaskParams(RequestParams):
    task_id: str


class TaskRequest(Request[TaskParams, str]):
    name_param = "taskId"


class KeepsTasks(ClientExtension):
    """A client that takes tasks and leaves them as they are."""

    identifier = TASKS

    def claims(self) -> Sequence[ResultClaim[Any]]:
        async def unused(task: Task, context: ClaimContext) -> CallToolResult:
            raise AssertionError("these tests look at the task itself")

        return [ResultClaim(result_type="task", model=Task, resolve=unused)]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def watching(home: Path) -> Any:
    return desk(home, person=Person(YES), extensions=[KeepsTasks()])


async def ask(client: Client, method: str, task_id: str) -> TaskState:
    return await client.session.send_request(
        TaskRequest(method=method, params=TaskParams(task_id=task_id)), TaskState
    )


async def start(client: Client, code: str = ENDLESS) -> str:
    return str((await answer(client, "submit_job", script_id=await store(client, code)))["job_id"])


async def watch(client: Client, job_id: str) -> Any:
    arguments = {"job_id": job_id, "wait_seconds": 45}
    return await client.session.call_tool("poll_job", arguments, allow_claimed=True)


async def test_waiting_for_a_running_job_becomes_a_task_that_completes_with_it(home: Path) -> None:
    async with watching(home) as client:
        job_id = await start(client)
        task = await watch(client, job_id)
        assert isinstance(task, Task)
        assert task.status == "working" and task.ttl_ms is None and task.poll_interval_ms >= 1000
        assert (await ask(client, "tasks/get", task.task_id)).status == "working"
        await answer(client, "cancel_job", job_id=job_id)
        state = await ask(client, "tasks/get", task.task_id)
        while state.status == "working":
            await answer(client, "poll_job", job_id=job_id)
            state = await ask(client, "tasks/get", task.task_id)
        assert state.status == "completed" and state.result is not None
        assert state.result["structuredContent"]["state"] == "cancelled"
        assert state.result["content"]


async def test_a_job_that_is_over_answers_at_once(home: Path) -> None:
    async with watching(home) as client:
        job_id = await start(client)
        await answer(client, "cancel_job", job_id=job_id)
        while (await answer(client, "poll_job", job_id=job_id))["state"] != "cancelled":
            await anyio.lowlevel.checkpoint()
        result = await watch(client, job_id)
        assert isinstance(result, CallToolResult)
        assert result.structured_content and result.structured_content["state"] == "cancelled"


async def test_a_look_without_waiting_is_never_a_task(home: Path) -> None:
    async with watching(home) as client:
        job_id = await start(client)
        assert (await answer(client, "poll_job", job_id=job_id))["state"] in ("queued", "running")


@pytest.mark.parametrize("seconds", ["soon", -5, 600, True])
async def test_a_wait_that_the_tool_refuses_is_never_a_task(home: Path, seconds: object) -> None:
    async with watching(home) as client:
        job_id = await start(client)
        arguments = {"job_id": job_id, "wait_seconds": seconds}
        result = await client.session.call_tool("poll_job", arguments, allow_claimed=True)
        assert isinstance(result, CallToolResult) and (result.is_error or seconds is True)


async def test_to_cancel_the_task_ends_the_watch_and_not_the_job(home: Path) -> None:
    async with watching(home) as client:
        job_id = await start(client)
        task = await watch(client, job_id)
        acknowledged = await ask(client, "tasks/cancel", task.task_id)
        assert not acknowledged.task_id and not acknowledged.status
        assert (await ask(client, "tasks/get", task.task_id)).status == "cancelled"
        assert (await answer(client, "poll_job", job_id=job_id))["state"] in ("queued", "running")
        assert (await watch(client, job_id)).task_id != ""


async def test_a_client_that_does_not_know_tasks_sees_none(home: Path) -> None:
    async with desk(home, person=Person(YES)) as client:
        job_id = await start(client)
        result = await client.call_tool("poll_job", {"job_id": job_id, "wait_seconds": 0.2})
        assert result.structured_content and result.structured_content["job_id"] == job_id
        with pytest.raises(MCPError) as refused:
            await ask(client, "tasks/get", str(Watch(job_id, 0, 1)))
        assert refused.value.code == -32021


async def test_there_are_no_tasks_before_their_protocol_version(home: Path) -> None:
    async with desk(home, era="legacy", person=Person(YES), extensions=[KeepsTasks()]) as client:
        job_id = await start(client)
        result = await client.call_tool("poll_job", {"job_id": job_id, "wait_seconds": 0.2})
        assert isinstance(result, CallToolResult) and not result.is_error
        with pytest.raises(MCPError, match="Method not found"):
            await ask(client, "tasks/get", str(Watch(job_id, 0, 1)))


@pytest.mark.parametrize(
    "task_id", ["", "x", "job-000000000000", "job-000000000000.0.1", "..", "a.b.c", "job-1.0." + "9" * 40]
)
@pytest.mark.parametrize("method", ["tasks/get", "tasks/cancel"])
async def test_an_unknown_task_is_refused(home: Path, method: str, task_id: str) -> None:
    async with watching(home) as client:
        with pytest.raises(MCPError) as refused:
            await ask(client, method, task_id)
        assert refused.value.code == -32602


async def test_a_wrong_call_is_refused_by_the_tool_and_makes_no_task(home: Path) -> None:
    async with watching(home) as client:
        result = await watch(client, "job-000000000000")
        assert isinstance(result, CallToolResult) and result.is_error


async def test_a_subscriber_hears_that_a_job_has_ended(home: Path) -> None:
    async with desk(home, person=Person(YES)) as client:
        job_id = await start(client)
        await answer(client, "poll_job", job_id=job_id, wait_seconds=20)
        uri = f"mlintern://jobs/{job_id}"
        with anyio.fail_after(30):
            async with client.listen(resource_subscriptions=[uri]) as changes:
                await answer(client, "list_jobs")
                await answer(client, "cancel_job", job_id=job_id)
                async for event in changes:
                    assert getattr(event, "uri", None) == uri
                    break


async def test_before_2026_07_28_there_is_nothing_to_listen_to(home: Path) -> None:
    async with desk(home, era="legacy") as client:
        with pytest.raises(ListenNotSupportedError):
            async with client.listen(resource_subscriptions=["mlintern://jobs/x"]):
                pass
