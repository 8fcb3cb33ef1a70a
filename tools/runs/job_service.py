"""The job service that the server and an experiment's runner share: same backends, limits, diagnosis and results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mlintern.common.clock import Clock
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace

if TYPE_CHECKING:
    from mlintern.tools.config import Config
    from mlintern.tools.evals.service import EvalService
    from mlintern.tools.hub.client import HubClient
    from mlintern.tools.jobs.backend import Backend
    from mlintern.tools.jobs.service import JobService
    from mlintern.tools.scripts.store import ScriptStore


@dataclass(frozen=True)
class JobOptions:
    """What the server's command line decides about jobs. An experiment's runner is handed the same.

    Attributes:
        slots: jobs at a time on this machine; None: as the configuration says.
        python: the interpreter of local jobs.
        budget_usd: what all jobs of the workspace may cost.
        unsandboxed: a person agreed that local jobs may run without isolation.
    """

    slots: int | None = None
    python: str | None = None
    budget_usd: float | None = None
    unsandboxed: bool = False

    def backends(self, *, workspace: Workspace, clock: Clock, config: Config) -> dict[str, Backend]:
        """The backends that are set up, by name."""
        from mlintern.tools.jobs.backends.configured import set_up

        return set_up(
            workspace=workspace,
            clock=clock,
            config=config,
            slots=self.slots,
            python=self.python,
            unsandboxed=self.unsandboxed,
        )


def job_service(
    *,
    workspace: Workspace,
    ledger: Ledger,
    clock: Clock,
    config: Config,
    options: JobOptions,
    scripts: ScriptStore,
    evals: EvalService,
    hub: HubClient,
    backends: Mapping[str, Backend] | None = None,
) -> JobService:
    """Jobs whose results are read and whose curves are diagnosed, within the budgets of the configuration.

    Args:
        backends: by name; those of ``options`` if None.
    """
    from mlintern.tools.health.diagnose import diagnose_run
    from mlintern.tools.jobs import money
    from mlintern.tools.jobs.gated import GatedRepos
    from mlintern.tools.jobs.model_shape import remote_shape
    from mlintern.tools.jobs.service import JobService

    if budgets := config.budget.experiments:
        with ledger.transaction() as connection:
            money.limit_experiments(connection, budgets, now=clock.now())
    return JobService(
        workspace=workspace,
        ledger=ledger,
        clock=clock,
        scripts=scripts,
        backends=backends
        if backends is not None
        else options.backends(workspace=workspace, clock=clock, config=config),
        collect_evaluations=evals.collect,
        diagnose=diagnose_run,
        model_shape=partial(remote_shape, hub),
        budget_usd=options.budget_usd,
        gated=GatedRepos(hub),
    )
