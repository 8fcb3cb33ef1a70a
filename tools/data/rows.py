"""Rows of data, local or on the Hub, one after another, in file order, in memory that does not grow with the file."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any

from mlintern.tools.data.local_files import LocalSplit
from mlintern.tools.data.packed import LARGEST_OBJECT, delimiter_of, lines_of, open_bytes
from mlintern.tools.data.remote_rows import BLOCK, MOST_BYTES, RemoteFile, RemoteFiles
from mlintern.tools.errors import BadInput
from mlintern.tools.hub.errors import hub_errors

BATCH = 2_000
LOOKED_AT = 50

DataFile = Path | RemoteFile
DataSplit = LocalSplit | RemoteFiles


def stream_rows(split: DataSplit, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows as dicts; only ``columns`` of parquet are read from disk when they are given.

    Raises:
        BadInput: a line is no JSON object, or a file is damaged.
        NotFound, Blocked, RateLimited, Offline, ServiceError: a file on the Hub cannot be had.
    """
    if split.format in ("parquet", "arrow"):
        for batch in stream_batches(split, columns):
            yield from _batch_rows(batch)
        return
    reader = _json if split.format == "json" else _csv
    for file in split.files:
        with _named_errors(file):
            yield from reader(file)


def stream_batches(split: DataSplit, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Arrow record batches of a parquet or arrow split, with ``columns`` only if they are given.

    Raises:
        BadInput: a file is damaged.
    """
    import pyarrow as pa

    for file in split.files:
        try:
            with _named_errors(file):
                yield from _parquet(file, columns) if split.format == "parquet" else _arrow(file, columns)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _damaged(file, error) from error


def text_columns(split: DataSplit) -> list[str]:
    """Columns that can hold text: by schema if there is one (parquet: of all files), else keys of the first rows."""
    if split.format == "parquet":
        found = (field for file in split.files for field in _parquet_schema(file))
        return list(dict.fromkeys(field.name for field in found if _holds_text(field.type)))
    if split.format == "arrow":
        for batch in stream_batches(split):
            return [field.name for field in batch.schema if _holds_text(field.type)]
        return []
    names: dict[str, None] = {}
    for row in itertools.islice(stream_rows(split), LOOKED_AT):
        names.update(dict.fromkeys(row))
    return list(names)


def _holds_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return True
    if pa.types.is_dictionary(kind):
        return _holds_text(kind.value_type)
    return any(_holds_text(kind.field(index).type) for index in range(kind.num_fields))


def _named_errors(file: DataFile) -> AbstractContextManager[None]:
    return hub_errors(f"data of {file}") if isinstance(file, RemoteFile) else nullcontext()


def _bytes(file: DataFile) -> IO[bytes]:
    return file.open_bytes() if isinstance(file, RemoteFile) else open_bytes(file)


def _parquet_file(file: DataFile) -> Any:
    import pyarrow.parquet as pq

    if isinstance(file, RemoteFile):
        return pq.ParquetFile(file.open(), pre_buffer=False, buffer_size=BLOCK)
    return pq.ParquetFile(file, pre_buffer=False)


def _parquet_schema(file: DataFile) -> Any:
    import pyarrow as pa

    try:
        with _named_errors(file), _parquet_file(file) as opened:
            return opened.schema_arrow
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(file, error) from error


def _damaged(file: DataFile, error: Exception) -> BadInput:
    return BadInput(f"{file} cannot be read: {error}.", next_step="Download or write it again.")


def _parquet(file: DataFile, columns: Sequence[str] | None) -> Iterator[Any]:
    with _parquet_file(file) as opened:
        kept = None if columns is None else [name for name in opened.schema_arrow.names if name in columns]
        yield from opened.iter_batches(batch_size=BATCH, columns=kept)


def _batch_rows(batch: Any) -> Iterator[dict[str, Any]]:
    names = batch.schema.names
    if not names:
        yield from ({} for _ in range(batch.num_rows))
        return
    for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
        yield dict(zip(names, values, strict=True))


def _json(file: DataFile) -> Iterator[dict[str, Any]]:
    with _bytes(file) as stream:
        start = stream.peek(4096)[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")  # type: ignore[attr-defined]
        if start.startswith(b"["):
            rows = _loads(file, 1, _whole(file, stream))
            yield from (row for row in rows if isinstance(row, dict))
            return
        for number, line in enumerate(lines_of(stream, name=file), start=1):
            if line.strip():
                row = _loads(file, number, line)
                if not isinstance(row, dict):
                    raise _bad_line(file, number, "not a JSON object")
                yield row


def _whole(file: DataFile, stream: IO[bytes]) -> bytes:
    """A JSON array can only be read whole; of the Hub's only a small one is."""
    if not isinstance(file, RemoteFile):
        data = stream.read(LARGEST_OBJECT + 1)
        if len(data) > LARGEST_OBJECT:
            raise BadInput(
                f"{file} is one JSON array of more than {LARGEST_OBJECT >> 20} MiB, which cannot be read in parts.",
                next_step="Write it as JSON lines or parquet.",
            )
        return data
    data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise BadInput(
            f"{file} is one JSON array of more than {MOST_BYTES // 2**20} MB, which cannot be read in parts.",
            next_step="Download it and give the path, or use a parquet or JSON lines copy.",
        )
    return data


def _loads(file: DataFile, number: int, line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except ValueError as error:
        raise _bad_line(file, number, str(error)) from error


def _bad_line(file: DataFile, number: int, what: str) -> BadInput:
    return BadInput(f"{file}, line {number}: {what}.", next_step="inspect_dataset lists all malformed lines.")


def _csv(file: DataFile) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(2**31 - 1)
    delimiter = delimiter_of(file) if isinstance(file, Path) else "\t" if ".tsv" in file.suffixes else ","
    try:
        with io.TextIOWrapper(_bytes(file), encoding="utf-8-sig", newline="") as stream:
            for row in csv.DictReader(stream, delimiter=delimiter):
                yield {name: value for name, value in row.items() if isinstance(name, str)}
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{file} cannot be read: {error}.", next_step="Save it as UTF-8 CSV.") from error


def _arrow(file: DataFile, columns: Sequence[str] | None) -> Iterator[Any]:
    import pyarrow as pa

    with pa.memory_map(str(file)) as mapped:
        try:
            batches = pa.ipc.open_stream(mapped)
        except pa.ArrowInvalid:
            opened = pa.ipc.open_file(mapped)
            batches = (opened.get_batch(index) for index in range(opened.num_record_batches))
        for batch in batches:
            names = batch.schema.names
            yield batch.select(names if columns is None else [name for name in names if name in columns])
