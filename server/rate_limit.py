"""Only so many requests a minute from one client of the HTTP server: a loop of one takes nothing from the others.

A token bucket for each access token (https://en.wikipedia.org/wiki/Token_bucket): a minute's worth may come at once,
then they come back evenly. What came without a token that counts is held to the same rate by its network address.
"""

from __future__ import annotations

import json
import logging
import math
from collections import OrderedDict
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from mlintern.server.access_tokens import AccessTokens
from mlintern.tools.errors import WorkspaceError

logger = logging.getLogger(__name__)

REMEMBERED = 1_000
"""Clients whose last requests are known; beyond that the one that was silent longest is forgotten."""


class RateLimit:
    """ASGI: answers 429 with ``Retry-After`` to who asks more often than ``per_minute``."""

    def __init__(self, app: ASGIApp, *, tokens: AccessTokens, per_minute: int, now: Callable[[], float]) -> None:
        """``now``: a clock in seconds that never goes back."""
        self._app = app
        self._tokens = tokens
        self._per_minute = per_minute
        self._now = now
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By client: how many requests were left, and when that was."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wait = self._wait(self._client(scope)) if scope["type"] == "http" else 0.0
        if not wait:
            await self._app(scope, receive, send)
            return
        seconds = math.ceil(wait)
        said = f"More than {self._per_minute} requests a minute. Ask again in {seconds} s, and less often."
        body = json.dumps({"error": "rate_limited", "error_description": said}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers.append((b"retry-after", str(seconds).encode()))
        await send({"type": "http.response.start", "status": 429, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _wait(self, client: str) -> float:
        """Seconds until ``client`` may ask; 0 if it may now, which counts."""
        now, rate = self._now(), self._per_minute / 60
        left, at = self._left.pop(client, (float(self._per_minute), now))
        left = min(float(self._per_minute), left + (now - at) * rate)
        asks = left >= 1
        self._left[client] = (left - 1 if asks else left, now)
        while len(self._left) > REMEMBERED:
            self._left.popitem(last=False)
        return 0.0 if asks else (1 - left) / rate

    def _client(self, scope: Scope) -> str:
        header = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        kind, _, text = header.partition(" ")
        try:
            found = self._tokens.find(text) if kind.lower() == "bearer" else None
        except WorkspaceError as error:
            logger.warning("%s", error)
            found = None
        peer = scope.get("client") or ("unknown", 0)
        return f"token {found.id}" if found else f"address {peer[0]}"
