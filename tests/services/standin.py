"""A loopback service on a real socket that can be told to fail in every way a real one does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    at: float


@dataclass(frozen=True)
class Fault:
    """What to do instead of answering: a status with a body, or one of ``reset``, ``cut``, ``stall``.

    ``lost`` does what was asked, and then closes the connection without the answer.
    """

    kind: str = "status"
    status: int = 500
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


HTML = {"content-type": "text/html; charset=utf-8"}
JSON = {"content-type": "application/json"}


def too_many(retry_after: float | None = None) -> Fault:
    """429, with or without ``Retry-After`` (seconds)."""
    waits = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
    return Fault(
        status=429, body=b'{"message":"Too Many Requests. Please wait and try again.","code":"429"}', headers=waits
    )


FORBIDDEN = Fault(status=403, body=b'{"message":"Forbidden"}', headers=JSON)
MISSING_AS_PAGE = Fault(status=404, body=b"<!doctype html><html><title>404 Not Found</title></html>", headers=HTML)
BROKEN = Fault(status=500, body=b"Internal Server Error")
ACCESS_DENIED = Fault(
    status=200, body=b"<html><head><title>Access Denied</title></head><body>No.</body></html>", headers=HTML
)
CAPTCHA = Fault(
    status=200,
    body=b"<!DOCTYPE html><html><body><form id='captcha'>Please verify you are human</form></body></html>",
    headers=HTML,
)
RESET = Fault(kind="reset")
CUT = Fault(kind="cut", status=200, body=b'{"data": [')
STALL = Fault(kind="stall")
LOST = Fault(kind="lost")


class StandIn:
    """Serves ``routes`` on 127.0.0.1; ``fail`` makes the next requests fail, ``seen`` lists what arrived."""

    def __init__(self, routes: Sequence[Route], *, latency: float = 0.0) -> None:
        self.latency = latency
        self.seen: list[Seen] = []
        self._faults: list[tuple[str, Fault]] = []
        self._always: list[tuple[str, Fault]] = []
        self._app = Starlette(routes=list(routes))
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fail(self, *faults: Fault, path: str = "") -> None:
        """Answer the next requests whose path contains ``path`` with ``faults``, one each, in order."""
        self._faults += [(path, fault) for fault in faults]

    def fail_always(self, fault: Fault, *, path: str = "") -> None:
        """Answer every request whose path contains ``path`` with ``fault`` until `recover`."""
        self._always.append((path, fault))

    def recover(self) -> None:
        """Stop failing."""
        self._faults.clear()
        self._always.clear()

    def asked(self, path: str = "") -> list[Seen]:
        """The requests whose path contains ``path``."""
        return [seen for seen in self.seen if path in seen.path]

    @contextlib.contextmanager
    def running(self) -> Iterator[StandIn]:
        config = uvicorn.Config(
            self._serve,
            interface="asgi3",
            log_level="critical",
            lifespan="off",
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)  # the start of a thread, not the passing of time, is waited for
        try:
            yield self
        finally:
            # The thread ends and frees the port at the server's next tick; nobody needs to wait for it.
            server.should_exit = server.force_exit = True

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode(), True).items()}
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append(Seen(scope["method"], scope["path"], query, headers, time.monotonic()))
        if self.latency:
            await asyncio.sleep(self.latency)
        fault = self._next_fault(scope["path"])
        if fault is None:
            await self._app(scope, receive, send)
        elif fault.kind == "lost":
            await self._app(scope, receive, _nowhere)
            await _misbehave(RESET, receive, send)
        else:
            await _misbehave(fault, receive, send)

    def _next_fault(self, path: str) -> Fault | None:
        for index, (where, fault) in enumerate(self._faults):
            if where in path:
                del self._faults[index]
                return fault
        return next((fault for where, fault in self._always if where in path), None)


async def _nowhere(_: Any) -> None:
    """Where an answer goes that nobody gets."""


async def _misbehave(fault: Fault, receive: Receive, send: Send) -> None:
    if fault.kind == "stall":
        await asyncio.sleep(60)
        return
    cycle: Any = getattr(receive, "__self__", None)  # uvicorn's own object for this request: it owns the connection
    if fault.kind == "reset":
        cycle.transport.abort()
        return
    headers = [(name.encode(), value.encode()) for name, value in fault.headers.items()]
    if fault.kind == "cut":
        headers.append((b"content-length", b"100000"))
    await send({"type": "http.response.start", "status": fault.status, "headers": headers})
    await send({"type": "http.response.body", "body": fault.body, "more_body": fault.kind == "cut"})
    if fault.kind == "cut":
        await asyncio.sleep(0.01)
        cycle.transport.close()
