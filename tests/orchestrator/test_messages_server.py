"""The scripted Messages server against the SDK itself: a stand-in that lies would hide every bug behind it."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx2
import pytest

from mlintern.orchestrator.rehearsal.messages_server import SUMMARY, MessagesServer
from mlintern.orchestrator.rehearsal.turns import (
    Answer,
    EndEarly,
    ErrorEvent,
    Form,
    Reset,
    Stall,
    Text,
    Thinking,
    ToolUse,
    Turn,
    calls,
    overloaded,
    says,
    too_large,
)
from tests.orchestrator.refusals import html_page, prompt_too_long, rate_limited, server_error

pytestmark = pytest.mark.anyio
TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}
GO = [{"role": "user", "content": "go"}]


async def ask(server: MessagesServer, *, patience: float = 30.0, **changes: Any) -> Any:
    """``patience`` in seconds: how long nothing may come."""
    address = {"base_url": server.url, "api_key": "test"}
    async with anthropic.AsyncAnthropic(**address, max_retries=0, timeout=patience) as client:
        request = {"model": "claude-sonnet-5-5", "max_tokens": 500, "messages": GO, **changes}
        async with client.beta.messages.stream(**request) as stream:
            return await stream.get_final_message()


@pytest.mark.parametrize(
    "form",
    [
        Form(),
        Form(crlf=True),
        Form(pings=True),
        Form(piece_bytes=3),
        Form(chunked=False),
        Form(done_line=True),
        Form(crlf=True, pings=True, piece_bytes=1, chunked=False),
    ],
)
async def test_every_lawful_form_of_a_stream_gives_the_same_message(form: Form) -> None:
    turn = Turn([Thinking("hm"), Text("größer 🙂"), ToolUse("look", {"at": "日本"})], form=form)
    async with MessagesServer([turn]) as server:
        message = await ask(server, tools=[TOOL])
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert message.content[1].text == "größer 🙂"
    assert message.content[2].input == {"at": "日本"}
    assert message.stop_reason == "tool_use"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (overloaded(), anthropic.OverloadedError),
        (server_error(), anthropic.InternalServerError),
        (rate_limited(3), anthropic.RateLimitError),
        (too_large(), anthropic.APIStatusError),
        (prompt_too_long(), anthropic.BadRequestError),
        (html_page(), AssertionError),
        (says("x", form=Form(message_start=False)), AssertionError),
        (says("x", form=Form(event_lines=False)), AssertionError),
        (says("x", form=Form(usage=False)), AttributeError),
        (says("x", fault=Reset(3)), httpx2.TransportError),
        (says("x", fault=Reset(3, graceful=True)), httpx2.RemoteProtocolError),
        (says("x", fault=Stall(3)), httpx2.ReadTimeout),
        (says("x", fault=ErrorEvent(3)), anthropic.APIStatusError),
        (Turn([ToolUse("look", raw=['{"a": nope}'])]), ValueError),
    ],
)
async def test_every_fault_reaches_the_client_as_the_sdk_reports_it(
    answer: Answer, expected: type[Exception]
) -> None:
    async with MessagesServer([answer]) as server:
        with pytest.raises(expected):
            await ask(server, patience=0.5 if expected is httpx2.ReadTimeout else 30.0)


async def test_a_stream_that_ends_early_has_no_stop_reason() -> None:
    async with MessagesServer([says("cut off here", fault=EndEarly(3))]) as server:
        assert (await ask(server)).stop_reason is None


@pytest.mark.parametrize("stop_reason", ["tool_use", "max_tokens"])
async def test_a_cut_call_looks_like_a_call_with_fewer_arguments(stop_reason: str) -> None:
    turn = Turn([ToolUse("look", raw=['{"path": "/tmp/x", "te'])], stop_reason=stop_reason)
    async with MessagesServer([turn]) as server:
        assert (await ask(server)).content[0].input == {"path": "/tmp/x"}


async def test_a_conversation_with_an_unanswered_call_is_refused() -> None:
    async with MessagesServer([calls("look"), says("never")]) as server:
        call = (await ask(server)).content[0].to_dict()
        with pytest.raises(anthropic.BadRequestError, match="without `tool_result`"):
            await ask(server, messages=[*GO, {"role": "assistant", "content": [call]}, *GO])
        assert [request.scripted for request in server.requests] == [True, False]


async def test_thinking_is_bound_to_everything_before_it() -> None:
    async with MessagesServer([Turn([Thinking("a"), Text("b")]), says("c"), says("d")]) as server:
        reply = {"role": "assistant", "content": [block.to_dict() for block in (await ask(server)).content]}
        await ask(server, messages=[*GO, reply, *GO])
        with pytest.raises(anthropic.BadRequestError, match="bound to a different conversation"):
            await ask(server, messages=[{"role": "user", "content": "changed"}, reply, *GO])


async def test_a_compaction_block_stands_for_the_messages_it_replaced() -> None:
    script = [Turn([Thinking("a"), Text("b")]), Turn([Thinking("c"), Text("d")]), says("e")]
    async with MessagesServer(script) as server:
        history: list[Any] = list(GO)
        reply = {"role": "assistant", "content": [block.to_dict() for block in (await ask(server)).content]}
        summary = await ask(server, messages=history, compaction={"type": "summarize"}, betas=["compact-2026-09-04"])
        assert summary.stop_reason == "compaction" and summary.content[0].content == SUMMARY
        with_nulls = summary.content[0].to_dict()
        block = {"role": "assistant", "content": [{k: v for k, v in with_nulls.items() if v is not None}]}
        beta = {"betas": ["compact-2026-09-04"]}
        await ask(server, messages=[block, reply, *GO], **beta)  # the kept reply follows what was summarised
        with pytest.raises(anthropic.BadRequestError, match="must be the first"):
            await ask(server, messages=[*GO, block, *GO], **beta)
        with pytest.raises(anthropic.BadRequestError, match="Input tag 'compaction'"):
            await ask(server, messages=[block, reply, *GO])
        with pytest.raises(anthropic.BadRequestError, match=r"encrypted_content.*null"):
            await ask(server, messages=[{"role": "assistant", "content": [with_nulls]}, reply, *GO], **beta)


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
CALL = {"type": "tool_use", "id": "t1", "name": "look", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "x"}]}
HOUR, MINUTES = {"type": "ephemeral", "ttl": "1h"}, {"type": "ephemeral"}


def history(*contents: Any) -> list[Any]:
    return [{"role": ("user", "assistant")[n % 2], "content": each} for n, each in enumerate(contents)]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"extra_body": {"temperature": 0.5}}, "temperature: Extra inputs"),
        ({"extra_body": {"maximum": 1}}, "maximum: Extra inputs"),
        ({"fallbacks": "default"}, "fallbacks: Extra inputs"),
        ({"compaction": {"type": "summarize"}}, "compaction: Extra inputs"),
        ({"betas": ["no-such-beta-2026-01-01"]}, "no-such-beta"),
        ({"max_tokens": 200_000}, "max_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5000}}, "budget_tokens"),
        ({"thinking": {"type": "deep"}}, "thinking"),
        ({"output_config": {"effort": "huge"}}, "effort"),
        ({"messages": []}, "at least one message"),
        ({"messages": history("go", "said")}, "prefill"),
        ({"messages": history("  ")}, "non-whitespace"),
        ({"messages": history("go", [{"type": "text", "text": "\n"}], "x")}, "non-whitespace"),
        (
            {"messages": history("go", [CALL], [RESULT | {"content": [{"type": "text", "text": ""}]}])},
            "non-whitespace",
        ),
        ({"system": [{"type": "text", "text": " "}]}, "system: text"),
        ({"messages": history("go", [CALL | {"citations": 1}], [RESULT])}, "citations: Extra inputs"),
        ({"messages": history("go", [CALL], [{"type": "text", "text": "first"}, RESULT])}, "must come first"),
        ({"messages": history("go", [CALL, CALL], [RESULT])}, "unique"),
        ({"messages": history("go", [CALL | {"id": "a b"}], [RESULT | {"tool_use_id": "a b"}])}, "pattern"),
        ({"messages": [*history("go"), *history([CALL])]}, "only be in `assistant`"),
        ({"messages": history("go", [RESULT], "x")}, "only be in `user`"),
        ({"messages": history([{"type": "poem", "text": "x"}])}, "does not match any of the expected tags"),
        ({"tools": [TOOL | {"name": "a.b"}]}, "pattern"),
        ({"tools": [TOOL, TOOL]}, "unique"),
        ({"tools": [TOOL | {"input_schema": {"type": "object", "oneOf": []}}]}, "oneOf"),
        ({"tools": [TOOL | {"polls": True}]}, "polls: Extra inputs"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        (
            {"system": [{"type": "text", "text": "s", "cache_control": MINUTES}], "cache_control": HOUR},
            "must not come after",
        ),
        (
            {"messages": history([{"type": "text", "text": "s", "cache_control": MINUTES}] * 5)},
            "A maximum of 4",
        ),
        (
            {
                "messages": history(
                    "go", [{"type": "thinking", "thinking": "", "signature": "s", "cache_control": MINUTES}], "x"
                )
            },
            "cache_control",
        ),
    ],
)
async def test_what_the_sources_do_not_list_is_refused(changes: dict[str, Any], complaint: str) -> None:
    async with MessagesServer([says("never")]) as server:
        with pytest.raises(anthropic.BadRequestError, match=complaint):
            await ask(server, **changes)
        assert server.answered == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": history("go", [CALL], [RESULT | {"content": [IMAGE], "is_error": True}])},
        {"fallbacks": "default", "betas": ["server-side-fallback-2026-07-01"]},
        {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "high"}},
        {"system": [{"type": "text", "text": "s", "cache_control": HOUR}], "cache_control": MINUTES, "tools": [TOOL]},
    ],
)
async def test_what_the_sources_list_is_taken(changes: dict[str, Any]) -> None:
    async with MessagesServer([says("fine")]) as server:
        assert (await ask(server, **changes)).content[0].text == "fine"


async def test_who_does_not_say_who_asks_is_not_answered() -> None:
    async with MessagesServer([says("never")]) as server, httpx2.AsyncClient() as http:
        body = {"model": "m", "max_tokens": 1, "messages": GO, "stream": True}
        answer = await http.post(f"{server.url}/v1/messages", json=body)
        assert answer.status_code == 401
        answer = await http.post(f"{server.url}/v1/messages", json=body, headers={"x-api-key": "k"})
        assert answer.status_code == 400 and "anthropic-version" in answer.text


async def test_cached_prefixes_are_read_and_the_rest_is_written() -> None:
    async with MessagesServer([says("a"), says("b"), says("c")]) as server:
        mark = {"type": "ephemeral"}
        first = await ask(server, system="s" * 400, cache_control=mark)
        more = [*GO, {"role": "assistant", "content": "a"}, *GO]
        second = await ask(server, system="s" * 400, cache_control=mark, messages=more)
        changed = await ask(server, system="S" * 400, cache_control=mark, messages=more)
    assert first.usage.cache_read_input_tokens == 0 and first.usage.cache_creation_input_tokens > 100
    assert second.usage.cache_read_input_tokens == first.usage.cache_creation_input_tokens
    assert changed.usage.cache_read_input_tokens < 5


async def test_tokens_can_be_counted() -> None:
    async with (
        MessagesServer([]) as server,
        anthropic.AsyncAnthropic(base_url=server.url, api_key="test") as client,
    ):
        counted = await client.beta.messages.count_tokens(
            model="m", messages=[{"role": "user", "content": "x" * 400}]
        )
    assert 100 <= counted.input_tokens <= 120
