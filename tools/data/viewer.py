"""The Hub's dataset viewer: configurations, sizes, statistics over all rows, first rows, personal-data scan.

It is asked through `Web`, which repeats what is "not ready" (500) a few times. Each answer may fail alone; the
report of each is kept, and the caller goes on with what there is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mlintern.tools.data.column_statistics import FEW_VALUES, plain, rounded
from mlintern.tools.data.inspection_results import ColumnStatistics, Issue, Lengths, Split, ValueCount
from mlintern.tools.errors import MlinternError
from mlintern.tools.service_status import SourceReport, answered, failed
from mlintern.tools.web import Web

SERVICE = "datasets_server"


@dataclass
class Viewed:
    """What the viewer knows of a dataset. None: it did not say."""

    splits: list[Split] | None = None
    files: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    statistics: dict[str, ColumnStatistics] = field(default_factory=dict)
    rows: int | None = None
    first_rows: list[dict[str, Any]] | None = None
    partial: list[str] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)
    sources: list[SourceReport] = field(default_factory=list)


class ViewerClient:
    """Questions to the viewer, each noted in ``Viewed.sources``."""

    def __init__(self, *, web: Web) -> None:
        self._web = web

    async def overview(self, viewed: Viewed, dataset: str) -> None:
        """Configurations, splits with sizes, and the parquet files of each, added to ``viewed``."""
        sizes = await self._ask(viewed, "size", dataset=dataset)
        if sizes is not None:
            entries = _list(_dict(sizes.get("size")).get("splits"))
            viewed.splits = [_split(entry) for entry in entries]
            if sizes.get("partial"):
                viewed.partial.append("sizes: the viewer has read only the first part of this dataset.")
            for failure in _list(sizes.get("failed")):
                viewed.partial.append(f"config {failure.get('config')}: the viewer could not read it.")
        if not viewed.splits:
            named = await self._ask(viewed, "splits", dataset=dataset)
            if named is not None:
                viewed.splits = [
                    Split(name=str(entry["split"]), rows=None, config=str(entry["config"]))
                    for entry in _list(named.get("splits"))
                ] or None
        parquet = await self._ask(viewed, "parquet", dataset=dataset)
        for entry in _list((parquet or {}).get("parquet_files")):
            viewed.files.setdefault((str(entry["config"]), str(entry["split"])), []).append(str(entry["url"]))

    async def look_at(self, viewed: Viewed, dataset: str, config: str, split: str) -> None:
        """Statistics, first rows and the personal-data scan of one split, added to ``viewed``."""
        where = {"dataset": dataset, "config": config, "split": split}
        found = await self._ask(viewed, "statistics", **where)
        if found is not None:
            viewed.rows = found.get("num_examples")
            for entry in _list(found.get("statistics")):
                column = _column(entry)
                viewed.statistics[column.name] = column
            if found.get("partial"):
                viewed.partial.append(f"statistics: of the first {viewed.rows} rows only.")
        rows = await self._ask(viewed, "first-rows", **where)
        if rows is not None:
            viewed.first_rows = [_dict(entry.get("row")) for entry in _list(rows.get("rows"))]
            if rows.get("truncated") or any(entry.get("truncated_cells") for entry in _list(rows.get("rows"))):
                viewed.partial.append("first rows: the viewer cut long cells.")
        await self._personal_data(viewed, dataset)

    async def _personal_data(self, viewed: Viewed, dataset: str) -> None:
        try:
            answer = await self._web.get(SERVICE, "/presidio-entities", params={"dataset": dataset}, expect="json")
            scan = _dict(answer.json())
        except MlinternError:
            return  # the scan exists for few datasets; its absence says nothing
        prefix, suffix = "num_rows_with_", "_entities"
        counts = {key[len(prefix) : -len(suffix)]: n for key, n in scan.items() if key.startswith(prefix) and n}
        for entity, count in counts.items():
            if entity != "person":  # names of people are in almost any text
                viewed.issues.append(
                    Issue(
                        kind="personal_data",
                        severity="warning",
                        rows=count,
                        message=f"The viewer's scan found {entity.replace('_', ' ')} data in {count} rows.",
                    )
                )

    async def _ask(self, viewed: Viewed, endpoint: str, **params: str) -> dict[str, Any] | None:
        name = f"dataset viewer /{endpoint}"
        try:
            answer = await self._web.get(SERVICE, f"/{endpoint}", params=params, expect="json")
            found = _dict(answer.json())
        except MlinternError as error:
            viewed.sources.append(failed(name, error))
            return None
        viewed.sources.append(answered(name, http_status=answer.status))
        return found


def _split(entry: dict[str, Any]) -> Split:
    return Split(
        name=str(entry["split"]),
        config=str(entry["config"]),
        rows=entry.get("num_rows"),
        bytes=entry.get("num_bytes_parquet_files"),
    )


TYPES = {
    "float": "float64",
    "int": "int64",
    "bool": "bool",
    "class_label": "class label",
    "string_label": "string",
    "string_text": "string",
    "list": "list",
    "datetime": "timestamp",
}


def _column(entry: dict[str, Any]) -> ColumnStatistics:
    """The viewer's statistics of a column in our fields; of texts and lists it measures the lengths."""
    kind, values = str(entry["column_type"]), _dict(entry.get("column_statistics"))
    column = ColumnStatistics(
        name=str(entry["column_name"]), type=TYPES.get(kind, kind), missing=int(values.get("nan_count") or 0)
    )
    if kind in ("string_text", "list") and values.get("min") is not None:
        column.length = _lengths("items" if kind == "list" else "characters", values)
    elif kind in ("float", "int", "datetime"):
        column.min, column.max = plain(values.get("min")), plain(values.get("max"))
        if kind != "datetime":
            column.mean, column.std, column.median = (rounded(values.get(key)) for key in ("mean", "std", "median"))
    frequencies = _dict(values.get("frequencies"))
    if frequencies:
        total = sum(frequencies.values()) or 1
        ordered = sorted(frequencies.items(), key=lambda item: -item[1])
        column.distinct = int(values.get("n_unique") or len(frequencies))
        column.values = [ValueCount(value=v, count=n, share=round(n / total, 4)) for v, n in ordered[:FEW_VALUES]]
    return column


def _lengths(unit: Any, values: dict[str, Any]) -> Lengths:
    edges, counts = (
        _dict(values.get("histogram")).get("bin_edges") or [],
        _dict(values.get("histogram")).get("hist") or [],
    )
    wanted, seen, p95 = 0.95 * sum(counts), 0, values["max"]
    for count, upper in zip(counts, edges[1:], strict=False):
        seen += count
        if seen >= wanted:
            p95 = upper  # the upper edge of the bin that holds it
            break
    mean, median = float(values.get("mean") or 0), float(values.get("median") or 0)
    return Lengths(
        unit=unit, min=int(values["min"]), mean=mean, median=median, p95=float(p95), max=int(values["max"])
    )


def _list(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
