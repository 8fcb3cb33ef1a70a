"""When to ask a model again, and after which wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlintern.orchestrator.model import MalformedReply, ModelError, RateLimited, Usage


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and how long. Waits are drawn evenly from 0 to a ceiling that doubles (full jitter).

    ``longest_asked_wait`` bounds what a ``retry-after`` may ask; beyond it the call fails and says so.
    """

    attempts: int = 6
    malformed_attempts: int = 3
    first_wait: float = 2.0
    first_wait_when_limited: float = 30.0
    longest_wait: float = 60.0
    longest_asked_wait: float = 120.0
    total_wait: float = 900.0


class Attempts:
    """The attempts at one request so far: how many, what they cost, how long they waited."""

    def __init__(self, policy: RetryPolicy, *, jitter: Callable[[], float]) -> None:
        self._policy = policy
        self._jitter = jitter
        self._malformed = 0
        self._waited = 0.0
        self.count = 0
        self.discarded = Usage()

    def wait_after(self, error: ModelError) -> float | None:
        """Record that an attempt ended in ``error``; seconds to wait before the next one, None to give up."""
        self.count += 1
        self.discarded += error.usage
        self._malformed += isinstance(error, MalformedReply)
        if not error.retryable or self.count >= self._policy.attempts:
            return None
        if self._malformed >= self._policy.malformed_attempts:
            return None
        wait = self._draw(error)
        if wait is None or self._waited + wait > self._policy.total_wait:
            return None
        self._waited += wait
        return wait

    def _draw(self, error: ModelError) -> float | None:
        policy = self._policy
        if error.retry_after_seconds is not None:
            asked = max(0.0, error.retry_after_seconds)
            return asked if asked <= policy.longest_asked_wait else None
        first = policy.first_wait_when_limited if isinstance(error, RateLimited) else policy.first_wait
        return float(min(policy.longest_wait, first * 2 ** (self.count - 1)) * self._jitter())
