"""The kinds of rows a dataset has, over all its rows.

What a trainer does with a row depends on its shape only: which values are null, empty, text or messages, who speaks
last. DuckDB counts the shapes in one scan; each gets one real row as its representative, and the trainer's rules are
tried on that. So a verdict covers every row at the price of a few.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlintern.tools.data.messages import MessageColumn, message_column
from mlintern.tools.data.table import ROW, Column, Table

TRAINING_COLUMNS = (
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "messages",
    "conversations",
    "text",
    "label",
    "tools",
    "chat_template_kwargs",
)
MOST_SHAPES = 200


@dataclass(frozen=True)
class Shape:
    """``count`` rows look like ``row``, the first of them, which is row ``number``."""

    count: int
    number: int
    row: dict[str, Any]


def row_shapes(table: Table, columns: tuple[str, ...] = TRAINING_COLUMNS) -> list[Shape]:
    """Shapes in the order of their first row (so the first shape is row 0's). Empty for a table without rows."""
    if not table.rows:
        return []
    present = [column for column in table.columns if column.name in columns]
    keys = [_shape_of(table, column) for column in present]
    if {"chosen", "rejected"} <= {column.name for column in present}:
        keys.append(_shared_start(table))
    grouped = ", ".join(keys) or "()"
    found = table.query(
        f"SELECT count(*), min({ROW}) FROM {table.scan} GROUP BY {grouped} ORDER BY min({ROW}) LIMIT "
        f"{MOST_SHAPES + 1}"
    )
    if len(found) > MOST_SHAPES:
        seen = sum(count for count, _ in found[:MOST_SHAPES])
        table.partial.append(
            f"formats: the rows have more than {MOST_SHAPES} shapes; {table.rows - seen} rows were not tried."
        )
    found = found[:MOST_SHAPES]
    rows = table.fetch([number for _, number in found])
    return [Shape(count, number, row) for (count, number), row in zip(found, rows, strict=True)]


def _shape_of(table: Table, column: Column) -> str:
    name = column.sql
    if column.kind == "text":
        valid = f" WHEN NOT json_valid({name}) THEN 'not json'" if column.name == "tools" else ""
        return f"CASE WHEN {name} IS NULL THEN 'null' WHEN {name} = '' THEN 'empty'{valid} ELSE 'text' END"
    if column.name == "label" and column.kind in {"bool", "number"}:
        return (
            f"CASE WHEN {name} IS NULL THEN 'null' WHEN {name} = 0 THEN '0' WHEN {name} = 1 THEN '1' ELSE 'other' END"
        )
    messages = message_column(table, column)
    if messages is not None:
        return _messages_shape(messages)
    if column.is_json:
        return f"coalesce(json_type({name}), 'null')"
    if column.kind == "list":
        return f"CASE WHEN {name} IS NULL THEN 'null' WHEN len({name}) = 0 THEN 'empty' ELSE 'list' END"
    return f"({name} IS NULL)::VARCHAR"


def _messages_shape(messages: MessageColumn) -> str:
    items = messages.items
    other = f"json_type({messages.column.sql})" if messages.column.is_json else "'null'"
    known = "('system', 'user', 'assistant', 'tool', 'human', 'gpt')"
    first, last = messages.role(f"{items}[1]"), messages.role(f"{items}[-1]")
    return (
        f"CASE WHEN {items} IS NULL THEN {other} WHEN len({items}) = 0 THEN 'empty' ELSE concat_ws('/', "
        f"CASE WHEN {first} IS NULL THEN 'none' WHEN {first} IN {known} THEN {first} ELSE 'other' END, "
        f"CASE WHEN {last} IN {known} THEN {last} ELSE 'other' END, "
        f"array_to_string(list_sort(list_distinct(list_transform({items}, lambda m: {messages.role('m')}))), ',')"
        "[:200], "
        f"{_content_types(messages)}, "
        f"len(list_filter({items}, lambda m: {messages.role('m')} IS NULL)) > 0, "
        f"len(list_filter({items}, lambda m: {messages.content('m')} IS NULL)) > 0) END"
    )


def _content_types(messages: MessageColumn) -> str:
    """The kinds of content in a conversation, where they may differ from message to message."""
    if not messages.json:
        return "''"
    key = "content" if messages.style == "role/content" else "value"
    kinds = f"list_transform({messages.items}, lambda m: coalesce(json_type(json_extract(m, '$.{key}')), 'null'))"
    return f"array_to_string(list_sort(list_distinct({kinds})), ',')"


def _shared_start(table: Table) -> str:
    """Whether chosen and rejected begin alike: an implicit prompt exists only then."""
    chosen, rejected = table.column("chosen"), table.column("rejected")
    if chosen.kind == rejected.kind == "text":
        return f"({chosen.sql}[1] = {rejected.sql}[1])"
    if chosen.kind == rejected.kind == "list":
        return f"({chosen.sql}[1]::VARCHAR = {rejected.sql}[1]::VARCHAR)"
    return "true"
