"""Evaluation rows in the ledger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from mlintern.tools.errors import NotFound
from mlintern.tools.evals.result_rows import EvalRow
from mlintern.tools.ledger import Ledger


def store(ledger: Ledger, *, job_id: str, rows: Sequence[EvalRow], now: float) -> None:
    """Add ``rows`` to the evaluations of the job. Those of an older content of the same file go.

    Raises:
        NotFound: the ledger has no such job.
    """
    with ledger.transaction() as connection:
        job = connection.execute("SELECT experiment FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        if job is None:
            raise NotFound(f"There is no job {job_id!r}.", next_step="list_jobs shows the jobs of this workspace.")
        connection.executemany(
            "DELETE FROM evaluations WHERE job_id = ? AND source = ? AND sha256 != ?",
            sorted({(job_id, row.source, row.sha256) for row in rows}),
        )
        connection.executemany(
            "INSERT OR IGNORE INTO evaluations (job_id, experiment, source, sha256, row, created_at) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            [(job_id, job["experiment"], row.source, row.sha256, _text(row), now) for row in rows],
        )


def of_jobs(ledger: Ledger, job_ids: Sequence[str]) -> dict[str, list[EvalRow]]:
    """The stored rows of each of ``job_ids``, in the order in which they were read."""
    found: dict[str, list[EvalRow]] = {job_id: [] for job_id in job_ids}
    with ledger.read() as connection:
        for start in range(0, len(job_ids), 500):  # SQLite bounds the number of parameters
            part = job_ids[start : start + 500]
            marks = ",".join("?" * len(part))
            for job_id, text in connection.execute(
                f"SELECT job_id, row FROM evaluations WHERE job_id IN ({marks}) ORDER BY id", tuple(part)
            ):
                found[job_id].append(EvalRow.model_validate_json(text))
    return found


def candidates_tried(ledger: Ledger, *, baseline: Sequence[EvalRow], candidate: Sequence[EvalRow], now: float) -> int:
    """Remember that these were compared, and tell with how many candidates this baseline has been by now.

    A side is known by the contents of its result files. The same comparison again counts once.
    """
    sides = [
        hashlib.sha256(",".join(sorted({row.sha256 for row in side})).encode()).hexdigest()
        for side in (baseline, candidate)
    ]
    with ledger.transaction() as connection:
        connection.execute(
            "INSERT OR IGNORE INTO comparisons (baseline, candidate, at) VALUES (?, ?, ?)", (*sides, now)
        )
        found = connection.execute("SELECT count(*) FROM comparisons WHERE baseline = ?", sides[:1]).fetchone()
    return int(found[0])


def _text(row: EvalRow) -> str:
    """Canonical, so that the same row is the same text and is stored once."""
    whole = {**row.model_dump(mode="json"), "protocol": row.protocol}
    return json.dumps(whole, sort_keys=True, allow_nan=False)
