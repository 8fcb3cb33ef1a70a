"""Run a command for some minutes, then end it and everything that it has started.

    python -m benchmarks.uplift.clock SECONDS COMMAND...

It makes itself the parent of every orphan among its descendants (Linux), so that a job that an agent has sent into
the background, or whose supervisor left, ends with the clock too.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 5.0
"""Between asking and killing. What is written in it still counts: a model that is half saved does not load."""


def main(arguments: list[str]) -> int:
    seconds, command = float(arguments[0]), arguments[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise SystemExit("The clock needs Linux: it must be able to end what an agent leaves running.")
    ends = time.monotonic() + seconds
    agent = subprocess.Popen(command)
    try:
        code: int | None = agent.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        code = None
    end_all(signal.SIGTERM)
    patience = time.monotonic() + GRACE_SECONDS
    while any(descendants()) and time.monotonic() < patience:
        reap()
        time.sleep(0.1)
    while any(descendants()):
        end_all(signal.SIGKILL)
        reap()
        time.sleep(0.1)
    reap()
    print(f"{'cut off' if code is None else f'ended with {code}'}, {max(0.0, ends - time.monotonic()):.0f} s left")
    return 0


def descendants() -> Iterator[int]:
    """Process ids of all that live below this process."""
    children: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (place / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(place.name))
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        yield from below
        waiting += below


def end_all(number: signal.Signals) -> None:
    for process in list(descendants()):
        try:
            os.kill(process, number)
        except ProcessLookupError:
            continue


def reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
