"""One line for each thing that happens: shared by every way of showing a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlintern.common.commands import shown_command
from mlintern.common.durations import format_duration
from mlintern.common.text import cut_line, format_usd, printable
from mlintern.orchestrator.events import Finished, Started, ToolFinished, ToolProgress, TurnEnded
from mlintern.orchestrator.tool import ToolOutcome

ARGUMENT_CHARS = 60
LINE_CHARS = 110
RESULT_CHARS = 160
TELLING = (
    *("status", "state", "verdict", "ok", "job_id", "script_id", "title", "usd_worst", "fits", "total", "exit_code"),
    *("error", "next_step", "note", "message"),
)
"""Fields of a result that say what it is about, in the order in which they are shown."""


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
    return str((_json_object(text) or {}).get("status") or "")


def tool_line(finished: ToolFinished, arguments: Mapping[str, Any]) -> str:
    """``submit_job(script_id=…) 1.2 s``."""
    return f"{finished.name}({brief(arguments)}) {format_duration(round(finished.seconds, 1), rounded=True)}"


def result_line(outcome: ToolOutcome) -> str:
    """What a call gave, in one line: the telling fields of a JSON object, else the first words of the text."""
    images = sum(block["type"] == "image" for block in outcome.content)
    value = outcome.structured if outcome.structured is not None else _json_object(outcome.text)
    said = _telling(value) if value is not None and not outcome.is_error else ""
    if not said:
        only = value.get("result") if value is not None and len(value) == 1 else None  # a text that a server wrapped
        texts = (line.strip() for line in (only if isinstance(only, str) else outcome.text).splitlines())
        said = next((line for line in texts if line and not line.startswith("[mlintern ")), "nothing")
    more = f" (+{images} image{'s' if images > 1 else ''})" if images else ""
    return cut_line(printable(said), RESULT_CHARS) + more


def _telling(value: Mapping[str, Any]) -> str:
    """``running · step 120/300 · 4 items``: states and ids first, then how many there are, then what is said."""
    parts = []
    for name in TELLING:
        each = value.get(name)
        if isinstance(each, bool):
            parts.append(name if each else f"not {name}")
        elif isinstance(each, str | int | float) and str(each).strip():
            parts.append(str(each) if name in ("status", "state", "verdict", "title", "note") else f"{name} {each}")
    for name, each in value.items():
        if isinstance(each, list) and each:
            named = _titles(each)
            parts.append(f"{len(each)} {name}" + (f": {named}" if named else ""))
        elif name == "progress" and isinstance(each, Mapping) and each.get("step") is not None:
            of = f"/{each['total']}" if each.get("total") else ""
            parts.append(f"step {each['step']}{of}")
    return " · ".join(cut_line(part, 90) for part in parts)


def _titles(items: list[Any]) -> str:
    """The names of the first items, where they have one."""
    names = []
    for item in items[:3]:
        each = item if isinstance(item, Mapping) else {}
        name = next((each[key] for key in ("title", "name", "id", "job_id", "message") if each.get(key)), None)
        if name is None:
            return ""
        names.append(cut_line(str(name), 40))
    return ", ".join(names) + (", …" if len(items) > len(names) else "")


def _json_object(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text) if text.startswith("{") else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def progress_text(progress: ToolProgress) -> str:
    """``45% loading shards``, or only the words or the number where there is no total."""
    share = f"{100 * progress.progress / progress.total:.0f}%" if progress.total else ""
    words = cut_line(printable(progress.message), 60)
    return " ".join(part for part in (share, words) if part) or f"{progress.progress:g}"


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
        seen = "" if finished.jobs_asked else " when last seen"
        lines.append(f"still running{seen}: {', '.join(finished.running_jobs)}")
        lines.append(f"look with: {shown_command('mlintern-server', 'jobs')}")
        lines.append(f"stop with: {shown_command('mlintern-server', 'cancel', finished.running_jobs[0])}")
    if finished.resumable:
        lines.append(f"go on with: {shown_command('mlintern-orchestrate', '--resume', finished.session_id)}")
    return lines


def job_lines(outcome: ToolOutcome) -> str:
    """What ``list_jobs`` answered as a table: state, progress, place, run and cost; its words if it is none."""
    items = (outcome.structured or {}).get("items")
    if not isinstance(items, list):
        return outcome.text
    rows = [_job_row(item) for item in items if isinstance(item, Mapping)]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    lines = ["  ".join([*map(str.ljust, row, widths), *row[4:]]).rstrip() for row in rows]
    note = (outcome.structured or {}).get("note")
    return "\n".join([*(lines or ["There are no jobs."]), *([printable(str(note))] if note else [])])


def _job_row(item: Mapping[str, Any]) -> list[str]:
    progress, usd = item.get("progress") or {}, item.get("usd_so_far")
    since = item.get("seconds_in_state")
    what = item.get("error") or item.get("detail") or ""
    if isinstance(progress, Mapping) and progress.get("step") is not None:
        what = f"step {progress['step']}" + (f" of {progress['total']}" if progress.get("total") else "")
    cells = (
        item.get("job_id") or "",
        item.get("state") or "",
        format_duration(since, rounded=True) if isinstance(since, int | float) else "",
        " ".join(str(item[name]) for name in ("backend", "hardware") if item.get(name)),
        item.get("run_name") or "",
        cut_line(str(what), RESULT_CHARS // 2),
        format_usd(usd) if isinstance(usd, int | float) and usd else "",
    )
    return [printable(str(cell)) for cell in cells]


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


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return cut_line(plain_text(text), ARGUMENT_CHARS)
