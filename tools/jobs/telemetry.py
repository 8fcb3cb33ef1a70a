"""The rows that a training script reports, read as they come: from ``metrics.jsonl`` or from marked log lines."""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlintern.common.files import open_regular
from mlintern.tools.health.series import CurveBuilder
from mlintern.tools.jobs import measured
from mlintern.tools.jobs.job_results import Progress
from mlintern.tools.telemetry_marks import marked

SAMPLES_KIND = "samples"
"""Rows of this kind are only printed, each with a piece of an evaluation's samples: see `samples.py`."""

RECENT_STEPS = 20
"""Metrics rows that the pace is taken from."""
_CHUNK_BYTES = 1 << 20
MAX_ROW_BYTES = 64 << 20
"""A longer line is no row. An evaluation of ten thousand items takes a few megabytes."""
MAX_METRICS = 1_000
MAX_CHECKPOINTS = 10_000
MAX_TEXT = 500
"""Characters of a metric that is no number."""
MAX_PATH = 4096
_MAX_DEPTH = 32
_MAX_INTEGER = 2**63 - 1


def rows_in_log(text: str) -> Iterator[dict[str, Any]]:
    """The telemetry rows among the lines of a log, also where a progress bar stands before one on the same line."""
    for payload in marked(text.replace("\r", "\n").split("\n")):
        if (row := parse_row(payload)) is not None:
            yield row


def parse_row(text: str | bytes) -> dict[str, Any] | None:
    """One row, or None for anything that is not one: a torn line, other JSON, a row of an unknown version.

    A script may print anything. What comes out here can be written as JSON again: numbers that are not finite are the
    words "NaN", "Infinity" and "-Infinity", as the rendered scripts write them, and half characters are replaced.
    """
    try:
        row = _plain(json.loads(text), depth=0)
    except (ValueError, RecursionError):  # nested without end too
        return None
    if isinstance(row, dict) and row.get("v") == 1 and isinstance(row.get("kind"), str):
        return row
    return None


def _plain(value: Any, *, depth: int) -> Any:
    """``value`` as strict JSON can hold it. Raises ValueError if it is nested deeper than any row of ours."""
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    match value:
        case dict():
            return {_plain(key, depth=depth + 1): _plain(item, depth=depth + 1) for key, item in value.items()}
        case list():
            return [_plain(item, depth=depth + 1) for item in value]
        case str():
            return value if value.isascii() else value.encode(errors="replace").decode()
        case int() if abs(value) > _MAX_INTEGER:
            return _plain(float(str(value)), depth=depth)
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    return value


class Telemetry:
    """The digest of a job's rows. Holds the latest values and `curves` of bounded length, not the rows.

    Call `update` as often as you like; it reads only what was appended since. A line without its newline is still
    being written and is read the next time. A file that became shorter was written anew and is read from the start.
    """

    def __init__(self, path: Path, *, within: Path | None = None, clean: Callable[[str], str] = str) -> None:
        """``within``: a link that leads out of this folder is not followed. ``clean`` takes the secrets out of a text
        that a script reports as a value or a path.
        """
        self.path = path
        self._within = within
        self._clean = clean
        self._forget()

    def _forget(self) -> None:
        self._position = 0
        self._torn = b""
        self._too_long = False
        self.rows_read = 0
        self.curves = CurveBuilder()
        self.metrics: dict[str, float | str] = {}
        self.step = 0
        self.total_steps: int | None = None
        self.evaluations: list[dict[str, Any]] = []
        self.checkpoints: list[str] = []
        self.model_path: str | None = None
        self.measured: dict[str, float] = {}
        self._pace: deque[tuple[float, int]] = deque(maxlen=RECENT_STEPS)

    def update(self) -> bool:
        """Read what is new. True if there were rows."""
        before = self.rows_read
        descriptor = open_regular(self.path, within=self._within)
        if descriptor is None:
            return False
        with os.fdopen(descriptor, "rb") as file:
            if file.seek(0, 2) < self._position:
                self._forget()
                before = 0
            file.seek(self._position)
            while chunk := file.read(_CHUNK_BYTES):
                self._position += len(chunk)
                self._take(chunk)
        return self.rows_read > before

    @property
    def progress(self) -> Progress | None:
        """Steps done and the time left at the pace of the latest rows; None before the first row."""
        if self.total_steps is None and self.step == 0:
            return None
        return Progress(step=self.step, total=self.total_steps, eta_seconds=self._eta())

    def _eta(self) -> float | None:
        if self.total_steps is None or len(self._pace) < 2:
            return None
        (first_time, first_step), (last_time, last_step) = self._pace[0], self._pace[-1]
        if last_step <= first_step or last_time <= first_time:  # a resumed run, or a clock that was set back
            return None
        left = max(0, self.total_steps - last_step)
        eta = left * (last_time - first_time) / (last_step - first_step)
        return round(eta, 1) if math.isfinite(eta) else None

    def _take(self, chunk: bytes) -> None:
        *lines, self._torn = (self._torn + chunk).split(b"\n")
        for line in lines:
            row = None if self._too_long else parse_row(line)
            self._too_long = False
            if row is not None:
                self.rows_read += 1
                self._digest(row)
        if len(self._torn) > MAX_ROW_BYTES:
            self._torn, self._too_long = b"", True

    def _digest(self, row: dict[str, Any]) -> None:
        kind = row["kind"]
        self.curves.add(row)
        if isinstance(total := row.get("total_steps"), int):
            self.total_steps = total
        if isinstance(step := row.get("step"), int):
            self.step = step
        if kind == "metrics" and isinstance(values := row.get("values"), dict):
            for name, value in values.items():
                if isinstance(value, int | float | str) and (name in self.metrics or len(self.metrics) < MAX_METRICS):
                    self.metrics[name[:MAX_TEXT]] = self._short(value) if isinstance(value, str) else value
            if isinstance(moment := row.get("time"), int | float):
                self._pace.append((float(moment), self.step))
        elif kind == "checkpoint" and isinstance(path := row.get("path"), str):
            self.checkpoints = [*self.checkpoints[1 - MAX_CHECKPOINTS :], self._short(path, MAX_PATH)]
        elif kind == "evaluation" and isinstance(evaluation := row.get("evaluation"), dict):
            self.evaluations.append(evaluation)
        elif kind == "measured":
            self.measured = measured.numbers(row)
        elif kind == "end" and isinstance(path := row.get("model_path"), str):
            self.model_path = self._short(path, MAX_PATH)

    def _short(self, text: str, limit: int = MAX_TEXT) -> str:
        return self._clean(text[: 2 * limit])[:limit]  # a secret is seen before it is cut


def evaluation_rows(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """The short form of one evaluation: task, metric, filter, value, stderr and n of each of its rows."""
    kept = ("metric", "filter", "value", "stderr", "n")
    rows = evaluation.get("rows")
    if not isinstance(rows, list):
        return []
    return [
        {"task": evaluation.get("task"), "model": evaluation.get("model"), **{name: row.get(name) for name in kept}}
        for row in rows
        if isinstance(row, dict)
    ]
