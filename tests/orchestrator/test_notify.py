"""Notifications: to a command, a webhook, Slack and ntfy; and never in the way of the run."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mlintern.orchestrator.approvals import Decision, Request
from mlintern.orchestrator.events import Event, Finished, Notice
from mlintern.orchestrator.frontend import Headless
from mlintern.orchestrator.mcp_connection import Answer, Question
from mlintern.orchestrator.notify import BadTarget, Notification, Notifier, NotifyingFrontend, NotSent
from mlintern.orchestrator.stops import budget_exhausted, done
from tests.clock import FakeClock

pytestmark = pytest.mark.anyio
NOTE = Notification(event="done", title="mlintern: done", text="accuracy 91 %\nsecond line", session="s1")


class Hook:
    """A webhook on a real socket that answers with ``statuses`` in turn, 200 at the end."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.url = ""


@contextmanager
def hook(*statuses: int) -> Iterator[Hook]:
    served = Hook(*statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            served.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(served.statuses.pop(0) if served.statuses else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


async def test_slack_gets_one_text(clock: FakeClock) -> None:
    with hook() as served:
        await Notifier(f"slack:{served.url}", clock=clock).send(NOTE)
    ((_, body),) = served.received
    assert json.loads(body) == {"text": "*mlintern: done*\naccuracy 91 %\nsecond line"}


async def test_ntfy_gets_the_text_as_body_and_the_title_as_header(clock: FakeClock) -> None:
    with hook() as served:
        await Notifier(f"ntfy:{served.url}", clock=clock).send(NOTE)
    ((headers, body),) = served.received
    assert (body.decode(), headers["title"], headers["tags"]) == (NOTE.text, NOTE.title, "done")


async def test_a_webhook_gets_everything_as_json(clock: FakeClock) -> None:
    with hook() as served:
        await Notifier(served.url, clock=clock).send(NOTE)
    assert json.loads(served.received[0][1]) == vars(NOTE)


async def test_a_busy_hook_is_asked_again_and_a_refusing_one_is_not(clock: FakeClock) -> None:
    with hook(429, 503) as served:
        await Notifier(served.url, clock=clock).send(NOTE)
        assert len(served.received) == 3
    with hook(404) as served:
        with pytest.raises(NotSent, match="404"):
            await Notifier(served.url, clock=clock).send(NOTE)
        assert len(served.received) == 1
    assert clock.slept == [2, 4]


async def test_a_command_is_run_without_a_shell_and_gets_the_text_in_its_environment(
    clock: FakeClock, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    script = tmp_path / "tell.py"
    script.write_text(
        f"import os; open({str(out)!r}, 'w').write(os.environ['MLINTERN_TEXT'] + os.environ['MLINTERN_EVENT'])"
    )
    evil = Notification(event="failed", title="t", text="$(touch /tmp/owned); `x`", session="s")
    await Notifier(f"{sys.executable} {script}", clock=clock).send(evil)
    assert out.read_text() == "$(touch /tmp/owned); `x`failed"


async def test_a_command_that_fails_or_is_missing_is_told(clock: FakeClock) -> None:
    with pytest.raises(NotSent, match="cannot be run"):
        await Notifier("/nonexistent/program", clock=clock).send(NOTE)
    with pytest.raises(NotSent, match="ended with 3"):
        await Notifier(f"{sys.executable} -c 'raise SystemExit(3)'", clock=clock).send(NOTE)


@pytest.mark.parametrize("target", ["", "  ", "'unclosed"])
def test_a_target_that_is_none_is_refused(target: str, clock: FakeClock) -> None:
    with pytest.raises(BadTarget, match="--notify"):
        Notifier(target, clock=clock)


class Quiet(Headless):
    def __init__(self) -> None:
        self.seen: list[Event] = []

    def show(self, event: Event) -> None:
        self.seen.append(event)


class Attended(Quiet):
    async def decide(self, request: Request) -> Decision:
        return Decision(approved=True)

    async def fill_in(self, question: Question) -> Answer:
        return Answer(action="decline")

    @property
    def person(self) -> Attended:  # type: ignore[override]
        return self


class Controlled:
    """`frontend.Controls` with nothing but a session's id."""

    class agent:
        class session:
            id = "s1"


def finished(code: int) -> Finished:
    stop = done("accuracy 91 %") if code == 0 else budget_exhausted("no money")
    return Finished(stop=stop, session_id="s1", turns=3, usd=0.5)


async def test_the_end_and_a_question_are_told_and_the_run_waits_for_neither(clock: FakeClock) -> None:
    with hook() as served:
        frontend = NotifyingFrontend(Attended(), Notifier(served.url, clock=clock))
        async with frontend.attached(Controlled()):  # type: ignore[arg-type]
            assert frontend.person is not None
            question = Question(server="m", message="Start train on local: free of charge\nmore", tool="submit_job")
            await frontend.person.decide(Request(question=question, asked=None))
            frontend.show(finished(0))
    told = [json.loads(body) for _, body in served.received]
    assert [(each["event"], each["text"]) for each in told] == [
        ("approval", "Start train on local: free of charge"),
        ("done", "accuracy 91 %"),
    ]
    assert {each["session"] for each in told} == {"s1"}


async def test_a_failure_is_told_as_one(clock: FakeClock) -> None:
    with hook() as served:
        frontend = NotifyingFrontend(Quiet(), Notifier(served.url, clock=clock))
        async with frontend.attached(Controlled()):  # type: ignore[arg-type]
            frontend.show(finished(4))
    assert json.loads(served.received[0][1])["event"] == "failed"


async def test_what_cannot_be_sent_is_said_on_the_screen_and_nothing_else_happens(clock: FakeClock) -> None:
    quiet = Quiet()
    frontend = NotifyingFrontend(quiet, Notifier("/nonexistent/program", clock=clock))
    async with frontend.attached(Controlled()):  # type: ignore[arg-type]
        frontend.show(finished(0))
    assert isinstance(quiet.seen[-1], Notice) and "could not be sent" in quiet.seen[-1].text
