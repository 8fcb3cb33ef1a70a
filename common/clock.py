"""Time, passed in: nothing below the command line reads the wall clock or sleeps by itself."""

from __future__ import annotations

import os
import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from. Tests pass a clock that moves only when they say so."""

    def now(self) -> float:
        """Seconds since the Unix epoch, UTC. For records that people read; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start that never go back. For durations and deadlines."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Give other tasks the loop for ``seconds`` (a polite wait, scaled by the clock)."""
        ...


class SystemClock:
    """The real clock. Sleeps are multiplied by ``wait_scale`` (``MLINTERN_WAIT_SCALE``, default 1)."""

    def __init__(self, *, wait_scale: float | None = None) -> None:
        if wait_scale is None:
            wait_scale = float(os.environ.get("MLINTERN_WAIT_SCALE", "1"))
        self.wait_scale = wait_scale

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        import anyio  # the supervisor of a local job imports this module and must stay light

        await anyio.sleep(max(0.0, seconds) * self.wait_scale)


def iso(timestamp: float) -> str:
    """``timestamp`` (Unix seconds) as ``2026-11-23T05:14:32Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(timestamp))
