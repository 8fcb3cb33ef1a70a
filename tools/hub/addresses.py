"""Every form in which people name something on the Hub, read in one place.

Ids (``org/name``, ``gpt2``), with their kind (``datasets/org/name``) and revision (``org/name@main``), ``hf://``
URIs, and addresses of huggingface.co, hf.co or another endpoint: of a repository, of a file or folder in it, of the
dataset viewer and of the API, and what ``git clone`` takes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import unquote, urlsplit

from mlintern.tools.errors import BadInput
from mlintern.tools.urls import split_url

RepoType = Literal["model", "dataset", "space"]
HOME = "https://huggingface.co"
KINDS: dict[str, RepoType] = {"models": "model", "datasets": "dataset", "spaces": "space"}
READERS: dict[RepoType, str] = {
    "model": "inspect_model reads models.",
    "dataset": "inspect_dataset reads datasets.",
    "space": "browse_hub reads the files of spaces (repo_type space).",
}
DATA_SUFFIXES = frozenset({".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".arrow"})

_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co", "hub-ci.huggingface.co"})
_SCHEMES = re.compile(r"^(?:https?|ssh|git|hf|file)://", re.IGNORECASE)
_HOSTED = re.compile(r"^(?:[\w.-]+@)?([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,})(?::\d+)?[:/](?=.)")
_KNOWN_HOSTS = re.compile(
    r"(?:^|\.)(?:github|gitlab|kaggle|drive\.google|openreview|gist\.github)\.(?:com|net)$"
    r"|(?:^|\.)(?:bitbucket|arxiv|codeberg|zenodo)\.org$|(?:^|\.)modelscope\.(?:cn|com)$|(?:^|\.)hf\.space$",
    re.IGNORECASE,
)
_ID = re.compile(r"[A-Za-z0-9_][\w.-]*(?:/[A-Za-z0-9_][\w.-]*)?")
_OWNED = re.compile(r"^(?:(?:models|datasets|spaces)/)?[\w-][\w.-]*/[\w-][\w.-]*(?:@[^@\s]+)?$")
_FILE_PAGES = frozenset({"blob", "tree", "resolve", "raw", "blame", "edit"})
_REPO_PAGES = frozenset({"viewer", "embed", "commit", "revision"})
_OTHER_PAGES = frozenset({
    "api", "blog", "buckets", "chat", "collections", "docs", "enterprise", "jobs", "join", "kernels", "learn",
    "login", "models", "datasets", "organizations", "papers", "posts", "pricing", "search", "settings", "spaces",
    "tasks",
})  # fmt: skip
_SPECIAL_REVISION = re.compile(r"^refs/(?:convert/[\w.-]+|pr/\d+)")

Name = TypeVar("Name", bound=str)


@dataclass(frozen=True)
class HubAddress:
    """A repository, or a file or folder in it.

    ``kind`` None: the name does not say it. ``revision`` None: the newest. ``path`` empty: the whole repository.
    ``config`` and ``split`` are those of a page of the dataset viewer.
    """

    repo_id: str
    kind: RepoType | None = None
    revision: str | None = None
    path: str = ""
    config: str | None = None
    split: str | None = None

    def uri(self) -> str:
        """``hf://models/org/name@revision/path``, which `parse_address` reads back."""
        from huggingface_hub import HfUri

        return HfUri(self.kind or "model", self.repo_id, self.revision, self.path).to_uri()


def parse_address(
    name: str, *, endpoint: str = HOME, wanted: Sequence[RepoType] = ("model", "dataset", "space")
) -> HubAddress:
    """What ``name`` stands for on the Hub at ``endpoint``.

    Args:
        wanted: the kinds of repository that the caller can use. With a single one, the result has it.

    Raises:
        BadInput: it names no repository, lies on another host, or says that it is of a kind that is not wanted.
    """
    text = name.strip()
    address = _parse(text, endpoint)
    if address.kind is not None and address.kind not in wanted:
        article = " or a ".join(sorted(wanted))
        raise BadInput(f"{text!r:.200} is a {address.kind}, not a {article}.", next_step=READERS[address.kind])
    if address.kind is None and len(wanted) == 1:
        [only] = wanted
        return HubAddress(address.repo_id, only, address.revision, address.path)
    return address


def agreed(what: str, *, given: Name | None, said: Name | None) -> Name | None:
    """The one of an argument and of what the address says; ``what`` names it in the error.

    Raises:
        BadInput: they differ.
    """
    if given and said and given != said:
        raise BadInput(
            f"The address says {what} {said!r:.80}, the argument {given!r:.80}.", next_step=f"Give {what} once."
        )
    return given or said


def looks_like_address(name: str) -> bool:
    """Whether ``name`` is an address of the web or of the Hub, or an ``org/name`` that cannot be meant as a path."""
    text = name.strip()
    hosted = _HOSTED.match(text)
    return bool(_SCHEMES.match(text) or (hosted and _is_host(hosted[1]))) or (
        _OWNED.match(text) is not None and not looks_local(text)
    )


def looks_local(name: str) -> bool:
    """True for what can only be a path, or exists as one; ``org/name`` is local only if it exists."""
    text = name.strip()
    if text.lower().startswith("file://"):
        return True
    if _SCHEMES.match(text):
        return False
    if text.startswith(("/", "./", "../", "~")) or text in (".", ".."):
        return True
    if text.startswith(tuple(f"{kind}/" for kind in KINDS)) or "@" in text:  # an id with its kind or its revision
        return path_exists(text)
    return (Path(text).suffix.lower() in DATA_SUFFIXES and not _on_a_host(text)) or path_exists(text)


def path_exists(name: str) -> bool:
    """Whether there is such a path; False for what no path can be (a NUL byte, an unknown ``~user``, too long)."""
    try:
        return bool(name) and local_path(name).exists()
    except (ValueError, RuntimeError, OSError):
        return False


def local_path(name: str) -> Path:
    """The path that ``name`` stands for: ``~`` expanded, ``file://`` taken off."""
    text = name.strip()
    if text.lower().startswith("file://"):
        return Path(unquote(urlsplit(text).path))
    return Path(name).expanduser()


def _parse(text: str, endpoint: str) -> HubAddress:
    if not text or len(text) > 2000 or any(not char.isprintable() for char in text):
        raise _no_address(text)
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    if scheme == "hf":
        return _located(text, text[5:], kind="model")
    if scheme in ("http", "https", "ssh", "git"):
        return _page(text, text, endpoint)
    if scheme:
        raise BadInput(
            f"{text!r:.200} is no address of the Hub.", next_step="Give org/name, a Hub address or a path."
        )
    hosted = _HOSTED.match(text)
    if hosted and _is_host(hosted[1]):
        rest = text[hosted.end() :]
        return _page(text, f"https://{hosted[1]}/{rest}", endpoint)
    return _located(text, text, bare=True)


def _is_host(host: str) -> bool:
    return host.lower() in _HOSTS or _KNOWN_HOSTS.search(host) is not None or host.lower().startswith("www.")


def _on_a_host(text: str) -> bool:
    hosted = _HOSTED.match(text)
    return hosted is not None and _is_host(hosted[1])


def _page(text: str, url: str, endpoint: str) -> HubAddress:
    """The repository of a web page, or of a ``git clone`` address."""
    parts = split_url(url, next_step="Give org/name of the Hub, an address of huggingface.co, or a local path.")
    own = urlsplit(endpoint)
    host = (parts.hostname or "").lower()
    if host not in _HOSTS and host != (own.hostname or "").lower():
        raise BadInput(
            f"Unrecognized host {host!r:.100}: {text!r:.200} is no address of a Hub repository.",
            next_step="read_code and search_code read GitHub. Give org/name of the Hub, or a local path."
            if "github" in host
            else "Give org/name of the Hub, an address of huggingface.co, or a local path.",
        )
    path = parts.path
    prefix = own.path.rstrip("/")
    if prefix and host == (own.hostname or "").lower() and path.startswith(f"{prefix}/"):
        path = path[len(prefix) :]
    pieces = [piece for piece in path.split("/") if piece]
    if pieces[:1] == ["api"] and pieces[1:2] and pieces[1] in KINDS:
        pieces = pieces[1:]
    kind = pieces.pop(0) if len(pieces) > 1 and pieces[0] in KINDS else "models"
    if not pieces or pieces[0].lower() in _OTHER_PAGES:
        raise BadInput(
            f"{text!r:.200} is a page of the Hub, but not of a model, dataset or space.",
            next_step="Give the address of the repository, or org/name.",
        )
    if len(pieces) == 1 and kind == "models" and host in _HOSTS:
        raise BadInput(
            f"{text!r:.200} is the page of a user or an organization.",
            next_step="Give the repository: org/name, or the name alone for one without an owner (gpt2).",
        )
    single = (
        len(pieces) == 1 or pieces[1] in _FILE_PAGES | _REPO_PAGES
    )  # gpt2, and others from before there were owners
    identifier = "/".join(pieces[:1] if single else pieces[:2]).removesuffix(".git")
    page, rest = (pieces[1:2], pieces[2:]) if single else (pieces[2:3], pieces[3:])
    if page and page[0] in _FILE_PAGES and rest:
        return _located(text, f"{kind}/{identifier}@{'/'.join(_segment(piece) for piece in rest)}")
    if page in (["commit"], ["revision"]) and rest:
        return _located(text, f"{kind}/{identifier}@{rest[0]}")
    if page == ["viewer"] and kind == "datasets":
        config, split = ([unquote(piece) for piece in rest[:2]] + [None, None])[:2]
        return HubAddress(_checked_id(text, identifier), "dataset", None, "", config, split)
    if page and page[0] not in _FILE_PAGES | _REPO_PAGES:
        raise BadInput(
            f"{text!r:.200} is an unsupported page of {identifier} ({page[0]!r:.40}).",
            next_step=f"Give {identifier}, or the address of a file (/blob/main/...) or folder (/tree/main/...).",
        )
    return HubAddress(_checked_id(text, identifier), KINDS[kind])


def _segment(piece: str) -> str:
    """A segment of a URL's path, decoded; an encoded slash stays, since it is part of a revision."""
    return unquote(piece.replace("%2F", "%252F").replace("%2f", "%252F"))


def _located(text: str, body: str, *, kind: RepoType | None = None, bare: bool = False) -> HubAddress:
    """``[KIND/]ID[@REVISION][/PATH]``; a ``bare`` one has no path, so that a wrong local path is not taken for it."""
    first, _, rest = body.partition("/")
    named = KINDS.get(first) if rest else None
    location, kind = (rest, named) if named else (body, kind)
    before, at, after = location.partition("@")
    if at:
        identifier, path = before, ""
        special = _SPECIAL_REVISION.match(after)
        revision = special[0] if special else after.partition("/")[0]
        path = after[len(revision) :].removeprefix("/")
    else:
        pieces = location.split("/")
        identifier, revision, path = "/".join(pieces[:2]), "", "/".join(pieces[2:])
    identifier, path = identifier.strip("/"), path.strip("/")
    if (bare and path and not at) or (at and not revision) or "\\" in path:
        raise _no_address(text)
    if ".." in path.split("/") or "//" in path:
        raise BadInput(f"{text!r:.200} leaves the repository.", next_step="Give the path inside the repository.")
    return HubAddress(_checked_id(text, identifier), kind, unquote(revision) or None, path)


def _checked_id(text: str, identifier: str) -> str:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(identifier)
    except HFValidationError:
        raise _no_address(text) from None
    if not _ID.fullmatch(identifier):
        raise _no_address(text)
    return identifier


def _no_address(text: str) -> BadInput:
    return BadInput(
        f"{text!r:.200} is neither a Hub id nor an existing path.",
        next_step="Give org/name, an address of huggingface.co, or a path that exists (search_hub finds names).",
    )
