"""The history: append-only, every call answered, sized by what the service said."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.orchestrator.conversation import Conversation
from mlintern.orchestrator.messages import answered, calls_of, estimate_tokens, without_thinking
from mlintern.orchestrator.model import Message, ModelReply, Usage
from mlintern.orchestrator.settings import LoopSettings
from tests.orchestrator.histories import complaint, histories


def reply(*blocks: dict[str, Any], tokens: int = 100) -> ModelReply:
    usage = Usage(input_tokens=tokens, output_tokens=10)
    return ModelReply(blocks=list(blocks), stop_reason="end_turn", usage=usage)


def use(name: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": name, "name": "look", "input": {}}


def result(name: str, text: str = "seen") -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": name, "content": [{"type": "text", "text": text}]}


def talk(*messages: Message) -> Conversation:
    return Conversation(system="s", tools=[], messages=messages)


def test_results_must_be_those_of_the_last_reply_in_its_order() -> None:
    conversation = talk({"role": "user", "content": "go"})
    conversation.add_reply(reply(use("a"), use("b")))
    with pytest.raises(ValueError, match="in order"):
        conversation.add_results([result("b"), result("a")])
    conversation.add_results([result("a"), result("b")])
    assert [block["type"] for block in conversation.messages[-1]["content"]] == ["tool_result", "tool_result"]


def test_a_call_without_a_result_is_answered_right_after_it_in_any_place() -> None:
    messages: list[Message] = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [use("a"), use("b")]},
        {"role": "user", "content": [result("b")]},
        {"role": "assistant", "content": [use("c")]},
        {"role": "user", "content": "what now?"},
        {"role": "assistant", "content": [use("d")]},
    ]
    repaired = answered(messages)
    assert [block.get("tool_use_id") for block in repaired[2]["content"]] == ["a", "b"]
    assert [block["type"] for block in repaired[4]["content"]] == ["tool_result", "text"]
    assert repaired[6]["content"][0]["is_error"] is True
    assert complaint(repaired) is None


def test_an_id_that_a_server_uses_again_is_matched_to_its_neighbour() -> None:
    messages: list[Message] = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [use("call_0")]},
        {"role": "user", "content": [result("call_0", "first")]},
        {"role": "assistant", "content": [use("call_0")]},
        {"role": "user", "content": [result("call_0", "second")]},
    ]
    assert answered(messages) == messages


@given(histories())
def test_repairing_a_valid_history_changes_nothing_and_shares_its_messages(conversation: Conversation) -> None:
    repaired = answered(conversation.messages)
    assert all(new is old for new, old in zip(repaired, conversation.messages, strict=True))


@given(histories(), st.data())
def test_a_history_cut_anywhere_is_repaired_into_one_that_the_api_takes(
    conversation: Conversation, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, len(conversation.messages)))
    messages = conversation.messages[:cut]
    before = copy.deepcopy(messages)
    repaired = answered(messages)
    if repaired[-1]["role"] == "user":
        assert complaint(repaired) is None
    assert messages == before
    assert answered(repaired) == repaired


def test_every_request_repeats_the_one_before_it_to_the_byte() -> None:
    conversation = Conversation(system="s", tools=[{"name": "look"}])
    conversation.add_user("go")
    first = conversation.request(LoopSettings(model="m", max_tokens=10))
    conversation.add_reply(reply(use("a")))
    conversation.add_results([result("a")])
    second = conversation.request(LoopSettings(model="m", max_tokens=10))
    assert (second.system, second.tools) == (first.system, first.tools)
    assert list(second.messages[:1]) == list(first.messages)


def test_the_size_is_what_the_service_reported_plus_what_came_since() -> None:
    conversation = talk({"role": "user", "content": "go"})
    conversation.add_reply(reply(use("a"), tokens=5_000))
    assert conversation.tokens == 5_010
    conversation.add_results([result("a", "x" * 350_000)])
    assert conversation.tokens == pytest.approx(5_010 + 100_000, rel=0.01)


def test_a_picture_is_sized_by_what_it_costs_and_not_by_its_bytes() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 1_000_000}}
    assert estimate_tokens([{"type": "tool_result", "tool_use_id": "a", "content": [image]}]) < 3_000


def test_without_thinking_a_reply_that_was_only_thinking_is_left_out() -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    messages: list[Message] = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [thinking]},
        {"role": "assistant", "content": [thinking, use("a")]},
    ]
    assert without_thinking(messages)[1:] == [{"role": "assistant", "content": [use("a")]}]


def test_taking_back_goes_before_the_last_thing_that_a_person_said() -> None:
    conversation = talk(
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [{"type": "text", "text": "gone"}]},
        {"role": "user", "content": "no, stop"},
        {"role": "assistant", "content": [use("a")]},
        {"role": "user", "content": [result("a")]},
        {"role": "user", "content": "[mlintern loop] Please continue."},
    )
    said, kept = conversation.before_last_said()
    assert said == "no, stop"
    assert kept == conversation.messages[:2]


def test_only_a_reply_has_calls() -> None:
    assert calls_of({"role": "user", "content": [use("a")]}) == []
