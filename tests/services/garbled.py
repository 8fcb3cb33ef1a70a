"""Stand-ins whose answers are damaged on the way: how follows from a seed, the request and how often it came."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.services.standin import ACCESS_DENIED, BROKEN, CAPTCHA, FORBIDDEN, HTML, JSON, MISSING_AS_PAGE, StandIn

_VALUES: tuple[Any, ...] = (
    None,
    "",
    [],
    {},
    0,
    -1,
    10**30,
    1.5,
    True,
    "x" * 3000,
    "\u202e\u0000",
    [None],
    {"a": None},
)
_WHOLE: tuple[tuple[int, bytes, dict[str, str]], ...] = (
    (200, b"null", JSON), (200, b"[]", JSON), (200, b"{}", JSON), (200, b"0", JSON), (200, b'"text"', JSON),
    (200, b"", JSON), (200, b"<html>The hotel's network: please sign in</html>", HTML), (200, b"[null]", JSON),
    (200, b'{"data": null}', JSON), (200, b"\xff\xfe\x00garbage", JSON), (200, b"[" * 20_000, JSON),
    (200, b"NaN", JSON), (200, b'{"data": [' , JSON), (200, b"not gzip", {**JSON, "content-encoding": "gzip"}),
    (204, b"", {}), (301, b"", {"location": "/elsewhere"}), (302, b"", {"location": "file:///etc/passwd"}),
    (302, b"", {"location": "http://[::bad"}), (400, b"{}", JSON), (401, b"", {}), (404, b"null", JSON),
    (413, b"", {}), (416, b"", {}), (418, b"teapot", {}), (429, b"", {"retry-after": "soon"}),
    (503, b"[]", JSON), (200, b"<feed><entry>", {"content-type": "application/atom+xml"}),
    *((f.status, f.body, dict(f.headers)) for f in (ACCESS_DENIED, BROKEN, CAPTCHA, FORBIDDEN, MISSING_AS_PAGE)),
)  # fmt: skip


class Garbled:
    """An application that answers as ``apps`` do, and mostly wrongly. The longest prefix of a path chooses one."""

    def __init__(self, apps: dict[str, ASGIApp], *, seed: str) -> None:
        self._apps = apps
        self._seed = seed
        self._asked: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope["path"])
        app = self._apps[max((prefix for prefix in self._apps if path.startswith(prefix)), key=len)]
        request = f"{scope['method']} {path}?{scope['query_string'].decode()}"
        self._asked[request] += 1
        rng = random.Random(f"{self._seed} {request} {self._asked[request]}")
        if rng.random() < 0.3:
            status, body, headers = rng.choice(_WHOLE)
            await _answer(send, status=status, body=body, headers=headers)
            return
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await app(scope, receive, keep)
        body = b"".join(message.get("body", b"") for message in messages[1:])
        if rng.random() < 0.75:
            body = damaged(body, rng)
        headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        await _answer(send, status=messages[0]["status"], body=body, headers=headers)


def garble(services: list[StandIn], *, seed: str) -> None:
    """Damage from now on what ``services`` answer."""
    for service in services:
        service._app = Garbled({"": service._app}, seed=seed)  # type: ignore[assignment]


def damaged(body: bytes, rng: random.Random) -> bytes:
    """``body`` with one to three values replaced or taken out if it is JSON, else with bytes changed or cut."""
    try:
        document = json.loads(body)
    except ValueError:
        if not body:
            return body
        at = rng.randrange(len(body))
        return rng.choice((body[:at], body[:at] + b"\x00\xff<" + body[at + 3 :], body[at:], body + body))
    for _ in range(rng.randint(1, 3)):
        document = _replaced(copy.deepcopy(document), rng)
    return json.dumps(document).encode()


def _replaced(document: Any, rng: random.Random) -> Any:
    places = list(_places(document, None, None))
    parent, key = rng.choice(places)
    if parent is None:
        return rng.choice(_VALUES)
    if rng.random() < 0.3:
        del parent[key]
    else:
        parent[key] = rng.choice(_VALUES)
    return document


def _places(value: Any, parent: Any, key: Any) -> Any:
    yield parent, key
    if isinstance(value, dict):
        for name in value:
            yield from _places(value[name], value, name)
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from _places(value[index], value, index)


async def _answer(send: Send, *, status: int, body: bytes, headers: dict[str, str]) -> None:
    kept = [(name.encode(), value.encode()) for name, value in headers.items() if name.lower() != "content-length"]
    if status not in (204, 304):
        kept.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": kept})
    await send({"type": "http.response.body", "body": body})
