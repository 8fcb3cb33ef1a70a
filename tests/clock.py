"""A clock for tests: sleeping moves it, nothing else does."""

from __future__ import annotations

import anyio.lowlevel


class FakeClock:
    """`mlintern.common.clock.Clock` that starts at a fixed moment; `slept` lists every wait asked for.

    ``wall_offset`` sets the wall clock alone, as a person or a time server does.
    """

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self.time = start
        self.slept: list[float] = []
        self.wall_offset = 0.0

    def now(self) -> float:
        return self.time + self.wall_offset

    def monotonic(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += max(0.0, seconds)
        await anyio.lowlevel.checkpoint()
