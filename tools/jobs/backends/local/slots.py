"""Who may run: a queue in order of submission, and slots that hold one job each.

A ticket is a file in the queue folder, locked by the process that waits; a slot is a file locked by the process that
runs. The kernel lets go of both when their holder dies, so nothing has to be cleaned up for the next one to go on.
Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from mlintern.common.files import exclusive_lock
from mlintern.tools.jobs.backends.job_folder import JobFolder, bury, is_locked, try_lock


def take_ticket(queue: Path, job_id: str) -> tuple[Path, int]:
    """Join the queue at its end: the ticket, and the descriptor of its lock, to be handed to the one who waits."""
    queue.mkdir(parents=True, exist_ok=True, mode=0o700)
    with exclusive_lock(queue / ".order"):
        last = max((int(name.partition(".")[0]) for name in _tickets(queue)), default=0)
        # Locked under a name that no one looks at, then renamed: nobody ever sees a ticket without its lock.
        hidden = queue / f".{job_id}"
        hidden.unlink(missing_ok=True)
        descriptor = try_lock(hidden, create=True)
        assert descriptor is not None, "a new file has no other holder"
        ticket = queue / f"{last + 1:09d}.{job_id}"
        hidden.rename(ticket)
    return ticket, descriptor


@dataclass
class Place:
    """A place in the queue."""

    ticket: Path
    descriptor: int
    ahead: str | None = None

    def is_first(self) -> bool:
        """Whether no living process holds an earlier ticket. Tickets of the dead are removed on the way."""
        queue = self.ticket.parent
        if self.ahead is not None and is_locked(queue / self.ahead):
            return False
        for name in sorted(_tickets(queue)):
            if name >= self.ticket.name:
                break
            if is_locked(queue / name):
                self.ahead = name
                return False
            (queue / name).unlink(missing_ok=True)
        return True

    def leave(self) -> None:
        self.ticket.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.close(self.descriptor)


@dataclass
class Slots:
    """Locks on slot files, held until the process ends. ``names`` are those got so far."""

    folder: Path
    names: list[str] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def try_fill(self, candidates: list[str], *, needed: int, occupant: Path) -> bool:
        """Take free slots among ``candidates`` until ``needed`` are held; keep what was got. Only the first asks."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in candidates:
            if len(self.names) >= needed:
                break
            if name in self.names:
                continue
            descriptor = try_lock(self.folder / name, create=True)
            if descriptor is None:
                continue
            self._clear_remains(descriptor)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(str(occupant)).encode(), 0)
            self.names.append(name)
            self.descriptors.append(descriptor)
        return len(self.names) >= needed

    def _clear_remains(self, descriptor: int) -> None:
        """A supervisor that was killed may have left its script on the slot's processor: end it before moving in."""
        recorded = os.pread(descriptor, 4096, 0)
        with contextlib.suppress(ValueError, OSError):
            bury(JobFolder(Path(json.loads(recorded))), now=time.time())


def jobs_ahead(queue: Path, job_id: str) -> int | None:
    """How many living jobs wait before this one; None if it does not wait."""
    waiting = [name for name in sorted(_tickets(queue)) if is_locked(queue / name)]
    for position, name in enumerate(waiting):
        if name.partition(".")[2] == job_id:
            return position
    return None


def _tickets(queue: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(queue) if entry.name.partition(".")[0].isdecimal()]
    except FileNotFoundError:
        return []
