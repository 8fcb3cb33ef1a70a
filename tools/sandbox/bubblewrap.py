"""Isolation by bubblewrap (``bwrap``): own file system, process table and, if wanted, own network.

Standard library only: the supervisor of a job imports this.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from mlintern.tools.sandbox.policy import HIDDEN, SYSTEM, Policy, devices

_NAMESPACES = ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
_PROBE_SECONDS = 5.0


@lru_cache(maxsize=1)
def program() -> str | None:
    """The path of a ``bwrap`` that works here. Where user namespaces are forbidden it is installed and does not."""
    found = shutil.which("bwrap")
    if found is None:
        return None
    probe = [found, *_NAMESPACES, "--unshare-net", "--die-with-parent", "--ro-bind", "/", "/", "--proc", "/proc"]
    try:
        done = subprocess.run(
            [*probe, "--dev", "/dev", "true"], capture_output=True, stdin=subprocess.DEVNULL, timeout=_PROBE_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found if done.returncode == 0 else None


def command(policy: Policy, argv: Sequence[str], *, bwrap: str) -> list[str]:
    """``argv`` as it is started inside. All processes inside end when the ``bwrap`` process does."""
    # Of what is mounted on one another the later hides the earlier, so folders come before what lies in them.
    mounts = sorted({*_read_only(policy), *(("--bind", path) for path in policy.writable)}, key=lambda m: m[1])
    arguments = [bwrap, "--die-with-parent", *_NAMESPACES, *([] if policy.network else ["--unshare-net"])]
    arguments += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/dev/shm"]
    for device in map(str, devices()):
        arguments += ["--dev-bind-try", device, device]
    for inside in ("/tmp", "/var/tmp"):
        arguments += ["--bind", str(policy.own_tmp), inside]
    arguments += ["--bind", str(policy.own_home), policy.home]
    for option, path in mounts:
        arguments += [f"{option}-try", path, path]
    for path in HIDDEN:
        if Path(path).exists():
            arguments += ["--ro-bind", "/dev/null", path]
    return [*arguments, "--chdir", policy.work, "--", *argv]


def _read_only(policy: Policy) -> Iterator[tuple[str, str]]:
    yield from (("--ro-bind", path) for path in SYSTEM)
    yield from (("--ro-bind", path) for path in policy.readable if path not in policy.writable)
    names = os.path.realpath("/etc/resolv.conf")
    if policy.network and names.startswith("/run/"):  # systemd-resolved, NetworkManager
        yield "--ro-bind", names
