"""`browse_hub`: the files of a repository, and text files page by page."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from mlintern.tools.errors import BadInput
from mlintern.tools.hub.addresses import RepoType, agreed, parse_address
from mlintern.tools.hub.client import HubClient
from mlintern.tools.service_status import NetworkedResult, answered

PAGE = 12_000
"""Characters of a text file that one call gives."""
MOST_ENTRIES = 200
LARGEST_TEXT = 20 * 2**20
BINARY = (
    ".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack", ".parquet", ".arrow", ".zip", ".gz",
    ".tar", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".mp3", ".wav", ".flac", ".mp4", ".model", ".npz", ".npy",
    ".pkl",
)  # fmt: skip


class HubEntry(BaseModel):
    path: str
    kind: Literal["file", "folder"]
    bytes: int | None = None


class HubPage(NetworkedResult):
    """A folder (``entries``) or a part of a text file (``text``)."""

    repo_id: str
    repo_type: RepoType
    revision: str = Field(description="commit that was read; give it again to read the same state")
    path: str
    entries: list[HubEntry] | None = None
    entries_left_out: int = Field(default=0, description="further entries that are not listed")
    text: str | None = Field(default=None, description="untrusted text of the file")
    offset: int = Field(default=0, description="first character of ``text``, or first entry")
    next_offset: int | None = Field(default=None, description="where to go on; None at the end")
    total: int | None = Field(default=None, description="characters of the file, or entries of the folder")
    untrusted: bool = True


class HubBrowser:
    """Lists and reads repositories on the Hub."""

    def __init__(self, *, hub: HubClient) -> None:
        self._hub = hub

    async def browse(
        self,
        repo_id: str,
        *,
        repo_type: RepoType | None = None,
        path: str = "",
        revision: str | None = None,
        offset: int = 0,
    ) -> HubPage:
        """A folder with the sizes of its files, or a text file from ``offset`` on (`PAGE` characters a call).

        Args:
            repo_id: id or address, also of a file or folder inside.
            repo_type: model (default), dataset or space; a URL says it itself.
            path: file or folder inside.
            revision: branch, tag or commit; the newest by default.
            offset: where to go on (``next_offset`` of the call before).

        Raises:
            NotFound: no such repository, revision or path.
            BadInput: the file is binary or larger than 20 MiB, or ``offset`` lies behind its end.
        """
        address = parse_address(repo_id, endpoint=self._hub.endpoint)
        identifier = address.repo_id
        kind: RepoType = agreed("repo_type", given=repo_type, said=address.kind) or "model"
        revision = agreed("revision", given=revision, said=address.revision)
        path = agreed("path", given=path.strip("/"), said=address.path) or ""
        if offset < 0:
            raise BadInput(f"offset is {offset}.", next_step="Give 0 or the next_offset of the call before.")
        inside = path.strip("/")
        what = f"{kind} {identifier}" + (f", {inside}" if inside else "")
        return await self._hub.call(what, lambda api: _page(api, identifier, kind, inside, revision, offset))


def _page(api: Any, repo: str, kind: RepoType, path: str, revision: str | None, offset: int) -> HubPage:
    sha = api.repo_info(repo, repo_type=kind, revision=revision).sha
    if path:
        known = api.get_paths_info(repo, [path], repo_type=kind, revision=sha)
        if known and hasattr(known[0], "size"):
            return _file(api, (repo, kind, sha), known[0], offset)
    entries = [
        HubEntry(path=e.path, kind="file" if hasattr(e, "size") else "folder", bytes=getattr(e, "size", None))
        for e in api.list_repo_tree(repo, path or None, repo_type=kind, revision=sha)
    ]
    entries.sort(key=lambda entry: (entry.kind == "file", entry.path))
    shown = entries[offset : offset + MOST_ENTRIES]
    end = offset + len(shown)
    return HubPage(
        status="ok",
        sources=[answered("huggingface")],
        repo_id=repo,
        repo_type=kind,
        revision=sha,
        path=path,
        entries=shown,
        entries_left_out=len(entries) - end,
        offset=offset,
        next_offset=end if end < len(entries) else None,
        total=len(entries),
    )


def _file(api: Any, where: tuple[str, RepoType, str], entry: Any, offset: int) -> HubPage:
    repo, kind, sha = where
    if entry.path.lower().endswith(BINARY):
        raise BadInput(
            f"{entry.path} is a binary file of {entry.size:,} bytes; it is not shown.",
            next_step="inspect_dataset reads data files, inspect_model reads weights' headers.",
        )
    if entry.size > LARGEST_TEXT:
        raise BadInput(
            f"{entry.path} has {entry.size:,} bytes; files over {LARGEST_TEXT:,} are not shown.",
            next_step="For data use inspect_dataset.",
        )
    data = read_bytes(api, repo, path=entry.path, kind=kind, revision=sha, limit=LARGEST_TEXT)
    if b"\x00" in data[:8192]:
        raise BadInput(f"{entry.path} is a binary file of {entry.size:,} bytes.", next_step="Read another file.")
    text = data.decode("utf-8", "replace")
    if offset > len(text):
        raise BadInput(f"{entry.path} has {len(text):,} characters.", next_step="Give a smaller offset.")
    end = offset + PAGE
    return HubPage(
        status="ok",
        sources=[answered("huggingface")],
        repo_id=repo,
        repo_type=kind,
        revision=sha,
        path=entry.path,
        text=text[offset:end],
        offset=offset,
        next_offset=end if end < len(text) else None,
        total=len(text),
    )


def read_bytes(api: Any, repo: str, *, path: str, kind: RepoType, revision: str | None, limit: int) -> bytes:
    """The bytes of a file, without leaving a copy in the cache of huggingface_hub.

    Raises:
        BadInput: the file is larger than ``limit``.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

    url = hf_hub_url(repo, path, repo_type=kind, revision=revision, endpoint=api.endpoint)
    with get_session().stream("GET", url, headers=build_hf_headers(token=api.token)) as response:
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        received = bytearray()
        for part in response.iter_bytes():
            received += part
            if len(received) > limit:
                raise BadInput(f"{path} is larger than {limit:,} bytes.", next_step="Read another file.")
    return bytes(received)
