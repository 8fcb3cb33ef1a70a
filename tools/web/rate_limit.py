"""Manners: how often a service is asked, and for how long it is left alone after it said no.

Both are kept on disk, because a person may run several servers, and a restart must not forget a promise.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from mlintern.common.clock import Clock
from mlintern.common.files import exclusive_lock, write_json_durably
from mlintern.tools.errors import RateLimited
from mlintern.tools.web.services import Service

OPENING_REFUSALS = 3
"""So many 429s in a row open the breaker."""
LONGEST_COOLDOWN = 3600.0
"""Seconds; the doubling ends here, and a longer Retry-After is cut to it."""
_QUEUE = 8
"""A wait for a turn is at most so many intervals, whatever the file says (a clock may have been set back)."""
_POLL_SECONDS = 0.05
"""How often to look whether another process has let go of the gate."""


class Gate:
    """Spaces the requests of one service, over all processes that use the same ``path``."""

    def __init__(self, path: Path, clock: Clock, *, one_at_a_time: bool) -> None:
        import anyio

        self._path = path
        self._clock = clock
        self._one_at_a_time = one_at_a_time
        self._turns = anyio.Lock()

    @contextlib.asynccontextmanager
    async def turn(self, interval: float) -> AsyncIterator[None]:
        """Wait until a request may start; with ``one_at_a_time`` the gate stays shut until the block ends."""
        if interval <= 0:
            yield
            return
        if self._one_at_a_time:
            async with self._turns, self._lock():
                await self._clock.sleep(self._reserve(interval))
                yield
            return
        async with self._lock():
            wait = self._reserve(interval)
        await self._clock.sleep(wait)
        yield

    @contextlib.asynccontextmanager
    async def _lock(self) -> AsyncIterator[None]:
        import anyio

        while True:
            with exclusive_lock(self._path.with_suffix(".lock"), blocking=False) as got:
                if got:
                    yield
                    return
            # Another process lets go in its own time, which the clock passed in does not move.
            await anyio.sleep(_POLL_SECONDS)

    def _reserve(self, interval: float) -> float:
        """Take the next free moment; returns the seconds until it."""
        now = self._clock.now()
        last = _read(self._path).get("last", 0.0)
        wait = min(max(0.0, last + interval - now), interval * _QUEUE) if last else 0.0
        self._path.write_text(json.dumps({"last": now + wait}), encoding="utf-8")
        return wait


class Breaker:
    """Remembers that a service asked to be left alone, and until when; survives a restart."""

    def __init__(self, path: Path, clock: Clock, *, service: Service) -> None:
        self._path = path
        self._clock = clock
        self._service = service
        self._refusals = 0

    def check(self) -> None:
        """Raise `RateLimited`, without a request, while the service is to be left alone."""
        state = _read(self._path)
        left = min(state.get("blocked_until", 0.0) - self._clock.now(), LONGEST_COOLDOWN)
        if left > 0:
            raise self.refusal(left)

    def refused(self, wait: float | None, *, longest_wait: float, http_status: int = 429) -> float:
        """Note a refusal that asked for ``wait`` seconds (None: it did not say); returns the seconds before a retry.

        Raises:
            RateLimited: there is to be no retry; the service is left alone for a while.
        """
        self._refusals += 1
        first = self._service.first_wait
        pause = wait if wait is not None else first * 2 ** (self._refusals - 1)
        if self._refusals < OPENING_REFUSALS and pause <= longest_wait:
            return pause
        opened = int(_read(self._path).get("opened", 0))
        cooldown = min(max(wait or 0.0, self._service.cooldown * 2**opened), LONGEST_COOLDOWN)
        if wait is not None and self._refusals < OPENING_REFUSALS:
            cooldown = min(wait, LONGEST_COOLDOWN)  # it named a time: no longer than that
        state = {"blocked_until": self._clock.now() + cooldown, "opened": opened + 1}
        write_json_durably(self._path, state)
        self._refusals = OPENING_REFUSALS - 1  # once the time is over, one more refusal opens it again
        raise self.refusal(cooldown, http_status=http_status)

    def answered(self) -> None:
        """Note that the service answers again."""
        self._refusals = 0
        self._path.unlink(missing_ok=True)

    def refusal(self, seconds: float, *, http_status: int | None = None) -> RateLimited:
        """The error of a service that is to be left alone for ``seconds``; no status: it was not asked now."""
        how = "answered that it is asked too often" if http_status else "asked to be left alone, so it was not asked"
        return RateLimited(
            f"{self._service.opening} {how}.",
            service=self._service.name,
            http_status=http_status,
            retry_after_seconds=seconds,
            next_step=f"Ask again in {max(1, round(seconds))} s. {self._service.limit_advice}",
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}
