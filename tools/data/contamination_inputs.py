"""The two sides of `check_contamination`: which split is read, where it lies, and its texts row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import anyio.to_thread

from mlintern.common.text import did_you_mean
from mlintern.tools.data.local_files import open_local
from mlintern.tools.data.remote_rows import (
    RemoteFile,
    RemoteFiles,
    RemoteSplit,
    choose,
    describe_repository,
)
from mlintern.tools.data.rows import DataSplit, stream_rows, text_columns
from mlintern.tools.data.text_tokens import texts_in
from mlintern.tools.deadlines import Deadline
from mlintern.tools.errors import BadInput
from mlintern.tools.hub.addresses import looks_local
from mlintern.tools.hub.client import HubClient
from mlintern.tools.sandbox import worker

MEASURED = ("test", "validation")
"""The split on which a model is measured: test before validation."""


@dataclass(frozen=True)
class Part:
    """One split of a dataset. ``revision`` is the commit of a Hub dataset, ``unread`` what of it cannot be read."""

    name: str
    split: DataSplit
    shown_split: str
    revision: str | None = None
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class Side(Part):
    """A part with the columns to read; ``chosen``: they were asked for. ``most_rows`` None: read all."""

    columns: Sequence[str] = ()
    chosen: bool = False
    most_rows: int | None = None

    def texts(self, partial: list[str]) -> Iterator[list[str]]:
        """The texts of each row, in the columns that were chosen, else in all. A cut is said in ``partial``."""
        wanted = None if self.split.format in ("json", "csv") and not self.chosen else set(self.columns)
        for number, row in enumerate(stream_rows(self.split, self.columns)):
            if number == self.most_rows:
                partial.append(f"{self.name}: only its first {number:,} rows were read; it has more.")
                return
            yield [
                text for name, value in row.items() if wanted is None or name in wanted for text in texts_in(value)
            ]


async def find_part(
    hub: HubClient,
    name: str,
    *,
    config: str | None,
    split: str | None,
    measured: bool = False,
    revision: str | None = None,
    deadline: Deadline | None = None,
) -> Part:
    """The split of a path, Hub id or URL; without a name the ``measured`` one if that is asked for, else train.

    Raises:
        BadInput: there is no such config or split, or the data cannot be streamed.
        NotFound, Blocked, RateLimited, Offline, ServiceError: as `HubClient.call`.
    """
    if not looks_local(name):
        return await _remote_part(hub, name, config, split, measured=measured, revision=revision, deadline=deadline)
    return await worker.run_on_data(_local_part, name, config, split, measured)


def _local_part(name: str, config: str | None, split: str | None, measured: bool) -> Part:
    found = open_local(name).of(config)
    if measured and split is None:
        split = _measured([one.name for one in found.splits])
    chosen = found.split(split)
    return Part(name, chosen, chosen.name)


async def _remote_part(
    hub: HubClient,
    name: str,
    config: str | None,
    split: str | None,
    *,
    measured: bool,
    revision: str | None,
    deadline: Deadline | None,
) -> Part:
    described = await describe_repository(hub, name, config=config, split=split, revision=revision, deadline=deadline)
    info, splits = described.info, described.own_splits()
    chosen = choose(splits, described.config, described.split, info.id)
    if measured and described.split is None:
        preferred = _measured([one.name for one in splits if one.config == chosen.config])
        chosen = choose(splits, chosen.config, preferred, info.id)
    if chosen.format == "arrow":
        raise BadInput(
            f"{info.id} holds arrow files, which are not streamed from the Hub.",
            next_step="Download it and give the folder.",
        )
    filesystem = await anyio.to_thread.run_sync(hub.filesystem)
    files = tuple(RemoteFile(filesystem, path) for path in chosen.paths)
    source = RemoteFiles(chosen.name, files, chosen.format)
    shown = f"{chosen.config}/{chosen.name}"
    return Part(name, source, shown, info.sha, tuple(_other_formats(name, splits, chosen)))


def _other_formats(name: str, splits: Sequence[RemoteSplit], chosen: RemoteSplit) -> Iterator[str]:
    """Files of the same split in another format: mostly a copy, but nobody compared them."""
    for one in splits:
        if (one.config, one.name) == (chosen.config, chosen.name) and one.format != chosen.format:
            yield f"{name}: {len(one.paths)} {one.format} file(s) of the split were not read, only {chosen.format}."


def _measured(names: Sequence[str]) -> str | None:
    return next((name for name in MEASURED if name in names), None)


def open_side(part: Part, columns: Sequence[str] | None, *, most_rows: int) -> Side:
    """Look up the text columns of ``part``; ``most_rows`` bounds what is read over the network only."""
    known = text_columns(part.split)
    return Side(
        part.name,
        part.split,
        part.shown_split,
        part.revision,
        part.unread,
        columns=known if columns is None else [name for name in known if name in columns],
        chosen=columns is not None,
        most_rows=most_rows if isinstance(part.split, RemoteFiles) else None,
    )


def check_columns(train: Side, evaluation: Side, *, columns: Sequence[str] | None) -> None:
    for side in (train, evaluation):
        if not side.columns:
            known = text_columns(side.split)
            wanted = f"none of the columns {', '.join(columns)}" if columns else "no column with text"
            raise BadInput(
                f"{side.name} has {wanted}.",
                next_step=did_you_mean(columns[0] if columns else "", known, what="column"),
            )
    for column in columns or ():
        if column not in train.columns and column not in evaluation.columns:
            known = [*text_columns(train.split), *text_columns(evaluation.split)]
            raise BadInput(
                f"Neither side has a text column {column!r}.", next_step=did_you_mean(column, known, what="column")
            )
