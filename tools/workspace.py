"""The state folder: the only place that knows where files lie."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from mlintern.tools.errors import WorkspaceError


def folder_name(name: str) -> str:
    """``name`` as the name of a folder; one that is no plain file name is made one, and kept apart by its hash."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip(".-")[:60]
    if plain == name:
        return plain
    return f"{plain or 'experiment'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Workspace:
    """A folder that holds everything mlintern remembers. Created on first use, readable by its owner only."""

    root: Path

    @classmethod
    def open(cls, root: str | Path | None = None) -> Workspace:
        """Open ``root``, else ``$MLINTERN_HOME``, else ``~/.mlintern``; create it if need be.

        Raises:
            WorkspaceError: the folder cannot be created or written.
        """
        chosen = Path(root or os.environ.get("MLINTERN_HOME") or "~/.mlintern").expanduser().absolute()
        try:
            chosen.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise WorkspaceError(
                f"The workspace {chosen} cannot be created: {error.strerror}.",
                next_step="Set MLINTERN_HOME (or --workspace) to a folder that you may write.",
            ) from error
        if not os.access(chosen, os.W_OK | os.X_OK):
            raise WorkspaceError(
                f"The workspace {chosen} is not writable.",
                next_step="Set MLINTERN_HOME (or --workspace) to a folder that you may write.",
            )
        return cls(chosen)

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.db"

    def folder(self, *parts: str) -> Path:
        """The folder ``root/parts``, created."""
        path = self.root.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    def script(self, script_id: str) -> Path:
        return self.folder("scripts") / f"{script_id}.py"

    def job(self, job_id: str) -> Path:
        """The folder of a job: spec.json, state.json, log.txt, work/, output/ with metrics.jsonl and the model."""
        return self.root / "jobs" / job_id

    def report(self, experiment: str) -> Path:
        return self.folder("reports", experiment)

    @property
    def cache(self) -> Path:
        """Answers of outside services; may be deleted at any time."""
        return self.folder("cache")
