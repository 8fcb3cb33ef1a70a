"""What a run of 300 turns costs: the real conversation, compactor and price table over a model that only counts.

Each turn adds 2,500 tokens of results and 500 of reply to a start of 12,000. A request reads the cached prefix that
it shares with the one before and writes the rest. Two questions, each with a bound; exits with 1 when one is missed:

* Is a run at the default threshold at most 1.1 times the optimum of the reference simulation of the same run
  (thresholds of 100k, 170k, 300k and never; sonnet 7.14, opus 14.27, haiku 0.70 USD)?
* Is the default at most 1.1 times our own best threshold, if every compaction costs five further turns in which the
  agent finds again what the summary lost? Counted without such turns, compacting ever earlier is ever cheaper, which
  no one should read as advice; that column is printed, too.
"""

from __future__ import annotations

import datetime as dt
import sys
from dataclasses import dataclass, field
from typing import Any

import anyio

from mlintern.orchestrator.budget import ModelBudget
from mlintern.orchestrator.compaction import HistoryCompactor, default_trigger, summarizers
from mlintern.orchestrator.conversation import Conversation
from mlintern.orchestrator.messages import CHARS_PER_TOKEN, estimate_tokens
from mlintern.orchestrator.model import (
    ANTHROPIC,
    Message,
    ModelReply,
    ModelRequest,
    OnEvent,
    ToolUse,
    Usage,
    ignore_events,
)
from mlintern.orchestrator.paid_calls import PaidCalls
from mlintern.orchestrator.prices import PRICES
from mlintern.orchestrator.settings import LoopSettings
from mlintern.orchestrator.summary import Caller

DAY = dt.date(2026, 11, 23)
TURNS = 300
START_TOKENS = 12_000
RESULT_TOKENS = 2_500
REPLY_TOKENS = 500
SUMMARY_TOKENS = 2_500
THRESHOLDS = (60_000, 80_000, 100_000, 130_000, 170_000, 220_000, 300_000, 10**9)
REFERENCE_USD = {"claude-sonnet-5-5": 7.14, "claude-opus-5-5": 14.27, "claude-haiku-5-5": 0.70}
TURNS_LOST = 5
BOUND = 1.1


@dataclass
class CountingModel:
    """Answers each request with a call or a compaction block, and with the usage that it would be billed."""

    caching: bool
    _previous: list[int] = field(default_factory=list)
    _sizes: dict[int, tuple[Message, int]] = field(default_factory=dict)
    calls: int = 0

    async def call(self, request: ModelRequest, on_event: OnEvent) -> ModelReply:
        self.calls += 1
        ids = [id(message) for message in request.messages]
        shared = 0
        while self.caching and shared < min(len(ids), len(self._previous)) and ids[shared] == self._previous[shared]:
            shared += 1
        fixed = estimate_tokens(request.system) + estimate_tokens(request.tools)
        sizes = [self._size(message) for message in request.messages]
        read = (fixed if self._previous and self.caching else 0) + sum(sizes[:shared])
        fresh = fixed + sum(sizes) - read
        self._previous = ids
        compacts = "compaction" in request.extra
        output = SUMMARY_TOKENS if compacts else REPLY_TOKENS
        usage = Usage(
            cache_read_tokens=read,
            cache_write_5m_tokens=fresh if self.caching else 0,
            input_tokens=0 if self.caching else fresh,
            output_tokens=output,
        )
        if compacts:
            block: dict[str, Any] = {"type": "compaction", "content": text_of(output), "signature": "s"}
            return ModelReply(blocks=[block], stop_reason="compaction", usage=usage)
        use = ToolUse(id=f"toolu_{self.calls}", name="look", arguments={"at": text_of(REPLY_TOKENS - 30)})
        blocks = [{"type": "tool_use", "id": use.id, "name": use.name, "input": use.arguments}]
        return ModelReply(blocks=blocks, stop_reason="tool_use", usage=usage, tool_uses=(use,))

    def _size(self, message: Message) -> int:
        """Counted once a message, which the memo keeps alive so that its id stays its own."""
        if id(message) not in self._sizes:
            self._sizes[id(message)] = (message, estimate_tokens(message["content"]))
        return self._sizes[id(message)][1]


class NoJournal:
    def append(self, kind: str, **fields: Any) -> None:
        pass


class NobodyWatches:
    def show(self, event: object) -> None:
        pass

    def typed(self) -> list[str]:
        return []


def text_of(tokens: int) -> str:
    return "word " * int(tokens * CHARS_PER_TOKEN / 5)


@dataclass(frozen=True)
class Result:
    usd: float
    compactions: int
    largest: int


async def simulate(name: str, threshold: int, *, caching: bool = True, turns_lost: int = 0) -> Result:
    """One run; a compaction is followed by ``turns_lost`` turns that do not count."""
    model = CountingModel(caching)
    budget = ModelBudget(None, PRICES, day=lambda: DAY)
    conversation = Conversation(system=text_of(START_TOKENS - 100), tools=[{"name": "look", "input_schema": {}}])
    conversation.add_user("Train the best model under 1B.")
    settings = LoopSettings(model=name, max_tokens=32_000, caching=caching)
    calls = PaidCalls(model=model, budget=budget, journal=NoJournal(), ui=NobodyWatches())
    caller = Caller(calls=calls, settings=settings)
    window = 10**9
    compactor = HistoryCompactor(summarizers(ANTHROPIC, caller, window=window), trigger=threshold, window=window)
    compactions = largest = done = 0
    turns = TURNS
    while done < turns:
        compaction = await compactor.maybe_compact(conversation)
        if compaction is not None:
            compactions += 1
            turns += turns_lost
            conversation.replace(compaction.messages)
        largest = max(largest, conversation.tokens)
        request = conversation.request(settings)
        reservation = budget.reserve(request, prompt_tokens=conversation.tokens)
        reply = await model.call(request, ignore_events)
        reservation.settle(reply.usage)
        conversation.add_reply(reply)
        result = {"type": "tool_result", "tool_use_id": reply.tool_uses[0].id, "content": text_of(RESULT_TOKENS)}
        conversation.add_results([result])
        done += 1
    return Result(budget.spent_usd, compactions, largest)


def run(name: str, threshold: int, **options: Any) -> Result:
    async def simulated() -> Result:
        return await simulate(name, threshold, **options)

    return anyio.run(simulated)


def report(name: str) -> bool:
    """Print one model's table; whether both bounds hold."""
    default = default_trigger(PRICES.price(name, DAY))
    thresholds = sorted({*THRESHOLDS, default})
    plain = {threshold: run(name, threshold) for threshold in thresholds}
    lossy = {threshold: run(name, threshold, turns_lost=TURNS_LOST) for threshold in thresholds}
    best = min(thresholds, key=lambda threshold: lossy[threshold].usd)
    print(f"\n{name}: default threshold {default:,}")
    print(f"  {'compact at':>12} {'compactions':>12} {'largest':>10} {'USD':>8} {f'USD, {TURNS_LOST} lost':>12}")
    for threshold in thresholds:
        mark = (" <- default" if threshold == default else "") + (" <- best" if threshold == best else "")
        at, one = "never" if threshold == 10**9 else f"{threshold:,}", plain[threshold]
        costs = f"{one.usd:8.2f} {lossy[threshold].usd:12.2f}"
        print(f"  {at:>12} {one.compactions:12d} {one.largest:10,} {costs}{mark}")
    against_reference = plain[default].usd / REFERENCE_USD[name]
    against_best = lossy[default].usd / lossy[best].usd
    print(f"  at the default without caching: {run(name, default, caching=False).usd:.2f} USD")
    print(f"  default / optimum of the reference: {against_reference:.3f} (bound {BOUND})")
    print(f"  default / own best with {TURNS_LOST} turns lost: {against_best:.3f} (bound {BOUND})")
    return against_reference <= BOUND and against_best <= BOUND


def main() -> int:
    print(f"{TURNS} turns of {RESULT_TOKENS:,} + {REPLY_TOKENS} tokens, USD for the model")
    held = [report(name) for name in REFERENCE_USD]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
