"""How long a call may take: hosts of MCP servers end one after about 60 seconds, and then nothing comes of it."""

from __future__ import annotations

import time

CALL_SECONDS = 45.0
"""After so long a call returns what it has found, what it could not read, and how to go on."""


class Deadline:
    """The end of a call, from now on; by the monotonic clock, so that threads can look at it too."""

    def __init__(self, seconds: float = CALL_SECONDS) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until then, never negative."""
        return max(0.0, self._end - time.monotonic())

    @property
    def over(self) -> bool:
        return self.left == 0.0
