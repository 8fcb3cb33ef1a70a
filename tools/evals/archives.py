"""Members of ZIP archives, zstandard ones among them, with the directory of a large archive read only once."""

from __future__ import annotations

import functools
import hashlib
import io
import struct
import sys
import zipfile
import zlib
from collections.abc import Mapping
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
        member = members(path)[name]
        if member.file_size > LARGEST_MEMBER:
            raise BadInput(
                f"{path}:{name} is {member.file_size // 2**20} MiB.",
                next_step="Such a log is not a result to read at once; split the evaluation by task.",
            )
        if member.compress_type == ZSTANDARD and sys.version_info < (3, 14):
            return _zstandard(path, member)
        if member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not member.flag_bits & 1:
            return _plain(path, member)
        with zipfile.ZipFile(path) as archive:
            return archive.read(member)
    except (
        zipfile.BadZipFile,
        KeyError,
        EOFError,
        OSError,
        struct.error,
        zlib.error,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise BadInput(
            f"{path}:{name} cannot be read: {error}.",
            next_step="If the evaluation was killed, recover the log with `inspect log recover`.",
        ) from error


def members(path: Path) -> Mapping[str, zipfile.ZipInfo]:
    """The directory of the archive, read once as long as the file stays the same.

    Raises:
        zipfile.BadZipFile, OSError: it is no archive, or cannot be read.
    """
    state = path.stat()
    return _members(path, state.st_size, state.st_mtime_ns, state.st_ino)


@functools.lru_cache(maxsize=4)
def _members(path: Path, size: int, changed: int, inode: int) -> Mapping[str, zipfile.ZipInfo]:
    with zipfile.ZipFile(path) as archive:
        return {member.filename: member for member in archive.infolist()}


def digest_of_directory(path: Path) -> str | None:
    """SHA-256 of the archive's directory, which holds name, size and checksum of every member; None if damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            start = archive.start_dir
        with path.open("rb") as file:
            file.seek(start)
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (zipfile.BadZipFile, OSError, struct.error, NotImplementedError):
        return None


def _packed(path: Path, member: zipfile.ZipInfo) -> bytes:
    """The bytes of a member as they lie in the file."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        *_, name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
        file.seek(name_length + extra_length, io.SEEK_CUR)
        return file.read(member.compress_size)


def _plain(path: Path, member: zipfile.ZipInfo) -> bytes:
    data = _packed(path, member)
    if member.compress_type == zipfile.ZIP_DEFLATED:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, LARGEST_MEMBER + 1)
    return _checked(member, data)


def _checked(member: zipfile.ZipInfo, data: bytes) -> bytes:
    if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
        raise zipfile.BadZipFile("its checksum does not match")
    return data


def _zstandard(path: Path, member: zipfile.ZipInfo) -> bytes:
    try:
        import zstandard
    except ImportError as error:
        raise MissingDependency(
            f"{path} is compressed with zstandard.", next_step="Install it: pip install zstandard"
        ) from error
    raw = _packed(path, member)
    try:
        with zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as stream:
            data: bytes = stream.read(LARGEST_MEMBER + 1)
    except zstandard.ZstdError as error:
        raise zipfile.BadZipFile(str(error)) from error
    return _checked(member, data)
