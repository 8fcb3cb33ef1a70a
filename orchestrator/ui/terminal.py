"""The run at a terminal, inline: finished lines scroll away, below them lives one prompt that is always open.

What is typed while the agent works is queued for its next turn; while a question is open it answers the question.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from mlintern.common.durations import format_duration
from mlintern.orchestrator.approvals import Decision, Request
from mlintern.orchestrator.events import (
    ApprovalAnswered,
    Compacted,
    Event,
    Finished,
    GuardFired,
    Notice,
    Started,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    TurnEnded,
)
from mlintern.orchestrator.frontend import Controls
from mlintern.orchestrator.mcp_connection import Answer, Question
from mlintern.orchestrator.model import ReplyStarted, Retrying, TextDelta, ThinkingDelta, ToolUseStarted
from mlintern.orchestrator.stops import Stop
from mlintern.orchestrator.ui import lines
from mlintern.orchestrator.ui.commands import CommandCompleter, Commands
from mlintern.orchestrator.ui.consent import CONSENT_HELP, ask_form, consent_lines, read_consent

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.formatted_text import StyleAndTextTuples
    from prompt_toolkit.key_binding import KeyBindings
    from rich.console import Console

LIVE_LINES = 4
PRESS_HINT = "Press Ctrl-C once more within two seconds to leave, or type what to do next."


class TerminalUi:
    """`frontend.Frontend` and its `Person`. With ``once`` the program ends when the first run does."""

    def __init__(self, *, once: bool = False) -> None:
        self._once = once
        self._queue: list[str] = []
        self._arrived = anyio.Event()
        self._idle = True
        self._question: _Open | None = None
        self._arguments: dict[str, Mapping[str, Any]] = {}
        self._running: dict[str, _Running] = {}
        self._text = ""
        self._thinking = ""
        self._turn: TurnEnded | None = None
        self._started = time.monotonic()
        self._window = 0
        self._console: Console | None = None
        self._session: PromptSession[str] | None = None

    @property
    def person(self) -> TerminalUi:
        return self

    # --- what is shown ---------------------------------------------------------------------------------------------

    def show(self, event: Event) -> None:
        match event:
            case TextDelta(text):
                self._stream(text)
            case ThinkingDelta(text):
                self._thinking += text
            case ReplyStarted() | ToolUseStarted():
                self._end_thinking()
            case ToolStarted():
                self._end_text()
                self._arguments[event.id] = event.arguments
                self._running[event.id] = _Running(event.name, time.monotonic())
            case ToolProgress():
                if event.id in self._running:
                    self._running[event.id].progress = lines.progress_text(event)
            case ToolFinished():
                self._running.pop(event.id, None)
                line = lines.tool_line(event, self._arguments.pop(event.id, {}))
                mark, style = lines.mark(event.outcome)
                self._line(f"{mark} {line}", style=style)
                self._line(
                    f"  └ {lines.result_line(event.outcome)}", style="red" if event.outcome.is_error else "dim"
                )
            case TurnEnded():
                self._end_text()
                self._turn = event
            case _:
                self._show_rare(event)
        self._redraw()

    def _show_rare(self, event: Event) -> None:
        match event:
            case Started():
                for line in lines.started_lines(event):
                    self._line(line, style="dim")
                self._line("/help lists the commands", style="dim")
            case ApprovalAnswered():
                note = f": {event.note}" if event.note else ""
                self._line(f"{'approved' if event.approved else 'denied'} ({event.via}){note}", style="yellow")
            case GuardFired():
                self._line(event.text, style="yellow")
            case Compacted():
                self._line(f"compacted from {event.before_tokens} to {event.after_tokens} tokens", style="dim")
            case Retrying(error, attempt, wait_seconds):
                self._text = self._thinking = ""
                self._line(f"attempt {attempt} failed: {error} Trying again in {wait_seconds:.0f} s.", style="yellow")
            case Notice():
                self._line(event.text, style="yellow" if event.level != "info" else "")
            case Stop():
                self._end_text()
                if event.name != "done":
                    self._line(f"{event.name}: {event.reason}", style="yellow")
            case Finished():
                for line in lines.finished_lines(event):
                    self._line(line, style="dim")

    def _stream(self, text: str) -> None:
        self._end_thinking()
        self._text += lines.plain_text(text)
        whole, self._text = finished_blocks(self._text)
        self._markdown(whole)

    def _end_text(self) -> None:
        self._end_thinking()
        text, self._text = self._text, ""
        self._markdown(text)

    def _markdown(self, text: str) -> None:
        """What the model wrote, rendered and wrapped by words; its links stay text that can be read."""
        if text.strip():
            from rich.markdown import Markdown

            self._printer().print(Markdown(text.strip("\n"), hyperlinks=False))

    def _end_thinking(self) -> None:
        thought, self._thinking = self._thinking.strip(), ""
        if thought:
            self._line(lines.plain_text(thought), style="dim italic")

    def _line(self, text: str, *, style: str = "") -> None:
        self._printer().print(lines.plain_text(text), style=style, markup=False)

    def _printer(self) -> Console:
        if self._console is None:
            from rich.console import Console

            self._console = Console(force_terminal=sys.stdout.isatty(), highlight=False)
        return self._console

    def _message(self) -> StyleAndTextTuples:
        """What stands above the cursor: the line that is being written, what runs, the prompt."""
        live = self._thinking.strip().split("\n") if self._thinking.strip() else self._text.split("\n")
        style = "italic fg:ansibrightblack" if self._thinking.strip() else ""
        shown: StyleAndTextTuples = [(style, f"{line}\n") for line in live[-LIVE_LINES:] if line]
        now = time.monotonic()
        for each in self._running.values():
            progress = f" · {each.progress}" if each.progress else ""
            since = format_duration(now - each.since, rounded=True)
            shown.append(("fg:ansibrightblack", f"… {each.name} {since}{progress}\n"))
        if self._queue:
            shown.append(("fg:ansibrightblack", f"({len(self._queue)} queued)\n"))
        return [*shown, ("bold", self._question.prompt if self._question else "› ")]

    def _footer(self) -> str:
        doing = "answer the question above" if self._question else ("" if self._idle else "esc or ctrl-c interrupts")
        footer = lines.footer(self._turn, window=self._window, minutes=(time.monotonic() - self._started) / 60)
        return f" {footer}{f'  ·  {doing}' if doing else ''}"

    def _redraw(self) -> None:
        if self._session is not None and self._session.app.is_running:
            self._session.app.invalidate()

    # --- what is typed ---------------------------------------------------------------------------------------------

    def typed(self) -> list[str]:
        taken, self._queue = self._queue, []
        return taken

    async def next_message(self) -> str | None:
        if self._once:
            return None
        self._idle = True
        try:
            while not self._queue:
                self._arrived = anyio.Event()
                self._redraw()
                await self._arrived.wait()
            return self._queue.pop(0)
        finally:
            self._idle = False

    @asynccontextmanager
    async def attached(self, controls: Controls) -> AsyncGenerator[None, None]:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.patch_stdout import patch_stdout

        self._window = controls.agent.window
        self._idle = False
        commands = Commands(controls, say=self._line)
        with patch_stdout(raw=True):
            self._session = PromptSession(
                self._message,
                bottom_toolbar=self._footer,
                refresh_interval=0.5,
                erase_when_done=True,
                completer=CommandCompleter(),
                complete_while_typing=True,
                reserve_space_for_menu=4,
                key_bindings=self._keys(controls),
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._read, self._session, controls, commands)
                try:
                    yield
                finally:
                    await self._take_late_answers()
                    tasks.cancel_scope.cancel()
        self._session = None
        self._flush_keyboard()

    def _keys(self, controls: Controls) -> KeyBindings:
        """Esc ends the step that runs; it never leaves."""
        from prompt_toolkit.filters import Condition
        from prompt_toolkit.key_binding import KeyBindings

        keys = KeyBindings()

        @keys.add("escape", filter=Condition(lambda: not self._idle and self._question is None))
        def _(event: object) -> None:
            controls.interrupts.end_step()

        return keys

    async def _take_late_answers(self) -> None:
        """Wait for what the terminal still has to say about its cursor: the shell would take it for typing."""
        if self._session is not None and self._session.app.is_running:
            with anyio.move_on_after(0.5, shield=True):
                await self._session.app.renderer.wait_for_cpr_responses(timeout=1)

    async def _read(self, session: PromptSession[str], controls: Controls, commands: Commands) -> None:
        while True:
            try:
                text = (await session.prompt_async(handle_sigint=False)).strip()
            except KeyboardInterrupt:
                if self._idle:
                    self._line(PRESS_HINT, style="dim")
                controls.interrupts.press()
                continue
            except EOFError:
                controls.interrupts.quit()
                return
            if self._question is not None:
                self._question.give(text)
            elif text.startswith("/"):
                self._line(f"› {text}", style="bold")
                await commands.run(text, idle=self._idle)
            elif text:
                self._line(f"› {text}", style="bold")
                self._queue.append(text)
                self._arrived.set()

    # --- what is asked ---------------------------------------------------------------------------------------------

    async def decide(self, request: Request) -> Decision:
        """Show a question and wait for y, a, n, s or d; what was typed before it was shown is no answer."""
        self._end_text()
        self._show_question(request)
        self._forget_typed()
        while True:
            text = await self._answer("approve? [y/a/n/s] ")
            if text.lower() in ("s", "script", "d", "diff"):
                read = request.script if text.lower() in ("s", "script") else request.changes
                shown = await read() if read else "There is none to show."
                for line in shown.splitlines() or ["(empty)"]:
                    self._line(line, style="dim")
                self._show_question(request)  # the script may have moved it out of sight
                continue
            decision = read_consent(text, request)
            if isinstance(decision, Decision):
                return decision
            self._line(decision, style="yellow")

    def _show_question(self, request: Request) -> None:
        for line in consent_lines(request, budget=self._turn):
            self._line(line, style="bold yellow")
        self._line(CONSENT_HELP, style="yellow")

    def _forget_typed(self) -> None:
        """Empty the line that is being typed, and what the terminal holds and nobody has read yet."""
        if self._session is not None:
            from prompt_toolkit.input.typeahead import clear_typeahead

            clear_typeahead(self._session.app.input)
            self._session.default_buffer.reset()
        self._flush_keyboard()

    @staticmethod
    def _flush_keyboard() -> None:
        with contextlib.suppress(OSError, ValueError, ImportError):
            import termios

            termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)

    async def fill_in(self, question: Question) -> Answer:
        """Ask for each field of a form; an empty line takes the default or leaves it out."""
        self._end_text()
        return await ask_form(question, say=self._line, read=self._answer)

    async def _answer(self, prompt: str) -> str:
        self._question = _Open(prompt)
        self._redraw()
        try:
            await self._question.given.wait()
            return self._question.text
        finally:
            self._question = None
            self._redraw()


def finished_blocks(text: str) -> tuple[str, str]:
    """The whole blocks of Markdown at the beginning of ``text`` (a blank line ends one), and the rest."""
    fence = ""
    end = position = 0
    for line in text.splitlines(keepends=True):
        position += len(line)
        mark = line.strip()[:3]
        if mark in ("```", "~~~"):
            fence = "" if fence == mark else (fence or mark)
            end = position if not fence and line.endswith("\n") else end
        elif not line.strip() and not fence and line.endswith("\n"):
            end = position
    return text[:end], text[end:]


@dataclass
class _Running:
    """A call that runs: its tool, when it began, what its server says about its progress."""

    name: str
    since: float
    progress: str = ""


class _Open:
    """A question that waits for a line."""

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt
        self.text = ""
        self.given = anyio.Event()

    def give(self, text: str) -> None:
        self.text = text
        self.given.set()
