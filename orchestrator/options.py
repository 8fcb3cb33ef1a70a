"""What the command line decides, and what follows from it: model, endpoint, sizes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlintern.common.consent import Rule
from mlintern.orchestrator.anthropic_model import AnthropicModel, ModelFacts
from mlintern.orchestrator.budget import today
from mlintern.orchestrator.compaction import DEFAULT_WINDOW, default_trigger
from mlintern.orchestrator.mcp_config import BadEntry, ServerEntry
from mlintern.orchestrator.model import EndpointProfile, endpoint_profile
from mlintern.orchestrator.prices import PRICES, Price, PriceTable, UnknownPrice
from mlintern.orchestrator.retry import RetryPolicy
from mlintern.orchestrator.session import sessions_folder
from mlintern.orchestrator.settings import LoopSettings

MODELS = {"sonnet": "claude-sonnet-5-5", "opus": "claude-opus-5-5", "haiku": "claude-haiku-5-5"}
DEFAULT_MODEL = MODELS["sonnet"]
MAX_TOKENS = 32_000
MAX_RAISED_TOKENS = 64_000
UNKNOWN_MAX_TOKENS = 8_192
"""The longest reply of a model of which nobody says how long its replies may be."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """None leaves a choice to the session that is resumed, else to the defaults."""

    entries: Sequence[ServerEntry]
    bad_entries: Sequence[BadEntry] = ()
    model: str | None = None
    fallback_model: str | None = None
    base_url: str | None = None
    api_key: str | None = None
    endpoint_profile: str | None = None
    effort: str | None = None
    max_tokens: int | None = None
    max_iterations: int = 300
    max_minutes: float | None = None
    hours: float | None = None
    rules: Sequence[str] = ()
    budget_usd: float | None = None
    prices: PriceTable = PRICES
    compact_at: int | None = None
    allow: Sequence[Rule] = ()
    resume: str | None = None
    sessions: Path = field(default_factory=sessions_folder)
    retry: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Which model is asked where. ``same`` says that a resumed session was written with just this."""

    model: str
    base_url: str | None
    profile: EndpointProfile
    same: bool = True
    fallback_model: str | None = None
    """Asked where ``model`` declines."""

    @classmethod
    def choose(cls, options: Options, header: Mapping[str, Any]) -> Endpoint:
        """From the options, else from the ``header`` of a resumed session, else the defaults."""
        base_url = options.base_url or os.environ.get("ANTHROPIC_BASE_URL") or header.get("base_url")
        unchanged = bool(header) and options.base_url is None and options.endpoint_profile is None
        profile = endpoint_profile(base_url, header["profile"] if unchanged else options.endpoint_profile)
        model = MODELS.get(options.model or "", options.model) or header.get("model") or DEFAULT_MODEL
        same = not header or (model == header["model"] and profile.name == header["profile"])
        fallback = MODELS.get(options.fallback_model or "", options.fallback_model)
        return cls(model=model, base_url=base_url, profile=profile, same=same, fallback_model=fallback)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """``window`` and ``trigger`` (of the compaction) in tokens."""

    window: int
    trigger: int


async def settle(
    options: Options, endpoint: Endpoint, *, header: Mapping[str, Any], model: AnthropicModel
) -> tuple[LoopSettings, Sizes]:
    """The settings of the session. A resumed one keeps those that are bound to its history and its cache."""
    earlier: Mapping[str, Any] = (header.get("settings") or {}) if endpoint.same else {}
    asks = endpoint.profile.adaptive_thinking and not earlier
    facts = await model.facts(endpoint.model) if asks else ModelFacts()
    price = price_of(endpoint.model, options.prices)
    window = facts.window or earlier.get("window") or (price.window if price else None)
    longest = facts.max_output or (price.max_output if price else None) or UNKNOWN_MAX_TOKENS
    max_tokens = options.max_tokens or earlier.get("max_tokens") or min(MAX_TOKENS, longest)
    thinking = {"type": "adaptive", "display": "summarized"} if facts.adaptive_thinking else None
    settings = LoopSettings(
        model=endpoint.model,
        max_tokens=max_tokens,
        max_output_tokens=max(max_tokens, min(MAX_RAISED_TOKENS, longest)),
        max_iterations=options.max_iterations,
        max_minutes=options.max_minutes,
        hours=options.hours or (header.get("settings") or {}).get("hours"),
        thinking=earlier.get("thinking", thinking),
        effort=options.effort or earlier.get("effort"),
        caching=endpoint.profile.caching,
    )
    trigger = options.compact_at or default_trigger(price, window)
    return settings, Sizes(window=window or max(DEFAULT_WINDOW, trigger), trigger=trigger)


def price_of(model: str, prices: PriceTable) -> Price | None:
    """Today's price of ``model``, None if nobody knows it."""
    try:
        return prices.price(model, today())
    except UnknownPrice:
        return None
