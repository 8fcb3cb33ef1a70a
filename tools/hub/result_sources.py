"""What a caller may name as a source of results: a job, a file or folder, a Hub repository."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mlintern.common.text import did_you_mean
from mlintern.tools.credentials import refuse_credentials
from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.hub.addresses import looks_like_address, parse_address
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace

_CANDIDATE = re.compile(r"candidates/\d{1,3}/?")
"""A further model that a job measured, behind the job's id."""


@dataclass(frozen=True)
class Source:
    """A source that was found: where its files lie, and which job wrote them, if one did."""

    path: Path
    job_id: str | None = None
    state: str | None = None


@dataclass(frozen=True)
class OnHub:
    """A source that is no job and no path, and whose ``name`` can stand for a place on the Hub."""

    name: str


def locate(source: str, *, workspace: Workspace, ledger: Ledger) -> Source | OnHub:
    """Find what ``source`` names: a job id of this workspace, else an existing path, else the latest run of
    that name, else a place on the Hub.

    Raises:
        NotFound: nothing has that name; near job ids are suggested.
        BadInput: it is empty, or no name that can be looked for.
    """
    name = source.strip()
    if not name:
        raise BadInput("The source is empty.", next_step="Give a job id, a path, or a Hub repository.")
    job_id = job_of(name, ledger)
    if job_id is not None and name.startswith(job_id):
        return _of_job(job_id, name, workspace=workspace, ledger=ledger)
    try:
        path = Path(name).expanduser()
        if path.is_file() or path.is_dir():
            refuse_credentials(path)
            return Source(path=path.absolute())
        if path.exists():
            raise BadInput(
                f"{name[:80]!r} is no regular file but a device, a pipe or a socket.",
                next_step="Give a file or folder.",
            )
    except OSError as error:  # a name longer than the file system allows
        raise BadInput(f"{name[:80]!r} is not a path: {error.strerror}.", next_step="Check the source.") from error
    except RuntimeError as error:  # ~ of a user that does not exist
        raise BadInput(f"{name[:80]!r} is not a path: {error}", next_step="Give an absolute path.") from error
    if job_id is not None:
        return _of_job(job_id, name, workspace=workspace, ledger=ledger)
    if looks_like_address(name):
        return OnHub(name)
    raise NotFound(f"There is no job, file or folder {name!r}.{_near(name, ledger)}", next_step=_hint())


def here(source: Source | OnHub) -> Source:
    """A source whose files are on this machine.

    Raises:
        BadInput: it is on the Hub.
    """
    if isinstance(source, Source):
        return source
    place = parse_address(source.name, wanted=("model", "dataset"))
    kind = " --repo-type dataset" if place.kind == "dataset" else ""
    raise BadInput(
        f"There is no job, file or folder {source.name!r:.200}, and Hub repositories cannot be read here.",
        next_step=f"Fetch its files first (`hf download {place.repo_id}{kind} --include '*.json' '*.jsonl' "
        "'*.eval'`), then give the folder or the file.",
    )


def job_of(name: str, ledger: Ledger) -> str | None:
    """The job that ``name`` means, by its id or as the latest run of that name; a candidate may stand behind it."""
    name, _, part = name.strip().partition("/")
    if name in (".", "..", "") or (part and not _CANDIDATE.fullmatch(part)):
        return None
    with ledger.read() as connection:
        row = connection.execute(
            "SELECT job_id FROM jobs WHERE job_id = ? OR run_name = ?"
            " ORDER BY job_id = ? DESC, created_at DESC LIMIT 1",
            (name, name, name),
        ).fetchone()
    return None if row is None else str(row["job_id"])


def _of_job(job_id: str, name: str, *, workspace: Workspace, ledger: Ledger) -> Source:
    part, folder = name.partition("/")[2].rstrip("/"), workspace.job(job_id)
    if part:
        inside = folder / "output" / part
        if not inside.is_dir():
            raise NotFound(
                f"The job {job_id} has no {part} (yet).",
                next_step="read_eval of the job lists the models it measured.",
            )
        return Source(path=inside)
    with ledger.read() as connection:
        row = connection.execute("SELECT state FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
    return Source(path=folder, job_id=job_id, state=str(row["state"]))


def _near(name: str, ledger: Ledger) -> str:
    with ledger.read() as connection:
        rows = connection.execute("SELECT job_id FROM jobs ORDER BY created_at DESC LIMIT 1000").fetchall()
    return f" {did_you_mean(name, (str(row['job_id']) for row in rows), otherwise='')}".rstrip()


def _hint() -> str:
    return (
        "Give a job id or the name of a run (list_jobs), a result file, or the folder that holds it, or a Hub "
        "repository (org/name)."
    )
