"""The SQLite file that remembers experiments, scripts, jobs, approvals, evaluations, publications and money.

This module owns the connection, the schema and the transactions. The statements themselves stand with the subject
they are about (`scripts/store.py`, `jobs/records.py`, `evals/records.py`, `hub/publish_records.py`, `approvals.py`).
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from mlintern.tools.errors import WorkspaceError

BUSY_SECONDS = 15.0
"""How long a statement waits for another process's write before it gives up."""

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE experiments (
        name TEXT PRIMARY KEY,
        goal TEXT NOT NULL DEFAULT '',
        base_model TEXT NOT NULL DEFAULT '',
        benchmark TEXT NOT NULL DEFAULT '',
        target REAL,
        budget_usd REAL,
        created_at REAL NOT NULL
    ) STRICT;
    CREATE TABLE scripts (
        script_id TEXT PRIMARY KEY,
        sha256 TEXT NOT NULL,
        name TEXT NOT NULL,
        recipe TEXT,
        parent TEXT REFERENCES scripts(script_id),
        created_at REAL NOT NULL
    ) STRICT;
    CREATE TABLE jobs (
        job_id TEXT PRIMARY KEY,
        digest TEXT NOT NULL UNIQUE,
        script_id TEXT NOT NULL REFERENCES scripts(script_id),
        backend TEXT NOT NULL,
        hardware TEXT NOT NULL,
        timeout_seconds REAL NOT NULL,
        spec TEXT NOT NULL,
        experiment TEXT REFERENCES experiments(name),
        run_name TEXT,
        state TEXT NOT NULL CHECK (state IN
            ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'timed_out', 'lost')),
        state_since REAL NOT NULL,
        created_at REAL NOT NULL,
        started_at REAL,
        finished_at REAL,
        handle TEXT,
        exit_code INTEGER,
        error TEXT,
        summary TEXT
    ) STRICT;
    CREATE INDEX jobs_by_time ON jobs(created_at DESC, job_id);
    CREATE INDEX jobs_by_state ON jobs(state, created_at DESC);
    CREATE INDEX jobs_by_experiment ON jobs(experiment, created_at DESC);
    CREATE TABLE money (
        job_id TEXT PRIMARY KEY REFERENCES jobs(job_id),
        usd_per_hour REAL NOT NULL,
        usd_reserved REAL NOT NULL,
        usd_charged REAL NOT NULL DEFAULT 0,
        settled INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE approvals (
        id INTEGER PRIMARY KEY,
        digest TEXT NOT NULL,
        action TEXT NOT NULL,
        decision TEXT NOT NULL CHECK (decision IN ('pending', 'approved', 'denied', 'used')),
        via TEXT NOT NULL,
        note TEXT NOT NULL DEFAULT '',
        usd_worst REAL,
        created_at REAL NOT NULL,
        decided_at REAL
    ) STRICT;
    CREATE INDEX approvals_by_digest ON approvals(digest, id DESC);
    CREATE TABLE evaluations (
        id INTEGER PRIMARY KEY,
        job_id TEXT REFERENCES jobs(job_id),
        experiment TEXT REFERENCES experiments(name),
        source TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        row TEXT NOT NULL,
        created_at REAL NOT NULL,
        UNIQUE (source, sha256, row)
    ) STRICT;
    CREATE INDEX evaluations_by_job ON evaluations(job_id);
    """,
    """
    CREATE TABLE money_entries (
        id INTEGER PRIMARY KEY,
        job_id TEXT NOT NULL,
        at REAL NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('reserve', 'charge', 'release')),
        usd REAL NOT NULL CHECK (usd > 0)
    ) STRICT;
    CREATE INDEX money_entries_by_job ON money_entries(job_id, id);
    """,
    """
    ALTER TABLE jobs ADD COLUMN schedule TEXT;
    ALTER TABLE jobs ADD COLUMN run_of TEXT REFERENCES jobs(job_id);
    CREATE INDEX jobs_by_schedule ON jobs(run_of, created_at DESC);
    """,
    """
    CREATE TABLE publications (
        digest TEXT PRIMARY KEY,
        operation TEXT NOT NULL,
        repo_type TEXT NOT NULL,
        repo_id TEXT NOT NULL,
        branch TEXT NOT NULL,
        path TEXT NOT NULL DEFAULT '',
        attempted_at REAL NOT NULL,
        done_at REAL,
        commit_sha TEXT,
        pull_request TEXT
    ) STRICT;
    CREATE INDEX publications_by_repo ON publications(repo_type, repo_id, attempted_at DESC);
    """,
    """
    CREATE TABLE comparisons (
        baseline TEXT NOT NULL,
        candidate TEXT NOT NULL,
        at REAL NOT NULL,
        PRIMARY KEY (baseline, candidate)
    ) STRICT;
    """,
    """
    CREATE TABLE campaigns (
        experiment TEXT PRIMARY KEY REFERENCES experiments(name),
        plan TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        opened_at REAL NOT NULL,
        ends_at REAL NOT NULL,
        stopped INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE batches (
        experiment TEXT NOT NULL REFERENCES campaigns(experiment),
        digest TEXT NOT NULL,
        body TEXT NOT NULL,
        usd_worst REAL NOT NULL,
        agreed_at REAL NOT NULL,
        PRIMARY KEY (experiment, digest)
    ) STRICT;
    CREATE TABLE trials (
        experiment TEXT NOT NULL REFERENCES campaigns(experiment),
        trial INTEGER NOT NULL,
        name TEXT NOT NULL,
        parent INTEGER,
        spec TEXT NOT NULL,
        batch TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN
            ('waiting', 'running', 'done', 'ended', 'failed', 'refused', 'cancelled')),
        reason TEXT NOT NULL,
        created_at REAL NOT NULL,
        ended_at REAL,
        PRIMARY KEY (experiment, trial),
        UNIQUE (experiment, name)
    ) STRICT;
    CREATE TABLE stages (
        experiment TEXT NOT NULL,
        trial INTEGER NOT NULL,
        rung INTEGER NOT NULL,
        seed INTEGER NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('generate', 'train', 'measure', 'confirm')),
        attempt INTEGER NOT NULL,
        spec TEXT NOT NULL,
        recorded_at REAL NOT NULL,
        outcome TEXT,
        PRIMARY KEY (experiment, trial, rung, seed, kind, attempt),
        FOREIGN KEY (experiment, trial) REFERENCES trials(experiment, trial)
    ) STRICT;
    CREATE TABLE confirmations (
        experiment TEXT NOT NULL REFERENCES campaigns(experiment),
        opening INTEGER NOT NULL,
        trial INTEGER NOT NULL,
        opened_at REAL NOT NULL,
        verdict TEXT,
        PRIMARY KEY (experiment, opening)
    ) STRICT;
    """,
    """
    CREATE TABLE stages_of_any_kind (
        experiment TEXT NOT NULL,
        trial INTEGER NOT NULL,
        rung INTEGER NOT NULL,
        seed INTEGER NOT NULL,
        kind TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        spec TEXT NOT NULL,
        recorded_at REAL NOT NULL,
        outcome TEXT,
        PRIMARY KEY (experiment, trial, rung, seed, kind, attempt),
        FOREIGN KEY (experiment, trial) REFERENCES trials(experiment, trial)
    ) STRICT;
    INSERT INTO stages_of_any_kind SELECT * FROM stages ORDER BY rowid;
    DROP TABLE stages;
    ALTER TABLE stages_of_any_kind RENAME TO stages
    """,
)
"""Schema version n is reached by applying the first n entries. Entries are never edited, only added."""


class Ledger:
    """One workspace's database. Safe to use from several threads and several processes at once.

    Readers never wait (WAL); writers take turns, each transaction holding the write lock from its start
    (``BEGIN IMMEDIATE``), so that a check and the write that depends on it are one step.

    Raises:
        WorkspaceError: the file is from a newer mlintern, damaged, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        with self._named_failures():
            self._migrate()

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection for SELECTs; rows come as `sqlite3.Row`."""
        with self._named_failures():
            yield self._connection()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: committed when the block ends, rolled back when it raises. Joins an open one."""
        with self._named_failures():
            connection = self._connection()
            if connection.in_transaction:
                yield connection
                return
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close every thread's connection."""
        with self._guard:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
        self._local = threading.local()

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # a paid job must outlive a power cut
            connection.execute("PRAGMA foreign_keys = ON")
            self._local.connection = connection
            with self._guard:
                self._connections.append(connection)
        return connection

    def _migrate(self) -> None:
        with self.transaction() as connection:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version > len(MIGRATIONS):
                raise WorkspaceError(
                    f"The ledger {self.path} has schema {version}, this mlintern knows {len(MIGRATIONS)}.",
                    next_step="Upgrade mlintern, or point MLINTERN_HOME at another workspace.",
                )
            for migration in MIGRATIONS[version:]:
                for statement in filter(str.strip, migration.split(";")):
                    connection.execute(statement)
            if version < len(MIGRATIONS):
                connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    @contextlib.contextmanager
    def _named_failures(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise WorkspaceError(
                f"The ledger {self.path} cannot be used: {error}.",
                next_step="Check that the disk is not full and that no other program holds the file.",
            ) from error
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
                raise
            raise WorkspaceError(
                f"The ledger {self.path} is damaged: {error}.",
                next_step="Move it aside (jobs still have their folders) or restore a backup.",
            ) from error
