"""How a fixed plan speaks as a model: a generator of turns, replayed over the conversation at every request.

The plan holds no state between requests. Whatever the conversation already contains is fed to a fresh run of the
generator, and the turn it yields next is the answer; so a request that is sent twice (a retry, a resumed session)
gets the same answer twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlintern.orchestrator.rehearsal.turns import Text, ToolUse, Turn


@dataclass(frozen=True)
class Call:
    """A tool by its own name (without the prefix of its server) and its arguments."""

    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Say:
    """One turn of the plan: a sentence for the person who watches, and calls. A turn without calls ends the run."""

    text: str
    calls: Sequence[Call] = ()


@dataclass(frozen=True)
class Outcome:
    """What a call gave: its structured result, or the text of its error."""

    data: dict[str, Any]
    text: str
    is_error: bool


Plan = Generator[Say, list[Outcome], None]


def replay(plan: Callable[[], Plan], request: dict[str, Any]) -> Turn:
    """The turn that ``plan`` takes after the conversation in ``request`` (a Messages API request).

    Args:
        plan: makes a fresh run of the plan.
        request: its ``messages`` hold user and assistant turns; its ``tools`` the names that calls must use.
    """
    names = {tool["name"].rsplit("__", 1)[-1]: tool["name"] for tool in request["tools"] if "name" in tool}
    run = plan()
    say = next(run)
    for message in request["messages"]:
        results = [block for block in blocks(message) if block["type"] == "tool_result"]
        if message["role"] != "user" or not results:
            continue
        try:
            say = run.send([outcome(result) for result in results])
        except StopIteration:
            return Turn([Text("The plan has ended.")])
    missing = sorted({call.tool for call in say.calls} - names.keys())
    if missing:
        return Turn([Text(f"The rehearsal stops: the server offers no tool {', '.join(missing)}.")])
    calls = [ToolUse(names[call.tool], call.arguments) for call in say.calls]
    return Turn([Text(say.text), *calls] if say.text else calls)


def blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The content of a message as blocks."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def outcome(result: dict[str, Any]) -> Outcome:
    """A ``tool_result`` block as the plan reads it: the first JSON object in its text, if there is one."""
    text = "\n".join(block["text"] for block in blocks(result) if block["type"] == "text")
    start = text.find("{")
    data: Any = {}
    if start >= 0:
        try:
            data, _ = json.JSONDecoder().raw_decode(text, start)
        except json.JSONDecodeError:
            data = {}
    return Outcome(data=data, text=text, is_error=bool(result.get("is_error")))
