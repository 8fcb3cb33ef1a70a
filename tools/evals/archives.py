"""Members of ZIP archives that are compressed with zstandard, which `zipfile` reads only since Python 3.14."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
import zlib
from pathlib import Path

from mlintern.tools.errors import BadInput, MissingDependency

ZSTANDARD = 93
"""Compression method number, PKWARE APPNOTE 4.4.5."""
LOCAL_HEADER = struct.Struct("<4s5H3L2H")
"""Local file header, APPNOTE 4.3.7; the last two fields are the lengths of name and extra field."""
LARGEST_MEMBER = 256 * 2**20
"""Bytes, uncompressed: headers and summaries are far below."""


def read_member(path: Path, name: str) -> bytes:
    """The uncompressed bytes of ``name`` in the archive ``path``.

    Raises:
        BadInput: the archive or the member is damaged, or the member is too large.
        MissingDependency: the member needs zstandard, and it is not installed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(name)
            if member.file_size > LARGEST_MEMBER:
                raise BadInput(
                    f"{path}:{name} is {member.file_size // 2**20} MiB.",
                    next_step="Such a log is not a result to read at once; split the evaluation by task.",
                )
            if member.compress_type != ZSTANDARD or sys.version_info >= (3, 14):
                return archive.read(member)
            return _zstandard(path, member)
    except (zipfile.BadZipFile, KeyError, EOFError, struct.error, NotImplementedError) as error:
        raise BadInput(
            f"{path}:{name} cannot be read: {error}.",
            next_step="If the evaluation was killed, recover the log with `inspect log recover`.",
        ) from error


def _zstandard(path: Path, member: zipfile.ZipInfo) -> bytes:
    try:
        import zstandard
    except ImportError as error:
        raise MissingDependency(
            f"{path} is compressed with zstandard.", next_step="Install it: pip install zstandard"
        ) from error
    with path.open("rb") as file:
        file.seek(member.header_offset)
        *_, name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
        file.seek(name_length + extra_length, io.SEEK_CUR)
        raw = file.read(member.compress_size)
    try:
        with zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as stream:
            data: bytes = stream.read(LARGEST_MEMBER + 1)
    except zstandard.ZstdError as error:
        raise zipfile.BadZipFile(str(error)) from error
    if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
        raise zipfile.BadZipFile("its checksum does not match")
    return data
