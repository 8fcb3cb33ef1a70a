"""Ports for programs that must be told one before they start."""

from __future__ import annotations

import contextlib
import secrets
import socket


def free_port() -> int:
    """A loopback port that nobody listens on at this moment, and that no client is given as its own.

    Whoever asks for a service that is not up yet, on a port that the system may give out, can be given that very
    port: then it talks to itself, and the service cannot have it.
    """
    while True:
        port = 15000 + secrets.randbelow(15000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
