"""The slash commands of the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from mlintern.common.commands import shown_command
from mlintern.common.consent import BadRule, Rule
from mlintern.common.text import cut_line, did_you_mean, format_usd
from mlintern.orchestrator.budget import BudgetExhausted
from mlintern.orchestrator.compaction import CompactionFailed
from mlintern.orchestrator.export import as_markdown, as_trace
from mlintern.orchestrator.frontend import Controls
from mlintern.orchestrator.model import ModelError
from mlintern.orchestrator.session import read_events
from mlintern.orchestrator.ui.consent import Say
from mlintern.orchestrator.ui.lines import job_lines

HELP = """\
/help                this list
/plan                the agent's plan
/cost                what the model has cost
/compact             shorten the conversation now
/model               the model and its endpoint
/jobs                the jobs, as the server lists them
/approve [RULE]      what was approved; with a rule, allow it for this session: local<=30m
/undo                take back your last message and what followed (what tools did stays done)
/export [trace]      write the session as Markdown, or as a trace for the Hub's viewer
/quit                leave; running jobs go on"""


class CommandCompleter(Completer):
    """Completes the commands at the beginning of a line, each with what it does."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        typed = document.text_before_cursor
        if not typed.startswith("/") or " " in typed:
            return
        for line in HELP.splitlines():
            word, _, meaning = line.partition(" ")
            if word.startswith(typed):
                yield Completion(word, start_position=-len(typed), display_meta=meaning.strip())


class Commands:
    """Acts on the agent that is attached."""

    def __init__(self, controls: Controls, *, say: Say) -> None:
        self._controls = controls
        self._agent = controls.agent
        self._say = say

    async def run(self, line: str, *, idle: bool) -> None:
        """Carry out one line; ``idle`` is whether the agent waits for a message."""
        word, _, rest = line.strip().partition(" ")
        actions = {
            "/help": self._help,
            "/plan": self._plan,
            "/cost": self._cost,
            "/compact": self._compact,
            "/model": self._model,
            "/jobs": self._jobs,
            "/approve": self._approve,
            "/undo": self._undo,
            "/export": self._export,
            "/quit": self._quit,
        }
        action = actions.get(word)
        if action is None:
            self._say(f"There is no command {word}. {did_you_mean(word, actions, otherwise='See /help.')}")
        elif word in ("/compact", "/undo") and not idle:
            self._say(f"{word} works when the agent waits; interrupt it first with Ctrl-C.")
        else:
            await action(rest.strip())

    async def _help(self, rest: str) -> None:
        self._say(HELP)

    async def _plan(self, rest: str) -> None:
        self._say(self._agent.plan.render() or "There is no plan yet.")

    async def _cost(self, rest: str) -> None:
        budget = self._agent.orchestrator.budget
        limit = f" of {format_usd(budget.limit_usd)}" if budget.limit_usd is not None else ""
        turns = self._agent.orchestrator.turn
        self._say(f"The model has cost {format_usd(budget.spent_usd)}{limit} in {turns} turns. Jobs: see /jobs.")

    async def _compact(self, rest: str) -> None:
        try:
            done = await self._agent.orchestrator.compact()
        except (CompactionFailed, BudgetExhausted, ModelError) as error:
            self._say(f"Not compacted: {error}")
        else:
            if not done:
                self._say("There is nothing to compact.")

    async def _model(self, rest: str) -> None:
        settings = self._agent.orchestrator.settings
        effort = f", effort {settings.effort}" if settings.effort else ""
        self._say(f"{settings.model}{effort}")
        if rest:
            self._say(
                "A session keeps its model, since its history and cache are bound to it. To go on with another:"
                f" {shown_command('mlintern-orchestrate', '--resume', self._agent.session.id, '--model', rest)}"
            )

    async def _jobs(self, rest: str) -> None:
        tool = self._agent.hosts.by_remote_name("list_jobs")
        if tool is None:
            self._say("No connected server lists jobs.")
            return
        outcome = await self._agent.hosts.call(tool.name, {})
        self._say(outcome.text if outcome.is_error else job_lines(outcome))

    async def _approve(self, rest: str) -> None:
        approver = self._agent.approver
        if rest:
            try:
                approver.given_rules.append(Rule.parse(rest))
            except BadRule as error:
                self._say(str(error))
                return
        rules = [*approver.rules, *approver.given_rules]
        self._say("allowed: " + (", ".join(rule.text for rule in rules) or "nothing in advance"))
        for line in approver.given:
            self._say(f"approved: {line}")

    async def _undo(self, rest: str) -> None:
        taken = self._agent.orchestrator.undo()
        if taken is None:
            self._say("There is no message of yours to take back.")
        else:
            self._say(f"Taken back: {cut_line(taken, 80)} (what tools did since stays done)")

    async def _export(self, rest: str) -> None:
        session = self._agent.session
        events = list(read_events(session.folder))
        trace = rest == "trace"
        path = Path.cwd() / f"{session.id}.{'jsonl' if trace else 'md'}"
        path.write_text(as_trace(events) if trace else as_markdown(events), encoding="utf-8")
        self._say(f"Written: {path}")

    async def _quit(self, rest: str) -> None:
        self._controls.interrupts.quit()
