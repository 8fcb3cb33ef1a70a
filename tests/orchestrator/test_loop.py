"""The loop against a scripted model: every stop reason, every limit, every way a turn can go wrong."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from mlintern.orchestrator import stops
from mlintern.orchestrator.compaction import Compaction
from mlintern.orchestrator.events import GuardFired, Notice, TurnEnded
from mlintern.orchestrator.model import COMPATIBLE
from mlintern.orchestrator.rehearsal.turns import (
    Answer,
    EndEarly,
    RawBlock,
    Stall,
    Text,
    Thinking,
    ToolUse,
    Turn,
    calls,
    error,
    overloaded,
    says,
)
from tests.orchestrator.agents import Lab, lab, some_tools
from tests.orchestrator.histories import complaint
from tests.orchestrator.lab import texts
from tests.orchestrator.refusals import prompt_too_long

pytestmark = pytest.mark.anyio
NO_CREDIT = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."


async def run(agent: Lab, goal: str = "the goal") -> stops.Stop:
    agent.orchestrator.say(goal)
    with anyio.fail_after(30):
        stop = await agent.orchestrator.run()
    assert complaint([*agent.messages, {"role": "user", "content": "next"}]) is None
    return stop


def steps(*texts: str) -> dict[str, Any]:
    return {"steps": [{"step": text, "state": "pending"} for text in texts]}


async def test_it_calls_reads_and_ends() -> None:
    async with lab([calls("look", at="x"), says("it is x")]) as agent:
        stop = await run(agent)
        assert (stop.name, stop.exit_code, stop.details["text"]) == ("done", 0, "it is x")
        assert agent.tools.called == [("look", {"at": "x"})]
        assert "seen x" in texts(agent.requests[1])


async def test_results_are_one_message_of_nothing_else_in_the_order_of_the_calls() -> None:
    uses = [ToolUse("look", {"at": n}) for n in range(5)]
    async with lab([Turn([Text("all"), *uses]), says("done")]) as agent:
        await run(agent)
        last = agent.requests[1]["messages"][-1]
    assert [block["type"] for block in last["content"]] == ["tool_result"] * 5
    assert [block["content"][0]["text"] for block in last["content"]] == [f"seen {n}" for n in range(5)]


async def test_calls_of_one_turn_run_at_the_same_time() -> None:
    tools = some_tools()
    met: list[anyio.Event] = [anyio.Event(), anyio.Event()]

    async def meet(arguments: dict[str, Any]) -> str:
        me = arguments["me"]
        met[me].set()
        await met[1 - me].wait()
        return "met"

    tools.add("meet", meet)
    async with lab([Turn([ToolUse("meet", {"me": 0}), ToolUse("meet", {"me": 1})]), says("x")], tools=tools) as agent:
        assert (await run(agent)).name == "done"


async def test_a_tool_that_fails_fails_alone() -> None:
    uses = [ToolUse("look", {"at": 1}), ToolUse("fail", {"why": "broken"}), ToolUse("look", {"at": 2})]
    async with lab([Turn(uses), says("x")]) as agent:
        await run(agent)
        assert [bool(result.get("is_error")) for result in agent.results()] == [False, True, False]
        assert "it failed: broken" in str(agent.results()[1])


async def test_a_tool_that_does_not_exist_is_an_error_with_the_name_that_was_meant() -> None:
    async with lab([Turn([ToolUse("lok", {}), ToolUse("look", {"at": 1})]), says("x")]) as agent:
        await run(agent)
        first, second = agent.results()
    assert "Did you mean 'look'?" in first["content"][0]["text"]
    assert not second.get("is_error")


async def test_of_more_than_fifty_calls_a_turn_the_rest_are_put_off() -> None:
    async with lab([Turn([ToolUse("look", {"at": n}) for n in range(55)]), says("x")]) as agent:
        await run(agent)
        assert len(agent.tools.called) == 50
        assert [bool(result.get("is_error")) for result in agent.results()] == [False] * 50 + [True] * 5


async def test_malformed_arguments_are_never_executed_and_their_siblings_run() -> None:
    bad = Turn([ToolUse("write", raw=['{"a": 1']), ToolUse("look", {"at": 1})], stop_reason="tool_use")
    async with lab([bad, bad, bad, says("x")]) as agent:
        await run(agent)
        assert agent.tools.called == [("look", {"at": 1})]
        assert "Not executed" in agent.results()[0]["content"][0]["text"]


@pytest.mark.parametrize("tools_before", [0, 1], ids=["first turn", "with results waiting"])
@pytest.mark.parametrize(
    "failure",
    [
        overloaded(),
        Turn([Text("x"), ToolUse("write", {"line": "half"})], fault=EndEarly(6)),
        Turn([ToolUse("write", raw=['{"line": '])], stop_reason="tool_use"),
    ],
    ids=["529", "cut stream", "cut call"],
)
async def test_a_failed_attempt_leaves_no_trace_but_its_cost(failure: Answer, tools_before: int) -> None:
    script = [*[calls("look", at="x")] * tools_before, failure, says("done")]
    async with lab(script) as agent:
        assert (await run(agent)).name == "done"
        assert [name for name, _ in agent.tools.called] == ["look"] * tools_before
        assert len(agent.record.of("reply")) == tools_before + 1
        assert agent.requests[-1]["messages"] == agent.requests[-2]["messages"]
        assert len(agent.record.of("retry")) == 1


# --- stop reasons --------------------------------------------------------------------------------------------------


async def test_an_empty_reply_is_asked_once_to_go_on_and_then_ends_the_run() -> None:
    async with lab([Turn([]), Turn([Thinking("hm")], stop_reason="end_turn")]) as agent:
        stop = await run(agent)
        assert (stop.name, stop.exit_code) == ("empty_response", 7)
        assert "Please continue" in texts(agent.requests[1])


async def test_after_an_empty_reply_the_run_may_well_succeed() -> None:
    async with lab([Turn([]), says("here I am")]) as agent:
        assert (await run(agent)).name == "done"


async def test_a_reply_cut_inside_a_call_is_asked_again_with_more_room() -> None:
    cut = Turn([ToolUse("write", raw=['{"line": "lo'])], stop_reason="max_tokens")
    async with lab([cut, calls("write", line="long"), says("x")]) as agent:
        await run(agent)
        first, second, third = agent.requests
    assert second["messages"] == first["messages"]
    assert (first["max_tokens"], second["max_tokens"], third["max_tokens"]) == (1000, 2000, 1000)
    assert agent.tools.called == [("write", {"line": "long"})]


async def test_calls_of_a_cut_reply_are_named_when_no_more_room_is_left() -> None:
    cut = Turn([ToolUse("write", {"line": "whole"}), ToolUse("look", raw=['{"at'])], stop_reason="max_tokens")
    async with lab([cut, says("x")], max_output_tokens=1000) as agent:
        await run(agent)
        assert agent.tools.called == []
        assert "Not executed: write, look." in texts(agent.requests[1])


async def test_cut_text_is_kept_and_continued() -> None:
    async with lab([says("one two", stop_reason="max_tokens"), says("three")]) as agent:
        stop = await run(agent)
        assert stop.name == "done"
        assert "Continue exactly" in texts(agent.requests[1])


async def test_a_model_that_is_cut_again_and_again_ends_the_run() -> None:
    async with lab(lambda request: says("and on", stop_reason="max_tokens")) as agent:
        stop = await run(agent)
        assert (stop.name, stop.exit_code) == ("truncated", 5)
        assert len(agent.requests) == 4


async def test_a_paused_reply_goes_back_unchanged_and_last() -> None:
    paused = Turn(
        [RawBlock({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": "x"}})],
        stop_reason="pause_turn",
    )
    async with lab([paused, says("done")]) as agent:
        agent.server.strict = False
        agent.ui.queue = ["typed meanwhile"]
        agent.orchestrator.say("go")
        agent.ui.queue = []
        stop = await agent.orchestrator.run()
        assert stop.name == "done"
        assert agent.requests[1]["messages"][-1]["content"][0]["input"] == {"q": "x"}


async def test_a_service_that_pauses_for_ever_ends_the_run() -> None:
    async with lab(lambda request: Turn([Text("wait")], stop_reason="pause_turn")) as agent:
        agent.server.strict = False
        agent.orchestrator.say("go")
        stop = await agent.orchestrator.run()
        assert (stop.name, len(agent.requests)) == ("pause_limit", 11)


async def test_a_refusal_is_shown_with_its_reason_and_kept_out_of_the_history() -> None:
    details = {"type": "refusal", "category": "frontier_llm", "explanation": "Not this."}
    async with lab([Turn([Text("half")], stop_reason="refusal", stop_details=details)]) as agent:
        stop = await run(agent)
        assert stop.exit_code == 9
        assert "frontier_llm" in stop.reason and "Not this." in stop.reason
        assert len(agent.messages) == 1


REFUSED = Turn([Text("half")], stop_reason="refusal", stop_details={"type": "refusal", "category": "frontier_llm"})


def only(model: str, *answers: Answer, declined: Answer = REFUSED) -> Callable[[dict[str, Any]], Answer]:
    """A service on which every model but ``model`` declines."""
    rest = iter(answers)
    return lambda request: next(rest) if request["model"] == model else declined


async def test_a_refusal_does_not_end_the_run_where_there_is_a_model_to_fall_back_to() -> None:
    script = only("claude-opus-5", Turn([Thinking("hm"), ToolUse("look")]), says("done"))
    async with lab(script, fallback_model="claude-opus-5", profile=COMPATIBLE, caching=False) as agent:
        stop = await run(agent)
        assert stop.name == "done"
        assert [request["model"] for request in agent.requests] == [
            "claude-sonnet-5-5",
            "claude-opus-5",
            "claude-opus-5",  # it keeps the turns that follow: what was declined is still in the history
        ]
        assert all("thinking" not in block["type"] for block in agent.messages[1]["content"])
        (notice,) = [event for event in agent.ui.seen if isinstance(event, Notice)]
        assert re.search(
            r"claude-sonnet-5-5 declined \(frontier_llm\); claude-opus-5 answered, \$0\.\d+", notice.text
        )
        assert agent.record.usd() == pytest.approx(agent.orchestrator.budget.spent_usd)


async def test_the_models_own_turn_comes_again_when_a_person_says_something_new() -> None:
    script = only("claude-opus-5", says("done"), declined=REFUSED)
    async with lab(script, fallback_model="claude-opus-5", profile=COMPATIBLE, caching=False) as agent:
        await run(agent)
        agent.orchestrator.say("more")
        await agent.orchestrator.run()
        assert [request["model"] for request in agent.requests][2] == "claude-sonnet-5-5"


async def test_a_refusal_of_every_model_ends_the_run_as_refused() -> None:
    async with lab(lambda request: REFUSED, fallback_model="claude-opus-5") as agent:
        stop = await run(agent)
        assert (stop.name, stop.exit_code, len(agent.requests)) == ("refused", 9, 2)
        assert len(agent.messages) == 1


async def test_the_credit_of_a_refusal_pays_for_the_prompt_that_was_cached() -> None:
    details = {"type": "refusal", "fallback_credit_token": "tok_1"}
    declined = Turn([Text("half")], stop_reason="refusal", stop_details=details)
    script = only("claude-opus-5", says("done"), declined=declined)
    async with lab(script, fallback_model="claude-opus-5") as agent:
        assert (await run(agent)).name == "done"
        first, second = agent.requests
        assert second["fallback_credit_token"] == {"token": "tok_1", "mode": "best_effort"}
        assert "fallbacks" not in second and second["messages"] == first["messages"]


async def test_the_model_that_the_service_recommends_is_asked_where_none_was_named() -> None:
    details = {"type": "refusal", "recommended_model": "claude-opus-5"}
    declined = Turn([Text("half")], stop_reason="refusal", stop_details=details)
    async with lab(only("claude-opus-5", says("done"), declined=declined)) as agent:
        assert (await run(agent)).name == "done"


async def test_a_model_that_the_service_asked_itself_is_named_and_charged_at_its_price() -> None:
    usage = {
        "iterations": [
            {"type": "message", "model": "claude-sonnet-5-5", "input_tokens": 1_000_000, "output_tokens": 0},
            {"type": "fallback_message", "model": "claude-opus-5", "input_tokens": 1_000_000, "output_tokens": 0},
        ]
    }
    change = {"type": "fallback", "from": {"model": "claude-sonnet-5-5"}, "to": {"model": "claude-opus-5"}}
    answered = Turn([Text("I was"), RawBlock(change), ToolUse("look")], usage=usage)
    async with lab([answered, says("done")], caching=False, compact_at=10_000_000, window=20_000_000) as agent:
        assert (await run(agent)).name == "done"
        assert agent.messages[1]["content"][1] == change, "the change goes back as it came"
        assert agent.record.of("spend")[0]["usd"] == pytest.approx(2.0 + 5.0)
        assert any("claude-opus-5 answered, $5.0" in str(event) for event in agent.ui.seen)


async def test_text_of_white_space_before_a_call_does_not_end_the_session() -> None:
    async with lab([Turn([Text("\n\n"), ToolUse("look")]), says("done")]) as agent:
        assert (await run(agent)).name == "done"


@pytest.mark.parametrize("full", [prompt_too_long(), Turn([Text("x")], stop_reason="model_context_window_exceeded")])
async def test_a_full_window_is_compacted_and_the_run_goes_on(full: Answer) -> None:
    many = [calls("look", at=n) for n in range(8)]
    async with lab([*many, full, says("done")], tools=big_results()) as agent:
        stop = await run(agent)
        assert stop.name == "done"
        assert len(agent.record.of("compaction")) == 1


async def test_a_window_that_stays_full_ends_the_run() -> None:
    many = [calls("look", at=n) for n in range(4)]
    async with lab([*many, *[prompt_too_long()] * 5], tools=big_results()) as agent:
        stop = await run(agent)
        assert stop.exit_code in (5, 7)
        assert len(agent.requests) < 12


async def test_thinking_that_the_service_calls_unbound_is_dropped_and_asked_again() -> None:
    bound = error(400, "invalid_request_error", "messages.1: `thinking` block is bound to a different conversation")
    async with lab([Turn([Thinking("hm"), ToolUse("look", {"at": 1})]), bound, says("done")]) as agent:
        stop = await run(agent)
        assert stop.name == "done"
        assert "thinking" not in str(agent.requests[-1]["messages"])


async def test_a_call_in_a_reply_that_says_it_ended_is_run_all_the_same() -> None:
    async with lab([Turn([ToolUse("look", {"at": 1})], stop_reason="end_turn"), says("done")]) as agent:
        await run(agent)
        assert agent.tools.called == [("look", {"at": 1})]


# --- limits --------------------------------------------------------------------------------------------------------


def endless() -> Any:
    numbers = itertools.count()
    return lambda request: calls("look", at=next(numbers))


async def test_the_number_of_iterations_is_limited() -> None:
    async with lab(endless(), max_iterations=7) as agent:
        stop = await run(agent)
        assert (stop.name, stop.exit_code, len(agent.requests)) == ("max_iterations", 5, 7)


async def test_three_hundred_iterations_run_through() -> None:
    async with lab(endless(), max_iterations=300) as agent:
        stop = await run(agent)
        assert stop.name == "max_iterations"
        assert len(agent.tools.called) == 300


async def test_time_is_limited() -> None:
    async with lab([calls("look", at=1), says("never")], max_minutes=10.0) as agent:
        tools = agent.tools
        tools.add("look", lambda arguments: agent.clock.advance(700) or "seen")
        stop = await run(agent)
        assert (stop.name, stop.exit_code) == ("max_minutes", 5)


async def test_money_is_limited_before_it_is_spent() -> None:
    async with lab(endless(), limit_usd=0.05) as agent:
        stop = await run(agent)
        assert (stop.name, stop.exit_code) == ("budget_exhausted", 4)
        assert 0.02 < agent.orchestrator.budget.spent_usd <= 0.05


async def test_the_model_is_told_once_that_money_runs_short() -> None:
    async with lab(endless(), limit_usd=0.10, max_tokens=100) as agent:
        await run(agent)
        told = [result for result in agent.results() if "[mlintern budget]" in str(result)]
    assert len(told) == 1


async def test_a_loop_is_hinted_at_refused_and_stopped() -> None:
    async with lab(lambda request: calls("look", at="same")) as agent:
        stop = await run(agent)
        levels = [event.level for event in agent.ui.seen if isinstance(event, GuardFired)]
        assert (stop.name, stop.exit_code) == ("loop_detected", 6)
        assert levels == ["hint", "refuse", "stop"]
        assert len(agent.tools.called) < len(agent.requests)


async def test_a_hint_is_inside_the_last_result_and_not_a_turn_of_the_user() -> None:
    async with lab([*[calls("look", at="same")] * 3, says("enough")]) as agent:
        await run(agent)
        last = agent.requests[3]["messages"][-1]["content"]
    assert [block["type"] for block in last] == ["tool_result"]
    assert last[0]["content"][-1]["text"].startswith("[mlintern guard]")


async def test_polls_without_news_are_spaced_out() -> None:
    tools = some_tools()
    tools.add("poll_job", lambda arguments: '{"job_id": "j1", "state": "running"}', polls=True)
    script = [*[calls("poll_job", job_id="j1")] * 6, says("done")]
    async with lab(script, tools=tools) as agent:
        assert (await run(agent)).name == "done"
        assert agent.clock.slept == [2, 4, 8, 16]
        assert agent.orchestrator.jobs.ids == ["j1"]


@pytest.mark.parametrize(
    ("answer", "name", "code"),
    [
        (error(401, "authentication_error", "bad key"), "auth_failed", 8),
        (error(402, "billing_error", "no credit"), "billing_failed", 8),
        (error(400, "invalid_request_error", NO_CREDIT), "billing_failed", 8),
        (error(400, "invalid_request_error", "no"), "model_failed", 7),
    ],
)
async def test_what_the_service_refuses_ends_the_run_by_name(answer: Answer, name: str, code: int) -> None:
    async with lab([answer]) as agent:
        stop = await run(agent)
        assert (stop.name, stop.exit_code) == (name, code)


async def test_a_service_that_stays_down_ends_the_run_after_its_attempts() -> None:
    async with lab([overloaded()] * 6) as agent:
        stop = await run(agent)
        assert (stop.name, stop.exit_code) == ("model_failed", 7)


# --- the plan, what a person types, interruption -------------------------------------------------------------------


async def test_an_agent_that_stops_with_open_steps_is_reminded_twice_and_no_more() -> None:
    script = [calls("update_plan", **steps("train", "report")), says("I stop."), says("Still."), says("No.")]
    async with lab(script) as agent:
        stop = await run(agent)
        assert (stop.name, stop.exit_code) == ("plan_unfinished", 5)
        assert "train; report" in stop.reason
        assert len(agent.requests) == 4


async def test_a_call_after_a_reminder_counts_the_reminders_anew() -> None:
    plan = calls("update_plan", **steps("train"))
    done = calls("update_plan", steps=[{"step": "train", "state": "done"}])
    script = [plan, says("a"), says("b"), calls("look", at=1), says("c"), says("d"), done, says("all done")]
    async with lab(script) as agent:
        assert (await run(agent)).name == "done"


async def test_what_is_typed_while_it_works_comes_after_the_results_in_a_message_of_its_own() -> None:
    tools = some_tools()
    async with lab([calls("type", at=1), says("ok")], tools=tools) as agent:
        tools.add("look", lambda arguments: agent.ui.queue.append("hurry up") or "seen")
        agent.server._script = type(agent.server._script)([calls("look", at=1), says("ok")])
        await run(agent)
        results, typed = agent.requests[1]["messages"][-2:]
    assert results["content"][0]["type"] == "tool_result"
    assert typed == {"role": "user", "content": "hurry up"}


async def test_what_is_typed_while_it_says_its_last_words_is_answered_too() -> None:
    answers = iter([says("done?"), says("really done")])

    async with lab(lambda request: next(answers)) as agent:
        agent.orchestrator.say("go")
        agent.ui.show = lambda event: (  # type: ignore[method-assign]
            agent.ui.queue.append("one more thing") if isinstance(event, TurnEnded) and event.turn == 1 else None
        )
        stop = await agent.orchestrator.run()
        assert stop.details["text"] == "really done"
        assert "one more thing" in texts(agent.requests[1])


async def test_an_interrupt_while_the_model_speaks_keeps_nothing_of_what_it_said() -> None:
    stalled = Turn([Text("I will now"), ToolUse("write", {"line": "x"})], fault=Stall(5, pings=0.05))
    async with lab([stalled, says("fine")]) as agent, anyio.create_task_group() as tasks:
        agent.orchestrator.say("go")
        tasks.start_soon(interrupt_when, agent, lambda: len(agent.ui.seen) > 1)
        stop = await agent.orchestrator.run()
        assert (stop.name, stop.exit_code) == ("interrupted", 130)
        assert agent.messages == [{"role": "user", "content": "go"}]
        assert agent.record.of("spend")[0]["usd"] > 0
        agent.orchestrator.say("go on")
        assert (await agent.orchestrator.run()).name == "done"


async def test_an_interrupt_while_tools_run_leaves_a_valid_history_that_says_so() -> None:
    tools = some_tools()
    started = anyio.Event()

    async def hang(arguments: dict[str, Any]) -> str:
        started.set()
        await anyio.sleep_forever()
        return "never"

    tools.add("hang", hang, side_effect="side_effect")
    turn = Turn([ToolUse("look", {"at": 1}), ToolUse("hang", {})])
    async with lab([turn, says("fine")], tools=tools) as agent, anyio.create_task_group() as tasks:
        agent.orchestrator.say("go")
        tasks.start_soon(interrupt_when, agent, lambda: started.is_set() and bool(agent.record.of("tool_end")))
        stop = await agent.orchestrator.run()
        seen, hung = agent.results()
        assert stop.name == "interrupted"
        assert seen["content"][0]["text"] == "seen 1"
        assert hung["is_error"] and "unknown" in hung["content"][0]["text"]
        agent.orchestrator.say("go on")
        assert (await agent.orchestrator.run()).name == "done"


async def interrupt_when(agent: Lab, ready: Any) -> None:
    while not ready():
        await anyio.sleep(0.01)
    agent.orchestrator.cancel(stops.interrupted())


async def test_a_run_that_ends_after_a_denial_without_a_person_says_so() -> None:
    async with lab([says("I cannot go on.")], denied=["Start train on hf: at most 5.00 USD"]) as agent:
        stop = await run(agent)
        assert (stop.name, stop.exit_code) == ("approval_denied", 3)
        assert "5.00 USD" in stop.reason


# --- the record ----------------------------------------------------------------------------------------------------


async def test_everything_is_on_the_record_before_it_is_acted_on() -> None:
    async with lab([calls("write", line="x"), says("done")]) as agent:
        seen: list[list[str]] = []
        agent.tools.add(
            "write", lambda arguments: seen.append([event["kind"] for event in agent.record.events]) or "w"
        )
        await run(agent)
    assert seen == [["user", "request", "spend", "reply", "tool_start"]]
    assert [event["kind"] for event in agent.record.events[5:]] == [
        *("tool_end", "results", "request", "spend", "reply", "stop"),
    ]


async def test_a_call_is_marked_with_what_repeating_it_would_do() -> None:
    async with lab([Turn([ToolUse("look", {"at": 1}), ToolUse("write", {})]), says("x")]) as agent:
        await run(agent)
        effects = {event["name"]: event["side_effect"] for event in agent.record.of("tool_start")}
    assert effects == {"look": "read_only", "write": "side_effect"}


async def test_it_compacts_by_itself_and_says_what_it_did() -> None:
    async with lab(
        [*[calls("look", at=n) for n in range(12)], says("done")], tools=big_results(), compact_at=100_000
    ) as agent:
        stop = await run(agent)
        assert stop.name == "done"
        assert [event["method"] for event in agent.record.of("compaction")] == ["server"]
        assert "the goal" in texts(agent.requests[-1])


async def test_a_compaction_that_cannot_help_ends_the_run_visibly() -> None:
    class Helpless:
        async def maybe_compact(self, conversation: Any, *, force: bool = False) -> Compaction | None:
            raise stops_compaction()

    async with lab([says("never")], compactor=Helpless()) as agent:
        stop = await run(agent)
        assert (stop.name, stop.exit_code) == ("compaction_failed", 5)
        assert "no use" in stop.reason


def stops_compaction() -> Exception:
    from mlintern.orchestrator.compaction import CompactionFailed

    return CompactionFailed("no use")


def big_results() -> Any:
    tools = some_tools()
    tools.add("look", lambda arguments: f"{arguments['at']} " * 20_000)
    return tools


async def test_a_notice_says_when_the_service_did_not_take_the_history() -> None:
    async with lab(
        [*[calls("look", at=n) for n in range(6)], prompt_too_long(), says("x")], tools=big_results()
    ) as a:
        await run(a)
        assert any(isinstance(event, Notice) and "did not take" in event.text for event in a.ui.seen)
