"""What lies at a place on the Hub: pinned to a commit, and listed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from mlintern.tools.errors import NotFound
from mlintern.tools.evals.hub_files import RemoteEntry
from mlintern.tools.hub.addresses import HubAddress, RepoType


@dataclass(frozen=True)
class Listing:
    """A pinned place and the files there; ``file`` if the place is one."""

    place: HubAddress
    entries: list[RemoteEntry]
    file: RemoteEntry | None = None
    partial: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.place.kind} {self.place.repo_id}"


def list_place(api: Any, place: HubAddress, *, kind: RepoType, samples: bool, most: int) -> Listing:
    """Pin the place to a commit and list it; of a file what lies beside it, if ``samples``. Blocks."""
    info = api.repo_info(place.repo_id, repo_type=kind, revision=place.revision, expand=["sha"])
    pinned = replace(place, repo_id=info.id, kind=kind, revision=info.sha)  # a renamed repository says its new name
    file = None
    if place.path:
        known = api.get_paths_info(info.id, [place.path], repo_type=kind, revision=info.sha)
        if not known:
            raise NotFound(
                f"The {kind} {info.id} has no {place.path} at {info.sha[:12]}.",
                next_step="browse_hub lists its files.",
            )
        if hasattr(known[0], "size"):
            file = _entry(known[0])
            if not samples:
                return Listing(pinned, [file], file)
    folder = place.path.rpartition("/")[0] if file else place.path
    tree = api.list_repo_tree(info.id, folder or None, recursive=file is None, repo_type=kind, revision=info.sha)
    found = list(islice(tree, most + 1))
    entries = [_entry(one) for one in found[:most] if hasattr(one, "size")]
    cut = [f"Only the first {most:,} entries of the {kind} {info.id} were looked through. Name a folder of it."]
    return Listing(pinned, [one for one in entries if _is_safe(one.path)], file, cut if len(found) > most else [])


def _entry(found: Any) -> RemoteEntry:
    if found.lfs is not None:
        return RemoteEntry(found.path, found.lfs.size, found.lfs.sha256, large=True)
    return RemoteEntry(found.path, found.size, found.blob_id)


def _is_safe(path: str) -> bool:
    """Whether a path of a listing stays within the folder that mirrors the repository."""
    return not path.startswith("/") and "\x00" not in path and ".." not in path.split("/")
