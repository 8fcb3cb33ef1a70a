"""Put an agent together: session, servers, model, budget, guard, compaction, tools. The only place that knows all."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from mlintern.common.clock import Clock
from mlintern.orchestrator import endpoint_check
from mlintern.orchestrator.anthropic_model import AnthropicModel
from mlintern.orchestrator.approvals import Approver, Person, restore
from mlintern.orchestrator.budget import ModelBudget
from mlintern.orchestrator.compaction import HistoryCompactor, summarizers
from mlintern.orchestrator.conversation import Conversation
from mlintern.orchestrator.events import Started
from mlintern.orchestrator.facts import LabFacts
from mlintern.orchestrator.loop import Orchestrator
from mlintern.orchestrator.mcp_hosts import McpHosts
from mlintern.orchestrator.options import Endpoint, Options, Sizes, settle
from mlintern.orchestrator.paid_calls import PaidCalls
from mlintern.orchestrator.pinned_rules import PinnedRules
from mlintern.orchestrator.plan import Plan
from mlintern.orchestrator.ports import LocalTool, Ui
from mlintern.orchestrator.recovery import Recovered, adapted, recover, take_up
from mlintern.orchestrator.session import Session, read_events
from mlintern.orchestrator.settings import LoopSettings
from mlintern.orchestrator.subagent import Research, ResearchSettings
from mlintern.orchestrator.summary import Caller
from mlintern.orchestrator.tool import Tool
from mlintern.orchestrator.tool_results import ReadSavedResult, SavedResults

PROMPT = Path(__file__).parent / "prompts" / "system.md"
INSTRUCTION_CHARS = 2_000


@dataclass(frozen=True)
class Agent:
    """Everything that is alive while the agent is."""

    orchestrator: Orchestrator
    session: Session
    hosts: McpHosts
    approver: Approver
    plan: Plan
    recovered: Recovered | None
    window: int


@asynccontextmanager
async def assemble(options: Options, *, ui: Ui, clock: Clock, person: Person | None) -> AsyncGenerator[Agent, None]:
    """An agent that is ready to `Orchestrator.say` and `run`, on a new session or on the one to resume.

    Raises:
        SessionError: the session to resume cannot be used.
        UnknownPrice: there is a budget, and nobody knows what the model costs.
        NothingAnswers: there is no server at the model's address.
    """
    with _session(options, clock) as (session, recovered):
        approver = Approver(rules=list(options.allow), journal=session, ui=ui, person=person)
        saved = SavedResults(session.results)
        plan = Plan(PinnedRules([*((recovered.header.get("rules") or ()) if recovered else ()), *options.rules]))
        own: list[LocalTool] = [plan, ReadSavedResult(saved)]
        header = recovered.header if recovered else {}
        endpoint = Endpoint.choose(options, header)
        budget = ModelBudget(options.budget_usd, options.prices)
        for each in filter(None, (endpoint.model, endpoint.fallback_model)):
            budget.check(each)
        if endpoint.base_url is not None:
            await endpoint_check.check(endpoint.base_url)
        model = AnthropicModel(
            profile=endpoint.profile,
            clock=clock,
            base_url=endpoint.base_url,
            api_key=options.api_key,
            policy=options.retry,
        )
        async with (
            contextlib.aclosing(model),
            McpHosts.connect(
                options.entries,
                bad=options.bad_entries,
                saved=saved,
                elicit=approver,
                logs=session.folder,
                reserved=[Research.tool.name, *(each.tool.name for each in own)],
            ) as hosts,
        ):
            approver.read_text = hosts.read_text
            settings, sizes = await settle(options, endpoint, header=header, model=model)
            building = _Building(options, ui, clock, session, recovered, endpoint, settings, sizes)
            yield await building.agent(model, hosts, own, approver, plan)


@contextlib.contextmanager
def _session(options: Options, clock: Clock) -> Iterator[tuple[Session, Recovered | None]]:
    if options.resume is None:
        with Session.create(options.sessions, clock=clock) as session:
            try:
                yield session, None
            finally:
                session.remove_if_empty()
    else:
        with Session.open(options.sessions, options.resume, clock=clock) as session:
            yield session, recover(read_events(session.folder))


@dataclass(frozen=True)
class _Building:
    options: Options
    ui: Ui
    clock: Clock
    session: Session
    recovered: Recovered | None
    endpoint: Endpoint
    settings: LoopSettings
    sizes: Sizes

    async def agent(
        self, model: AnthropicModel, hosts: McpHosts, own: Sequence[LocalTool], approver: Approver, plan: Plan
    ) -> Agent:
        budget = self._budget()
        local = [*own, self._research(model, hosts, budget, plan.rules)]
        tools = sorted((*hosts.tools, *(each.tool for each in local)), key=lambda tool: tool.name)
        calls = self._calls(model, budget)
        orchestrator = Orchestrator(
            calls=calls,
            hosts=hosts,
            local=local,
            conversation=self._conversation(hosts, tools),
            compactor=self._compactor(calls, hosts, approver, plan),
            settings=self.settings,
            clock=self.clock,
            plan=plan,
            denied=approver.denied if approver.person is None else (),
            started=self.recovered.header.get("time") if self.recovered else None,
        )
        agent = Agent(orchestrator, self.session, hosts, approver, plan, self.recovered, self.sizes.window)
        if self.recovered is not None:
            restore(approver, self.recovered.events)
            await take_up(self.recovered, agent=orchestrator, plan=plan, hosts=hosts, journal=self.session)
        self._show_start(hosts, tools)
        return agent

    def _budget(self) -> ModelBudget:
        spent = self.recovered.spent_usd if self.recovered else 0.0
        return ModelBudget(self.options.budget_usd, self.options.prices, spent_usd=spent)

    def _conversation(self, hosts: McpHosts, tools: Sequence[Tool]) -> Conversation:
        """A resumed conversation has the system prompt and the tools that it began with, to the byte."""
        found = self.recovered
        if found is not None and found.header:
            return Conversation(
                system=found.header["system"],
                tools=found.header["tools"],
                messages=adapted(found.messages, same_model=self.endpoint.same, profile=self.endpoint.profile),
                known_tokens=found.known_tokens if self.endpoint.same else 0,
            )
        conversation = Conversation(
            system=system_text(hosts.instructions), tools=[tool.definition() for tool in tools]
        )
        self.session.append(
            "session_start",
            model=self.settings.model,
            profile=self.endpoint.profile.name,
            base_url=self.endpoint.base_url,
            system=conversation.system[0]["text"],
            tools=list(conversation.tools),
            settings={
                "max_tokens": self.settings.max_tokens,
                "thinking": self.settings.thinking,
                "effort": self.settings.effort,
                "window": self.sizes.window,
                "hours": self.settings.hours,
            },
            rules=list(self.options.rules),
            version=version("mlintern"),
        )
        return conversation

    def _research(self, model: AnthropicModel, hosts: McpHosts, budget: ModelBudget, rules: PinnedRules) -> Research:
        settings = ResearchSettings.choose(
            self.endpoint.profile, main=self.settings, window=self.sizes.window, budget=budget
        )
        return Research(
            model=model,
            hosts=hosts,
            budget=budget,
            settings=settings,
            fallback_model=self.endpoint.fallback_model,
            rules=rules,
            journal=self.session,
            journal_for=self.session.child,
            ui=self.ui,
            clock=self.clock,
        )

    def _calls(self, model: AnthropicModel, budget: ModelBudget) -> PaidCalls:
        return PaidCalls(
            model=model,
            budget=budget,
            journal=self.session,
            ui=self.ui,
            fallback_model=self.endpoint.fallback_model,
        )

    def _compactor(self, calls: PaidCalls, hosts: McpHosts, approver: Approver, plan: Plan) -> HistoryCompactor:
        caller = Caller(calls=calls, settings=self.settings)
        return HistoryCompactor(
            summarizers=summarizers(self.endpoint.profile, caller, window=self.sizes.window),
            trigger=self.sizes.trigger,
            window=self.sizes.window,
            read_facts=LabFacts(hosts, budget=calls.budget, approvals=lambda: approver.given),
            plan=plan,
        )

    def _show_start(self, hosts: McpHosts, tools: Sequence[Tool]) -> None:
        self.ui.show(
            Started(
                session_id=self.session.id,
                model=self.settings.model,
                tools=[tool.name for tool in tools],
                servers=sorted({tool.server for tool in hosts.tools}),
                failures={bad.name: bad.reason for bad in hosts.failures},
                resumed=self.recovered is not None,
            )
        )


def system_text(instructions: Mapping[str, str]) -> str:
    """The system prompt, with what the connected servers say about their use."""
    text = PROMPT.read_text(encoding="utf-8").partition("-->\n")[2].strip()
    for server, said in instructions.items():
        text += f"\n\n# The server {server}\n{said[:INSTRUCTION_CHARS]}"
    return text
