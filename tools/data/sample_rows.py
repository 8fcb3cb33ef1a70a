"""A few rows to look at, cut so that they cost little to read; every cut says so."""

from __future__ import annotations

import base64
import datetime
import decimal
import math
from collections.abc import Sequence
from typing import Any

from mlintern.common.redact import MARK, is_secret_name, redact
from mlintern.common.text import cut
from mlintern.tools.data.table import Table

CELL = 500
ITEMS = 6
DEPTH = 6


def sample_rows(table: Table, count: int, columns: Sequence[str] | None) -> list[dict[str, Any]]:
    """``count`` rows spread evenly from the first to the last, with their number as ``row``."""
    if not table.rows or count <= 0:
        return []
    last = table.rows - 1
    numbers = sorted({round(i * last / max(1, count - 1)) for i in range(count)})
    rows = table.fetch(numbers)
    return [
        {
            "row": number,
            "values": {
                name: shown_cell(name, value) for name, value in row.items() if not columns or name in columns
            },
        }
        for number, row in zip(numbers, rows, strict=True)
    ]


def shown_cell(name: str, value: Any, *, depth: int = 0) -> Any:
    """A cell as it is shown; what a column of this name holds may be a secret."""
    return MARK if isinstance(value, str) and value and is_secret_name(name) else shown(value, depth)


def shown(value: Any, depth: int = 0) -> Any:
    """``value`` as JSON, with long texts and lists cut: ``"... [12,345 characters in all]"``."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        value = redact(value)
        return cut(value, CELL)
    if isinstance(value, bytes):
        head = base64.b64encode(value[:24]).decode()
        return f"<{len(value):,} bytes: base64 {head}{'...' if len(value) > 24 else ''}>"
    if depth >= DEPTH:
        return f"<{type(value).__name__}, nested deeper than is shown>"
    if isinstance(value, dict):
        return {
            str(key): shown_cell(str(key), item, depth=depth + 1)
            for key, item in value.items()
            if item is not None or depth == 0
        }
    if isinstance(value, list | tuple):
        items = [shown(item, depth + 1) for item in value[:ITEMS]]
        return items if len(value) <= ITEMS else [*items, f"... [{len(value):,} items in all]"]
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)[:CELL]
