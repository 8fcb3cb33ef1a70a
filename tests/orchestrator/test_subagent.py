"""Research: the same loop and gates, a budget inside the parent's, and findings that survive a failure."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
import pytest

from mlintern.orchestrator.budget import ModelBudget
from mlintern.orchestrator.model import ANTHROPIC, COMPATIBLE, EndpointProfile
from mlintern.orchestrator.rehearsal.messages_server import MessagesServer
from mlintern.orchestrator.rehearsal.turns import (
    Answer,
    EndEarly,
    Reset,
    Text,
    ToolUse,
    Turn,
    calls,
    error,
    overloaded,
    says,
)
from mlintern.orchestrator.settings import LoopSettings
from mlintern.orchestrator.subagent import MAX_TURNS, Research, ResearchSettings
from mlintern.orchestrator.tool import ToolOutcome
from tests.clock import FakeClock
from tests.orchestrator.lab import Record, Tools, Watcher, client, money, texts

pytestmark = pytest.mark.anyio
MAIN = LoopSettings(model="claude-sonnet-5-5", caching=True)
Script = Sequence[Answer] | Callable[[dict[str, Any]], Answer]


class Bench:
    def __init__(self, server: MessagesServer, research: Research, tools: Tools, journal: Record) -> None:
        self.server = server
        self.research = research
        self.tools = tools
        self.journal = journal
        self.records: dict[str, Record] = {}

    async def ask(self, task: str = "What works for math at 1B?", **more: str) -> ToolOutcome:
        return await self.research.call({"task": task, **more})


@asynccontextmanager
async def bench(
    script: Script, *, profile: EndpointProfile = ANTHROPIC, budget: ModelBudget | None = None
) -> AsyncGenerator[Bench, None]:
    tools = Tools()
    tools.add(
        "search_papers", lambda arguments: "found arxiv 2305.18290, see https://huggingface.co/datasets/org/math"
    )
    tools.add("submit_job", lambda arguments: "submitted", side_effect="side_effect")
    tools.add("read_paper", lambda arguments: f"section {arguments.get('section')}")
    budget = budget or money(10.0)
    journal = Record()
    records: dict[str, Record] = {}

    def journal_for(name: str) -> Record:
        return records.setdefault(name, Record())

    async with MessagesServer(script) as server, aclosing(client(server, profile, attempts=3)) as model:
        research = Research(
            model=model,
            hosts=tools,
            budget=budget,
            settings=ResearchSettings.choose(profile, main=MAIN, window=1_000_000, budget=budget),
            journal=journal,
            journal_for=journal_for,
            ui=Watcher(),
            clock=FakeClock(),
        )
        each = Bench(server, research, tools, journal)
        each.records = records
        yield each


async def test_a_report_comes_back_with_what_was_looked_at() -> None:
    script = [calls("search_papers", query="math"), says("Use DPO [arxiv:2305.18290].\n\nSources: 2305.18290")]
    async with bench(script) as lab:
        outcome = await lab.ask()
    assert not outcome.is_error
    assert outcome.text.startswith("Use DPO [arxiv:2305.18290].")
    assert "- hub: datasets/org/math" in outcome.text


async def test_it_runs_on_the_cheap_model_with_reading_tools_only_and_a_context_of_its_own() -> None:
    async with bench([says("report")]) as lab:
        await lab.ask("the task")
        (request,) = lab.server.requests
    assert request.json["model"] == "claude-haiku-5-5"
    assert [tool["name"] for tool in request.json["tools"]] == ["read_paper", "search_papers"]
    assert texts(request.json) == "the task"


TRIAL = {"base": "sft-short", "change": {"learning_rate": 1e-4}, "reason": "the loss swings"}
PROPOSED = f"The report.\n```json\n{json.dumps(TRIAL)}\n```\nSources: none"


async def test_the_rules_of_the_run_reach_it_word_for_word() -> None:
    async with bench([says("report")]) as lab:
        lab.research.rules.add(["Measured on decide.jsonl, greedy.", "confirm.jsonl stays closed."])
        await lab.ask("the task")
        said = texts(lab.server.requests[0].json)
    assert "- Measured on decide.jsonl, greedy.\n- confirm.jsonl stays closed." in said


async def test_with_a_focus_it_brings_back_a_proposed_trial_with_its_reason() -> None:
    async with bench([says(PROPOSED)]) as lab:
        outcome = await lab.ask(focus="failures")
        assert "wrong answers" in texts(lab.server.requests[0].json)
    assert outcome.structured == {"proposed_trial": TRIAL}
    assert "the loss swings" in outcome.text


async def test_a_report_without_a_trial_is_asked_for_one_once() -> None:
    async with bench([says("Only a report."), says(PROPOSED)]) as lab:
        outcome = await lab.ask(focus="papers")
        assert outcome.structured == {"proposed_trial": TRIAL} and "the loss swings" in outcome.text
    async with bench([says("Only a report."), says("I have none.")]) as lab:
        outcome = await lab.ask(focus="data")
        assert outcome.structured == {"proposed_trial": None} and "[no trial was proposed]" in outcome.text


async def test_an_unknown_focus_is_said() -> None:
    async with bench([]) as lab:
        outcome = await lab.ask(focus="paper")
    assert outcome.is_error and "'papers'" in outcome.text


async def test_a_tool_that_changes_something_cannot_be_called() -> None:
    async with bench([calls("submit_job", script_id="x"), says("report")]) as lab:
        await lab.ask()
        assert lab.tools.called == []
        assert "There is no tool 'submit_job'" in texts(lab.server.requests[1].json)


async def test_elsewhere_than_at_anthropic_it_runs_on_the_runs_own_model() -> None:
    async with bench([says("report")], profile=COMPATIBLE, budget=money(None)) as lab:
        await lab.ask()
        assert lab.server.requests[0].json["model"] == "claude-sonnet-5-5"


async def test_what_it_costs_is_the_parents_and_on_the_sessions_record() -> None:
    budget = money(10.0)
    async with bench([calls("search_papers"), says("report")], budget=budget) as lab:
        await lab.ask()
        assert budget.spent_usd == pytest.approx(lab.journal.usd())
        assert lab.journal.usd() == pytest.approx(lab.records["research-1"].usd())
        assert {event["what"] for event in lab.journal.of("spend")} == {"research-1"}
    assert budget.spent_usd > 0 and budget.reserved_usd == 0


async def test_an_empty_purse_of_the_parent_ends_it_with_what_it_had_found() -> None:
    dear = Turn([Text("So far: DPO beats PPO."), ToolUse("search_papers", {})], usage={"output_tokens": 15_000})
    async with bench([dear, dear, dear, dear], budget=money(0.016)) as lab:
        outcome = await lab.ask()
    assert not outcome.is_error
    assert outcome.text.startswith("[incomplete: The next call to claude-haiku-5-5 could cost")
    assert "So far: DPO beats PPO." in outcome.text


@pytest.mark.parametrize(
    "failure",
    [
        error(400, "invalid_request_error", "no"),
        overloaded(),
        says("cut", fault=EndEarly(3)),
        says("x", fault=Reset(2)),
    ],
)
async def test_findings_survive_a_service_that_fails_for_good(failure: Answer) -> None:
    first = Turn([Text("Found: lr 5e-7 works."), ToolUse("search_papers", {"query": "lr"})])
    async with bench([first, failure, failure, failure]) as lab:
        outcome = await lab.ask()
    assert not outcome.is_error
    assert "[incomplete: " in outcome.text and "Found: lr 5e-7 works." in outcome.text


@pytest.mark.parametrize("failure", [overloaded(), says("cut", fault=EndEarly(3)), says("x", fault=Reset(2))])
async def test_a_failure_that_passes_is_not_noticed(failure: Answer) -> None:
    async with bench([calls("search_papers"), failure, says("the report")]) as lab:
        outcome = await lab.ask()
    assert outcome.text.startswith("the report")


async def test_nothing_found_is_an_error() -> None:
    async with bench([error(400, "invalid_request_error", "no")]) as lab:
        outcome = await lab.ask()
    assert outcome.is_error and "came to nothing" in outcome.text


async def test_when_its_turns_are_used_up_it_writes_its_report_without_tools() -> None:
    def script(request: dict[str, Any]) -> Answer:
        if "[mlintern research] No turns are left" in texts(request):
            return says("What I have read says: DPO.")
        return calls("read_paper", section=len(request["messages"]))

    async with bench(script) as lab:
        outcome = await lab.ask()
        assert len(lab.tools.called) == MAX_TURNS
    assert "[incomplete: The limit of 40 iterations is reached." in outcome.text
    assert "What I have read says: DPO." in outcome.text


async def test_a_doom_loop_ends_in_a_report_too() -> None:
    def script(request: dict[str, Any]) -> Answer:
        if "[mlintern research] No turns are left" in texts(request):
            return says("Stuck, but this is known.")
        return calls("search_papers", query="the same")

    async with bench(script) as lab:
        outcome = await lab.ask()
        assert len(lab.tools.called) == 5, "the sixth and seventh were refused"
    assert "went in circles" in outcome.text and "Stuck, but this is known." in outcome.text


async def test_its_prompts_stay_below_the_price_step() -> None:
    long = "x " * 20_000

    def script(request: dict[str, Any]) -> Answer:
        if "compaction" not in request and len(lab.tools.called) >= 30:
            return says("done reading")
        return calls("read_paper", section=len(lab.tools.called))

    async with bench(script) as lab:
        lab.tools.add("read_paper", lambda arguments: f"{arguments} {long}")
        outcome = await lab.ask()
        sizes = [event["usage"] for event in lab.records["research-1"].of("spend")]
        assert lab.records["research-1"].of("compaction")
    assert outcome.text.startswith("done reading")
    assert max(sum(usage.values()) for usage in sizes) < 100_000


async def test_at_most_three_run_at_once() -> None:
    running, most = 0, 0

    async def slow(arguments: dict[str, Any]) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(0.05)
        running -= 1
        return "read"

    def script(request: dict[str, Any]) -> Answer:
        return says("report") if len(request["messages"]) > 1 else calls("read_paper")

    async with bench(script) as lab:
        lab.tools.add("read_paper", slow)
        async with anyio.create_task_group() as tasks:
            for n in range(7):
                tasks.start_soon(lab.ask, f"task {n}")
    assert most == 3
    assert len(lab.records) == 7


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({}, "Give the task"),
        ({"task": 5}, "Give the task"),
        ({"task": "x", "model": "y"}, "unknown: model"),
        ({"task": "x" * 30_000}, "too long"),
    ],
)
async def test_bad_arguments_are_said(arguments: dict[str, Any], complaint: str) -> None:
    async with bench([]) as lab:
        outcome = await lab.research.call(arguments)
    assert outcome.is_error and complaint in outcome.text
