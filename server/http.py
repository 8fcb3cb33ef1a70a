"""Streamable HTTP: on a loopback address for the programs of this machine, beyond it with TLS and access tokens.

On loopback, Host and Origin are checked, so no web page can reach it. With TLS the access token is what counts: no
browser sends it by itself, and no answer carries a header that would let a page of another origin send it.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl

from mlintern.server.access_tokens import AccessTokens
from mlintern.server.rate_limit import RateLimit
from mlintern.tools.errors import BadInput, WorkspaceError

logger = logging.getLogger(__name__)

PATH = "/mcp"


@dataclass(frozen=True, kw_only=True)
class Guard:
    """How a server is reached from other machines: with this certificate, by clients with one of these tokens."""

    certificate: Path
    key: Path
    tokens: AccessTokens
    per_minute: int

    async def verify_token(self, token: str) -> AccessToken | None:
        """As the SDK's ``TokenVerifier``. Each token is a client of its own, so a session belongs to its token."""
        try:
            found = self.tokens.find(token)
        except WorkspaceError as error:
            logger.warning("%s", error)
            return None
        return None if found is None else AccessToken(token=token, client_id=found.id, scopes=list(found.scopes))

    @property
    def settings(self) -> AuthSettings:
        """For the SDK. There is no OAuth issuer, so nothing is published that would send clients to one."""
        return AuthSettings(issuer_url=AnyHttpUrl("https://localhost"), resource_server_url=None)

    def check(self) -> None:
        """Fail before anything is served rather than at the first request.

        Raises:
            BadInput: the certificate and the key cannot be used, the rate is none, or there is no token.
            WorkspaceError: the tokens cannot be read.
        """
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, ValueError) as error:
            raise BadInput(
                f"--tls-cert {self.certificate} and --tls-key {self.key} cannot be used:"
                f" {getattr(error, 'strerror', None) or error}.",
                next_step="Give a certificate and its key, both PEM files; the key without a password.",
            ) from error
        if self.per_minute < 1:
            raise BadInput(f"--requests-a-minute {self.per_minute} lets nobody in.", next_step="Give 1 or more.")
        if not self.tokens.all():
            raise BadInput(
                "No client could sign in: this workspace has no access token.",
                next_step="Make one: mlintern-server token --scopes read,submit.",
            )


def _no_password() -> str:
    """Left to itself OpenSSL would ask for one at the terminal, and the server would wait for it."""
    return ""


async def serve_http(server: MCPServer[Any], host: str, port: int, guard: Guard | None = None) -> None:
    """Serve until interrupted. Port 0 takes a free one; the address is printed to stderr once it accepts.

    ``guard``: that ``server`` was built with; without one only a loopback address may be served.

    Raises:
        BadInput: something else listens there.
    """
    import uvicorn

    with _listening(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        served = listener.getsockname()[1]
        security = checks(shown, served) if guard is None else BY_TOKEN
        app: Any = server.streamable_http_app(streamable_http_path=PATH, host=host, transport_security=security)
        options: dict[str, Any] = {}
        if guard is not None:
            app = RateLimit(app, tokens=guard.tokens, per_minute=guard.per_minute, now=time.monotonic)
            # No proxy is believed about who asks: requests without a token are counted by their address.
            options = {"ssl_certfile": guard.certificate, "ssl_keyfile": guard.key, "proxy_headers": False}
        # h11 trims header values as RFC 9110 asks; httptools, which uvicorn would prefer if it is there, does not.
        config = uvicorn.Config(app, http="h11", log_level="warning", access_log=False, log_config=None, **options)
        print(
            f"mlintern-server listens on {'http' if guard is None else 'https'}://{shown}:{served}{PATH}",
            file=sys.stderr,
            flush=True,
        )
        await uvicorn.Server(config).serve(sockets=[listener])


BY_TOKEN = TransportSecuritySettings(enable_dns_rebinding_protection=False)
"""Where a token is asked for, the server cannot know by which name it is reached, and need not."""


def is_loopback(host: str) -> bool:
    """Whether ``host`` is reached from this machine alone; a name other than ``localhost`` may be anything."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checks(host: str, port: int) -> TransportSecuritySettings:
    """Which Host and Origin a request may state: this machine's, whatever loopback address is served.

    Left to itself the SDK checks nothing on an address that it does not know by name, such as 127.0.0.2. Any port is
    taken as Host, for tunnels; as Origin only the server's own, since other pages of this machine are strangers too.
    """
    names = sorted({host, "localhost", "127.0.0.1", "[::1]"})
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[form for name in names for form in (name, f"{name}:*")],
        allowed_origins=[f"http://{name}:{port}" for name in names],
    )


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise BadInput(
            f"--http {host}:{port} cannot be had: {(error.strerror or str(error)).split(' (')[0]}.",
            next_step="Stop what listens there, or give another port; 0 takes a free one.",
        ) from error
