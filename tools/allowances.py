"""What a person allows in advance: ``--allow local<=30m``, ``--allow hf<=5usd``, ``--budget 20``.

`mlintern.common.consent` has the grammar and says what a rule covers. A limit of money holds for all jobs of that
backend together, for as long as the workspace lives.

The budget is the workspace's, over all backends. Within it, priced actions start without a question; past it nothing
priced starts at all, even if a person agrees to it. It says nothing about free actions: those need a rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from mlintern.common.consent import TOLERANCE, Action, BadRule, Rule, covering
from mlintern.tools.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Allowances:
    """Everything a person allowed when the server was started. The default allows nothing.

    ``ceiling_usd`` is the workspace's own budget (``config.toml``): like ``budget_usd`` nothing passes it, but it
    lets nothing start without a question.
    """

    rules: tuple[Rule, ...] = ()
    budget_usd: float | None = None
    ceiling_usd: float | None = None

    @property
    def limit_usd(self) -> float | None:
        """What nothing may pass: the lower of budget and ceiling."""
        given = [usd for usd in (self.budget_usd, self.ceiling_usd) if usd is not None]
        return min(given, default=None)

    @classmethod
    def parse(cls, *, allow: tuple[str, ...] = (), budget_usd: float | None = None) -> Allowances:
        """Read the values of ``--allow`` and ``--budget``.

        Raises:
            BadInput: a rule cannot be read, or the budget is not a finite amount of at least 0.
        """
        if budget_usd is not None and not (math.isfinite(budget_usd) and budget_usd >= 0):
            raise BadInput(
                f"--budget {budget_usd} is not an amount of money.", next_step="Give US dollars: --budget 20."
            )
        try:
            return cls(rules=tuple(map(Rule.parse, allow)), budget_usd=budget_usd)
        except BadRule as error:
            raise BadInput(str(error)) from None

    def within_budget(self, *, usd_spent: float, usd_worst: float | None) -> bool:
        """Whether ``usd_worst`` more than ``usd_spent`` stays within the budget, if there is one.

        An unknown price (None) passes any budget.
        """
        if self.limit_usd is None or usd_worst == 0:
            return True
        return usd_worst is not None and usd_spent + usd_worst <= self.limit_usd + TOLERANCE

    def covers(self, action: Action, *, usd_spent: float, usd_spent_under: Callable[[Rule], float]) -> str | None:
        """The allowance under which ``action`` may start without a question, in the words it was given, or None."""
        if not self.within_budget(usd_spent=usd_spent, usd_worst=action.usd_worst):
            return None
        in_budget = self.budget_usd is not None
        rules = covering(self.rules, action, usd_spent=usd_spent_under, prices_allowed=in_budget)
        if rules is None:
            return None
        return ", ".join(rule.text for rule in rules) or f"budget {self.budget_usd:g} USD"
