"""The services behind the tools, each built when it is first needed, so that starting the server loads none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from mlintern.common.clock import Clock, SystemClock
from mlintern.server.settings import Settings
from mlintern.tools.errors import MlinternError
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace

if TYPE_CHECKING:
    from mlintern.server.apps.approval_card import CardTokens
    from mlintern.server.asking import Gate
    from mlintern.tools.allowances import Allowances
    from mlintern.tools.approvals import Approvals
    from mlintern.tools.campaigns.certificate import Certifier
    from mlintern.tools.campaigns.service import CampaignService
    from mlintern.tools.config import Config
    from mlintern.tools.data.contamination import ContaminationChecker
    from mlintern.tools.data.inspect_dataset import DatasetInspector
    from mlintern.tools.evals.service import EvalService
    from mlintern.tools.hub.browse import HubBrowser
    from mlintern.tools.hub.client import HubClient
    from mlintern.tools.hub.inspect_model import ModelInspector
    from mlintern.tools.hub.search import HubSearcher
    from mlintern.tools.jobs.backend import Backend
    from mlintern.tools.jobs.foreign_jobs import ForeignJobs
    from mlintern.tools.jobs.passed_secrets import PassedSecrets
    from mlintern.tools.jobs.service import JobService
    from mlintern.tools.papers.service import PaperService
    from mlintern.tools.publish.service import Publisher
    from mlintern.tools.reading_places import ReadingPlaces
    from mlintern.tools.reference.code import Code
    from mlintern.tools.reference.docs import Docs
    from mlintern.tools.runs.job_service import JobOptions
    from mlintern.tools.runs.service import RunService
    from mlintern.tools.scripts.chat import Chat
    from mlintern.tools.scripts.checking import ScriptChecker
    from mlintern.tools.scripts.store import ScriptStore
    from mlintern.tools.web import Web


@dataclass
class Lab:
    """Everything that the tools of one server share. Use it from the event loop's thread.

    A test replaces a service by assigning to its name.
    """

    settings: Settings
    clock: Clock = field(default_factory=SystemClock)
    last_polls: dict[str, str] = field(default_factory=dict)
    """``next_since`` of the last answer of poll_job on each job, for callers that do not pass it back."""

    @cached_property
    def workspace(self) -> Workspace:
        return Workspace.open(self.settings.workspace)

    @cached_property
    def ledger(self) -> Ledger:
        lost = not self.workspace.ledger.exists() and (self.workspace.root / "jobs").is_dir()
        ledger = Ledger(self.workspace.ledger)
        if lost:
            from mlintern.tools.jobs.rebuild import rebuild

            rebuild(self.workspace, ledger, now=self.clock.now())
        return ledger

    @cached_property
    def approvals(self) -> Approvals:
        from mlintern.tools.approvals import Approvals

        return Approvals(ledger=self.ledger, clock=self.clock, allowances=self.allowances)

    @cached_property
    def allowances(self) -> Allowances:
        """What was allowed when the server was started, below the budget of the workspace."""
        return replace(self.settings.allowances, ceiling_usd=self.config.budget.workspace)

    @cached_property
    def gate(self) -> Gate:
        from mlintern.server.asking import Gate

        return Gate(
            approvals=self.approvals,
            clock=self.clock,
            tokens=self.card_tokens,
            workspace=self.workspace.root,
            script_text=self.script_text,
        )

    @cached_property
    def card_tokens(self) -> CardTokens:
        from mlintern.server.apps.approval_card import CardTokens

        return CardTokens()

    @cached_property
    def known_secrets(self) -> PassedSecrets:
        """The values that no answer may hold."""
        import os

        from mlintern.tools.jobs.passed_secrets import PassedSecrets
        from mlintern.tools.jobs.planning import secret_value

        return PassedSecrets(
            ledger=self.ledger, environ=os.environ, value_of=lambda name: secret_value(name, os.environ)
        )

    def script_text(self, script_id: str) -> str:
        """The text of a script for the person who decides, or why it cannot be shown."""
        try:
            return self.scripts.get(script_id).text
        except MlinternError as error:
            return f"The script cannot be read: {error}"

    @cached_property
    def reading_places(self) -> ReadingPlaces:
        import os
        from pathlib import Path

        from mlintern.tools.reading_places import ReadingPlaces

        return ReadingPlaces.of(
            workspace=self.workspace.root,
            working=Path.cwd(),
            data=self.settings.data,
            environ=os.environ,
            home=Path.home(),
        )

    @cached_property
    def scripts(self) -> ScriptStore:
        from mlintern.tools.scripts.store import ScriptStore

        return ScriptStore(workspace=self.workspace, ledger=self.ledger, clock=self.clock)

    @cached_property
    def checker(self) -> ScriptChecker:
        from mlintern.tools.jobs.backends.configured import isolation_of
        from mlintern.tools.scripts.checking import ScriptChecker
        from mlintern.tools.scripts.dry_run import DryRunner
        from mlintern.tools.scripts.script_inputs import Materials
        from mlintern.tools.scripts.template_checks import TemplateChecker

        materials = Materials(hub=self.hub)
        runner = DryRunner(
            workspace=self.workspace,
            clock=self.clock,
            materials=materials,
            python=self.settings.python,
            isolation=partial(isolation_of, unsandboxed=self.settings.unsandboxed),
        )
        template = TemplateChecker(materials=materials)
        return ScriptChecker(store=self.scripts, template=template, runner=runner)

    @cached_property
    def chat(self) -> Chat:
        from mlintern.tools.jobs.backends.configured import isolation_of
        from mlintern.tools.jobs.backends.local.backend import LocalBackend
        from mlintern.tools.scripts.chat import MEMORY_GIB, Chat
        from mlintern.tools.workspace import Workspace

        backend = LocalBackend(
            workspace=Workspace(self.workspace.folder("chats")),
            clock=self.clock,
            python=self.settings.python,
            memory_limit_gib=MEMORY_GIB,
            grace_seconds=2.0,
            environments=self.workspace.folder("environments"),
            isolation=partial(isolation_of, unsandboxed=self.settings.unsandboxed),
            protected=self.workspace.root,
        )
        return Chat(workspace=self.workspace, ledger=self.ledger, clock=self.clock, backend=backend)

    @cached_property
    def job_options(self) -> JobOptions:
        from mlintern.tools.runs.job_service import JobOptions

        return JobOptions(
            slots=self.settings.slots,
            python=self.settings.python,
            budget_usd=self.allowances.limit_usd,
            unsandboxed=self.settings.unsandboxed,
        )

    @cached_property
    def jobs(self) -> JobService:
        from mlintern.tools.runs.job_service import job_service

        return job_service(
            workspace=self.workspace,
            ledger=self.ledger,
            clock=self.clock,
            config=self.config,
            options=self.job_options,
            scripts=self.scripts,
            evals=self.evals,
            hub=self.hub,
            backends=self.backends,
        )

    @cached_property
    def foreign_jobs(self) -> ForeignJobs:
        from mlintern.tools.jobs.foreign_jobs import ForeignJobs

        return ForeignJobs(ledger=self.ledger, backends=self.backends)

    @cached_property
    def config(self) -> Config:
        """``config.toml`` of the workspace.

        Raises:
            BadInput: it cannot be used.
        """
        from mlintern.tools.config import Config

        return Config.load(self.workspace.root / "config.toml")

    @cached_property
    def backends(self) -> dict[str, Backend]:
        return self.job_options.backends(workspace=self.workspace, clock=self.clock, config=self.config)

    @cached_property
    def evals(self) -> EvalService:
        from mlintern.tools.evals.hub_results import HubResults
        from mlintern.tools.evals.service import EvalService

        hub = HubResults(hub=self.hub, workspace=self.workspace, clock=self.clock)
        return EvalService(workspace=self.workspace, ledger=self.ledger, clock=self.clock, hub=hub)

    @cached_property
    def runs(self) -> RunService:
        from mlintern.tools.runs.service import RunService

        return RunService(workspace=self.workspace, ledger=self.ledger, clock=self.clock)

    @cached_property
    def campaigns(self) -> CampaignService:
        from mlintern.tools.campaigns.process import ensure_runner
        from mlintern.tools.campaigns.service import CampaignService

        return CampaignService(
            workspace=self.workspace,
            ledger=self.ledger,
            clock=self.clock,
            hub=self.hub,
            jobs=self.jobs,
            ensure_runner=partial(ensure_runner, workspace=self.workspace, options=self.job_options),
        )

    @cached_property
    def certifier(self) -> Certifier:
        from mlintern.tools.campaigns.certificate import Certifier

        return Certifier(
            workspace=self.workspace, ledger=self.ledger, clock=self.clock, contamination=self.contamination
        )

    async def experiment_of(self, arguments: Mapping[str, Any]) -> str | None:
        """The opened experiment that a call of a tool belongs to: named, or that of the job that is named."""

        def look() -> str | None:
            name = arguments.get("experiment")
            with self.ledger.read() as connection:
                if name is None and isinstance(arguments.get("job_id"), str):
                    row = connection.execute(
                        "SELECT experiment FROM jobs WHERE job_id = ?", (arguments["job_id"],)
                    ).fetchone()
                    name = row["experiment"] if row else None
                if not isinstance(name, str):
                    return None
                found = connection.execute("SELECT 1 FROM campaigns WHERE experiment = ?", (name,)).fetchone()
            return name if found else None

        return await anyio.to_thread.run_sync(look)

    @cached_property
    def web(self) -> Web:
        from mlintern.tools.web import Web

        return Web(self.workspace, self.clock)

    @cached_property
    def hub(self) -> HubClient:
        from mlintern.tools.hub.client import HubClient

        return HubClient()

    @cached_property
    def papers(self) -> PaperService:
        from mlintern.tools.papers.service import PaperService

        return PaperService(self.web, self.workspace, self.clock)

    @cached_property
    def datasets(self) -> DatasetInspector:
        from mlintern.tools.data.inspect_dataset import DatasetInspector

        return DatasetInspector(workspace=self.workspace, hub=self.hub, web=self.web)

    @cached_property
    def models(self) -> ModelInspector:
        from mlintern.tools.hub.inspect_model import ModelInspector
        from mlintern.tools.jobs.model_shape import memory_by_trainer

        return ModelInspector(hub=self.hub, estimate=memory_by_trainer)

    @cached_property
    def hub_search(self) -> HubSearcher:
        from mlintern.tools.hub.search import HubSearcher

        return HubSearcher(hub=self.hub, web=self.web)

    @cached_property
    def hub_files(self) -> HubBrowser:
        from mlintern.tools.hub.browse import HubBrowser

        return HubBrowser(hub=self.hub)

    @cached_property
    def publisher(self) -> Publisher:
        from mlintern.tools.publish.service import Publisher

        return Publisher(workspace=self.workspace, ledger=self.ledger, clock=self.clock, hub=self.hub)

    @cached_property
    def docs(self) -> Docs:
        from mlintern.tools.reference.docs import Docs

        return Docs(workspace=self.workspace, clock=self.clock, web=self.web)

    @cached_property
    def code(self) -> Code:
        from mlintern.tools.reference.code import Code

        return Code(web=self.web, clock=self.clock)

    @cached_property
    def contamination(self) -> ContaminationChecker:
        from mlintern.tools.data.contamination import ContaminationChecker

        return ContaminationChecker(hub=self.hub)

    async def close(self) -> None:
        """Close the connections to outside services. The ledger's end with the process, which is always safe."""
        if "web" in self.__dict__:
            await self.web.close()
