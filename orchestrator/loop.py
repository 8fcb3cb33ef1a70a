"""The loop: ask the model, run what it calls, give it the results, until something ends the run.

Everything it needs is passed in (`ports`); everything that can end it is in `stops`. What it does is in the journal
before it is done, so that `recovery` can take it up again wherever it was killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import anyio

from mlintern.common.clock import Clock
from mlintern.orchestrator import repeated_failures, stops
from mlintern.orchestrator.budget import BudgetExhausted
from mlintern.orchestrator.compaction import CompactionFailed, HistoryCompactor
from mlintern.orchestrator.conversation import Conversation
from mlintern.orchestrator.events import Compacted, Notice, TurnEnded
from mlintern.orchestrator.loop_guard import LoopGuard
from mlintern.orchestrator.messages import without_thinking
from mlintern.orchestrator.model import (
    ContextOverflow,
    HistoryRejected,
    Message,
    ModelError,
    ModelReply,
    ToolUse,
)
from mlintern.orchestrator.paid_calls import PaidCalls
from mlintern.orchestrator.plan import Plan
from mlintern.orchestrator.ports import Hosts, LocalTool
from mlintern.orchestrator.running_jobs import RunningJobs
from mlintern.orchestrator.settings import LoopSettings
from mlintern.orchestrator.stops import Stop
from mlintern.orchestrator.time_left import TimeLeft
from mlintern.orchestrator.tool_runner import Batch, ToolRunner


class Orchestrator:
    """One agent at work on one conversation. `say` gives it something to do, `run` does it."""

    def __init__(
        self,
        *,
        calls: PaidCalls,
        hosts: Hosts,
        conversation: Conversation,
        compactor: HistoryCompactor,
        settings: LoopSettings,
        clock: Clock,
        local: Sequence[LocalTool] = (),
        plan: Plan | None = None,
        denied: Sequence[str] = (),
        started: float | None = None,
    ) -> None:
        self.conversation = conversation
        self.settings = settings
        self.budget = calls.budget
        self.jobs = RunningJobs()
        self.turn = 0
        self.iterations = 0
        self.denied = denied
        self._calls = calls
        self._compactor = compactor
        self._journal, self._ui = calls.journal, calls.ui
        self._guard = LoopGuard(poll_tools=[tool.name for tool in hosts.tools if tool.polls])
        self._tools = ToolRunner(
            hosts=hosts,
            local=local,
            guard=self._guard,
            journal=self._journal,
            ui=self._ui,
            clock=clock,
            jobs=self.jobs,
        )
        self._clock = clock
        self._plan = plan
        self._started = clock.monotonic()
        self.time_left = TimeLeft(
            clock=clock,
            budget=calls.budget,
            jobs=self.jobs,
            hours=settings.hours,
            started=clock.now() if started is None else started,
        )
        self._streaks = repeated_failures.Streaks()
        self._batch: Batch | None = None
        self._waiting: list[str] = []
        self._scope = anyio.CancelScope()
        self._why_cancelled: Stop | None = None
        self._max_tokens = settings.max_tokens

    def say(self, text: str) -> None:
        """Something that a person says: it is on disk and in the history, and the iterations count anew."""
        if self._batch is not None:
            self._waiting.append(text)  # results come before anything else
            return
        self._journal.append("user", text=text)
        self.conversation.add_user(text)
        self._guard.forget()
        self._calls.prefer_own_model()
        self._streaks = repeated_failures.Streaks()
        self.iterations = 0

    def cancel(self, stop: Stop) -> None:
        """End the step that runs now: the run ends with ``stop`` and a valid history."""
        self._why_cancelled = stop
        self._scope.cancel()

    async def run(self) -> Stop:
        """Work until something ends the run; returns what."""
        stop: Stop | None = None
        while stop is None:
            with anyio.CancelScope() as self._scope:
                stop = self._limit() or await self._step()
            if self._scope.cancelled_caught:
                stop = self._close_cancelled_step()
        self._journal.append("stop", name=stop.name, reason=stop.reason, exit_code=stop.exit_code)
        self._ui.show(stop)
        return stop

    def give_up(self, batch: Batch, uses: Sequence[ToolUse], *, text: str) -> None:
        """Answer ``uses`` of ``batch`` with ``text``: nobody knows whether they happened, so they do not run."""
        self._tools.close(Batch(uses, batch.turn, batch.outcomes), text)

    def resume(self, batch: Batch) -> None:
        """Take up the calls of a reply that was in the history when the process died; `run` completes them first."""
        self._batch = batch

    def undo(self) -> str | None:
        """Take back the last thing that a person said and all that followed; returns it. Effects of tools stay."""
        text, kept = self.conversation.before_last_said()
        if text is not None:
            self._rewrite(kept, "undo")
        return text

    async def compact(self) -> bool:
        """Compact now, as ``/compact`` asks; whether anything was done."""
        return await self._compact(force=True)

    def _limit(self) -> Stop | None:
        if self.iterations >= self.settings.max_iterations:
            return stops.max_iterations(self.settings.max_iterations)
        limit = self.settings.max_minutes
        if limit is not None and self._clock.monotonic() - self._started >= limit * 60:
            return stops.max_minutes(limit)
        if self.settings.hours is not None and self.time_left.seconds == 0:
            return stops.hours_over(self.settings.hours)
        return None

    async def _step(self) -> Stop | None:
        if self._batch is not None:
            return await self._finish_batch(self._batch)
        try:
            if not self._streaks.pauses:  # a paused reply must stay the last message
                waiting, self._waiting = self._waiting, []
                for text in (*waiting, *self._ui.typed()):
                    self.say(text)
                await self._compact(force=False)
            reply = await self._ask()
        except BudgetExhausted as exhausted:
            return stops.budget_exhausted(str(exhausted))
        except CompactionFailed as failure:
            return stops.compaction_failed(str(failure))
        except (ContextOverflow, HistoryRejected) as error:
            return await self._repair(error)
        except ModelError as error:
            return stops.model_failed(error)
        return await self._act_on(reply)

    async def _ask(self) -> ModelReply:
        """One reply to the conversation as it is."""
        request = replace(self.conversation.request(self.settings), max_tokens=self._max_tokens)
        if request.cache_ttl is not None and self.jobs.ids:
            request = replace(request, cache_ttl="1h")  # waiting for a job takes longer than five minutes
        self.turn += 1
        self.iterations += 1
        try:
            return await self._calls.ask(request, prompt_tokens=self.conversation.tokens, turn=self.turn)
        except BudgetExhausted:
            self.turn -= 1  # it was never asked
            raise

    async def _act_on(self, reply: ModelReply) -> Stop | None:
        """What each stop reason asks for."""
        self._show_turn(reply)
        match reply.stop_reason:
            case "refusal":
                self._discard(reply, "refused")
                details = reply.stop_details or {}
                return stops.refused(
                    str(details.get("category") or ""),
                    str(details.get("explanation") or ""),
                    named_fallback=self._calls.fallback_model is not None,
                )
            case "model_context_window_exceeded":
                self._discard(reply, "context window exceeded")
                return await self._repair(ContextOverflow("The model's context window is full."))
            case "max_tokens":
                return self._continue_cut(reply)
            case "pause_turn":
                self._streaks.pauses += 1
                if self._streaks.pauses > repeated_failures.MAX_PAUSES:
                    return stops.paused_too_often(repeated_failures.MAX_PAUSES)
                self._keep(reply)
                return None
        if reply.tool_uses:
            self._keep(reply)
            return await self._finish_batch(Batch(reply.tool_uses, self.turn))
        return self._end_of_turn(reply)

    async def _finish_batch(self, batch: Batch) -> Stop | None:
        self._batch = batch
        await self._tools.run(batch)
        return self._add_results(batch)

    def _add_results(self, batch: Batch) -> Stop | None:
        for outcome in batch.outcomes.values():
            if self._plan is not None:
                self._plan.rules.observe(outcome.structured, outcome.text)
        batch.notes += [note for note in (self.budget.warning(), self.time_left.note()) if note]
        self._journal.append("results", notes=batch.notes)
        self.conversation.add_results(batch.results())
        self._batch = None
        self._streaks = repeated_failures.Streaks()
        self._max_tokens = self.settings.max_tokens
        return stops.loop_detected(batch.stopped_by) if batch.stopped_by else None

    def _end_of_turn(self, reply: ModelReply) -> Stop | None:
        """A reply without calls: the end, unless it is empty, the plan has open steps or a person has said more."""
        typed = self._ui.typed()
        if not reply.text.strip() and not typed:
            return self._after_empty(reply)
        if reply.blocks:
            self._keep(reply)
        if typed:
            for text in typed:
                self.say(text)
            return None
        steps = self._plan.open_steps() if self._plan else []
        if steps and self._streaks.plan_prompts < repeated_failures.MAX_PLAN_PROMPTS:
            nudge = self._guard.observe_text(reply.text)
            if nudge is not None and nudge.level == "stop":
                return stops.loop_detected(nudge.pattern)
            self._streaks.plan_prompts += 1
            self._prompt(repeated_failures.OPEN_PLAN.format(steps="; ".join(steps)))
            return None
        if not self.denied and (more := self.time_left.early_end()):
            self._prompt(more)
            return None
        if self.denied:
            return stops.approval_denied(reply.text, list(self.denied))
        return stops.plan_unfinished(reply.text, steps) if steps else stops.done(reply.text)

    def _after_empty(self, reply: ModelReply) -> Stop | None:
        self._discard(reply, "empty")
        if self._streaks.empty:
            return stops.empty_response()
        self._streaks.empty += 1
        self._prompt(repeated_failures.CONTINUE)
        return None

    def _continue_cut(self, reply: ModelReply) -> Stop | None:
        """The reply is at its largest length. A cut call is void; the same request gets more room, once."""
        self._streaks.truncations += 1
        if self._streaks.truncations > repeated_failures.MAX_TRUNCATIONS:
            self._discard(reply, "cut")
            return stops.truncated(reply.text)
        ends_in_call = bool(reply.blocks) and reply.blocks[-1]["type"] == "tool_use"
        larger = min(self.settings.max_output_tokens, self._max_tokens * 2)
        if ends_in_call and larger > self._max_tokens:
            self._discard(reply, "cut inside a call")
            self._max_tokens = larger
            return None
        if reply.tool_uses or not reply.text.strip():
            self._discard(reply, "cut")
            names = ", ".join(use.name for use in reply.tool_uses) or "nothing"
            self._prompt(repeated_failures.CUT_CALLS.format(names=names))
            return None
        self._keep(reply)
        self._prompt(repeated_failures.CUT_TEXT)
        return None

    async def _repair(self, error: ModelError) -> Stop | None:
        """A history that the service does not take: compact it, which also makes it anew; twice in a row at most."""
        self._streaks.repairs += 1
        if self._streaks.repairs > repeated_failures.MAX_REPAIRS:
            return stops.model_failed(error)
        self._ui.show(Notice(text=f"The service did not take the history: {error.message}", level="warning"))
        try:
            if isinstance(error, HistoryRejected):
                # thinking is bound to what stood before it; where the service says that it is not, it goes
                self._rewrite(without_thinking(self.conversation.messages), "thinking_dropped")
                return None
            if await self._compact(force=True):
                return None
        except BudgetExhausted as exhausted:
            return stops.budget_exhausted(str(exhausted))
        except (CompactionFailed, ModelError) as failure:
            return stops.compaction_failed(str(failure))
        return stops.model_failed(error)

    async def _compact(self, *, force: bool) -> bool:
        compaction = await self._compactor.maybe_compact(self.conversation, force=force)
        if compaction is None:
            return False
        self._journal.append("compaction", **vars(compaction))
        self.conversation.replace(compaction.messages, known_tokens=0)
        self._ui.show(
            Compacted(
                before_tokens=compaction.before_tokens,
                after_tokens=compaction.after_tokens,
                method=compaction.method,
            )
        )
        return True

    def _rewrite(self, messages: list[Message], method: str) -> None:
        self._journal.append("compaction", messages=messages, summary="", method=method)
        self.conversation.replace(messages)

    def _close_cancelled_step(self) -> Stop:
        """Leave a valid history: what ran has an outcome, even if that is "unknown"."""
        stop, self._why_cancelled = self._why_cancelled or stops.interrupted(), None
        self._journal.append("interrupt", by=stop.name)
        if self._batch is not None:
            self._tools.close(self._batch)
            self._add_results(self._batch)
        return stop

    def _keep(self, reply: ModelReply) -> None:
        self._journal.append(
            "reply",
            turn=self.turn,
            blocks=reply.blocks,
            stop_reason=reply.stop_reason,
            usage=reply.answered_usage.to_json(),
            request_id=reply.request_id,
            model=reply.model,
            errors={use.id: use.error for use in reply.tool_uses if use.error},
        )
        self.conversation.add_reply(reply)

    def _discard(self, reply: ModelReply, why: str) -> None:
        self._journal.append(
            "discarded", turn=self.turn, stop_reason=reply.stop_reason, usage=reply.usage.to_json(), why=why
        )

    def _prompt(self, text: str) -> None:
        """Something that the loop itself says to the model."""
        self._journal.append("user", text=text, by="loop")
        self.conversation.add_user(text)

    def _show_turn(self, reply: ModelReply) -> None:
        self._ui.show(
            TurnEnded(
                turn=self.turn,
                max_turns=self.settings.max_iterations,
                usage=sum((used for _, used in reply.fallbacks), reply.usage),
                context_tokens=reply.answered_usage.context_tokens,
                usd=self.budget.spent_usd,
                budget_usd=self.budget.limit_usd,
                model=reply.model or self.settings.model,
            )
        )
