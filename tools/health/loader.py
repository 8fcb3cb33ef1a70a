"""Training logs of every kind as telemetry rows."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.health.series import as_number
from mlintern.tools.hub.result_sources import here, locate
from mlintern.tools.ledger import Ledger
from mlintern.tools.telemetry_marks import marked
from mlintern.tools.workspace import Workspace

LARGEST = 64 * 2**20
"""Bytes of a log that are read: its end, if it is longer."""
STEP_NAMES = ("step", "progress/step", "train/global_step", "global_step", "_step")
NOT_METRICS = frozenset({*STEP_NAMES, "epoch", "time", "timestamp", "v", "_timestamp", "_runtime"})

_PRINTED = re.compile(r"\{'[^{}]*\}")
_BARE = re.compile(r"(?<=[:,\s])(-?)(nan|inf)(?=\s*[,}])")
_BAR = re.compile(r"(\d+)/(\d+) \[")


@dataclass(frozen=True)
class TrainingLog:
    """Rows of kind ``metrics``, where they came from, and what to know about them."""

    path: Path
    rows: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)


def load(source: str, *, workspace: Workspace, ledger: Ledger) -> TrainingLog:
    """Read the training log that ``source`` names: a job id, a file, or a folder.

    Raises:
        NotFound: nothing has that name, or there is no training log in it.
        BadInput: the file is broken, or the source is on the Hub.
    """
    found = here(locate(source, workspace=workspace, ledger=ledger))
    if found.job_id is not None:
        for path in (found.path / "output", found.path / "log.txt"):
            if path.exists() and (log := _load_path(path)).rows:
                return log
        raise NotFound(
            f"The job {found.job_id} (state {found.state}) has logged no metrics.",
            next_step="Wait with poll_job until its first logging step, or read its log with read_job_logs.",
        )
    log = _load_path(found.path)
    if not log.rows:
        raise NotFound(
            f"{log.path} holds no training metrics.",
            next_step="Give a trainer_state.json, a metrics.jsonl, or the log of a Trainer that printed its metrics.",
        )
    return log


def _load_path(path: Path) -> TrainingLog:
    if path.is_dir():
        inside = _log_of(path)
        return TrainingLog(path, []) if inside is None else _load_path(inside)
    text, notes = _read(path)
    if path.suffix == ".json":
        rows = _from_json(path, text)
    elif path.suffix == ".jsonl":
        rows = list(_from_lines(text))
    else:
        rows = list(_from_marks(text)) or list(_from_printed(text))
        if rows and not any("step" in row for row in rows):
            notes.append("The log names no steps: steps are counted in logged rows.")
    return TrainingLog(path, rows, notes)


def _log_of(folder: Path) -> Path | None:
    """The fullest log of a run's folder."""
    states = sorted(
        folder.glob("checkpoint-*/trainer_state.json"),
        key=lambda path: as_number(path.parent.name.removeprefix("checkpoint-")) or 0,
    )
    found = [folder / "metrics.jsonl", folder / "trainer_state.json", *states[-1:], *sorted(folder.glob("*.log"))]
    found += [folder / "log.txt", folder / "output" / "metrics.jsonl"]
    return next((path for path in found if path.is_file()), None)


def _read(path: Path) -> tuple[str, list[str]]:
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            file.seek(max(0, size - LARGEST))
            text = file.read().decode("utf-8", errors="replace")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.", next_step="Check its permissions.") from error
    cut = [f"Only the last {LARGEST // 2**20} MiB of the log were read."] if size > LARGEST else []
    return text, cut


def _from_json(path: Path, text: str) -> list[dict[str, Any]]:
    """``trainer_state.json``, or a list of rows under ``steps``, ``log_history``, or by itself."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"{path} is not valid JSON: {error}.", next_step="A checkpoint that was cut off? Use the one before it."
        ) from error
    if isinstance(data, dict):
        data = next(
            (data[key] for key in ("log_history", "steps", "history") if isinstance(data.get(key), list)), None
        )
    if not isinstance(data, list):
        raise BadInput(
            f"{path} has no log_history.", next_step="Give the trainer_state.json of a checkpoint, or the run's log."
        )
    return list(_metrics(entry for entry in data if isinstance(entry, dict)))


def _from_lines(text: str) -> Iterator[dict[str, Any]]:
    """JSON lines: our telemetry, or one flat object a step as other trainers write."""
    yield from _metrics(_objects(text.splitlines()))


def _from_marks(text: str) -> Iterator[dict[str, Any]]:
    """Telemetry rows that the script printed among other output."""
    yield from _metrics(_objects(marked(text.splitlines())))


def _from_printed(text: str) -> Iterator[dict[str, Any]]:
    """Dictionaries that a Trainer printed: floats as numbers or as strings, glued to progress bars or not."""
    for match in _PRINTED.finditer(text):
        try:
            printed = ast.literal_eval(_BARE.sub(r"'\1\2'", match.group()))
        except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two: nested without end
            continue
        if not isinstance(printed, dict) or not {"loss", "eval_loss", "reward", "epoch"} & printed.keys():
            continue
        bars = _BAR.findall(text, max(0, match.start() - 400), match.start())
        if bars and "step" not in printed:
            printed["step"] = int(bars[-1][0])
        yield from _metrics([printed])


def _objects(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if not line.lstrip().startswith("{"):
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):  # the line that a killed script was writing
            continue
        if isinstance(value, dict):
            yield value


def _metrics(entries: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Telemetry rows as they are; flat rows brought into their form."""
    for entry in entries:
        if entry.get("kind") == "metrics" and isinstance(entry.get("values"), dict):
            yield dict(entry)
        elif "kind" not in entry:
            values = {_name(key): value for key, value in entry.items() if _is_metric(key, value)}
            step = next((entry[name] for name in STEP_NAMES if as_number(entry.get(name)) is not None), None)
            if values:
                yield {"kind": "metrics", "values": values} | ({} if step is None else {"step": step})


def _is_metric(key: str, value: Any) -> bool:
    return key not in NOT_METRICS and as_number(value) is not None


def _name(key: str) -> str:
    """Without the prefixes that experiment trackers add: ``eval/loss`` is ``eval_loss``."""
    if key.startswith("eval/"):
        return "eval_" + key.removeprefix("eval/")
    return key.removeprefix("train/")
