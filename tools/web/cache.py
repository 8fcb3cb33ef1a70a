"""Answers on disk: one file each, whole or absent."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.common.files import write_durably

KEPT_HEADERS = ("content-type", "etag", "last-modified", "link", "x-linked-etag", "x-repo-commit")
"""What of an answer's headers is kept: what it is, its validators, and where its next page is."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A cached answer. ``stored_at`` is Unix seconds of the last time the service said that it holds."""

    url: str
    status: int
    headers: Mapping[str, str]
    stored_at: float
    body: bytes

    @property
    def validators(self) -> dict[str, str]:
        """The request headers that ask "has it changed since?"."""
        asked = {"if-none-match": self.headers.get("etag"), "if-modified-since": self.headers.get("last-modified")}
        return {name: value for name, value in asked.items() if value}


class Cache:
    """Files under ``folder``; may be deleted at any time. A damaged or cut file is as good as none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def key(*parts: str) -> str:
        """A name for the request that ``parts`` describe in full."""
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    async def read(self, service: str, key: str) -> Entry | None:
        import anyio

        return await anyio.to_thread.run_sync(self._read, self._path(service, key))

    async def write(self, service: str, key: str, *, entry: Entry) -> None:
        """Store ``entry``; a full disk costs the cache, not the answer, and is logged."""
        import anyio

        await anyio.to_thread.run_sync(self._write, self._path(service, key), entry)

    def _path(self, service: str, key: str) -> Path:
        return self._folder / service / key[:2] / key

    @staticmethod
    def _read(path: Path) -> Entry | None:
        try:
            head, _, body = path.read_bytes().partition(b"\n")
            known: dict[str, Any] = json.loads(head)
            if known["bytes"] != len(body):
                return None
            return Entry(known["url"], known["status"], known["headers"], known["stored_at"], body)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @staticmethod
    def _write(path: Path, entry: Entry) -> None:
        head = {
            "url": entry.url,
            "status": entry.status,
            "headers": {name: entry.headers[name] for name in KEPT_HEADERS if name in entry.headers},
            "stored_at": entry.stored_at,
            "bytes": len(entry.body),
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_durably(path, json.dumps(head).encode() + b"\n" + entry.body)
        except OSError as error:
            _log.warning("The answer of %s was not cached: %s", entry.url, error)
