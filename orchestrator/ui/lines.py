"""One line for each thing that happens: shared by every way of showing a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlintern.common.durations import format_duration
from mlintern.common.text import cut_line, format_usd, printable
from mlintern.orchestrator.events import Finished, Started, ToolFinished, TurnEnded
from mlintern.orchestrator.tool import ToolOutcome

ARGUMENT_CHARS = 60
LINE_CHARS = 110


def brief(arguments: Mapping[str, Any], *, width: int = LINE_CHARS) -> str:
    """Arguments as ``name=value``, each and all cut to fit a line."""
    parts = [f"{name}={_short(value)}" for name, value in arguments.items()]
    return cut_line(", ".join(parts), width)


def mark(outcome: ToolOutcome) -> tuple[str, str]:
    """The sign before a call's line, and its style: failed, not done because nobody agreed, or done."""
    if outcome.is_error:
        return "✗", "red"
    status = _status(outcome.text)
    if status in ("denied", "approval_required"):
        return f"⊘ {status.replace('_', ' ')}:", "yellow"
    return "✓", "cyan"


def _status(text: str) -> str:
    try:
        answer = json.loads(text) if text.startswith("{") else None
    except ValueError:
        return ""
    return str(answer.get("status") or "") if isinstance(answer, dict) else ""


def tool_line(finished: ToolFinished, arguments: Mapping[str, Any]) -> str:
    """``submit_job(script_id=…) 1.2 s, 340 chars``, with the error in words if it is one."""
    outcome = finished.outcome
    images = sum(block["type"] == "image" for block in outcome.content)
    shown = f"{size(len(outcome.text))} chars" + (f", {images} image{'s' if images > 1 else ''}" if images else "")
    line = f"{finished.name}({brief(arguments)}) {format_duration(finished.seconds, rounded=True)}, {shown}"
    return f"{line}: {cut_line(outcome.text, 160)}" if outcome.is_error else line


def started_lines(started: Started) -> list[str]:
    verb = "resumed" if started.resumed else "session"
    servers = ", ".join(started.servers) or "no server"
    lines = [f"{verb} {started.session_id} · {started.model} · {len(started.tools)} tools from {servers}"]
    return lines + [f"server {name} is not available: {reason}" for name, reason in started.failures.items()]


def finished_lines(finished: Finished) -> list[str]:
    """What a person needs at the end: why, how much, what still runs, how to go on."""
    stop = finished.stop
    turns = f"{finished.turns} turn{'' if finished.turns == 1 else 's'}"
    lines = [f"{stop.name}: {stop.reason} ({turns}, {format_usd(finished.usd)})"]
    if finished.running_jobs:
        lines.append(f"still running: {', '.join(finished.running_jobs)}")
    lines.append(f"go on with: mlintern-orchestrate --resume {finished.session_id}")
    return lines


def footer(turn: TurnEnded | None, *, window: int, minutes: float) -> str:
    """``claude-sonnet-5-5 | ctx 63% | $0.41/$5 | turn 37/300 | 12 min``."""
    if turn is None:
        return f"{minutes:.0f} min"
    limit = f"/{format_usd(turn.budget_usd)}" if turn.budget_usd is not None else ""
    share = round(100 * turn.context_tokens / window) if window else 0
    parts = [
        turn.model,
        f"ctx {share}%",
        f"{format_usd(turn.usd)}{limit}",
        f"turn {turn.turn}/{turn.max_turns}",
        f"{minutes:.0f} min",
    ]
    return " | ".join(parts)


def question_lines(message: str) -> list[str]:
    """A server's question, safe to print: no control characters, at most 40 lines."""
    lines = [printable(line) for line in message.splitlines()]
    more = [f"(+{len(lines) - 40} more lines)"] if len(lines) > 40 else []
    return [*lines[:40], *more]


def plain_text(text: str) -> str:
    """``text`` with no control character but newline and tab: what a model writes must not steer a terminal."""
    return printable(text, keep="\n\t")


def size(count: int) -> str:
    return str(count) if count < 1000 else f"{count / 1000:.1f}k"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return cut_line(plain_text(text), ARGUMENT_CHARS)
