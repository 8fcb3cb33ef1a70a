"""No request into the user's own network: not by a paper id, not by a redirect, not by a name that resolves there.

Two checks. Before each hop the URL is looked at; when the connection is made, the addresses that the name resolves to
are looked at and exactly one of them is connected to, so that a second, different answer of the name server finds no
use. The one exception is the base URL that a person configured for the very service that asks.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlintern.tools.errors import Blocked
from mlintern.tools.web.services import Endpoint

if TYPE_CHECKING:
    import httpcore2
    import httpx2

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Hostname and port to IP addresses, in the order to try; raises OSError."""

_LOCAL_NAMES = ("localhost", ".localhost", ".local", ".internal", ".lan", ".home.arpa")


async def resolve_by_system(host: str, port: int) -> list[str]:
    """The addresses that this machine's resolver gives for ``host``."""
    import anyio

    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[4][0]) for address in found]


def is_public(address: str) -> bool:
    """Whether ``address`` (an IP address as text) is reachable on the public internet."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour
        if inner is not None:
            return is_public(str(inner))
        if parsed in ipaddress.ip_network("64:ff9b::/96"):  # NAT64 carries an IPv4 address in its last 32 bits
            return is_public(str(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)))
    return parsed.is_global and not parsed.is_multicast


def check_url(url: str, endpoint: Endpoint) -> None:
    """Refuse ``url`` if it can be seen from the text alone that it leads into a private network.

    Raises:
        Blocked: it does, or its scheme is not http(s), or it carries a user name.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in ("http", "https") or not host:
        raise _refusal(endpoint, f"{url!r} is not an http(s) address")
    if endpoint.chosen and endpoint.is_home(url):
        return
    if parts.username is not None or parts.password is not None:
        raise _refusal(endpoint, "an address with a user name in it is not followed")
    if host.endswith(_LOCAL_NAMES) or not _literal_is_public(host):
        raise _refusal(endpoint, f"{host} is inside a private network")


def guarded_transport(endpoint: Endpoint, *, verify: Any, resolve: Resolve) -> httpx2.AsyncBaseTransport:
    """An httpx2 transport that connects to public addresses only, and to the configured home of ``endpoint``."""
    import httpcore2
    import httpx2

    transport = httpx2.AsyncHTTPTransport(verify=verify, trust_env=False)
    # httpx2 has no argument for the network layer; httpcore2, which it stands on, does (a public one).
    transport._pool = httpcore2.AsyncConnectionPool(
        ssl_context=verify,
        max_connections=16,
        max_keepalive_connections=8,
        keepalive_expiry=15.0,
        network_backend=_backend(endpoint, resolve),
    )
    return transport


def _backend(endpoint: Endpoint, resolve: Resolve) -> httpcore2.AsyncNetworkBackend:
    import httpcore2

    class GuardedBackend(httpcore2.AsyncNetworkBackend):
        """Resolves by itself, so that what was checked is what is connected to."""

        def __init__(self) -> None:
            self._inner = httpcore2.AnyIOBackend()

        async def connect_tcp(
            self,
            host: str,
            port: int,
            timeout: float | None = None,
            local_address: str | None = None,
            socket_options: Iterable[Any] | None = None,
        ) -> httpcore2.AsyncNetworkStream:
            home = endpoint.chosen and endpoint.origin is not None and endpoint.origin[1:] == (host, port)
            addresses = await _addresses(host, port, resolve)
            if not home and not all(is_public(address) for address in addresses):
                raise _refusal(endpoint, f"{host} resolves to an address inside a private network")
            for address in addresses[:-1]:
                try:
                    return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
                except httpcore2.ConnectError:
                    continue  # an IPv6 address without a route; the next one may do
            return await self._inner.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

        async def sleep(self, seconds: float) -> None:
            await self._inner.sleep(seconds)

    return GuardedBackend()


async def _addresses(host: str, port: int, resolve: Resolve) -> list[str]:
    import httpcore2

    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return [host]
    try:
        found = list(dict.fromkeys(await resolve(host, port)))
    except OSError as error:
        raise httpcore2.ConnectError(f"{host} cannot be resolved: {error}") from error
    if not found:
        raise httpcore2.ConnectError(f"{host} has no address")
    return found[:4]


def _literal_is_public(host: str) -> bool:
    """False for an IP address, in any spelling a resolver takes, that is not public; True for a name."""
    try:
        return is_public(host)
    except ValueError:
        pass
    try:
        return is_public(socket.inet_ntoa(socket.inet_aton(host)))  # 127.1, 0x7f000001, 2130706433
    except OSError:
        return host != "localhost"


def _refusal(endpoint: Endpoint, why: str) -> Blocked:
    service = endpoint.service
    moved = f", or set {service.base_variable} if that is where {service.title} lives for you"
    return Blocked(
        f"The request was not sent: {why}.",
        service=service.name,
        next_step=f"Give a public address{moved if service.base_variable else ''}.",
    )
