"""Files of results: opened once, hashed, parsed, with every complaint naming the file and the key."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.evals.result_rows import EvalProblem, EvalRow
from mlintern.tools.evals.yaml_files import CARD, YAML, card_metadata, parse_yaml

LARGEST_JSON = 256 * 2**20
"""Bytes. A result file is small; only a log with every transcript gets near this."""

LARGEST_SCORE = 1e100
"""A score beyond is a computation that ran over; sums and squares of smaller ones stay finite."""

ARCHIVE = b"PK"
LINES = (".jsonl", ".txt", ".log")


@dataclass(frozen=True)
class ResultFile:
    """A file that may hold results. ``data`` is its parsed JSON or YAML; None for archives and JSON lines."""

    path: Path
    sha256: str
    data: Any


@dataclass(frozen=True)
class Reading:
    """What a reader made of a file."""

    rows: list[EvalRow] = field(default_factory=list)
    problems: list[EvalProblem] = field(default_factory=list)


class Reader(Protocol):
    """One harness's format. A module with these names is one."""

    SUITE: str

    def matches(self, file: ResultFile) -> bool:
        """Whether the file is of this format, by its content, not its name."""
        ...

    def read(self, file: ResultFile) -> Reading:
        """Its rows, and what in it is no result. Raises BadInput where nothing in it can be trusted."""
        ...

    def samples(self, file: ResultFile, row: EvalRow) -> dict[str, float] | None:
        """Score of each item by a stable id, for a row of this file; None where the harness kept none."""
        ...


def open_result(path: Path) -> ResultFile:
    """Read and hash ``path``; parse it if it is JSON, YAML or a model card.

    Raises:
        NotFound: there is no such file.
        BadInput: it cannot be read, is too large, or is malformed (says the line).
    """
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            is_document = path.suffix not in LINES and file.read(2) != ARCHIVE
            file.seek(0)
            if not is_document:
                return ResultFile(path=path, sha256=sha256, data=None)
            raw = file.read(LARGEST_JSON + 1)
    except FileNotFoundError as error:
        raise NotFound(
            f"There is no file {path}.", next_step="Check the path; list the folder it should be in."
        ) from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.", next_step="Check its permissions.") from error
    if len(raw) > LARGEST_JSON:
        raise BadInput(
            f"{path} is larger than {LARGEST_JSON // 2**20} MiB.",
            next_step="Point at the harness's results file (results_*.json, *.eval), not at its transcripts.",
        )
    parse = parse_yaml if path.suffix in YAML else card_metadata if path.suffix == CARD else parse_json
    return ResultFile(path=path, sha256=sha256, data=parse(raw, path))


def parse_json(raw: bytes, where: Path | str) -> Any:
    """Parse JSON as harnesses write it: bare NaN and Infinity are let through, for the reader to name.

    Raises:
        BadInput: it is not UTF-8 JSON; says where it breaks.
    """
    try:
        return json.loads(raw)
    except UnicodeDecodeError as error:
        raise BadInput(f"{where} is not UTF-8 text.", next_step="Is it the right file?") from error
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{where} is not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}.",
            next_step="If the evaluation was interrupted while it wrote the file, run it again.",
        ) from error
    except RecursionError as error:
        raise BadInput(
            f"{where} is nested too deeply to be a result file.", next_step="Is it the right file?"
        ) from error
    except ValueError as error:  # Python reads no integer of more than 4,300 digits
        raise BadInput(f"{where} holds a number that is too long.", next_step="Is it the right file?") from error


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a JSON-lines file, one at a time.

    Raises:
        NotFound: there is no such file.
        BadInput: a line is not a JSON object; says which.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                value = parse_json(line, f"{path} line {number}")
                if not isinstance(value, dict):
                    raise BadInput(f"{path} line {number} is no JSON object.", next_step="Write one object a line.")
                yield value
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {path}.", next_step="Keep the samples beside the result file.") from error


def number(value: Any) -> float | None:
    """``value`` as a float if it is a number (NaN and infinities included), else None. True is no number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer that no float can hold
        return math.inf if value > 0 else -math.inf


def finite(value: Any) -> float | None:
    """``value`` as a float if it is a finite number of a size that can be computed with, else None."""
    found = number(value)
    return found if found is not None and abs(found) <= LARGEST_SCORE else None


def whole(value: Any, *, least: int = 0) -> int | None:
    """``value`` as an int if it is a whole number of at least ``least``, else None."""
    found = finite(value)
    return int(found) if found is not None and found == int(found) and found >= least else None


def mapping(value: Any) -> dict[str, Any]:
    """``value`` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def listed(value: Any) -> list[Any]:
    """``value`` if it is a JSON array, else an empty one."""
    return value if isinstance(value, list) else []


def not_finite(file: ResultFile, key: str, value: Any) -> EvalProblem:
    """The complaint about a score that is no finite number."""
    return EvalProblem(
        source=str(file.path),
        key=key,
        message=f"The score is {value!r:.40}, not a finite number.",
        next_step="Look at the samples of this task for empty answers or failed generations, then evaluate again.",
    )
