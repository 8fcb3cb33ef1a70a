"""Measurements recounted from files: every item's answer against the item, every score against its answer."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.tools.errors import BadInput


@dataclass(frozen=True)
class Samples:
    """What a measurement answered: scores by item, and the SHA-256 of the file."""

    scores: dict[str, float]
    sha256: str


def file_sha256(path: Path) -> str:
    """Of a file's content.

    Raises:
        BadInput: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.", next_step="Restore it.") from error
    return digest.hexdigest()


def read_samples(path: Path, metric: str) -> tuple[Samples, list[str]]:
    """The scores in ``samples.jsonl``, and what does not agree within it: a score that its answer does not earn.

    Raises:
        BadInput: the file is gone or broken.
    """
    scores: dict[str, float] = {}
    problems: list[str] = []
    for number, row in _rows(path):
        item, score = str(row.get("id")), row.get(metric)
        if not isinstance(score, int | float) or isinstance(score, bool) or not math.isfinite(score):
            raise BadInput(f"{path}, line {number}: no score {metric!r}.", next_step="Measure again.")
        scores[item] = float(score)
        if metric == "accuracy" and {"prediction", "target"} <= row.keys():
            earned = float(row["prediction"] == row["target"])
            if earned != score:
                problems.append(f"item {item}: scored {score:g}, but its answer earns {earned:g}")
    return Samples(scores, file_sha256(path)), problems


def read_ids(path: Path, id_column: str) -> set[str]:
    """The ids of a half.

    Raises:
        BadInput: the file is gone or broken.
    """
    return {str(row[id_column]) for _, row in _rows(path) if id_column in row}


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                row = json.loads(line)
                if not isinstance(row, Mapping):
                    raise ValueError("no object")
                yield number, row
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}.", next_step="Restore it, or measure again.") from error
