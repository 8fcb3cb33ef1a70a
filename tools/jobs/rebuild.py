"""Jobs and their money put back into a new ledger from the folders of the jobs, when the old ledger is gone.

A folder holds the specification of its job (``spec.json``) and, once it is over, what the ledger recorded of its end
(``ended.json``). A job without an end becomes an intent that may have been sent: its backend is asked at the next
look, as after a crash, and what it may cost is reserved again. Questions, scores, and the names of scripts are lost.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from mlintern.common.files import read_json, write_json_durably
from mlintern.tools.jobs import job_rows, money
from mlintern.tools.jobs.job_rows import JobRecord
from mlintern.tools.jobs.spec import FINAL, JobSpec
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace

ENDED = "ended.json"


def remember_end(folder: Path, record: JobRecord) -> None:
    """Keep in the job's ``folder`` what the ledger says of its end; on a full disk the ledger alone has it."""
    with contextlib.suppress(OSError):
        if folder.is_dir():
            write_json_durably(
                folder / ENDED,
                {
                    "state": record.state,
                    "created_at": record.created_at,
                    "started_at": record.started_at,
                    "finished_at": record.finished_at,
                    "exit_code": record.exit_code,
                    "error": record.error,
                    "summary": record.summary,
                    "usd": record.usd,
                },
            )


def rebuild(workspace: Workspace, ledger: Ledger, *, now: float) -> int:
    """Put the jobs that have a folder into ``ledger``, unless they are there; returns how many.

    Folders that are damaged are left alone.
    """
    found = [each for folder in sorted((workspace.root / "jobs").glob("*")) if (each := _described(folder))]
    found.sort(key=lambda each: each[1].run_of is not None)  # the runs of a schedule after it
    count = 0
    for folder, spec in found:
        with contextlib.suppress(sqlite3.IntegrityError), ledger.transaction() as connection:
            count += _put_back(connection, spec, folder=folder, now=now)
    return count


def _described(folder: Path) -> tuple[Path, JobSpec] | None:
    try:
        spec = JobSpec.from_json(read_json(folder / "spec.json")["spec"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (folder, spec) if spec.job_id == folder.name else None


def _put_back(connection: sqlite3.Connection, spec: JobSpec, *, folder: Path, now: float) -> bool:
    connection.execute(
        "INSERT OR IGNORE INTO scripts (script_id, sha256, name, created_at) VALUES (?, ?, ?, ?)",
        (spec.script_id, spec.script_sha256, spec.run_name or "script", now),
    )
    ended = _ended(folder)
    if not job_rows.insert(connection, spec, now=float(ended.get("created_at") or folder.stat().st_mtime)):
        return False
    money.reserve(connection, spec, budget_usd=None, now=now)
    if ended:
        job_rows.advance(
            connection,
            spec.job_id,
            seen="queued",
            state=ended["state"],
            now=now,
            started_at=ended.get("started_at"),
            finished_at=ended.get("finished_at"),
            exit_code=ended.get("exit_code"),
            error=ended.get("error"),
            summary=ended.get("summary") or {},
        )
        money.settle_at(connection, spec.job_id, usd=float(ended.get("usd") or 0.0), now=now)
    return True


def _ended(folder: Path) -> dict[str, Any]:
    """What is known of the end; empty for a job without one, or one whose record is damaged."""
    try:
        found = read_json(folder / ENDED)
    except OSError:
        return {}
    return found if isinstance(found, dict) and found.get("state") in FINAL else {}
