"""`check_contamination`: is what will be measured already in what is trained on?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread
from pydantic import BaseModel, Field

from mlintern.tools.errors import BadInput
from mlintern.tools.hub.overlap import EvaluationIndex, Match, texts_in
from mlintern.tools.hub.rows import stream_batches, stream_rows, text_columns
from mlintern.tools.hub.sources import LocalSplit, did_you_mean, open_local

MOST_MATCHES = 50
SHOWN_TEXT = 300


class ContaminationMatch(BaseModel):
    evaluation_row: int = Field(description="row number in the evaluation set, from 0")
    train_row: int = Field(description="row number in the training set, from 0")
    overlap: float = Field(description="share of the evaluation text's tokens that stand in the training row")
    text: str = Field(description="longest shared run, normalised (untrusted text of the dataset)")
    kind: str = Field(description="exact: the whole text; ngram: a part of it")


class ContaminationResult(BaseModel):
    """How much of an evaluation set stands in a training set."""

    train: str
    evaluation: str
    train_rows: int
    evaluation_rows: int
    flagged: int = Field(description="evaluation rows of which a text stands in the training data")
    rate: float = Field(description="flagged / evaluation_rows")
    train_rows_flagged: int = Field(description="training rows that hold a text of the evaluation set")
    matches: list[ContaminationMatch] = Field(description="one per flagged evaluation row, the largest overlap first")
    matches_left_out: int = Field(default=0, description="further flagged evaluation rows that are not listed")
    columns: dict[str, list[str]] = Field(description="columns that were read, by side")
    method: str
    short_texts: int = Field(description="evaluation texts too short to prove anything; they were not searched")
    filtered: str | None = Field(default=None, description="path of the training copy without the flagged rows")
    untrusted: bool = True


@dataclass(frozen=True)
class _Side:
    name: str
    split: LocalSplit
    columns: list[str]
    chosen: bool

    def texts(self) -> Iterator[list[str]]:
        """The texts of each row, in the columns that were chosen, else in all."""
        wanted = None if self.split.format in ("json", "csv") and not self.chosen else set(self.columns)
        for row in stream_rows(self.split, self.columns):
            yield [
                text for name, value in row.items() if wanted is None or name in wanted for text in texts_in(value)
            ]


class ContaminationChecker:
    """Compares a training set with an evaluation set, both streamed; memory grows with the evaluation set only."""

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
        filtered: str | None = None,
    ) -> ContaminationResult:
        """Find evaluation texts (questions and answers) in training rows.

        Args:
            train: path of the training data.
            evaluation: path of the evaluation data; its split is ``test`` when it has one.
            columns: read only these; by default every column with text, messages included.
            ngram: tokens of a candidate n-gram, 4 to 50.
            threshold: share of an evaluation text's tokens that the shared n-grams must cover.
            train_split: default ``train``.
            evaluation_split: default ``test``, else ``validation``, else the only one.
            filtered: write the training rows that are not flagged to this new file (same format).

        Raises:
            BadInput: unreadable data, unknown columns, or ``filtered`` exists already.
        """
        if not 4 <= ngram <= 50:
            raise BadInput(f"ngram is {ngram}.", next_step="Give a number from 4 to 50; 8 and 13 are usual.")
        if not 0 < threshold <= 1:
            raise BadInput(f"threshold is {threshold}.", next_step="Give a share above 0 and at most 1.")
        target = Path(filtered).expanduser() if filtered else None

        def run() -> ContaminationResult:
            sides = (
                _side(train, train_split, columns),
                _side(evaluation, evaluation_split or _measured(evaluation), columns),
            )
            _check_columns(*sides, columns)
            return self._check(*sides, EvaluationIndex(ngram=ngram, threshold=threshold), target)

        return await anyio.to_thread.run_sync(run)

    def _check(
        self, train: _Side, evaluation: _Side, index: EvaluationIndex, filtered: Path | None
    ) -> ContaminationResult:
        if filtered is not None:
            _check_target(train.split, filtered)
        evaluation_rows = 0
        for texts in evaluation.texts():
            index.add(evaluation_rows, texts)
            evaluation_rows += 1
        best: dict[int, Match] = {}
        flagged: set[int] = set()
        train_rows = 0
        for texts in train.texts():
            for match in index.matches(train_rows, texts):
                flagged.add(match.train_row)
                known = best.get(match.evaluation_row)
                if known is None or match.overlap > known.overlap:
                    best[match.evaluation_row] = match
            train_rows += 1
        for side, rows in ((train, train_rows), (evaluation, evaluation_rows)):
            if not rows:
                raise BadInput(f"{side.name} has no rows.", next_step="Give data with at least one row.")
        if filtered is not None:
            write_without(train.split, flagged, filtered)
        return _result(train, evaluation, index, best, (train_rows, evaluation_rows, len(flagged)), filtered)


def _result(
    train: _Side,
    evaluation: _Side,
    index: EvaluationIndex,
    best: dict[int, Match],
    counts: tuple[int, int, int],
    filtered: Path | None,
) -> ContaminationResult:
    ordered = sorted(best.values(), key=lambda match: (-match.overlap, match.evaluation_row))
    return ContaminationResult(
        train=train.name,
        evaluation=evaluation.name,
        train_rows=counts[0],
        evaluation_rows=counts[1],
        flagged=len(best),
        rate=round(len(best) / counts[1], 6),
        train_rows_flagged=counts[2],
        matches=[
            ContaminationMatch(
                evaluation_row=match.evaluation_row,
                train_row=match.train_row,
                overlap=match.overlap,
                text=match.text if len(match.text) <= SHOWN_TEXT else f"{match.text[:SHOWN_TEXT]}... (cut)",
                kind=match.kind,
            )
            for match in ordered[:MOST_MATCHES]
        ],
        matches_left_out=max(0, len(ordered) - MOST_MATCHES),
        columns={"train": train.columns, "evaluation": evaluation.columns},
        method=f"{index.ngram}-grams of lower-case words as candidates, confirmed when they cover at least "
        f"{index.threshold:.0%} of an evaluation text; shorter texts only when equal after normalisation",
        short_texts=index.short_texts,
        filtered=str(filtered) if filtered else None,
    )


def _side(name: str, split: str | None, columns: Sequence[str] | None) -> _Side:
    found = open_local(name).split(split)
    known = text_columns(found)
    return _Side(
        name, found, known if columns is None else [c for c in known if c in columns], chosen=columns is not None
    )


def _check_columns(train: _Side, evaluation: _Side, columns: Sequence[str] | None) -> None:
    for side in (train, evaluation):
        if not side.columns:
            known = text_columns(side.split)
            wanted = f"none of the columns {', '.join(columns)}" if columns else "no column with text"
            raise BadInput(
                f"{side.name} has {wanted}.", next_step=did_you_mean(columns[0] if columns else "", known, "column")
            )
    for column in columns or ():
        if column not in train.columns and column not in evaluation.columns:
            known = [*text_columns(train.split), *text_columns(evaluation.split)]
            raise BadInput(
                f"Neither side has a text column {column!r}.", next_step=did_you_mean(column, known, "column")
            )


def _measured(evaluation: str) -> str | None:
    """The split on which a model is measured: test before validation."""
    names = [split.name for split in open_local(evaluation).splits]
    return next((name for name in ("test", "validation") if name in names), None)


def _check_target(split: LocalSplit, target: Path) -> None:
    if target.exists():
        raise BadInput(f"{target} exists already.", next_step="Give the name of a new file; nothing is overwritten.")
    if not target.parent.is_dir():
        raise BadInput(f"There is no folder {target.parent}.", next_step="Create it, or choose another place.")
    wanted = {"json": ".jsonl", "csv": ".csv", "parquet": ".parquet", "arrow": ".parquet"}[split.format]
    if target.suffix != wanted:
        raise BadInput(f"The copy of this data has to be a {wanted} file.", next_step=f"Name it *{wanted}.")


def write_without(split: LocalSplit, dropped: set[int], target: Path) -> None:
    """Copy ``split`` to ``target`` without the rows numbered in ``dropped``; what stays is unchanged."""
    if split.format in ("parquet", "arrow"):
        _parquet_without(split, dropped, target)
    elif split.format == "csv":
        _csv_without(split, dropped, target)
    else:
        with target.open("w", encoding="utf-8") as out:
            for number, row in enumerate(stream_rows(split)):
                if number not in dropped:
                    out.write(json.dumps(row, ensure_ascii=False) + "\n")


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
