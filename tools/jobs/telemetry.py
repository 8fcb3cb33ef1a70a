"""The rows that a training script reports, read as they come: from ``metrics.jsonl`` or from marked log lines."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlintern.tools.jobs.results import Progress
from mlintern.tools.marks import marked

RECENT_STEPS = 20
"""Metrics rows that the pace is taken from."""
_CHUNK_BYTES = 1 << 20


def rows_in_log(text: str) -> Iterator[dict[str, Any]]:
    """The telemetry rows among the lines of a log, also where a progress bar stands before one on the same line."""
    for payload in marked(text.replace("\r", "\n").split("\n")):
        if (row := parse_row(payload)) is not None:
            yield row


def parse_row(text: str | bytes) -> dict[str, Any] | None:
    """One row, or None for anything that is not one: a torn line, other JSON, a row of an unknown version."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):  # a script may print anything, nested without end too
        return None
    if isinstance(row, dict) and row.get("v") == 1 and isinstance(row.get("kind"), str):
        return row
    return None


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """All rows of a ``metrics.jsonl`` that are complete; nothing where there is no file."""
    try:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n") and (row := parse_row(line)) is not None:
                    yield row
    except (FileNotFoundError, NotADirectoryError):
        return


class Telemetry:
    """The digest of a job's rows. Holds the latest values, not the rows: memory does not grow with the run.

    Call `update` as often as you like; it reads only what was appended since. A line without its newline is still
    being written and is read the next time. A file that became shorter was written anew and is read from the start.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self._position = 0
        self._torn = b""
        self.rows_read = 0
        self.metrics: dict[str, float | str] = {}
        self.step = 0
        self.total_steps: int | None = None
        self.evaluations: list[dict[str, Any]] = []
        self.checkpoints: list[str] = []
        self.model_path: str | None = None
        self._pace: deque[tuple[float, int]] = deque(maxlen=RECENT_STEPS)

    def update(self) -> bool:
        """Read what is new. True if there were rows."""
        before = self.rows_read
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self._position:
                    self._forget()
                    before = 0
                file.seek(self._position)
                while chunk := file.read(_CHUNK_BYTES):
                    self._position += len(chunk)
                    self._take(chunk)
        except (FileNotFoundError, NotADirectoryError):
            return False
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
        return round(left * (last_time - first_time) / (last_step - first_step), 1)

    def _take(self, chunk: bytes) -> None:
        *lines, self._torn = (self._torn + chunk).split(b"\n")
        for line in lines:
            row = parse_row(line)
            if row is not None:
                self.rows_read += 1
                self._digest(row)

    def _digest(self, row: dict[str, Any]) -> None:
        kind = row["kind"]
        if isinstance(total := row.get("total_steps"), int):
            self.total_steps = total
        if isinstance(step := row.get("step"), int):
            self.step = step
        if kind == "metrics" and isinstance(values := row.get("values"), dict):
            self.metrics.update(
                {name: value for name, value in values.items() if isinstance(value, int | float | str)}
            )
            if isinstance(moment := row.get("time"), int | float):
                self._pace.append((float(moment), self.step))
        elif kind == "checkpoint" and isinstance(path := row.get("path"), str):
            self.checkpoints.append(path)
        elif kind == "evaluation" and isinstance(evaluation := row.get("evaluation"), dict):
            self.evaluations.append(evaluation)
        elif kind == "end" and isinstance(path := row.get("model_path"), str):
            self.model_path = path


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
