"""What the ledger says about publications: an attempt before it is made, and what became of it."""

from __future__ import annotations

import sqlite3

from mlintern.tools.ledger import Ledger
from mlintern.tools.publish.plan import Done, Publication


def begin(ledger: Ledger, plan: Publication, *, now: float) -> bool:
    """Record that ``plan`` is about to be carried out. False if that is on record: it may have been done."""
    with ledger.transaction() as connection:
        added = connection.execute(
            "INSERT OR IGNORE INTO publications (digest, operation, repo_type, repo_id, branch, path, attempted_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (plan.digest, plan.operation, plan.repo_type, plan.repo_id, plan.branch, plan.path, now),
        )
        return added.rowcount == 1


def withdraw(ledger: Ledger, digest: str) -> None:
    """Forget an attempt that was refused: nothing was published."""
    with ledger.transaction() as connection:
        connection.execute("DELETE FROM publications WHERE digest = ? AND done_at IS NULL", (digest,))


def finish(ledger: Ledger, digest: str, *, done: Done, now: float) -> None:
    """Record what became of an attempt; what is on record already stays."""
    with ledger.transaction() as connection:
        connection.execute(
            "UPDATE publications SET done_at = ?, commit_sha = ?, pull_request = ?"
            " WHERE digest = ? AND done_at IS NULL",
            (now, done.commit, done.pull_request, digest),
        )


def done(ledger: Ledger, digest: str) -> Done | None:
    """What became of exactly this publication, if it is known to have been made."""
    with ledger.read() as connection:
        row = connection.execute(
            "SELECT done_at, commit_sha, pull_request FROM publications WHERE digest = ?", (digest,)
        ).fetchone()
    return None if row is None else _outcome(row)


def deletion(ledger: Ledger, plan: Publication) -> Done | None:
    """What became of the latest deletion of the plan's file; without a commit if that is not known.

    None if it was never deleted from here.
    """
    with ledger.read() as connection:
        row = connection.execute(
            "SELECT done_at, commit_sha, pull_request FROM publications WHERE operation = 'delete_file'"
            " AND repo_type = ? AND repo_id = ? AND branch = ? AND path = ? ORDER BY attempted_at DESC LIMIT 1",
            (plan.repo_type, plan.repo_id, plan.branch, plan.path),
        ).fetchone()
    return None if row is None else _outcome(row) or Done(note="The file is gone.")


def _outcome(row: sqlite3.Row) -> Done | None:
    return None if row["done_at"] is None else Done(commit=row["commit_sha"], pull_request=row["pull_request"])
