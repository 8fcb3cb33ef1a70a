"""Rows of a dataset as a trainer would turn them into text: the prompt, and the prompt with each of its answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlintern.tools.data.trl_rules import is_from_value, split_prompt, to_messages, try_row
from mlintern.tools.hub.chat_template import raised_by_templates, render_messages, unfenced

if TYPE_CHECKING:
    from jinja2 import Template

Row = Mapping[str, Any]
Count = Callable[[str], int]
ANSWERS = {
    "sft": ("completion",),
    "dpo": ("chosen", "rejected"),
    "reward": ("chosen", "rejected"),
    "kto": ("completion",),
    "grpo": (),
}
KINDS = {
    **{name: name for name in ANSWERS},
    "orpo": "dpo",
    "cpo": "dpo",
    "gkd": "sft",
    **dict.fromkeys(("rloo", "online_dpo", "distillation"), "grpo"),
}
"""Trainer -> the one that reads rows as it does."""

SAYS_NOTHING = ("", "null", "[]")


@dataclass(frozen=True)
class Format:
    """How conversations become text. ``template`` None: the model has no chat template."""

    template: Template | None
    eos: str | None
    variables: Mapping[str, Any] = field(default_factory=dict)

    def text(self, messages: Sequence[Any], row: Row, *, ask: bool = False) -> str:
        """``messages`` of ``row``; ``ask`` adds the beginning of the answer.

        Raises:
            what templates raise: `raised_by_templates`.
        """
        assert self.template is not None
        tools = row.get("tools")
        given = row.get("chat_template_kwargs")
        more = {**self.variables, **(given if isinstance(given, Mapping) else {})}
        more |= {"tools": json.loads(tools) if isinstance(tools, str) else tools, "add_generation_prompt": ask}
        return unfenced(render_messages(self.template, list(messages), eos=self.eos, **more))


@dataclass(frozen=True)
class Rendered:
    """One row. ``prompt`` is None where all of the text is trained on; ``answers`` holds whole texts by column."""

    number: int
    prompt: str | None
    answers: Mapping[str, str]
    row: Row
    conversational: bool

    @property
    def messages(self) -> Iterator[Mapping[str, Any]]:
        """Every message of a conversational row."""
        for name in ("messages", "prompt", "completion", "chosen", "rejected"):
            value = self.row.get(name)
            if isinstance(value, list):
                yield from (message for message in value if isinstance(message, Mapping))

    def empty(self) -> list[str]:
        """Columns whose answer says nothing: no text, no tool call."""
        if "messages" in self.row and self.conversational:
            said = [message for message in self.messages if message.get("role") == "assistant"]
            return [] if any(map(_says_something, said)) else ["messages"]
        found = []
        for name in ("text",) if "text" in self.answers else self.answers:
            value = self.row.get(name)
            if isinstance(value, list):
                if not any(_says_something(message) for message in value if isinstance(message, Mapping)):
                    found.append(name)
            elif not str(value or "").strip():
                found.append(name)
        return found


@dataclass
class Reading:
    """What became of the rows: those that were rendered, and why others were not, by row number."""

    rendered: list[Rendered] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    raised: dict[int, str] = field(default_factory=dict)
    lacks_template: list[int] = field(default_factory=list)


def read_rows(trainer: str, rows: Sequence[Row], *, form: Format) -> Reading:
    """Render every row as ``trainer`` (a value of `KINDS`) does, following TRL's rules for what it takes."""
    reading = Reading()
    if not rows:
        return reading
    first = dict(rows[0])
    for number, row in enumerate(rows):
        outcomes = try_row(trainer, first, row=dict(row))
        if refusal := next((outcome.refusal for outcome in outcomes if outcome.refusal), None):
            reading.refused[number] = refusal
            continue
        shaped = _shaped(trainer, first, dict(row))
        conversational = outcomes[0].conversational
        if conversational and form.template is None:
            reading.lacks_template.append(number)
            continue
        try:
            prompt, answers = _texts(trainer, shaped, form, conversational)
        except raised_by_templates() as error:
            reading.raised[number] = f"{type(error).__name__}: {error}"[:300]
            continue
        reading.rendered.append(Rendered(number, prompt, answers, shaped, conversational))
    return reading


def _shaped(trainer: str, first: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    if trainer == "sft" and is_from_value(first):
        return to_messages(row)
    paired = trainer == "dpo" or (trainer == "kto" and "completion" not in first)
    return split_prompt(row) if paired and "prompt" not in first else row


def _texts(trainer: str, row: Row, form: Format, conversational: bool) -> tuple[str | None, dict[str, str]]:
    prompt = row.get("prompt")
    names = ("chosen", "rejected") if trainer == "kto" and "completion" not in row else ANSWERS[trainer]
    if trainer == "reward" and prompt is None:
        if conversational:
            return None, {name: form.text(row[name], row) for name in names}
        return None, {name: _ended(str(row[name]), form.eos) for name in names}
    if prompt is None or (trainer == "sft" and "prompt" not in row):
        if conversational:
            return None, {"messages": form.text(row["messages"], row)}
        return None, {"text": _ended(str(row.get("text", "")), form.eos)}
    if not conversational:
        eos = form.eos
        return str(prompt), {name: _ended(f"{prompt}{row[name]}", eos) for name in names}
    asked = form.text(prompt, row, ask=True)
    return asked, {name: form.text([*prompt, *row[name]], row) for name in names}


def _ended(text: str, eos: str | None) -> str:
    """TRL ends plain text with the end-of-sequence token."""
    return text if not eos or text.endswith(eos) else text + eos


def _says_something(message: Mapping[str, Any]) -> bool:
    content, calls = message.get("content"), message.get("tool_calls")
    if calls and json.dumps(calls, default=str) not in SAYS_NOTHING:
        return True
    return bool(content.strip() if isinstance(content, str) else content)
