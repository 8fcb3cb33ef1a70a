"""How long a submission takes until it is confirmed, on every remote backend that is here.

    python benchmarks/submission.py

Slurm and Ray are real ones of this machine (skipped, and named as such, where they are not installed); Hugging Face
Jobs are the stand-in on loopback, so that number is ours alone, without their network and service. Bound: what we add
to the service itself, which is the whole of the number on the stand-in, is at most 500 ms (median).
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

sys.path.insert(0, str(Path(__file__).parents[1]))

from mlintern.common.clock import SystemClock
from mlintern.tools.config import HfJobsSettings, RaySettings, SlurmSettings
from mlintern.tools.jobs.backend import Backend
from mlintern.tools.jobs.backends.hf.backend import HfJobsBackend
from mlintern.tools.jobs.backends.ray.backend import RayBackend
from mlintern.tools.jobs.backends.slurm.backend import SlurmBackend
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.services.hf_jobs import TOKEN, HfJobs
from tests.services.ray import ray_program, running_ray
from tests.services.slurm import running_slurm, slurm_is_installed
from tests.tools.jobs.remote_lab import RemoteLab

ROUNDS = 10
BOUND_MS = 500.0
LAUNCH = (sys.executable,)


@contextmanager
def slurm(workspace: Workspace, folder: Path) -> Iterator[Backend | None]:
    if not slurm_is_installed():
        yield None
        return
    with running_slurm(folder / "slurm") as cluster:
        yield SlurmBackend(
            settings=SlurmSettings(launch=LAUNCH, environment=cluster.environment), workspace=workspace
        )


@contextmanager
def ray(workspace: Workspace, folder: Path) -> Iterator[Backend | None]:
    if ray_program() is None:
        yield None
        return
    with running_ray(folder / "r" / "ray") as url:
        yield RayBackend(settings=RaySettings(url=url, launch=LAUNCH))


@contextmanager
def hf_jobs(workspace: Workspace, folder: Path) -> Iterator[Backend | None]:
    from huggingface_hub import HfApi

    with HfJobs() as service:
        settings = HfJobsSettings(launch=LAUNCH, folder=str(folder / "container"))
        yield HfJobsBackend(api=lambda: HfApi(endpoint=service.url, token=TOKEN), settings=settings)


async def measure(workspace: Workspace, backend: Backend) -> list[float]:
    """Milliseconds of each submission, from the plan to the confirmation."""
    lab = RemoteLab(workspace, Ledger(workspace.ledger), SystemClock(), backend)
    taken = []
    for number in range(ROUNDS + 1):
        began = time.perf_counter()
        await lab.start("print(1)", timeout="10m", run_name=f"{backend.name} {number}")
        taken.append((time.perf_counter() - began) * 1000)
    return taken[1:]  # the first one imports and connects


def main() -> int:
    missed = False
    print(f"{'backend':<22}{'median':>10}{'slowest':>10}   of {ROUNDS} submissions, ms")
    for title, place in (("slurm (real)", slurm), ("ray (real)", ray), ("hf_jobs (stand-in)", hf_jobs)):
        with tempfile.TemporaryDirectory() as name:
            workspace = Workspace.open(Path(name) / "home")
            with place(workspace, Path(name)) as backend:
                if backend is None:
                    print(f"{title:<22}{'not installed':>20}")
                    continue
                taken = anyio.run(measure, workspace, backend)
        print(f"{title:<22}{statistics.median(taken):>10.0f}{max(taken):>10.0f}")
        missed |= place is hf_jobs and statistics.median(taken) > BOUND_MS
    print(f"bound: {BOUND_MS:.0f} ms on the stand-in: {'missed' if missed else 'held'}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
