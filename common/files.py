"""Files that survive a crash: whole or absent, never half."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EACCES, errno.ENXIO})


def open_regular(path: Path, *, within: Path | None = None) -> int | None:
    """A descriptor to read ``path`` with; None where there is no regular file that may be read.

    For files that somebody else writes: a pipe of that name would hold the reader up for ever, and a folder or a link
    that leads to itself is as good as nothing. So is, with ``within``, a link that leads out of that folder: a job
    that sees little could else have the server read the rest for it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode) and (within is None or _lies_in(within, descriptor, path)):
        return descriptor
    os.close(descriptor)
    return None


def _lies_in(folder: Path, descriptor: int, path: Path) -> bool:
    """Whether what was opened lies in ``folder``: by the descriptor where the system tells (Linux), as a link may
    have been changed since; else by the path as it leads now.
    """
    try:
        real = Path(f"/proc/self/fd/{descriptor}").readlink()
    except OSError:
        real = path.resolve()
    return real.is_relative_to(folder.resolve())


def write_durably(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write ``data`` to ``path`` so that a reader, at any moment and after any crash, sees all of it or the old.

    Raises:
        OSError: the disk is full or the folder is not writable; the old file is untouched.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json_durably(path: Path, value: Any, *, mode: int = 0o600) -> None:
    """`write_durably` of ``value`` as JSON; NaN and infinities are refused, they are not JSON."""
    write_durably(path, (json.dumps(value, allow_nan=False) + "\n").encode(), mode=mode)


def read_json(path: Path) -> Any:
    """The JSON in ``path``, None where there is no such file.

    Raises:
        OSError: it cannot be read, or holds no JSON (``EBADMSG``).
    """
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise OSError(errno.EBADMSG, "it is damaged", str(path)) from error


def sync_folder(folder: Path) -> None:
    """Make a rename or a new name in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def exclusive_lock(path: Path, *, blocking: bool = True) -> Iterator[bool]:
    """Hold an advisory lock on ``path`` between processes; yields whether it was got (always, if blocking).

    The kernel releases it when the holder dies, so there is no stale lock to clean up.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)
