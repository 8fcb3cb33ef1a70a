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


def test_every_field_that_names_data_or_a_model_takes_a_job(workspace: Workspace) -> None:
    output = workspace.job(JOB) / "output"
    (output / "model").mkdir(parents=True)
    (output / "dataset").mkdir()
    model, data = str(output / "model"), str(output / "dataset")
    recipe = {
        "teacher": JOB,
        "reward_model": JOB,
        "candidates": ["org/other", JOB],
        "rewards": [{"name": "reward_model", "model": JOB}, "format"],
        "prompts": ["org/prompts", JOB],
        "held_out": [JOB],
        "fewshot_dataset": JOB,
        "datasets": [{"dataset": JOB}, {"dataset": "org/data"}],
        "hyperparameters": {"model": JOB},
    }
    assert with_job_paths(recipe, workspace) == {
        "teacher": model,
        "reward_model": model,
        "candidates": ["org/other", model],
        "rewards": [{"name": "reward_model", "model": model}, "format"],
        "prompts": ["org/prompts", data],
        "held_out": [data],
        "fewshot_dataset": data,
        "datasets": [{"dataset": data}, {"dataset": "org/data"}],
        "hyperparameters": {"model": JOB},
    }
    assert with_job_paths({"prompts": JOB}, workspace)["prompts"] == data
