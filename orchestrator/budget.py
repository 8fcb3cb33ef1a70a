"""What the model may cost: reserved at its worst before each call, charged at what it was.

One call's worst case always fits what is left, so the limit is passed by at most what a failed attempt of the same
call, or a model that the service asked in its place, cost on top. Sub-agents, compactions and retries draw on the
same money.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence

from mlintern.orchestrator.errors import OrchestratorError
from mlintern.orchestrator.model import ModelRequest, Usage
from mlintern.orchestrator.prices import Price, PriceTable, UnknownPrice

WARN_AT = 0.8
ESTIMATE_MARGIN = 1.1
"""Prompt tokens are partly an estimate; the worst case allows for a tenth more."""

_EPSILON = 1e-9


def today() -> dt.date:
    """The day by which prices apply, in UTC."""
    return dt.datetime.now(dt.UTC).date()


class BudgetExhausted(OrchestratorError):
    """The next call could pass ``--budget-usd``. The text says what was spent and what the call could cost."""


class Reservation:
    """The worst case of one call, held until it is settled."""

    def __init__(self, budget: ModelBudget, price: Price | None, *, worst_usd: float) -> None:
        self.worst_usd = worst_usd
        self._budget = budget
        self._price = price
        self._open = True

    def settle(self, usage: Usage, *, fallbacks: Sequence[tuple[str, Usage]] = ()) -> float:
        """Charge what the call cost and release the rest; returns USD. ``fallbacks``: what other models used.

        Raises:
            RuntimeError: settled before; the money would be released twice.
        """
        if not self._open:
            raise RuntimeError("this reservation is settled")
        self._open = False
        usd = 0.0 if self._price is None else max(0.0, self._price.cost(usage))
        usd += sum(self._budget.cost_of(model, used) for model, used in fallbacks)
        self._budget._settle(self.worst_usd, usd)
        return usd


class ModelBudget:
    """Money for one agent and, through `child`, for its sub-agents. Not for use from several threads.

    Raises:
        UnknownPrice: (from `check` and `reserve`) a limit is set and the model's price is not known.
    """

    def __init__(
        self,
        limit_usd: float | None,
        prices: PriceTable,
        *,
        spent_usd: float = 0.0,
        day: Callable[[], dt.date] = today,
        parent: ModelBudget | None = None,
    ) -> None:
        if limit_usd is not None and limit_usd <= 0:
            raise ValueError(f"a budget must be above zero, not {limit_usd}")
        self.prices = prices
        self._limit = limit_usd
        self._spent = spent_usd
        self._reserved = 0.0
        self._day = day
        self._parent = parent
        self._warned = False

    @property
    def spent_usd(self) -> float:
        """Charged so far, sub-agents included."""
        return self._spent

    @property
    def reserved_usd(self) -> float:
        """Held for calls that are under way."""
        return self._reserved

    @property
    def limit_usd(self) -> float | None:
        return self._limit

    @property
    def left_usd(self) -> float | None:
        """What may still be reserved here, the parent's limit considered; None without any limit."""
        own = None if self._limit is None else self._limit - self._spent - self._reserved
        above = self._parent.left_usd if self._parent else None
        limits = [max(0.0, left) for left in (own, above) if left is not None]
        return min(limits) if limits else None

    def check(self, model: str) -> Price | None:
        """The price of ``model``; None if it is unknown and nothing is limited. Ask before a run starts."""
        try:
            return self.prices.price(model, self._day())
        except UnknownPrice:
            if self._limited:
                raise
            return None

    def cost_of(self, model: str, usage: Usage) -> float:
        """USD for ``usage`` of a model that nobody chose; by the most expensive row where it has no price."""
        try:
            return self.prices.price(model, self._day()).cost(usage)
        except UnknownPrice:
            return max((row.cost(usage) for row in self.prices), default=0.0) if self._limited else 0.0

    def reserve(self, request: ModelRequest, *, prompt_tokens: int) -> Reservation:
        """Hold the worst case of ``request``, whose prompt has about ``prompt_tokens``.

        Raises:
            BudgetExhausted: it does not fit what is left here or above.
        """
        price = self.check(request.model)
        worst = 0.0
        if price is not None:
            worst = price.worst_cost(request, prompt_tokens=int(prompt_tokens * ESTIMATE_MARGIN))
        left = self.left_usd
        if left is not None and worst > left + _EPSILON:
            raise BudgetExhausted(
                f"The next call to {request.model} could cost ${worst:.2f}; ${left:.2f} is left of "
                f"{self._what_is_limited()} (${self.spent_usd:.2f} spent, "
                f"${self.reserved_usd:.2f} held for other calls)."
            )
        self._hold(worst)
        return Reservation(self, price, worst_usd=worst)

    def warning(self) -> str | None:
        """What to tell the model when 80 % of the limit is spent; said once."""
        if self._limit is None or self._warned or self._spent < WARN_AT * self._limit:
            return None
        self._warned = True
        return (
            f"[mlintern budget] ${self._spent:.2f} of ${self._limit:.2f} for the model is spent. Wrap up: save what "
            "is worth keeping, record results and name running jobs; start nothing that needs many more turns."
        )

    def child(self, limit_usd: float | None = None) -> ModelBudget:
        """A budget inside this one: what it spends is spent here, and both limits hold."""
        return ModelBudget(limit_usd, self.prices, day=self._day, parent=self)

    @property
    def _limited(self) -> bool:
        return self._limit is not None or (self._parent is not None and self._parent._limited)

    def _what_is_limited(self) -> str:
        return "the run's budget" if self._limit is None else f"${self._limit:.2f}"

    def _hold(self, usd: float) -> None:
        self._reserved += usd
        if self._parent is not None:
            self._parent._hold(usd)

    def _settle(self, held: float, usd: float) -> None:
        self._reserved = max(0.0, self._reserved - held)
        self._spent += usd
        if self._parent is not None:
            self._parent._settle(held, usd)
