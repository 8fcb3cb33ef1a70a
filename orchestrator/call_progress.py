"""How far a long call is: from the server's notification to the front end, beside the call's own result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

OnProgress = Callable[[float, float | None, str], None]
"""(progress, total or None, message): as MCP sends it."""

_listener: ContextVar[OnProgress | None] = ContextVar("_listener", default=None)


@contextmanager
def listening(on_progress: OnProgress) -> Iterator[None]:
    """Calls made inside report to ``on_progress``."""
    token = _listener.set(on_progress)
    try:
        yield
    finally:
        _listener.reset(token)


def listener() -> OnProgress | None:
    """Who listens to the call that is being made here."""
    return _listener.get()
