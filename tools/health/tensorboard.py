"""Scalars in TensorBoard's event files, without TensorBoard.

A file is a series of records (length as uint64, its checksum, the data, their checksum: TFRecord), each an ``Event``
message: ``step`` is field 2, ``summary`` field 5, whose values carry a ``tag`` (1) and a ``simple_value`` (2) or a
``tensor`` (8). Source: tensorflow/core/util/event.proto and framework/summary.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

_FLOAT, _DOUBLE = 1, 2


def scalars(data: bytes) -> Iterator[dict[str, Any]]:
    """``{"step": .., tag: value}`` for each scalar, in the order of the file; the end may be cut off."""
    place = 0
    while place + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        record = data[place + 12 : place + 12 + length]
        if len(record) < length:
            return
        place += 12 + length + 4
        yield from _event(record)


def _event(record: bytes) -> Iterator[dict[str, Any]]:
    step, summaries = 0, []
    for number, value in _fields(record):
        if number == 2 and isinstance(value, int):
            step = value
        elif number == 5 and isinstance(value, bytes):
            summaries.append(value)
    for summary in summaries:
        for number, value in _fields(summary):
            if number == 1 and isinstance(value, bytes) and (scalar := _scalar(value)) is not None:
                yield {"step": step, scalar[0]: scalar[1]}


def _scalar(message: bytes) -> tuple[str, float] | None:
    tag, number = "", None
    for field, value in _fields(message):
        if field == 1 and isinstance(value, bytes):
            tag = value.decode("utf-8", errors="replace")
        elif field == 2 and isinstance(value, bytes) and len(value) == 4:
            number = struct.unpack("<f", value)[0]
        elif field == 8 and isinstance(value, bytes):
            number = _tensor(value)
    return (tag, number) if tag and number is not None else None


def _tensor(message: bytes) -> float | None:
    """The number of a tensor of one float32 or float64."""
    kind, content = 0, b""
    for field, value in _fields(message):
        if field == 1 and isinstance(value, int):
            kind = value
        elif field in (4, 5, 6) and isinstance(value, bytes):
            content = value
    size = {_FLOAT: 4, _DOUBLE: 8}.get(kind)
    if size is None or len(content) != size:
        return None
    found: float = struct.unpack("<f" if size == 4 else "<d", content)[0]
    return found


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(Field number, varint or bytes) of a protocol buffer message; stops at what is none."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind, number = key & 7, key >> 3
        if kind == 0:
            value, place = _varint(message, place)
            yield number, value
            continue
        if kind == 2:
            length, place = _varint(message, place)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            return
        yield number, message[place : place + length]
        place += length


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(message) and shift < 70:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            break
    return value, place
