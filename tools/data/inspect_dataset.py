"""`inspect_dataset`: one answer that says whether and how a dataset can train."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import anyio

from mlintern.common.text import did_you_mean
from mlintern.tools.data.inspect_remote import RemoteInspector
from mlintern.tools.data.inspect_table import Request, inspect_table
from mlintern.tools.data.inspection_results import DatasetInspection, Split
from mlintern.tools.data.local_files import LocalDataset, open_local
from mlintern.tools.data.remote_rows import head_of
from mlintern.tools.data.table import open_table
from mlintern.tools.data.trl_rules import TRAINERS
from mlintern.tools.data.viewer import ViewerClient
from mlintern.tools.deadlines import CALL_SECONDS
from mlintern.tools.errors import BadInput
from mlintern.tools.hub.addresses import looks_local
from mlintern.tools.hub.client import HubClient
from mlintern.tools.sandbox import worker
from mlintern.tools.web import Web
from mlintern.tools.workspace import Workspace

MOST_SAMPLES = 20
WHOLE_PART = 0.7
"""Of the time that a call has: what the inspection of all rows may take before the first rows have to do."""


class DatasetInspector:
    """Inspects local data (parquet, jsonl, csv, arrow, saved datasets, folders of them) and Hub datasets.

    Args:
        workspace: its cache holds temporary files while an inspection runs.
        hub: client for datasets that are no local path.
        web: for the Hub's dataset viewer.
        seconds: after so long what was seen by then is the result, and ``partial`` says what was not.
    """

    def __init__(self, *, workspace: Workspace, hub: HubClient, web: Web, seconds: float = CALL_SECONDS) -> None:
        self._workspace = workspace
        self._seconds = seconds
        self._remote = RemoteInspector(workspace=workspace, hub=hub, viewer=ViewerClient(web=web), seconds=seconds)

    async def inspect(
        self,
        dataset: str,
        *,
        config: str | None = None,
        split: str | None = None,
        revision: str | None = None,
        trainer: str | None = None,
        sample_rows: int = 3,
        columns: Sequence[str] | None = None,
        model: str | None = None,
        max_length: int | None = None,
    ) -> DatasetInspection:
        """Statistics, samples, issues and, for each TRL trainer, whether it takes the data.

        Args:
            dataset: a path or a Hub id.
            config: configuration of a Hub dataset.
            split: default ``train`` if there is one.
            revision: of a Hub dataset.
            trainer: judge for this trainer only (sft, dpo, grpo, rloo, kto, reward).
            sample_rows: rows to show, spread over the split; at most 20.
            columns: show statistics and samples of these columns only; the verdicts always see all.
            model: folder of a model whose tokenizer measures lengths in tokens.
            max_length: tokens at which a run would truncate, for the truncation finding.

        Raises:
            BadInput: unknown split, column or trainer, unreadable or empty data.
            NotFound: no such file.
        """
        request = Request(
            trainers=_trainers(trainer),
            sample_rows=_between(sample_rows, 0, MOST_SAMPLES, "sample_rows"),
            columns=tuple(columns) if columns else None,
            model=Path(model).expanduser() if model else None,
            max_length=max_length,
        )
        if not looks_local(dataset):
            return await self._remote.inspect(dataset, config, split, revision, request)
        if revision is not None:
            raise BadInput(
                f"{dataset} is local data; it has no revision.", next_step="Leave it out, or give a Hub id."
            )
        with tempfile.TemporaryDirectory(dir=self._workspace.folder("cache", "data")) as scratch:
            arguments = (dataset, config, split, request, Path(scratch))
            with anyio.move_on_after(self._seconds * WHOLE_PART):
                return await worker.run_on_data(inspect_local, *arguments)
            with anyio.move_on_after(self._seconds * (1 - WHOLE_PART)):
                return await worker.run_on_data(inspect_local, *arguments, head=True)
        raise BadInput(
            f"{dataset} could not be inspected in {self._seconds:.0f} s, not even its first rows.",
            next_step="Give the path of one smaller file, or write the first rows to a file of their own.",
        )


def inspect_local(
    dataset: str, config: str | None, split: str | None, request: Request, scratch: Path, head: bool = False
) -> DatasetInspection:
    """The inspection of local data, of its ``head`` alone if asked; for `worker`, as anybody may have written it.

    Raises:
        BadInput: unknown split or column, unreadable or empty data.
        NotFound: no such file.
    """
    whole = open_local(dataset)
    found = whole.of(config)
    chosen = found.split(split)
    with open_table(head_of(chosen, folder=scratch) if head else chosen, scratch=scratch) as table:
        result = inspect_table(table, request, name=dataset, split=chosen.name, scratch=scratch)
    rows = _rows(chosen.files, chosen.format) if head else table.rows
    result.splits = _splits(found, chosen.name, rows)
    if head:
        result.rows, result.status = rows, "partial"
        result.partial.append(
            f"rows: all of them take longer than a call may; what is said is of the first {table.rows:,} rows. To go"
            " on, inspect the files of the split one by one."
        )
    if whole.configs != ["default"]:
        result.config, result.configs = chosen.config, whole.configs
    return result


def _splits(found: LocalDataset, read: str, rows: int | None) -> list[Split]:
    return [
        Split(
            name=split.name, rows=rows if split.name == read else _rows(split.files, split.format), bytes=split.bytes
        )
        for split in found.splits
    ]


def _rows(files: Sequence[Path], form: str) -> int | None:
    """Rows of a split that was not read: parquet says so in its footer, other formats do not."""
    if form != "parquet":
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return sum(int(pq.read_metadata(file).num_rows) for file in files)
    except (pa.ArrowInvalid, OSError):
        return None


def _trainers(trainer: str | None) -> Sequence[str]:
    if trainer is None:
        return TRAINERS
    if trainer not in TRAINERS:
        raise BadInput(f"There is no trainer {trainer!r}.", next_step=did_you_mean(trainer, TRAINERS, what="trainer"))
    return (trainer,)


def _between(value: int, low: int, high: int, name: str) -> int:
    if not low <= value <= high:
        raise BadInput(f"{name} is {value}.", next_step=f"Give a number from {low} to {high}.")
    return value
