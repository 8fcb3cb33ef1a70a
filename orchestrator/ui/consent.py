"""The words of a question at the terminal, and how its answers are read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from mlintern.common.consent import BadRule, Rule, meaning, suggested
from mlintern.common.text import cut_line, format_usd
from mlintern.orchestrator.approvals import Decision, Request
from mlintern.orchestrator.events import TurnEnded
from mlintern.orchestrator.mcp_connection import Answer, Question
from mlintern.orchestrator.ui import lines

CONSENT_HELP = (
    "y: yes, once · a [RULE]: yes, and without asking within this allowance from now on, in this session"
    " · n [reason]: no · s: show the whole script · d: what changed in it since the last approved one"
)


class Say(Protocol):
    def __call__(self, text: str, *, style: str = "") -> None: ...


def consent_lines(request: Request, *, budget: TurnEnded | None) -> list[str]:
    """What, where, what it costs at worst, in the server's own words; the model's budget; the default rule."""
    shown = [f"{request.question.server} asks: {request.question.tool or 'a tool'}"]
    shown += lines.question_lines(request.question.message)
    if budget is not None and budget.budget_usd is not None:
        left = max(0.0, budget.budget_usd - budget.usd)
        shown.append(f"Model budget left: {format_usd(left)} of {format_usd(budget.budget_usd)}")
    rule = suggested(request.asked) if request.asked is not None else None
    if rule is not None:
        shown.append(f"Allowance with a: {rule.text}")
        shown += [f"  {sentence}" for sentence in meaning([rule])]
    return shown


def read_consent(text: str, request: Request) -> Decision | str:
    """The decision that ``text`` makes, or what to say to somebody whose answer is none.

    Only ``y`` or ``yes`` alone is a yes: a sentence that begins with it was meant for the agent.
    """
    word, _, rest = text.strip().partition(" ")
    match word.lower():
        case "y" | "yes" if not rest.strip():
            return Decision(approved=True)
        case "n" | "no":
            return Decision(approved=False, note=rest.strip())
        case "a" | "allow":
            try:
                given = Rule.parse(rest) if rest.strip() else None
                rule = given or (suggested(request.asked) if request.asked is not None else None)
            except BadRule as error:
                return str(error)
            if rule is None:
                return "No allowance can cover this; answer y or n."
            return Decision(approved=True, allowance=rule)
    return CONSENT_HELP


async def ask_form(question: Question, *, say: Say, read: Callable[[str], Awaitable[str]]) -> Answer:
    """Fill in a form that is no plain consent: each field in turn, ``/cancel`` to leave it."""
    for line in (f"{question.server} asks:", *lines.question_lines(question.message)):
        say(line, style="bold yellow")
    if question.url:
        say(f"Open this address yourself if you trust it: {lines.plain_text(question.url)}", style="yellow")
        opened = await read("opened? [y/n] ")
        return Answer(action="accept" if opened.lower() in ("y", "yes") else "decline")
    content: dict[str, Any] = {}
    required = set(question.schema.get("required") or ())
    for name, field in (question.schema.get("properties") or {}).items():
        while True:
            text = await read(f"{cut_line(str(field.get('title') or name), 60)}{_choices(field)}: ")
            if text == "/cancel":
                return Answer(action="cancel")
            if not text and name not in required:
                break
            try:
                content[name] = _value(text, field)
            except ValueError as error:
                say(f"{error}; /cancel leaves the form", style="yellow")
                continue
            break
    return Answer(action="accept", content=content)


def _choices(field: Mapping[str, Any]) -> str:
    choices = field.get("enum") or [each.get("const") for each in field.get("oneOf") or ()]
    if choices:
        return f" ({', '.join(map(str, choices))})"
    return " (y/n)" if field.get("type") == "boolean" else ""


def _value(text: str, field: Mapping[str, Any]) -> Any:
    if not text and "default" in field:
        return field["default"]
    if not text:
        raise ValueError("this must be filled in")
    match field.get("type"):
        case "boolean":
            if text.lower() not in ("y", "yes", "n", "no"):
                raise ValueError("answer y or n")
            return text.lower() in ("y", "yes")
        case "integer":
            return int(text)
        case "number":
            return float(text)
        case "array":
            return [part.strip() for part in text.split(",")]
    choices = field.get("enum")
    if choices and text not in choices:
        raise ValueError(f"choose one of {', '.join(map(str, choices))}")
    return text
