"""Whether anything listens where the model is asked: a wrong address is said at once, not after all attempts."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import anyio

from mlintern.orchestrator.errors import OrchestratorError

SECONDS = 10.0
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class NothingAnswers(OrchestratorError):
    """There is no server at the address; the text says how that was seen and what to check."""


def address_of(base_url: str) -> tuple[str, int]:
    """Host and port of an endpoint.

    Raises:
        ValueError: it is no http or https address; the text says what one looks like.
    """
    parts = urlsplit(base_url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
        raise ValueError(f"{base_url!r} is no address of a server; write it as http://HOST:PORT or https://HOST.")
    return parts.hostname, port or (443 if parts.scheme == "https" else 80)


async def check(base_url: str) -> None:
    """Connect once and hang up. Not where a proxy stands between: it may know hosts that this machine does not.

    Raises:
        NothingAnswers: no connection.
    """
    host, port = address_of(base_url)
    proxied = any(name.lower() in ("http_proxy", "https_proxy", "all_proxy") for name in os.environ)
    if proxied and host not in LOOPBACK:
        return
    why = f"no connection within {SECONDS:g} s"
    with anyio.move_on_after(SECONDS):
        try:
            stream = await anyio.connect_tcp(host, port)
        except OSError as error:
            why = str(error.__cause__ or error) or type(error).__name__
        else:
            await stream.aclose()
            return
    raise NothingAnswers(f"Nothing answers at {base_url}: {why}. Check --base-url, or start the server.")
