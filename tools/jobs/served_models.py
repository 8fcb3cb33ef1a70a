"""Served models that a recipe lets its job ask over HTTP, and what they may cost beside the job's own price."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from mlintern.common.text import cut_line, format_usd

SPENT_METRIC = "served_usd"
"""The metric by which a rendered script says what served models have cost so far."""


def most_usd(recipe: Any) -> float:
    """US dollars that one run of ``recipe`` may spend at served models: the sum of their caps (``max_usd``).

    An endpoint without a cap counts as 0 here; `paid_endpoints` names it for the person who decides.
    """
    return round(sum(float(one.get("max_usd") or 0.0) for one in endpoints(recipe)), 6)


def paid_endpoints(recipe: Any) -> Iterator[str]:
    """Served models that a recipe asks and that may cost money beside the job: address, key and cap of each.

    One that has neither a key nor a price is taken as free, such as a model that is served on this machine.
    """
    for endpoint in endpoints(recipe):
        key, prices = endpoint.get("key_variable"), endpoint.get("usd_per_million") or ()
        if not key and not any(prices):
            continue
        usd, tokens = endpoint.get("max_usd"), endpoint.get("max_output_tokens")
        caps = [f"at most {format_usd(float(usd))}" if usd is not None else "without a cap on money"]
        caps += [f"at most {int(tokens):,} tokens written"] if tokens is not None else []
        counted = "which the worst price contains" if usd is not None else "beside the price of the job"
        yield f"{', '.join(caps)}, {counted}: {cut_line(str(endpoint['url']), 200)}" + (
            f" with the key in {key}" if key else ""
        )


def spent_usd(metrics: Mapping[str, Any], *, most: float) -> float | None:
    """What a job says that it spent at served models, as far as it was agreed to; None if it does not say.

    Args:
        metrics: the latest values that its script reported.
        most: the sum of the caps. Nothing is counted where there is none: no script may charge what it likes.
    """
    said = metrics.get(SPENT_METRIC)
    if most <= 0:
        return 0.0
    if not isinstance(said, (int, float)) or not math.isfinite(said):
        return None
    return min(max(0.0, float(said)), most)


def endpoints(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every `endpoint` in a recipe: its own, that of a judge, that of the evaluation which follows."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == "endpoint" and isinstance(inner, Mapping) and inner.get("url"):
                yield inner
            else:
                yield from endpoints(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from endpoints(inner)
