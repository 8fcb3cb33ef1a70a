"""What stays the same for a whole session of an agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlintern.orchestrator.model import CacheTtl


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """What stays the same for a whole session. Changing the model, thinking or effort would lose the cache."""

    model: str
    max_tokens: int = 32_000
    max_output_tokens: int = 64_000
    """The most that a request is raised to after a reply was cut inside a call."""

    max_iterations: int = 300
    max_minutes: float | None = None
    hours: float | None = None
    """The user's time for the whole session, resumes included: it is to be used. See `time_left`."""

    thinking: Mapping[str, Any] | None = None
    effort: str | None = None
    caching: bool = False

    @property
    def cache_ttl(self) -> CacheTtl | None:
        """How long a prompt stays cached; None where the endpoint takes no markers."""
        return "5m" if self.caching else None
