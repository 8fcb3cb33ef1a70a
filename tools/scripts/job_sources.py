"""Data and models of this workspace, named in a recipe by the job that made them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlintern.tools.errors import NotFound
from mlintern.tools.workspace import Workspace

JOB = re.compile(r"job-[0-9a-f]{6,64}")
MADE = {"model": ("model",), "reward_model": ("model",), "dataset": ("dataset", "data", "samples.jsonl")}
"""Where in a job's output each of these lies, the first that is there."""


def with_job_paths(recipe: Mapping[str, Any], workspace: Workspace) -> dict[str, Any]:
    """``recipe`` with the paths of what jobs made in place of their ids, in its parts too.

    Raises:
        NotFound: there is no such job, or it has made no such thing (yet).
    """
    found: dict[str, Any] = {}
    for name, value in recipe.items():
        if name in MADE and isinstance(value, str) and JOB.fullmatch(value.strip()):
            found[name] = str(_made_by(value.strip(), name, workspace))
        elif isinstance(value, Mapping) and name != "hyperparameters":
            found[name] = with_job_paths(value, workspace)
        elif name == "candidates" and isinstance(value, list):
            found[name] = [with_job_paths({"model": one}, workspace)["model"] for one in value]
        elif name == "datasets" and isinstance(value, list):
            found[name] = [with_job_paths(part, workspace) if isinstance(part, Mapping) else part for part in value]
        else:
            found[name] = value
    return found


def model_of(job_id: str, workspace: Workspace) -> Path:
    """The folder of the model that a job made.

    Raises:
        NotFound: there is no such job, or it has made none.
    """
    return _made_by(job_id, "model", workspace)


def _made_by(job_id: str, what: str, workspace: Workspace) -> Path:
    folder = workspace.job(job_id)
    if not folder.is_dir():
        raise NotFound(f"There is no job {job_id} in this workspace.", next_step="list_jobs names them.")
    for name in MADE[what]:
        if (path := folder / "output" / name).exists():
            return path
    raise NotFound(
        f"The job {job_id} has made no {what}: its output has no {' and no '.join(MADE[what])}.",
        next_step="Wait until it is over (poll_job), or give a path.",
    )
