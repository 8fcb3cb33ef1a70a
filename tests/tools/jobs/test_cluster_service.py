"""Real Slurm and real Ray as a user of the service sees them: results home, bills right, cancellations honest."""

from __future__ import annotations

import sys

import pytest

from mlintern.common.clock import SystemClock
from mlintern.tools.config import RayHardware, RaySettings, SlurmHardware, SlurmSettings
from mlintern.tools.jobs.backends.ray.backend import RayBackend
from mlintern.tools.jobs.backends.slurm.backend import SlurmBackend
from mlintern.tools.jobs.job_results import JobStatus
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.services.slurm import Slurm
from tests.tools.jobs.conftest import Ray
from tests.tools.jobs.local_lab import eventually
from tests.tools.jobs.remote_lab import RemoteLab
from tests.tools.jobs.test_hf_jobs_service import SCRIPT

pytestmark = [pytest.mark.anyio, pytest.mark.real, pytest.mark.slow]

SLEEP = "import time; print('ready', flush=True); time.sleep(100)"


@pytest.fixture
def on_slurm(slurm: Slurm, workspace: Workspace, ledger: Ledger) -> RemoteLab:
    hardware = {"node": SlurmHardware(partition="debug", usd_per_hour=36.0)}
    settings = SlurmSettings(launch=(sys.executable,), environment=slurm.environment, hardware=hardware)
    return RemoteLab(
        workspace, ledger, SystemClock(wait_scale=0.05), SlurmBackend(settings=settings, workspace=workspace)
    )


@pytest.fixture
def on_ray(ray: Ray, workspace: Workspace, ledger: Ledger) -> RemoteLab:
    hardware = {"node": RayHardware(cpus=2, usd_per_hour=36.0)}
    settings = RaySettings(url=ray.url, launch=(sys.executable,), hardware=hardware)
    return RemoteLab(workspace, ledger, SystemClock(wait_scale=0.05), RayBackend(settings=settings))


async def brings_its_results_home(lab: RemoteLab) -> None:
    job_id = await lab.start(SCRIPT, timeout="10m")
    status = await lab.end_of(job_id)
    assert (status.state, status.metrics, len(status.evaluations)) == ("succeeded", {"loss": 0.5}, 1)
    assert "the first line" in lab.log(job_id)
    (_, reserved), *charges, (kind, released) = lab.entries(job_id)
    assert (reserved, kind) == (6.0, "release")
    assert 0 < status.usd_so_far < 1.0, "36 dollars an hour for some seconds"
    assert sum(usd for _, usd in charges) == pytest.approx(status.usd_so_far)
    assert released == pytest.approx(6.0 - status.usd_so_far)


async def test_a_slurm_job_brings_its_results_home(on_slurm: RemoteLab) -> None:
    await brings_its_results_home(on_slurm)


async def test_a_ray_job_brings_its_results_home(on_ray: RemoteLab) -> None:
    await brings_its_results_home(on_ray)


async def test_a_slurm_job_behind_a_prefix_brings_its_results_home(
    slurm: Slurm, workspace: Workspace, ledger: Ledger, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = SlurmSettings(
        prefix=("sh", "-c"),
        folder=str(tmp_path_factory.mktemp("far")),
        launch=(sys.executable,),
        environment=slurm.environment,
        hardware={"node": SlurmHardware(partition="debug", usd_per_hour=36.0)},
    )
    await brings_its_results_home(
        RemoteLab(workspace, ledger, SystemClock(wait_scale=0.05), SlurmBackend(settings=settings))
    )


async def test_a_cancelled_slurm_job_keeps_the_reason_and_is_charged_for_what_it_ran(on_slurm: RemoteLab) -> None:
    job_id = await on_slurm.start(SLEEP, timeout="10m")
    await running(on_slurm, job_id)
    await on_slurm.jobs.cancel(job_id, reason="enough")
    status = await on_slurm.end_of(job_id)
    assert (status.state, status.error) == ("cancelled", "enough")
    assert status.usd_so_far < 1.0


async def test_a_ray_job_cancelled_while_it_waits_says_so_and_ends_when_its_turn_comes(on_ray: RemoteLab) -> None:
    first = await on_ray.start(SLEEP, run_name="first")
    await running(on_ray, first)
    second = await on_ray.start("print('it ran'); import time; time.sleep(100)", run_name="second")
    waiting = await on_ray.jobs.cancel(second, reason="not needed")
    assert waiting.state == "queued", "Ray has not ended it, so it is not reported as ended"
    assert "end was asked for" in waiting.detail and "waiting for resources" in waiting.detail
    seen_elsewhere = await on_ray.server().poll(second)
    assert "end was asked for" in seen_elsewhere.detail
    await on_ray.jobs.cancel(first)
    assert (await on_ray.end_of(first)).state == "cancelled"
    status = await on_ray.end_of(second)
    assert (status.state, status.error) == ("cancelled", "not needed")


async def running(lab: RemoteLab, job_id: str) -> JobStatus:
    return await eventually(lambda: lab.jobs.poll(job_id), lambda status: "ready" in status.log_tail)
