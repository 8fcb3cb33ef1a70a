"""Data and models of this workspace, named in a recipe by the job that made them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlintern.tools.errors import NotFound
from mlintern.tools.workspace import Workspace

JOB = re.compile(r"job-[0-9a-f]{6,64}")
_MODEL, _DATA = ("model",), ("dataset", "data", "samples.jsonl")
MADE = {
    **dict.fromkeys(("model", "reward_model", "teacher", "candidates"), _MODEL),
    **dict.fromkeys(("dataset", "prompts", "held_out", "fewshot_dataset"), _DATA),
}
"""Where in a job's output what each field names lies, the first that is there."""


def with_job_paths(recipe: Mapping[str, Any], workspace: Workspace) -> dict[str, Any]:
    """``recipe`` with the paths of what jobs made in place of their ids, in its parts too.

    Raises:
        NotFound: there is no such job, or it has made no such thing (yet).
    """
    found: dict[str, Any] = {}
    for name, value in recipe.items():
        if isinstance(value, list):
            found[name] = [_with_path(name, one, workspace) for one in value]
        else:
            found[name] = _with_path(name, value, workspace)
    return found


def _with_path(name: str, value: Any, workspace: Workspace) -> Any:
    if isinstance(value, Mapping):
        return value if name == "hyperparameters" else with_job_paths(value, workspace)
    if name in MADE and isinstance(value, str) and JOB.fullmatch(value.strip()):
        return str(_made_by(value.strip(), name, workspace))
    return value


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
