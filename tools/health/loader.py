"""Training logs of every kind as telemetry rows, in the order in which they were logged."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.folders import files_below
from mlintern.tools.health.crashes import find_crash
from mlintern.tools.health.flat_rows import columns_as_rows, of_one_run, telemetry_rows
from mlintern.tools.health.notebooks import read_notebook
from mlintern.tools.health.printed_logs import marked_rows, read_printed
from mlintern.tools.health.series import as_number
from mlintern.tools.health.tensorboard import scalars
from mlintern.tools.hub.result_sources import Source, here, locate
from mlintern.tools.ledger import Ledger
from mlintern.tools.telemetry_marks import marked
from mlintern.tools.workspace import Workspace

LARGEST = 64 * 2**20
"""Bytes of a log that are read: its end, if it is longer."""
HISTORIES = ("log_history", "raw_log_history", "steps", "history", "logs", "metrics", "rows", "records")
EVENTS = "*tfevents*"


@dataclass(frozen=True)
class TrainingLog:
    """Rows of kind ``metrics`` and, where the script failed, ``crash``; where they came from; what to know."""

    path: Path
    rows: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)


def load(source: str, *, workspace: Workspace, ledger: Ledger) -> TrainingLog:
    """Read the training log that ``source`` names: a job id, a file, or a folder.

    Raises:
        NotFound: nothing has that name, or there is no training log in it.
        BadInput: the file is broken, or the source is on the Hub.
    """
    return load_found(here(locate(source, workspace=workspace, ledger=ledger)))


def load_found(found: Source) -> TrainingLog:
    """Read the training log in a file, a folder or a job's folder; errors as `load`."""
    if found.job_id is None:
        log = _load_path(found.path)
        if not log.rows:
            raise NotFound(
                f"{log.path} holds no training metrics.",
                next_step="Give a trainer_state.json, a metrics.jsonl, TensorBoard's events, an export of wandb or "
                "trackio (CSV, JSON, parquet), or the log of a trainer that printed its metrics.",
            )
        return log
    return _load_job(found.path, found.job_id, found.state)


def _load_job(folder: Path, job_id: str, state: str | None) -> TrainingLog:
    for path in (folder / "output", folder / "log.txt"):
        if path.exists() and (log := _load_path(path)).rows:
            if path.name == "output" and (folder / "log.txt").is_file():
                printed = read_printed(_read(folder / "log.txt")[0].decode("utf-8", errors="replace"))
                log.rows.extend(row for row in printed.rows if row["kind"] == "crash")
            return log
    raise NotFound(
        f"The job {job_id} (state {state}) has logged no metrics.",
        next_step="Wait with poll_job until its first logging step, or read its log with read_job_logs.",
    )


def _load_path(path: Path) -> TrainingLog:
    if path.is_dir():
        inside = _log_of(path)
        return TrainingLog(path, []) if inside is None else _load_path(inside)
    if path.suffix == ".parquet":
        table, notes = of_one_run(_from_parquet(path))
        return TrainingLog(path, list(telemetry_rows(table)), notes)
    data, notes = _read(path)
    if "tfevents" in path.name:
        return TrainingLog(path, list(telemetry_rows(scalars(data))), notes)
    text = data.decode("utf-8", errors="replace")
    reader = READERS.get(path.suffix)
    if reader is not None:
        rows, more = reader(path, text)
    else:
        rows, more = _from_log(text)
    if not rows and path.suffix == ".jsonl":
        rows, more = _from_log(text)
    return TrainingLog(path, rows, notes + more)


def _log_of(folder: Path) -> Path | None:
    """The fullest log of a run's folder."""
    states = sorted(
        folder.glob("checkpoint-*/trainer_state.json"),
        key=lambda path: as_number(path.parent.name.removeprefix("checkpoint-")) or 0,
    )
    found = [folder / "metrics.jsonl", folder / "trainer_state.json", folder / "trainer_log.jsonl", *states[-1:]]
    found += [folder / "logging.jsonl", *sorted(folder.glob("*.log")), folder / "log.txt"]
    found += [
        folder / "output" / "metrics.jsonl",
        *[path for path in files_below(folder) if path.match(EVENTS)][-1:],
        *sorted(folder.glob("*.csv")),
    ]
    found += sorted(folder.glob("*.ipynb"))
    return next((path for path in found if path.is_file()), None)


def _read(path: Path) -> tuple[bytes, list[str]]:
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            file.seek(max(0, size - LARGEST))
            data = file.read()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.", next_step="Check its permissions.") from error
    cut = [f"Only the last {LARGEST // 2**20} MiB of the log were read."] if size > LARGEST else []
    return data, cut


def _from_json(path: Path, text: str) -> tuple[list[dict[str, Any]], list[str]]:
    """``trainer_state.json``, or rows or columns under ``log_history``, ``steps`` and their like."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        rows = list(telemetry_rows(marked_rows(iter(text.splitlines()))))
        if len(rows) > 1:
            return rows, []
        raise BadInput(
            f"{path} is not valid JSON: {error}.", next_step="A checkpoint that was cut off? Use the one before it."
        ) from error
    history = _history(data)
    if history is None:
        raise BadInput(
            f"{path} has no log_history.", next_step="Give the trainer_state.json of a checkpoint, or the run's log."
        )
    entries, notes = of_one_run(entry for entry in history if isinstance(entry, dict))
    rows = list(telemetry_rows(entries))
    total = as_number(data.get("max_steps")) if isinstance(data, dict) else None
    if rows and total:
        rows[-1].setdefault("total_steps", total)
    return rows, notes


def _history(data: Any) -> list[Any] | None:
    if isinstance(data, list):
        return data
    if not isinstance(data, dict) or "mlintern_evaluation" in data:
        return None
    found = next((data[key] for key in HISTORIES if isinstance(data.get(key), list)), None)
    if found is not None:
        return list(found)
    for inside in (data, *(data[key] for key in HISTORIES if isinstance(data.get(key), dict))):
        if rows := columns_as_rows(inside):
            return list(rows)
    return None


def _from_lines(path: Path, text: str) -> tuple[list[dict[str, Any]], list[str]]:
    """JSON lines: our telemetry, or one object a step as other trainers write; and the crash behind them."""
    entries, notes = of_one_run(marked_rows(iter(text.splitlines())))
    rows = list(telemetry_rows(entries))
    if rows and (crash := find_crash(text, after=text.rfind("}\n") + 1)) is not None:
        rows.append({"kind": "crash", "cause": crash[0], "line": crash[1]})
    return rows, notes


def _from_notebook(path: Path, text: str) -> tuple[list[dict[str, Any]], list[str]]:
    try:
        printed = read_notebook(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not valid JSON: {error}.", next_step="Save the notebook again.") from error
    return printed.rows, printed.notes


def _from_csv(path: Path, text: str) -> tuple[list[dict[str, Any]], list[str]]:
    """An export of wandb, trackio or a CSV logger; of columns ``RUN - metric`` those of the first run."""
    csv.field_size_limit(2**24)
    try:
        table = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix == ".tsv" else ","))
    except csv.Error as error:
        raise BadInput(f"{path} is not a CSV file: {error}.", next_step="Export it again.") from error
    names = [name for name in (table[0] if table else {}) if name]
    runs = list(dict.fromkeys(name.split(" - ", 1)[0] for name in names if " - " in name))
    notes = [f"The export holds {len(runs)} runs; {runs[0]} is read."] if len(runs) > 1 else []
    entries, more = of_one_run(_one_run(table, runs[:1]))
    return list(telemetry_rows(entries)), notes + more


def _one_run(table: Iterable[dict[str, Any]], runs: list[str]) -> Iterator[dict[str, Any]]:
    prefix = f"{runs[0]} - " if runs else ""
    for line in table:
        yield {
            name.removeprefix(prefix): value
            for name, value in line.items()
            if name and not re.search(r"__(?:MIN|MAX)$", name) and (" - " not in name or name.startswith(prefix))
        }


def _from_parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(f"{path} is not readable as parquet: {error}.", next_step="Export it again.") from error
    return rows


def _from_log(text: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Marked telemetry among other output, else what the trainer printed, else JSON lines; and the crash."""
    printed = read_printed(text)
    rows = list(telemetry_rows(marked_rows(marked(text.replace("\r", "\n").split("\n")))))
    if rows:
        return rows + [row for row in printed.rows if row["kind"] == "crash"], []
    if any(row["kind"] == "metrics" for row in printed.rows):
        return printed.rows, printed.notes
    rows = list(telemetry_rows(marked_rows(iter(text.splitlines()))))
    return rows + printed.rows, printed.notes


Reader = Callable[[Path, str], tuple[list[dict[str, Any]], list[str]]]
READERS: dict[str, Reader] = {
    ".json": _from_json,
    ".ipynb": _from_notebook,
    ".jsonl": _from_lines,
    ".ndjson": _from_lines,
    ".csv": _from_csv,
    ".tsv": _from_csv,
}
