"""Shorten a conversation that has become long, and lose nothing that matters.

The beginning is replaced by a summary; kept word for word are the goal, what the user said since and the latest
turns. Facts (plan, jobs, scores, money, failures, identifiers) are collected by program. The new history holds no
thinking: thinking is bound to the exact messages before it, and those are gone.

    client:  user_message(goal, words, summary, facts)                       + latest turns
    server:  assistant(compaction block) + user_message(goal, words, facts)  + latest turns
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mlintern.orchestrator.compacted_message import Handover, latest_words, of_at_most
from mlintern.orchestrator.conversation import Conversation
from mlintern.orchestrator.errors import OrchestratorError
from mlintern.orchestrator.facts import ReadFacts, Section, harvest
from mlintern.orchestrator.messages import (
    count_replies,
    estimate_tokens,
    joined,
    said_by_person,
    shortened,
    with_smaller_results,
    without_thinking,
)
from mlintern.orchestrator.model import AuthFailed, BillingFailed, EndpointProfile, Message, ModelError
from mlintern.orchestrator.plan import Plan
from mlintern.orchestrator.prices import Price
from mlintern.orchestrator.summary import (
    Caller,
    ClientSummarizer,
    NoSummary,
    ServerSummarizer,
    Summarizer,
    Summary,
    TranscriptSummarizer,
)

DEFAULT_TRIGGER = 170_000
DEFAULT_WINDOW = 200_000
MUST_SHRINK_TO = 0.6
"""Of the trigger: what is larger after a compaction would come again at once."""

FULL = 0.95
"""Of the window: beyond this there is no waiting for a better moment."""

MIN_TURNS_BETWEEN = 5
MAX_HASTY = 3
MAX_FAILURES = 3
SAID_TOKENS = 20_000
TAIL_TOKENS = 20_000
MIN_ROOM = 500


class CompactionFailed(OrchestratorError):
    """The conversation cannot be brought below its trigger; the text says why. The run ends."""


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """A shorter history in place of the old one. Sizes in tokens, as far as known."""

    messages: list[Message]
    summary: str
    before_tokens: int
    after_tokens: int
    method: Literal["server", "client"] = "client"


def default_trigger(price: Price | None, window: int | None = None) -> int:
    """Tokens at which to compact: 170k, less for a smaller window and where a longer prompt costs more per token."""
    window = window or (price.window if price else None) or DEFAULT_WINDOW
    trigger = min(DEFAULT_TRIGGER, int(0.85 * window))
    if price is not None and price.long_over is not None:
        trigger = min(trigger, int(0.95 * price.long_over))
    return trigger


def summarizers(profile: EndpointProfile, caller: Caller, *, window: int) -> tuple[Summarizer, ...]:
    """How to get a summary from an endpoint, in the order of trying. Chosen by its profile, never by probing."""
    longest = min(caller.settings.max_tokens, max(1_000, window // 8))
    caller = replace(caller, settings=replace(caller.settings, max_tokens=longest))
    client = (
        ClientSummarizer(caller, knows_blocks=profile.server_compaction),
        TranscriptSummarizer(caller, max_tokens=window // 2),
    )
    return (ServerSummarizer(caller), *client) if profile.server_compaction else client


@dataclass
class HistoryCompactor:
    """`ports.Compactor`. One for each conversation; it counts how often it had to act.

    ``trigger`` and ``window`` are in tokens, ``summarizers`` are tried in order.
    """

    summarizers: Sequence[Summarizer]
    trigger: int = DEFAULT_TRIGGER
    window: int = DEFAULT_WINDOW
    read_facts: ReadFacts | None = None
    plan: Plan | None = None
    _replies_at_last: int | None = field(default=None, init=False)
    _hasty: int = field(default=0, init=False)
    _failures: int = field(default=0, init=False)

    async def maybe_compact(self, conversation: Conversation, *, force: bool = False) -> Compaction | None:
        """See `ports.Compactor`."""
        before = conversation.tokens
        urgent = force or before >= FULL * self.window
        if before < self.trigger and not urgent:
            return None
        soon = self._turns_since(conversation) < MIN_TURNS_BETWEEN
        if soon and not urgent:
            return None
        self._hasty = self._hasty + 1 if soon else 0
        if self._hasty >= MAX_HASTY:
            raise CompactionFailed(
                f"compaction_thrashing: {self._hasty} compactions in a row were needed within {MIN_TURNS_BETWEEN} "
                "turns each. What the tools return fills the context faster than it can be emptied; ask for less."
            )
        # A service that refused the prompt has a smaller window than we think: what was refused is the measure.
        limit = int(MUST_SHRINK_TO * (min(self.trigger, before) if force else self.trigger))
        room = self._room(conversation, limit)
        cut = self._cut(conversation.messages, room)
        summary = await self._summary(conversation, conversation.messages[:cut], urgent=urgent)
        if summary is None:
            return None
        facts = list(await self.read_facts()) if self.read_facts else []
        messages = self._shorter(conversation.messages, cut, summary, facts, room)
        after = _fixed(conversation) + estimate_tokens(messages)
        if after >= limit:
            raise self._ineffective(conversation, f"{after} tokens remain of {before}", limit)
        self._replies_at_last = count_replies(messages)
        return Compaction(
            messages=messages,
            summary=summary.text,
            before_tokens=before,
            after_tokens=after,
            method=summary.method,
        )

    def _turns_since(self, conversation: Conversation) -> float:
        """Replies since the last compaction; infinite if there was none."""
        if self._replies_at_last is None:
            return float("inf")
        return max(0, count_replies(conversation.messages) - self._replies_at_last)

    def _room(self, conversation: Conversation, limit: int) -> int:
        """Tokens that the new messages may have; system prompt and tools stay as they are."""
        room = limit - _fixed(conversation)
        if room < MIN_ROOM:
            raise self._ineffective(conversation, "there is no room for a conversation", limit)
        return room

    def _ineffective(self, conversation: Conversation, what: str, limit: int) -> CompactionFailed:
        return CompactionFailed(
            f"compaction_ineffective: {what}; it must be under {limit} tokens ({MUST_SHRINK_TO:.0%} of what is too "
            f"much), and system prompt and tools alone have {_fixed(conversation)}. Raise --compact-at, connect "
            "fewer tools, or use a model with a larger window."
        )

    async def _summary(self, conversation: Conversation, head: Sequence[Message], *, urgent: bool) -> Summary | None:
        """A summary of ``head``; None if none could be had and it can be tried again at the next turn."""
        problems = []
        for summarizer in self.summarizers:
            try:
                summary = await summarizer.summarize(conversation, head)
            except (AuthFailed, BillingFailed):
                raise
            except (ModelError, NoSummary) as error:
                problems.append(str(error))
            else:
                self._failures = 0
                return summary
        self._failures += 1
        if urgent or self._failures >= MAX_FAILURES:
            raise CompactionFailed(
                f"summary_failed: the conversation must be compacted, but no summary could be had: {problems}"
            )
        return None

    def _shorter(
        self, messages: Sequence[Message], cut: int, summary: Summary, facts: list[Section], room: int
    ) -> list[Message]:
        """The new history. Every part has its share of ``room``; the goal has what the others leave."""
        head, tail = messages[:cut], self._tail(messages[cut:], room)
        earlier, taken = Handover.read(head)
        said = [text for message in head[taken:] if (text := said_by_person(message))]
        goal, *said = (earlier.goal, *earlier.said, *said) if earlier else (said or [""])
        words, left_out = latest_words(said, min(SAID_TOKENS, room // 4))
        sections = [*facts, *harvest(head, handover=earlier.sections if earlier else ())]
        if left_out:
            sections.append(Section("Left out", (f"{left_out} older messages of the user, to save room",)))
        handover = Handover(
            goal="",
            said=tuple(words),
            rules=self.plan.rules.texts if self.plan else (earlier.rules if earlier else ()),
            summary="" if summary.block is not None else shortened(summary.text, _characters(room // 5)),
            plan=self.plan.render() if self.plan else "",
            sections=of_at_most(room // 6, sections),
        )
        start = [] if summary.block is None else [{"role": "assistant", "content": [summary.block]}]
        left = room - estimate_tokens([*start, handover.message(), *tail]) - 50
        handover = replace(handover, goal=shortened(goal, _characters(left)))
        return joined([*start, handover.message(), *tail])

    def _cut(self, messages: Sequence[Message], room: int) -> int:
        """Where the latest turns begin: always with a reply, so that calls and results stay together."""
        limit = self._tail_tokens(room)
        best = len(messages)
        for start in _turn_starts(messages):
            if estimate_tokens(self._tail(messages[start:], room)) > limit:
                break
            best = start
        return best

    def _tail(self, messages: Sequence[Message], room: int) -> list[Message]:
        """The latest turns without thinking; results that are too large are cut in the middle, their ids kept."""
        limit = _characters(self._tail_tokens(room)) // 2
        return [with_smaller_results(message, limit) for message in without_thinking(messages)]

    def _tail_tokens(self, room: int) -> int:
        return min(TAIL_TOKENS, self.trigger // 6, room // 4)


def _turn_starts(messages: Sequence[Message]) -> Iterator[int]:
    """Indices of replies that follow a message of the user, latest first; never inside what was handed over."""
    _, taken = Handover.read(messages)
    for index in range(len(messages) - 1, max(taken, 1) - 1, -1):
        if messages[index]["role"] == "assistant" and messages[index - 1]["role"] == "user":
            yield index


def _fixed(conversation: Conversation) -> int:
    return estimate_tokens(conversation.system) + estimate_tokens(conversation.tools)


def _characters(tokens: int) -> int:
    """Characters that `estimate_tokens` counts as at most ``tokens``."""
    return max(300, int(3.4 * tokens))
