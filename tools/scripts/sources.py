"""Where models and datasets come from: a Hub id, a Hub URL, or a file or folder on this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from mlintern.tools.errors import BadInput

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
BUILDERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
"""File suffix -> the builder of `datasets.load_dataset` that reads it; each may be followed by .gz or .zst."""

Kind = Literal["hub", "json", "parquet", "csv", "saved", "saved_splits", "folder"]


def normalise_source(name: str) -> str:
    """``name`` as a script can use it: a Hub id, or an absolute path.

    Takes ``org/name``, a huggingface.co URL, ``~/x``, a relative path (jobs run elsewhere, so it becomes absolute).

    Raises:
        BadInput: it is none of these.
    """
    stripped = name.strip()
    url = urlsplit(stripped) if stripped.startswith(("http://", "https://")) else None
    if url is not None:
        parts = [part for part in url.path.split("/") if part]
        if parts[:1] in (["datasets"], ["spaces"]):
            parts = parts[1:]
        if url.hostname in ("huggingface.co", "hf.co") and len(parts) >= 2:
            return "/".join(parts[:2])
        raise BadInput(f"{stripped} is no address of a Hub repository.", next_step="Give org/name or a local path.")
    if stripped and (_looks_local(name) or _exists(name)):
        try:
            return str(Path(name).expanduser().absolute())
        except RuntimeError as error:
            raise BadInput(f"{name!r:.200}: {error}", next_step="Give an absolute path.") from None
    if HUB_ID.fullmatch(stripped):
        return stripped
    raise BadInput(
        f"{name!r:.200} is neither a Hub id (org/name) nor a path that exists.",
        next_step="Start a local path with / or ./, or check the id with search_hub.",
    )


def is_local(source: str) -> bool:
    """Whether a normalised source is a path."""
    return source.startswith("/")


def dataset_kind(source: str) -> Kind:
    """How a script loads a normalised dataset; what a path is, is read from its suffix, then from the disk."""
    if not is_local(source):
        return "hub"
    path = Path(source)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in (".gz", ".zst"):
        suffixes.pop()
    if suffixes and (builder := BUILDERS.get(suffixes[-1])) and not path.is_dir():
        return builder  # type: ignore[return-value]
    if (path / "dataset_dict.json").is_file():
        return "saved_splits"
    if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
        return "saved"
    if path.is_file():
        raise BadInput(
            f"{source} is of no known kind.", next_step=f"Datasets are {', '.join(BUILDERS)} files or saved datasets."
        )
    return "folder"


def check_dataset_exists(source: str) -> None:
    """Refuse a local dataset that is not there, before a job is paid for.

    Raises:
        BadInput: the path does not exist or is an empty file.
    """
    if not is_local(source):
        return
    path = Path(source)
    if not _exists(source):
        near = sorted(other.name for other in path.parent.glob("*"))[:10] if path.parent.is_dir() else []
        there = f"The folder holds: {', '.join(near)}." if near else "Its folder does not exist either."
        raise BadInput(f"The dataset {source} does not exist.", next_step=there)
    if path.is_file() and path.stat().st_size == 0:
        raise BadInput(f"The dataset {source} is empty.", next_step="Write rows to it first.")


def _looks_local(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or Path(name).suffix.lower() in BUILDERS


def _exists(name: str) -> bool:
    try:
        return Path(name).expanduser().exists()
    except (ValueError, RuntimeError, OSError):  # a NUL byte, an unknown ~user, a name that is too long
        return False
