"""A job id stands for what the job made, wherever a recipe takes a path."""

from __future__ import annotations

import pytest

from mlintern.tools.errors import NotFound
from mlintern.tools.scripts.job_sources import with_job_paths
from mlintern.tools.workspace import Workspace

JOB = "job-0123456789ab"


def test_a_job_stands_for_its_model_and_its_dataset(workspace: Workspace) -> None:
    output = workspace.job(JOB) / "output"
    (output / "model").mkdir(parents=True)
    (output / "dataset").mkdir()
    recipe = {"trainer": "sft", "model": JOB, "dataset": JOB, "evaluation": {"dataset": JOB}, "name": JOB}
    made = with_job_paths(recipe, workspace)
    assert made["model"] == str(output / "model")
    assert made["dataset"] == made["evaluation"]["dataset"] == str(output / "dataset")
    assert made["name"] == JOB


def test_a_job_that_is_not_there_or_has_made_nothing_is_named(workspace: Workspace) -> None:
    with pytest.raises(NotFound, match="no job job-"):
        with_job_paths({"model": JOB}, workspace)
    workspace.job(JOB).mkdir(parents=True)
    with pytest.raises(NotFound, match=r"has made no model.*poll_job"):
        with_job_paths({"model": JOB}, workspace)
