"""Result files of the Hub on disk: by repository and commit, which never change, checked against the Hub's hashes."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

from mlintern.common.clock import Clock
from mlintern.common.files import write_durably
from mlintern.tools.errors import ServiceError, WorkspaceError
from mlintern.tools.evals.hub_files import RemoteEntry
from mlintern.tools.hub.errors import SERVICE

COMMIT = re.compile(r"^[0-9a-f]{40,64}$")


class ResultCache:
    """Keeps files of repositories below ``root``, at most ``most_bytes`` of them; commits not used for longest go."""

    def __init__(self, root: Path, *, most_bytes: int, clock: Clock) -> None:
        self._root = root
        self._most = most_bytes
        self._clock = clock

    def folder(self, kind: str, repo_id: str, *, commit: str) -> Path:
        """The folder that mirrors the repository at ``commit``; it is marked as used now.

        Raises:
            ServiceError: the Hub named a commit that is none.
            WorkspaceError: the folder cannot be made.
        """
        if not COMMIT.match(commit):
            raise ServiceError(
                f"The Hub named {commit!r:.80} as a commit of {repo_id}.",
                service=SERVICE,
                next_step="Check HF_ENDPOINT.",
            )
        folder = self._root / f"{kind}s" / repo_id.replace("/", "--") / commit
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.utime(folder, (self._clock.now(), self._clock.now()))
        except OSError as error:
            raise _unusable(folder, error) from error
        return folder

    def holds(self, folder: Path, entry: RemoteEntry) -> bool:
        """Whether ``folder`` has the file, whole and unchanged."""
        path = folder / entry.path
        try:
            return path.stat().st_size == entry.size and is_content(entry, path.read_bytes())
        except OSError:
            return False

    def keep(self, folder: Path, entry: RemoteEntry, data: bytes) -> None:
        """Write the file.

        Raises:
            ServiceError: ``data`` is not what the Hub says the file holds.
            WorkspaceError: it cannot be written.
        """
        if not is_content(entry, data):
            raise ServiceError(
                f"{entry.path} arrived damaged: its hash is not the one that the Hub lists.",
                service=SERVICE,
                next_step="Try again.",
            )
        path = folder / entry.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_durably(path, data)
        except OSError as error:
            raise _unusable(path, error) from error

    def trim(self) -> None:
        """Delete the commits that were not used for longest, until the rest is small enough."""
        known = [(path.stat().st_mtime, path, _bytes(path)) for path in self._root.glob("*/*/*") if path.is_dir()]
        total = sum(size for _, _, size in known)
        for _, path, size in sorted(known)[:-1]:
            if total <= self._most:
                break
            shutil.rmtree(path, ignore_errors=True)
            total -= size


def is_content(entry: RemoteEntry, data: bytes) -> bool:
    """Whether ``data`` is the content that the Hub lists for the file."""
    if entry.large:
        return hashlib.sha256(data).hexdigest() == entry.digest
    return hashlib.sha1(b"blob %d\x00" % len(data) + data, usedforsecurity=False).hexdigest() == entry.digest


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _unusable(path: Path, error: OSError) -> WorkspaceError:
    return WorkspaceError(
        f"{path} cannot be written: {error.strerror}.",
        next_step="Free disk space, or set MLINTERN_HOME to a folder that you may write; the cache may be deleted.",
    )
