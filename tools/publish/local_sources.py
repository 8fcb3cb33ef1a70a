"""Where what is to be published lies: a job's model, a path, a card that is written from a job."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from mlintern.common.files import write_durably
from mlintern.tools.errors import BadInput, Conflict, NotFound, WorkspaceError
from mlintern.tools.jobs import job_rows
from mlintern.tools.ledger import Ledger
from mlintern.tools.publish.plan import Publication
from mlintern.tools.runs.model_card import model_card
from mlintern.tools.workspace import Workspace


@dataclass(frozen=True)
class Found:
    """A path to publish, and what should be said about it."""

    path: Path
    note: str = ""


def locate(source: str, *, workspace: Workspace, ledger: Ledger) -> Found:
    """The model of a job (its adapter, its whole output), or an existing path.

    Raises:
        NotFound: no such job or path, or the job's output is not on this machine.
        Conflict: the job is not over.
    """
    path = Path(source).expanduser()
    if not source.startswith("job-") or "/" in source or path.exists():
        return Found(path.absolute())
    with ledger.read() as connection:
        job = job_rows.get(connection, source)
    if not job.over:
        raise Conflict(
            f"The job {source} is {job.state}; its files may still change.", next_step="poll_job follows it."
        )
    output = workspace.job(source) / "output"
    folder = next((output / name for name in ("model", "adapter") if (output / name).is_dir()), output)
    if not folder.is_dir() or not any(folder.iterdir()):
        kept = str((job.summary or {}).get("artifacts", {}).get("model") or "")
        raise NotFound(
            f"The output of {source} is not on this machine{f'; its model is at {kept}' if kept else ''}.",
            next_step="Give a path, or let the job push its model itself: push_to_hub in the recipe.",
        )
    said = f"These files are {folder.relative_to(workspace.job(source))} of {source}."
    return Found(folder, said if job.state == "succeeded" else f"{said} The job is {job.state}, not succeeded.")


def card_file(
    text: str | None, job_id: str | None, *, plan: Publication, workspace: Workspace, ledger: Ledger
) -> tuple[Path, str]:
    """A card's file, which a person can open before they agree, and its text.

    Raises:
        BadInput: the text cannot be a card.
        NotFound: there is no such job.
    """
    if text is None:
        if plan.repo_type != "model":
            raise BadInput("Only a model's card is written from a job.", next_step="Give the card's text.")
        text = model_card(str(job_id), workspace=workspace, ledger=ledger)
    _check_header(text)
    path = workspace.folder("cards") / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.md"
    try:
        if not path.exists():
            write_durably(path, text.encode())
    except OSError as error:
        raise WorkspaceError(
            f"The card cannot be written to {path}: {error.strerror}.",
            next_step="Check that the disk of the workspace is not full.",
        ) from error
    return path, text


def _check_header(text: str) -> None:
    """The metadata between ``---`` lines is what the Hub reads; it refuses a card whose metadata it cannot."""
    import yaml  # type: ignore[import-untyped]

    if not text.startswith("---\n"):
        return
    header, end, _ = text[4:].partition("\n---")
    try:
        value = yaml.safe_load(header) if end else None
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise BadInput(
            f"The card's metadata is not YAML: {said}.", next_step="Correct the lines between ---."
        ) from error
    if not isinstance(value, dict):
        raise BadInput(
            "The card begins with --- but has no metadata up to a second ---.", next_step="Write `key: value` lines."
        )
