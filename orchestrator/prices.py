"""What models cost and how much they take: one table, every row with its source and the day it applies from.

Rates are USD per million tokens. Read rates are no fixed share of the input rate, and some models charge a whole
request at higher rates once its prompt is long, so each class of tokens has a column of its own.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from mlintern.common.text import did_you_mean
from mlintern.orchestrator.errors import OrchestratorError
from mlintern.orchestrator.model import CacheTtl, ModelRequest, Usage

MILLION = 1_000_000


class UnknownPrice(OrchestratorError):
    """Nobody said what this model costs, so a budget for it would be a guess."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """USD per million tokens of each class."""

    input: float
    output: float
    cache_write_5m: float
    cache_write_1h: float
    cache_read: float

    def cost(self, usage: Usage) -> float:
        """USD for ``usage``."""
        return (
            usage.input_tokens * self.input
            + usage.output_tokens * self.output
            + usage.cache_write_5m_tokens * self.cache_write_5m
            + usage.cache_write_1h_tokens * self.cache_write_1h
            + usage.cache_read_tokens * self.cache_read
        ) / MILLION

    def dearest_prompt(self, ttl: CacheTtl | None) -> float:
        """The highest rate at which a prompt token of a request with this cache setting can be charged."""
        written = {"5m": self.cache_write_5m, "1h": self.cache_write_1h}
        return max(self.input, self.cache_read, *([written[ttl]] if ttl else []))


@dataclass(frozen=True, kw_only=True)
class Price:
    """One row: what ``model`` costs from ``since`` on.

    A request with more than ``long_over`` prompt tokens is charged at ``long``, all of it. ``window`` and
    ``max_output`` are in tokens.
    """

    model: str
    rates: Rates
    source: str
    since: dt.date = dt.date.min
    long_over: int | None = None
    long: Rates | None = None
    window: int | None = None
    max_output: int | None = None

    def rates_for(self, prompt_tokens: int) -> Rates:
        """The rates of a request with a prompt of this length."""
        if self.long is not None and self.long_over is not None and prompt_tokens > self.long_over:
            return self.long
        return self.rates

    def cost(self, usage: Usage) -> float:
        """USD for one request."""
        return self.rates_for(usage.prompt_tokens).cost(usage)

    def worst_cost(self, request: ModelRequest, *, prompt_tokens: int) -> float:
        """USD at most for ``request``: nothing of the prompt in the cache, the reply as long as allowed."""
        rates = self.rates_for(prompt_tokens)
        prompt = prompt_tokens * rates.dearest_prompt(request.cache_ttl)
        return (prompt + request.max_tokens * rates.output) / MILLION


class PriceTable:
    """Prices by model and day. Dated snapshots (``-20251001``) cost what their model costs."""

    def __init__(self, rows: Iterable[Price]) -> None:
        self._rows: dict[str, list[Price]] = {}
        for row in rows:
            self._rows.setdefault(row.model, []).append(row)
            self._rows[row.model].sort(key=lambda each: each.since)

    def price(self, model: str, day: dt.date) -> Price:
        """The price of ``model`` on ``day``.

        Raises:
            UnknownPrice: the table has none, or none that early.
        """
        rows = self._rows.get(model) or self._rows.get(re.sub(r"-\d{8}$", "", model)) or []
        valid = [row for row in rows if row.since <= day]
        if valid:
            return valid[-1]
        hint = did_you_mean(model, (name for name in self._rows if name != model), otherwise="")
        raise UnknownPrice(
            f"The price of the model {model!r} is not known. {hint} Give it (--price-in and --price-out, USD per "
            "million tokens; 0 for a model of your own), or run without --budget-usd."
        )

    def with_price(
        self, model: str, *, input: float, output: float, cache_read: float | None = None, window: int | None = None
    ) -> PriceTable:
        """This table with a price that a person gave. Without a read rate, cached tokens count in full.

        Raises:
            ValueError: a negative price.
        """
        if min(input, output, cache_read or 0.0) < 0:
            raise ValueError(f"a price cannot be negative: {input}, {output}, {cache_read}")
        rates = Rates(
            input=input,
            output=output,
            cache_write_5m=1.25 * input,
            cache_write_1h=2.0 * input,
            cache_read=input if cache_read is None else cache_read,
        )
        given = Price(model=model, rates=rates, source="given on the command line", window=window)
        others = [row for rows in self._rows.values() for row in rows if row.model != model]
        return PriceTable([*others, given])

    def __iter__(self) -> Iterator[Price]:
        return (row for rows in self._rows.values() for row in rows)


def _rates(input: float, output: float, write_5m: float, write_1h: float, read: float) -> Rates:
    return Rates(input=input, output=output, cache_write_5m=write_5m, cache_write_1h=write_1h, cache_read=read)


_DOC = "platform documentation, models and pricing, November 2026"
_REPORTED = "reported by two independent price lists, November 2026"

_SONNET_5 = Price(
    model="claude-sonnet-5",
    rates=_rates(2, 10, 2.50, 4, 0.20),
    source=_DOC,
    window=1_000_000,
    max_output=128_000,
)
_OPUS_5 = Price(
    model="claude-opus-5", rates=_rates(5, 25, 6.25, 10, 0.50), source=_DOC, window=1_000_000, max_output=128_000
)
_SONNET_4 = Price(
    model="claude-sonnet-4-6", rates=_rates(3, 15, 3.75, 6, 0.30), source=_DOC, window=1_000_000, max_output=64_000
)

PRICES = PriceTable(
    [
        replace(_SONNET_5, model="claude-sonnet-5-5"),
        replace(
            _SONNET_5,
            model="claude-sonnet-5-5",
            since=dt.date(2026, 10, 7),
            rates=_rates(2, 10, 2.50, 4, 0.10),
            source=f"{_DOC}; the lower read rate also {_REPORTED}",
        ),
        _SONNET_5,
        _SONNET_4,
        replace(_SONNET_4, model="claude-sonnet-4-5", window=200_000),
        Price(
            model="claude-opus-5-5",
            rates=_rates(4, 20, 5, 8, 0.20),
            source=_DOC,
            window=1_000_000,
            max_output=128_000,
        ),
        _OPUS_5,
        replace(_OPUS_5, model="claude-opus-4-8"),
        replace(_OPUS_5, model="claude-opus-4-7"),
        replace(_OPUS_5, model="claude-opus-4-6"),
        replace(_OPUS_5, model="claude-opus-4-5", window=200_000, max_output=64_000),
        Price(
            model="claude-haiku-5-5",
            rates=_rates(0.10, 0.50, 0.125, 0.20, 0.01),
            long_over=100_000,
            long=_rates(0.50, 2.50, 0.625, 1.00, 0.05),
            source=_REPORTED,
            window=1_000_000,
            max_output=128_000,
        ),
        Price(
            model="claude-haiku-4-5",
            rates=_rates(1, 5, 1.25, 2, 0.10),
            source=_DOC,
            window=200_000,
            max_output=64_000,
        ),
        Price(
            model="claude-fable-5-1",
            rates=_rates(10, 50, 12.50, 20, 0.25),
            source=_DOC,
            window=1_000_000,
            max_output=128_000,
        ),
    ]
)
"""Models without a row (claude-fable-5-2, the mythos line) have ids in the SDK but no published price."""
