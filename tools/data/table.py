"""A table on disk that can be asked with SQL in little memory.

DuckDB was chosen by measuring (2.0 GB parquet, 10 M rows, 2 cores): statistics of all columns took 5.4 s and 281 MB
with DuckDB 2.0, 7.3 s and 2,952 MB with Polars 2.1 (streaming engine). Everything that is not parquet is written to a
temporary parquet file first, once, so that every question reads the same columnar data.
"""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlintern.common.text import did_you_mean
from mlintern.tools.data.local_files import LocalSplit
from mlintern.tools.data.reading_notes import reading_notes
from mlintern.tools.data.sql_text import literal, quoted, unreadable
from mlintern.tools.errors import BadInput

MEMORY_LIMIT = "400MB"
ROW = "__row"


@dataclass(frozen=True)
class Column:
    """``name`` as the file has it; ``sql`` the quoted identifier by which DuckDB knows it; ``type`` DuckDB's."""

    name: str
    sql: str
    type: Any

    @property
    def is_json(self) -> bool:
        return str(self.type) == "JSON"

    @property
    def kind(self) -> str:
        """One of number, text, bool, list, struct, json, null, other."""
        return "json" if self.is_json else KINDS.get(self.type.id, "other")


KINDS = {
    **dict.fromkeys(
        [
            "tinyint",
            "smallint",
            "integer",
            "bigint",
            "hugeint",
            "utinyint",
            "usmallint",
            "uinteger",
            "ubigint",
            "uhugeint",
            "float",
            "double",
            "decimal",
        ],
        "number",
    ),
    "varchar": "text",
    "enum": "text",
    "boolean": "bool",
    "list": "list",
    "array": "list",
    "struct": "struct",
    "null": "null",
}


@dataclass
class Table:
    """Parquet files seen as one table; ``scan`` is its FROM clause, with the row number as ``__row``.

    ``notes``: (kind, text) of what a reader should know of how the files were read.
    ``sparse``: it came from JSON, where an object has the keys that it has; DuckDB gives all of them the same ones.
    """

    connection: Any
    scan: str
    columns: tuple[Column, ...]
    rows: int
    duplicate_columns: tuple[str, ...] = ()
    sparse: bool = False
    notes: list[tuple[str, str]] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a SELECT.

        Raises:
            BadInput: the data cannot be read (damaged file, text that is not UTF-8).
        """
        import duckdb

        try:
            return list(self.connection.execute(sql).fetchall())
        except (duckdb.DataError, duckdb.OperationalError, duckdb.InvalidInputException) as error:
            raise unreadable(error) from error

    def column(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        names = [column.name for column in self.columns]
        raise BadInput(f"The data has no column {name!r}.", next_step=did_you_mean(name, names, what="column"))

    def has(self, name: str) -> bool:
        return any(column.name == name for column in self.columns)

    def fetch(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """The rows with these numbers as `datasets` would give them: JSON decoded, structs as dicts."""
        if not numbers or not self.columns:
            return []
        names = ", ".join(column.sql for column in self.columns)
        wanted = ", ".join(str(number) for number in numbers)
        found = self.query(f"SELECT {ROW}, {names} FROM {self.scan} WHERE {ROW} IN ({wanted})")
        by_number = {row[0]: row[1:] for row in found}
        return [
            {
                c.name: without_nulls(found) if self.sparse else found
                for c, value in zip(self.columns, by_number[number], strict=True)
                for found in (decode(value, c.type),)
            }
            for number in numbers
            if number in by_number
        ]


@contextlib.contextmanager
def open_table(split: LocalSplit, *, scratch: Path) -> Iterator[Table]:
    """Open a split; what had to be converted is deleted at the end.

    Raises:
        BadInput: a file is empty, malformed (the message names line and reason) or of mixed schemas.
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix="table-") as folder, connect(Path(folder)) as connection:
        files = split.files
        if split.format != "parquet":
            from mlintern.tools.data.convert import to_parquet

            files = (to_parquet(connection, split, target=Path(folder) / "data.parquet"),)
        table = read_table(connection, files)
        table.notes += reading_notes(split) if split.format in ("csv", "json") else []
        table.sparse = split.format == "json"
        yield table


@contextlib.contextmanager
def connect(folder: Path) -> Iterator[Any]:
    """A DuckDB connection of bounded memory that spills into ``folder`` and reaches no network."""
    import duckdb

    connection = duckdb.connect()
    try:
        connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        connection.execute("SET threads = 2")
        connection.execute("SET preserve_insertion_order = false")
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET autoinstall_known_extensions = false")
        connection.execute(f"SET temp_directory = {literal(str(folder / 'spill'))}")
        yield connection
    finally:
        connection.close()


def read_table(connection: Any, files: Sequence[Path]) -> Table:
    """Parquet files as a `Table`, without reading more than their footers."""
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq

    starts, total, names = [], 0, None
    maps: list[str] = []
    for file in files:
        try:
            metadata = pq.ParquetFile(file)
        except (pa.ArrowInvalid, OSError) as error:
            raise BadInput(
                f"{file} is not a readable parquet file: {error}.",
                next_step="Download or write it again; a truncated file has no footer.",
            ) from error
        starts.append((str(file), total))
        total += metadata.metadata.num_rows
        own = metadata.schema_arrow.names
        if names is not None and (new := [name for name in own if name not in names]):
            raise BadInput(
                f"{file} has columns that {files[0].name} lacks: {', '.join(new[:10])}; `datasets` stops there.",
                next_step="Give all files of a split the same columns, or load them as datasets of their own.",
            )
        names = names if names is not None else own
        maps += [field.name for field in metadata.schema_arrow if _has_map(field.type) and field.name not in maps]
        metadata.close()
    listed = ", ".join(literal(str(file)) for file in files)
    source = f"read_parquet([{listed}], file_row_number = true, filename = '__file')"
    offset = (
        "CASE __file " + " ".join(f"WHEN {literal(name)} THEN {start}" for name, start in starts) + " END"
        if len(files) > 1
        else "0"
    )
    try:
        described = connection.execute(f"SELECT * FROM read_parquet([{listed}]) LIMIT 0")
        columns = tuple(
            Column(name, quoted(entry[0]), entry[1])
            for name, entry in zip(names or [], described.description, strict=True)
        )
        described.fetchall()
    except duckdb.Error as error:
        raise unreadable(error) from error
    chosen = ", ".join(["*", f"file_row_number + {offset} AS {ROW}"])
    repeated = tuple(sorted({name for name in names or [] if (names or []).count(name) > 1}))
    notes = [
        (
            "map_column",
            f"The column {name!r} is a map, a type that `datasets` does not read: no script can load this data. "
            "Write it as a list of objects with key and value.",
        )
        for name in maps
    ]
    return Table(connection, f"(SELECT {chosen} FROM {source})", columns, total, repeated, notes=notes)


def _has_map(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_map(kind):
        return True
    return any(_has_map(kind.field(index).type) for index in range(kind.num_fields))


def type_text(kind: Any) -> str:
    """A DuckDB type in the words of `datasets`: ``list<struct<role: string, content: string>>``."""
    if str(kind) == "JSON":
        return "json"
    if kind.id in {"list", "array"}:
        return f"list<{type_text(kind.children[0][1])}>"
    if kind.id == "struct":
        return "struct<" + ", ".join(f"{name}: {type_text(child)}" for name, child in kind.children) + ">"
    if kind.id == "map":
        (_, key), (_, value) = kind.children
        return f"map<{type_text(key)}, {type_text(value)}>"
    return TYPE_NAMES.get(kind.id, str(kind).lower().strip('"'))


TYPE_NAMES = {
    "varchar": "string",
    "enum": "string",
    "boolean": "bool",
    "tinyint": "int8",
    "smallint": "int16",
    "integer": "int32",
    "bigint": "int64",
    "utinyint": "uint8",
    "usmallint": "uint16",
    "uinteger": "uint32",
    "ubigint": "uint64",
    "float": "float32",
    "double": "float64",
    "blob": "binary",
    "null": "null",
}


def decode(value: Any, kind: Any) -> Any:
    """A value as `datasets` yields it; JSON text inside is decoded, as its ``Json`` feature does."""
    if value is None:
        return None
    if str(kind) == "JSON":
        try:
            return json.loads(value)
        except ValueError:
            return value
    if kind.id in {"list", "array"}:
        return [decode(item, kind.children[0][1]) for item in value]
    if kind.id == "struct":
        types = dict(kind.children)
        return {name: decode(item, types[name]) for name, item in value.items()}
    return value


def without_nulls(value: Any) -> Any:
    """``value`` without the null fields of the objects in it."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def finite(value: Any) -> Any:
    """A number that strict JSON can hold, or None."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
