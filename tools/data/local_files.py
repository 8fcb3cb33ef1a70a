"""Where local data lies: one file, a folder of files, or a dataset saved by ``datasets``."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.common.text import did_you_mean, nearest
from mlintern.tools.credentials import refuse_credentials
from mlintern.tools.data.packed import delimiter_of, rows_field, unpacked_name
from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.folders import files_below
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
    """Files of one split, in order. ``field``: the key under which a JSON file has its rows."""

    name: str
    files: tuple[Path, ...]
    format: str
    config: str = "default"
    field: str | None = None

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)


@dataclass(frozen=True)
class LocalDataset:
    """``default`` is the configuration that is meant without a name; None if one must be named."""

    path: Path
    splits: tuple[LocalSplit, ...]
    default: str | None = "default"

    @property
    def configs(self) -> list[str]:
        return list(dict.fromkeys(split.config for split in self.splits))

    def of(self, config: str | None) -> LocalDataset:
        """The splits of one configuration.

        Raises:
            BadInput: there is no such one, or several and none is the default.
        """
        wanted = config or self.default or (self.configs[0] if len(self.configs) == 1 else None)
        if wanted is None:
            raise BadInput(
                f"{self.path} has several configurations and none of them is the default.",
                next_step=f"Name one as config: {', '.join(self.configs)}.",
            )
        chosen = tuple(split for split in self.splits if split.config == wanted)
        if not chosen:
            raise BadInput(
                f"{self.path} has no configuration {wanted!r}.",
                next_step=did_you_mean(wanted, self.configs, what="configuration"),
            )
        return LocalDataset(self.path, chosen, wanted)

    def split(self, name: str | None) -> LocalSplit:
        """The split of that name; without a name ``train`` if there is one, else the first."""
        by_name = {split.name: split for split in self.splits}
        if name is None:
            return by_name.get("train", self.splits[0])
        if name not in by_name:
            raise BadInput(f"{self.path} has no split {name!r}.", next_step=did_you_mean(name, by_name, what="split"))
        return by_name[name]


@dataclass(frozen=True)
class LoadCall:
    """How a script loads local data with `datasets`: its builder or ``folder`` ..., and further arguments."""

    kind: str
    options: dict[str, Any]


def load_call(path: Path) -> LoadCall:
    """The call of `datasets.load_dataset` that reads ``path`` as `open_local` does.

    Raises:
        BadInput: it is a file of no known format.
    """
    if (path / "dataset_dict.json").is_file():
        return LoadCall("saved_splits", {})
    if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
        return LoadCall("saved", {})
    if path.is_dir():
        return LoadCall("folder", _folder_options(path))
    try:
        form = _format(path)
    except BadInput:
        if path.is_file():
            raise
        return LoadCall("folder", {})
    return LoadCall(form, _options(path, form) if path.is_file() else {})


def _options(file: Path, form: str) -> dict[str, Any]:
    if form == "csv" and (delimiter := delimiter_of(file)) != ",":
        return {"sep": delimiter}
    if form == "json" and (field := rows_field(file)) is not None:
        return {"field": field}
    return {}


def _folder_options(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        return {}
    files = [file for file in files_below(path) if file.suffix.lower() == ".csv"]
    return _options(files[0], "csv") if files else {}


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
    refuse_credentials(path)
    if path.is_file():
        # `load_dataset(..., data_files=path)` calls the one split of a single file "train", whatever its name is
        form = _format(path)
        field = rows_field(path) if form == "json" else None
        return LocalDataset(path, (LocalSplit("train", (path,), form, field=field),))
    if (path / "dataset_dict.json").is_file():
        return LocalDataset(path, _saved_splits(path))
    if (path / "state.json").is_file():
        return LocalDataset(path, (_saved(path, "train"),))
    return _configured(path) or LocalDataset(path, _splits_of_folder(path))


def _format(path: Path) -> str:
    name = Path(unpacked_name(path)) if path.suffix.lower() != ".zip" or path.is_file() else path
    suffix = name.suffix.lower()
    packed = name.name != path.name
    if suffix not in FORMATS or (
        packed and FORMATS[suffix] in ("parquet", "arrow") and path.suffix.lower() != ".zip"
    ):
        raise BadInput(
            f"{path.name} is of no known kind: it is not in a format that can be read here.",
            next_step=f"Known endings: {', '.join(FORMATS)} (text also with .gz, .bz2, .xz, .zst, or in a .zip).",
        )
    return FORMATS[suffix]


def _configured(path: Path) -> LocalDataset | None:
    """The configurations that the README of a folder names, as `datasets` reads them; None if it names none."""
    card = path / "README.md"
    if not card.is_file():
        return None
    configs = configs_of_card(card.read_text(encoding="utf-8", errors="replace"))
    inside = sorted(str(file.relative_to(path)) for file in files_below(path))
    splits, default = [], None
    for config in configs:
        name = str(config.get("config_name", "default"))
        if config.get("default") or name == "default":
            default = name
        for split, patterns in data_files(config):
            chosen = [file for file in inside if any(matches(file, pattern) for pattern in patterns)]
            for (_, form), files in group_by_split(chosen, only=split).items():
                splits.append(LocalSplit(split, tuple(path / file for file in files), form, config=name))
    return LocalDataset(path, tuple(splits), default) if splits else None


def configs_of_card(text: str) -> list[dict[str, Any]]:
    """The list ``configs`` at the head of a README; empty if there is none."""
    import yaml  # type: ignore[import-untyped]

    if not text.startswith("---"):
        return []
    try:
        head = yaml.safe_load(text[3:].partition("\n---")[0])
    except yaml.YAMLError:
        return []
    found = head.get("configs") if isinstance(head, dict) else None
    return [config for config in found if isinstance(config, dict)] if isinstance(found, list) else []


def data_files(config: Any) -> list[tuple[str, list[str]]]:
    """Splits of a configuration of a README, each with the patterns of its files."""
    entries = config.get("data_files") if isinstance(config, dict) else None
    if isinstance(entries, str):
        return [("train", [entries])]
    found = []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, str):
            found.append(("train", [entry]))
        elif isinstance(entry, dict) and "path" in entry:
            paths = entry["path"]
            found.append((str(entry.get("split", "train")), [paths] if isinstance(paths, str) else list(paths)))
    return found


def matches(file: str, pattern: str) -> bool:
    """Shell patterns as the Hub reads them: ``**`` spans folders, ``*`` here may as well."""
    return fnmatch.fnmatch(file, pattern.replace("**/", "*"))


def _saved_splits(path: Path) -> tuple[LocalSplit, ...]:
    try:
        names = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        return tuple(_saved(path / _inside(str(name)), str(name)) for name in names)
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path / 'dataset_dict.json'} is not what `save_to_disk` writes.",
            next_step="Save the dataset again, or point at one split's folder.",
        ) from error


def _saved(path: Path, split: str) -> LocalSplit:
    """A split that `datasets` wrote with ``save_to_disk``: ``state.json`` lists its arrow files in order."""
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        files = tuple(path / _inside(str(entry["filename"])) for entry in state["_data_files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path} is not a dataset saved by `datasets`: {_flaw(error)}.",
            next_step="Save it again with `save_to_disk`, or give a parquet or jsonl file.",
        ) from error
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise BadInput(
            f"The saved dataset {path} lacks its data file {absent[0]}.",
            next_step="Copy the whole folder, data files included.",
        )
    return LocalSplit(split, files, "arrow")


def _flaw(error: Exception) -> str:
    """What ``error`` says to somebody who did not write this: texts of Python about types say nothing."""
    return "state.json has other fields" if isinstance(error, LookupError | TypeError) else str(error)


def _inside(name: str) -> str:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{name!r:.80} leaves the folder")
    return name


def _splits_of_folder(path: Path) -> tuple[LocalSplit, ...]:
    inside = sorted(str(file.relative_to(path)) for file in files_below(path))
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
