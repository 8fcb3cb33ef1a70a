"""What in the data would hurt a training run, found before it is paid for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mlintern.tools.data.duplicates import text_expressions
from mlintern.tools.data.inspection_results import (
    ColumnStatistics,
    Conversations,
    Duplicates,
    Issue,
    Lengths,
    Severity,
)
from mlintern.tools.data.messages import MessageColumn
from mlintern.tools.data.patterns import BENCHMARK_COLUMNS, BENCHMARK_TEXT, CONTROL, MOJIBAKE, PERSONAL, SCRIPTS
from mlintern.tools.data.sql_text import literal
from mlintern.tools.data.table import ROW, Table

SAMPLE = 20_000
CHARACTERS = 20_000
IMBALANCE = 0.9
LONG, LONGER_THAN_MEDIAN = 20_000, 50
CHARACTERS_A_TOKEN = 4.0
SPEAKERS = {"human", "gpt", "chatgpt", "bot", "model", "USER", "ASSISTANT", "Human", "Assistant"}


@dataclass(frozen=True)
class Seen:
    """What was measured about the data before, so that nothing is scanned twice."""

    columns: list[ColumnStatistics]
    duplicates: Duplicates
    conversations: list[Conversations]
    max_length: int | None


def find_issues(table: Table, seen: Seen, *, messages: list[MessageColumn]) -> list[Issue]:
    """All findings, the severe ones first."""
    found = [
        *(Issue(kind=kind, severity=_severity_of(kind), message=text) for kind, text in table.notes),
        *_columns(table, seen.columns),
        *_lengths(seen),
        *_repeats(table, seen.duplicates),
        *_talk(seen.conversations),
        *_texts(table, messages),
        *_identical_pairs(table),
    ]
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda issue: order[issue.severity])


def _severity_of(kind: str) -> Severity:
    return {"read_as_missing": "warning", "map_column": "error"}.get(kind, "note")  # type: ignore[return-value]


def _columns(table: Table, columns: list[ColumnStatistics]) -> Iterator[Issue]:
    for name in table.duplicate_columns:
        yield Issue(
            kind="duplicate_columns",
            severity="error",
            column=name,
            message=f"Two columns are called {name!r}; `datasets` refuses such a file. Rename one.",
        )
    for column in columns:
        rows = table.rows
        if column.missing == rows:
            yield Issue(kind="empty_column", severity="note", column=column.name, message="Every value is missing.")
        elif column.missing:
            yield Issue(
                kind="missing_values",
                severity="warning",
                column=column.name,
                rows=column.missing,
                message=f"{column.missing} of {rows} values are missing ({column.missing / rows:.1%}).",
            )
        if column.empty and column.name not in ("input", "system", "context", "tools"):
            yield Issue(
                kind="empty_rows",
                severity="warning",
                column=column.name,
                rows=column.empty,
                message=f"{column.empty} values are empty or blank.",
            )
        if column.not_finite:
            yield Issue(
                kind="not_finite",
                severity="warning",
                column=column.name,
                rows=column.not_finite,
                message=f"{column.not_finite} numbers are NaN or infinite.",
            )
        if column.type == "json":
            yield Issue(
                kind="mixed_types",
                severity="warning",
                column=column.name,
                message="The values have different types from row to row; the trainer sees each as it is.",
            )
        yield from _imbalance(column)


def _imbalance(column: ColumnStatistics) -> Iterator[Issue]:
    values = column.values or []
    if 2 <= len(values) <= 10 and values[0].share >= IMBALANCE and sum(v.count for v in values) >= 20:
        yield Issue(
            kind="class_imbalance",
            severity="warning",
            column=column.name,
            rows=values[0].count,
            message=f"{values[0].share:.1%} of the rows have the value {values[0].value!r}.",
        )


def _lengths(seen: Seen) -> Iterator[Issue]:
    for column in seen.columns:
        length = column.length
        if length is None or length.unit != "characters":
            continue
        if length.median is not None and length.max >= max(LONG, LONGER_THAN_MEDIAN * length.median):
            yield Issue(
                kind="very_long_rows",
                severity="warning",
                column=column.name,
                message=f"The longest text has {length.max:,} characters, the median {length.median:,.0f}.",
            )
        yield from _truncation(column.name, column.tokens or length, seen.max_length)
    for talk in seen.conversations:
        yield from _truncation(talk.column, talk.content_characters, seen.max_length)


def _truncation(column: str, length: Lengths, limit: int | None) -> Iterator[Issue]:
    if limit is None or length.p95 is None:
        return
    tokens = length.p95 if length.unit == "tokens" else length.p95 / CHARACTERS_A_TOKEN
    if tokens > limit:
        measured = f"{tokens:,.0f} tokens"
        if length.unit != "tokens":
            measured = f"about {measured} ({CHARACTERS_A_TOKEN:g} characters each)"
        yield Issue(
            kind="truncation",
            severity="warning",
            column=column,
            message=f"At max_length {limit} more than 5 % of the rows are cut: {measured} at the 95th percentile.",
        )


def _repeats(table: Table, duplicates: Duplicates) -> Iterator[Issue]:
    if duplicates.exact_rows:
        yield Issue(
            kind="exact_duplicates",
            severity="warning" if duplicates.exact_rate >= 0.01 else "note",
            rows=duplicates.exact_rows,
            message=f"{duplicates.exact_rows} of {table.rows} rows repeat an earlier row "
            f"({duplicates.exact_rate:.1%}).",
        )
    near = (duplicates.near_rate or 0.0) - duplicates.exact_rate
    if near >= 0.01:
        yield Issue(
            kind="near_duplicates",
            severity="warning",
            message=f"{duplicates.near_rate:.1%} of {duplicates.near_sampled_rows} sampled rows are copies or "
            "near copies "
            "of another sampled row.",
        )


def _talk(conversations: list[Conversations]) -> Iterator[Issue]:
    for talk in conversations:
        name, total = talk.column, talk.conversations
        wrong = SPEAKERS & set(talk.roles)
        if wrong:
            yield Issue(
                kind="unmapped_roles",
                severity="error",
                column=name,
                message=f"Speakers are called {', '.join(sorted(wrong))}; chat templates know user, assistant, "
                "system, tool.",
            )
        if talk.empty_turns:
            yield Issue(
                kind="empty_turns",
                severity="warning",
                column=name,
                rows=talk.empty_turns,
                message=f"{talk.empty_turns} messages have no content and call no tool.",
            )
        assistant = sum(talk.last_speaker.get(role, 0) for role in ("assistant", "gpt"))
        if name in ("messages", "conversations", "completion", "chosen", "rejected") and assistant < total:
            yield Issue(
                kind="last_speaker",
                severity="warning",
                column=name,
                rows=total - assistant,
                message=f"{total - assistant} of {total} conversations do not end with the assistant: nothing to "
                "learn there.",
            )
        if name == "prompt" and assistant:
            yield Issue(
                kind="last_speaker",
                severity="warning",
                column=name,
                rows=assistant,
                message=f"{assistant} of {total} prompts end with the assistant; the model is asked to continue it.",
            )


def _texts(table: Table, messages: list[MessageColumn]) -> Iterator[Issue]:
    """One scan of a sample for everything that a pattern finds."""
    expressions = text_expressions(table.columns, messages)
    yield from _benchmark_columns(table)
    if not expressions or not table.rows:
        return
    step = table.rows // SAMPLE + 1
    keep = f" WHERE hash({ROW}) % {step} = 0" if step > 1 else ""
    text = f"SELECT left(concat_ws(' ', {', '.join(expressions)}), {CHARACTERS}) AS t FROM {table.scan}{keep}"
    patterns = {
        **{("script", name): pattern for name, pattern in SCRIPTS.items()},
        **{("personal", name): pattern for name, pattern in PERSONAL.items()},
        **{("benchmark", name): pattern for name, pattern in BENCHMARK_TEXT.items()},
        ("control", ""): CONTROL,
        ("mojibake", ""): MOJIBAKE,
    }
    counts = ", ".join(
        f"coalesce(count_if(regexp_matches(t, {literal(pattern)})), 0)" for pattern in patterns.values()
    )
    total, *found = table.query(f"SELECT count(*), {counts} FROM ({text})")[0]
    hits = {key: int(count) for key, count in zip(patterns, found, strict=True)}
    yield from _text_issues(hits, total, sampled=step > 1)


def _text_issues(hits: dict[tuple[str, str], int], total: int, *, sampled: bool) -> Iterator[Issue]:
    of = f"{'sampled ' if sampled else ''}rows"
    for (kind, name), count in hits.items():
        if not count or kind == "script":
            continue
        if kind == "personal":
            message = f"{count} of {total} {of} hold what looks like {name}."
            yield Issue(kind="personal_data", severity="warning", rows=count, message=message)
        elif kind == "benchmark":
            message = (
                f"{count} of {total} {of} look like {name}; run check_contamination against what you evaluate on."
            )
            yield Issue(kind="looks_like_benchmark", severity="warning", rows=count, message=message)
        elif kind == "control":
            message = f"{count} of {total} {of} hold control characters."
            yield Issue(kind="control_characters", severity="warning", rows=count, message=message)
        else:
            message = f"{count} of {total} {of} hold wrongly decoded text (such as Ã© or \ufffd)."
            yield Issue(kind="encoding", severity="warning", rows=count, message=message)
    scripts = {
        name: count for (kind, name), count in hits.items() if kind == "script" and count >= max(1, total * 0.02)
    }
    if len(scripts) > 1:
        shares = ", ".join(
            f"{name} {count / total:.0%}" for name, count in sorted(scripts.items(), key=lambda x: -x[1])
        )
        yield Issue(kind="mixed_languages", severity="note", message=f"Scripts by share of {of}: {shares}.")


def _benchmark_columns(table: Table) -> Iterator[Issue]:
    names = {column.name for column in table.columns}
    for benchmark, columns in BENCHMARK_COLUMNS.items():
        if columns <= names:
            yield Issue(
                kind="looks_like_benchmark",
                severity="warning",
                message=f"The columns are those of {benchmark}: training on what is measured makes the measure "
                "worthless.",
            )


def _identical_pairs(table: Table) -> Iterator[Issue]:
    if not (table.has("chosen") and table.has("rejected")):
        return
    chosen, rejected = table.column("chosen"), table.column("rejected")
    if str(chosen.type) != str(rejected.type):
        return
    equal = f"coalesce(count_if({chosen.sql} = {rejected.sql}), 0)"
    same = int(table.query(f"SELECT {equal} FROM {table.scan}")[0][0])
    if same:
        yield Issue(
            kind="identical_pairs",
            severity="warning",
            rows=same,
            message=f"{same} of {table.rows} pairs have the same answer as chosen and as rejected.",
        )
