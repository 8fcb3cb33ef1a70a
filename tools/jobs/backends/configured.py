"""Which compute backends a workspace has: this machine and Hugging Face Jobs always, clusters where configured."""

from __future__ import annotations

from functools import partial

from mlintern.common.clock import Clock
from mlintern.tools.config import Config
from mlintern.tools.errors import MissingDependency
from mlintern.tools.hub.client import HubClient
from mlintern.tools.jobs.backend import Backend
from mlintern.tools.jobs.backends.hf.backend import HfJobsBackend
from mlintern.tools.jobs.backends.local.backend import LocalBackend
from mlintern.tools.sandbox.isolation import HOW_TO_GET_IT, best_method
from mlintern.tools.sandbox.policy import Method
from mlintern.tools.workspace import Workspace


def isolation_of(*, unsandboxed: bool) -> Method | None:
    """What isolates local jobs and dry runs; None where the user switched that off.

    Raises:
        MissingDependency: nothing on this machine can.
    """
    if unsandboxed:
        return None
    method = best_method()
    if method is None:
        raise MissingDependency("Nothing here can isolate a local job.", next_step=HOW_TO_GET_IT)
    return method


def set_up(
    *,
    workspace: Workspace,
    clock: Clock,
    config: Config,
    slots: int | None = None,
    python: str | None = None,
    unsandboxed: bool = False,
) -> dict[str, Backend]:
    """The backends by name, this machine first. Hugging Face Jobs need a token only when they are used.

    Clusters are those of the workspace's ``config.toml``; ``MLINTERN_RAY_URL`` names a Ray cluster without it. What a
    person gave when they started the server (the last three) goes before the file.
    """
    here = config.local
    backends: dict[str, Backend] = {
        "local": LocalBackend(
            workspace=workspace,
            clock=clock,
            slots=slots or here.slots,
            python=python or here.python,
            cpus=here.cpus,
            memory_limit_gib=here.memory_limit_gib,
            isolation=partial(isolation_of, unsandboxed=unsandboxed),
        )
    }
    if config.slurm is not None:
        from mlintern.tools.jobs.backends.slurm.backend import SlurmBackend

        backends["slurm"] = SlurmBackend(settings=config.slurm, workspace=workspace)
    if config.ray is not None:
        from mlintern.tools.jobs.backends.ray.backend import RayBackend

        backends["ray"] = RayBackend(settings=config.ray)
    backends["hf_jobs"] = HfJobsBackend(api=HubClient().api, settings=config.hf_jobs)
    return backends
