"""Statistics of columns, each query one scan of the columns it needs."""

from __future__ import annotations

import decimal
import math
from collections.abc import Sequence
from typing import Any

from mlintern.common.text import cut
from mlintern.tools.data.inspection_results import ColumnStatistics, Lengths, ValueCount
from mlintern.tools.data.table import ROW, Column, Table, finite, type_text

EXACT_ROWS = 200_000
"""Up to so many rows distinct counts and quantiles are exact; above, HyperLogLog, and t-digest over a sample."""
COLUMNS_A_SCAN = 40
FEW_VALUES = 30
SHOWN_VALUE = 80
FLOATS = {"float", "double"}


def blank(text: str) -> str:
    """SQL: ``text`` is empty or white space. The comparison spares almost every row the slow ``trim``; CASE keeps
    the engine from changing their order."""
    return f"(CASE WHEN {text} < '!' THEN trim({text}, ' \n\t\r') = '' ELSE false END)"


def column_statistics(table: Table, columns: Sequence[Column]) -> list[ColumnStatistics]:
    """Statistics of ``columns`` in their order."""
    found: list[ColumnStatistics] = []
    for start in range(0, len(columns), COLUMNS_A_SCAN):
        group = columns[start : start + COLUMNS_A_SCAN]
        wanted = [_expressions(table, column) for column in group]
        row = table.query(f"SELECT {', '.join(e for many in wanted for e in many.values())} FROM {table.scan}")[0]
        position = 0
        for column, many in zip(group, wanted, strict=True):
            values = dict(zip(many, row[position : position + len(many)], strict=True))
            position += len(many)
            found.append(_statistics(table, column, values))
    for statistics, column in zip(found, columns, strict=True):
        if statistics.distinct is not None and 0 < statistics.distinct <= FEW_VALUES:
            statistics.values = _values(table, column)
    return found


def _expressions(table: Table, column: Column) -> dict[str, str]:
    """Aggregates for one column, by what they mean."""
    name = column.sql
    wanted = {"present": f"count({name})"}
    if column.kind in ("number", "text", "bool"):
        wanted["distinct"] = _distinct(table, name)
    if column.kind == "number":
        number = f"{name}::DOUBLE"
        only = f"FILTER (WHERE isfinite({name}))" if column.type.id in FLOATS else ""
        wanted |= {
            "min": f"min({name}) {only}",
            "max": f"max({name}) {only}",
            "mean": f"avg({number}) {only}",
            "std": f"stddev_samp({number}) {only}",
            "median": f"{quantile(table, number, quantiles='0.5')} {only}",
            "not_finite": f"coalesce(count_if(NOT isfinite({name})), 0)" if column.type.id in FLOATS else "0",
        }
    elif column.kind == "text":
        wanted |= _length(table, f"length({name})") | {"empty": f"coalesce(count_if({blank(name)}), 0)"}
    elif column.kind == "list":
        wanted |= _length(table, f"len({name})") | {"empty": f"coalesce(count_if(len({name}) = 0), 0)"}
    elif column.kind == "other" and column.type.id in {"date", "timestamp", "time", "timestamp with time zone"}:
        wanted |= {"min": f"min({name})::VARCHAR", "max": f"max({name})::VARCHAR", "distinct": _distinct(table, name)}
    return wanted


def _distinct(table: Table, name: str) -> str:
    return f"count(DISTINCT {name})" if table.rows <= EXACT_ROWS else f"approx_count_distinct({name})"


def quantile(table: Table, value: str, *, quantiles: str) -> str:
    """SQL: exact for small tables; for large ones t-digest over a sample of at least `EXACT_ROWS` / 2 rows."""
    if table.rows <= EXACT_ROWS:
        return f"quantile_cont({value}, {quantiles})"
    return (
        f"approx_quantile(CASE WHEN hash({ROW}) % {table.rows // EXACT_ROWS + 1} = 0 THEN {value} END, {quantiles})"
    )


def _length(table: Table, length: str) -> dict[str, str]:
    return {
        "shortest": f"min({length})",
        "longest": f"max({length})",
        "mean_length": f"avg({length})",
        "quantiles": quantile(table, length, quantiles="[0.5, 0.95]"),
    }


def _statistics(table: Table, column: Column, values: dict[str, Any]) -> ColumnStatistics:
    present = int(values["present"])
    distinct = values.get("distinct")
    exact = table.rows <= EXACT_ROWS
    found = ColumnStatistics(
        name=column.name,
        type=type_text(column.type),
        missing=table.rows - present,
        empty=values.get("empty"),
        distinct=None if distinct is None else min(int(distinct), present),
        distinct_estimated=distinct is not None and not exact,
    )
    if column.kind == "list" or column.kind == "text":
        found.length = lengths("items" if column.kind == "list" else "characters", values)
    if "min" in values:
        found.min, found.max = plain(values["min"]), plain(values["max"])
    if column.kind == "number":
        found.mean, found.std, found.median = (rounded(values[key]) for key in ("mean", "std", "median"))
        found.not_finite = int(values["not_finite"]) or None
    return found


def lengths(unit: Any, values: dict[str, Any]) -> Lengths | None:
    """The aggregates of `_length` as a result, or None when no row has a value."""
    if values["shortest"] is None:
        return None
    median, p95 = values["quantiles"] or (None, None)
    return Lengths(
        unit=unit,
        min=int(values["shortest"]),
        mean=round(float(values["mean_length"]), 2),
        median=None if median is None else round(float(median), 2),
        p95=None if p95 is None else round(float(p95), 2),
        max=int(values["longest"]),
    )


def describe_lengths(unit: Any, measured: Sequence[int]) -> Lengths | None:
    """`Lengths` of a list of lengths (quantiles by nearest rank)."""
    if not measured:
        return None
    ordered = sorted(measured)
    return Lengths(
        unit=unit,
        min=ordered[0],
        mean=round(sum(ordered) / len(ordered), 2),
        median=ordered[(len(ordered) - 1) // 2],
        p95=ordered[math.ceil(0.95 * len(ordered)) - 1],
        max=ordered[-1],
        sampled_rows=len(ordered),
    )


def _values(table: Table, column: Column) -> list[ValueCount]:
    counted = table.query(
        f"SELECT {column.sql}, count(*) AS n FROM {table.scan} WHERE {column.sql} IS NOT NULL "
        f"GROUP BY 1 ORDER BY n DESC, 1 LIMIT {FEW_VALUES + 1}"
    )
    present = sum(count for _, count in counted)
    return [ValueCount(value=plain(value), count=count, share=round(count / present, 4)) for value, count in counted]


def plain(value: Any) -> Any:
    """A value that JSON can hold; long texts are cut and say so."""
    if isinstance(value, str):
        return cut(value, SHOWN_VALUE)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return finite(value) if isinstance(value, float) else str(value)


def rounded(value: Any) -> float | None:
    """Six significant digits, None for what is absent or not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
