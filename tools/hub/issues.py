"""What in the data would hurt a training run, found before it is paid for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mlintern.tools.hub.duplicates import text_expressions
from mlintern.tools.hub.messages import MessageColumn
from mlintern.tools.hub.results import ColumnStatistics, Conversations, Duplicates, Issue
from mlintern.tools.hub.table import ROW, Table, literal

SAMPLE = 20_000
CHARACTERS = 20_000
IMBALANCE = 0.9
LONG, LONGER_THAN_MEDIAN = 20_000, 50
CHARACTERS_A_TOKEN = 4.0
SPEAKERS = {"human", "gpt", "chatgpt", "bot", "model", "USER", "ASSISTANT", "Human", "Assistant"}

SCRIPTS = {
    "Latin": r"\p{Latin}{3}",
    "Cyrillic": r"\p{Cyrillic}{3}",
    "Han": r"\p{Han}{2}",
    "Arabic": r"\p{Arabic}{3}",
    "Devanagari": r"\p{Devanagari}{3}",
    "Hangul": r"\p{Hangul}{2}",
    "Japanese kana": r"[\p{Hiragana}\p{Katakana}]{2}",
}
PERSONAL = {
    "e-mail addresses": r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}",
    "telephone numbers": r"(^|[^\d.])(\+\d{1,3}[ .-]?)(\(?\d{2,4}\)?[ .-]?){2,4}\d{2,4}\b|\(\d{3}\) ?\d{3}-\d{4}",
    "IBANs": r"\b[A-Z]{2}\d{2}( ?[A-Z0-9]{4}){3,7}\b",
    "payment card numbers": r"\b(?:4\d{3}|5[1-5]\d{2}|3[47]\d{2})(?:[ -]?\d{4}){2}[ -]?\d{3,4}\b",
    "US social security numbers": r"\b\d{3}-\d{2}-\d{4}\b",
}
BENCHMARK_TEXT = {
    "GSM8K": r"(?s)<<[-\d.+*/ ()]+=[-\d.]+>>.*####\s*-?[\d,.]+",
    "HumanEval or MBPP": r"def check\(candidate\)|METADATA = \{\s*'author'|assert candidate\(",
    "a benchmark with a canary string": r"(?i)BENCHMARK DATA SHOULD NEVER APPEAR IN TRAINING",
    "MMLU": r"The following are multiple choice questions \(with answers\) about",
}
BENCHMARK_COLUMNS = {
    "ARC": {"question", "choices", "answerKey"},
    "MMLU": {"question", "subject", "choices", "answer"},
    "HellaSwag": {"ctx_a", "ctx_b", "endings", "label"},
    "TruthfulQA": {"question", "best_answer", "correct_answers", "incorrect_answers"},
    "HumanEval": {"task_id", "canonical_solution", "entry_point", "test"},
    "IFEval": {"instruction_id_list", "kwargs", "prompt"},
    "WinoGrande": {"sentence", "option1", "option2", "answer"},
    "GPQA": {"Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2"},
}


@dataclass(frozen=True)
class Seen:
    """What was measured about the data before, so that nothing is scanned twice."""

    columns: list[ColumnStatistics]
    duplicates: Duplicates
    conversations: list[Conversations]
    max_length: int | None


def find_issues(table: Table, seen: Seen, messages: list[MessageColumn]) -> list[Issue]:
    """All findings, the severe ones first."""
    found = [
        *_columns(table, seen.columns),
        *_lengths(seen),
        *_repeats(table, seen.duplicates),
        *_talk(seen.conversations),
        *_texts(table, messages),
        *_identical_pairs(table),
    ]
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda issue: order[issue.severity])


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
        if (
            length
            and length.unit == "characters"
            and length.max >= LONG
            and length.max > LONGER_THAN_MEDIAN * length.median
        ):
            yield Issue(
                kind="very_long_rows",
                severity="warning",
                column=column.name,
                message=f"The longest text has {length.max:,} characters, the median {length.median:,.0f}.",
            )
        if seen.max_length is None:
            continue
        if column.tokens is not None and column.tokens.p95 > seen.max_length:
            yield _truncated(column.name, f"{column.tokens.p95:,.0f} tokens at the 95th percentile", seen.max_length)
        elif column.tokens is None and length and length.unit == "characters":
            guess = length.p95 / CHARACTERS_A_TOKEN
            if guess > seen.max_length:
                yield _truncated(
                    column.name,
                    f"about {guess:,.0f} tokens (4 characters each) at the 95th percentile",
                    seen.max_length,
                )
    for talk in seen.conversations:
        guess = talk.content_characters.p95 / CHARACTERS_A_TOKEN
        if seen.max_length is not None and guess > seen.max_length:
            yield _truncated(
                talk.column, f"about {guess:,.0f} tokens (4 characters each) at the 95th percentile", seen.max_length
            )


def _truncated(column: str, measured: str, limit: int) -> Issue:
    return Issue(
        kind="truncation",
        severity="warning",
        column=column,
        message=f"At max_length {limit} more than 5 % of the rows are cut: {measured}.",
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
        ("control", ""): r"[\x00-\x08\x0B\x0C\x0E-\x1F\x7F]",
        ("mojibake", ""): "\ufffd|Ã[\u0080-\u00bf]|â€[™œ\u009d“”]|ï»¿",
    }
    counts = ", ".join(
        f"count(*) FILTER (WHERE (regexp_matches(t, {literal(pattern)}))::BOOLEAN)" for pattern in patterns.values()
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
    equal = f"count(*) FILTER (WHERE ({chosen.sql} = {rejected.sql})::BOOLEAN)"
    same = int(table.query(f"SELECT {equal} FROM {table.scan}")[0][0])
    if same:
        yield Issue(
            kind="identical_pairs",
            severity="warning",
            rows=same,
            message=f"{same} of {table.rows} pairs have the same answer as chosen and as rejected.",
        )
