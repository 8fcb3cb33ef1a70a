"""What a service's documentation lists for one call, and the 400 for everything that it does not.

A stand-in that accepts what its author happens to send hides the faults of both. Each `Call` is written down once,
with the page it was read from and the day; `listed` puts it in front of a handler.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

Handler = Callable[..., Awaitable[Response]]
Rule = Callable[[str], bool]

COMMON_HEADERS = frozenset(
    (
        "host", "accept", "accept-encoding", "connection", "user-agent", "content-type", "content-length",
        "if-none-match", "if-modified-since",
    )
)  # fmt: skip
"""Headers that HTTP itself defines and every service takes."""


def whole(low: int = 0, high: int = 2**31) -> Rule:
    """A whole number from ``low`` to ``high``."""
    return lambda value: value.isdigit() and low <= int(value) <= high


def one_of(*names: str) -> Rule:
    """One of ``names``."""
    return lambda value: value in names


def some_of(*names: str) -> Rule:
    """A comma-separated list of ``names``, each once."""
    return lambda value: len(set(value.split(","))) == value.count(",") + 1 and set(value.split(",")) <= set(names)


def like(pattern: str) -> Rule:
    """A text that ``pattern`` matches whole."""
    return lambda value: re.fullmatch(pattern, value, re.DOTALL) is not None


def text(value: str) -> bool:
    """Any text that is not empty."""
    return bool(value.strip())


@dataclass(frozen=True)
class Call:
    """One documented call.

    Attributes:
        source: the page, and the day on which it was read.
        parameters: the query parameters that are listed, each with what its value may be.
        required: those that must be there.
        repeated: those that may be given more than once.
        headers: headers that it takes beside `COMMON_HEADERS`.
        needs_header: header that must be there, such as a token.
        together: refusals that look at several parameters; each gives a reason, or an empty text.
    """

    source: str
    parameters: Mapping[str, Rule]
    required: frozenset[str] = frozenset()
    repeated: frozenset[str] = frozenset()
    headers: frozenset[str] = frozenset()
    together: tuple[Callable[[Mapping[str, str]], str], ...] = field(default=())

    def refusal(self, request: Request) -> str:
        """Why ``request`` is not what the documentation lists; empty if it is."""
        pairs = request.query_params.multi_items()
        values = dict(pairs)
        for name, value in pairs:
            if name not in self.parameters:
                return f"unknown parameter {name!r}; listed: {', '.join(sorted(self.parameters))} ({self.source})"
            if not self.parameters[name](value):
                return f"{name}={value!r} is not what the documentation lists ({self.source})"
        twice = {name for name, _ in pairs if len(request.query_params.getlist(name)) > 1} - self.repeated
        missing = self.required - values.keys()
        unknown = {name.lower() for name in request.headers} - COMMON_HEADERS - self.headers
        for what, names in (("given twice", twice), ("required", missing), ("unknown header", unknown)):
            if names:
                return f"{what}: {', '.join(sorted(names))} ({self.source})"
        return next((reason for check in self.together if (reason := check(values))), "")


def listed(handler: Handler, call: Call, refuse: Callable[[str], Response] | None = None) -> Handler:
    """``handler`` behind the 400 of ``call``; ``refuse`` makes the service's own shape of it."""

    async def checked(request: Request) -> Response:
        reason = call.refusal(request)
        if reason:
            return refuse(reason) if refuse else JSONResponse({"error": reason}, status_code=400)
        return await handler(request)

    return checked
