"""Files of results: opened once, hashed, parsed, with every complaint naming the file and the key."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mlintern.common.files import open_regular
from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.evals.archives import digest_of_directory
from mlintern.tools.evals.names import canonical_task, direction
from mlintern.tools.evals.protocol import fingerprint
from mlintern.tools.evals.result_rows import EvalProblem, EvalRow, Sample, finished
from mlintern.tools.evals.yaml_files import CARD, YAML, card_metadata, parse_yaml

LARGEST_FILE = 8 * 2**30
"""Bytes of an archive or of lines, which are not read as a whole."""
LARGEST_JSON = 256 * 2**20
"""Bytes. A result file is small; only a log with every transcript gets near this."""

HASHED_WHOLE = 64 * 2**20
"""Bytes of an archive up to which all of it is hashed; of a larger one its directory, which holds a checksum of every
member, since hashing 500 MB takes longer than all else that is read of them."""
ARCHIVE = b"PK"
LINES = (".jsonl", ".txt", ".log")


@dataclass(frozen=True)
class ResultFile:
    """A file that may hold results. ``data`` is its parsed JSON, YAML or CSV; None for archives and JSON lines."""

    path: Path
    sha256: str
    data: Any

    def row(self, *, suite: str, task_raw: str, metric: str, value: float, **more: Any) -> EvalRow:
        """A row of this file. ``task`` and ``higher_is_better`` come from the names, where ``more`` does not say."""
        better = more.pop("higher_is_better", None)
        protocol = more.pop("protocol", {})
        return EvalRow(
            suite=suite,
            task=more.pop("task", None) or canonical_task(task_raw),
            task_raw=task_raw,
            metric=metric,
            value=value,
            higher_is_better=direction(metric) if better is None else better,
            source=str(self.path),
            sha256=self.sha256,
            protocol=protocol,
            fingerprint=fingerprint(protocol),
            **more,
        )

    def problem(self, key: str, message: str, next_step: str = "") -> EvalProblem:
        """Something at ``key`` of this file that is no result."""
        return EvalProblem(source=str(self.path), key=key, message=message, next_step=next_step)

    def not_finite(self, key: str, value: Any) -> EvalProblem:
        """The score at ``key`` is no finite number."""
        return self.problem(
            key,
            f"The score is {value!r:.40}, not a finite number.",
            "Look at the samples of this task for empty answers or failed generations, then evaluate again.",
        )


@dataclass(frozen=True)
class Reading:
    """What a reader made of a file."""

    rows: list[EvalRow] = field(default_factory=list)
    problems: list[EvalProblem] = field(default_factory=list)

    @classmethod
    def of(cls, found: Iterable[EvalRow | EvalProblem]) -> Reading:
        """Rows, brought to one scale with their standard errors, and problems, each in their order."""
        entries = list(found)
        rows = finished(entry for entry in entries if isinstance(entry, EvalRow))
        return cls(rows=rows, problems=[entry for entry in entries if isinstance(entry, EvalProblem)])


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

    def items(self, file: ResultFile, row: EvalRow) -> list[Sample] | None:
        """What was asked and answered, item by item, under the ids of `samples`; None where it was not kept."""
        ...


def open_result(path: Path) -> ResultFile:
    """Read and hash ``path``; parse it if it is JSON, YAML or a model card.

    Raises:
        NotFound: there is no such file.
        BadInput: it cannot be read, is too large, or is malformed (says the line).
    """
    try:
        descriptor = open_regular(path)
        if descriptor is None:
            raise FileNotFoundError
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(descriptor).st_size > LARGEST_FILE:
                raise BadInput(
                    f"{path} is larger than {LARGEST_FILE >> 30} GiB.", next_step="Give the results alone."
                )
            archive = file.read(2) == ARCHIVE
            file.seek(0)
            large = archive and os.fstat(descriptor).st_size > HASHED_WHOLE
            sha256 = (large and digest_of_directory(path)) or hashlib.file_digest(file, "sha256").hexdigest()
            is_document = path.suffix not in LINES and not archive
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
    parse = _PARSERS.get(path.suffix, parse_json)
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


def parse_csv(raw: bytes, where: Path | str) -> Any:
    """The cells of a CSV file, by row; rows without any are left out.

    Raises:
        BadInput: it is not CSV.
    """
    try:
        return [row for row in csv.reader(io.StringIO(raw.decode("utf-8-sig", "replace"))) if row]
    except csv.Error as error:
        raise BadInput(f"{where} is not CSV: {error}.", next_step="Is it the right file?") from error


_PARSERS: Mapping[str, Callable[[bytes, Path | str], Any]] = {
    **dict.fromkeys(YAML, parse_yaml),
    CARD: card_metadata,
    ".csv": parse_csv,
}
"""By suffix; anything else is JSON."""
