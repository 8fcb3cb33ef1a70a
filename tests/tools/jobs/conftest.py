"""Real clusters, started once for all tests that need them; where one is not installed, its tests are skipped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.services.hf_jobs import HfJobs
from tests.services.ray import ray_program, running_ray
from tests.services.slurm import Slurm, running_slurm, slurm_is_installed


@dataclass(frozen=True)
class Ray:
    """A running cluster: the base URL of its Jobs API, and a folder that it shares with the test."""

    url: str
    folder: Path


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if not slurm_is_installed():
        pytest.skip("needs root and Debian's slurm-wlm and munge")
    with running_slurm(tmp_path_factory.mktemp("cluster") / "slurm") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ray]:
    if ray_program() is None:
        pytest.skip("needs Ray: make ray")
    with running_ray(tmp_path_factory.mktemp("r") / "ray") as url:
        yield Ray(url, tmp_path_factory.mktemp("shared"))


@pytest.fixture
def hf_jobs() -> Iterator[HfJobs]:
    with HfJobs() as service:
        yield service
