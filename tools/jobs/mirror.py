"""A copy of a remote job's log in the job folder, and the telemetry rows rebuilt from its marked lines.

After it, a job that ran elsewhere looks like one that ran here: ``log.txt``, ``output/metrics.jsonl``,
``output/evaluation.json`` and ``output/samples.jsonl``. How far the copy has got is written after the bytes
themselves, and what lies beyond that mark is cut off before going on: a crash in between neither loses a line nor
doubles one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import anyio.to_thread

from mlintern.common.files import exclusive_lock, read_json, write_json_durably
from mlintern.tools.jobs import logged_samples
from mlintern.tools.jobs.backend import Backend
from mlintern.tools.jobs.disk import named_disk_errors
from mlintern.tools.jobs.spec import JobHandle
from mlintern.tools.jobs.telemetry import SAMPLES_KIND, rows_in_log

MAX_CHUNKS = 64
"""Chunks fetched in one go; a poll must come back."""

SAMPLES_BYTES = 16 << 20
"""So far back in what was copied before the pieces of an evaluation's samples are looked for; they take 3 MiB."""

MAX_LINE_BYTES = 16 << 20
"""A longer line is copied, and not looked at for telemetry: it would have to be held in memory, and read again with
every piece that is added to it."""


@dataclass
class _Mark:
    """Bytes of each file that are known to be right, the backend's cursor, and how much of the log was parsed."""

    cursor: str | None = None
    log_bytes: int = 0
    parsed_bytes: int = 0
    rows_bytes: int = 0


async def mirror(backend: Backend, handle: JobHandle, *, folder: Path) -> bool:
    """Fetch what is new in the job's log. Does nothing while another process does.

    Returns:
        Whether everything that the backend has at this moment is here.
    """
    with named_disk_errors(folder), exclusive_lock(folder / "mirror.lock", blocking=False) as ours:
        if not ours:
            return False
        (folder / "output").mkdir(parents=True, exist_ok=True, mode=0o700)
        mark = _read_mark(folder)
        for _ in range(MAX_CHUNKS):
            chunk = await backend.logs(handle, mark.cursor)
            if not chunk.data:
                return True
            mark.cursor = chunk.cursor
            await anyio.to_thread.run_sync(_append, folder, mark, chunk.data)
            if chunk.complete:
                return True
        return False


def _append(folder: Path, mark: _Mark, data: bytes) -> None:
    mark.log_bytes = _write_at(folder / "log.txt", mark.log_bytes, data)
    with (folder / "log.txt").open("rb") as file:
        file.seek(mark.parsed_bytes)
        unparsed = file.read(mark.log_bytes - mark.parsed_bytes)
    whole = unparsed[: unparsed.rfind(b"\n") + 1]
    rows = list(rows_in_log(whole.decode(errors="replace")))
    lines = "".join(json.dumps(row) + "\n" for row in rows if row["kind"] != SAMPLES_KIND).encode()
    mark.rows_bytes = _write_at(folder / "output" / "metrics.jsonl", mark.rows_bytes, lines)
    start = mark.parsed_bytes
    mark.parsed_bytes += len(whole) if whole or len(unparsed) <= MAX_LINE_BYTES else len(unparsed)
    for row in rows:
        if row["kind"] == "evaluation" and isinstance(row.get("evaluation"), dict):
            _keep_evaluation(folder, row, chain(_rows_before(folder, start), rows))
    write_json_durably(folder / "mirror.json", asdict(mark))


def _keep_evaluation(folder: Path, row: dict[str, Any], rows: Iterable[dict[str, Any]]) -> None:
    """``evaluation.json``, after its samples. Where they did not come it says why.

    Of several models in one job each has the folder that its row names.
    """
    evaluation: dict[str, Any] = row["evaluation"]
    named = re.fullmatch(r"(candidates/\d{1,3})/evaluation\.json", str(row.get("path")))
    output = folder / "output" / named[1] if named else folder / "output"
    output.mkdir(parents=True, exist_ok=True)
    why = logged_samples.restore(output / "samples.jsonl", printed=row.get("samples"), rows=rows)
    if why and "samples" in evaluation:
        evaluation = {**evaluation, "samples_missing": why}
    write_json_durably(output / "evaluation.json", evaluation)


def _rows_before(folder: Path, position: int) -> Iterator[dict[str, Any]]:
    """Telemetry rows in the part of the log that ends at ``position``, as far as pieces may lie back."""
    with (folder / "log.txt").open("rb") as file:
        file.seek(max(0, position - SAMPLES_BYTES))
        text = file.read(position - file.tell()).decode(errors="replace")
    yield from rows_in_log(text)


def _write_at(path: Path, position: int, data: bytes) -> int:
    """Write ``data`` at ``position``, the end of what is known to be right. Returns the new end."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(position)
        file.seek(position)
        file.write(data)
    return position + len(data)


def _read_mark(folder: Path) -> _Mark:
    found = read_json(folder / "mirror.json")
    return _Mark() if found is None else _Mark(**found)
