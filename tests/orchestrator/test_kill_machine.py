"""Killed at drawn moments of drawn runs, a session resumes: valid history, no effect twice, no dollar forgotten.

Each step of the machine is one life of the agent's process: it opens the session or recovers it, works on turns that
were drawn, and ends by itself or by a kill: before an event is written, after it, in the middle of its line, or by a
power cut that also takes what was not yet fsynced. Session, recovery, loop, guard, budget and compaction are real;
the model and the tools live in the process.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import anyio
import anyio.lowlevel
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from mlintern.common.clock import Clock
from mlintern.orchestrator.budget import ModelBudget
from mlintern.orchestrator.compaction import HistoryCompactor, summarizers
from mlintern.orchestrator.conversation import Conversation
from mlintern.orchestrator.loop import Orchestrator
from mlintern.orchestrator.messages import estimate_tokens
from mlintern.orchestrator.model import (
    ANTHROPIC,
    COMPATIBLE,
    Block,
    EndpointProfile,
    ModelReply,
    ModelRequest,
    OnEvent,
    ToolUse,
    Usage,
)
from mlintern.orchestrator.paid_calls import PaidCalls
from mlintern.orchestrator.plan import Plan
from mlintern.orchestrator.prices import PRICES
from mlintern.orchestrator.recovery import Recovered, recover, take_up
from mlintern.orchestrator.rehearsal import rules
from mlintern.orchestrator.session import EVENTS, MUST_BE_DURABLE, Session, read_events
from mlintern.orchestrator.settings import LoopSettings
from mlintern.orchestrator.summary import Caller
from tests.clock import FakeClock
from tests.orchestrator.histories import complaint, words
from tests.orchestrator.lab import Tools, Watcher, texts

MODEL = "claude-sonnet-5-5"
DAY = dt.date(2026, 11, 23)
COMPACT_AT = 4_000
WINDOW = 40_000
IN_MEMORY = Path("/dev/shm")
"""Where there is one: every life fsyncs some twenty times, which on a busy disk takes seconds."""

PADDING = "so much to read " * 60
KINDS = ["read", "read", "same", "write", "write", "fail"]


class Killed(Exception):
    """The process is gone; nothing of it happens any more."""


@dataclass(frozen=True)
class Kill:
    """A kill at event ``at`` of a life. ``kept``: the share of what is not fsynced that a power cut leaves."""

    at: int
    moment: Literal["before", "torn", "after"]
    kept: float | None
    among: str | None = None
    """Count only events of this kind, or about this."""


moments = st.sampled_from(["before", "torn", "after"])
kills = st.builds(Kill, st.integers(0, 24), moments, st.none() | st.floats(0, 1)) | st.builds(
    Kill, st.integers(0, 2), moments, st.none() | st.floats(0, 1), st.sampled_from(["compaction", "turn", "tool_end"])
)
turns = st.lists(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4), max_size=8)


class MortalSession(Session):
    """A session whose process is killed at a given event."""

    def __init__(self, folder: Path, *, clock: Clock) -> None:
        super().__init__(folder, clock=clock)
        self.kill: Kill | None = None
        self.dead = False
        self._appended = 0
        self._durable = 0

    def append(self, kind: str, **fields: Any) -> None:
        self.check()
        kill, path, number = self.kill, self.folder / EVENTS, self._appended
        self._durable = self._durable or path.stat().st_size
        counts = kill is None or kill.among in (None, kind, fields.get("what"))
        self._appended += counts
        if kill is not None and counts and number == kill.at and kill.moment == "before":
            self._die(kill)
        before = path.stat().st_size
        super().append(kind, **fields)
        if kind in MUST_BE_DURABLE and fields.get("side_effect") != "read_only":
            self._durable = path.stat().st_size
        if kill is not None and counts and number == kill.at:
            if kill.moment == "torn":  # no fsync returned: all of it may be gone, and what it announces never began
                self._durable = min(self._durable, before)
                with path.open("r+b") as file:
                    file.truncate((before + path.stat().st_size) // 2)
            self._die(kill)

    def check(self) -> None:
        if self.dead:
            raise Killed

    def _die(self, kill: Kill) -> None:
        self.dead = True
        path = self.folder / EVENTS
        if kill.kept is not None:
            size = path.stat().st_size
            with path.open("r+b") as file:
                file.truncate(self._durable + int(kill.kept * (size - self._durable)))
        raise Killed


@dataclass
class ScriptedModel:
    """A model that asks for the drawn calls, refuses what the API refuses, and knows what it is owed."""

    script: list[list[str]] = field(default_factory=list)
    thinks: bool = True
    usd: float = 0.0
    complaints: list[str] = field(default_factory=list)
    shown: dict[str, str] = field(default_factory=dict)
    replies: int = 0
    _summarized: set[str] = field(default_factory=set)

    async def call(self, request: ModelRequest, on_event: OnEvent) -> ModelReply:
        """See `ModelClient.call`."""
        await anyio.lowlevel.checkpoint()
        sent = {"system": request.system, "tools": request.tools, "messages": request.messages, **request.extra}
        wire: dict[str, Any] = json.loads(json.dumps(sent))
        first = rules.blocks_of(wire["messages"][0])[0]
        summarized = first["signature"] if first.get("signature") in self._summarized else None
        marks = rules.prefix_signatures(rules.parts_of(wire), summarized=summarized)
        self._judge(wire, marks)
        self.replies += 1
        blocks, stop_reason = self._answer(wire, marks[-1])
        usage = Usage(input_tokens=estimate_tokens(list(sent.values())[:2]), output_tokens=estimate_tokens(blocks))
        usage += Usage(input_tokens=sum(estimate_tokens(message["content"]) for message in request.messages))
        self.usd += PRICES.price(MODEL, DAY).cost(usage)
        uses = tuple(
            ToolUse(id=block["id"], name=block["name"], arguments=block["input"])
            for block in blocks
            if block["type"] == "tool_use"
        )
        return ModelReply(blocks=blocks, stop_reason=stop_reason, usage=usage, tool_uses=uses, model=MODEL)

    def _judge(self, wire: dict[str, Any], marks: Sequence[str]) -> None:
        found = complaint(wire["messages"], wire.get("tools") or ())
        if found is not None:
            self.complaints.append(found)
        for index, message in enumerate(wire["messages"]):
            for block in rules.blocks_of(message):
                if block["type"] == "thinking" and block["signature"] != marks[index]:
                    self.complaints.append(f"messages.{index}: thinking of another history")
                if block["type"] == "tool_result":
                    self.shown.setdefault(block["tool_use_id"], "\n".join(each["text"] for each in block["content"]))

    def _answer(self, wire: dict[str, Any], mark: str) -> tuple[list[Block], str]:
        if "compaction" in wire:
            self._summarized.add(mark)
            return [{"type": "compaction", "content": "What was done.", "signature": mark}], "compaction"
        if "[mlintern compaction]" in texts({"messages": wire["messages"][-1:]}):
            return [{"type": "text", "text": "What was done."}], "end_turn"
        if not self.script:
            return [{"type": "text", "text": f"That is all, {self.replies}."}], "end_turn"
        calls = [
            {"type": "tool_use", "id": f"toolu_{self.replies}_{number}", "name": name, "input": {}}
            for number, name in enumerate(self.script.pop(0))
        ]
        for call in calls:
            call["input"] = {"key": call["id"]}
        thinking = [{"type": "thinking", "thinking": "So.", "signature": mark}] if self.thinks else []
        return [*thinking, {"type": "text", "text": f"Turn {self.replies}."}, *calls], "tool_use"


class Lives(RuleBasedStateMachine):
    """One session and its processes, one after the other. ``seen`` counts over all examples what came about."""

    seen: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="kill-machine-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        self.model = ScriptedModel()
        self.effects: Counter[str] = Counter()
        self.spent = self.paid = 0.0
        self.profile: EndpointProfile = ANTHROPIC
        self.goal = ""

    def teardown(self) -> None:
        try:
            if self.goal:
                self.life([], None, None)
        finally:
            shutil.rmtree(self.root)

    @initialize(goal=words, profile=st.sampled_from([ANTHROPIC, COMPATIBLE]))
    def begin(self, goal: str, profile: EndpointProfile) -> None:
        self.goal, self.profile = goal, profile
        self.model.thinks = profile.adaptive_thinking  # other endpoints sign nothing

    @rule(script=turns, said=st.none() | words, kill=st.one_of(st.none(), kills, kills))
    def life(self, script: list[list[str]], said: str | None, kill: Kill | None) -> None:
        """A process from its start to its end."""
        self.model.script = [list(turn) for turn in script]
        try:
            anyio.run(self._live, said, kill)
        except* Killed:
            self.seen["killed"] += 1
        self._check()

    async def _live(self, said: str | None, kill: Kill | None) -> None:
        clock = FakeClock()
        known = [folder.name for folder in self.root.iterdir()]
        if known:
            session = MortalSession.open(self.root, known[0], clock=clock)
            found = recover(read_events(session.folder))
        else:
            session, found = MortalSession.create(self.root, clock=clock), Recovered()
        with session:
            session.kill = kill
            agent = await self._agent(session, found, clock, resumed=bool(known))
            if found.idle:
                agent.say((said or "Go on.") if found.messages else self.goal)
            elif said is not None:
                agent.say(said)
            stop = await agent.run()
            self.seen[stop.name] += 1
            assert stop.name in ("done", "loop_detected"), stop

    async def _agent(self, session: MortalSession, found: Recovered, clock: Clock, *, resumed: bool) -> Orchestrator:
        """The agent as `assemble` makes it, without servers."""
        hosts, plan, ui = self._tools(session), Plan(), Watcher()
        budget = ModelBudget(1000.0, PRICES, spent_usd=found.spent_usd, day=lambda: DAY)
        tools = [tool.definition() for tool in hosts.tools]
        if not found.header:
            session.append("session_start", model=MODEL, system="s", tools=tools)
        calls = PaidCalls(model=self.model, budget=budget, journal=session, ui=ui)
        settings = LoopSettings(model=MODEL, max_tokens=2_000)
        caller = Caller(calls=calls, settings=settings)
        agent = Orchestrator(
            calls=calls,
            hosts=hosts,
            conversation=Conversation(
                system="s", tools=tools, messages=list(found.messages), known_tokens=found.known_tokens
            ),
            compactor=HistoryCompactor(
                summarizers(self.profile, caller, window=WINDOW), trigger=COMPACT_AT, window=WINDOW, plan=plan
            ),
            settings=settings,
            clock=clock,
            plan=plan,
        )
        if resumed:
            self.seen["unknown"] += len(found.open_calls.unknown) if found.open_calls else 0
            self.seen["lost calls"] += len(found.under_way)
            await take_up(found, agent=agent, plan=plan, hosts=hosts, journal=session)
        return agent

    def _tools(self, session: MortalSession) -> Tools:
        async def read(arguments: dict[str, Any]) -> str:
            await anyio.lowlevel.checkpoint()
            return f"{arguments['key']}: {PADDING}"

        async def act(arguments: dict[str, Any]) -> str:
            await anyio.lowlevel.checkpoint()
            session.check()
            self.effects[arguments["key"]] += 1
            await anyio.lowlevel.checkpoint()
            return f"done {arguments['key']}"

        async def fail(arguments: dict[str, Any]) -> str:
            raise ValueError(f"not done {arguments['key']}: {await act(arguments)}")

        tools = Tools()
        tools.add("read", read)
        tools.add("same", act, side_effect="idempotent")
        tools.add("write", act, side_effect="side_effect")
        tools.add("fail", fail, side_effect="side_effect")
        return tools

    def _check(self) -> None:
        (folder,) = self.root.iterdir()
        events = list(read_events(folder))
        found = recover(events)
        assert self.model.complaints == [], f"the API would have refused: {self.model.complaints}"
        twice = {key: times for key, times in self.effects.items() if times > 1}
        assert not twice, f"ran more than once: {twice}"
        begun = {event["id"] for event in events if event["kind"] == "tool_start"}
        assert set(self.effects) <= begun, "something was done that is not on disk"
        self._check_what_was_shown()
        assert found.spent_usd >= self.spent - 1e-9, "the session became cheaper"
        counts = Counter((event["kind"], event.get("what")) for event in events)
        paid, held = counts["spend", "compaction"], counts["side_request", "compaction"]
        assert paid <= held, "a compaction was paid for that was not announced"
        owed = self.model.usd - self.paid
        assert found.spent_usd - self.spent >= owed - 1e-9, "this life cost more than the session knows"
        self.spent, self.paid = found.spent_usd, self.model.usd
        history = texts({"messages": found.messages})
        for event in events:
            if event["kind"] == "user" and event.get("by") is None:
                assert event["text"] in history, f"{event['text']!r} is gone"
        if found.messages:
            assert self.goal in history, f"the goal {self.goal!r} is gone"
        self.seen["compaction"] += sum(event["kind"] == "compaction" for event in events)

    def _check_what_was_shown(self) -> None:
        """What the model was told of a call with an effect is true."""
        for key, text in self.model.shown.items():
            if key in text and "done" in text:
                assert self.effects[key] == 1, f"{key} did not happen, and the model was told: {text}"
            elif self.effects[key]:
                assert "unknown" in text, f"{key} happened, and the model was told: {text}"


@pytest.mark.slow
def test_however_often_and_wherever_a_session_is_killed_it_goes_on_and_does_nothing_twice() -> None:
    Lives.seen.clear()
    run_state_machine_as_test(Lives, settings=settings(max_examples=50, stateful_step_count=6))
    assert all(Lives.seen[what] for what in ("killed", "unknown", "lost calls", "compaction", "done")), Lives.seen


def test_every_call_that_was_under_way_is_charged_at_its_worst_turns_compactions_and_sub_agents() -> None:
    events: list[dict[str, Any]] = [
        {"kind": "side_request", "what": "compaction", "worst_usd": 0.5},
        {"kind": "spend", "what": "compaction", "usd": 0.125},
        {"kind": "request", "turn": 1, "worst_usd": 1.0},
        {"kind": "spend", "what": "turn", "usd": 0.25},
        {"kind": "side_request", "what": "research-1", "worst_usd": 2.0},
        {"kind": "side_request", "what": "research-2", "worst_usd": 4.0},
        {"kind": "spend", "what": "research-1", "usd": 0.5},
        {"kind": "spend", "what": "lost", "usd": 4.0},
    ]
    owed = [recover(events[:kept]).spent_usd for kept in range(1, len(events) + 1)]
    assert owed == [0.5, 0.125, 1.125, 0.375, 2.375, 6.375, 4.875, 4.875]
    assert recover(events).lost_usd == 0
