"""One call over a real socket: what every failure becomes, what is asked again, what it costs."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import Any

import anyio
import pytest

from mlintern.orchestrator.anthropic_model import AnthropicModel, wire_arguments
from mlintern.orchestrator.model import (
    ANTHROPIC,
    COMPATIBLE,
    AuthFailed,
    BadRequest,
    BillingFailed,
    ContextOverflow,
    EndpointProfile,
    HistoryRejected,
    Message,
    ModelError,
    ModelEvent,
    ModelReply,
    ModelRequest,
    OnEvent,
    Overloaded,
    RateLimited,
    Retrying,
    TextDelta,
    TransportFailed,
    Usage,
    endpoint_profile,
)
from mlintern.orchestrator.rehearsal.messages_server import MessagesServer
from mlintern.orchestrator.rehearsal.turns import (
    Answer,
    Block,
    Compaction,
    EndEarly,
    ErrorEvent,
    Form,
    HttpAnswer,
    RawBlock,
    Reset,
    Stall,
    Text,
    Thinking,
    ToolUse,
    Turn,
    error,
    overloaded,
    says,
    too_large,
)
from mlintern.orchestrator.retry import RetryPolicy
from tests.clock import FakeClock
from tests.orchestrator.refusals import html_page, llama_context_exceeded, prompt_too_long, rate_limited, server_error

pytestmark = pytest.mark.anyio
TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}
SAID: list[Block] = [
    Thinking("hm"),
    Text("half an answer to a question"),
    ToolUse("look", {"at": "/tmp/x", "text": "a long text"}),
]
CUT = ['{"at": "/tmp/x", "te']
REQUEST = ModelRequest(
    model="claude-sonnet-5-5",
    system=[{"type": "text", "text": "s"}],
    tools=[TOOL],
    messages=[{"role": "user", "content": "go"}],
    max_tokens=500,
)


def ignore_events(event: ModelEvent) -> None:
    """For calls that nobody watches."""


def client(
    server: MessagesServer, clock: FakeClock, profile: EndpointProfile = ANTHROPIC, **policy: Any
) -> AnthropicModel:
    return AnthropicModel(
        profile=replace(profile, read_timeout_seconds=0.4),
        clock=clock,
        base_url=server.url,
        api_key="k",
        policy=RetryPolicy(**policy),
        jitter=lambda: 1.0,
    )


async def ask(
    server: MessagesServer,
    clock: FakeClock,
    request: ModelRequest = REQUEST,
    on_event: OnEvent = ignore_events,
    **policy: Any,
) -> ModelReply:
    async with aclosing(client(server, clock, **policy)) as model:
        return await model.call(request, on_event)


ANSWERED_BY_OPUS = Turn(
    [
        Text("I was about to"),
        ToolUse("look", {"at": "before"}),
        RawBlock({"type": "fallback", "from": {"model": "claude-sonnet-5-5"}, "to": {"model": "claude-opus-5"}}),
        ToolUse("look", {"at": "after"}),
    ],
    usage={
        "iterations": [
            {"type": "message", "model": "claude-sonnet-5-5", "input_tokens": 100, "output_tokens": 7},
            {"type": "fallback_message", "model": "claude-opus-5", "input_tokens": 120, "output_tokens": 30},
        ]
    },
)


TRANSIENT: dict[str, Answer] = {
    "stream ends early": Turn(SAID, fault=EndEarly(5)),
    "stream ends before the first block": Turn(SAID, fault=EndEarly(1)),
    "stream ends before the stop": Turn([Text("x")], fault=EndEarly(5)),
    "reset": Turn(SAID, fault=Reset(4)),
    "closed inside a chunk": Turn(SAID, fault=Reset(4, graceful=True)),
    "stall": Turn(SAID, fault=Stall(4)),
    "error event": Turn(SAID, fault=ErrorEvent(4)),
    "api error event": Turn(SAID, fault=ErrorEvent(2, "api_error", "Internal server error")),
    "no message_start": Turn(SAID, form=Form(message_start=False)),
    "no usage": Turn(SAID, form=Form(usage=False)),
    "no event lines": Turn(SAID, form=Form(event_lines=False)),
    "html": html_page(),
    "json instead of a stream": HttpAnswer(200, b'{"type": "message"}'),
    "529": overloaded(),
    "500": server_error(),
    "503": error(503, "api_error", "unavailable"),
    "408": error(408, "timeout_error", "too slow"),
    "409": error(409, "conflict_error", "conflict"),
    "429": rate_limited(),
    "429 with a wait": rate_limited(7),
    "unknown stop reason": Turn([Text("x")], stop_reason="who_knows"),
    "malformed arguments": Turn([ToolUse("look", raw=['{"at": nonsense}'])]),
    "cut arguments that look finished": Turn([ToolUse("look", raw=CUT)], stop_reason="tool_use"),
    "two objects as arguments": Turn([ToolUse("look", raw=['{"at": 1}{"at": 2}'])]),
    "a list as arguments": Turn([ToolUse("look", raw=["[1, 2]"])]),
    "llama.cpp cannot parse its model": Turn(SAID, fault=ErrorEvent(3, "server_error", "not the expected format")),
}


@pytest.mark.parametrize("failure", TRANSIENT.values(), ids=TRANSIENT.keys())
async def test_what_passes_is_thrown_away_whole_and_asked_again(failure: Answer, clock: FakeClock) -> None:
    events: list[ModelEvent] = []
    async with MessagesServer([failure, says("the answer")]) as server:
        reply = await ask(server, clock, REQUEST, events.append)
    assert reply.text == "the answer"
    assert reply.tool_uses == ()
    assert len([event for event in events if isinstance(event, Retrying)]) == 1
    assert len(clock.slept) == 1


LASTING: dict[str, tuple[Answer, type[ModelError]]] = {
    "400": (error(400, "invalid_request_error", "max_tokens: too large"), BadRequest),
    "401": (error(401, "authentication_error", "invalid key"), AuthFailed),
    "402": (error(402, "billing_error", "no credit"), BillingFailed),
    "403": (error(403, "permission_error", "not yours"), AuthFailed),
    "404": (error(404, "not_found_error", "no such model"), BadRequest),
    "413 as a page": (too_large(), ContextOverflow),
    "prompt too long": (prompt_too_long(), ContextOverflow),
    "llama.cpp's window": (llama_context_exceeded(), ContextOverflow),
    "spending limit": (error(429, "rate_limit_error", "limit", error_code="enforced_spend_limit"), BillingFailed),
    "orphaned call": (
        error(400, "invalid_request_error", "`tool_use` ids were found without `tool_result` blocks"),
        HistoryRejected,
    ),
    "thinking bound elsewhere": (
        error(400, "invalid_request_error", "messages.1: `thinking` is bound to a different conversation"),
        HistoryRejected,
    ),
    "a wait of an hour": (rate_limited(3600), RateLimited),
}


@pytest.mark.parametrize(("answer", "expected"), LASTING.values(), ids=LASTING.keys())
async def test_what_lasts_is_told_at_once_and_by_name(
    answer: Answer, expected: type[ModelError], clock: FakeClock
) -> None:
    async with MessagesServer([answer]) as server:
        with pytest.raises(expected) as caught:
            await ask(server, clock)
        assert len(server.requests) == 1
    assert type(caught.value) is expected
    assert clock.slept == []


async def test_it_gives_up_after_the_stated_number_of_attempts_and_waits_longer_each_time(clock: FakeClock) -> None:
    async with MessagesServer([overloaded()] * 6) as server:
        with pytest.raises(Overloaded):
            await ask(server, clock)
        assert len(server.requests) == 6
    assert clock.slept == [2, 4, 8, 16, 32]


async def test_a_rate_limit_is_waited_out_longer_and_a_wait_that_is_asked_for_is_kept_to_the_second(
    clock: FakeClock,
) -> None:
    async with MessagesServer([rate_limited(), rate_limited(11), says("x")]) as server:
        await ask(server, clock)
    assert clock.slept == [30, 11]


async def test_all_waits_together_are_bounded(clock: FakeClock) -> None:
    async with MessagesServer([rate_limited(100)] * 20) as server:
        with pytest.raises(RateLimited):
            await ask(server, clock, attempts=20)
    assert sum(clock.slept) <= 900


async def test_a_refused_connection_is_a_transport_failure_that_is_asked_again(clock: FakeClock) -> None:
    with MessagesServer([]) as server:
        pass
    with pytest.raises(TransportFailed):
        await ask(server, clock, attempts=2)
    assert len(clock.slept) == 1


async def test_failed_attempts_are_paid_for(clock: FakeClock) -> None:
    async with MessagesServer([Turn(SAID, fault=EndEarly(8)), says("x")]) as server:
        reply = await ask(server, clock)
    assert reply.discarded.prompt_tokens == reply.usage.prompt_tokens > 0
    assert reply.discarded.output_tokens >= len("half an answer to a question") // 4


async def test_an_error_says_what_all_attempts_cost(clock: FakeClock) -> None:
    async with MessagesServer([Turn(SAID, fault=Reset(4))] * 3) as server:
        with pytest.raises(TransportFailed) as caught:
            await ask(server, clock, attempts=3)
    assert caught.value.usage.prompt_tokens > 0


async def test_arguments_that_stay_malformed_come_back_marked_and_their_siblings_whole(clock: FakeClock) -> None:
    turn = Turn([ToolUse("look", {"at": "here"}), ToolUse("look", raw=CUT)], stop_reason="tool_use")
    async with MessagesServer([turn] * 3) as server:
        reply = await ask(server, clock)
        assert len(server.requests) == 3
    good, bad = reply.tool_uses
    assert good.arguments == {"at": "here"} and good.error is None
    assert bad.arguments is None and "not valid JSON" in (bad.error or "")
    assert reply.blocks[1]["input"] == {}


async def test_a_call_that_the_sdk_cannot_parse_is_never_taken_for_one_without_arguments(clock: FakeClock) -> None:
    async with MessagesServer([Turn([Text("so"), ToolUse("look", raw=['{"at": nonsense}'])])] * 3) as server:
        reply = await ask(server, clock)
    assert reply.text == "so"
    assert reply.tool_uses[0].arguments is None


async def test_a_reply_cut_at_its_length_is_no_failure_and_its_cut_call_is_marked(clock: FakeClock) -> None:
    turn = Turn([Text("so"), ToolUse("look", raw=CUT)], stop_reason="max_tokens")
    async with MessagesServer([turn]) as server:
        reply = await ask(server, clock)
    assert reply.stop_reason == "max_tokens"
    assert reply.tool_uses[0].arguments is None


async def test_thinking_comes_back_verbatim_and_empty_text_is_left_out(clock: FakeClock) -> None:
    turn = Turn([Thinking("deep", signature="sig"), Text(""), ToolUse("look", {"a": [1, {"b": None}]})])
    async with MessagesServer([turn]) as server:
        reply = await ask(server, clock)
    assert reply.blocks[0] == {"type": "thinking", "thinking": "deep", "signature": "sig"}
    assert [block["type"] for block in reply.blocks] == ["thinking", "tool_use"]
    assert reply.tool_uses[0].arguments == {"a": [1, {"b": None}]}
    assert reply.request_id == "req_0001"


@pytest.mark.parametrize("blank", [" ", "\n\n", "\t \u00a0"])
async def test_text_of_white_space_is_left_out_since_the_api_refuses_it_back(blank: str, clock: FakeClock) -> None:
    async with MessagesServer([Turn([Text(blank), ToolUse("look")])]) as server:
        reply = await ask(server, clock)
    assert [block["type"] for block in reply.blocks] == ["tool_use"]


async def test_null_fields_of_a_block_are_left_out_since_the_api_refuses_them_back(clock: FakeClock) -> None:
    request = replace(REQUEST, extra={"compaction": {"type": "summarize"}})
    async with MessagesServer([], on_compaction=[Turn([Compaction("the summary")])]) as server:
        reply = await ask(server, clock, request)
    assert set(reply.blocks[0]) == {"type", "content", "signature"}


async def test_the_betas_of_the_profile_go_with_every_request(clock: FakeClock) -> None:
    async with MessagesServer([says("x")]) as server:
        await ask(server, clock)
        (request,) = server.requests
    assert {"compact-2026-09-04", "server-side-fallback-2026-07-01"} <= set(
        request.headers["anthropic-beta"].split(",")
    )
    assert request.json["fallbacks"] == "default"


async def test_another_model_that_answered_is_named_with_its_own_tokens(clock: FakeClock) -> None:
    async with MessagesServer([ANSWERED_BY_OPUS]) as server:
        reply = await ask(server, clock)
    assert reply.model == "claude-opus-5"
    assert reply.usage == Usage(input_tokens=100, output_tokens=7)
    assert reply.fallbacks == (("claude-opus-5", Usage(input_tokens=120, output_tokens=30)),)
    assert reply.answered_usage.context_tokens == 150
    assert [use.arguments for use in reply.tool_uses] == [{"at": "after"}], "the call before the change is void"
    assert [block["type"] for block in reply.blocks] == ["text", "fallback", "tool_use"]


async def test_text_is_streamed_as_it_comes(clock: FakeClock) -> None:
    events: list[ModelEvent] = []
    async with MessagesServer([Turn([Text("one two three four", pieces=4)])]) as server:
        await ask(server, clock, REQUEST, events.append)
    assert len([event for event in events if isinstance(event, TextDelta)]) == 4


async def test_a_refusal_brings_its_details(clock: FakeClock) -> None:
    details = {"type": "refusal", "category": "frontier_llm", "explanation": "because"}
    async with MessagesServer([Turn([Text("no")], stop_reason="refusal", stop_details=details)]) as server:
        reply = await ask(server, clock)
    assert reply.stop_details is not None and reply.stop_details["category"] == "frontier_llm"


async def test_a_compaction_block_comes_back_whole_and_its_hidden_tokens_are_counted(clock: FakeClock) -> None:
    usage = {
        "output_tokens": 5,
        "iterations": [{"type": "compaction", "input_tokens": 900, "output_tokens": 70}],
    }
    request = replace(REQUEST, extra={"compaction": {"type": "summarize"}})
    server = MessagesServer([], on_compaction=[Turn([Compaction("the summary")], usage=usage)])
    async with server:
        reply = await ask(server, clock, request)
    assert reply.stop_reason == "compaction"
    assert reply.blocks[0]["content"] == "the summary" and reply.blocks[0]["signature"]
    assert reply.usage.output_tokens == 75
    assert reply.usage.input_tokens >= 900


async def test_cancelling_ends_a_stalled_call_at_once(clock: FakeClock) -> None:
    async with MessagesServer([Turn(SAID, fault=Stall(4, pings=0.05))]) as server:
        with anyio.move_on_after(0.5) as scope:
            await ask(server, clock)
    assert scope.cancelled_caught


async def test_no_key_is_named_before_anything_is_sent(clock: FakeClock) -> None:
    async with MessagesServer([says("x")]) as server:
        async with aclosing(AnthropicModel(profile=ANTHROPIC, clock=clock, base_url=server.url)) as model:
            with pytest.raises(AuthFailed, match="ANTHROPIC_API_KEY"):
                await model.call(REQUEST, ignore_events)
        assert server.requests == []


async def test_a_local_server_needs_no_key(clock: FakeClock) -> None:
    async with (
        MessagesServer([says("x")]) as server,
        aclosing(AnthropicModel(profile=COMPATIBLE, clock=clock, base_url=server.url)) as model,
    ):
        assert (await model.call(REQUEST, ignore_events)).text == "x"


async def test_nothing_is_asked_of_the_model_that_its_profile_does_not_know(clock: FakeClock) -> None:
    async with MessagesServer([says("x")]) as server:
        await ask(server, clock, profile=COMPATIBLE)
        (request,) = server.requests
    assert set(request.json) == {"model", "max_tokens", "messages", "system", "tools", "stream"}
    assert "anthropic-beta" not in request.headers


def test_the_cache_is_marked_after_the_system_prompt_and_at_the_end() -> None:
    arguments = wire_arguments(replace(REQUEST, cache_ttl="5m"), ANTHROPIC)
    assert arguments["cache_control"] == {"type": "ephemeral"}
    assert arguments["system"][-1]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert REQUEST.system[0] == {"type": "text", "text": "s"}


def test_while_jobs_run_the_end_is_kept_for_an_hour() -> None:
    assert wire_arguments(replace(REQUEST, cache_ttl="1h"), ANTHROPIC)["cache_control"] == {
        "type": "ephemeral",
        "ttl": "1h",
    }


def test_a_turn_of_many_calls_gets_a_marker_before_it_since_the_cache_looks_back_twenty_blocks() -> None:
    uses = [{"type": "tool_use", "id": f"t{n}", "name": "look", "input": {}} for n in range(12)]
    results = [{"type": "tool_result", "tool_use_id": f"t{n}", "content": "x"} for n in range(12)]
    messages: list[Message] = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": uses},
        {"role": "user", "content": results},
    ]
    arguments = wire_arguments(replace(REQUEST, cache_ttl="5m", messages=messages), ANTHROPIC)
    assert arguments["messages"][0]["content"] == [
        {"type": "text", "text": "go", "cache_control": {"type": "ephemeral"}}
    ]
    assert messages[0] == {"role": "user", "content": "go"}


async def test_what_the_endpoint_says_about_a_model_is_taken_and_its_silence_means_no(clock: FakeClock) -> None:
    adaptive = {"types": {"adaptive": {"supported": True}}}
    about = {
        "id": "m",
        "type": "model",
        "max_input_tokens": 1000,
        "max_tokens": 100,
        "capabilities": {"thinking": adaptive},
    }
    async with MessagesServer([], models=[about]) as server, aclosing(client(server, clock)) as model:
        known, unknown = await model.facts("m"), await model.facts("other")
    assert (known.window, known.max_output, known.adaptive_thinking) == (1000, 100, True)
    assert (unknown.window, unknown.max_output, unknown.adaptive_thinking) == (None, None, False)


@pytest.mark.parametrize(
    ("url", "name", "expected"),
    [
        (None, None, ANTHROPIC),
        ("https://api.anthropic.com", None, ANTHROPIC),
        ("https://api.anthropic.com.evil.example/", None, COMPATIBLE),
        ("http://127.0.0.1:8080", None, COMPATIBLE),
        ("http://127.0.0.1:8080", "anthropic", ANTHROPIC),
    ],
)
def test_the_profile_is_anthropics_only_at_its_own_host_or_on_demand(
    url: str | None, name: str | None, expected: object
) -> None:
    assert endpoint_profile(url, name) is expected
