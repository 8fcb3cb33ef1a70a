"""A training that is ended early leaves its model, where its script and its backend can do that."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlintern.tools.config import RaySettings
from mlintern.tools.errors import BadInput, Conflict
from mlintern.tools.jobs.backends.hf.backend import HfJobsBackend
from mlintern.tools.jobs.backends.ray.backend import RayBackend
from mlintern.tools.jobs.backends.slurm.backend import SlurmBackend
from mlintern.tools.jobs.finishing import ENDS_BY_FILE
from mlintern.tools.jobs.spec import JobHandle
from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.render import render
from mlintern.tools.workspace import Workspace
from tests.tools.jobs.local_lab import LocalLab

pytestmark = pytest.mark.anyio

TRAINING = """
import os, pathlib, time
OUTPUT = pathlib.Path(os.environ["MLINTERN_OUTPUT_DIR"])
print("training", flush=True)
while not (OUTPUT / "finish").exists():
    time.sleep(0.05)
(OUTPUT / "model").mkdir()
"""


@pytest.fixture
def lab(workspace: Workspace) -> LocalLab:
    return LocalLab(workspace)


async def test_a_training_ends_by_itself_and_its_model_is_there(lab: LocalLab) -> None:
    job_id = await lab.start(TRAINING)
    await lab.running(job_id)
    assert (await lab.jobs.finish(job_id)).state in ("running", "succeeded")
    status = await lab.end_of(job_id)
    assert (status.state, status.exit_code) == ("succeeded", 0)
    assert (lab.folder(job_id).output / "model").is_dir()
    with pytest.raises(Conflict, match="is succeeded"):
        await lab.jobs.finish(job_id)


async def test_a_script_that_would_not_save_is_not_asked(lab: LocalLab) -> None:
    job_id = await lab.start("import time; print(1, flush=True); time.sleep(60)")
    await lab.running(job_id)
    with pytest.raises(BadInput, match="does not look for a file"):
        await lab.jobs.finish(job_id)
    assert not (lab.folder(job_id).output / "finish").exists()
    await lab.jobs.cancel(job_id)


def test_rendered_trainings_look_for_the_file() -> None:
    for trainer, more in (("sft", {}), ("grpo", {"rewards": ["length"]}), ("gkd", {"teacher": "org/t"})):
        recipe = {"trainer": trainer, "model": "org/m", "dataset": "org/d", **more}
        assert ENDS_BY_FILE.search(render(parse_recipe(recipe)).text)


def test_backends_that_can_write_a_file_say_so() -> None:
    assert hasattr(SlurmBackend, "finish") and hasattr(RayBackend, "finish")
    assert not hasattr(HfJobsBackend, "finish")


async def test_ray_needs_storage_that_both_see(tmp_path: Path) -> None:
    def backend(folder: Path | None) -> RayBackend:
        return RayBackend(settings=RaySettings(url="http://127.0.0.1:1", folder=str(folder) if folder else None))

    (tmp_path / "job-1" / "output").mkdir(parents=True)
    await backend(tmp_path).finish(JobHandle("ray", "job-1"))
    assert (tmp_path / "job-1" / "output" / "finish").exists()
    with pytest.raises(BadInput, match="cannot be reached"):
        await backend(None).finish(JobHandle("ray", "job-1"))
