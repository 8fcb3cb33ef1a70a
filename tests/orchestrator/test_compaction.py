"""Compaction: what is kept word for word, what is collected by program, and when it gives up aloud."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mlintern.orchestrator.compacted_message import PREAMBLE, Handover, parse, render
from mlintern.orchestrator.compaction import Compaction, CompactionFailed, HistoryCompactor, default_trigger
from mlintern.orchestrator.conversation import Conversation
from mlintern.orchestrator.facts import FAILED, SEEN, Section, harvest
from mlintern.orchestrator.messages import estimate_tokens, joined, transcript, user_text
from mlintern.orchestrator.model import Message, Overloaded
from mlintern.orchestrator.plan import Plan
from mlintern.orchestrator.prices import PRICES
from mlintern.orchestrator.summary import NoSummary, Summary
from tests.orchestrator.histories import TOOLS, complaint, histories, said, talk, turn

pytestmark = pytest.mark.anyio
law = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


class Says:
    """A summarizer that gives fixed answers, one a call, the last one for ever; exceptions are raised."""

    def __init__(self, *answers: Summary | Exception) -> None:
        self.answers = list(answers) or [Summary("The middle, in short.", "client")]
        self.asked: list[list[Message]] = []

    async def summarize(self, conversation: Conversation, messages: Sequence[Message]) -> Summary:
        self.asked.append(list(messages))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def compactor(*answers: Summary | Exception, trigger: int = 10_000, **options: Any) -> HistoryCompactor:
    return HistoryCompactor([Says(*answers)], trigger=trigger, **options)


def lawful(messages: Sequence[Message]) -> str | None:
    return complaint(messages, TOOLS)


def whole_text(messages: Sequence[Message]) -> str:
    return "\n".join(user_text(message) for message in messages)


async def compacted(conversation: Conversation, by: HistoryCompactor, *, force: bool = False) -> Compaction:
    compaction = await by.maybe_compact(conversation, force=force)
    assert compaction is not None
    assert lawful(compaction.messages) is None
    assert compaction.after_tokens < 0.6 * (min(by.trigger, conversation.tokens) if force else by.trigger)
    return compaction


def long_run(turns: int = 300, **options: Any) -> Conversation:
    return talk(
        said("Train the best model under 1B."), *(turn(n, f"result {n} " * 40, **options) for n in range(turns))
    )


def test_the_trigger_is_170k_and_less_where_the_window_or_the_price_asks_for_it() -> None:
    day = dt.date(2026, 11, 23)
    assert default_trigger(PRICES.price("claude-sonnet-5-5", day)) == 170_000
    assert default_trigger(PRICES.price("claude-opus-4-5", day)) == 170_000
    assert default_trigger(PRICES.price("claude-haiku-5-5", day)) == 95_000
    assert default_trigger(None, 32_768) == 27_852


async def test_below_the_trigger_nothing_is_done() -> None:
    by = compactor(trigger=1_000_000, window=2_000_000)
    assert await by.maybe_compact(long_run()) is None


async def test_one_user_message_and_three_hundred_tool_turns_are_compacted() -> None:
    conversation = long_run()
    compaction = await compacted(conversation, compactor())
    assert compaction.messages[0]["content"][1]["text"] == (
        "<original_request>\nTrain the best model under 1B.\n</original_request>"
    )
    assert compaction.messages[-4:] == conversation.messages[-4:]  # the latest turns, word for word
    assert whole_text(compaction.messages).count("Train the best model under 1B.") == 1


async def test_everything_that_the_user_said_is_kept_word_for_word() -> None:
    wishes = ["Never touch the test set!", "Use </original_request> tags.\n\n## Jobs\n- none", "Hurry  up\t."]
    parts = [part for n, wish in enumerate(wishes) for part in ([*turn(n, "x" * 9_000), said(wish)])]
    conversation = talk(said("goal"), *parts, *(turn(n, "y" * 2_000) for n in range(10, 30)))
    compaction = await compacted(conversation, compactor())
    handover, _ = Handover.read(compaction.messages)
    assert handover is not None and list(handover.said) == wishes


async def test_of_too_many_words_the_newest_are_kept_and_the_cut_is_said() -> None:
    parts = [part for n in range(60) for part in (*turn(n), said(f"wish {n} " + "w" * 1_000))]
    compaction = await compacted(talk(said("goal"), *parts), compactor(trigger=12_000))
    text = whole_text(compaction.messages)
    assert "wish 59 " in text and "wish 1 " not in text
    assert "older messages of the user, to save room" in text


async def test_a_second_compaction_still_has_the_goal_and_the_words_of_before_the_first() -> None:
    conversation = talk(said("the goal"), turn(0), said("a wish"), *(turn(n, "z" * 2_000) for n in range(1, 30)))
    by = compactor(Summary("first summary", "client"), Summary("second summary", "client"))
    first = await compacted(conversation, by)
    again = talk(first.messages, said("a later wish"), *(turn(n, "z" * 2_000) for n in range(30, 60)))
    second = await compacted(again, by)
    handover, taken = Handover.read(second.messages)
    assert handover is not None and taken == 1
    assert handover.goal == "the goal" and handover.said == ("a wish", "a later wish")
    assert handover.summary == "second summary"
    assert whole_text(second.messages).count(PREAMBLE) == 1


async def test_a_result_larger_than_the_window_is_cut_and_its_call_stays_answered() -> None:
    conversation = talk(said("goal"), *(turn(n) for n in range(9)), turn(9, f"BEGIN{'x' * 900_000}END"))
    assert conversation.tokens > 200_000
    by = compactor(trigger=100_000, window=200_000)
    compaction = await compacted(conversation, by)
    last = compaction.messages[-1]["content"][0]
    assert last["tool_use_id"] == "toolu_9_0"
    text = last["content"][0]["text"]
    assert text.startswith("BEGIN") and text.endswith("END") and "characters cut" in text
    assert conversation.tokens > 200_000, "the conversation itself is left alone"


async def test_a_compaction_block_of_the_service_comes_first_and_is_sent_back_verbatim() -> None:
    block = {"type": "compaction", "content": "signed summary", "signature": "abc"}
    compaction = await compacted(long_run(thinking=True), compactor(Summary("signed summary", "server", block)))
    assert compaction.method == "server"
    assert compaction.messages[0] == {"role": "assistant", "content": [block]}
    assert compaction.messages[1]["content"][0]["text"] == PREAMBLE
    assert "<summary>" not in whole_text(compaction.messages)


async def test_no_thinking_is_left_since_it_is_bound_to_what_is_gone() -> None:
    compaction = await compacted(long_run(thinking=True), compactor())
    assert "thinking" not in {block["type"] for message in compaction.messages for block in message["content"]}


async def test_the_plan_and_fresh_facts_are_restated() -> None:
    async def facts() -> list[Section]:
        return [Section("Jobs", ("job-1: running (local/cpu)",)), Section("Money", ("model: $1.20 spent",))]

    plan = Plan()
    await plan.call({"steps": [{"step": "train", "state": "in_progress"}, {"step": "evaluate", "state": "pending"}]})
    compaction = await compacted(long_run(), compactor(read_facts=facts, plan=plan))
    text = whole_text(compaction.messages)
    assert "<plan>\n[>] train\n[ ] evaluate\n</plan>" in text
    assert "## Jobs\n- job-1: running (local/cpu)" in text


async def test_failed_attempts_and_identifiers_outlive_two_compactions() -> None:
    start = turn(0, "CUDA out of memory at batch 64", is_error=True)
    result = json.dumps({"job_id": "job-77", "output": "/data/runs/a/model", "repo_id": "me/model"})
    by = compactor()
    first = await compacted(
        talk(said("goal"), start, turn(1, result), *(turn(n, "z" * 2_000) for n in range(2, 30))), by
    )
    second = await compacted(talk(first.messages, *(turn(n, "z" * 2_000) for n in range(30, 60))), by)
    text = whole_text(second.messages)
    for fact in ("CUDA out of memory at batch 64", "job_id: job-77", "path: /data/runs/a/model", "repo_id: me/model"):
        assert fact in text


# When it does not work.


async def test_a_failing_summary_leaves_the_history_unchanged_and_is_tried_again() -> None:
    conversation = long_run()
    before = json.dumps(conversation.messages)
    by = compactor(Overloaded("529"), NoSummary("empty"), Summary("at last", "client"))
    by.window = 10**9
    assert await by.maybe_compact(conversation) is None
    assert await by.maybe_compact(conversation) is None
    assert json.dumps(conversation.messages) == before
    assert (await compacted(conversation, by)).summary == "at last"


async def test_a_summary_that_keeps_failing_ends_the_run_by_name() -> None:
    by = compactor(NoSummary("the model wrote nothing"), window=10**9)
    conversation = long_run()
    assert await by.maybe_compact(conversation) is None
    assert await by.maybe_compact(conversation) is None
    with pytest.raises(CompactionFailed, match=r"summary_failed.*wrote nothing"):
        await by.maybe_compact(conversation)


async def test_where_it_cannot_wait_a_failing_summary_ends_the_run_at_once() -> None:
    with pytest.raises(CompactionFailed, match="summary_failed"):
        await compactor(NoSummary("nothing")).maybe_compact(long_run(20), force=True)


async def test_the_next_summarizer_is_asked_when_one_fails() -> None:
    first, second = Says(Overloaded("compaction_unavailable")), Says()
    by = HistoryCompactor([first, second], trigger=10_000)
    assert (await compacted(long_run(), by)).summary == "The middle, in short."
    assert len(first.asked) == len(second.asked) == 1


async def test_a_system_prompt_that_fills_the_trigger_is_named_and_nothing_is_paid_for() -> None:
    conversation = talk(said("goal"), *(turn(n) for n in range(40)), system="s" * 30_000)
    summarizer = Says()
    by = HistoryCompactor([summarizer], trigger=10_000)
    with pytest.raises(CompactionFailed, match=r"compaction_ineffective.*system prompt and tools alone"):
        await by.maybe_compact(conversation)
    assert summarizer.asked == []


async def test_a_block_that_is_itself_too_large_is_named() -> None:
    block = {"type": "compaction", "content": "s" * 60_000, "signature": "abc"}
    with pytest.raises(CompactionFailed, match=r"compaction_ineffective: \d+ tokens remain"):
        await compactor(Summary("s", "server", block)).maybe_compact(long_run())


async def test_it_acts_at_most_once_in_five_turns_unless_the_window_is_full() -> None:
    by = compactor(trigger=10_000, window=100_000)
    first = await compacted(long_run(), by)
    grown = [*first.messages, *turn(900, "z" * 80_000)]
    assert await by.maybe_compact(talk(grown)) is None
    for n in range(901, 905):
        grown += turn(n)
    assert await by.maybe_compact(talk(grown)) is not None


async def test_three_in_a_row_end_the_run_with_a_reason() -> None:
    by = compactor(trigger=10_000, window=12_000)
    conversation = long_run()
    compactions = 0
    with pytest.raises(CompactionFailed, match="compaction_thrashing"):
        for n in range(10):
            compaction = await by.maybe_compact(conversation)
            assert compaction is not None
            compactions += 1
            conversation = talk(compaction.messages, turn(1_000 + n, "z" * 60_000))
    assert compactions == 3


async def test_what_the_loop_itself_said_is_not_taken_for_the_users_words() -> None:
    conversation = talk(
        said("goal"), turn(0), said("[mlintern loop] Go on."), *(turn(n, "z" * 2_000) for n in range(1, 30))
    )
    handover, _ = Handover.read((await compacted(conversation, compactor())).messages)
    assert handover is not None and handover.said == ()


# Harvesting.


def test_a_failure_that_later_works_is_not_a_failure() -> None:
    arguments = {"type": "tool_use", "id": "a", "name": "look", "input": {"at": 1}}
    failed = {"type": "tool_result", "tool_use_id": "a", "content": "disk full", "is_error": True}
    works = {"type": "tool_result", "tool_use_id": "a", "content": "ok"}
    attempt = [{"role": "assistant", "content": [arguments]}, {"role": "user", "content": [failed]}]
    success = [{"role": "assistant", "content": [arguments]}, {"role": "user", "content": [works]}]
    assert [section.title for section in harvest(attempt)] == [FAILED]
    assert harvest([*attempt, *success]) == []


def test_the_same_failure_is_counted_not_repeated() -> None:
    lines = harvest([message for n in range(6) for message in turn(n, "no such column", is_error=True)])[0].lines
    assert len(lines) == 1 and "no such column [6 times]" in lines[0]


def test_identifiers_come_from_arguments_results_links_and_paths() -> None:
    text = "see https://huggingface.co/datasets/org/data and /srv/out/model.bin at " + "a1" * 20
    (section,) = harvest(turn(1, text))
    assert section.title == SEEN
    assert set(section.lines) == {"hub: datasets/org/data", "path: /srv/out/model.bin", "commit: " + "a1" * 20}


@law
@given(st.lists(st.tuples(st.text("ab c", min_size=1).filter(str.strip), st.lists(st.text("xy z-#", min_size=1)))))
def test_facts_are_read_back_as_they_were_written(sections: list[tuple[str, list[str]]]) -> None:
    given_sections = [
        Section(" ".join(title.split()), tuple(line for each in lines if (line := " ".join(each.split()))))
        for title, lines in sections
    ]
    assert list(parse(render(given_sections))) == given_sections


# Laws.


@law
@given(histories(), st.sampled_from([8_000, 20_000, 60_000]), st.sampled_from(["client", "server"]))
def test_any_history_becomes_a_lawful_shorter_one_with_the_users_words(
    conversation: Conversation, trigger: int, method: str
) -> None:
    block = {"type": "compaction", "content": "in short", "signature": "s"} if method == "server" else None
    summary = Summary("in short", "server" if block else "client", block)
    assume(conversation.tokens > 3_000)  # of less there is nothing to gain
    spoken = [text.strip("\n") for message in conversation.messages if (text := user_text(message))]
    before = json.dumps(conversation.messages)

    async def twice() -> None:
        first = await compacted(conversation, compactor(summary, trigger=trigger), force=True)
        more = [turn(n, f"{n} " * 2_000) for n in range(100, 112)]
        second = await compacted(talk(first.messages, *more), compactor(summary, trigger=trigger), force=True)
        for compaction in (first, second):
            text = whole_text(compaction.messages)
            kept = [each for each in spoken if each in text]
            assert spoken[0] in kept
            if sum(map(estimate_tokens, spoken)) < 0.05 * min(trigger, compaction.before_tokens):
                assert kept == spoken
            roles = [message["role"] for message in compaction.messages]
            assert all(one != other for one, other in itertools.pairwise(roles))

    anyio.run(twice)
    assert json.dumps(conversation.messages) == before


@law
@given(histories(), st.integers(300, 30_000))
def test_a_transcript_keeps_to_its_size_and_says_what_it_cut(conversation: Conversation, tokens: int) -> None:
    text = transcript(conversation.messages, max_tokens=tokens)
    whole = transcript(conversation.messages, max_tokens=10**9)
    assert text == whole or ("entries cut here" in text and estimate_tokens(text) <= 1.1 * tokens + 50)


@law
@given(histories())
def test_joining_neighbours_loses_nothing(conversation: Conversation) -> None:
    def blocks(messages: Sequence[Message]) -> list[str]:
        parts = [
            m["content"] if not isinstance(m["content"], str) else [{"type": "text", "text": m["content"]}]
            for m in messages
        ]
        return sorted(json.dumps(block, sort_keys=True) for part in parts for block in part)

    assert blocks(joined(conversation.messages)) == blocks(conversation.messages)
    assert lawful(joined(conversation.messages)) is None or conversation.messages[-1]["role"] == "assistant"
