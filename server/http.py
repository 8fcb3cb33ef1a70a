"""Streamable HTTP on a loopback address; Host and Origin are checked, so no web page can reach it."""

from __future__ import annotations

import socket
import sys
from typing import Any

from mcp.server import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from mlintern.tools.errors import BadInput

PATH = "/mcp"


async def serve_http(server: MCPServer[Any], host: str, port: int) -> None:
    """Serve until interrupted. Port 0 takes a free one; the address is printed to stderr once it accepts.

    Raises:
        BadInput: something else listens there.
    """
    import uvicorn

    with _listening(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        app = server.streamable_http_app(
            streamable_http_path=PATH, host=host, transport_security=checks(shown, listener.getsockname()[1])
        )
        # h11 trims header values as RFC 9110 asks; httptools, which uvicorn would prefer if it is there, does not.
        config = uvicorn.Config(app, http="h11", log_level="warning", access_log=False, log_config=None)
        print(
            f"mlintern-server listens on http://{shown}:{listener.getsockname()[1]}{PATH}",
            file=sys.stderr,
            flush=True,
        )
        await uvicorn.Server(config).serve(sockets=[listener])


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
