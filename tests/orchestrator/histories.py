"""Conversations for tests: made by hand, and drawn at random within the rules of the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from mlintern.orchestrator.conversation import Conversation
from mlintern.orchestrator.model import Message
from mlintern.orchestrator.rehearsal import rules

TOOLS = [{"name": "look", "description": "Looks at something.", "input_schema": {"type": "object"}}]
SYSTEM = "You are a careful engineer."


def said(text: str) -> Message:
    return {"role": "user", "content": text}


def turn(
    number: int, result: str = "fine", *, calls: int = 1, is_error: bool = False, thinking: bool = False
) -> list[Message]:
    """A reply with calls, and the message with their results."""
    blocks: list[dict[str, Any]] = [{"type": "text", "text": f"Looking for the {number}th time."}]
    if thinking:
        blocks.insert(0, {"type": "thinking", "thinking": "hm", "signature": f"s{number}"})
    uses = [
        {"type": "tool_use", "id": f"toolu_{number}_{call}", "name": "look", "input": {"at": number, "call": call}}
        for call in range(calls)
    ]
    results: list[dict[str, Any]] = [
        {"type": "tool_result", "tool_use_id": use["id"], "content": [{"type": "text", "text": result}]}
        | ({"is_error": True} if is_error else {})
        for use in uses
    ]
    return [{"role": "assistant", "content": blocks + uses}, {"role": "user", "content": results}]


def talk(*messages: Message | Sequence[Message], system: str = SYSTEM) -> Conversation:
    """A conversation of messages and lists of messages."""
    flat = [each for part in messages for each in ([part] if isinstance(part, dict) else part)]
    return Conversation(system=system, tools=TOOLS, messages=flat)


def complaint(messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> str | None:
    """What the API would say against a request with these messages; None if nothing."""
    headers = {
        "authorization": "Bearer test",
        "anthropic-version": "2026-10-21",
        "anthropic-beta": "compact-2026-09-04,server-side-fallback-2026-07-01",
        "content-type": "application/json",
    }
    request = {"model": "m", "max_tokens": 100, "stream": True, "messages": list(messages), "tools": list(tools)}
    return rules.complaint(request, headers)


words = st.text("abcdefgh ijkl.,<>/\n#[]{}\"'日é", min_size=1, max_size=300).filter(str.strip)


@st.composite
def histories(draw: st.DrawFn) -> Conversation:
    """A goal, then turns with calls, prose, interjections, errors and thinking, at a point where a request is due."""
    messages: list[Message] = [said(draw(words))]
    for number in range(draw(st.integers(0, 40))):
        kind = draw(st.sampled_from(["call", "call", "call", "parallel", "error", "long", "prose", "interjection"]))
        match kind:
            case "prose":
                messages.append({"role": "assistant", "content": [{"type": "text", "text": draw(words)}]})
                messages.append(said(draw(words)))
            case "interjection":
                messages += [*turn(number), said(draw(words))]
            case "long":
                messages += turn(number, "x" * draw(st.integers(1_000, 60_000)))
            case _:
                messages += turn(
                    number,
                    draw(words),
                    calls=draw(st.integers(2, 4)) if kind == "parallel" else 1,
                    is_error=kind == "error",
                    thinking=draw(st.booleans()),
                )
    return talk(messages)
