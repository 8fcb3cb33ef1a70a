"""The terminal through a pseudo-terminal: what stands on the screen, and what typing does."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pexpect
import pyte
import pytest

from mlintern.orchestrator.rehearsal.messages_server import MessagesServer
from mlintern.orchestrator.rehearsal.turns import Stall, Text, Thinking, ToolUse, Turn, calls, says
from mlintern.orchestrator.session import read_events
from tests.services.preloaded import Preloaded

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).parents[2]
COLUMNS, ROWS = 110, 60
PYTHON: tuple[str, ...] = ()
"""What runs the MCP server."""


@pytest.fixture(autouse=True)
def loaded(preloaded_agent: Preloaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "PYTHON", preloaded_agent.command)


class Screen:
    """A terminal with the command running in it."""

    def __init__(
        self, folder: Path, server: MessagesServer, *arguments: str, columns: int = COLUMNS, shell: bool = False
    ) -> None:
        self.folder = folder
        self.columns = columns
        state = folder / "state"
        state.mkdir(exist_ok=True)
        program, *args = (*PYTHON, "-m", "tests.services.mcp_tools", str(state))
        entry = {"command": program, "args": args, "cwd": str(REPOSITORY)}
        config = folder / "mcp.json"
        config.write_text(json.dumps({"mcpServers": {"tools": entry}}))
        environment = {
            **os.environ,
            "ANTHROPIC_API_KEY": "test",
            "MLINTERN_SESSIONS": str(folder / "sessions"),
            "TERM": "xterm-256color",
        }
        options = ["--base-url", server.url, "--endpoint-profile", "anthropic", "--mcp-config", str(config)]
        command = [sys.executable, "-m", "mlintern.orchestrator.cli", *arguments, *options]
        self.process = pexpect.spawn(
            "bash" if shell else command[0],
            ["--norc", "--noprofile", "-i"] if shell else command[1:],
            env=environment | {"PS1": "shell> "},
            dimensions=(ROWS, columns),
            encoding="utf-8",
            cwd=str(folder),
            timeout=60,
        )
        if shell:
            self.process.send(shlex.join(command) + "\r")
        self._terminal = pyte.HistoryScreen(columns, ROWS, history=5000)
        self._terminal.write_process_input = self.process.send  # it is asked where its cursor stands, and answers
        self._stream = pyte.Stream(self._terminal)

    @property
    def text(self) -> str:
        """What was and is on the screen."""
        above = ["".join(line[column].data for column in range(self.columns)) for line in self._terminal.history.top]
        return "\n".join(line.rstrip() for line in [*above, *self._terminal.display])

    def wait_for(self, *texts: str, seconds: float = 120) -> None:
        """Until all ``texts`` are to be seen."""
        deadline = time.monotonic() + seconds
        while not all(text in self.text for text in texts):
            assert time.monotonic() < deadline, f"not on the screen: {texts}\n{self.text}"
            self._read()

    def wait_below(self, after: str, text: str, seconds: float = 120) -> None:
        """Until ``text`` is to be seen below the last ``after``."""
        deadline = time.monotonic() + seconds
        while text not in self.text.rpartition(after)[2]:
            assert time.monotonic() < deadline, f"not below {after}: {text}\n{self.text}"
            self._read()

    def wait_for_end(self, seconds: float = 120) -> int:
        deadline = time.monotonic() + seconds
        while self.process.isalive():
            assert time.monotonic() < deadline, f"it goes on\n{self.text}"
            self._read()
        self._read()
        return int(self.process.exitstatus if self.process.exitstatus is not None else -1)

    def type(self, text: str) -> None:
        self.process.send(text + "\r")

    def press(self, key: str) -> None:
        self.process.sendcontrol(key)

    def effects(self) -> list[str]:
        path = self.folder / "state" / "effects.txt"
        return path.read_text().splitlines() if path.exists() else []

    def events(self, kind: str) -> list[dict[str, object]]:
        (folder,) = (path.parent for path in (self.folder / "sessions").glob("*/events.jsonl"))
        return [event for event in read_events(folder) if event["kind"] == kind]

    def _read(self) -> None:
        try:
            self._stream.feed(self.process.read_nonblocking(100_000, timeout=0.1))
        except pexpect.TIMEOUT:
            pass
        except pexpect.EOF:
            time.sleep(0.05)


@contextmanager
def terminal(folder: Path, server: MessagesServer, *arguments: str, **options: Any) -> Iterator[Screen]:
    screen = Screen(folder, server, *arguments, **options)
    try:
        yield screen
    finally:
        screen.process.close(force=True)


JOB = {"backend": "local", "timeout": "15m", "usd": 0}


def test_text_thinking_tools_and_the_footer_are_shown(tmp_path: Path) -> None:
    turn = Turn(
        [Thinking("Let me think."), Text("I look first.\nThen I decide."), ToolUse("echo", {"text": "hello"})]
    )
    with MessagesServer([turn, says("All is well.")]) as server, terminal(tmp_path, server, "the goal") as screen:
        screen.wait_for("Let me think.", "I look first.", "✓ echo(text=hello)", "All is well.")
        screen.wait_for("claude-sonnet-5-5 | ctx", "turn 2/300", "\n›")
        screen.type("/quit")
        assert screen.wait_for_end() == 0
        assert "--resume" in screen.text


WORDS = "Compared with the baseline the trained model answers rather more of the held-out questions correctly. "


@pytest.mark.parametrize("columns", [80, 120])
def test_markdown_is_rendered_and_wrapped_by_words(columns: int, tmp_path: Path) -> None:
    written = (
        f"# Result\n\n{WORDS * 3}\n\n* **first** point\n* `code` here\n\n```python\nprint('x')\n```\n\nEnd of it."
    )
    with MessagesServer([says(written)]) as server, terminal(tmp_path, server, "go", columns=columns) as screen:
        screen.wait_for("End of it.", "turn 1/300")
        lines = [line.strip() for line in screen.text.splitlines()]
    text = "\n".join(lines)
    assert "**" not in text and "```" not in text and "# Result" not in text and "• first point" in text
    prose = [line for line in lines if line and set(line.split()) <= set(WORDS.split())]
    assert len(prose) >= 3 and all(len(line) <= columns for line in prose)
    assert " ".join(prose).split() == (WORDS * 3).split(), "no word is cut in two"


def test_each_call_has_a_line_of_what_it_gave(tmp_path: Path) -> None:
    turns = [
        Turn([ToolUse("echo", {"text": "hello"}), ToolUse("fails", {"why": "no disk"})]),
        calls("list_jobs"),
        says("End."),
    ]
    with MessagesServer(turns) as server, terminal(tmp_path, server, "go") as screen:
        screen.wait_for("End.", "turn 3/300")
        shown = screen.text
    assert re.search(r"✓ echo\(text=hello\) [\d.]+ s *\n  └ .*hello", shown), shown
    assert re.search(r"✗ fails\(why=no disk\) [\d.]+ s *\n  └ .*it failed: no disk", shown), shown
    assert " chars" not in shown


def test_the_progress_of_a_long_call_is_shown_while_it_runs(tmp_path: Path) -> None:
    turns = [calls("wait_for_file", name="go"), says("Done.")]
    with MessagesServer(turns) as server, terminal(tmp_path, server, "go") as screen:
        screen.wait_for("… wait_for_file", "25% looking for the file")
        (tmp_path / "state" / "go").touch()
        screen.wait_for("Done.")


def test_commands_are_completed_as_they_are_typed(tmp_path: Path) -> None:
    with MessagesServer([says("Ready.")]) as server, terminal(tmp_path, server, "go") as screen:
        screen.wait_for("Ready.", "turn 1/300")
        screen.process.send("/co")
        screen.wait_for("/compact", "/cost", "what the model has cost")
        screen.process.send("s")
        screen.wait_for("› /cos")
        screen.process.send("\t")
        screen.wait_for("› /cost")
        screen.process.send("\r")
        screen.wait_for("The model has cost $")


def test_esc_ends_the_step_and_never_leaves(tmp_path: Path) -> None:
    turns = [calls("wait_for_file", name="never"), says("Sorry.")]
    with MessagesServer(turns) as server, terminal(tmp_path, server, "go") as screen:
        screen.wait_for("… wait_for_file", "esc or ctrl-c interrupts")
        screen.process.send("\x1b")
        screen.wait_for("interrupted: Interrupted from the keyboard.", "only reads, so it may be asked again")
        assert "unknown" not in screen.text
        screen.process.send("\x1b")
        screen.type("go on")
        screen.wait_for("Sorry.")


def test_ctrl_c_leaves_a_sane_shell(tmp_path: Path) -> None:
    stalled = Turn([Text("I will now")], fault=Stall(3, pings=0.1))
    with MessagesServer([stalled]) as server, terminal(tmp_path, server, "go", shell=True) as screen:
        screen.wait_for("I wil", "esc or ctrl-c interrupts")
        screen.press("c")
        screen.press("c")
        screen.wait_for("go on with: ", "mlintern-orchestrate --resume")
        screen.wait_below(
            "--resume", "shell>"
        )  # what is typed before, the terminal drops as its settings are put back
        screen.type("stty -a | grep -o ' icanon\\| echo '; echo code=$?")
        screen.wait_for("code=0", " icanon", " echo")
        after = screen.text.rpartition("--resume")[2]
    assert "[" not in after.partition("stty")[0].partition("\n")[2] and "command not found" not in after


def test_a_question_shows_what_it_is_about_and_yes_lets_the_job_through(tmp_path: Path) -> None:
    with MessagesServer([calls("submit_job", **JOB), says("It runs.")]) as server:
        with terminal(tmp_path, server, "go") as screen:
            screen.wait_for("free of charge on local cpu, up to 15 min", "digest ab12cd34ef56", "approve? [y/a/n/s]")
            screen.type("maybe")
            screen.wait_for("y: yes, once")
            screen.type("y")
            screen.wait_for("It runs.", "approved (terminal)")
            screen.type("/quit")
            screen.wait_for_end()
            assert "still running: j1" in screen.text
        assert screen.effects() == ["job j1"]


def test_what_was_typed_before_the_question_does_not_answer_it(tmp_path: Path) -> None:
    turns = [calls("wait_for_file", name="go"), calls("submit_job", **JOB), says("Well.")]
    with MessagesServer(turns) as server:
        with terminal(tmp_path, server, "go") as screen:
            screen.wait_for("… wait_for_file")
            screen.process.send("y")  # and no Enter yet
            screen.wait_for("› y")
            (tmp_path / "state" / "go").touch()
            screen.wait_for("approve? [y/a/n/s]")
            screen.process.send("\r")
            screen.wait_for("y: yes, once")
            assert screen.effects() == []
            screen.type("n")
            screen.wait_for("⊘ denied: submit_job", "Well.")
        assert screen.effects() == []


def test_the_question_is_repeated_after_the_script_and_says_what_an_allowance_grants(tmp_path: Path) -> None:
    turns = [calls("submit_job", script_id="abc", **JOB), says("Well.")]
    with MessagesServer(turns) as server, terminal(tmp_path, server, "go") as screen:
        screen.wait_for("approve? [y/a/n/s]", "each up to 15 min")
        screen.type("s")
        screen.wait_for("print('abc')")
        screen.wait_below("print('abc')", "free of charge on local cpu, up to 15 min (digest")
        screen.type("n")
        screen.wait_for("Well.")


def test_a_no_carries_its_reason_to_the_model_word_for_word(tmp_path: Path) -> None:
    with MessagesServer([calls("submit_job", **JOB), says("Understood.")]) as server:
        with terminal(tmp_path, server, "go") as screen:
            screen.wait_for("approve? [y/a/n/s]")
            screen.type("n Use the SMALL model first")
            screen.wait_for("Understood.")
        assert "Use the SMALL model first" in json.dumps(server.requests[1].json["messages"])
    assert screen.effects() == []


def test_an_allowance_spares_the_next_question(tmp_path: Path) -> None:
    turns = [calls("submit_job", **JOB), calls("submit_job", **(JOB | {"timeout": "10m"})), says("Both run.")]
    with MessagesServer(turns) as server, terminal(tmp_path, server, "go") as screen:
        screen.wait_for("Allowance with a: submit_job:local<=15m", "approve? [y/a/n/s]")
        screen.type("a")
        screen.wait_for("Both run.", "approved (rule submit_job:local<=15m)")
        assert screen.effects() == ["job j1", "job j2"]


def test_what_is_typed_while_it_works_is_queued_and_said_after_the_step(tmp_path: Path) -> None:
    turns = [calls("wait_for_file", name="go"), says("I heard you.")]
    with MessagesServer(turns) as server, terminal(tmp_path, server, "go") as screen:
        screen.wait_for("… wait_for_file")
        screen.type("also use fewer steps")
        screen.wait_for("(1 queued)")
        (tmp_path / "state" / "go").touch()
        screen.wait_for("I heard you.")
        assert server.requests[1].json["messages"][-1]["content"] == "also use fewer steps"


def test_the_first_ctrl_c_ends_the_step_and_the_prompt_takes_the_next_message(tmp_path: Path) -> None:
    stalled = Turn([Text("I will now spend all your money")], fault=Stall(3, pings=0.1))
    with MessagesServer([stalled, says("Sorry.")]) as server, terminal(tmp_path, server, "go") as screen:
        screen.wait_for("ctrl-c interrupts", "I will now")
        screen.press("c")
        screen.wait_for("interrupted: Interrupted from the keyboard.")
        screen.type("do something else")
        screen.wait_for("Sorry.")
        said = [message["role"] for message in server.requests[1].json["messages"]]
        assert said == ["user", "user"]


def test_two_ctrl_c_within_two_seconds_leave_with_130_and_name_the_running_job(tmp_path: Path) -> None:
    turns = [calls("submit_job", **JOB), calls("wait_for_file", name="never"), says("never")]
    with MessagesServer(turns) as server, terminal(tmp_path, server, "go", "--yes") as screen:
        screen.wait_for("… wait_for_file")
        screen.press("c")
        screen.press("c")
        assert screen.wait_for_end() == 130
        assert "still running: j1" in screen.text
        assert screen.events("stop")[-1]["name"] == "interrupted"


def test_ctrl_c_at_a_question_denies_by_leaving_it_open(tmp_path: Path) -> None:
    with MessagesServer([calls("submit_job", **JOB), says("Well.")]) as server:
        with terminal(tmp_path, server, "go") as screen:
            screen.wait_for("approve? [y/a/n/s]")
            screen.press("c")
            screen.wait_for("interrupted")
            screen.type("forget the job")
            screen.wait_for("Well.")
        assert screen.effects() == []


def test_ctrl_d_ends_it(tmp_path: Path) -> None:
    with MessagesServer([says("Hello.")]) as server, terminal(tmp_path, server, "go") as screen:
        screen.wait_for("Hello.", "turn 1/300")
        screen.press("d")
        assert screen.wait_for_end() == 0


def test_the_commands_answer(tmp_path: Path) -> None:
    plan = calls("update_plan", steps=[{"step": "measure the base model", "state": "done"}])
    with MessagesServer([plan, says("Ready.")]) as server, terminal(tmp_path, server, "go") as screen:
        screen.wait_for("Ready.", "turn 2/300")
        for typed, shown in [
            ("/help", "/undo"),
            ("/plan", "[x] measure the base model"),
            ("/cost", "The model has cost $"),
            ("/model", "claude-sonnet-5-5"),
            ("/jobs", "There are no jobs."),
            ("/approve submit_job:local<=5m", "allowed: submit_job:local<=5m"),
            ("/compakt", "Did you mean '/compact'?"),
            ("/compact", "Not compacted"),
            ("/export trace", ".jsonl"),
            ("/undo", "Taken back: go"),
        ]:
            screen.type(typed)
            screen.wait_for(f"› {typed}", shown)
        assert len(list(tmp_path.glob("*.jsonl"))) == 1
        screen.type("/quit")
        assert screen.wait_for_end() == 0


def test_what_a_model_or_a_tool_writes_cannot_steer_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2Jred\x1b[31m"
    turn = Turn([Text(f"text {evil}"), ToolUse("echo", {"text": f"arg {evil}"})])
    with MessagesServer([turn, says("End.")]) as server, terminal(tmp_path, server, "go") as screen:
        screen.wait_for("End.", "turn 2/300")
        assert all(part in screen.text for part in ("]0;owned", "[2Jred", "[31m"))
        assert screen._terminal.title != "owned"


def test_a_session_is_taken_up_where_it_was_left(tmp_path: Path) -> None:
    with MessagesServer([says("First."), says("Second.")]) as server:
        with terminal(tmp_path, server, "go") as screen:
            screen.wait_for("First.", "turn 1/300")
            screen.type("/quit")
            screen.wait_for_end()
        (session,) = (path.parent.name for path in (tmp_path / "sessions").glob("*/events.jsonl"))
        with terminal(tmp_path, server, "--resume", session) as screen:
            screen.wait_for(f"resumed {session}", "it said last: First.", "\n›")
            screen.type("and now?")
            screen.wait_for("Second.")
        assert len(server.requests[1].json["messages"]) == 3
