"""What a person is told, or spared, before a job is paid for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from mlintern.tools.config import HfJobsSettings, HfVolume, RaySettings, SlurmSettings
from mlintern.tools.errors import BadInput
from mlintern.tools.jobs.backend import Backend
from mlintern.tools.jobs.backends.hf.backend import HfJobsBackend
from mlintern.tools.jobs.backends.ray.backend import RayBackend
from mlintern.tools.jobs.backends.slurm.backend import SlurmBackend
from mlintern.tools.jobs.risks import demand_data_there, warnings
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services.hf_jobs import TOKEN, HfJobs
from tests.tools.jobs.local_lab import WrittenScript
from tests.tools.jobs.remote_lab import RemoteLab

pytestmark = pytest.mark.anyio

SFT = {"trainer": "sft", "model": "org/base", "dataset": "org/data"}
PUSHES = {**SFT, "push_to_hub": "me/tuned"}


def hf_jobs_with(output: str | None, *, url: str = "http://127.0.0.1:1") -> HfJobsBackend:
    settings = HfJobsSettings(launch=(sys.executable,), output=output)
    return HfJobsBackend(api=lambda: HfApi(endpoint=url, token=TOKEN), settings=settings)


@pytest.mark.parametrize(
    ("backend", "recipe", "warned"),
    [
        (hf_jobs_with(None), SFT, True),
        (hf_jobs_with(None), PUSHES, False),
        (hf_jobs_with(None), {"trainer": "evaluation"}, False),
        (hf_jobs_with(None), None, False),
        (hf_jobs_with("/data"), SFT, False),
        (RayBackend(settings=RaySettings(url="http://127.0.0.1:1")), SFT, True),
        (RayBackend(settings=RaySettings(url="http://127.0.0.1:1", folder="/shared")), SFT, False),
        (SlurmBackend(settings=SlurmSettings()), SFT, False),
    ],
)
def test_a_model_that_would_be_lost_with_its_job_is_warned_of(
    backend: Backend, recipe: dict[str, Any] | None, warned: bool
) -> None:
    said = warnings(WrittenScript("", recipe=recipe), backend=backend.name, capabilities=backend.capabilities)
    assert [("will be lost" in each, backend.name in each) for each in said] == [(True, True)] * warned


async def test_a_script_that_pushes_is_not_started_without_a_token_and_says_how_to_pass_one(
    hf_jobs: HfJobs, workspace: Workspace, ledger: Ledger, clock: FakeClock, tmp_path: Path
) -> None:
    lab = RemoteLab(
        workspace, ledger, clock, hf_jobs_with(None, url=hf_jobs.url), options={"environ": {"HF_TOKEN": TOKEN}}
    )
    script_id = lab.scripts.add("print(1)", recipe=PUSHES)
    with pytest.raises(BadInput, match=r'me/tuned.*secrets=\["HF_TOKEN"\]'):
        await lab.jobs.planner.plan(script_id=script_id, backend="hf_jobs")
    spec = await lab.jobs.planner.plan(script_id=script_id, backend="hf_jobs", secrets=["HF_TOKEN"])
    await lab.jobs.submit(spec)
    (job,) = hf_jobs.jobs.values()
    assert job.body["secrets"] == {"HF_TOKEN": TOKEN}


async def test_the_warning_stands_in_the_estimate_and_in_the_answer_to_the_submission(
    hf_jobs: HfJobs, workspace: Workspace, ledger: Ledger, clock: FakeClock
) -> None:
    lab = RemoteLab(workspace, ledger, clock, hf_jobs_with(None, url=hf_jobs.url))
    script_id = lab.scripts.add("print(1)", recipe=SFT)
    estimate = await lab.jobs.planner.estimate(script_id=script_id, backend="hf_jobs")
    assert "will be lost" in estimate.warnings[0]
    made = await lab.jobs.submit(await lab.jobs.planner.plan(script_id=script_id, backend="hf_jobs"))
    assert made.note.startswith("Call poll_job") and "will be lost" in made.note


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        (HfJobsBackend(api=lambda: HfApi(token=TOKEN), settings=HfJobsSettings()), "publish_to_hub.*volumes"),
        (RayBackend(settings=RaySettings(url="http://head:8265")), "publish_to_hub.*shared folder"),
        (SlurmBackend(settings=SlurmSettings(prefix=("ssh", "login1"), folder="/scratch/me")), "scp"),
    ],
)
def test_data_of_this_machine_is_missed_before_a_job_elsewhere_is_paid_for(backend: Backend, words: str) -> None:
    here = {"trainer": "sft", "model": "org/model", "dataset": "/home/me/train.jsonl"}
    with pytest.raises(BadInput, match=f"dataset is /home/me/train.jsonl.*{words}"):
        demand_data_there(WrittenScript("", recipe=here), backend=backend.name, capabilities=backend.capabilities)
    inside = {**here, "dataset": "org/data", "evaluation": {"dataset": "/home/me/test.jsonl"}}
    with pytest.raises(BadInput, match="evaluation: dataset"):
        demand_data_there(WrittenScript("", recipe=inside), backend=backend.name, capabilities=backend.capabilities)


def test_data_where_the_job_sees_it_is_fine() -> None:
    mounted = HfJobsSettings(volumes=(HfVolume("bucket", "me/data", "/data"),))
    places = [
        HfJobsBackend(api=lambda: HfApi(token=TOKEN), settings=mounted),
        SlurmBackend(settings=SlurmSettings()),
        SlurmBackend(settings=SlurmSettings(prefix=("ssh", "login1"), folder="/data")),
    ]
    for place in places:
        recipe = {"trainer": "sft", "model": "org/model", "dataset": "/data/train.jsonl"}
        demand_data_there(WrittenScript("", recipe=recipe), backend=place.name, capabilities=place.capabilities)


HERE = "/home/me/made-here"
HF = HfJobsBackend(api=lambda: HfApi(token=TOKEN), settings=HfJobsSettings())


@pytest.mark.parametrize(
    ("recipe", "field"),
    [
        ({"trainer": "sft", "datasets": [{"dataset": "org/data"}, {"dataset": HERE}]}, "datasets: dataset"),
        ({"trainer": "generate", "prompts": HERE}, "prompts"),
        ({"trainer": "generate", "prompts": ["org/prompts", HERE]}, "prompts"),
        ({"trainer": "generate", "prompts": "org/prompts", "held_out": [HERE]}, "held_out"),
        ({"trainer": "generate", "prompts": "org/prompts", "reward_model": HERE}, "reward_model"),
        ({"trainer": "distillation", "model": "org/small", "teacher": HERE}, "teacher"),
        ({"trainer": "grpo", "rewards": [{"name": "reward_model", "model": HERE}]}, "rewards: model"),
        ({"trainer": "evaluation", "model": "org/a", "candidates": ["org/b", HERE]}, "candidates"),
        ({"trainer": "evaluation", "model": "org/a", "fewshot_dataset": HERE}, "fewshot_dataset"),
        ({"trainer": "evaluation", "model": "org/a", "harness": "lm_eval", "task_path": HERE}, "task_path"),
        ({"trainer": "sft", "evaluation": {"dataset": HERE}}, "evaluation: dataset"),
        ({"trainer": "sft", "evaluation": {"fewshot_dataset": HERE}}, "evaluation: fewshot_dataset"),
        ({"trainer": "sft", "model": HERE}, "model"),
        ({"trainer": "sft", "resume_from_checkpoint": HERE}, "resume_from_checkpoint"),
        (
            {"trainer": "sft", "hyperparameters": {"chat_template_path": HERE, "output_dir": "/tmp/out"}},
            "hyperparameters: chat_template_path",
        ),
    ],
)
def test_every_field_that_names_data_or_a_model_of_this_machine_is_seen(recipe: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput, match=f"^{field} is {HERE}.*publish_to_hub.*volumes"):
        demand_data_there(WrittenScript("", recipe=recipe), backend=HF.name, capabilities=HF.capabilities)


@pytest.mark.parametrize(
    "recipe",
    [
        {"trainer": "evaluation", "model": "/models/served", "endpoint": {"url": "https://models.example"}},
        {"trainer": "generate", "prompts": "org/prompts", "judge": {"model": "/models/judge"}},
        {"trainer": "sft", "model": "org/m", "hyperparameters": {"output_dir": "/tmp/out"}, "prepare": "/ x"},
    ],
)
def test_names_at_a_served_model_and_places_to_write_are_no_data_of_this_machine(recipe: dict[str, Any]) -> None:
    demand_data_there(WrittenScript("", recipe=recipe), backend=HF.name, capabilities=HF.capabilities)


@pytest.mark.parametrize("made", ["train.jsonl", "train.csv.gz", "model/config.json", "folder/part-0.parquet"])
def test_a_script_of_ones_own_and_its_arguments_are_read_for_data_of_this_machine(tmp_path: Path, made: str) -> None:
    file = tmp_path / made
    file.parent.mkdir(exist_ok=True)
    file.write_text("{}")
    named = file if file.parent == tmp_path else file.parent
    written, plain = WrittenScript(f"load({str(named)!r})"), WrittenScript("print(1)")
    with pytest.raises(BadInput, match=rf"a path in the script is {named}.*publish_to_hub"):
        demand_data_there(written, backend=HF.name, capabilities=HF.capabilities)
    for arguments in ([str(named)], [f"--data={named}"]):
        with pytest.raises(BadInput, match=f"an argument is {named}"):
            demand_data_there(plain, backend=HF.name, capabilities=HF.capabilities, args=arguments)
    empty = tmp_path / "empty"
    empty.mkdir()
    demand_data_there(WrittenScript(f"save({str(empty)!r}, '/usr')"), backend=HF.name, capabilities=HF.capabilities)
