"""The run as lines that are only ever appended: for pipes, logs and terminals that are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TextIO

from mlintern.orchestrator.events import (
    ApprovalAnswered,
    Compacted,
    Event,
    Finished,
    GuardFired,
    Notice,
    Started,
    ToolFinished,
    ToolStarted,
)
from mlintern.orchestrator.frontend import Headless
from mlintern.orchestrator.model import Retrying, TextDelta
from mlintern.orchestrator.ui import lines


class PlainUi(Headless):
    """`ports.Ui`. What happens goes to ``log``; with ``result``, the agent's last words go there at the end."""

    def __init__(self, log: TextIO, *, result: TextIO | None = None) -> None:
        self._log = log
        self._result = result
        self._arguments: dict[str, Mapping[str, Any]] = {}
        self._in_text = False

    def show(self, event: Event) -> None:
        match event:
            case TextDelta(text):
                self._write(lines.plain_text(text))
                self._in_text = True
            case Started():
                for line in lines.started_lines(event):
                    self._line(line)
            case ToolStarted():
                self._arguments[event.id] = event.arguments
            case ToolFinished():
                mark, _ = lines.mark(event.outcome)
                self._line(f"{mark} {lines.tool_line(event, self._arguments.pop(event.id, {}))}")
                self._line(f"  └ {lines.result_line(event.outcome)}")
            case ApprovalAnswered():
                answer = "approved" if event.approved else "denied"
                note = f": {event.note}" if event.note else ""
                self._line(f"? {event.message} — {answer} ({event.via}){note}")
            case GuardFired():
                self._line(f"! guard ({event.level}): {event.text}")
            case Compacted():
                self._line(f"compacted from {event.before_tokens} to {event.after_tokens} tokens ({event.method})")
            case Retrying(error, attempt, wait_seconds):
                self._line(f"… attempt {attempt} failed: {error} Trying again in {wait_seconds:.0f} s.")
            case Notice():
                self._line(event.text)
            case Finished():
                self._finish(event)

    def _finish(self, finished: Finished) -> None:
        for line in lines.finished_lines(finished):
            self._line(line)
        if self._result is not None and finished.text:
            self._result.write(lines.plain_text(finished.text).rstrip() + "\n")
            self._result.flush()

    def _line(self, text: str) -> None:
        self._write(("\n" if self._in_text else "") + lines.plain_text(text) + "\n")
        self._in_text = False

    def _write(self, text: str) -> None:
        self._log.write(text)
        self._log.flush()
