"""The agent's plan: steps with a state, at most one of them in progress, restated after each compaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mlintern.common.text import did_you_mean
from mlintern.orchestrator.compacted_message import Handover
from mlintern.orchestrator.errors import OrchestratorError
from mlintern.orchestrator.model import Message
from mlintern.orchestrator.pinned_rules import MAX_CHARACTERS, PinnedRules
from mlintern.orchestrator.tool import Tool, ToolOutcome

StepState = Literal["pending", "in_progress", "done", "dropped"]
STATES: tuple[StepState, ...] = get_args(StepState)
MAX_STEPS = 40
NAME = "update_plan"

_MARKS: dict[StepState, str] = {"pending": " ", "in_progress": ">", "done": "x", "dropped": "-"}


@dataclass(frozen=True)
class Step:
    """One step and how far it is."""

    text: str
    state: StepState


class PlanError(OrchestratorError):
    """The steps that were given are no plan; the text says why."""


class Plan:
    """`ports.Plan`, and the tool `update_plan` that changes it."""

    tool = Tool(
        name=NAME,
        description="Replace your plan. Give all its steps in order, also those that are done. At most one step may "
        "be in_progress; mark a step done only when it is, and dropped when you gave it up. Use it for work of three "
        "or more steps, and before you start and after you finish each step. `rules` pins what must hold for the "
        "whole run (how is measured, which items are held out, limits), word for word, also for research.",
        input_schema={
            "type": "object",
            "properties": {
                "steps": {
                    "type": "array",
                    "maxItems": MAX_STEPS,
                    "items": {
                        "type": "object",
                        "properties": {
                            "step": {"type": "string", "description": "What is to be done, in one line."},
                            "state": {"type": "string", "enum": list(STATES)},
                        },
                        "required": ["step", "state"],
                        "additionalProperties": False,
                    },
                },
                "rules": {
                    "type": "array",
                    "items": {"type": "string", "maxLength": MAX_CHARACTERS},
                    "description": "Rules to pin, each a sentence. Those that are pinned stay.",
                },
            },
            "required": ["steps"],
            "additionalProperties": False,
        },
        side_effect="idempotent",
    )

    def __init__(self, rules: PinnedRules | None = None) -> None:
        self.steps: tuple[Step, ...] = ()
        self.rules = rules if rules is not None else PinnedRules()

    async def call(self, arguments: dict[str, Any]) -> ToolOutcome:
        """Replace the steps; a plan that breaks a rule leaves the old one standing."""
        try:
            self.steps = steps_from(arguments)
        except PlanError as error:
            return ToolOutcome.error(f"The plan was not changed: {error}")
        self.rules.add(arguments.get("rules") or ())
        pinned = f"\n\nRules of the run:\n{self.rules.render()}" if self.rules.texts else ""
        return ToolOutcome(content=[{"type": "text", "text": (self.render() or "The plan is empty.") + pinned}])

    def open_steps(self) -> list[str]:
        """Steps that are neither done nor given up."""
        return [step.text for step in self.steps if step.state in ("pending", "in_progress")]

    def render(self) -> str:
        """The plan as lines: ``[x]`` done, ``[>]`` in progress, ``[ ]`` pending, ``[-]`` dropped; "" without one."""
        return "\n".join(f"[{_MARKS[step.state]}] {step.text}" for step in self.steps)

    def restore(self, messages: Sequence[Message]) -> None:
        """Take the plan from a history: from its last `update_plan` call, else from what a compaction restated."""
        self.rules.restore(messages, tool=NAME)
        for message in reversed(messages):
            content = message["content"]
            if message["role"] != "assistant" or isinstance(content, str):
                continue
            for block in reversed(content):
                if block["type"] == "tool_use" and block["name"] == NAME:
                    try:
                        self.steps = steps_from(block["input"])
                    except PlanError:
                        continue
                    return
        handover, _ = Handover.read(messages)
        if handover is not None:
            self.restore_rendered(handover.plan)

    def restore_rendered(self, text: str) -> None:
        """Take the plan from what `render` made of it."""
        states = {mark: state for state, mark in _MARKS.items()}
        lines = [line for line in text.splitlines() if line[:1] == "[" and line[1:2] in states and line[2:4] == "] "]
        self.steps = tuple(Step(line[4:], states[line[1]]) for line in lines)


def steps_from(arguments: dict[str, Any]) -> tuple[Step, ...]:
    """The steps in the arguments of a call.

    Raises:
        PlanError: they are no list of steps, a state is unknown, or more than one step is in progress.
    """
    unknown = [name for name in arguments if name not in ("steps", "rules")]
    given = arguments.get("steps")
    if unknown or not isinstance(given, list):
        named = f"; unknown: {unknown[0]}" if unknown else ""
        raise PlanError(f"the arguments are steps, a list, and rules, a list of sentences{named}.")
    rules = arguments.get("rules") or []
    if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
        raise PlanError("rules must be a list of sentences.")
    if any(len(rule) > MAX_CHARACTERS for rule in rules):
        raise PlanError(f"a rule has at most {MAX_CHARACTERS} characters; say it shorter.")
    if len(given) > MAX_STEPS:
        raise PlanError(f"at most {MAX_STEPS} steps, not {len(given)}. Merge some.")
    steps = tuple(_step(number, each) for number, each in enumerate(given, start=1))
    active = [step.text for step in steps if step.state == "in_progress"]
    if len(active) > 1:
        raise PlanError(f"{len(active)} steps are in progress ({'; '.join(active)}); at most one may be.")
    return steps


def _step(number: int, given: Any) -> Step:
    if not isinstance(given, dict) or set(given) != {"step", "state"}:
        raise PlanError(f"step {number} must have exactly a step and a state.")
    text = given["step"]
    if not isinstance(text, str) or not text.strip():
        raise PlanError(f"step {number} says nothing.")
    for state in STATES:
        if given["state"] == state:
            return Step(" ".join(text.split()), state)
    hint = did_you_mean(str(given["state"]), STATES, otherwise="")
    stated = f"the state of step {number} is {given['state']!r}; it must be one of {', '.join(STATES)}. {hint}"
    raise PlanError(stated.rstrip())
