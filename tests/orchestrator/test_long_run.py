"""Three hundred turns of the real loop, client, compactor, guard and budget against a server that knows the rules."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from mlintern.orchestrator.compaction import HistoryCompactor, summarizers
from mlintern.orchestrator.conversation import Conversation
from mlintern.orchestrator.events import Compacted, GuardFired
from mlintern.orchestrator.facts import LabFacts
from mlintern.orchestrator.loop import Orchestrator
from mlintern.orchestrator.model import ANTHROPIC, COMPATIBLE, EndpointProfile
from mlintern.orchestrator.paid_calls import PaidCalls
from mlintern.orchestrator.plan import Plan
from mlintern.orchestrator.rehearsal.messages_server import MessagesServer
from mlintern.orchestrator.rehearsal.turns import (
    Answer,
    EndEarly,
    Reset,
    Text,
    Thinking,
    ToolUse,
    Turn,
    calls,
    overloaded,
    says,
)
from mlintern.orchestrator.session import Session, read_events
from mlintern.orchestrator.settings import LoopSettings
from mlintern.orchestrator.summary import REQUEST, Caller
from mlintern.orchestrator.tool import Tool
from tests.clock import FakeClock
from tests.orchestrator.lab import Tools, Watcher, client, money, texts
from tests.orchestrator.refusals import rate_limited

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

GOAL = "Train the best model under 1B for mathematics; never touch the test split."
TURNS = 300
DOOM_AT, OVERLOADED_AT, CUT_AT, RESET_AT, LIMITED_AT, SUBMIT_AT = 60, 120, 150, 180, 210, 30


class Agent:
    """A scripted model: reads something new each turn, and at fixed turns goes wrong or meets a failing service."""

    def __init__(self) -> None:
        self.turn = 0
        self.failed: set[int] = set()
        self.stubborn = False
        self.thinks = False

    def __call__(self, request: dict[str, Any]) -> Answer:
        if REQUEST in texts({"messages": request["messages"][-1:]}):
            return says("Read many papers; job-1 was submitted; the next step is to read on.")
        failures: dict[int, Answer] = {
            OVERLOADED_AT: overloaded(),
            CUT_AT: Turn([ToolUse("read", raw=['{"item": '])], fault=EndEarly(4)),
            RESET_AT: Turn([Text("half a sen")], fault=Reset(3)),
            LIMITED_AT: rate_limited(5),
        }
        failure = failures.get(self.turn)
        if failure is not None and self.turn not in self.failed:
            self.failed.add(self.turn)
            return failure
        self.turn += 1
        if self.turn == TURNS:
            return says("All is read. The model is trained.")
        return Turn([*([Thinking(f"Step {self.turn}.")] if self.thinks else []), *self._calls(request)])

    def _calls(self, request: dict[str, Any]) -> list[ToolUse]:
        if self.turn == 1:
            steps = [{"step": "read", "state": "in_progress"}, {"step": "train", "state": "done"}]
            return [ToolUse("update_plan", {"steps": steps})]
        if self.turn == TURNS - 1:
            return [ToolUse("update_plan", {"steps": [{"step": "read", "state": "done"}]})]
        if self.turn == SUBMIT_AT:
            return [ToolUse("submit", {"recipe": "sft"})]
        if self.turn == DOOM_AT:
            self.stubborn = True
        if self.stubborn and "It will not be executed again now" not in texts({"messages": request["messages"][-1:]}):
            return [ToolUse("read", {"item": "the same", "reason": f"try {self.turn}"})]
        self.stubborn = False
        return [ToolUse("read", {"item": f"{self.turn}{part}"}) for part in ("ab" if self.turn % 7 == 0 else "a")]


class Lab:
    """The whole agent without terminal and MCP, its session on disk."""

    def __init__(self, server: MessagesServer, profile: EndpointProfile, folder: Path) -> None:
        clock = FakeClock()
        self.tools = Tools()
        self.tools.add("read", lambda arguments: f"About {arguments['item']}: " + "many words " * 60)
        self.tools.add(
            "submit", lambda arguments: '{"job_id": "job-1", "state": "running"}', side_effect="side_effect"
        )
        self.tools.add("list_jobs", lambda arguments: '{"items": [{"job_id": "job-1", "state": "running"}]}')
        self.ui = Watcher()
        self.session = Session.create(folder, clock=clock)
        self.budget = money(50.0)
        self.model = client(server, profile)
        plan = Plan()
        settings = LoopSettings(model="claude-sonnet-5-5", caching=profile.caching, max_iterations=TURNS + 5)
        calls = PaidCalls(model=self.model, budget=self.budget, journal=self.session, ui=self.ui)
        caller = Caller(calls=calls, settings=settings)
        tools: list[Tool] = [*self.tools.tools, plan.tool]
        self.orchestrator = Orchestrator(
            calls=calls,
            hosts=self.tools,
            local=[plan],
            conversation=Conversation(system="You are an engineer.", tools=[tool.definition() for tool in tools]),
            compactor=HistoryCompactor(
                summarizers(profile, caller, window=200_000),
                trigger=16_000,
                read_facts=LabFacts(self.tools, budget=self.budget),
                plan=plan,
            ),
            settings=settings,
            clock=clock,
            plan=plan,
        )


@pytest.mark.parametrize("profile", [ANTHROPIC, COMPATIBLE], ids=["anthropic", "compatible"])
async def test_three_hundred_turns_forget_nothing_and_survive_everything(
    profile: EndpointProfile, tmp_path: Path
) -> None:
    agent = Agent()
    agent.thinks = profile.adaptive_thinking
    async with MessagesServer(agent) as server:
        lab = Lab(server, profile, tmp_path)
        lab.orchestrator.say(GOAL)
        stop = await lab.orchestrator.run()
        await lab.model.aclose()
        lab.session.close()
    events = list(read_events(lab.session.folder))

    assert (stop.name, stop.details["text"]) == ("done", "All is read. The model is trained.")
    assert agent.turn == TURNS and agent.failed == {OVERLOADED_AT, CUT_AT, RESET_AT, LIMITED_AT}

    compactions = [event for event in lab.ui.seen if isinstance(event, Compacted)]
    assert len(compactions) >= 2
    assert all(event.after_tokens < 0.6 * 16_000 for event in compactions)
    assert {event.method for event in compactions} == {"server" if profile.server_compaction else "client"}

    levels = [event.level for event in lab.ui.seen if isinstance(event, GuardFired)]
    assert levels[-1] == "refuse" and "stop" not in levels, "the loop was broken before it ended the run"
    assert [name for name, _ in lab.tools.called].count("submit") == 1

    refused = [r for r in server.requests if not r.scripted and "compaction" not in r.json]
    assert refused == [], "no request broke a rule of the API"
    assert all(GOAL in texts(request.json) or "compaction" in request.json for request in server.requests)
    after = [r.json for r in server.requests if "[mlintern compaction] The conversation" in texts(r.json)]
    assert all("job-1: running" in texts(request) and "[>] read" in texts(request) for request in after)
    assert len({str((r.json["system"], [tool["name"] for tool in r.json["tools"]])) for r in server.requests}) == 1

    spent = [event["usd"] for event in events if event["kind"] == "spend"]
    assert all(usd >= 0 for usd in spent)
    assert sum(spent) == pytest.approx(lab.budget.spent_usd) and lab.budget.reserved_usd == pytest.approx(0)
    assert {event["what"] for event in events if event["kind"] == "spend"} == {"turn", "compaction"}


async def test_between_compactions_each_request_extends_the_one_before(tmp_path: Path) -> None:
    async with MessagesServer(Agent()) as server:
        lab = Lab(server, ANTHROPIC, tmp_path)
        lab.orchestrator.say(GOAL)
        await lab.orchestrator.run()
        await lab.model.aclose()
        lab.session.close()
    turns = [request.json["messages"] for request in server.requests if request.scripted]
    broken = 0
    for earlier, later in itertools.pairwise(turns):
        if _bare(later[: len(earlier)]) != _bare(earlier):
            broken += 1
            assert later[0]["content"][0]["type"] == "compaction"
    assert broken == len([event for event in lab.ui.seen if isinstance(event, Compacted)])


async def test_a_loop_that_ignores_the_refusal_ends_the_run_with_its_pattern(tmp_path: Path) -> None:
    async with MessagesServer(lambda request: calls("read", item="the same")) as server:
        lab = Lab(server, ANTHROPIC, tmp_path)
        lab.orchestrator.say(GOAL)
        stop = await lab.orchestrator.run()
        await lab.model.aclose()
        lab.session.close()
    assert (stop.name, stop.exit_code) == ("loop_detected", 6)
    assert "read ×7" in stop.reason
    assert len(lab.tools.called) == 5, "the sixth and the seventh were refused"


async def test_compactions_do_not_hide_a_loop_whose_results_fill_the_context(tmp_path: Path) -> None:
    async with MessagesServer(lambda request: calls("read", item="the same")) as server:
        lab = Lab(server, ANTHROPIC, tmp_path)
        lab.tools.add("read", lambda arguments: "many words " * 1_500)
        lab.orchestrator.say(GOAL)
        stop = await lab.orchestrator.run()
        await lab.model.aclose()
        lab.session.close()
    assert [event for event in lab.ui.seen if isinstance(event, Compacted)]
    assert stop.name == "loop_detected"
    assert [name for name, _ in lab.tools.called].count("read") == 5


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bare(each) for key, each in value.items() if key != "cache_control"}
    return [_bare(each) for each in value] if isinstance(value, list) else value
