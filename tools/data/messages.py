"""Conversations inside a column, whatever its type: SQL that reads roles and contents out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from mlintern.tools.data.table import Column, Table

CONVERSATION_COLUMNS = ("messages", "conversations", "conversation", "prompt", "completion", "chosen", "rejected")


@dataclass(frozen=True)
class MessageColumn:
    """SQL expressions over a column of messages. ``items`` is a list; the others take a list element."""

    column: Column
    style: Literal["role/content", "from/value"]
    items: str
    json: bool
    fields: tuple[str, ...]

    def role(self, item: str) -> str:
        return self._field(item, "role" if self.style == "role/content" else "from")

    def content(self, item: str) -> str:
        return self._field(item, "content" if self.style == "role/content" else "value")

    def tool_calls(self, item: str) -> str:
        """True where the message calls a tool."""
        if self.json:
            return f"coalesce(json_array_length({item}, '$.tool_calls') > 0, false)"
        if "tool_calls" not in self.fields:
            return "false"
        return f"({item}.tool_calls IS NOT NULL AND {item}.tool_calls::VARCHAR NOT IN ('[]', 'null'))"

    def _field(self, item: str, name: str) -> str:
        if self.json:
            return f"json_extract_string({item}, '$.{name}')"
        return f'{item}."{name}"::VARCHAR' if name in self.fields else "NULL::VARCHAR"


def message_column(table: Table, column: Column) -> MessageColumn | None:
    """How to read messages out of ``column``, or None when it holds none."""
    kind = column.type
    if column.kind == "list":
        element = kind.children[0][1]
        if str(element) == "JSON":
            return _json_messages(table, column, column.sql)
        if element.id == "struct":
            fields = tuple(name for name, _ in element.children)
            if "role" in fields:
                return MessageColumn(column, "role/content", column.sql, False, fields)
            if "from" in fields and "value" in fields:
                return MessageColumn(column, "from/value", column.sql, False, fields)
    if column.is_json:
        return _json_messages(
            table, column, f"(CASE WHEN json_type({column.sql}) = 'ARRAY' THEN {column.sql}::JSON[] END)"
        )
    return None


def _json_messages(table: Table, column: Column, items: str) -> MessageColumn | None:
    found = table.query(
        f"SELECT coalesce(count_if(json_extract({items}[1], '$.role') IS NOT NULL), 0), "
        f"coalesce(count_if(json_extract({items}[1], '$.from') IS NOT NULL), 0) FROM {table.scan}"
    )[0]
    if found[0]:
        return MessageColumn(column, "role/content", items, True, ())
    return MessageColumn(column, "from/value", items, True, ()) if found[1] else None


def message_columns(table: Table) -> list[MessageColumn]:
    """Every column that holds conversations, the usual names first."""
    found = [shape for column in table.columns if (shape := message_column(table, column)) is not None]
    order: dict[str, Any] = {name: position for position, name in enumerate(CONVERSATION_COLUMNS)}
    return sorted(found, key=lambda shape: order.get(shape.column.name, len(order)))
