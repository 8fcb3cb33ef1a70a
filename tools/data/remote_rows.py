"""Rows of a Hub dataset: the first part of a split, streamed into a file that the local inspection reads."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from mlintern.common.text import did_you_mean
from mlintern.tools.data.inspection_results import Split
from mlintern.tools.data.local_files import LocalSplit, data_files, group_by_split, matches
from mlintern.tools.deadlines import Deadline
from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.hub.addresses import agreed, parse_address
from mlintern.tools.hub.client import HubClient
from mlintern.tools.hub.errors import hub_errors

MOST_ROWS = 20_000
MOST_BYTES = 64 * 2**20
BATCH = 500
BLOCK = 2**20


@dataclass(frozen=True)
class RemoteSplit:
    """Data files of one split: paths for `HfFileSystem`, all of one format."""

    config: str
    name: str
    format: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class RemoteFile:
    """A data file on the Hub, read in blocks of `BLOCK` bytes as they are asked for."""

    filesystem: Any
    path: str

    def __str__(self) -> str:
        return self.path

    @property
    def suffixes(self) -> list[str]:
        return PurePosixPath(self.path).suffixes

    def open(self) -> Any:
        return self.filesystem.open(self.path, "rb", block_size=BLOCK)

    def open_bytes(self) -> IO[bytes]:
        """The bytes, unpacked when the name ends in .gz."""
        return io.BufferedReader(gzip.GzipFile(fileobj=self.open()) if self.path.endswith(".gz") else self.open())


@dataclass(frozen=True)
class RemoteFiles:
    """All files of a split on the Hub, as `mlintern.tools.data.rows` streams them."""

    name: str
    files: tuple[RemoteFile, ...]
    format: str


@dataclass(frozen=True)
class Head:
    """The part of a split that was copied; ``total``: rows of the whole split, if known."""

    split: LocalSplit
    whole: bool
    total: int | None


@dataclass(frozen=True)
class Described:
    """A dataset on the Hub: what the Hub says of it, and which part of it the caller's name and arguments mean.

    ``path`` is a file or folder of it (empty: all).
    """

    info: Any
    config: str | None
    split: str | None
    path: str

    def own_splits(self) -> list[RemoteSplit]:
        """The splits in the repository's own files, at the commit of the description."""
        info = self.info
        files = [sibling.rfilename for sibling in info.siblings or []]
        card = dict(vars(info.card_data)) if info.card_data else {}
        if self.path:
            card, files = {}, [file for file in files if file == self.path or file.startswith(f"{self.path}/")]
        return splits_of_repository(info.id, info.sha, files=files, card=card)


async def describe_repository(
    hub: HubClient,
    dataset: str,
    *,
    config: str | None,
    split: str | None,
    revision: str | None,
    deadline: Deadline | None = None,
) -> Described:
    """Ask the Hub for a dataset by its id or address, which may say revision, configuration, split or path too.

    Raises:
        BadInput: it names something that is no dataset.
        NotFound, Blocked, RateLimited, Offline, ServiceError: as `HubClient.call`.
    """
    address = parse_address(dataset, endpoint=hub.endpoint, wanted=("dataset",))
    revision = agreed("revision", given=revision, said=address.revision)
    what = f"dataset {address.repo_id}"
    info = await hub.call(
        what,
        lambda api: api.dataset_info(address.repo_id, revision=revision),
        seconds=(deadline or Deadline()).left,
    )
    return Described(
        info,
        config=agreed("config", given=config, said=address.config),
        split=agreed("split", given=split, said=address.split),
        path=address.path,
    )


def splits_of_repository(dataset: str, revision: str, *, files: Sequence[str], card: Any) -> list[RemoteSplit]:
    """The splits that a repository's card names, else those that its file names imply."""
    prefix = f"datasets/{dataset}@{revision}/"
    configs = card.get("configs") if isinstance(card, dict) else None
    found: list[RemoteSplit] = []
    for config in configs if isinstance(configs, list) else []:
        for name, patterns in data_files(config):
            chosen = [file for file in files if any(matches(file, pattern) for pattern in patterns)]
            for (_, form), paths in group_by_split(chosen, only=name).items():
                full = tuple(prefix + path for path in paths)
                found.append(RemoteSplit(str(config.get("config_name", "default")), name, form, full))
    if not found:
        for (name, form), paths in group_by_split(files).items():
            found.append(RemoteSplit("default", name, form, tuple(prefix + path for path in paths)))
    return found


def converted_splits(files: dict[tuple[str, str], list[str]]) -> list[RemoteSplit]:
    """The viewer's own parquet copies (branch refs/convert/parquet), from their URLs."""
    found = []
    for (config, split), urls in files.items():
        paths = []
        for url in urls:
            raw = urlsplit(url).path  # /datasets/org/name/resolve/refs%2Fconvert%2Fparquet/config/split/0000.parquet
            repository, _, rest = raw.lstrip("/").partition("/resolve/")
            revision, _, path = rest.partition("/")
            paths.append(f"{repository}@{revision}/{unquote(path)}")
        found.append(RemoteSplit(config, split, "parquet", tuple(paths)))
    return found


def choose(splits: Sequence[RemoteSplit], config: str | None, split: str | None, dataset: str) -> RemoteSplit:
    """The split asked for; by default that of the config ``default`` (else the first) called train (else the first).

    Raises:
        BadInput: there is no such config or split.
        NotFound: the dataset has no data that can be read.
    """
    if not splits:
        raise NotFound(
            f"{dataset} has no parquet, jsonl or csv data.",
            next_step="browse_hub lists its files; data behind a loading script has to be converted first.",
        )
    configs = list(dict.fromkeys(one.config for one in splits))
    wanted = config or ("default" if "default" in configs else configs[0])
    if wanted not in configs:
        raise BadInput(f"{dataset} has no config {wanted!r}.", next_step=did_you_mean(wanted, configs, what="config"))
    names = {one.name: one for one in splits if one.config == wanted}
    name = split or ("train" if "train" in names else next(iter(names)))
    if name not in names:
        raise BadInput(f"{dataset} has no split {name!r}.", next_step=did_you_mean(name, names, what="split"))
    return names[name]


def copy_head(hub: HubClient, split: RemoteSplit, *, folder: Path, deadline: Deadline | None = None) -> Head:
    """Stream the start of ``split`` into ``folder``: at most `MOST_ROWS` rows and about `MOST_BYTES` bytes.

    After the ``deadline`` it goes on with no other batch or file.
    """
    with hub_errors(f"data of {split.paths[0]}"):
        files = hub.filesystem()
        if split.format == "parquet":
            return _parquet_head(files, split, folder, deadline or Deadline())
        return _text_head(files, split, folder)


class _Disk:
    """The part of a filesystem of fsspec that is used here, for files of this machine."""

    @staticmethod
    def open(path: str, mode: str, block_size: int) -> IO[Any]:
        return Path(path).open(mode, buffering=block_size)


def head_of(split: LocalSplit, *, folder: Path) -> LocalSplit:
    """The start of a local split as a file in ``folder``, as `copy_head` makes one of a split of the Hub.

    Raises:
        BadInput: arrow files cannot be cut.
    """
    if split.format == "arrow":
        raise BadInput(
            f"The arrow files of {split.name!r} are too large to be inspected in one call.",
            next_step="Save the dataset as parquet, or inspect one of its files.",
        )
    (folder / "head").mkdir(exist_ok=True)
    there = RemoteSplit("default", split.name, split.format, tuple(str(file) for file in split.files))
    if split.format == "parquet":
        return _parquet_head(_Disk, there, folder / "head", Deadline()).split
    return _text_head(_Disk, there, folder / "head").split


def _parquet_head(files: Any, split: RemoteSplit, folder: Path, deadline: Deadline) -> Head:
    import pyarrow as pa
    import pyarrow.parquet as pq

    target, writer, rows, size, total, counted = folder / "head.parquet", None, 0, 0, 0, True
    try:
        for path in split.paths:
            if writer is not None and deadline.over:
                counted = False
                break
            with files.open(path, "rb", block_size=BLOCK) as stream:
                source = pq.ParquetFile(stream, pre_buffer=False, buffer_size=BLOCK)
                total += source.metadata.num_rows
                if rows >= MOST_ROWS or size >= MOST_BYTES:
                    continue  # only its footer is read, for the number of rows
                writer = writer or pq.ParquetWriter(target, source.schema_arrow)
                for batch in source.iter_batches(batch_size=BATCH):
                    writer.write_batch(batch.slice(0, MOST_ROWS - rows))
                    rows += min(batch.num_rows, MOST_ROWS - rows)
                    size += batch.nbytes
                    if rows >= MOST_ROWS or size >= MOST_BYTES or deadline.over:
                        break
    except pa.ArrowException as error:
        raise BadInput(
            f"The parquet data of {split.name!r} cannot be read: {error}.", next_step="Try another split."
        ) from error
    finally:
        if writer is not None:
            writer.close()
    return Head(
        LocalSplit(split.name, (target,), "parquet"),
        whole=counted and rows == total,
        total=total if counted else None,
    )


def _text_head(files: Any, split: RemoteSplit, folder: Path) -> Head:
    """The first `MOST_BYTES` of the first file, up to its last whole line."""
    path = split.paths[0]
    target = folder / PurePosixPath(path).name
    with files.open(path, "rb", block_size=BLOCK) as stream:
        data = stream.read(MOST_BYTES)
        whole = not stream.read(1) and len(split.paths) == 1
    if not whole and not path.endswith(".gz") and b"\n" in data:
        data = data[: data.rindex(b"\n") + 1]
    target.write_bytes(data)
    return Head(LocalSplit(split.name, (target,), split.format), whole=whole, total=None)


def rows_as_file(name: str, rows: Sequence[dict[str, Any]], *, folder: Path) -> LocalSplit:
    """The viewer's first rows as a file, where the data itself cannot be read."""
    target = folder / "first-rows.jsonl"
    target.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return LocalSplit(name, (target,), "json")


def listed(splits: Sequence[RemoteSplit]) -> list[Split]:
    return [Split(name=one.name, rows=None, config=one.config) for one in splits]
