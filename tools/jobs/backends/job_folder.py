"""The files by which a local job, its supervisor and any number of servers agree on what has happened.

    launch.json    what to run, written once before anything else
    state.json     how far the supervisor has got: written durably *before* each step is taken
    exit.json      the one final record; it exists if and only if the job is over
    cancel.json    someone asked for the end
    exit.reserve, cancel.reserve   the disk blocks of these two, set aside at the start: on a full disk a job can
                   still be cancelled, and its ending is not lost
    supervisor.lock  held from before the supervisor is started until it is gone: the kernel knows who lives

Standard library only: the supervisor imports this and must stay small.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.common.files import read_json, sync_folder, write_json_durably
from mlintern.tools.jobs.backends.local import process_table

RESERVED_BYTES = 4096
_CLAIM_ATTEMPTS = 200
UNSTARTED = frozenset({"submitted", "queued"})
"""Phases in which surely no line of the script has run."""


@dataclass(frozen=True)
class JobFolder:
    path: Path

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def work(self) -> Path:
        return self.path / "work"

    @property
    def output(self) -> Path:
        return self.path / "output"

    @property
    def script(self) -> Path:
        return self.path / "script.py"

    @property
    def scratch(self) -> Path:
        """Home and temporary folder of an isolated job; removed when it is over."""
        return self.path / "scratch"

    @property
    def launch(self) -> Path:
        return self.path / "launch.json"

    @property
    def lock(self) -> Path:
        return self.path / "supervisor.lock"

    @property
    def supervisor_log(self) -> Path:
        return self.path / "supervisor.log"

    def read(self, name: str) -> dict[str, Any] | None:
        """The JSON object in ``<name>.json``, None where there is none. Raises OSError when it is damaged."""
        value = read_json(self.path / f"{name}.json")
        return value if isinstance(value, dict) else None

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Durably replace ``<name>.json``. Raises OSError when the disk is full."""
        write_json_durably(self.path / f"{name}.json", value)

    def set_aside_ending(self) -> None:
        """Take the disk blocks for `write_exit` and `write_cancel`. Raises OSError when the disk is full."""
        for name in ("exit", "cancel"):
            with (self.path / f"{name}.reserve").open("wb") as file:
                file.write(b" " * RESERVED_BYTES)
                file.flush()
                os.fsync(file.fileno())

    def write_cancel(self, record: dict[str, Any]) -> None:
        """Write down that the end was asked for, in blocks that were set aside; the first request counts."""
        if not (self.path / "cancel.json").is_file():
            self._write_reserved("cancel", {**record, "reason": str(record["reason"])[:1000]})

    def write_exit(self, record: dict[str, Any]) -> None:
        """Write the final record, unless there is one. The reserved blocks make it possible on a full disk."""
        if (self.path / "exit.json").exists():
            return
        data = json.dumps(record, allow_nan=False).encode()
        if len(data) >= RESERVED_BYTES:
            record = {**record, "error": str(record.get("error", ""))[:500]}
        self._write_reserved("exit", record)

    def _write_reserved(self, name: str, record: dict[str, Any]) -> None:
        data = json.dumps(record, allow_nan=False).encode()
        reserve = self.path / f"{name}.reserve"
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(reserve, flags, 0o600)
        try:
            os.pwrite(descriptor, data.ljust(RESERVED_BYTES), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        reserve.replace(self.path / f"{name}.json")
        sync_folder(self.path)

    def claim(self) -> int | None:
        """Take `supervisor.lock` and return its descriptor, or None if somebody living holds it."""
        for _ in range(_CLAIM_ATTEMPTS):
            descriptor = try_lock(self.lock, create=True)
            if descriptor is not None or self.supervised():
                return descriptor
            time.sleep(0.005)  # only somebody's glance (a shared lock) stood in the way
        return None

    def supervised(self) -> bool:
        """Whether a supervisor (or a server that is just starting one) is alive."""
        return is_locked(self.lock)


def try_lock(path: Path, *, create: bool) -> int | None:
    """The descriptor of an exclusive lock on ``path``, or None if another process holds one."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise
    return descriptor


def is_locked(path: Path) -> bool:
    """Whether a process holds the exclusive lock on ``path``. Askers share theirs and never see each other."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def bury(folder: JobFolder, *, now: float) -> dict[str, Any] | None:
    """End what is left of a started job without a supervisor, record it as lost, and return the final record.

    Returns None when the job is alive or has not started. An orphaned script is killed, not taken over: its exit code
    can no longer be learned and nobody would enforce its limits, so its result could not be trusted.
    """
    lock = folder.claim()
    if lock is None:
        return None
    try:
        final = folder.read("exit")
        if final is not None:
            return final
        state = folder.read("state")
        if state is None or state["phase"] in UNSTARTED:
            return None
        killed = process_table.kill_orphans(
            mark=f"MLINTERN_OUTPUT_DIR={folder.output}", leader=state.get("pid"), started=state.get("pid_started")
        )
        found = f" {killed} of its processes were still running and were killed." if killed else ""
        folder.write_exit(
            {
                "state": "lost",
                "error": f"The supervisor of the job vanished (killed, or the machine went down).{found}",
                "started_at": state.get("started_at"),
                "finished_at": max(now, state.get("started_at") or 0.0),
                "exit_code": None,
            }
        )
        return folder.read("exit")
    finally:
        with contextlib.suppress(OSError):
            os.close(lock)
