"""Gated data and models are spoken of before a job is paid for, with whether the token may read them."""

from __future__ import annotations

import sys

import pytest
from huggingface_hub import HfApi

from mlintern.tools.config import HfJobsSettings
from mlintern.tools.hub.client import HubClient
from mlintern.tools.jobs.backends.hf.backend import HfJobsBackend
from mlintern.tools.jobs.gated import GatedRepos, repos_of
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services.hf_jobs import TOKEN, HfJobs
from tests.services.hub import HubStandIn, Repo
from tests.tools.jobs.remote_lab import RemoteLab

pytestmark = pytest.mark.anyio

RECIPE = {
    "trainer": "sft",
    "model": "org/open",
    "datasets": [{"dataset": "org/data"}, {"dataset": "org/closed"}],
    "evaluation": {"dataset": "org/closed", "judge": {"model": "org/served"}},
}


def add_repositories(hub: HubStandIn) -> None:
    hub.add(Repo("org/open"))
    hub.add(Repo("org/closed", "dataset", access="gated"))


def test_every_repository_that_a_recipe_names_is_found_once() -> None:
    recipe = {
        **RECIPE,
        "teacher": "org/teacher",
        "held_out": ["org/held", "/home/me/held.jsonl"],
        "rewards": [{"name": "reward_model", "model": "org/reward"}],
        "hyperparameters": {"model": "org/none"},
    }
    assert repos_of(recipe) == [
        ("model", "org/open"),
        ("dataset", "org/data"),
        ("dataset", "org/closed"),
        ("model", "org/teacher"),
        ("dataset", "org/held"),
        ("model", "org/reward"),
    ]
    assert repos_of({"model": "org/served", "endpoint": {"url": "https://models.example"}}) == []


async def test_a_gated_dataset_that_the_token_may_not_read_is_named(
    hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_repositories(hub)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    gated = GatedRepos(HubClient())
    assert gated.warnings(RECIPE, secrets=()) == []
    await gated.look(RECIPE)
    (said,) = gated.warnings(RECIPE, secrets=("HF_TOKEN",))
    assert said.startswith("The dataset org/closed is gated and this machine's token may not read it: accept its")


async def test_a_hub_that_does_not_answer_says_nothing_of_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    gated = GatedRepos(HubClient())
    await gated.look(RECIPE)
    assert gated.warnings(RECIPE, secrets=()) == []


async def test_the_estimate_and_the_submission_say_whether_the_job_gets_the_token(
    hub: HubStandIn,
    hf_jobs: HfJobs,
    workspace: Workspace,
    ledger: Ledger,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_repositories(hub)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    settings = HfJobsSettings(launch=(sys.executable,), output="/data")
    backend = HfJobsBackend(api=lambda: HfApi(endpoint=hf_jobs.url, token=TOKEN), settings=settings)
    options = {"environ": {"HF_TOKEN": "hf_good"}, "gated": GatedRepos(HubClient())}
    lab = RemoteLab(workspace, ledger, clock, backend, options=options)
    script_id = lab.scripts.add("print(1)", recipe=RECIPE)
    estimate = await lab.jobs.planner.estimate(script_id=script_id, backend="hf_jobs")
    (said,) = estimate.warnings
    assert "org/closed is gated; this machine's token may read it" in said and 'pass secrets=["HF_TOKEN"]' in said
    spec = await lab.jobs.planner.plan(script_id=script_id, backend="hf_jobs", secrets=["HF_TOKEN"])
    script = lab.scripts.get(script_id)
    (said,) = lab.jobs.planner.warnings(script, "hf_jobs", secrets=spec.secrets)
    assert said == "The dataset org/closed is gated; this machine's token may read it, which the job gets."
