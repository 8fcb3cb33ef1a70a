"""The run as JSON lines on stdout, for programs: ``--output stream-json``, or only the last line: ``--output json``.

Every line is an object with ``v`` (1) and ``type``: init, message, thinking, tool_use, tool_result, approval, guard,
compaction, retry, progress, usage, notice, stop, result. Fields are only ever added.
"""

from __future__ import annotations

import json
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
    ToolProgress,
    ToolStarted,
    TurnEnded,
)
from mlintern.orchestrator.frontend import Headless
from mlintern.orchestrator.model import Retrying, TextDelta, ThinkingDelta
from mlintern.orchestrator.stops import Stop

VERSION = 1
PLAIN: dict[type, str] = {ToolProgress: "progress", ApprovalAnswered: "approval", Compacted: "compaction"}
"""Events whose fields are the line's."""


class JsonlUi(Headless):
    """`ports.Ui` that prints one flushed line an event, or with ``only_result`` nothing but the result."""

    def __init__(self, out: TextIO, *, only_result: bool = False) -> None:
        self._out = out
        self._only_result = only_result

    def show(self, event: Event) -> None:
        record = as_record(event)
        if record is None or (self._only_result and record["type"] != "result"):
            return
        self._out.write(json.dumps({"v": VERSION, **record}, ensure_ascii=False, default=str) + "\n")
        self._out.flush()


def as_record(event: Event) -> dict[str, Any] | None:
    """The fields of one line; None for what is not shown."""
    if (name := PLAIN.get(type(event))) is not None:
        return {"type": name, **vars(event)}
    match event:
        case Started():
            return {
                "type": "init",
                "session_id": event.session_id,
                "model": event.model,
                "tools": list(event.tools),
                "servers": list(event.servers),
                "failures": dict(event.failures),
                "resumed": event.resumed,
            }
        case TextDelta(text):
            return {"type": "message", "delta": text}
        case ThinkingDelta(text):
            return {"type": "thinking", "delta": text}
        case ToolStarted():
            arguments = dict(event.arguments)
            return {
                "type": "tool_use",
                "id": event.id,
                "name": event.name,
                "server": event.server,
                "input": arguments,
            }
        case ToolFinished():
            return {
                "type": "tool_result",
                "id": event.id,
                "name": event.name,
                "is_error": event.outcome.is_error,
                "unknown": event.outcome.unknown,
                "seconds": round(event.seconds, 3),
                "content": event.outcome.content,
            }
        case GuardFired():
            return {"type": "guard", "level": event.level, "text": event.text}
        case Retrying(error, attempt, wait_seconds):
            return {"type": "retry", "error": str(error), "attempt": attempt, "wait_seconds": wait_seconds}
        case TurnEnded():
            return {"type": "usage", **vars(event), "usage": event.usage.to_json()}
        case Notice():
            return {"type": "notice", "level": event.level, "text": event.text}
        case Stop():
            return {"type": "stop", "name": event.name, "reason": event.reason, "exit_code": event.exit_code}
        case Finished():
            return _result(event)
    return None


def _result(finished: Finished) -> dict[str, Any]:
    stop = finished.stop
    return {
        "type": "result",
        "status": "ok" if stop.exit_code == 0 else "error",
        "stop": stop.name,
        "reason": stop.reason,
        "exit_code": stop.exit_code,
        "text": finished.text,
        "session_id": finished.session_id,
        "turns": finished.turns,
        "cost_usd": round(finished.usd, 6),
        "running_jobs": list(finished.running_jobs),
        "details": {name: value for name, value in stop.details.items() if name != "text"},
    }
