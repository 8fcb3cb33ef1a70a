"""The two ways to a summary, against a server that refuses what the real one refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import pytest

from mlintern.orchestrator.budget import BudgetExhausted
from mlintern.orchestrator.compaction import CompactionFailed, HistoryCompactor, summarizers
from mlintern.orchestrator.conversation import Conversation
from mlintern.orchestrator.model import ANTHROPIC, COMPATIBLE, EndpointProfile
from mlintern.orchestrator.paid_calls import PaidCalls
from mlintern.orchestrator.rehearsal.messages_server import SUMMARY, MessagesServer
from mlintern.orchestrator.rehearsal.turns import (
    Answer,
    Compaction,
    EndEarly,
    Reset,
    Text,
    Thinking,
    ToolUse,
    Turn,
    calls,
    error,
    overloaded,
    says,
)
from mlintern.orchestrator.settings import LoopSettings
from mlintern.orchestrator.summary import Caller
from tests.orchestrator.histories import said, talk, turn
from tests.orchestrator.lab import Record, Watcher, client, money, texts
from tests.orchestrator.refusals import llama_context_exceeded, prompt_too_long

pytestmark = pytest.mark.anyio


class Bench:
    """A compactor over the real model client, pointed at a scripted server. Enter it, so that it closes."""

    def __init__(self, server: MessagesServer, profile: EndpointProfile, *, limit: float = 5.0) -> None:
        self.record = Record()
        self.budget = money(limit)
        self.model = client(server, profile, attempts=2)
        caller = Caller(
            calls=PaidCalls(model=self.model, budget=self.budget, journal=self.record, ui=Watcher()),
            settings=LoopSettings(model="claude-sonnet-5-5", max_tokens=16_000, caching=profile.caching),
        )
        self.compactor = HistoryCompactor(
            summarizers(profile, caller, window=200_000), trigger=10_000, window=200_000
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.model.aclose()


def conversation(turns: int = 90) -> Conversation:
    return talk(said("the goal"), *(turn(n, f"result {n} " * 60) for n in range(turns)))


async def test_the_service_is_asked_for_a_block_with_the_same_prefix_and_our_instructions() -> None:
    async with MessagesServer([]) as server, Bench(server, ANTHROPIC) as bench:
        talked = conversation()
        compaction = await bench.compactor.maybe_compact(talked)
    (request,) = server.requests
    assert compaction is not None and compaction.method == "server" and compaction.summary == SUMMARY
    assert (
        request.json["compaction"]["type"] == "summarize"
        and "Next step" in request.json["compaction"]["instructions"]
    )
    assert "compact-2026-09-04" in request.headers["anthropic-beta"]
    sent = request.json["messages"]
    assert [message["role"] for message in sent] == [message["role"] for message in talked.messages[: len(sent)]]
    assert bench.budget.spent_usd == pytest.approx(bench.record.usd()) and bench.record.usd() > 0
    assert bench.record.events[-1]["what"] == "compaction"


async def test_a_history_that_holds_a_block_is_taken_and_can_be_compacted_again() -> None:
    def script(request: dict[str, Any]) -> Answer:
        return Turn([Thinking("so"), Text("Looking on."), ToolUse("look", {"at": 1})])

    async with MessagesServer(script) as server, Bench(server, ANTHROPIC) as bench:
        first = await bench.compactor.maybe_compact(conversation())
        assert first is not None
        talked = talk(first.messages)
        for n in range(30):
            request = talked.request(LoopSettings(model="claude-sonnet-5-5", max_tokens=1_000, caching=True))
            reply = await bench.model.call(request, lambda event: None)
            talked.add_reply(reply)
            use = reply.tool_uses[0].id
            talked.add_results([{"type": "tool_result", "tool_use_id": use, "content": f"{n} " * 900}])
        second = await bench.compactor.maybe_compact(talked)
    assert second is not None and second.method == "server"
    assert second.messages[0]["content"][0]["type"] == "compaction"
    assert sum("compaction" in request.json for request in server.requests) == 2
    assert not [request for request in server.requests if not request.scripted and "compaction" not in request.json]


@pytest.mark.parametrize(
    "refusal",
    [
        error(400, "invalid_request_error", "compaction: Extra inputs are not permitted"),
        error(529, "overloaded_error", "Overloaded", error_code="compaction_unavailable"),
        Turn([Compaction(None)]),
        says("I would rather talk."),
        Turn([Compaction("half a summ")], fault=EndEarly(3)),
        Turn([Compaction("half a summ")], fault=Reset(3)),
    ],
)
async def test_where_the_service_gives_no_block_the_model_is_asked_in_a_turn(refusal: Answer) -> None:
    script = [says("A summary, then.")]
    async with (
        MessagesServer(script, on_compaction=lambda request: refusal) as server,
        Bench(server, ANTHROPIC) as bench,
    ):
        compaction = await bench.compactor.maybe_compact(conversation())
    assert compaction is not None and compaction.method == "client"
    assert compaction.summary == "A summary, then."


async def on_the_client(script: Sequence[Answer]) -> tuple[Any, MessagesServer, Bench]:
    async with MessagesServer(script) as server, Bench(server, COMPATIBLE) as bench:
        compaction = await bench.compactor.maybe_compact(conversation())
    return compaction, server, bench


async def test_elsewhere_it_is_one_more_turn_with_the_same_system_and_tools() -> None:
    compaction, server, _ = await on_the_client([says("All in short.")])
    (request,) = server.requests
    assert compaction.method == "client" and compaction.summary == "All in short."
    assert request.json["system"][0]["text"] and [tool["name"] for tool in request.json["tools"]] == ["look"]
    assert "compaction" not in request.json
    *_, last = request.json["messages"]
    assert [block["type"] for block in last["content"]] == ["tool_result", "text"]
    assert "Do not call any tool" in last["content"][-1]["text"].replace("\n", " ")


async def test_a_tool_call_for_an_answer_is_not_run_and_asked_again_without_tools() -> None:
    compaction, server, bench = await on_the_client([calls("look", at=1), says("Without tools, then.")])
    assert compaction.summary == "Without tools, then."
    assert "tools" not in server.requests[1].json
    assert len([event for event in bench.record.events if event["kind"] == "spend"]) == 2


async def test_an_overloaded_service_and_a_cut_stream_are_tried_again() -> None:
    compaction, _, _ = await on_the_client([overloaded(), says("Then this.")])
    assert compaction.summary == "Then this."
    compaction, _, bench = await on_the_client([says("cut off", fault=EndEarly(4)), says("Then this.")])
    assert compaction.summary == "Then this."
    assert bench.budget.spent_usd == pytest.approx(bench.record.usd())


async def test_turns_that_do_not_fit_the_window_are_summarised_as_a_text_that_does() -> None:
    compaction, server, _ = await on_the_client([prompt_too_long(), says("From the transcript.")])
    assert compaction.summary == "From the transcript."
    (message,) = server.requests[1].json["messages"]
    assert "CALL look" in message["content"][0]["text"]


async def test_a_window_that_nobody_knew_to_be_small_is_found_by_asking_with_less() -> None:
    def script(request: dict[str, Any]) -> Answer:
        if len(texts(request)) > 8_192 * 4:
            return llama_context_exceeded()
        return says("It fits now.")

    async with MessagesServer(script) as server, Bench(server, COMPATIBLE) as bench:
        talked = conversation(400)
        compaction = await bench.compactor.maybe_compact(talked, force=True)
    assert compaction is not None and compaction.summary == "It fits now."
    assert all("tools" not in request.json for request in server.requests[1:])


async def test_an_empty_answer_is_no_summary() -> None:
    with pytest.raises(CompactionFailed, match="summary_failed"):
        async with MessagesServer(lambda request: Turn([])) as server, Bench(server, COMPATIBLE) as bench:
            await bench.compactor.maybe_compact(conversation(), force=True)


async def test_a_summary_that_does_not_fit_the_budget_is_not_asked_for() -> None:
    async with MessagesServer([]) as server, Bench(server, ANTHROPIC, limit=0.01) as bench:
        with pytest.raises(BudgetExhausted):
            await bench.compactor.maybe_compact(conversation())
    assert server.requests == []
