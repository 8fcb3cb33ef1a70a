"""A run with hours: told what is left each turn, asked to go on when it ends early, stopped when time is over."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlintern.orchestrator.messages import user_text
from mlintern.orchestrator.rehearsal.turns import Answer, calls, says
from mlintern.orchestrator.stops import Stop
from tests.orchestrator.agents import Lab, lab, some_tools
from tests.orchestrator.histories import complaint
from tests.orchestrator.lab import Tools, texts

pytestmark = pytest.mark.anyio


def trial_tools() -> Tools:
    tools = some_tools()
    tools.add("submit_job", lambda arguments: json.dumps({"job_id": arguments["name"], "status": "submitted"}))
    tools.add("poll_job", lambda arguments: json.dumps({"job_id": arguments["name"], "state": "succeeded"}))
    return tools


async def run(agent: Lab, goal: str = "the goal") -> Stop:
    agent.orchestrator.say(goal)
    stop = await agent.orchestrator.run()
    assert complaint([*agent.messages, {"role": "user", "content": "next"}]) is None
    return stop


def hour_later(agent: Lab, name: str = "look") -> None:
    agent.tools.add(name, lambda arguments: agent.clock.advance(3600) or "seen")


def last_result(request: dict[str, Any]) -> list[str]:
    return [part["text"] for part in request["messages"][-1]["content"][-1]["content"]]


async def test_each_turn_says_the_time_and_money_left_and_what_runs() -> None:
    script: list[Answer] = [calls("submit_job", name="job-7"), calls("look", at=1), calls("poll_job", name="job-7")]
    async with lab([*script, says("done"), says("done")], tools=trial_tools(), hours=10.0, limit_usd=5.0) as agent:
        hour_later(agent)
        await run(agent)
        notes = [last_result(request)[-1] for request in agent.requests[1:4]]
    assert notes[0].startswith("[mlintern clock] 10 h of 10 h left; $")
    assert "of $5.00 for the model left; running: job-7." in notes[0]
    assert "[mlintern clock] 9 h of 10 h left" in notes[1]
    assert "no job is running" in notes[2]


async def test_without_limits_nothing_is_said() -> None:
    async with lab([calls("look", at=1), says("done")], limit_usd=None) as agent:
        await run(agent)
        assert "[mlintern clock]" not in texts(agent.requests[-1])


async def test_a_reply_that_ends_early_is_answered_once_with_what_is_left() -> None:
    async with lab([calls("look", at=1), says("That is all."), says("All ideas failed: ...")], hours=10.0) as agent:
        hour_later(agent)
        stop = await run(agent)
        assert (stop.name, stop.details["text"]) == ("done", "All ideas failed: ...")
        asked = user_text(agent.messages[-2])
    assert "You ended with 9 h of 10 h left" in asked and "next trial" in asked


async def test_it_is_answered_again_only_after_another_trial() -> None:
    script = [
        says("first end"),
        calls("submit_job", name="job-1"),
        says("second end"),
        calls("look", at=1),
        says("third end"),
    ]
    async with lab(script, tools=trial_tools(), hours=10.0) as agent:
        stop = await run(agent)
        assert stop.details["text"] == "third end"
        asked = [text for message in agent.messages if "You ended with" in (text := user_text(message))]
    assert len(asked) == 2 and "Running: job-1." in asked[1]


async def test_an_end_near_the_end_is_no_early_one() -> None:
    async with lab([calls("look", at=1), says("done")], hours=1.1) as agent:
        hour_later(agent)
        assert (await run(agent)).name == "done"
        assert "Time runs out" in texts(agent.requests[-1])


async def test_when_the_hours_are_over_the_run_ends_by_name() -> None:
    async with lab([calls("look", at=1), calls("look", at=2), says("never")], hours=2.0) as agent:
        hour_later(agent)
        stop = await run(agent)
        assert (stop.name, stop.exit_code, len(agent.requests)) == ("hours_over", 5, 2)


async def test_the_hours_count_from_the_first_start_of_the_session() -> None:
    async with lab([says("never")], hours=2.0) as agent:
        agent.orchestrator.time_left.started -= 2.1 * 3600  # as a resumed session gives it
        assert (await run(agent)).name == "hours_over"


def steps(state: str, **more: Any) -> dict[str, Any]:
    return {"steps": [{"step": "train", "state": state}], **more}


async def test_rules_outlive_every_compaction_word_for_word() -> None:
    tools = some_tools()
    tools.add("look", lambda arguments: "x" * 4_000)
    measured = "Measured as exact match on decide.jsonl, 0-shot, greedy, 512 tokens."
    tools.add("open_experiment", lambda arguments: '{"experiment": "e", "rules": ["confirm.jsonl is opened once."]}')
    script = [calls("update_plan", **steps("done", rules=[measured])), calls("open_experiment")]
    script += [calls("look", at=n) for n in range(40)]
    async with lab([*script, says("done")], tools=tools, compact_at=9_000, window=20_000) as agent:
        assert (await run(agent)).name == "done"
        assert len(agent.record.of("compaction")) >= 2
        first = texts({"messages": agent.messages[:2]})
    assert f"- {measured}" in first and "- confirm.jsonl is opened once." in first


async def test_a_rule_that_is_a_text_is_refused() -> None:
    async with lab([calls("update_plan", **steps("done", rules=["x" * 601])), says("done")]) as agent:
        await run(agent)
        assert "at most 600" in texts(agent.requests[-1])
