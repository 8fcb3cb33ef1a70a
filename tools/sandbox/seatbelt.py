"""Isolation by macOS's ``sandbox-exec``: a profile in its own language that names what may be read and written."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence

from mlintern.tools.sandbox.policy import MAC_SYSTEM, Policy

_ALWAYS = """
(version 1)
(deny default)
(allow process-fork process-exec)
(allow signal (target same-sandbox))
(allow sysctl-read)
(allow mach-lookup)
(allow iokit-open)
(allow ipc-posix-shm ipc-posix-sem)
(allow file-read-metadata)
(allow file-read* (literal "/"))
(allow file-write* (literal "/dev/null") (literal "/dev/tty") (literal "/dev/dtracehelper"))
"""


def program() -> str | None:
    return shutil.which("sandbox-exec") if sys.platform == "darwin" else None


def command(policy: Policy, argv: Sequence[str], *, sandbox_exec: str) -> list[str]:
    return [sandbox_exec, "-p", profile(policy), *argv]


def profile(policy: Policy) -> str:
    """The policy in seatbelt's language; JSON's quoting is also its own."""
    writable = (*policy.writable, policy.scratch)
    rules = [_rule("file-read*", (*MAC_SYSTEM, *policy.readable, *writable)), _rule("file-write*", writable)]
    if policy.network:
        rules.append("(allow network*)")
    return _ALWAYS.strip() + "\n" + "\n".join(rules) + "\n"


def _rule(right: str, paths: Sequence[str]) -> str:
    return f"(allow {right} {' '.join(f'(subpath {json.dumps(path)})' for path in paths)})"
