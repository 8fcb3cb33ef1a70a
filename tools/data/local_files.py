"""Where local data lies: one file, a folder of files, or a dataset saved by ``datasets``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mlintern.common.text import did_you_mean, nearest
from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.hub.addresses import local_path, path_exists

FORMATS = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".arrow": "arrow",
}
SPLIT_NAMES = {
    "train": "train",
    "test": "test",
    "validation": "validation",
    "valid": "validation",
    "dev": "validation",
}
METADATA = {"dataset_info.json", "dataset_infos.json", "config.json", "state.json"}


@dataclass(frozen=True)
class LocalSplit:
    name: str
    files: tuple[Path, ...]
    format: str

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)


@dataclass(frozen=True)
class LocalDataset:
    path: Path
    splits: tuple[LocalSplit, ...]

    def split(self, name: str | None) -> LocalSplit:
        """The split of that name; without a name ``train`` if there is one, else the first."""
        by_name = {split.name: split for split in self.splits}
        if name is None:
            return by_name.get("train", self.splits[0])
        if name not in by_name:
            raise BadInput(f"{self.path} has no split {name!r}.", next_step=did_you_mean(name, by_name, what="split"))
        return by_name[name]


def open_local(name: str) -> LocalDataset:
    """Find the data files behind a path.

    Raises:
        NotFound: no such path; a similar name in the same folder is suggested.
        BadInput: the path holds no file of a known format.
    """
    path = local_path(name)
    if not path_exists(name):
        folder = path.parent if path.parent.is_dir() else None
        close = nearest(path.name, (child.name for child in folder.iterdir())) if folder else []
        raise NotFound(
            f"There is no file or folder {name}.",
            next_step=f"Did you mean {path.parent / close[0]}?"
            if close
            else "Give a .parquet, .jsonl, .csv or .arrow file, a folder of them, a saved dataset, or a Hub id.",
        )
    if path.is_file():
        # `load_dataset(..., data_files=path)` calls the one split of a single file "train", whatever its name is
        return LocalDataset(path, (LocalSplit("train", (path,), _format(path)),))
    if (path / "dataset_dict.json").is_file():
        return LocalDataset(path, _saved_splits(path))
    if (path / "state.json").is_file():
        return LocalDataset(path, (_saved(path, "train"),))
    return LocalDataset(path, _splits_of_folder(path))


def _format(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if (
        suffixes
        and suffixes[-1] in {".gz", ".zst"}
        and len(suffixes) > 1
        and suffixes[-2] not in {".parquet", ".arrow"}
    ):
        suffixes.pop()
    if not suffixes or suffixes[-1] not in FORMATS:
        raise BadInput(
            f"{path.name} is not in a format that can be read here.",
            next_step=f"Known endings: {', '.join(FORMATS)} (text formats also with .gz).",
        )
    return FORMATS[suffixes[-1]]


def _saved_splits(path: Path) -> tuple[LocalSplit, ...]:
    try:
        names = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        return tuple(_saved(path / str(name), str(name)) for name in names)
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path / 'dataset_dict.json'} is not what `save_to_disk` writes: {error}.",
            next_step="Save the dataset again, or point at one split's folder.",
        ) from error


def _saved(path: Path, split: str) -> LocalSplit:
    """A split that `datasets` wrote with ``save_to_disk``: ``state.json`` lists its arrow files in order."""
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        files = tuple(path / str(entry["filename"]) for entry in state["_data_files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path} is not a dataset saved by `datasets`: {error}.",
            next_step="Save it again with `save_to_disk`, or give a parquet or jsonl file.",
        ) from error
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise BadInput(
            f"The saved dataset {path} lacks its data file {absent[0]}.",
            next_step="Copy the whole folder, data files included.",
        )
    return LocalSplit(split, files, "arrow")


def _splits_of_folder(path: Path) -> tuple[LocalSplit, ...]:
    inside = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    found = group_by_split(inside)
    if not found:
        raise BadInput(
            f"The folder {path} holds no data file.",
            next_step=f"Known endings: {', '.join(FORMATS)}; a folder saved with `save_to_disk` works too.",
        )
    formats = {form for _, form in found}
    if len(formats) > 1:
        raise BadInput(
            f"The folder {path} mixes {' and '.join(sorted(formats))} files.",
            next_step="Point at the file or the subfolder that is meant.",
        )
    return tuple(LocalSplit(split, tuple(path / f for f in files), form) for (split, form), files in found.items())


def group_by_split(names: Iterable[str], *, only: str | None = None) -> dict[tuple[str, str], list[str]]:
    """Data files (relative names) by (split, format). The split is the one that a file's name or folder says, as on
    the Hub; without any, all are train. ``only`` puts all files into that split."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in sorted(names):
        path = Path(name)
        if path.name in METADATA or any(part.startswith(".") for part in path.parts):
            continue
        try:
            form = _format(path)
        except BadInput:
            continue
        found.setdefault((only or _split_of(name) or "train", form), []).append(name)
    return found


def _split_of(name: str) -> str | None:
    for word in re.split(r"[^a-z]+", name.lower()):
        if word in SPLIT_NAMES:
            return SPLIT_NAMES[word]
    return None
