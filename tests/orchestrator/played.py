"""A plan of the rehearsal played against a world that answers its calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from mlintern.orchestrator.rehearsal.plan import Inputs
from mlintern.orchestrator.rehearsal.script import Plan, replay
from mlintern.orchestrator.rehearsal.turns import Text, ToolUse


class Answering(Protocol):
    """What the tools answer; a text is an error."""

    def answer(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any] | str: ...


def played(
    plan: Callable[..., Plan], inputs: Inputs, *, world: Answering, tools: Iterable[str]
) -> tuple[list[str], list[str]]:
    """What the plan says, turn by turn, and why it stopped if it did. Each request repeats the whole conversation."""
    stopped: list[str] = []
    request: dict[str, Any] = {
        "tools": [{"name": f"mlintern__{name}"} for name in tools],
        "messages": [{"role": "user", "content": "go"}],
    }
    said = []
    for _ in range(200):
        turn = replay(lambda: plan(inputs, on_stop=stopped.append), request)
        assert replay(lambda: plan(inputs, on_stop=lambda _: None), request) == turn
        said.append(" ".join(block.text for block in turn.blocks if isinstance(block, Text)))
        calls = [block for block in turn.blocks if isinstance(block, ToolUse)]
        if not calls:
            return said, stopped
        request["messages"] += _conversation(calls, world)
    raise AssertionError("the plan does not end")


def _conversation(calls: list[ToolUse], world: Answering) -> list[dict[str, Any]]:
    results = []
    for number, call in enumerate(calls):
        answer = world.answer(call.name.removeprefix("mlintern__"), call.input)
        text = answer if isinstance(answer, str) else json.dumps(answer)
        results.append(
            {
                "type": "tool_result",
                "tool_use_id": f"t{number}",
                "content": [{"type": "text", "text": text}],
                "is_error": isinstance(answer, str),
            }
        )
    uses = [{"type": "tool_use", "id": f"t{n}", "name": c.name, "input": c.input} for n, c in enumerate(calls)]
    return [{"role": "assistant", "content": uses}, {"role": "user", "content": results}]
