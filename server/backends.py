"""Which compute backends this server has: this machine always, the rest where it is configured or found."""

from __future__ import annotations

from mlintern.common.clock import Clock
from mlintern.server.settings import Settings
from mlintern.tools.config import Config
from mlintern.tools.jobs.backends.local import LocalBackend
from mlintern.tools.jobs.spec import Backend
from mlintern.tools.workspace import Workspace


def set_up(*, workspace: Workspace, clock: Clock, settings: Settings) -> dict[str, Backend]:
    """The backends by name, this machine first.

    Clusters are those of the workspace's ``config.toml``; ``MLINTERN_RAY_URL`` names a Ray cluster without it.

    Raises:
        BadInput: ``config.toml`` cannot be used.
    """
    config = Config.load(workspace.root / "config.toml")
    backends: dict[str, Backend] = {
        "local": LocalBackend(workspace=workspace, clock=clock, slots=settings.slots, python=settings.python)
    }
    if config.slurm is not None:
        from mlintern.tools.jobs.backends.slurm import SlurmBackend

        backends["slurm"] = SlurmBackend(settings=config.slurm)
    if config.ray is not None:
        from mlintern.tools.jobs.backends.ray import RayBackend

        backends["ray"] = RayBackend(settings=config.ray)
    return backends
