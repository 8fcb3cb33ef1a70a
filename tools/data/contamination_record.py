"""Contamination checks that were made, remembered for reports: a small file each in the workspace."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, ValidationError

from mlintern.common.clock import iso
from mlintern.common.files import write_durably
from mlintern.tools.data.inspection_results import ContaminationResult
from mlintern.tools.workspace import Workspace

FOLDER = "contamination"
MOST_BYTES = 100_000


class ContaminationRecord(BaseModel):
    """What one check found. ``made``: UTC, ISO 8601."""

    train: str
    evaluation: str
    train_rows: int
    evaluation_rows: int
    flagged: int
    rate: float
    partial: bool = False
    made: str


def remember(workspace: Workspace, result: ContaminationResult, *, train: str, evaluation: str, now: float) -> None:
    """Keep the latest check of a pair."""
    record = ContaminationRecord(
        train=train,
        evaluation=evaluation,
        train_rows=result.train_rows,
        evaluation_rows=result.evaluation_rows,
        flagged=result.flagged,
        rate=result.rate,
        partial=bool(result.partial),
        made=iso(now),
    )
    name = hashlib.sha256(f"{train}\n{evaluation}".encode()).hexdigest()[:16]
    write_durably(workspace.folder(FOLDER) / f"{name}.json", record.model_dump_json(indent=1).encode())


def remembered(workspace: Workspace, *, used: str) -> list[ContaminationRecord]:
    """The checks whose training or evaluation data stands in ``used`` (the recipes of some runs as text)."""
    found = []
    for path in sorted((workspace.root / FOLDER).glob("*.json")):
        if path.stat().st_size > MOST_BYTES:
            continue
        try:
            record = ContaminationRecord.model_validate_json(path.read_bytes())
        except ValidationError:  # written by another version: not a check that can be told of
            continue
        if record.train in used or record.evaluation in used:
            found.append(record)
    return found
