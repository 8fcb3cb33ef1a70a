"""The samples of an evaluation that ran elsewhere, put together from the pieces in its job's log.

The evaluation script prints ``samples.jsonl`` (one row an item) as gzip in base64, in rows of ``sha256``, ``pieces``
(how many), ``piece`` (its number) and ``data``, and then says in its evaluation row what it printed. The hash is that
of the file, so what is put together is the very file or nothing: no piece may be missing, and none damaged. Pieces
may come several times and in any order, and those of another evaluation may stand between them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlintern.common.files import write_durably
from mlintern.tools.jobs.telemetry import SAMPLES_KIND

MOST_BYTES = 1 << 28
"""Of a file of samples. The script keeps to it; a log that unpacks to more was not written by it."""

MOST_PIECES = 4096


class Printed(BaseModel):
    """What an evaluation row says of its samples.

    ``form`` is ``whole``, or ``scores`` where only ids and scores were small enough to print, or ``none`` where not
    even those were.
    """

    model_config = ConfigDict(frozen=True)

    form: Literal["whole", "scores", "none"]
    rows: int = Field(ge=0)
    sha256: str = ""
    pieces: int = Field(default=0, ge=0, le=MOST_PIECES)


def restore(path: Path, *, printed: object, rows: Iterable[Mapping[str, Any]]) -> str:
    """Make ``path`` the samples of an evaluation, or remove it: those of another one must not pass for them.

    Args:
        printed: what the evaluation row says under ``samples``.
        rows: telemetry rows of the log, those of kind ``samples`` among them.

    Returns:
        Why there are none now; empty if ``path`` holds them all.
    """
    try:
        told = Printed.model_validate(printed)
    except ValidationError:
        path.unlink(missing_ok=True)
        return "the script did not print its samples"
    if told.form != "none" and _is(path, told.sha256):  # a log that came a second time, perhaps without its pieces
        return ""
    found = _unpack(told, rows)
    if isinstance(found, str):
        path.unlink(missing_ok=True)
        return found
    write_durably(path, found)
    return ""


def _is(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False


def _unpack(told: Printed, rows: Iterable[Mapping[str, Any]]) -> bytes | str:
    """The content of the file, or why it cannot be had."""
    if told.form == "none":
        return f"{told.rows} samples were too large to print"
    pieces = {
        row["piece"]: row["data"]
        for row in rows
        if row["kind"] == SAMPLES_KIND
        and row.get("sha256") == told.sha256
        and isinstance(row.get("piece"), int)
        and isinstance(row.get("data"), str)
    }
    missing = sum(number not in pieces for number in range(told.pieces))
    if missing:
        return f"{missing} of the {told.pieces} pieces that hold the samples are missing in the log"
    try:
        packed = b"".join(base64.b64decode(pieces[number], validate=True) for number in range(told.pieces))
        content = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(packed, MOST_BYTES)
    except (binascii.Error, ValueError, zlib.error):
        content = b""
    if hashlib.sha256(content).hexdigest() != told.sha256:
        return "the samples were damaged on their way through the log"
    return content
