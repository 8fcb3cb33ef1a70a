"""The inspection of one open table: everything that is said about a dataset once its rows can be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlintern.common.redact import is_secret_name, redact
from mlintern.tools.data.column_statistics import column_statistics
from mlintern.tools.data.conversations import describe_conversations
from mlintern.tools.data.duplicates import find_duplicates
from mlintern.tools.data.formats import judge_formats
from mlintern.tools.data.inspection_results import ColumnStatistics, DatasetInspection
from mlintern.tools.data.messages import message_columns
from mlintern.tools.data.row_issues import Seen, find_issues
from mlintern.tools.data.sample_rows import sample_rows
from mlintern.tools.data.table import Table
from mlintern.tools.data.token_lengths import load_tokenizer, token_lengths
from mlintern.tools.data.trl_rules import TRL_VERSION
from mlintern.tools.errors import BadInput
from mlintern.tools.service_status import answered

MOST_COLUMNS = 60


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the caller asked for, checked."""

    trainers: Sequence[str]
    sample_rows: int
    columns: tuple[str, ...] | None = None
    model: Path | None = None
    max_length: int | None = None


def _hide_secrets(column: ColumnStatistics) -> None:
    """Values that are listed or named as the least and greatest may be secrets, as those of samples."""
    if is_secret_name(column.name):
        column.values = column.min = column.max = None
    for value in column.values or []:
        value.value = redact(value.value) if isinstance(value.value, str) else value.value
    column.min, column.max = (redact(v) if isinstance(v, str) else v for v in (column.min, column.max))


def inspect_table(table: Table, request: Request, *, name: str, split: str, scratch: Path) -> DatasetInspection:
    """Inspect ``table``; ``scratch`` is a folder for temporary files.

    Raises:
        BadInput: no rows, or an unknown column was asked for.
    """
    if not table.rows:
        raise BadInput(
            f"The split {split!r} of {name} has no rows.", next_step="Choose another split, or write data into it."
        )
    wanted = [table.column(column) for column in request.columns] if request.columns else list(table.columns)
    shown, hidden = wanted[:MOST_COLUMNS], wanted[MOST_COLUMNS:]
    if hidden:
        table.partial.append(
            f"columns: {len(hidden)} of {len(wanted)} are not shown (from {hidden[0].name!r}); "
            "name them in `columns`."
        )
    messages = message_columns(table)
    statistics = column_statistics(table, shown)
    for column in statistics:
        _hide_secrets(column)
    if request.model is not None:
        measured = token_lengths(table, load_tokenizer(request.model), messages=messages)
        for column in statistics:
            column.tokens = measured.get(column.name)
    duplicates = find_duplicates(table, messages, scratch=scratch)
    talks = [talk for item in messages if (talk := describe_conversations(table, item)) is not None]
    issues = find_issues(table, Seen(statistics, duplicates, talks, request.max_length), messages=messages)
    return DatasetInspection(
        status="ok",
        sources=[answered("local files", http_status=None)],
        dataset=name,
        split=split,
        splits=[],
        rows=table.rows,
        columns=statistics,
        duplicates=duplicates,
        conversations=talks,
        formats=judge_formats(table, request.trainers),
        issues=issues,
        samples=sample_rows(table, request.sample_rows, request.columns),
        partial=table.partial,
        trl=TRL_VERSION,
    )
