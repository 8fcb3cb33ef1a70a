"""Real MCP servers in processes of their own: found, called, dying, asking, answering with everything there is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from mlintern.orchestrator.mcp_config import BadEntry, ServerEntry
from mlintern.orchestrator.mcp_connection import Answer, Question
from mlintern.orchestrator.mcp_hosts import McpHosts
from mlintern.orchestrator.tool_results import SavedResults
from tests.services.ports import free_port
from tests.services.preloaded import Preloaded

pytestmark = pytest.mark.anyio
REPOSITORY = Path(__file__).parents[2]
PYTHON: tuple[str, ...] = ()
"""What runs the servers on pipes."""


@pytest.fixture(autouse=True)
def loaded(preloaded_agent: Preloaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "PYTHON", preloaded_agent.command)


def stdio(folder: Path, name: str = "tools", **env: str) -> ServerEntry:
    folder.mkdir(exist_ok=True)
    program, *args = (*PYTHON, "-m", "tests.services.mcp_tools", str(folder))
    return ServerEntry(name=name, command=program, args=tuple(args), cwd=str(REPOSITORY), env=env)


class Asked:
    """An `Elicit` that remembers and answers by script."""

    def __init__(self, *answers: Answer) -> None:
        self.questions: list[Question] = []
        self.answers = list(answers)

    async def __call__(self, question: Question) -> Answer:
        self.questions.append(question)
        return self.answers.pop(0) if self.answers else Answer(action="decline")


@asynccontextmanager
async def connected(tmp_path: Path, *entries: ServerEntry, **options: Any) -> AsyncGenerator[McpHosts, None]:
    elicit = options.pop("elicit", Asked())
    saved = SavedResults(tmp_path / "results")
    with anyio.fail_after(90):
        async with McpHosts.connect(entries, saved=saved, elicit=elicit, logs=tmp_path, **options) as hosts:
            yield hosts


async def test_tools_are_listed_sorted_named_legally_and_without_those_for_pages(tmp_path: Path) -> None:
    async with connected(tmp_path, stdio(tmp_path / "a")) as hosts:
        names = [tool.name for tool in hosts.tools]
        assert names == sorted(names)
        assert "odd_name_with_slash" in names
        assert "for_the_page_only" not in names
        assert hosts.instructions == {"tools": "Use echo to hear yourself."}
        assert (await hosts.call("odd_name_with_slash", {})).text == "odd"


async def test_what_servers_say_about_effects_and_polling_is_known(tmp_path: Path) -> None:
    async with connected(tmp_path, stdio(tmp_path / "a")) as hosts:
        tools = {tool.name: tool for tool in hosts.tools}
    assert (tools["echo"].side_effect, tools["write"].side_effect) == ("read_only", "side_effect")
    assert [name for name, tool in tools.items() if tool.polls] == ["poll_job", "wait_for_file"]


async def test_a_server_that_fails_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    entries = (
        stdio(tmp_path / "a"),
        ServerEntry(name="missing", command="/nonexistent/program"),
        ServerEntry(name="crashing", command=sys.executable, args=("-c", "raise SystemExit('no licence')")),
        ServerEntry(name="unreachable", url="http://127.0.0.1:9/mcp"),
    )
    async with connected(tmp_path, *entries, bad=[BadEntry(name="unset", reason="X is not set")]) as hosts:
        assert (await hosts.call("echo", {"text": "hi"})).text == "you said hi"
        reasons = {failure.name: failure.reason for failure in hosts.failures}
    assert set(reasons) == {"missing", "crashing", "unreachable", "unset"}
    assert "no licence" in reasons["crashing"]
    assert "No such file" in reasons["missing"]


async def test_a_server_that_never_answers_is_given_up_in_time(tmp_path: Path) -> None:
    silent = ServerEntry(name="silent", command=sys.executable, args=("-c", "import time; time.sleep(600)"))
    async with connected(tmp_path, silent, stdio(tmp_path / "a"), connect_seconds=10) as hosts:
        assert [failure.name for failure in hosts.failures] == ["silent"]
        assert "within 10 s" in hosts.failures[0].reason
        assert hosts.tools


async def test_tools_of_the_same_name_carry_their_servers_name(tmp_path: Path) -> None:
    async with connected(tmp_path, stdio(tmp_path / "a", "one"), stdio(tmp_path / "b", "two")) as hosts:
        names = {tool.name for tool in hosts.tools}
        assert {"one__echo", "two__echo"} <= names and "echo" not in names
        await hosts.call("one__write", {"line": "x"})
        assert (tmp_path / "a" / "effects.txt").read_text() == "x\n"
        assert not (tmp_path / "b" / "effects.txt").exists()


async def test_a_tool_that_fails_is_an_error_with_its_reason(tmp_path: Path) -> None:
    async with connected(tmp_path, stdio(tmp_path / "a")) as hosts:
        outcome = await hosts.call("fails", {"why": "no disk"})
        wrong = await hosts.call("echo", {"txt": 1})
        gone = await hosts.call("nothing", {})
    assert outcome.is_error and "no disk" in outcome.text
    assert wrong.is_error and "text" in wrong.text
    assert gone.is_error


async def test_a_server_that_dies_is_started_again_and_a_reading_call_repeated(tmp_path: Path) -> None:
    async with connected(tmp_path, stdio(tmp_path / "a")) as hosts:
        assert (await hosts.call("dies_once", {})).text == "alive again"
        assert (await hosts.call("echo", {"text": "still"})).text == "you said still"


async def test_a_call_with_an_effect_is_never_repeated_and_its_outcome_is_called_unknown(tmp_path: Path) -> None:
    async with connected(tmp_path, stdio(tmp_path / "a")) as hosts:
        outcome = await hosts.call("write_and_die", {"line": "paid"})
        assert outcome.is_error and outcome.unknown
        assert "unknown" in outcome.text
        assert (tmp_path / "a" / "effects.txt").read_text() == "paid\n"
        assert (await hosts.call("echo", {"text": "back"})).text == "you said back"


async def test_a_call_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    async with connected(tmp_path, stdio(tmp_path / "a"), call_seconds=4.0) as hosts:
        outcome = await hosts.call("write_and_hang", {"line": "x"})
        assert outcome.unknown and outcome.is_error
        assert not (await hosts.call("echo", {"text": "next"})).is_error


async def test_while_a_person_thinks_no_time_runs_out(tmp_path: Path) -> None:
    class Slow(Asked):
        async def __call__(self, question: Question) -> Answer:
            await anyio.sleep(4.5)
            return await super().__call__(question)

    asked = Slow(Answer(action="accept", content={"approve": True}))
    async with connected(tmp_path, stdio(tmp_path / "a"), call_seconds=4.0, elicit=asked) as hosts:
        outcome = await hosts.call("submit_job", {"backend": "local", "timeout": "5m", "usd": 0})
    assert outcome.structured is not None and outcome.structured["status"] == "submitted"


async def test_a_question_arrives_with_the_call_that_asks_it_and_the_answer_reaches_the_tool(tmp_path: Path) -> None:
    asked = Asked(
        Answer(action="accept", content={"approve": True, "note": "go"}),
        Answer(action="accept", content={"approve": False, "note": "too dear"}),
        Answer(action="decline"),
    )
    call = {"backend": "hf", "timeout": "30m", "usd": 4.5}
    async with connected(tmp_path, stdio(tmp_path / "a"), elicit=asked) as hosts:
        outcomes = [await hosts.call("submit_job", call) for _ in range(3)]
    first = asked.questions[0]
    assert (first.server, first.tool, first.arguments) == ("tools", "submit_job", call)
    assert first.message.startswith("at most 4.50 USD on hf cpu, up to 30 min (digest ")
    found = [outcome.structured or {} for outcome in outcomes]
    assert [(each["status"], each["note"]) for each in found] == [
        ("submitted", "go"),
        ("denied", "too dear"),
        ("denied", "decline"),
    ]


async def test_questions_of_calls_that_run_together_are_not_mixed_up(tmp_path: Path) -> None:
    asked = Asked()
    async with connected(tmp_path, stdio(tmp_path / "a"), elicit=asked) as hosts, anyio.create_task_group() as tasks:
        for number in range(4):
            call = {"backend": f"b{number}", "timeout": "5m", "usd": 0}
            tasks.start_soon(hosts.call, "submit_job", call)
    for question in asked.questions:
        assert f"on {question.arguments['backend']} " in question.message
    assert len(asked.questions) == 4


async def test_a_server_of_the_older_protocol_works_and_asks_too(tmp_path: Path) -> None:
    entry = stdio(tmp_path / "a")
    entry = replace(entry, args=(*entry.args, "--older"))
    asked = Asked(Answer(action="accept", content={"approve": True}))
    async with connected(tmp_path, entry, elicit=asked) as hosts:
        assert (await hosts.call("protocol", {})).text < "2026"
        outcome = await hosts.call("submit_job", {"backend": "local", "timeout": "5m", "usd": 0})
    assert (outcome.structured or {})["status"] == "submitted"
    assert asked.questions[0].tool == "submit_job"


async def test_pictures_links_sounds_and_structure_all_reach_the_model(tmp_path: Path) -> None:
    async with connected(tmp_path, stdio(tmp_path / "a")) as hosts:
        outcome = await hosts.call("picture", {})
        both = await hosts.call("both", {})
        structured = await hosts.call("poll_job", {"job_id": "j7"})
    assert [block["type"] for block in outcome.content] == ["text", "image", "text", "text"]
    assert "[resource] log file:///tmp/log.txt: the log" in outcome.text
    assert "audio/wav" in outcome.text
    assert both.text == "in words" and both.structured == {"job_id": "j9", "state": "queued"}
    assert structured.text == '{"job_id":"j7","state":"running"}'


async def test_a_result_that_is_too_large_is_cut_and_the_whole_is_in_a_file(tmp_path: Path) -> None:
    async with connected(tmp_path, stdio(tmp_path / "a")) as hosts:
        outcome = await hosts.call("big", {"characters": 2_000_000})
    assert len(outcome.text) < 100_000
    assert "[cut: characters" in outcome.text and "read_saved_result" in outcome.text
    (file,) = (tmp_path / "results").iterdir()
    assert file.name in outcome.text
    assert len(file.read_text()) > 1_500_000


async def test_only_what_its_entry_names_reaches_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ssl/x.pem")
    async with connected(tmp_path, stdio(tmp_path / "a", GIVEN="yes")) as hosts:
        values = {
            name: (await hosts.call("environment", {"name": name})).text
            for name in ("HF_TOKEN", "ANTHROPIC_API_KEY", "GIVEN", "SSL_CERT_FILE")
        }
    assert values == {
        "HF_TOKEN": "(not set)",
        "ANTHROPIC_API_KEY": "(not set)",
        "GIVEN": "yes",
        "SSL_CERT_FILE": "/etc/ssl/x.pem",
    }


async def test_http_servers_are_reached_and_reached_again_after_they_were_restarted(tmp_path: Path) -> None:
    port = free_port()
    folder = tmp_path / "a"
    folder.mkdir()
    entry = ServerEntry(name="far", url=f"http://127.0.0.1:{port}/mcp", headers={"X-Test": "1"})
    first = serve(folder, port)
    try:
        async with connected(tmp_path, entry) as hosts:
            assert (await hosts.call("echo", {"text": "a"})).text == "you said a"
            stop(first)
            down = await hosts.call("echo", {"text": "b"})
            assert down.is_error and "far" in down.text
            first = serve(folder, port)
            assert (await hosts.call("echo", {"text": "c"})).text == "you said c"
    finally:
        stop(first)


def serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.services.mcp_tools", str(folder), "--http", str(port)]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=dict(os.environ), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        try:
            process.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError("the server ended")
    raise AssertionError("the server did not start")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(timeout=10)


async def test_a_cancelled_call_leaves_the_server_usable(tmp_path: Path) -> None:
    async with connected(tmp_path, stdio(tmp_path / "a")) as hosts:
        with anyio.move_on_after(0.5):
            await hosts.call("wait_for_file", {"name": "never"})
        assert (await hosts.call("echo", {"text": "on"})).text == "you said on"


async def test_resources_are_read_as_text_or_not_at_all(tmp_path: Path) -> None:
    async with connected(tmp_path, stdio(tmp_path / "a")) as hosts:
        assert await hosts.read_text("tools", "mlintern://scripts/abc") == "print('abc')"
        assert await hosts.read_text("tools", "mlintern://nothing") is None
        assert await hosts.read_text("other", "mlintern://scripts/abc") is None
