"""What a person allows in advance: ``--allow local<=30m``, ``--allow hf<=5usd``, ``--budget 20``.

A limit of time holds for each job, and speaks only for what is free of charge: any number of one-hour jobs can cost
any amount. A limit of money holds for all jobs of that backend together, for as long as the workspace lives. Where
several rules name one backend, an action must satisfy them all.

The budget is the workspace's, over all backends. Within it, priced actions start without a question; past it nothing
priced starts at all, whoever agrees to it. It says nothing about free actions: those need a rule of their own.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from mlintern.tools.errors import BadInput

RULE = re.compile(
    r"(?P<backend>[a-z][a-z0-9_-]*)\s*<=\s*(?P<amount>\d+(?:\.\d+)?)\s*(?P<unit>[a-z]+|\$)", re.IGNORECASE
)
HOURS_PER_UNIT = {"s": 1 / 3600, "m": 1 / 60, "min": 1 / 60, "h": 1.0}
MONEY_UNITS = frozenset({"usd", "$"})
SHORT_NAMES = {"hf": "hf_jobs"}
TOLERANCE = 1e-9
"""Prices are sums of binary fractions; a limit is not passed by a rounding error."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One ``--allow``: ``hours`` for each action, or ``usd`` for all actions on ``backend`` together."""

    backend: str
    kind: Literal["hours", "usd"]
    limit: float
    text: str

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read ``local<=30m``, ``slurm<=2h`` or ``hf<=5usd``.

        Raises:
            BadInput: it is not of the form BACKEND<=AMOUNT with a unit s, m, h or usd.
        """
        match = RULE.fullmatch(text.strip())
        unit = match["unit"].lower() if match else ""
        if match is None or (unit not in HOURS_PER_UNIT and unit not in MONEY_UNITS):
            raise BadInput(
                f"--allow {text!r} is not an allowance.",
                next_step="Write BACKEND<=AMOUNT with a unit: local<=30m, slurm<=2h, hf<=5usd.",
            )
        amount = float(match["amount"])
        backend = SHORT_NAMES.get(match["backend"].lower(), match["backend"].lower())
        if unit in MONEY_UNITS:
            return cls(backend=backend, kind="usd", limit=amount, text=text.strip())
        return cls(backend=backend, kind="hours", limit=amount * HOURS_PER_UNIT[unit], text=text.strip())


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
        return cls(rules=tuple(Rule.parse(text) for text in allow), budget_usd=budget_usd)

    def rules_for(self, backend: str) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.rules if rule.backend == backend)

    def within_budget(self, *, usd_spent: float, usd_worst: float | None) -> bool:
        """Whether ``usd_worst`` more than ``usd_spent`` stays within the budget, if there is one.

        An unknown price (None) passes any budget.
        """
        if self.limit_usd is None or usd_worst == 0:
            return True
        return usd_worst is not None and usd_spent + usd_worst <= self.limit_usd + TOLERANCE

    def covers(
        self,
        *,
        backend: str,
        hours: float,
        usd_worst: float | None,
        usd_spent: float,
        usd_spent_on_backend: float,
    ) -> str | None:
        """The allowance under which an action may start without a question, in the words it was given, or None."""
        if usd_worst is None or not self.within_budget(usd_spent=usd_spent, usd_worst=usd_worst):
            return None
        rules = self.rules_for(backend)
        for rule in rules:
            asked = hours if rule.kind == "hours" else usd_spent_on_backend + usd_worst
            if asked > rule.limit + TOLERANCE:
                return None
        if usd_worst > 0 and not any(rule.kind == "usd" for rule in rules) and self.budget_usd is None:
            return None
        if rules:
            return ", ".join(rule.text for rule in rules)
        return f"budget {self.budget_usd:g} USD" if usd_worst > 0 else None
