"""Ask a model: money is held before the call, the call is on the record, and what it cost is charged afterwards.

The turns of the loop and the summaries of a compaction take this one way. A model that declines (``refusal``) does
not end the run: the same request goes once to another model, and what that cost is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mlintern.orchestrator.budget import BudgetExhausted, ModelBudget
from mlintern.orchestrator.events import Notice
from mlintern.orchestrator.messages import CHARS_PER_TOKEN, without_thinking
from mlintern.orchestrator.model import (
    BadRequest,
    HistoryRejected,
    ModelClient,
    ModelError,
    ModelEvent,
    ModelReply,
    ModelRequest,
    ReplyStarted,
    Retrying,
    Usage,
)
from mlintern.orchestrator.ports import Journal, Ui

TURN = "turn"
"""What a call is for, on the session's record, where it is a turn of the loop."""


class PaidCalls:
    """Calls to models of one agent.

    ``fallback_model`` answers where the requested model declines and the service itself asks no other; without one it
    is the model that the service recommends, if it does. Once it has answered it also takes the turns that follow,
    until `prefer_own_model`: the history that was declined is still there.
    """

    def __init__(
        self, *, model: ModelClient, budget: ModelBudget, journal: Journal, ui: Ui, fallback_model: str | None = None
    ) -> None:
        self.budget = budget
        self._model = model
        self.journal = journal
        self.ui = ui
        self.fallback_model = fallback_model
        self._in_charge: str | None = None

    def prefer_own_model(self) -> None:
        """Ask the requested model again: a person has said something new."""
        self._in_charge = None

    async def ask(
        self, request: ModelRequest, *, prompt_tokens: int, turn: int | None = None, purpose: str = TURN
    ) -> ModelReply:
        """One reply to ``request``, paid for whatever becomes of it. Calls that are no turn are not shown.

        Raises:
            BudgetExhausted: its worst case does not fit what is left.
            ModelError: no usable reply.
        """
        stand_in = self._in_charge if purpose == TURN else None
        if stand_in is not None:
            reply = await self._ask(_for_other(request, stand_in), prompt_tokens, turn, purpose)
            return _without_thinking(reply)
        reply = await self._ask(request, prompt_tokens, turn, purpose)
        if reply.fallbacks:
            self._say_who_answered(request.model, reply)
        if reply.stop_reason != "refusal" or "compaction" in request.extra:
            return reply
        return await self._ask_other(request, reply, prompt_tokens, turn, purpose)

    async def _ask_other(
        self, request: ModelRequest, declined: ModelReply, prompt_tokens: int, turn: int | None, purpose: str
    ) -> ModelReply:
        details = declined.stop_details or {}
        other = self.fallback_model or details.get("recommended_model")
        if not other or other == request.model:
            return declined
        problem = "no request to it was accepted"
        for attempt in _attempts(request, other, details.get("fallback_credit_token")):
            before = self.budget.spent_usd
            try:
                reply = await self._ask(attempt, prompt_tokens, turn, purpose)
            except (HistoryRejected, BadRequest) as error:
                problem = str(error)
                continue
            except (ModelError, BudgetExhausted) as error:
                problem = str(error)
                break
            self.journal.append(
                "discarded", turn=turn, stop_reason="refusal", usage=declined.usage.to_json(), why="refused"
            )
            self._say_declined(request.model, declined, f"{other} answered, ${self.budget.spent_usd - before:.4f}")
            if purpose == TURN and reply.stop_reason != "refusal":
                self._in_charge = other
            return _without_thinking(reply)
        self._say_declined(request.model, declined, f"{other} could not be asked: {problem}")
        return declined

    async def _ask(self, request: ModelRequest, prompt_tokens: int, turn: int | None, purpose: str) -> ModelReply:
        reservation = self.budget.reserve(request, prompt_tokens=prompt_tokens)
        if purpose == TURN:
            self.journal.append("request", turn=turn, model=request.model, worst_usd=reservation.worst_usd)
        else:
            self.journal.append("side_request", what=purpose, model=request.model, worst_usd=reservation.worst_usd)
        meter = Meter(self.ui if purpose == TURN else None, self.journal)
        paid: Usage | None = None
        fallbacks: tuple[tuple[str, Usage], ...] = ()
        try:
            reply = await self._model.call(request, meter.take)
            paid, fallbacks = reply.usage + reply.discarded, reply.fallbacks
            return reply
        except ModelError as error:
            paid = error.usage
            raise
        finally:
            paid = paid if paid is not None else meter.usage  # cancelled: what had arrived until then
            usd = reservation.settle(paid, fallbacks=fallbacks)
            whole = sum((used for _, used in fallbacks), paid)
            self.journal.append("spend", usd=usd, usage=whole.to_json(), what=purpose)

    def _say_who_answered(self, requested: str, reply: ModelReply) -> None:
        answered, usage = reply.fallbacks[-1]
        cost = self.budget.cost_of(answered, usage)
        self.ui.show(Notice(text=f"{requested} declined; {answered} answered, ${cost:.4f}.", level="warning"))

    def _say_declined(self, requested: str, declined: ModelReply, what_followed: str) -> None:
        category = (declined.stop_details or {}).get("category")
        about = f" ({category})" if category else ""
        self.ui.show(Notice(text=f"{requested} declined{about}; {what_followed}.", level="warning"))


def _attempts(request: ModelRequest, model: str, credit_token: str | None) -> Iterator[ModelRequest]:
    """The same request to ``model``: with the token that saves paying for the cached prompt twice, then without.

    The token holds for the unchanged body alone.
    """
    if credit_token:
        token = {"token": credit_token, "mode": "best_effort"}
        yield replace(request, model=model, extra={**request.extra, "fallback_credit_token": token})
    yield _for_other(request, model)


def _for_other(request: ModelRequest, model: str) -> ModelRequest:
    """``request`` for another model: thinking is bound to the model that thought, its settings may not fit."""
    messages = without_thinking(request.messages)
    return replace(request, model=model, messages=messages, thinking=None, effort=None)


def _without_thinking(reply: ModelReply) -> ModelReply:
    """``reply`` without thinking, which the model that takes the next turns could not read."""
    return replace(reply, blocks=[block for block in reply.blocks if "thinking" not in block["type"]])


class Meter:
    """Passes a call's events on and estimates what it cost until now, for when it is cancelled."""

    def __init__(self, ui: Ui | None, journal: Journal) -> None:
        self._ui = ui
        self._journal = journal
        self._failed = Usage()
        self._prompt = Usage()
        self._chars = 0

    def take(self, event: ModelEvent) -> None:
        match event:
            case Retrying(error, attempt, wait_seconds):
                self._journal.append("retry", error=str(error), attempt=attempt, wait_seconds=wait_seconds)
                self._failed, self._prompt, self._chars = self._failed + error.usage, Usage(), 0
            case ReplyStarted(usage):
                self._prompt = usage
            case _:
                self._chars += len(getattr(event, "text", ""))
        if self._ui is not None:
            self._ui.show(event)

    @property
    def usage(self) -> Usage:
        """Attempts that failed as they reported it, the running one by what has arrived of it."""
        arrived = int(self._chars / CHARS_PER_TOKEN)
        return self._failed + self._prompt + Usage(output_tokens=max(0, arrived - self._prompt.output_tokens))
