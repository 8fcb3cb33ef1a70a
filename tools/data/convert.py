"""Text and arrow files into one parquet file, with an exact complaint when a file is malformed."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlintern.tools.data.local_files import LocalSplit
from mlintern.tools.data.packed import delimiter_of, encoding_of, lines_of, open_bytes, plain_file
from mlintern.tools.data.sql_text import literal, quoted, unreadable
from mlintern.tools.errors import BadInput

SHOWN_FAULTS = 3
AS_TEXT = {"date", "time", "timestamp", "timestamp with time zone", "uuid", "interval"}


def to_parquet(connection: Any, split: LocalSplit, *, target: Path) -> Path:
    """Write all files of ``split`` to ``target`` in their order.

    Raises:
        BadInput: a file is empty or malformed; for JSON lines the message says which lines, what and how many.
    """
    for file in split.files:
        if split.format != "arrow" and file.stat().st_size == 0:
            raise BadInput(f"{file} is empty (0 bytes).", next_step="Write at least one row, or give another file.")
    if split.format == "arrow":
        return _arrow(split.files, target)
    given = [plain_file(file, target.parent, format=split.format, field=split.field) for file in split.files]
    with _named_as(dict(zip(map(str, given), map(str, split.files), strict=True))):
        if split.format == "json":
            return _json(connection, tuple(given), target)
        return _csv(connection, tuple(given), target, delimiter=delimiter_of(split.files[0]))


@contextmanager
def _named_as(names: dict[str, str]) -> Iterator[None]:
    """Errors name the file that was given, not its copy."""
    try:
        yield
    except BadInput as error:
        message = error.message
        for copy, given in names.items():
            message = message.replace(copy, given)
        raise BadInput(message, next_step=error.next_step) from error


def _json(connection: Any, files: tuple[Path, ...], target: Path) -> Path:
    import duckdb

    array = _opens_with_bracket(files[0])
    longest = 16 * 2**20 if array else max((_longest_line(file) for file in files), default=0)
    options = (
        f"format = '{'array' if array else 'newline_delimited'}', records = 'true', sample_size = -1, "
        f"map_inference_threshold = -1, maximum_object_size = {max(2**24, longest + 1024)}"
    )
    listed = ", ".join(literal(str(file)) for file in files)
    source = f"read_json([{listed}], {options}"
    try:
        if len(files) > 1:
            _refuse_new_columns([(file, _columns_of(connection, file, options)) for file in files])
        described = connection.execute(f"SELECT * FROM {source}) LIMIT 0")
        names = [(entry[0], entry[1]) for entry in described.description]
        described.fetchall()
        connection.execute("SET preserve_insertion_order = true")
        chosen = ", ".join(_as_text(name, kind) for name, kind in names)
        connection.execute(f"COPY (SELECT {chosen} FROM {source})) TO {literal(str(target))} (FORMAT parquet)")
    except duckdb.Error as error:
        raise _json_faults(files, array) or unreadable(error) from error
    finally:
        connection.execute("SET preserve_insertion_order = false")
    if names == [] or [name for name, _ in names] == ["json"]:
        faults = _json_faults(files, array)
        if faults:
            raise faults
    return target


def _columns_of(connection: Any, file: Path, options: str) -> list[str]:
    described = connection.execute(f"SELECT * FROM read_json([{literal(str(file))}], {options}) LIMIT 0")
    return [entry[0] for entry in described.description]


def _refuse_new_columns(columns: list[tuple[Path, list[str]]]) -> None:
    """`datasets` takes the columns of a split's first file for those of all, and stops at one more."""
    first, known = columns[0]
    for file, names in columns[1:]:
        if new := [name for name in names if name not in known]:
            raise BadInput(
                f"{file} has columns that {first.name} lacks: {', '.join(new[:10])}; `datasets` stops there.",
                next_step="Give all files of a split the same columns, or load them as datasets of their own.",
            )


def _as_text(name: str, kind: Any) -> str:
    """Dates and UUIDs in JSON are texts for `datasets` and for a trainer, so they stay texts here."""
    column = quoted(name)
    return f"{column}::VARCHAR AS {column}" if kind.id in AS_TEXT else column


def _opens_with_bracket(file: Path) -> bool:
    with open_bytes(file) as stream:
        return stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _longest_line(file: Path) -> int:
    with open_bytes(file) as stream:
        return max(map(len, lines_of(stream, name=file)), default=0)


def _json_faults(files: tuple[Path, ...], array: bool) -> BadInput | None:
    """Read line by line to say which lines are wrong and why; None when nothing is found."""
    if array:
        return None
    for file in files:
        faults = list(_line_faults(file))
        if faults:
            shown = "; ".join(f"line {number}: {what}" for number, what in faults[:SHOWN_FAULTS])
            more = f"; and {len(faults) - SHOWN_FAULTS} more" if len(faults) > SHOWN_FAULTS else ""
            return BadInput(
                f"{file} has {len(faults)} malformed line{'s' * (len(faults) > 1)}: {shown}{more}.",
                next_step="Every line must be one JSON object in UTF-8; correct or remove these lines.",
            )
        with open_bytes(file) as stream:
            if not any(line.strip() for line in lines_of(stream, name=file)):
                return BadInput(f"{file} has no rows.", next_step="Write at least one JSON object, one a line.")
        with open_bytes(file) as stream:
            if not any(key for line in lines_of(stream, name=file) if line.strip() for key in json.loads(line)):
                return BadInput(f"{file} has rows, but no named column.", next_step="Give every value a name.")
    return None


def _line_faults(file: Path) -> Iterator[tuple[int, str]]:
    with open_bytes(file) as stream:
        for number, line in enumerate(lines_of(stream, name=file), start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(
                    line.rstrip().decode("utf-8-sig" if number == 1 else "utf-8"), object_pairs_hook=_unique
                )
                if not isinstance(value, dict):
                    yield number, f"a JSON {JSON_NAMES[type(value)]}, not an object"
                json.dumps(value, ensure_ascii=False).encode()
            except UnicodeDecodeError as error:
                yield number, f"not UTF-8 (byte 0x{error.object[error.start]:02x} at position {error.start})"
            except UnicodeEncodeError:
                yield number, "a lone surrogate (\\ud800 to \\udfff), which is no Unicode text"
            except json.JSONDecodeError as error:
                yield number, f"{error.msg} at column {error.colno}"
            except RecursionError:
                yield number, "nested too deeply"
            except ValueError as error:
                yield number, str(error)


JSON_NAMES = {list: "list", str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        repeated = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {repeated!r} occurs twice in one object")
    return value


def _csv(connection: Any, files: tuple[Path, ...], target: Path, *, delimiter: str) -> Path:
    """Read as `datasets` (pandas) does: a header line, quotes doubled, pandas' words for missing, dates as text."""
    import duckdb

    names = _header(files[0], delimiter)
    _refuse_new_columns([(file, _header(file, delimiter)) for file in files])
    raw = target.with_name("raw.parquet")
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
    missing = ", ".join(map(literal, MISSING))
    listed = ", ".join(literal(str(file)) for file in files)
    options = (
        f"auto_detect = false, header = true, delim = {literal(delimiter)}, quote = '\"', escape = '\"', "
        f"columns = {{{columns}}}, nullstr = [{missing}], allow_quoted_nulls = true, max_line_size = 268435456"
    )
    try:
        connection.execute("SET preserve_insertion_order = true")
        connection.execute(
            f"COPY (SELECT * FROM read_csv([{listed}], {options})) TO {literal(str(raw))} (FORMAT parquet)"
        )
        _cast(connection, raw, names, target)
    except duckdb.Error as error:
        raise _csv_fault(files, delimiter) or unreadable(error) from error
    finally:
        connection.execute("SET preserve_insertion_order = false")
    return target


MISSING = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip
"""What pandas, and so `datasets`, reads as missing in a CSV."""


def _header(file: Path, delimiter: str) -> list[str]:
    """Column names, made unique as pandas does: ``a``, ``a.1``."""
    try:
        with io.TextIOWrapper(open_bytes(file), encoding="utf-8-sig", newline="") as stream:
            header = next(csv.reader(stream, delimiter=delimiter), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise _csv_fault((file,), delimiter) or unreadable(error) from error
    names: list[str] = []
    for position, name in enumerate(header):
        base = name or f"Unnamed: {position}"
        taken = {known.lower() for known in names}
        candidates = [base, *(f"{base}.{count}" for count in range(1, len(header) + 1))]
        names.append(next(one for one in candidates if one.lower() not in taken))
    return names


def _cast(connection: Any, raw: Path, names: list[str], target: Path) -> None:
    """Give each column the narrowest type that all its values have: bool, int64, float64 or text."""
    source = f"read_parquet({literal(str(raw))})"
    tests = [
        f"bool_and({quoted(name)} IS NULL OR {test.format(quoted(name))})"
        for name in names
        for test in TYPES.values()
    ]
    found = connection.execute(f"SELECT {', '.join(tests)} FROM {source}").fetchone()
    chosen = []
    for position, name in enumerate(names):
        fits = found[position * len(TYPES) : (position + 1) * len(TYPES)]
        kind = next((kind for kind, fit in zip(TYPES, fits, strict=True) if fit), "VARCHAR")
        chosen.append(f"{quoted(name)}::{kind} AS {quoted(name)}")
    connection.execute(f"COPY (SELECT {', '.join(chosen)} FROM {source}) TO {literal(str(target))} (FORMAT parquet)")
    raw.unlink()


TYPES = {
    "BOOLEAN": "{} IN ('True', 'False', 'TRUE', 'FALSE', 'true', 'false')",
    "BIGINT": "regexp_full_match({}, '\\s*[-+]?[0-9]{{1,18}}\\s*')",
    "DOUBLE": "TRY_CAST({} AS DOUBLE) IS NOT NULL",
}


def _csv_fault(files: tuple[Path, ...], delimiter: str) -> BadInput | None:
    """The first row that has another number of fields than the header, or the first bytes that are not UTF-8."""
    for file in files:
        csv.field_size_limit(2**31 - 1)
        try:
            with io.TextIOWrapper(open_bytes(file), encoding="utf-8-sig", newline="") as stream:
                reader = csv.reader(stream, delimiter=delimiter)
                width = len(next(reader, []))
                for row in reader:
                    if row and len(row) != width:
                        return BadInput(
                            f"{file}, line {reader.line_num}: {len(row)} fields, but the header has {width}.",
                            next_step="Quote fields that hold the delimiter or a line break.",
                        )
        except UnicodeDecodeError as error:
            return BadInput(
                f"{file} is not UTF-8 (byte 0x{error.object[error.start]:02x}).",
                next_step=f"It looks like {found}: iconv -f {found} -t utf-8"
                if (found := encoding_of(file))
                else "Convert it to UTF-8.",
            )
        except csv.Error as error:
            return BadInput(f"{file} is not valid CSV: {error}.", next_step="Export it again.")
    return None


def _arrow(files: tuple[Path, ...], target: Path) -> Path:
    """Copy record batches one at a time; `datasets` writes the stream format, other tools the file format."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    try:
        for file in files:
            with pa.memory_map(str(file)) as mapped:
                try:
                    batches = pa.ipc.open_stream(mapped)
                except pa.ArrowInvalid:
                    opened = pa.ipc.open_file(mapped)
                    batches = (opened.get_batch(i) for i in range(opened.num_record_batches))
                    schema = opened.schema
                else:
                    schema = batches.schema
                writer = writer or pq.ParquetWriter(target, schema)
                for batch in batches:
                    writer.write_batch(batch)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(
            f"{files[0].parent} holds an arrow file that cannot be read: {error}.",
            next_step="Save the dataset again, or give parquet or jsonl.",
        ) from error
    finally:
        if writer is not None:
            writer.close()
    return target
