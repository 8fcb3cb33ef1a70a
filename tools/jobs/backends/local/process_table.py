"""Which processes there are: who started whom, since when, and how to end a whole tree of them.

Linux is read from ``/proc``; other systems through ``ps``. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LINUX = sys.platform == "linux"
_KILL_SECONDS = 5.0


@dataclass(frozen=True)
class Process:
    """``started`` tells two processes apart that had the same ``pid`` at different times, also across reboots."""

    pid: int
    parent: int
    session: int
    started: str
    zombie: bool = False


def processes() -> dict[int, Process]:
    """All processes of the machine by pid."""
    if not LINUX:
        return _from_ps()
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - Path objects for every pid would cost more than the reading
        if name.isdigit() and (process := find(int(name))) is not None:
            found[process.pid] = process
    return found


def find(pid: int) -> Process | None:
    """The process with this pid, None if there is none."""
    if not LINUX:
        return _from_ps().get(pid)
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The name in parentheses may hold anything; the fields begin after the last one: state, ppid, pgrp, session...
    fields = text[text.rindex(")") + 2 :].split()
    return Process(
        pid=pid,
        parent=int(fields[1]),
        session=int(fields[3]),
        started=f"{boot_id()}:{fields[19]}",
        zombie=fields[0] in "ZX",
    )


def boot_id() -> str:
    """A name for the present run of the machine: ticks since boot mean nothing after a reboot."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    return ""


def age_seconds(process: Process) -> float | None:
    """Seconds since the process was started, by the kernel's own clock, which nobody can set. Linux only."""
    if not LINUX:
        return None
    ticks = int(process.started.rpartition(":")[2])
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


def descendants(root: int) -> list[Process]:
    """Living children, grandchildren and so on of ``root``, whatever group or session they moved to."""
    table = processes()
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process)
    found, waiting = [], [root]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            waiting.append(child.pid)
            if not child.zombie:
                found.append(child)
    return found


def resident_bytes(pids: Iterable[int]) -> int:
    """Main memory that the processes hold together, shared pages counted once for each. Cheap. Linux only."""
    pages = 0
    for pid in pids:
        with contextlib.suppress(OSError, IndexError, ValueError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def proportional_bytes(pids: Iterable[int]) -> int:
    """Main memory that the processes hold together, shared pages counted once (PSS). Slow. Linux only."""
    kibibytes = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kibibytes += int(line.split()[1])
    return kibibytes * 1024


def send(targets: Iterable[Process], number: signal.Signals) -> None:
    """Signal each process that is still the one that was meant."""
    for process in targets:
        current = find(process.pid)
        if current is not None and current.started == process.started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, number)


def kill_orphans(*, mark: str, leader: int | None, started: str | None) -> int:
    """Kill what remains of a job whose supervisor is gone; return how many processes that were.

    They are recognised by ``mark`` in the environment they were started with, or by the session that the script led.
    A pid that now belongs to someone else is left alone: the kernel gives no pid away while a session is named after
    it, so either the leader lives with its recorded start, or it is gone and the session is still the job's.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + _KILL_SECONDS
    while time.monotonic() < deadline:
        table = processes()
        session = leader
        if leader is not None and (led := table.get(leader)) is not None and led.started != started:
            session = None
        if started is not None and LINUX and started.partition(":")[0] != boot_id():
            session = None
        ours = [
            process
            for process in table.values()
            if not process.zombie
            and process.pid != os.getpid()
            and (process.session == session or _has_mark(process.pid, mark))
        ]
        if not ours:
            break
        send(ours, signal.SIGKILL)
        killed.update(process.pid for process in ours)
        time.sleep(0.02)
    return len(killed)


def _has_mark(pid: int, mark: str) -> bool:
    if not LINUX:
        return False
    try:
        return mark.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _from_ps() -> dict[int, Process]:
    import subprocess

    listing = subprocess.run(
        ["ps", "-axo", "pid=,ppid=,sess=,stat=,lstart="], capture_output=True, text=True, check=False, timeout=10
    ).stdout
    found = {}
    for line in listing.splitlines():
        pid, parent, _, state, started = line.split(None, 4)
        try:
            session = os.getsid(int(pid))  # the column of ps is a kernel address on macOS
        except OSError:
            continue
        found[int(pid)] = Process(
            pid=int(pid), parent=int(parent), session=session, started=started.strip(), zombie="Z" in state
        )
    return found
