"""Run the calls of one reply: in parallel, each failing alone, each on disk before it starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlintern.common.clock import Clock
from mlintern.common.text import did_you_mean
from mlintern.orchestrator.call_progress import listening
from mlintern.orchestrator.events import GuardFired, ToolFinished, ToolProgress, ToolStarted
from mlintern.orchestrator.loop_guard import LoopGuard
from mlintern.orchestrator.model import Block, ToolUse
from mlintern.orchestrator.ports import Hosts, Journal, LocalTool, Ui
from mlintern.orchestrator.running_jobs import RunningJobs
from mlintern.orchestrator.task_groups import task_group
from mlintern.orchestrator.tool import Tool, ToolOutcome

MAX_CALLS = 50
INTERRUPTED = "Interrupted; whether it happened is unknown. Look at the state before you repeat it."

INTERRUPTED_READING = "Interrupted before it answered. It only reads, so it may be asked again."


@dataclass
class Batch:
    """The calls of one reply and what became of them; complete once every call has an outcome."""

    uses: Sequence[ToolUse]
    turn: int
    outcomes: dict[str, ToolOutcome] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    stopped_by: str | None = None

    def results(self) -> list[Block]:
        """The ``tool_result`` blocks in the order of the calls, notes inside the last one."""
        blocks = [result_block(use.id, self.outcomes[use.id]) for use in self.uses]
        return with_notes(blocks, self.notes)


class ToolRunner:
    """Knows every tool of the session: those of the MCP servers and the orchestrator's own."""

    def __init__(
        self,
        *,
        hosts: Hosts,
        local: Sequence[LocalTool],
        guard: LoopGuard,
        journal: Journal,
        ui: Ui,
        clock: Clock,
        jobs: RunningJobs,
    ) -> None:
        self._hosts = hosts
        self._local = {each.tool.name: each for each in local}
        self._guard = guard
        self._journal = journal
        self._ui = ui
        self._clock = clock
        self._jobs = jobs
        self._tools = {tool.name: tool for tool in (*hosts.tools, *(each.tool for each in local))}
        self._last_answer: dict[str, float] = {}

    @property
    def tools(self) -> tuple[Tool, ...]:
        """All tools, sorted by name."""
        return tuple(tool for _, tool in sorted(self._tools.items()))

    async def run(self, batch: Batch) -> None:
        """Run every call of ``batch`` that has no outcome yet, then let the guard see them in order.

        Cancelled, it leaves the batch as far as it came; `close` completes it.
        """
        async with task_group() as tasks:
            for position, use in enumerate(batch.uses):
                if use.id not in batch.outcomes:
                    tasks.start_soon(self._run_one, batch, use, position)
        for use in batch.uses:
            self._watch(batch, use)

    def close(self, batch: Batch, text: str = INTERRUPTED) -> None:
        """Give every call without an outcome an error: of those that do not only read, the outcome is unknown."""
        for use in batch.uses:
            if use.id not in batch.outcomes:
                tool = self._tools.get(use.name)
                reads = text == INTERRUPTED and tool is not None and tool.side_effect == "read_only"
                outcome = ToolOutcome.error(INTERRUPTED_READING if reads else text, unknown=not reads)
                self._finish(batch, use, outcome, seconds=0.0)

    async def _run_one(self, batch: Batch, use: ToolUse, position: int) -> None:
        obstacle = self._obstacle(use, position)
        if obstacle is not None:
            self._finish(batch, use, ToolOutcome.error(obstacle), seconds=0.0)
            return
        assert use.arguments is not None, "a call without arguments has an obstacle"
        await self._hold_back(use.name, use.arguments)
        tool = self._tools[use.name]
        self._journal.append(
            "tool_start",
            id=use.id,
            name=use.name,
            side_effect=tool.side_effect,
            server=tool.server,
            arguments_sha256=_digest(use.arguments),
        )
        self._ui.show(ToolStarted(id=use.id, name=use.name, arguments=use.arguments, server=tool.server))
        started = self._clock.monotonic()
        local = self._local.get(use.name)
        with listening(lambda done, total, said: self._show_progress(use, done, total, said)):
            outcome = await (local.call(use.arguments) if local else self._hosts.call(use.name, use.arguments))
        self._finish(batch, use, outcome, seconds=self._clock.monotonic() - started)

    def _show_progress(self, use: ToolUse, done: float, total: float | None, said: str) -> None:
        self._ui.show(ToolProgress(id=use.id, name=use.name, progress=done, total=total, message=said))

    def _obstacle(self, use: ToolUse, position: int) -> str | None:
        """Why the call must not run, in words for the model."""
        if use.arguments is None:
            return f"Not executed: the arguments are {use.error or 'no JSON object'}. Send the whole call again."
        if use.name not in self._tools:
            return f"There is no tool {use.name!r}. {did_you_mean(use.name, self._tools, otherwise='')}".rstrip()
        if position >= MAX_CALLS:
            return f"Not executed: at most {MAX_CALLS} calls a turn. Make this one in the next turn."
        return self._guard.refusal(name=use.name, arguments=use.arguments)

    async def _hold_back(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Space out polls whose answer does not change: waiting should cost time, not tokens."""
        pause = self._guard.pause_before(name=name, arguments=arguments)
        if pause > 0:
            since = self._clock.monotonic() - self._last_answer.get(_digest([name, arguments]), 0.0)
            if since < pause:
                await self._clock.sleep(pause - since)

    def _finish(self, batch: Batch, use: ToolUse, outcome: ToolOutcome, *, seconds: float) -> None:
        self._journal.append(
            "tool_end",
            id=use.id,
            name=use.name,
            content=outcome.content,
            is_error=outcome.is_error,
            unknown=outcome.unknown,
            seconds=round(seconds, 3),
        )
        batch.outcomes[use.id] = outcome
        self._last_answer[_digest([use.name, use.arguments])] = self._clock.monotonic()
        self._jobs.observe(outcome.structured, outcome.text)
        self._ui.show(ToolFinished(id=use.id, name=use.name, outcome=outcome, seconds=seconds))

    def _watch(self, batch: Batch, use: ToolUse) -> None:
        outcome = batch.outcomes[use.id]
        nudge = self._guard.observe(
            name=use.name,
            arguments=use.arguments or {},
            result=outcome.text,
            is_error=outcome.is_error,
            turn=batch.turn,
        )
        if nudge is None:
            return
        self._journal.append("guard", level=nudge.level, pattern=nudge.pattern, text=nudge.text)
        self._ui.show(GuardFired(level=nudge.level, text=nudge.text))
        if nudge.level == "stop":
            batch.stopped_by = nudge.pattern
        batch.notes.append(nudge.text)


def result_block(tool_use_id: str, outcome: ToolOutcome) -> Block:
    """The ``tool_result`` of one call."""
    block: Block = {"type": "tool_result", "tool_use_id": tool_use_id, "content": outcome.content}
    return block | {"is_error": True} if outcome.is_error else block


def with_notes(results: list[Block], notes: Sequence[str]) -> list[Block]:
    """``results`` with ``notes`` as text inside the last: text after the results would teach empty turns."""
    if not notes or not results:
        return results
    last = results[-1]
    content = [*last["content"], *({"type": "text", "text": note} for note in notes)]
    return [*results[:-1], last | {"content": content}]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
