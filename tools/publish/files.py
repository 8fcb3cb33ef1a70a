"""The files of an upload: which they are, what is in them, and what must not leave this machine."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from mlintern.common.redact import tokens_in_bytes
from mlintern.common.text import format_bytes
from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.folders import walk
from mlintern.tools.publish.plan import LocalFile

MOST_FILES = 1_000
"""In one commit; the Hub's answer to a larger one takes longer than it waits."""

CHUNK = 8 * 1024 * 1024
OVERLAP = 16 * 1024
"""Bytes that two chunks share, so that a token on their border is found."""

SEARCHED_IN_BINARY = 4 * 1024 * 1024
"""Bytes at the beginning of a binary file that are searched for secrets: ``training_args.bin`` can hold a token."""

LEFT_OUT = (
    *("checkpoint-*", "global_step*", "optimizer*.pt", "optimizer*.bin", "scheduler.pt", "scaler.pt"),
    *("rng_state*.pth", ".git", ".cache", "__pycache__", ".ipynb_checkpoints", ".DS_Store"),
)
"""What training leaves behind for going on with it. `include` can name it all the same."""

SECRET_NAMES = (
    *(".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "*.keystore", "id_rsa", "id_dsa", "id_ecdsa"),
    *("id_ed25519", ".netrc", "_netrc", ".npmrc", ".pypirc", ".git-credentials", ".htpasswd", "credentials"),
    *("credentials.json", "token", "stored_tokens", "secrets.json", "secrets.toml", "secrets.yaml", "secrets.yml"),
)
HARMLESS_NAMES = (".env.example", ".env.sample", ".env.template")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Files to upload; what of their folder was left out by default; names of those not searched to their end."""

    files: tuple[LocalFile, ...]
    left_out: tuple[str, ...] = ()
    not_searched: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Content:
    sha256: str
    blob_id: str
    secret: str
    searched: bool


class FileReader:
    """Reads each file once, as long as it does not change: a large model is hashed for one question, not for each."""

    def __init__(self, *, known_secrets: Iterable[str] = ()) -> None:
        self._known = tuple(known_secrets)
        self._contents: dict[tuple[object, ...], _Content] = {}
        self._bytes = 0
        self._reading = threading.Lock()
        """One reads at a time: a call that came back before the end is gone on with, not begun anew beside it."""

    def select(
        self,
        source: Path,
        *,
        into: str = "",
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        forbidden: Path | None = None,
    ) -> Selection:
        """The files of ``source``, a file or a folder, as they would go to the folder ``into`` of a repository.

        Args:
            include: take only what matches one of these patterns; with a file as source it has no effect.
            exclude: leave out what matches one of these.
            forbidden: a folder that must not be uploaded as a whole, the workspace.

        Raises:
            NotFound: there is no such file, or nothing is left of the folder.
            BadInput: a file holds a secret or is named like one, a link leads out of the folder, a path cannot be
                used on the Hub, or there are too many files.
        """
        names, left_out = _names(source, include, exclude, forbidden)
        files, secrets, unsearched = [], [], []
        for name, path in names.items():
            content, size = self._content(path)
            target = _in_repository(into, name)
            files.append(LocalFile(path=path, name=target, size=size, sha256=content.sha256, blob_id=content.blob_id))
            if content.secret:
                secrets.append(f"{name} {content.secret}")
            if not content.searched:
                unsearched.append(name)
        if secrets:
            raise BadInput(
                f"Nothing is uploaded: there are secrets in {_some(secrets)}.",
                next_step="Take them out of the files, or leave the files out with exclude. A secret that lay in a"
                " shared folder should be replaced.",
            )
        return Selection(files=tuple(files), left_out=left_out, not_searched=tuple(unsearched))

    def _chunks(self, file: IO[bytes]) -> Iterator[bytes]:
        while data := file.read(CHUNK):
            self._bytes += len(data)
            yield data

    @property
    def progress(self) -> str:
        """How much this reader has read so far, for people."""
        return f"{len(self._contents):,} files done, {format_bytes(self._bytes)} read"

    def _content(self, path: Path) -> tuple[_Content, int]:
        try:
            with path.open("rb") as file:
                before = os.fstat(file.fileno())
                key = (path, before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns, before.st_ctime_ns)
                with self._reading:
                    if key not in self._contents:
                        self._contents[key] = _read(self._chunks(file), before.st_size, self._known)
        except OSError as error:
            raise BadInput(f"{path} cannot be read: {error.strerror}.", next_step="Check its permissions.") from error
        return self._contents[key], before.st_size


def _read(chunks: Iterator[bytes], size: int, known: Sequence[str]) -> _Content:
    sha256, blob = hashlib.sha256(), hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    secret, start, lines, tail, binary = "", 0, 1, b"", False
    for chunk in chunks:
        sha256.update(chunk)
        blob.update(chunk)
        binary = binary or (start == 0 and b"\0" in chunk[:8192])
        if not secret and not (binary and start >= SEARCHED_IN_BINARY):
            data = tail + (chunk[:SEARCHED_IN_BINARY] if binary else chunk)
            for kind, position in tokens_in_bytes(data, known=known):
                line = lines + data.count(b"\n", 0, position)
                secret = f"({kind})" if binary else f"line {line} ({kind})"
                break
            tail = data[-OVERLAP:]
            lines += data.count(b"\n", 0, len(data) - len(tail))
        start += len(chunk)
    searched = not binary or size <= SEARCHED_IN_BINARY
    return _Content(sha256.hexdigest(), blob.hexdigest(), secret, searched)


def _names(
    source: Path, include: Sequence[str], exclude: Sequence[str], forbidden: Path | None
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Names relative to the source, sorted, with their files; and what was left out by default."""
    if not source.exists():
        raise NotFound(f"There is no file or folder {source}.", next_step="Give a path, or a job id from list_jobs.")
    root = source.resolve()
    if forbidden is not None and forbidden.resolve().is_relative_to(root):
        raise BadInput(
            f"{source} holds mlintern's own records.",
            next_step="Name the job, or the folder that is meant inside it.",
        )
    if root.is_file():
        _refuse_secret_names([source.name])
        return {source.name: root}, ()
    kept: dict[str, Path] = {}
    left_out: dict[str, None] = {}
    for name, path in _walk(root):
        if _matches(name, exclude) or (include and not _matches(name, include)):
            continue
        if _matches(name, LEFT_OUT) and not _matches(name, include):
            left_out[_outermost(name)] = None
            continue
        kept[name] = path
    _refuse_secret_names(kept)
    for name, path in kept.items():
        _refuse_odd(root, name, path)
    if not kept:
        raise NotFound(
            f"Nothing of {source} is left to upload." if left_out else f"There is no file in {source}.",
            next_step="Check include and exclude." if not left_out else f"Left out: {_some(list(left_out))}.",
        )
    if len(kept) > MOST_FILES:
        raise BadInput(
            f"{source} holds {len(kept):,} files; one commit takes {MOST_FILES:,} at most.",
            next_step="Pack them (parquet, tar), or upload subfolders one by one with path_in_repo.",
        )
    return dict(sorted(kept.items())), tuple(sorted(left_out))


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    for folder, inner, names in walk(root):
        inner.sort()
        links = [name for name in inner if (Path(folder) / name).is_symlink()]
        for name in sorted([*names, *links]):
            path = Path(folder) / name
            yield path.relative_to(root).as_posix(), path


def _refuse_odd(root: Path, name: str, path: Path) -> None:
    if path.is_symlink() and not path.resolve().is_relative_to(root):
        raise BadInput(
            f"{name} is a link that leads out of the folder, to {path.resolve()}.",
            next_step="Copy the file into the folder, or leave it out with exclude.",
        )
    if not path.exists() or not stat.S_ISREG(path.stat().st_mode):
        raise BadInput(f"{name} is not a plain file.", next_step="Leave it out with exclude.")


def _refuse_secret_names(names: Iterable[str]) -> None:
    secret = [name for name in names if _is_secret_name(PurePosixPath(name).name.lower())]
    if secret:
        raise BadInput(
            f"Nothing is uploaded: {_some(secret)} by name would hold secrets.",
            next_step="Leave them out with exclude.",
        )


def _is_secret_name(name: str) -> bool:
    return name not in HARMLESS_NAMES and any(fnmatch.fnmatchcase(name, pattern) for pattern in SECRET_NAMES)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern fits the whole name or, without a ``/`` in it, any of its parts."""
    parts = PurePosixPath(name).parts
    return any(
        fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern.rstrip('/')}/*")
        if "/" in pattern
        else any(fnmatch.fnmatchcase(part, pattern) for part in parts)
        for pattern in patterns
    )


def _outermost(name: str) -> str:
    """The folder that is left out as a whole, with a ``/``, rather than each file in it."""
    parts = PurePosixPath(name).parts
    depth = next(index for index, part in enumerate(parts, 1) if _matches(part, LEFT_OUT))
    return "/".join(parts[:depth]) + ("/" if depth < len(parts) else "")


def _in_repository(into: str, name: str) -> str:
    return path_in_repo(f"{into}/{name}" if into else name)


def path_in_repo(text: str) -> str:
    """``text`` as the path of a file in a repository.

    Raises:
        BadInput: it leaves the repository, or git would not take it.
    """
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not parts or any(part in ("..", ".git", ".cache") or not part.isprintable() for part in parts):
        raise BadInput(f"{text!r} is no path in a repository.", next_step="Give one such as data/train.jsonl.")
    return "/".join(parts)


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
