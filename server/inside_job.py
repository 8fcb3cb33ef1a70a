"""Whether this process was started by a job: a job may ask for nothing that only a person decides.

Jobs run isolated and do not see the workspace; this is the second lock, for jobs that run as the user (on a cluster
that shares the home folder, or with ``--unsandboxed``). It looks at the variables that every job has, here and in the
processes above. A program that takes pains to hide where it comes from is not held by it: `docs/security.md`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from mlintern.tools.errors import BadInput

MARKS = ("MLINTERN_JOB_ID", "MLINTERN_DRY_RUN")
"""Set for every job by its backend, and for dry runs."""

MOST_PARENTS = 64


def refuse_inside_job(
    command: str, *, environ: Mapping[str, str] | None = None, process: int | None = None, proc: Path = Path("/proc")
) -> None:
    """Refuse ``command`` if a job started it, directly or through other programs.

    Raises:
        BadInput: it did.
    """
    marks = set(MARKS)
    inside = not marks.isdisjoint(os.environ if environ is None else environ)
    if inside or any(not marks.isdisjoint(names) for names in _variables_above(process or os.getpid(), proc)):
        raise BadInput(
            f"mlintern-server {command} was started from inside a job; only a person decides.",
            next_step="Run it in a terminal of your own.",
        )


def _variables_above(process: int, proc: Path) -> list[set[str]]:
    """The names of the variables of each process above ``process``, as far as they can be read; Linux only."""
    found: list[set[str]] = []
    for _ in range(MOST_PARENTS):
        try:
            process = int((proc / str(process) / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (proc / str(process) / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError, IndexError):
            break
        found.append({variable.partition(b"=")[0].decode(errors="replace") for variable in variables})
    return found
