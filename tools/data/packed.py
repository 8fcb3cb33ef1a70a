"""Files as they lie on disk: packed (.gz, .bz2, .xz, .zst, .zip), with a byte-order mark, with rows under one key."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from mlintern.tools.errors import BadInput

PACKED = frozenset({".gz", ".bz2", ".xz", ".zst"})
MOST_UNPACKED = 32 * 2**30
ROWS_KEYS = frozenset(
    [
        "data",
        "rows",
        "examples",
        "instances",
        "items",
        "samples",
        "questions",
        "train",
        "entries",
        "records",
        "dataset",
        "results",
    ]
)
LONGEST_LINE = 128 * 2**20
LARGEST_OBJECT = 512 * 2**20
"""A JSON file that is one object is read whole; a larger one is not looked into."""


def unpacked_name(file: Path) -> str:
    """The name without the ending of its packing; of an archive its first data file's."""
    if file.suffix.lower() == ".zip":
        members = members_of(file)
        return members[0] if members else ""
    return file.stem if file.suffix.lower() in PACKED else file.name


def open_bytes(file: Path) -> IO[bytes]:
    """The bytes of a file, unpacked. Of an archive with several members all, one after another.

    Raises:
        BadInput: it is no archive, or an empty one.
    """
    match file.suffix.lower():
        case ".gz":
            return io.BufferedReader(cast(Any, gzip.open(file)))
        case ".bz2":
            return io.BufferedReader(cast(Any, bz2.open(file)))
        case ".xz":
            return io.BufferedReader(cast(Any, lzma.open(file)))
        case ".zst":
            return io.BufferedReader(cast(Any, _zstandard(file)))
        case ".zip":
            members = members_of(file)
            if len(members) != 1:
                raise BadInput(
                    f"{file} holds {len(members)} data files.",
                    next_step="Unpack it, and give the folder or one file.",
                )
            return io.BufferedReader(cast(Any, zipfile.ZipFile(file).open(members[0])))
    return file.open("rb")


def lines_of(stream: IO[bytes], *, name: object) -> Iterator[bytes]:
    """The lines of ``stream``, which is called ``name``.

    Raises:
        BadInput: one is longer than any row of text; it is not read to its end.
    """
    while line := stream.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise BadInput(
                f"{name} has a line of more than {LONGEST_LINE >> 20} MiB.",
                next_step="Write one object a line; is it the right file?",
            )
        yield line


def members_of(file: Path) -> list[str]:
    """The files of a zip archive; those that are hidden, and those that a system adds, left out.

    Raises:
        BadInput: it is no zip archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise BadInput(f"{file} is no readable zip archive: {error}.", next_step="Pack it again.") from error
    return [name for name in names if not any(p.startswith((".", "__")) for p in PurePosixPath(name).parts)]


def plain_file(file: Path, folder: Path, *, format: str, field: str | None) -> Path:
    """``file``, or a copy in ``folder`` that DuckDB can read: unpacked, without a byte-order mark, rows at the top.

    Raises:
        BadInput: it is damaged, or larger than 32 GiB when unpacked.
    """
    suffix = file.suffix.lower()
    must_copy = suffix in (".bz2", ".xz", ".zip") or (format == "json" and _has_mark(file))
    if field is not None:
        return _field_rows(file, folder, field)
    if not must_copy:
        return file
    target = folder / f"plain-{len(list(folder.glob('plain-*')))}{Path(unpacked_name(file)).suffix}"
    written = 0
    try:
        with open_bytes(file) as source, target.open("wb") as out:
            start = source.peek(3)[:3]  # type: ignore[attr-defined]
            if start == codecs.BOM_UTF8:
                source.read(3)
            while chunk := source.read(2**20):
                written += len(chunk)
                if written > MOST_UNPACKED:
                    raise BadInput(
                        f"{file} is larger than {MOST_UNPACKED // 2**30} GiB when unpacked.",
                        next_step="Unpack it, and split it into files.",
                    )
                out.write(chunk)
    except (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise BadInput(f"{file} cannot be unpacked: {error}.", next_step="Download or pack it again.") from error
    return target


def rows_field(file: Path) -> str | None:
    """The key under which a JSON file that is one object keeps its rows: ``{"version": 1, "data": [{...}, ...]}``."""
    if not unpacked_name(file).lower().endswith(".json"):
        return None
    try:
        with open_bytes(file) as stream:
            start = stream.read(2**16).lstrip(b"\xef\xbb\xbf \t\r\n")
            if not start.startswith(b"{") or _first_line_is_whole(start):
                return None
            rest = stream.read(LARGEST_OBJECT + 1)
        if len(rest) > LARGEST_OBJECT:
            return None
        value = json.loads((start + rest).decode("utf-8"))
    except (OSError, ValueError, EOFError, RecursionError, lzma.LZMAError, BadInput):
        return None
    if not isinstance(value, dict):
        return None
    lists = [
        key
        for key, item in value.items()
        if key.lower() in ROWS_KEYS and isinstance(item, list) and item and isinstance(item[0], dict)
    ]
    return lists[0] if len(lists) == 1 else None


def _first_line_is_whole(start: bytes) -> bool:
    """Whether the first of several lines is an object of its own, as in JSON lines."""
    line, newline, rest = start.partition(b"\n")
    if not newline or not rest.strip():
        return False
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def delimiter_of(file: Path) -> str:
    """What separates the cells of a text table: a tab by the name .tsv, else what the header has most of."""
    if ".tsv" in (suffix.lower() for suffix in Path(unpacked_name(file)).suffixes):
        return "\t"
    try:
        with open_bytes(file) as stream:
            header = stream.readline(2**16).decode("utf-8-sig", "replace")
    except (OSError, EOFError, lzma.LZMAError, BadInput):
        return ","
    bare = "".join(header.split('"')[::2])
    counts = {mark: bare.count(mark) for mark in (",", ";", "\t", "|")}
    return "," if counts[","] else max(counts, key=lambda mark: counts[mark]) if any(counts.values()) else ","


def encoding_of(file: Path) -> str:
    """The encoding that a text file that is no UTF-8 seems to have; empty if it cannot be told."""
    from charset_normalizer import from_bytes

    with open_bytes(file) as stream:
        best = from_bytes(stream.read(2**18)).best()
    return best.encoding.replace("_", "-") if best is not None else ""


def _has_mark(file: Path) -> bool:
    try:
        with open_bytes(file) as stream:
            return stream.read(3) == codecs.BOM_UTF8
    except (OSError, EOFError, lzma.LZMAError):
        return False


def _field_rows(file: Path, folder: Path, field: str) -> Path:
    with open_bytes(file) as stream:
        rows = json.loads(stream.read(LARGEST_OBJECT + 2**16).decode("utf-8-sig"))[field]
    target = folder / f"plain-{len(list(folder.glob('plain-*')))}.jsonl"
    with target.open("w", encoding="utf-8") as out:
        out.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    return target


def _zstandard(file: Path) -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        import zstandard

        return zstandard.ZstdDecompressor().stream_reader(file.open("rb"), read_across_frames=True)
    return zstd.open(file)
