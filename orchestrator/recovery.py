"""Read a session back: the history as it was, the calls that were under way, what it has cost. Then go on with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlintern.orchestrator.facts import NamedHosts
from mlintern.orchestrator.loop import Orchestrator
from mlintern.orchestrator.messages import sendable, without_compaction_blocks, without_thinking
from mlintern.orchestrator.model import Block, EndpointProfile, Message, ToolUse, Usage
from mlintern.orchestrator.plan import Plan
from mlintern.orchestrator.ports import Journal
from mlintern.orchestrator.tool import SideEffect, ToolOutcome
from mlintern.orchestrator.tool_runner import Batch

LOST = (
    "The process ended while this call ran; whether it happened is unknown. Look at the state before you repeat it."
)

LOST_CALLS = "lost"
"""What the payment is for that charges, at their worst, all calls to models that were under way."""


@dataclass
class OpenCalls:
    """The calls of the last reply, which have no complete results yet."""

    uses: tuple[ToolUse, ...]
    turn: int
    started: dict[str, SideEffect] = field(default_factory=dict)
    ended: dict[str, ToolOutcome] = field(default_factory=dict)

    @property
    def unknown(self) -> list[ToolUse]:
        """Calls that had begun, do not only read, and of which nobody knows whether they happened."""
        return [
            use
            for use in self.uses
            if use.id not in self.ended and self.started.get(use.id, "read_only") != "read_only"
        ]

    def batch(self) -> Batch:
        """What is left to do: calls with an outcome keep it; what never began, or only reads, runs (again)."""
        return Batch(self.uses, self.turn, outcomes=dict(self.ended))


@dataclass
class Recovered:
    """A session as its events say. ``under_way`` are the calls to models without an end, each with its worst case."""

    header: dict[str, Any] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    open_calls: OpenCalls | None = None
    turn: int = 0
    usd: float = 0.0
    under_way: dict[str, float] = field(default_factory=dict)
    known_tokens: int = 0
    last_stop_reason: str = ""
    events: list[Mapping[str, Any]] = field(default_factory=list)
    """Those that other parts take something from: approvals and tool results."""

    @property
    def lost_usd(self) -> float:
        """What the calls that were under way at the end cost at worst, USD."""
        return sum(self.under_way.values())

    @property
    def spent_usd(self) -> float:
        """What the session has cost, each call of which nobody knows what it cost at its worst."""
        return self.usd + self.lost_usd

    @property
    def idle(self) -> bool:
        """Whether the agent had its last word: there is nothing to take up without a new message."""
        if not self.messages or self.open_calls is not None:
            return not self.messages
        return self.messages[-1]["role"] == "assistant" and self.last_stop_reason != "pause_turn"


def recover(events: Iterable[Mapping[str, Any]]) -> Recovered:
    """Fold a session's events, oldest first."""
    found = Recovered()
    for event in events:
        _apply(found, event)
    return found


def _apply(found: Recovered, event: Mapping[str, Any]) -> None:
    match event["kind"]:
        case "session_start":
            found.header = dict(event)
        case "user":
            found.messages.append({"role": "user", "content": event["text"]})
        case "request":
            found.turn = event["turn"]
            found.under_way["turn"] = float(event.get("worst_usd") or 0.0)
        case "side_request":
            found.under_way[event["what"]] = float(event["worst_usd"])
        case "spend":
            found.usd += float(event["usd"] or 0.0)
            if event.get("what") == LOST_CALLS:
                found.under_way.clear()
            else:
                found.under_way.pop(event.get("what", ""), None)
        case "reply":
            _apply_reply(found, event)
        case "tool_start" if found.open_calls is not None:
            found.open_calls.started[event["id"]] = event["side_effect"]
        case "tool_end":
            found.events.append(event)
            if found.open_calls is not None:
                found.open_calls.ended[event["id"]] = ToolOutcome(
                    content=event["content"], is_error=event["is_error"], unknown=event.get("unknown", False)
                )
        case "results" if found.open_calls is not None:
            batch = found.open_calls.batch()
            batch.notes += event["notes"]
            found.messages.append({"role": "user", "content": batch.results()})
            found.open_calls = None
        case "compaction":
            found.messages, found.known_tokens = [_sendable(message) for message in event["messages"]], 0
        case "approval":
            found.events.append(event)


def _apply_reply(found: Recovered, event: Mapping[str, Any]) -> None:
    blocks: list[Block] = sendable(event["blocks"])
    errors = event.get("errors") or {}
    uses = tuple(
        ToolUse(
            id=block["id"],
            name=block["name"],
            arguments=None if block["id"] in errors else block["input"],
            error=errors.get(block["id"]),
        )
        for block in blocks
        if block["type"] == "tool_use"
    )
    found.messages.append({"role": "assistant", "content": blocks})
    found.known_tokens = Usage.from_json(event["usage"]).context_tokens
    found.last_stop_reason = event["stop_reason"]
    found.open_calls = OpenCalls(uses, event["turn"]) if uses else None


def _sendable(message: Message) -> Message:
    """``message`` of a session that an older version wrote, as the API takes it."""
    return message if isinstance(message["content"], str) else {**message, "content": sendable(message["content"])}


async def take_up(found: Recovered, *, agent: Orchestrator, plan: Plan, hosts: NamedHosts, journal: Journal) -> None:
    """Go on where the process died: the cost of lost calls, the plan, the jobs, the calls without results.

    ``agent`` already has the conversation and the budget that were found; its `Orchestrator.run` does the rest.
    """
    plan.restore(found.messages)
    agent.turn = found.turn
    for event in found.events:
        if event["kind"] == "tool_end":
            text = ToolOutcome(content=event["content"]).text
            agent.jobs.observe(None, text)
            plan.rules.observe(None, text)
    unknown = found.open_calls.unknown if found.open_calls else []
    journal.append("resume", model=agent.settings.model, unknown=[use.id for use in unknown])
    if found.lost_usd:
        journal.append("spend", usd=found.lost_usd, usage={}, what=LOST_CALLS)
    if found.open_calls is None:
        return
    batch = found.open_calls.batch()
    if unknown:
        agent.give_up(batch, unknown, text=LOST + await _jobs_now(hosts))
    agent.resume(batch)


async def _jobs_now(hosts: NamedHosts) -> str:
    """The latest jobs, for a model that has to find out whether its submission went through; "" if unknown."""
    tool = hosts.by_remote_name("list_jobs")
    if tool is None:
        return ""
    outcome = await hosts.call(tool.name, {"limit": 10})
    return "" if outcome.is_error else f"\nThe latest jobs, read just now by {tool.name}:\n{outcome.text}"


def adapted(messages: Sequence[Message], *, same_model: bool, profile: EndpointProfile) -> list[Message]:
    """``messages`` for another model or endpoint: thinking is bound to its model, a summary block to its service."""
    kept = list(messages) if same_model else without_thinking(messages)
    if profile.server_compaction and same_model:
        return kept
    return without_compaction_blocks(kept)
