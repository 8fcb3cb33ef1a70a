"""A Hub dataset: what the viewer knows of all its rows, and what a part of its rows says itself."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from mlintern.tools.data.inspect_table import Request, inspect_table
from mlintern.tools.data.inspection_results import DatasetInspection, Split
from mlintern.tools.data.local_files import LocalSplit
from mlintern.tools.data.remote_rows import (
    Described,
    Head,
    RemoteSplit,
    choose,
    converted_splits,
    copy_head,
    describe_repository,
    listed,
    rows_as_file,
)
from mlintern.tools.data.table import open_table
from mlintern.tools.data.viewer import Viewed, ViewerClient
from mlintern.tools.deadlines import Deadline
from mlintern.tools.errors import MlinternError, NotFound, Offline, ServiceError
from mlintern.tools.hub.client import HubClient
from mlintern.tools.sandbox import worker
from mlintern.tools.service_status import SourceReport, answered, failed, overall
from mlintern.tools.workspace import Workspace

VIEWER_PART, COPY_PART = 0.4, 0.6
"""Of the time that a call has: what the viewer may take, and of the rest what the copy of rows may."""
GRACE, LEAST_SECONDS = 1.2, 2.0
"""A read under way may end a little later; and a few seconds are always there to look at what was copied."""


class RemoteInspector:
    """Asks the Hub what the dataset is, the viewer for statistics of all rows, and the files for the rows.

    The viewer sees only the newest state of public data. For another revision, for gated and private data, and when
    it is down, the files are read alone, and ``partial`` says how far.
    """

    def __init__(self, *, workspace: Workspace, hub: HubClient, viewer: ViewerClient, seconds: float) -> None:
        self._workspace = workspace
        self._hub = hub
        self._viewer = viewer
        self._seconds = seconds

    async def inspect(
        self, dataset: str, config: str | None, split: str | None, revision: str | None, request: Request
    ) -> DatasetInspection:
        """As `DatasetInspector.inspect`, for a Hub id or URL."""
        deadline = Deadline(self._seconds)
        described = await describe_repository(
            self._hub, dataset, config=config, split=split, revision=revision, deadline=deadline
        )
        info = described.info
        viewed = Viewed()
        with anyio.move_on_after(deadline.left * VIEWER_PART) as asking:
            if revision is None and not described.path and not info.private:
                await self._viewer.overview(viewed, info.id)
            if viewed.splits:
                chosen = choose(self._splits(described, viewed), described.config, described.split, info.id)
                await self._viewer.look_at(viewed, info.id, chosen.config, chosen.name)
        if asking.cancelled_caught:
            viewed.sources.append(failed("dataset viewer", _too_late("The dataset viewer", deadline)))
        splits = self._splits(described, viewed)
        chosen = choose(splits, described.config, described.split, info.id)
        result = await self._read(info.id, chosen, viewed, request, deadline)
        _complete(result, info, chosen, viewed, splits)
        return result

    def _splits(self, described: Described, viewed: Viewed) -> list[RemoteSplit]:
        """Files of the repository itself if they can be read as they are, else the viewer's parquet copies."""
        own = described.own_splits()
        converted = converted_splits(viewed.files)
        return converted if converted and not all(one.format == "parquet" for one in own) else own or converted

    async def _read(
        self, name: str, chosen: RemoteSplit, viewed: Viewed, request: Request, deadline: Deadline
    ) -> DatasetInspection:
        with tempfile.TemporaryDirectory(
            dir=self._workspace.folder("cache", "data"), ignore_cleanup_errors=True
        ) as folder:
            scratch = Path(folder)
            head: Head | None
            try:
                head, report = await self._copy(chosen, scratch, deadline), answered("dataset files")
            except (ServiceError, NotFound) as error:
                head, report = _first_rows(viewed, chosen, scratch, error), failed("dataset files", error)
            if head is None:
                return _without_rows(name, chosen, viewed, report)
            with anyio.move_on_after(max(deadline.left, LEAST_SECONDS)):
                result, rows = await worker.run_on_data(_inspect_copy, head.split, request, name, scratch)
                _say_what_was_read(result, head, rows, report)
                result.sources = [*viewed.sources, report]
                return result
            return _without_rows(name, chosen, viewed, failed("dataset files", _too_late("Its rows", deadline)))

    async def _copy(self, chosen: RemoteSplit, scratch: Path, deadline: Deadline) -> Head:
        """The first rows of ``chosen`` in ``scratch``; a read that hangs is left to itself."""
        reading = Deadline(deadline.left * COPY_PART)
        with anyio.move_on_after(max(reading.left * GRACE, LEAST_SECONDS)):
            return await anyio.to_thread.run_sync(
                lambda: copy_head(self._hub, chosen, folder=scratch, deadline=reading), abandon_on_cancel=True
            )
        raise _too_late(f"The files of {chosen.name!r}", deadline)


def _too_late(what: str, deadline: Deadline) -> Offline:
    return Offline(
        f"{what} did not come in the {deadline.seconds:.0f} s of a call.",
        service="huggingface",
        next_step="Ask again in a moment, or for a smaller split or config.",
    )


def _without_rows(name: str, chosen: RemoteSplit, viewed: Viewed, report: SourceReport) -> DatasetInspection:
    """What the viewer said, where no row could be read in time."""
    return DatasetInspection(
        status="partial",
        sources=[*viewed.sources, report],
        dataset=name,
        split=chosen.name,
        splits=[],
        rows=viewed.rows,
        columns=list(viewed.statistics.values()),
        formats={},
        issues=[],
        samples=[],
        partial=[f"rows: none were read, so formats, samples and most issues are missing ({report.message})."],
    )


def _inspect_copy(split: LocalSplit, request: Request, name: str, scratch: Path) -> tuple[DatasetInspection, int]:
    """The inspection of rows of the Hub dataset ``name``, and how many there are; for `worker`."""
    with open_table(split, scratch=scratch) as table:
        return inspect_table(table, request, name=name, split=split.name, scratch=scratch), table.rows


def _first_rows(viewed: Viewed, chosen: RemoteSplit, scratch: Path, error: MlinternError) -> Head | None:
    """The viewer's first rows when the files cannot be read; without a word of the viewer the failure stands."""
    if not viewed.first_rows:
        if isinstance(error, Offline) and (viewed.splits or viewed.statistics):
            return None
        raise error
    return Head(rows_as_file(chosen.name, viewed.first_rows, folder=scratch), whole=False, total=None)


def _say_what_was_read(result: DatasetInspection, head: Head, rows: int, report: SourceReport) -> None:
    if report.status != "ok":
        result.partial.append(
            f"rows: the files could not be read ({report.message}); the viewer's first {rows} rows stand in."
        )
    elif not head.whole:
        of = "" if head.total is None else f" of {head.total:,}"
        result.partial.append(
            f"rows: formats, duplicates, conversations and issues are of the first {rows:,} rows{of}, not of all."
        )
    result.rows = rows if head.whole else head.total


def _complete(
    result: DatasetInspection, info: Any, chosen: RemoteSplit, viewed: Viewed, splits: list[RemoteSplit]
) -> None:
    """What the Hub and the viewer add to what the rows said."""
    card = dict(vars(info.card_data)) if info.card_data else {}
    result.revision, result.config, result.gated = info.sha, chosen.config, info.gated
    licence = card.get("license")
    result.license = (
        licence[0] if isinstance(licence, list) and licence else licence if isinstance(licence, str) else None
    )
    result.splits = viewed.splits or listed(splits)
    result.configs = list(dict.fromkeys(split.config or "default" for split in result.splits))
    for number, column in enumerate(result.columns):
        known = viewed.statistics.get(column.name)
        if known is not None and result.partial:
            result.columns[number] = known.model_copy(update={"type": column.type, "tokens": column.tokens})
    whole = next((s.rows for s in result.splits if (s.config, s.name) == (chosen.config, chosen.name)), None)
    result.rows = whole or viewed.rows or result.rows
    if not viewed.splits:
        result.splits = _with_rows(result.splits, chosen, result.rows)
    if viewed.statistics and result.partial:
        result.partial.append("columns: statistics come from the dataset viewer and cover all rows it has read.")
    result.partial += viewed.partial
    seen = {issue.message for issue in result.issues}
    result.issues += [issue for issue in viewed.issues if issue.message not in seen]
    result.status = overall(result.sources)


def _with_rows(splits: list[Split], chosen: RemoteSplit, rows: int | None) -> list[Split]:
    return [
        split.model_copy(update={"rows": rows})
        if (split.config, split.name) == (chosen.config, chosen.name)
        else split
        for split in splits
    ]
