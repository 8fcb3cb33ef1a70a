"""Tell somebody elsewhere that approval is needed, that the run is done or that it failed.

A target is one of

    slack:URL     an incoming webhook of Slack (also Mattermost, Discord with /slack): {"text": ...}
    ntfy:URL      a topic of ntfy: the text as the body, the title as a header
    https://...   any address: {"event": ..., "title": ..., "text": ..., "session": ...} as JSON
    a command     run without a shell, with MLINTERN_EVENT, MLINTERN_TITLE, MLINTERN_TEXT, MLINTERN_SESSION set

A notification that cannot be sent is said on the screen and changes nothing else.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import anyio

from mlintern.common.clock import Clock
from mlintern.orchestrator.approvals import Decision, Person, Request
from mlintern.orchestrator.errors import OrchestratorError
from mlintern.orchestrator.events import Event, Finished, Notice
from mlintern.orchestrator.frontend import Controls, Frontend
from mlintern.orchestrator.mcp_connection import Answer, Question

if TYPE_CHECKING:
    import httpx2

SEND_SECONDS = 15.0
TRIES = 3
RETRY_STATUS = frozenset({429, 500, 502, 503, 504})


class BadTarget(OrchestratorError):
    """A target that is none; the text says what there is."""


class NotSent(OrchestratorError):
    """The target did not take the notification; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Notification:
    event: Literal["approval", "done", "failed"]
    title: str
    text: str
    session: str


class Notifier:
    """Sends to one target."""

    def __init__(self, target: str, *, clock: Clock) -> None:
        self._clock = clock
        self._kind, self._target = _split(target)

    async def send(self, notification: Notification) -> None:
        """Deliver, trying again a few times where the other side asks for it.

        Raises:
            NotSent: it was not delivered.
        """
        with anyio.move_on_after(SEND_SECONDS):
            if self._kind == "command":
                await self._run(notification)
            else:
                await self._post(notification)
            return
        raise NotSent(f"no answer within {SEND_SECONDS:g} s")

    async def _run(self, notification: Notification) -> None:
        names = {"EVENT": "event", "TITLE": "title", "TEXT": "text", "SESSION": "session"}
        extra = {f"MLINTERN_{name}": getattr(notification, attribute) for name, attribute in names.items()}
        try:
            done = await anyio.run_process(
                shlex.split(self._target),
                env=os.environ | extra,
                check=False,
                stdin=subprocess.DEVNULL,  # not the terminal that the user types into
                stdout=subprocess.DEVNULL,
            )
        except OSError as error:
            raise NotSent(f"the command cannot be run: {error}") from error
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()[-200:]
            raise NotSent(f"the command ended with {done.returncode}: {said}")

    async def _post(self, notification: Notification) -> None:
        import httpx2

        async with httpx2.AsyncClient(timeout=10.0) as client:
            for attempt in range(1, TRIES + 1):
                try:
                    answer = await client.send(self._request(client, notification))
                except httpx2.HTTPError as error:
                    problem = f"{type(error).__name__}: {error}"
                else:
                    if answer.is_success:
                        return
                    problem = f"status {answer.status_code}"
                    if answer.status_code not in RETRY_STATUS:
                        break
                if attempt < TRIES:
                    await self._clock.sleep(2.0**attempt)
        raise NotSent(problem)

    def _request(self, client: httpx2.AsyncClient, notification: Notification) -> httpx2.Request:
        title, text = notification.title, notification.text
        if self._kind == "slack":
            return client.build_request("POST", self._target, json={"text": f"*{title}*\n{text}"})
        if self._kind == "ntfy":
            headers = {"Title": title.encode("ascii", "replace").decode(), "Tags": notification.event}
            return client.build_request("POST", self._target, content=text.encode(), headers=headers)
        return client.build_request("POST", self._target, json=vars(notification))


def _split(target: str) -> tuple[str, str]:
    for kind in ("slack", "ntfy"):
        if target.startswith(f"{kind}:"):
            return kind, target.removeprefix(f"{kind}:")
    if target.startswith(("http://", "https://")):
        return "webhook", target
    try:
        words = shlex.split(target)
    except ValueError as error:
        raise BadTarget(f"--notify {target!r} is no command: {error}.") from error
    if not words:
        raise BadTarget("--notify needs slack:URL, ntfy:URL, an address or a command.")
    return "command", target


class NotifyingFrontend:
    """`frontend.Frontend` that sends what a person should know wherever they are, and passes everything on."""

    def __init__(self, frontend: Frontend, notifier: Notifier) -> None:
        self._frontend = frontend
        self._notifier = notifier
        self._session = ""
        self._person = _NotifyingPerson(frontend.person, self) if frontend.person is not None else None
        self._waiting: list[Notification] = []
        self._arrived = anyio.Event()

    @property
    def person(self) -> Person | None:
        return self._person

    def show(self, event: Event) -> None:
        self._frontend.show(event)
        if isinstance(event, Finished):
            failed = event.stop.exit_code != 0
            title = f"mlintern: {event.stop.name}"
            text = event.stop.reason if failed else event.text or event.stop.reason
            self.notify("failed" if failed else "done", title=title, text=text)

    def typed(self) -> list[str]:
        return self._frontend.typed()

    async def next_message(self) -> str | None:
        return await self._frontend.next_message()

    @asynccontextmanager
    async def attached(self, controls: Controls) -> AsyncGenerator[None, None]:
        self._session = controls.agent.session.id
        async with self._frontend.attached(controls), anyio.create_task_group() as tasks:
            tasks.start_soon(self._deliver)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
        with anyio.move_on_after(SEND_SECONDS, shield=True):
            await self._deliver_waiting()

    def notify(self, event: Literal["approval", "done", "failed"], *, title: str, text: str) -> None:
        """Queue a notification; it is sent beside the agent's work."""
        self._waiting.append(Notification(event=event, title=title, text=text[:2000], session=self._session))
        self._arrived.set()

    async def _deliver(self) -> None:
        while True:
            await self._deliver_waiting()
            self._arrived = anyio.Event()
            await self._arrived.wait()

    async def _deliver_waiting(self) -> None:
        while self._waiting:
            notification = self._waiting[0]
            try:
                await self._notifier.send(notification)
            except NotSent as error:
                self._frontend.show(Notice(text=f"The notification could not be sent: {error}", level="warning"))
            self._waiting.pop(0)


class _NotifyingPerson:
    def __init__(self, person: Person, frontend: NotifyingFrontend) -> None:
        self._person = person
        self._frontend = frontend

    async def decide(self, request: Request) -> Decision:
        headline = request.question.message.partition("\n")[0]
        self._frontend.notify("approval", title="mlintern: approval needed", text=headline)
        return await self._person.decide(request)

    async def fill_in(self, question: Question) -> Answer:
        self._frontend.notify("approval", title="mlintern: a question", text=question.message.partition("\n")[0])
        return await self._person.fill_in(question)
