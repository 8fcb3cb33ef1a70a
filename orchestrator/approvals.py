"""Answer what servers ask: by rules given in advance, else by a person at the terminal, else with no, at once."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio

from mlintern.common.consent import Action, Rule, covering, suggested
from mlintern.common.durations import BadDuration, parse_duration
from mlintern.orchestrator.events import ApprovalAnswered
from mlintern.orchestrator.mcp_connection import Answer, Question
from mlintern.orchestrator.ports import Journal, Ui

ReadText = Callable[[str, str], Awaitable[str | None]]
"""(server, uri) -> the text of a resource, or None."""

NOBODY = "Nobody is there to ask, and no --allow rule covers this."


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A person's answer. ``allowance`` is a rule that they gave with it, for this session only."""

    approved: bool
    note: str = ""
    allowance: Rule | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """A question as a person sees it. ``script`` gives its script, ``changes`` what differs from the last one."""

    question: Question
    asked: Action | None
    script: Callable[[], Awaitable[str]] | None = None
    changes: Callable[[], Awaitable[str]] | None = None


class Person(Protocol):
    """The person at the terminal."""

    async def decide(self, request: Request) -> Decision:
        """Yes or no to one action. Waits for as long as the person takes."""
        ...

    async def fill_in(self, question: Question) -> Answer:
        """A form that asks for something else than consent."""
        ...


@dataclass
class Approver:
    """Gives each question an answer; one at a time reaches the person. Is an `mcp_connection.Elicit`.

    Attributes:
        denied: what was denied for lack of a person or a rule, with nothing approved since.
        given: what was approved in this session, one line each.
        given_rules: allowances that a person gave in this session, each on its own.
    """

    rules: list[Rule]
    journal: Journal
    ui: Ui
    person: Person | None = None
    read_text: ReadText | None = None
    spent: dict[str, float] = field(default_factory=dict)
    last_script: str = ""
    denied: list[str] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    given_rules: list[Rule] = field(default_factory=list)
    _one: anyio.Lock = field(default_factory=anyio.Lock)

    async def __call__(self, question: Question) -> Answer:
        async with self._one:
            if question.url or not is_consent(question.schema):
                return await self._other(question)
            asked = Action.from_meta(question.meta)
            rules = self._rules_for(question, asked) if asked is not None else None
            if rules is not None and asked is not None:
                for rule in rules:
                    self.spent[rule.text] = self.spent.get(rule.text, 0.0) + (asked.usd_worst or 0.0)
                decision, via = Decision(approved=True), f"rule {', '.join(rule.text for rule in rules)}"
            elif self.person is not None:
                whole, changes = self._script_readers(question, asked)
                request = Request(question=question, asked=asked, script=whole, changes=changes)
                decision = await self.person.decide(request)
                via = "terminal"
            else:
                narrow = suggested(asked) if asked is not None else None
                hint = f" The user can run again with --allow '{narrow.text}', or approve it." if narrow else ""
                decision = Decision(approved=False, note=NOBODY + hint)
                via = "no rule"
            self._record(question, asked, decision, via=via)
            return _answer(decision)

    def _rules_for(self, question: Question, asked: Action) -> tuple[Rule, ...] | None:
        """What allows it: the rules given at the start together, or one that a person gave since."""
        if not agrees(asked, question):
            return None
        groups = [tuple(self.rules), *((rule,) for rule in self.given_rules)]
        found = (covering(group, asked, usd_spent=lambda rule: self.spent.get(rule.text, 0.0)) for group in groups)
        return next((rules for rules in found if rules is not None), None)

    async def _other(self, question: Question) -> Answer:
        answer = await self.person.fill_in(question) if self.person is not None else Answer(action="decline")
        approved = answer.action == "accept"
        via = "terminal" if self.person is not None else "no person"
        self._record(question, None, Decision(approved=approved), via=via)
        return answer

    def _record(self, question: Question, asked: Action | None, decision: Decision, *, via: str) -> None:
        headline = question.message.partition("\n")[0]
        script_id = str(question.arguments.get("script_id") or "")
        self.journal.append(
            "approval",
            tool=question.tool,
            server=question.server,
            message=question.message,
            approved=decision.approved,
            note=decision.note,
            via=via,
            usd_worst=asked.usd_worst if asked else None,
            digest=asked.consent_digest if asked else "",
            script_id=script_id,
        )
        if decision.approved:
            self.last_script = script_id or self.last_script
            self.denied.clear()
            self.given.append(f"{headline} ({via})")
        elif via != "terminal":
            self.denied.append(headline)
        if decision.allowance is not None:
            self.given_rules.append(decision.allowance)
        self.ui.show(
            ApprovalAnswered(
                tool=question.tool,
                message=headline,
                approved=decision.approved,
                note=decision.note,
                via=via,
            )
        )

    def _script_readers(
        self, question: Question, asked: Action | None
    ) -> tuple[Callable[[], Awaitable[str]] | None, Callable[[], Awaitable[str]] | None]:
        """Those of the whole script, and of what changed in it since the last approved one, if there was another."""
        script_id = (asked.script_id if asked else "") or question.arguments.get("script_id")
        if self.read_text is None or not isinstance(script_id, str) or not script_id:
            return None, None
        last = self.last_script

        async def whole() -> str:
            new = await self._script(question.server, script_id)
            return f"The script {script_id} cannot be read from {question.server}." if new is None else new

        async def changes() -> str:
            old = await self._script(question.server, last)
            return await whole() if old is None else diff(old, await whole(), names=(last, script_id))

        return whole, changes if last and last != script_id else None

    async def _script(self, server: str, script_id: str) -> str | None:
        assert self.read_text is not None, "only called where there is a reader"
        return await self.read_text(server, f"mlintern://scripts/{script_id}")


def restore(approver: Approver, events: Sequence[Mapping[str, Any]]) -> None:
    """Take over from a session's events what its rules have spent. No allowance given by a person comes back."""
    for event in events:
        if event["kind"] != "approval" or not event["approved"]:
            continue
        approver.last_script = event.get("script_id") or approver.last_script
        approver.given.append(f"{event['message'].partition(chr(10))[0]} ({event['via']})")
        if event["via"].startswith("rule "):
            for text in event["via"].removeprefix("rule ").split(", "):
                approver.spent[text] = approver.spent.get(text, 0.0) + (event.get("usd_worst") or 0.0)


def agrees(asked: Action, question: Question) -> bool:
    """Whether the call that led to the question is of the same tool and backend, and asks for no longer time."""
    backend = question.arguments.get("backend")
    if asked.kind != question.tool or (isinstance(backend, str) and backend and backend != asked.where):
        return False
    try:
        return parse_duration(str(question.arguments["timeout"])) <= asked.seconds
    except (KeyError, BadDuration):
        return True


def is_consent(schema: Mapping[str, Any]) -> bool:
    """Whether a form asks for a yes or a no: a boolean ``approve``, and nothing else that must be filled in."""
    properties = schema.get("properties") or {}
    approve = properties.get("approve")
    required = set(schema.get("required") or ())
    return isinstance(approve, Mapping) and approve.get("type") == "boolean" and required <= {"approve"}


def diff(old: str, new: str, *, names: tuple[str, str]) -> str:
    """``new`` as a unified diff to ``old``."""
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), *names, lineterm="")
    return "\n".join(lines) or "The script is the same as the last approved one."


def _answer(decision: Decision) -> Answer:
    if not decision.approved and not decision.note:
        return Answer(action="decline")
    content: dict[str, Any] = {"approve": decision.approved}
    if decision.note:
        content["note"] = decision.note  # to the model, word for word
    return Answer(action="accept", content=content)
