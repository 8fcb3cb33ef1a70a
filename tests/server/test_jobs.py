"""The jobs tools over MCP, with the real store, service and local backend."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.types import CallToolResult, ElicitResult, ResourceTemplateReference, TextContent

from mlintern.server.app import build_server
from mlintern.server.cli import main
from mlintern.server.job_question import starting
from mlintern.server.services import Lab
from mlintern.server.settings import Settings
from mlintern.tools.allowances import Allowances
from mlintern.tools.errors import Conflict
from mlintern.tools.jobs.spec import JobSpec
from tests.server.asking import NO, YES, Person

pytestmark = pytest.mark.anyio

BOTH_ERAS = pytest.mark.parametrize("era", ["auto", "legacy"])

QUICK = """\
# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
print("hello from the job")
"""
ENDLESS = QUICK + "import time\nwhile True:\n    time.sleep(0.05)\n"


@asynccontextmanager
async def desk(
    home: Path, *, era: str = "auto", person: Person | None = None, allow: tuple[str, ...] = (), **options: Any
) -> AsyncIterator[Client]:
    """A client of a server on the workspace ``home``; what is still running at the end is stopped."""
    settings = Settings(workspace=home, allowances=Allowances.parse(allow=allow))
    lab = Lab(settings)
    async with Client(build_server(settings, lab=lab), mode=era, elicitation_callback=person, **options) as client:
        try:
            yield client
        finally:
            for row in (await lab.jobs.list(status="active")).items:
                with contextlib.suppress(Conflict):  # it ended by itself meanwhile
                    await lab.jobs.cancel(row.job_id)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


async def answer(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, text(result)
    assert result.structured_content is not None
    return result.structured_content


def text(result: CallToolResult) -> str:
    [block] = result.content
    assert isinstance(block, TextContent)
    return block.text


async def store(client: Client, code: str = QUICK, name: str = "hello") -> str:
    return str((await answer(client, "edit_script", code=code, name=name))["script_id"])


@BOTH_ERAS
async def test_a_job_runs_after_a_person_agreed(home: Path, era: str) -> None:
    person = Person(ElicitResult(action="accept", content={"approve": True, "note": "Watch the loss"}))
    async with desk(home, era=era, person=person) as client:
        script_id = await store(client)
        submitted = await answer(client, "submit_job", script_id=script_id, timeout="5m")
        assert submitted["status"] == "submitted"
        assert "Watch the loss" in submitted["note"]
        done = await answer(client, "poll_job", job_id=submitted["job_id"], wait_seconds=45)
        while done["state"] in ("queued", "running"):
            done = await answer(client, "poll_job", job_id=submitted["job_id"], wait_seconds=45)
        assert done["state"] == "succeeded", done
        log = await answer(client, "read_job_logs", job_id=submitted["job_id"])
        assert "hello from the job" in log["text"] and log["untrusted"]
    [asked] = person.asked
    first = asked.message.splitlines()[0]
    for part in ("hello", "local cpu", "free of charge", "5 min", submitted["digest"][:12]):
        assert part in first
    assert script_id in asked.message


@BOTH_ERAS
async def test_the_same_call_again_starts_nothing_and_asks_nobody(home: Path, era: str) -> None:
    person = Person(YES)
    async with desk(home, era=era, person=person) as client:
        script_id = await store(client)
        first = await answer(client, "submit_job", script_id=script_id)
        again = await answer(client, "submit_job", script_id=script_id)
        assert (again["status"], again["job_id"]) == ("already_submitted", first["job_id"])
        assert (await answer(client, "list_jobs"))["total"] == 1
    assert len(person.asked) == 1


async def test_an_approved_round_that_is_sent_again_starts_no_second_job(home: Path) -> None:
    async with desk(home, person=Person(YES)) as client:
        script_id = await store(client)
        question = await client.session.call_tool("submit_job", {"script_id": script_id}, allow_input_required=True)
        [key] = question.input_requests
        replies = [
            await client.call_tool(
                "submit_job",
                {"script_id": script_id},
                input_responses={key: YES},
                request_state=question.request_state,
            )
            for _ in range(2)
        ]
        states = [reply.structured_content["status"] for reply in replies if reply.structured_content]
        assert states == ["submitted", "already_submitted"]


async def test_an_approved_round_does_not_carry_over_to_other_arguments(home: Path) -> None:
    async with desk(home, person=Person(YES)) as client:
        script_id = await store(client)
        question = await client.session.call_tool("submit_job", {"script_id": script_id}, allow_input_required=True)
        [key] = question.input_requests
        with pytest.raises(MCPError, match="requestState"):
            await client.call_tool(
                "submit_job",
                {"script_id": script_id, "timeout": "48h"},
                input_responses={key: YES},
                request_state=question.request_state,
            )
        assert (await answer(client, "list_jobs"))["total"] == 0


@BOTH_ERAS
async def test_a_denied_job_does_not_exist(home: Path, era: str) -> None:
    async with desk(home, era=era, person=Person(NO)) as client:
        denied = await answer(client, "submit_job", script_id=await store(client))
        assert denied["status"] == "denied" and denied["job_id"] is None
        assert (await answer(client, "list_jobs"))["items"] == []


@BOTH_ERAS
async def test_without_dialogs_the_user_is_sent_to_the_command_line_and_approves_there(
    home: Path, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLINTERN_HOME")
    async with desk(home, era=era) as client:
        waiting_script = await store(client)
        waiting = await answer(client, "submit_job", script_id=waiting_script)
        assert waiting["status"] == "approval_required" and waiting["job_id"] is None
        command = shlex.split(waiting["how_to_approve"])
        assert Path(command[0]).name == "mlintern-server" and command[1:3] == ["approve", waiting["digest"][:12]]
        assert main(command[1:]) == 0, "the command works in a shell that knows no MLINTERN_HOME"
        again = await answer(client, "submit_job", script_id=waiting_script)
        assert again["status"] == "submitted"


@BOTH_ERAS
async def test_what_was_allowed_in_advance_starts_at_once(home: Path, era: str) -> None:
    async with desk(home, era=era, allow=("local<=10m",)) as client:
        script_id = await store(client)
        assert (await answer(client, "submit_job", script_id=script_id, timeout="10m"))["status"] == "submitted"
        longer = await answer(client, "submit_job", script_id=script_id, timeout="11m")
        assert longer["status"] == "approval_required"


async def test_a_running_job_is_cancelled_without_a_question(home: Path) -> None:
    person = Person(YES)
    async with desk(home, person=person) as client:
        job_id = (await answer(client, "submit_job", script_id=await store(client, ENDLESS)))["job_id"]
        ended = await answer(client, "cancel_job", job_id=job_id, reason="enough")
        while ended["state"] not in ("cancelled", "failed"):
            ended = await answer(client, "poll_job", job_id=job_id, wait_seconds=5)
        assert ended["state"] == "cancelled"
    assert len(person.asked) == 1


@pytest.mark.parametrize(
    "tool, arguments, complaint",
    [
        ("submit_job", {"script_id": "0123456789ab"}, "There is no script"),
        ("submit_job", {"timeout": "for ever"}, "is not a duration"),
        ("submit_job", {"timeout": "-3m"}, "is not a duration"),
        ("submit_job", {"backend": "locl"}, "Did you mean 'local'?"),
        ("submit_job", {"hardware": "h100"}, "has no hardware"),
        ("submit_job", {"env": {"HF_TOKEN": "hf_abcdefghijklmnop"}}, "looks like a secret"),
        ("submit_job", {"secrets": ["NO_SUCH_KEY"]}, "environment has no NO_SUCH_KEY"),
        ("submit_job", {"experiment": "../../etc"}, "is not a usable name"),
        ("estimate_job", {"script_id": "zzz"}, "There is no script"),
        ("poll_job", {"job_id": "job-000000000000"}, "There is no job"),
        ("poll_job", {"job_id": "job-000000000000", "wait_seconds": 600}, "less than or equal to 45"),
        ("read_job_logs", {"job_id": "job-000000000000", "tail": 0}, "greater than or equal to 1"),
        ("cancel_job", {"job_id": "../.."}, "There is no job"),
        ("list_jobs", {"cursor": "nonsense"}, "cursor"),
        ("list_jobs", {"status": "finished"}, "status"),
    ],
)
async def test_bad_input_is_refused_before_anybody_is_asked(
    home: Path, tool: str, arguments: dict[str, Any], complaint: str
) -> None:
    person = Person(YES)
    async with desk(home, person=person) as client:
        if tool == "submit_job":
            arguments = {"script_id": await store(client), **arguments}
        result = await client.call_tool(tool, arguments)
        assert result.is_error and complaint in text(result), text(result)
    assert person.asked == []


async def test_a_waiting_poll_reports_progress_to_those_who_want_it(home: Path) -> None:
    seen: list[tuple[float, str | None]] = []

    async def progress(value: float, total: float | None, message: str | None) -> None:
        seen.append((value, message))

    async with desk(home, person=Person(YES)) as client:
        job_id = (await answer(client, "submit_job", script_id=await store(client, ENDLESS)))["job_id"]
        await answer(client, "poll_job", job_id=job_id, wait_seconds=20)  # until it runs
        result = await client.call_tool(
            "poll_job", {"job_id": job_id, "wait_seconds": 0.5}, progress_callback=progress
        )
        assert not result.is_error
    assert seen and seen[0][1] in ("running", "queued")
    assert [value for value, _ in seen] == sorted({value for value, _ in seen})


async def test_a_job_and_its_script_can_be_read_as_resources(home: Path) -> None:
    async with desk(home, person=Person(YES)) as client:
        script_id = await store(client)
        job_id = (await answer(client, "submit_job", script_id=script_id))["job_id"]
        [script] = (await client.read_resource(f"mlintern://scripts/{script_id}")).contents
        assert getattr(script, "text", "") == QUICK
        [job] = (await client.read_resource(f"mlintern://jobs/{job_id}")).contents
        assert f'"job_id":"{job_id}"' in getattr(job, "text", "")
        with pytest.raises(MCPError, match="There is no job"):
            await client.read_resource("mlintern://jobs/job-000000000000")


@BOTH_ERAS
async def test_ids_are_completed_as_they_are_typed(home: Path, era: str) -> None:
    async with desk(home, era=era) as client:
        script_id = await store(client)
        script = ResourceTemplateReference(uri="mlintern://scripts/{script_id}")
        found = await client.complete(script, {"name": "script_id", "value": script_id[:3]})
        assert found.completion.values == [script_id]
        none = await client.complete(script, {"name": "script_id", "value": "zz%"})
        assert none.completion.values == []


async def test_a_new_server_picks_up_what_an_earlier_one_left_running(home: Path) -> None:
    wait = "import pathlib, time\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.02)\n"
    settings = Settings(workspace=home, allowances=Allowances.parse(allow=("local<=1h",)))
    async with Client(build_server(settings)) as client:
        await answer(client, "submit_job", script_id=await store(client, QUICK + wait))
    lab = Lab(settings)
    [row] = (await lab.jobs.list()).items
    (lab.workspace.job(row.job_id) / "work" / "go").touch()  # the one folder that an isolated job shares with us
    backend = lab.backends["local"]
    handle = await backend.find(row.job_id)
    assert handle is not None
    with anyio.fail_after(60):
        while (await backend.status(handle)).state in ("queued", "running"):
            await lab.clock.sleep(0.05)
    assert recorded(lab) in ("queued", "running"), "nobody has recorded its end yet"
    async with Client(build_server(settings)):
        with anyio.fail_after(60):
            while recorded(lab) != "succeeded":
                await lab.clock.sleep(0.05)


def recorded(lab: Lab) -> str:
    """The state of the only job as the ledger has it; `list_jobs` would bring it up to date."""
    with lab.ledger.read() as connection:
        [row] = connection.execute("SELECT state FROM jobs").fetchall()
    return str(row["state"])


async def test_what_config_toml_allows_a_local_job_holds_on_this_server(home: Path) -> None:
    home.mkdir()
    limits = "[local]\nslots = 2\ncpus = 1\nmemory_limit_gib = 0.25\n"
    (home / "config.toml").write_text(limits)
    greedy = QUICK + "import os, time\nprint(len(os.sched_getaffinity(0)), flush=True)\n"
    greedy += "hoard = b'x' * (600 << 20)\ntime.sleep(60)\n"
    async with desk(home, allow=("local<=10m",)) as client:
        [cpu] = (await answer(client, "list_hardware", backend="local"))["items"]
        assert (cpu["slots"], cpu["cpus"], cpu["memory_gib"]) == (2, 1, 0.25)
        job = await answer(client, "submit_job", script_id=await store(client, greedy), timeout="5m")
        status = await answer(client, "poll_job", job_id=job["job_id"], wait_seconds=45)
        while status["state"] in ("queued", "running"):
            status = await answer(client, "poll_job", job_id=job["job_id"], wait_seconds=45)
        log = (await answer(client, "read_job_logs", job_id=job["job_id"]))["text"]
    assert status["state"] == "failed" and "memory" in status["error"]
    assert log.splitlines()[-1].strip() == "1"


def test_who_pays_stands_in_the_question_before_everything_else(home: Path) -> None:
    lab = Lab(Settings(workspace=home))
    script_id = lab.scripts.edit(code=QUICK, name="hello").script_id
    plan = JobSpec(script_id, "0" * 64, "hf_jobs", "a10g-small", 3600.0, usd_worst=1.0, billed_to="an-org")
    assert starting(plan, lab).question.splitlines()[1] == "Billed to: an-org"
