"""The command as people and programs run it: its outputs, its exit codes, its life after kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mlintern.orchestrator.rehearsal.messages_server import MessagesServer
from mlintern.orchestrator.rehearsal.turns import (
    Answer,
    Stall,
    Text,
    Thinking,
    ToolUse,
    Turn,
    calls,
    error,
    overloaded,
    says,
)
from mlintern.orchestrator.session import read_events
from tests.services.ports import free_port
from tests.services.preloaded import Preloaded

REPOSITORY = Path(__file__).parents[2]


@dataclass
class Command:
    """``mlintern-orchestrate`` in a folder of its own, on the test's MCP server."""

    folder: Path
    python: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def sessions(self) -> Path:
        return self.folder / "sessions"

    def start(self, *arguments: str, server: MessagesServer | None = None, **options: Any) -> subprocess.Popen[str]:
        self.state.mkdir(exist_ok=True)
        config = self.folder / "mcp.json"
        program, *args = (*self.python, "-m", "tests.services.mcp_tools", str(self.state))
        entry = {"command": program, "args": args, "cwd": str(REPOSITORY)}
        config.write_text(json.dumps({"mcpServers": {"tools": entry}}))
        command = [*self.python, "-m", "mlintern.orchestrator.cli", *arguments]
        if server is not None:
            command += ["--base-url", server.url, "--endpoint-profile", "anthropic", "--mcp-config", str(config)]
        environment = {**os.environ, "MLINTERN_SESSIONS": str(self.sessions), **self.environment}
        if server is not None:
            environment["ANTHROPIC_API_KEY"] = "test"
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, **options
        )

    def run(self, *arguments: str, server: MessagesServer | None = None) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, server=server)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def events(self) -> list[dict[str, Any]]:
        (folder,) = (path.parent for path in self.sessions.glob("*/events.jsonl"))
        return list(read_events(folder))

    def session_id(self) -> str:
        (folder,) = (path.parent for path in self.sessions.glob("*/events.jsonl"))
        return folder.name

    def written(self) -> int:
        """Events on the disk by now."""
        return sum(path.read_bytes().count(b"\n") for path in self.sessions.glob("*/events.jsonl"))

    def effects(self) -> list[str]:
        path = self.state / "effects.txt"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def command(tmp_path: Path, preloaded_agent: Preloaded) -> Command:
    return Command(tmp_path, preloaded_agent.command)


def wait_until(ready: Any, *, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


# --- output and exit codes -----------------------------------------------------------------------------------------


def test_print_puts_the_answer_on_stdout_and_everything_else_on_stderr(command: Command) -> None:
    with MessagesServer([calls("echo", text="x"), says("The answer.")]) as server:
        done = command.run("the goal", "-p", server=server)
    assert (done.returncode, done.stdout) == (0, "The answer.\n")
    assert "echo(text=x)" in done.stderr
    assert f"--resume {command.session_id()}" in done.stderr


def test_stream_json_is_one_versioned_object_a_line_for_everything(command: Command) -> None:
    turn = Turn([Thinking("hm"), Text("so"), ToolUse("echo", {"text": "x"})])
    with MessagesServer([turn, overloaded(), says("done")]) as server:
        done = command.run("go", "-p", "--output", "stream-json", server=server)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["v"] for line in lines} == {1}
    kinds = [line["type"] for line in lines]
    assert kinds[0] == "init" and kinds[-1] == "result"
    assert {"thinking", "message", "tool_use", "tool_result", "usage", "retry", "stop"} <= set(kinds)
    result = lines[-1]
    assert (result["status"], result["stop"], result["text"], result["turns"]) == ("ok", "done", "done", 2)
    assert result["cost_usd"] > 0


def test_json_is_the_result_alone(command: Command) -> None:
    with MessagesServer([calls("submit_job", backend="local", timeout="5m", usd=0), says("waiting")]) as server:
        done = command.run("go", "-p", "--output", "json", "--yes", server=server)
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert result["running_jobs"] == ["j1"] and result["exit_code"] == 0


def test_without_a_key_it_says_what_to_set_and_that_the_rehearsal_needs_none(command: Command) -> None:
    done = command.run("the goal", "-p")
    assert done.returncode == 2
    for hint in ("ANTHROPIC_API_KEY", "--base-url", "--rehearse"):
        assert hint in done.stderr
    assert not command.sessions.exists()


@pytest.mark.parametrize(
    ("script", "arguments", "name", "code"),
    [
        ([error(401, "authentication_error", "bad key")], [], "auth_failed", 8),
        ([Turn([Text("no")], stop_reason="refusal")], [], "refused", 9),
        ([Turn([Text("no")], stop_reason="refusal"), says("x")], ["--fallback-model", "opus"], "done", 0),
        ([calls("echo", text="x")] * 20, [], "loop_detected", 6),
        (
            [calls("echo", text="a"), calls("echo", text="b"), says("x")],
            ["--max-iterations", "2"],
            "max_iterations",
            5,
        ),
        ([says("x")], ["--budget-usd", "0.0001"], "budget_exhausted", 4),
        ([calls("submit_job", backend="hf_jobs", timeout="5m", usd=3), says("x")], [], "approval_denied", 3),
        ([overloaded()] * 6, [], "model_failed", 7),
    ],
)
def test_every_end_has_its_name_and_its_exit_code(
    script: list[Answer], arguments: list[str], name: str, code: int, command: Command
) -> None:
    with MessagesServer(script) as server:
        done = command.run("go", "-p", "--output", "json", *arguments, server=server)
    result = json.loads(done.stdout)
    assert (result["stop"], result["exit_code"], done.returncode) == (name, code, code)
    assert result["reason"]


def test_without_any_server_it_ends_with_ten_and_the_reasons(command: Command, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"mcpServers": {"gone": {"command": "/nonexistent/program"}}}')
    with MessagesServer([says("never")]) as server:
        done = command.run("go", "-p", "--base-url", server.url, "--mcp-config", str(broken))
        assert server.requests == []
    assert done.returncode == 10
    assert "gone" in done.stderr and "No such file" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["-p"], "say what to do"),
        (["go", "--allow", "everything<=1"], "local<=30m"),
        (["go", "--mcp-config", "/nonexistent.json"], "cannot be read"),
        (["go", "--price-in", "1"], "belong together"),
        (["go", "--max-iterations", "0"], "above zero"),
        (["go", "--budget-usd", "nan"], "above zero"),
        (["--resume", "nothing"], "There is no session"),
        (["go", "--notify", " "], "--notify"),
    ],
)
def test_a_wrong_option_is_named_with_what_would_do(arguments: list[str], hint: str, command: Command) -> None:
    command.environment["ANTHROPIC_API_KEY"] = "test"
    done = command.run(*arguments)
    assert done.returncode == 2
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_budget_for_a_model_of_unknown_price_is_refused_before_anything_is_spent(command: Command) -> None:
    with MessagesServer([says("x")]) as server:
        done = command.run("go", "-p", "--model", "my-own-model", "--budget-usd", "5", server=server)
        assert server.requests == []
        assert done.returncode == 2 and "--price-in" in done.stderr
        done = command.run(
            *("go", "-p", "--model", "my-own-model", "--budget-usd", "5", "--price-in", "1", "--price-out", "2"),
            server=server,
        )
        assert done.returncode == 0


def test_an_allowance_lets_a_job_through_and_what_is_beyond_it_is_denied(command: Command) -> None:
    turns = [
        calls("submit_job", backend="local", timeout="30m", usd=0),
        calls("submit_job", backend="local", timeout="31m", usd=0),
        says("done"),
    ]
    with MessagesServer(turns) as server:
        command.run("go", "-p", "--allow", "submit_job:local<=30m", server=server)
    approvals = [event for event in command.events() if event["kind"] == "approval"]
    assert [(event["approved"], event["via"]) for event in approvals] == [
        (True, "rule submit_job:local<=30m"),
        (False, "no rule"),
    ]
    assert command.effects() == ["job j1"]


def test_sessions_are_listed_and_exported(command: Command, tmp_path: Path) -> None:
    with MessagesServer([calls("echo", text="x"), says("done")]) as server:
        command.run("count the papers", "-p", server=server)
    listed = command.run("sessions")
    assert "count the papers" in listed.stdout and command.session_id() in listed.stdout
    assert "count the papers" in command.run("export", command.session_id()[:12]).stdout
    out = tmp_path / "trace.jsonl"
    assert command.run("export", command.session_id(), "--format", "trace", "--out", str(out)).returncode == 0
    assert [json.loads(line)["type"] for line in out.read_text().splitlines()] == ["user", "assistant"] * 2
    assert command.run("export", "nope").returncode == 2


def test_sessions_have_titles_and_dates_and_a_run_that_never_began_leaves_none(command: Command) -> None:
    with MessagesServer([says("done"), says("done")]) as server:
        command.run("count the papers", "-p", server=server)
        failed = command.run("go", "-p", "--model", "my-own", "--budget-usd", "1", server=server)
    assert failed.returncode == 2 and "price" in failed.stderr
    (line,) = command.run("sessions").stdout.splitlines()
    today = time.strftime("%Y-%m-%d")
    assert today in line and "1 turn " in line and line.endswith("count the papers")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["go", "--output", "json"], "--output json belongs to -p"),
        (["go", "-p", "--base-url", "localhost:8000"], "write it as http://HOST:PORT"),
        (["go", "-p", "--base-url", "http://"], "is no address of a server"),
        (["go", "-p", "--hours", "soon"], "not a duration"),
        (["   ", "-p"], "the goal is empty"),
        (["go", "--outptu", "json"], "unrecognized arguments"),
    ],
)
def test_what_cannot_be_is_said_first_and_before_anything_else(
    arguments: list[str], said: str, command: Command
) -> None:
    done = command.run(*arguments)
    assert done.returncode == 2 and said in done.stderr.splitlines()[0]
    assert len(done.stderr.splitlines()) <= 4, "no screen full of usage"


def test_an_address_where_nothing_answers_fails_at_once_and_leaves_no_session(command: Command) -> None:
    port = free_port()
    done = command.run("go", "-p", "--base-url", f"http://127.0.0.1:{port}")
    assert done.returncode == 7 and f"Nothing answers at http://127.0.0.1:{port}" in done.stderr
    assert "--base-url" in done.stderr
    assert list(command.sessions.glob("*")) == []


def test_it_says_its_version(command: Command) -> None:
    done = command.run("--version")
    assert done.returncode == 0 and done.stdout.startswith("mlintern-orchestrate 0.")


def test_help_costs_no_heavy_import(command: Command) -> None:
    code = "import sys; from mlintern.orchestrator.cli import main\n"
    code += "try: main(['--help'])\nexcept SystemExit: pass\n"
    code += "heavy = {'anthropic', 'mcp', 'rich', 'prompt_toolkit', 'pydantic', 'httpx2'} & set(sys.modules)\n"
    code += "sys.exit(str(heavy) if heavy else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# --- signals, crashes, resuming ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_with_a_valid_session_and_its_own_code(
    number: int, code: int, command: Command
) -> None:
    turn = Turn([ToolUse("echo", {"text": "x"}), ToolUse("write_and_hang", {"line": "paid"})])
    with MessagesServer([turn, says("back again")]) as server:
        process = command.start("go", "-p", "--output", "json", server=server)
        wait_until(lambda: command.effects() == ["paid"])
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == code
        assert json.loads(out)["exit_code"] == code
        last = [event for event in command.events() if event["kind"] == "tool_end"][-1]
        assert last["unknown"] and last["name"] == "write_and_hang"
        again = command.run("--resume", command.session_id(), "and now?", "-p", server=server)
        assert again.stdout == "back again\n"
    assert command.effects() == ["paid"]


def test_a_signal_while_the_model_speaks_is_heard_at_once(command: Command) -> None:
    with MessagesServer([Turn([Text("I will")], fault=Stall(3, pings=0.1))]) as server:
        process = command.start("go", "-p", server=server)
        wait_until(lambda: len(server.requests) == 1)
        time.sleep(0.3)  # the stream has to have begun in the other process
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 143


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3, 5, 7, 8, 10, 13])
def test_killed_with_kill_9_it_resumes_and_repeats_no_effect(count: int, command: Command) -> None:
    """Killed as soon as ``count`` events are on the disk, wherever it stands by then."""
    steps = [
        Turn([ToolUse("echo", {"text": "a"}), ToolUse("write", {"line": "first"})]),
        calls("write", line="second"),
        says("all done"),
    ]

    def answer(request: dict[str, Any]) -> Answer:
        replies = sum(message["role"] == "assistant" for message in request["messages"])
        return steps[min(replies, 2)]

    with MessagesServer(answer) as server:
        process = command.start("the goal", "-p", server=server)
        wait_until(lambda: command.written() >= count or process.poll() is not None)
        process.kill()
        process.communicate(timeout=60)
        said = any(event["kind"] == "user" for event in command.events())
        again = command.run("--resume", command.session_id(), *([] if said else ["the goal"]), "-p", server=server)
        assert (again.returncode, again.stdout) == (0, "all done\n"), again.stderr
        assert [recorded for recorded in server.requests if not recorded.scripted] == []
    effects = command.effects()
    assert len(effects) == len(set(effects)), "an effect happened twice"
    unknown = [event for event in command.events() if event["kind"] == "tool_end" and event["unknown"]]
    assert len(effects) + len(unknown) >= 2, "an effect was forgotten"


@pytest.mark.slow
def test_after_a_kill_the_model_is_shown_the_jobs_that_exist(command: Command) -> None:
    turn = Turn([ToolUse("submit_job", {"backend": "local", "timeout": "5m", "usd": 0}),
                 ToolUse("write_and_hang", {"line": "x"})])  # fmt: skip
    with MessagesServer([turn, says("I see j1")]) as server:
        process = command.start("go", "-p", "--yes", server=server)
        wait_until(lambda: "job j1" in command.effects() and "x" in command.effects())
        process.kill()
        process.communicate(timeout=60)
        command.run("--resume", command.session_id(), "-p", server=server)
        results = server.requests[-1].json["messages"][-1]["content"]
    text = results[1]["content"][0]["text"]
    assert "unknown" in text and '"job_id":"j1"' in text
    assert command.effects().count("x") == 1


def test_an_approval_given_by_a_rule_does_not_come_back_on_resume(command: Command) -> None:
    job = calls("submit_job", backend="local", timeout="5m", usd=0)
    with MessagesServer([job, says("one"), job, says("two")]) as server:
        command.run("go", "-p", "--yes", server=server)
        again = command.run("--resume", command.session_id(), "another", "-p", server=server)
    assert again.returncode == 3
    assert command.effects() == ["job j1"]


def test_a_session_that_is_at_work_cannot_be_resumed_by_another_process(command: Command) -> None:
    with MessagesServer([Turn([Text("x")], fault=Stall(3, pings=0.1))]) as server:
        process = command.start("go", "-p", server=server)
        wait_until(lambda: len(server.requests) == 1)
        again = command.run("--resume", command.session_id(), "-p", server=server)
        process.kill()
        process.communicate(timeout=60)
    assert again.returncode == 2 and "in use by another process" in again.stderr


def test_the_end_asks_which_jobs_go_on_and_says_how_to_look_and_stop(command: Command) -> None:
    with MessagesServer([calls("submit_job", backend="local", timeout="5m", usd=0), says("waiting")]) as server:
        done = command.run("go", "-p", "--yes", server=server)
    assert "still running: j1\n" in done.stderr
    for words in ("mlintern-server jobs\n", "mlintern-server cancel j1\n", "mlintern-orchestrate --resume "):
        assert words in done.stderr
