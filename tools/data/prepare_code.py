"""The Python of a `prepare` function, put together from the parts of a row."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlintern.tools.data.cells import Cell, find, is_blank
from mlintern.tools.data.parts import Parts, option_texts
from mlintern.tools.data.talks import Talk


@dataclass(frozen=True)
class Preparation:
    """``fix`` says in words what ``code`` does."""

    fix: str
    code: str

    def function(self) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
        """The function of ``code``, which this module wrote itself: column names enter it by ``repr`` only."""
        namespace: dict[str, Any] = {}
        exec(self.code, namespace)
        prepare: Callable[[dict[str, Any]], dict[str, Any] | None] = namespace["prepare"]
        return prepare


OPTIONS = '"\\n" + "\\n".join(f"{letter}. {text}" for letter, text in zip("ABCDEFGHIJKLMNOP", options))'
"""Python for the options of a question, one a line, with letters."""


@dataclass
class Writer:
    """Puts a function together."""

    imports: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def talk(self, talk: Talk) -> str:
        """Python for the messages of ``talk``; its helpers are written before."""
        lines, expression = talk.messages()
        self.lines += [line for line in lines if line not in self.lines or not line.startswith(("def ", "roles"))]
        self.imports |= set(talk.imports) | ({"json"} if talk.needs_json() else set())
        self.words += [f"`{talk.cell.name}`: {what}" for what in (*talk.how, *talk.messages_need())]
        if strangers := talk.strangers():
            named = ", ".join(map(repr, strangers[:5]))
            self.words.append(f"the role of {named} in `{talk.cell.name}` cannot be told and is left as it is")
        return expression

    def skip_unless(self, *needed: str) -> None:
        test = " and ".join(dict.fromkeys(needed))
        self.lines.append(f"if not ({test}):" if " " in test else f"if not {test}:")
        self.lines.append("    return None")

    def finish(self, fix: str, **values: str) -> Preparation:
        made = ", ".join(f'"{name}": {value}' for name, value in values.items())
        return self.ready(fix, f"return {{{made}}}")

    def ready(self, fix: str, *last: str) -> Preparation:
        head = [f"import {name}" for name in sorted(self.imports)]
        lines = [f"    {line}" if line else "" for line in (*self.lines, *last)]
        code = "\n".join([*head, *(["", ""] if head else []), "def prepare(row):", *lines]) + "\n"
        told = "; ".join(dict.fromkeys(self.words))
        return Preparation(fix + (f" {told[0].upper()}{told[1:]}." if told else ""), code)


def option_code(writer: Writer, choices: Cell, *, index: Cell) -> str:
    """Write ``options``, the texts, and ``right``, the number of the right one, which is returned."""
    first = choices.present[0]
    if isinstance(first, Mapping):
        writer.lines.append(f'options = {choices.access}["text"]')
    else:
        writer.lines.append(f"options = {choices.access}")
    if all(isinstance(value, str) for value in index.present):
        options = [option_texts(value) for value in choices.values]
        if all(
            value in (texts or ()) for value, texts in zip(index.values, options, strict=True) if value is not None
        ):
            writer.lines.append(f"right = options.index({index.access})")
        elif isinstance(first, Mapping) and "label" in first:
            writer.lines.append(f'right = {choices.access}["label"].index({index.access})')
        elif all(value.strip().isdigit() for value in index.present):
            base = min(int(value) for value in index.present)
            writer.lines.append(
                f"right = int({index.access})" + (" - 1" if base == 1 and _one_based(index, choices) else "")
            )
        else:
            writer.lines.append(f'right = "ABCDEFGHIJKLMNOP".index({index.access}.strip().upper()[0])')
    else:
        writer.lines.append(f"right = int({index.access})" + (" - 1" if _one_based(index, choices) else ""))
    return "right"


def _one_based(index: Cell, choices: Cell) -> bool:
    pairs = [(int(i), len(option_texts(c) or ())) for i, c in zip(index.values, choices.values, strict=True)
             if i is not None and c is not None]  # fmt: skip
    return bool(pairs) and min(i for i, _ in pairs) >= 1 and any(i == count for i, count in pairs)


def question_code(writer: Writer, parts: Parts, *, question: Cell, after: str = "") -> str:
    """The prompt: system message, turns before, and the question with its context."""
    if question.name in parts.talks:
        messages = writer.talk(parts.talks[question.name])
        return with_system(parts.system, inside=messages) if parts.system else messages
    content = question.text()
    context = parts.context
    if context is not None and context.name != question.name:
        text = context.access if context.kind == "text" else f'"\\n\\n".join({context.access})'
        before = context.key not in ("input", "inputs")
        both = f'{text} + "\\n\\n" + {content}' if before else f'{content} + "\\n\\n" + {text}'
        content = both if context.always else f"({both} if {context.access} else {content})"
    if after:
        content = f"{content} + {after}"
    asked = message_code("user", content)
    if parts.history is not None:
        earlier = writer.talk(parts.history)
        asked = (
            f"{earlier} + {asked}"
            if parts.history.cell.always
            else f"({earlier} if {parts.history.cell.access} else []) + {asked}"
        )
    return with_system(parts.system, inside=asked) if parts.system else asked


def answer_code(writer: Writer, parts: Parts, *, answer: Cell) -> str:
    if answer.name in parts.talks:
        return writer.talk(parts.talks[answer.name])
    content = answer_text(answer)
    if parts.thought is not None and parts.thought.name != answer.name:
        thought = parts.thought.access
        marked = parts.thought.key in (
            "thinking",
            "reasoning",
            "reasoning_content",
            "cot",
            "complex_cot",
            "reasoning_trace",
        )
        opened = f'"<think>\\n" + {thought} + "\\n</think>\\n\\n" + {content}'
        both = opened if marked else f'{thought} + "\\n\\n" + {content}'
        content = both if parts.thought.always else f"({both} if {thought} else {content})"
    if (final := _final_answer(parts, answer)) is not None:
        shown = final.text()
        content = f'({content} if {shown} in {content} else {content} + "\\n\\nThe answer is " + {shown})'
    return message_code("assistant", content)


def _final_answer(parts: Parts, answer: Cell) -> Cell | None:
    """A short answer beside a worked solution, which must not be lost."""
    if answer.key not in ("solution", "generated_solution", "response", "completion", "output", "generation"):
        return None
    found = find(
        parts.cells,
        ("final_answer", "answer", "ground_truth", "expected_answer"),
        "text",
        "number",
        taken=[answer.name],
    )
    if found is None or found.name in parts.talks or (parts.question and found.name == parts.question.name):
        return None
    pairs = zip(found.values, answer.values, strict=True)
    return None if all(is_blank(one) or str(one) in str(other) for one, other in pairs) else found


def turn_code(writer: Writer, parts: Parts, *, cell: Cell) -> str:
    if cell.name in parts.talks:
        return writer.talk(parts.talks[cell.name])
    return message_code("assistant", answer_text(cell))


def plain_or_talk_code(writer: Writer, parts: Parts, *, cell: Cell) -> str:
    return writer.talk(parts.talks[cell.name]) if cell.name in parts.talks else cell.text()


def with_system(cell: Cell, *, inside: str) -> str:
    made = f'[{{"role": "system", "content": {cell.access}}}]'
    return f"{made} + {inside}" if cell.always else f"({made} if {cell.access} else []) + {inside}"


def message_code(role: str, content: str) -> str:
    return f'[{{"role": "{role}", "content": {content}}}]'


def answer_text(cell: Cell) -> str:
    """A cell's answer as text: of a list the first; of SQuAD's answers the first text."""
    first = cell.present[0] if cell.present else ""
    if isinstance(first, Mapping) and "text" in first:
        inner = first["text"]
        return f'{cell.access}["text"][0]' if isinstance(inner, list) else f'{cell.access}["text"]'
    if isinstance(first, list) and first and isinstance(first[0], Mapping) and isinstance(first[0].get("text"), str):
        return f'{cell.access}[0]["text"]'
    if isinstance(first, list):
        return f"{cell.access}[0]" if all(isinstance(item, str) for item in first) else f"str({cell.access}[0])"
    return cell.text()


def filled_code(cell: Cell) -> str:
    """Python that is true where the cell says something."""
    if cell.kind in ("number", "bool"):
        return f"{cell.access} is not None"
    first = cell.present[0] if cell.present else ""
    if isinstance(first, Mapping) and isinstance(first.get("text"), list):
        return f'({cell.access} and {cell.access}["text"])'
    return cell.access


def tools_code(writer: Writer, cell: Cell) -> str:
    """The tools as the templates want them: each a function under ``function``."""
    first = cell.present[0] if cell.present else None
    given = first
    access = cell.access
    if isinstance(first, str):
        try:
            given = json.loads(first)
        except ValueError:
            return access
        access = f"json.loads({access})"
    bare = isinstance(given, list) and any(isinstance(tool, Mapping) and "function" not in tool for tool in given)
    if not bare:
        return cell.access
    writer.imports.add("json")
    made = (
        f'json.dumps([tool if "function" in tool else {{"type": "function", "function": tool}} for tool in {access}])'
    )
    return made if cell.always else f"{made} if {cell.access} else None"


def also_used(parts: Parts, question: Cell, *, answer: Cell | None) -> str:
    """What else of the row goes in, in words."""
    also = [cell.name for cell in (parts.context, parts.system) if cell is not None and cell.name != question.name]
    if parts.history is not None:
        also.append(parts.history.cell.name)
    if answer is not None and parts.thought is not None and answer.name not in parts.talks:
        also.append(parts.thought.name)
    return f", with {' and '.join(f'`{name}`' for name in also)}" if also else ""
