"""`check_contamination`: is what will be measured already in what is trained on?"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from mlintern.common.text import cut
from mlintern.tools.data.contamination_inputs import Part, Side, check_columns, find_part, open_side
from mlintern.tools.data.contamination_search import ContaminationSearch, Outcome
from mlintern.tools.data.filters import numbers_text
from mlintern.tools.data.inspection_results import ContaminationMatch, ContaminationResult
from mlintern.tools.data.local_files import LocalSplit
from mlintern.tools.data.ngram_index import Match
from mlintern.tools.data.rows import stream_batches, stream_rows
from mlintern.tools.deadlines import CALL_SECONDS, Deadline
from mlintern.tools.errors import BadInput, Offline
from mlintern.tools.hub.client import HubClient
from mlintern.tools.sandbox import worker
from mlintern.tools.sandbox.worker import TooMuch

MOST_MATCHES = 50
MOST_TEMPLATES = 20
MOST_NUMBERS = 1_000
MOST_REMOTE_ROWS = 1_000_000
SHOWN_TEXT = 300
READING_PART, LEAST_SECONDS = 0.8, 1.0
"""Of the time that a call has: what reading may take (the rest: judging); and the least for training rows."""


class ContaminationChecker:
    """Compares a training set with an evaluation set, both streamed; memory grows with the evaluation set only.

    Args:
        hub: client for data that is no local path.
        most_rows: rows to read of a Hub dataset; ``partial`` says when it has more.
        seconds: after so long the rows that were read are the result; ``partial`` says how many, and how to go on.
    """

    def __init__(
        self, *, hub: HubClient | None = None, most_rows: int = MOST_REMOTE_ROWS, seconds: float = CALL_SECONDS
    ) -> None:
        self._hub = hub or HubClient()
        self._most_rows = most_rows
        self._seconds = seconds

    async def check(
        self,
        train: str,
        evaluation: str,
        *,
        columns: Sequence[str] | None = None,
        ngram: int = 8,
        threshold: float = 0.5,
        train_split: str | None = None,
        evaluation_split: str | None = None,
        train_config: str | None = None,
        evaluation_config: str | None = None,
        filtered: str | None = None,
    ) -> ContaminationResult:
        """Find evaluation texts (questions and answers) in training rows.

        Args:
            train: path, Hub id or URL of the training data.
            evaluation: path, Hub id or URL of the evaluation data; its split is ``test`` when it has one.
            columns: read only these; by default every column with text, messages included.
            ngram: tokens of a candidate n-gram, 4 to 50.
            threshold: share of an evaluation text's tokens that the shared n-grams must cover.
            train_split: default ``train``.
            evaluation_split: default ``test``, else ``validation``, else the only one.
            train_config: configuration of a Hub dataset.
            evaluation_config: the same.
            filtered: write the training rows that are not flagged to this new file: in the format of local data,
                as JSON lines from the Hub.

        Raises:
            BadInput: unreadable data, unknown columns, or ``filtered`` exists already.
            NotFound, Blocked, RateLimited, Offline, ServiceError: a Hub dataset cannot be had.
        """
        if not 4 <= ngram <= 50:
            raise BadInput(f"ngram is {ngram}.", next_step="Give a number from 4 to 50; 8 and 13 are usual.")
        if not 0 < threshold <= 1:
            raise BadInput(f"threshold is {threshold}.", next_step="Give a share above 0 and at most 1.")
        target = Path(filtered).expanduser() if filtered else None
        deadline = Deadline(self._seconds)
        parts: list[Part] = [
            await find_part(
                self._hub, train, config=train_config, split=train_split, measured=False, deadline=deadline
            ),
            await find_part(
                self._hub,
                evaluation,
                config=evaluation_config,
                split=evaluation_split,
                measured=True,
                deadline=deadline,
            ),
        ]

        arguments = (parts, columns, ngram, threshold, target, self._most_rows, deadline.left * READING_PART)
        try:
            with anyio.move_on_after(deadline.left):
                if all(isinstance(part.split, LocalSplit) for part in parts):
                    return await worker.run_comparing(compare, *arguments)
                return await anyio.to_thread.run_sync(  # what streams from the Hub needs its token
                    lambda: compare(*arguments), abandon_on_cancel=True
                )
        except TooMuch:
            if target is not None:
                target.unlink(missing_ok=True)
            raise
        raise Offline(
            f"{train} and {evaluation} could not be compared in the {self._seconds:.0f} s of a call.",
            service="huggingface",
            next_step="Ask again with fewer columns, or with a smaller split or file of the training data.",
        )


def compare(
    parts: Sequence[Part],
    columns: Sequence[str] | None,
    ngram: int,
    threshold: float,
    filtered: Path | None,
    most_rows: int,
    seconds: float,
) -> ContaminationResult:
    """What of the second part stands in the first, read for ``seconds``; for `worker` where both are local."""
    deadline = Deadline(seconds)
    train, evaluation = (open_side(part, columns, most_rows=most_rows) for part in parts)
    check_columns(train, evaluation, columns=columns)
    search = ContaminationSearch(ngram=ngram, threshold=threshold)
    if filtered is not None:
        _check_target(train, filtered)
    partial = [*train.unread, *evaluation.unread]
    evaluation_rows = 0
    for texts in _until(deadline, evaluation, partial):
        search.add(evaluation_rows, texts)
        evaluation_rows += 1
    train_rows = 0
    in_time = Deadline(max(deadline.left, LEAST_SECONDS))
    for texts in _until(in_time, train, partial):
        search.look(train_rows, texts)
        train_rows += 1
    for side, rows in ((train, train_rows), (evaluation, evaluation_rows)):
        if not rows:
            raise BadInput(f"{side.name} has no rows.", next_step="Give data with at least one row.")
    found = search.outcome(train_rows=train_rows, evaluation_rows=evaluation_rows)
    if filtered is not None and in_time.over:
        partial.append(f"{filtered} was not written: it would hold only what was compared in time.")
        filtered = None
    if filtered is not None:
        write_without(train, found.train_rows, target=filtered)
    return _result(train, evaluation, search, found, (train_rows, evaluation_rows), filtered, partial)


def _until(deadline: Deadline, side: Side, partial: list[str]) -> Iterator[list[str]]:
    """The texts of each row of ``side`` until the ``deadline``; at least one row. A cut is said in ``partial``."""
    for number, texts in enumerate(side.texts(partial)):
        if number and deadline.over:
            partial.append(
                f"{side.name}: only its first {number:,} rows were read in the time of a call. To go on, ask for"
                " fewer columns, or file by file."
            )
            return
        yield texts


def _result(
    train: Side,
    evaluation: Side,
    search: ContaminationSearch,
    found: Outcome,
    counts: tuple[int, int],
    filtered: Path | None,
    partial: list[str],
) -> ContaminationResult:
    flagged, varied = (_shown(matches) for matches in (found.best, found.templates))
    index = search.index
    return ContaminationResult(
        train=train.name,
        evaluation=evaluation.name,
        train_rows=counts[0],
        evaluation_rows=counts[1],
        flagged=len(flagged),
        rate=round(len(flagged) / counts[1], 6),
        train_rows_flagged=len(found.train_rows),
        filter=f"drop_rows={numbers_text(found.train_rows)}" if 0 < len(found.train_rows) <= MOST_NUMBERS else "",
        same_template=len(varied),
        matches=flagged[:MOST_MATCHES] + varied[:MOST_TEMPLATES],
        matches_left_out=max(0, len(flagged) - MOST_MATCHES) + max(0, len(varied) - MOST_TEMPLATES),
        flagged_rows=sorted(found.best)[:MOST_NUMBERS],
        common_texts=found.common_texts,
        columns={"train": list(train.columns), "evaluation": list(evaluation.columns)},
        method=f"{index.ngram}-grams of words (of characters where a script has no spaces) that cover at least "
        f"{index.threshold:.0%} of a text, boilerplate left out by its frequency; near copies by aligned tokens; "
        "texts that differ in numbers only are the same template and not flagged",
        splits={"train": train.shown_split, "evaluation": evaluation.shown_split},
        revisions={
            key: side.revision for key, side in (("train", train), ("evaluation", evaluation)) if side.revision
        },
        partial=partial,
        short_texts=index.short_texts,
        filtered=str(filtered) if filtered else None,
    )


def _shown(matches: dict[int, Match]) -> list[ContaminationMatch]:
    ordered = sorted(matches.values(), key=lambda match: (-match.overlap, match.evaluation_row))
    return [
        ContaminationMatch(
            evaluation_row=match.evaluation_row,
            train_row=match.train_row,
            overlap=match.overlap,
            text=cut(match.text, SHOWN_TEXT),
            kind=match.kind,
        )
        for match in ordered
    ]


def _check_target(side: Side, target: Path) -> None:
    if target.exists():
        raise BadInput(f"{target} exists already.", next_step="Give the name of a new file; nothing is overwritten.")
    if not target.parent.is_dir():
        raise BadInput(f"There is no folder {target.parent}.", next_step="Create it, or choose another place.")
    formats = {"json": ".jsonl", "csv": ".csv", "parquet": ".parquet", "arrow": ".parquet"}
    wanted = formats[side.split.format] if isinstance(side.split, LocalSplit) else ".jsonl"
    if target.suffix != wanted:
        raise BadInput(f"The copy of this data has to be a {wanted} file.", next_step=f"Name it *{wanted}.")


def write_without(side: Side, dropped: set[int], *, target: Path) -> None:
    """Copy the rows of ``side`` to ``target`` without those numbered in ``dropped``; what stays is unchanged."""
    split = side.split
    try:
        if not isinstance(split, LocalSplit) or split.format == "json":
            _json_without(itertools.islice(stream_rows(split), side.most_rows), dropped, target)
        elif split.format == "csv":
            _csv_without(split, dropped, target)
        else:
            _parquet_without(split, dropped, target)
    except BaseException:
        target.unlink(missing_ok=True)  # half a copy would pass for a whole one
        raise


def _json_without(rows: Iterator[dict[str, Any]], dropped: set[int], target: Path) -> None:
    with target.open("w", encoding="utf-8") as out:
        for number, row in enumerate(rows):
            if number not in dropped:
                try:
                    out.write(json.dumps(row, ensure_ascii=False) + "\n")
                except TypeError as error:
                    raise BadInput(
                        f"Row {number} of the training data does not fit into JSON lines: {error}.",
                        next_step="Download the data and give its path; a copy of parquet stays parquet.",
                    ) from error


def _csv_without(split: LocalSplit, dropped: set[int], target: Path) -> None:
    import csv

    writer = None
    with target.open("w", encoding="utf-8", newline="") as out:
        for number, row in enumerate(stream_rows(split)):
            if writer is None:
                writer = csv.DictWriter(out, fieldnames=list(row))
                writer.writeheader()
            if number not in dropped:
                writer.writerow(row)


def _parquet_without(split: LocalSplit, dropped: set[int], target: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer, start = None, 0
    try:
        for batch in stream_batches(split):
            writer = writer or pq.ParquetWriter(target, batch.schema)
            kept = [number not in dropped for number in range(start, start + batch.num_rows)]
            writer.write_batch(batch.filter(pa.array(kept, type=pa.bool_())))
            start += batch.num_rows
    finally:
        if writer is not None:
            writer.close()
