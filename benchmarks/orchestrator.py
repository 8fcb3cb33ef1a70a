"""Does the orchestrator itself cost nothing, however long a run gets?

A run of 300 turns, each with a call and a result of 2,500 tokens, never compacted: the real loop, tool runner, guard,
budget, session on disk (with its fsyncs) and conversation, over a model and a tool that answer at once. Measured:

* own time a turn (all of it but the model's and the tool's) around turn 10 and around turn 290, the best of five
  runs: at most 15 ms, and at most 1.5 times apart;
* the largest memory of the process that did it, with all that the command imports: at most 250 MB;
* reading the session back, from the file to a conversation that is ready to go on: at most 1 s.

Exits with 1 when a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import anyio

from mlintern.common.clock import SystemClock
from mlintern.orchestrator.assemble import system_text
from mlintern.orchestrator.budget import ModelBudget
from mlintern.orchestrator.compaction import HistoryCompactor
from mlintern.orchestrator.conversation import Conversation
from mlintern.orchestrator.loop import Orchestrator
from mlintern.orchestrator.model import ModelReply, ModelRequest, OnEvent, ToolUse, Usage
from mlintern.orchestrator.paid_calls import PaidCalls
from mlintern.orchestrator.prices import PRICES
from mlintern.orchestrator.recovery import recover
from mlintern.orchestrator.session import Session, read_events
from mlintern.orchestrator.settings import LoopSettings
from mlintern.orchestrator.tool import Tool, ToolOutcome

TURNS = 300
RUNS = 5
RESULT_TOKENS = 2_500
EARLY, LATE = 10, 290
AROUND = 6
OWN_TIME_BOUND_MS = 15.0
GROWTH_BOUND = 1.5
MEMORY_BOUND_MB = 250.0
RECOVERY_BOUND_S = 1.0
NEVER = 10**9


@dataclass
class Stopwatch:
    """When each request came, and how much of the time since belongs to others."""

    requests: list[float] = field(default_factory=list)
    elsewhere: list[float] = field(default_factory=lambda: [0.0])

    def own_ms(self, turn: int) -> float:
        """Milliseconds of turn ``turn`` (1-based) that are the orchestrator's own."""
        whole = self.requests[turn] - self.requests[turn - 1]
        return (whole - (self.elsewhere[turn] - self.elsewhere[turn - 1])) * 1000


@dataclass
class InstantModel:
    """Answers with a call, at once; its time is not ours."""

    watch: Stopwatch

    async def call(self, request: ModelRequest, on_event: OnEvent) -> ModelReply:
        began = time.perf_counter()
        number = len(self.watch.requests)
        self.watch.requests.append(began)
        arguments = {"path": f"logs/run-{number}.txt", "offset": number}
        block = {"type": "tool_use", "id": f"toolu_{number:04d}", "name": "read", "input": arguments}
        thought = {"type": "thinking", "thinking": "What does the log say? " * 20, "signature": "s" * 300}
        reply = ModelReply(
            blocks=[thought, {"type": "text", "text": "I read the next log."}, block],
            stop_reason="tool_use",
            usage=Usage(cache_read_tokens=12_000 + 3_000 * number, output_tokens=500),
            tool_uses=(ToolUse(id=block["id"], name="read", arguments=arguments),),
            model=request.model,
        )
        self.watch.elsewhere.append(self.watch.elsewhere[-1] + time.perf_counter() - began)
        return reply


@dataclass
class InstantTools:
    """One tool with a result of 2,500 tokens: lines of a training log, each time new ones."""

    watch: Stopwatch
    tools: tuple[Tool, ...] = (
        Tool(name="read", description="Reads.", input_schema={"type": "object"}, side_effect="read_only"),
    )

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolOutcome:
        began = time.perf_counter()
        step = arguments["offset"] * 200
        lines = []
        while sum(map(len, lines[-1:])) * len(lines) < RESULT_TOKENS * 3.5:
            lines.append(f"2026-11-23 05:14:32 step {step + len(lines)} loss {1 / (step + 1):.6f} grad_norm 0.31\n")
        outcome = ToolOutcome(content=[{"type": "text", "text": "".join(lines)}])
        self.watch.elsewhere[-1] += time.perf_counter() - began
        return outcome


class NobodyWatches:
    def show(self, event: object) -> None:
        pass

    def typed(self) -> list[str]:
        return []


async def run(folder: Path) -> dict[str, Any]:
    """One run; its session stays in ``folder``."""
    watch, clock = Stopwatch(), SystemClock()
    tools = InstantTools(watch)
    with Session.create(folder, clock=clock) as session:
        session.append("session_start", model="claude-sonnet-5-5", profile="anthropic", system="s", tools=[])
        calls = PaidCalls(
            model=InstantModel(watch), budget=ModelBudget(None, PRICES), journal=session, ui=NobodyWatches()
        )
        orchestrator = Orchestrator(
            calls=calls,
            hosts=tools,
            conversation=Conversation(system=system_text({}), tools=[tool.definition() for tool in tools.tools]),
            compactor=HistoryCompactor((), trigger=NEVER, window=NEVER),
            settings=LoopSettings(model="claude-sonnet-5-5", caching=True, max_iterations=TURNS),
            clock=clock,
        )
        orchestrator.say("Read all logs.")
        stop = await orchestrator.run()
    assert stop.name == "max_iterations", stop
    anthropic.AsyncAnthropic(api_key="-")  # in memory as it is in a real run

    def around(turn: int) -> float:
        return statistics.median(
            watch.own_ms(each) for each in range(turn - AROUND, turn + AROUND + 1) if each < TURNS
        )

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
    return {"early_ms": around(EARLY), "late_ms": around(LATE), "peak_mb": peak, "session": session.id}


def recovery_seconds(folder: Path) -> float:
    """Seconds from the file to a conversation that could send its next request; the best of three."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        found = recover(read_events(folder))
        conversation = Conversation(system="s", tools=[], messages=found.messages, known_tokens=found.known_tokens)
        conversation.request(LoopSettings(model="m", max_tokens=1000))
        assert found.turn == TURNS and conversation.tokens > 0
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the orchestrator's own time, memory and recovery.")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.inside:
        print(json.dumps(anyio.run(run, chosen.inside)))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, __file__, "--inside", scratch]
        runs = [
            json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            for _ in range(RUNS)
        ]
        recovery = recovery_seconds(Path(scratch) / runs[0]["session"])
    early, late = (min(run[name] for run in runs) for name in ("early_ms", "late_ms"))
    memory = max(run["peak_mb"] for run in runs)
    rows = [
        ("own time around turn 10", early, OWN_TIME_BOUND_MS, "ms"),
        ("own time around turn 290", late, OWN_TIME_BOUND_MS, "ms"),
        ("turn 290 against turn 10", late / early, GROWTH_BOUND, "times"),
        ("memory at 300 turns of 2.5k tokens", memory, MEMORY_BOUND_MB, "MB"),
        ("recovery of that session", recovery, RECOVERY_BOUND_S, "s"),
    ]
    print(f"{'':36} {'measured':>10} {'bound':>8}")
    for name, value, bound, unit in rows:
        print(f"{name:36} {value:>10.2f} {bound:>8.2f} {unit:6}{'' if value <= bound else '  MISSED'}")
    return 0 if all(value <= bound for _, value, bound, _ in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
