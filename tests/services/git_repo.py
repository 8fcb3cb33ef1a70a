"""Repositories of the stand-in of the Hub that can be written to: their history, and what a commit does to it."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse, Response

from tests.services.hub import Repo, refusal

LARGE = ("*.safetensors", "*.bin", "*.parquet", "*.arrow", "*.pt")


@dataclass(frozen=True)
class Commit:
    id: str
    title: str
    message: str
    parent: str | None
    files: dict[str, bytes]


@dataclass
class GitRepo(Repo):
    """A repository with a history. ``files`` and ``sha`` are those of main."""

    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: list[str] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)

    def commit(self, branch: str, title: str, files: dict[str, bytes], message: str = "") -> Commit:
        """Put a commit with exactly ``files`` on ``branch``."""
        parent = self.branches.get(branch)
        name = hashlib.sha1(f"{len(self.commits)} {parent} {title} {sorted(files)}".encode()).hexdigest()
        made = Commit(name, title, message, parent, files)
        self.commits[name] = made
        self.branches[branch] = name
        if branch == "main":
            self.files = files
        return made

    def at(self, revision: str) -> Commit | None:
        name = self.branches.get(revision) or self.tags.get(revision) or revision
        return self.commits.get(name)

    def history(self, revision: str = "main") -> list[Commit]:
        """The newest first."""
        found, commit = [], self.at(revision)
        while commit is not None:
            found.append(commit)
            commit = self.commits.get(commit.parent or "")
        return found

    def described(self) -> dict[str, Any]:
        return {**super().described(), "sha": self.branches["main"]}


def apply(repo: GitRepo, files: dict[str, bytes], key: str, value: dict[str, Any]) -> Response | None:
    path = value["path"]
    match key:
        case "file":
            files[path] = base64.b64decode(value["content"])
        case "lfsFile" if value["oid"] in repo.stored:
            files[path] = repo.stored[value["oid"]]
            repo.large.add(path)
        case "lfsFile":
            return JSONResponse({"error": f"LFS pointer of {path} points to a file that does not exist"}, 400)
        case "deletedFile" if path in files:
            del files[path]
        case _:
            return refusal(404, "EntryNotFound", f"A file with this name doesn't exist: {path}")
    return None


def is_large(path: str, sample: bytes, size: int) -> bool:
    return size > 10_000_000 or b"\0" in sample or any(fnmatch.fnmatch(path, pattern) for pattern in LARGE)


def entry(repo: GitRepo, path: str, data: bytes) -> dict[str, Any]:
    if path not in repo.large:
        return {"type": "file", "oid": blob(data), "size": len(data), "path": path}
    sha256 = hashlib.sha256(data).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(data)}\n".encode()
    lfs = {"oid": sha256, "size": len(data), "pointerSize": len(pointer)}
    return {"type": "file", "oid": blob(pointer), "size": len(data), "path": path, "lfs": lfs}


def blob(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
