"""What of the rows reaches the tokens, by the model's own tokenizer and chat template, as findings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mlintern.tools.data.cells import plain_key
from mlintern.tools.data.content import Account, Line, add_row, leaves
from mlintern.tools.data.part_names import CHOICES, CHOSEN, CONTEXTS, QUESTIONS, REJECTED, SYSTEMS
from mlintern.tools.data.trained_texts import ASKED
from mlintern.tools.scripts.rendered_rows import Rendered
from mlintern.tools.scripts.script_results import Check

Row = Mapping[str, Any]
MEANT = frozenset({*CHOICES, *CHOSEN, *CONTEXTS, *QUESTIONS, *REJECTED, *SYSTEMS})
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
SHOWN = 700
Remake = Callable[[dict[str, Any]], Sequence[str]]


def content_findings(
    trainer: str, rows: Sequence[Rendered], *, given: Sequence[Row], remake: Remake | None
) -> Iterator[Check]:
    """Text of ``given`` that is not in the tokens of ``rows``, and content that is printed as an object.

    Args:
        given: the data's own row of each of ``rows``.
        remake: renders another row; None where the rows go through a `prepare`.
    """
    account = Account()
    for rendered, row in zip(rows, given, strict=True):
        texts = texts_of(trainer, rendered, row=row)
        add_row(account, row, made=texts, short_arrives=_probe(dict(row), remake) if remake else None)
    yield from _lost(account)
    yield from _as_objects(rows)
    yield from _arguments(rows)


def texts_of(trainer: str, rendered: Rendered, *, row: Row) -> list[str]:
    """The texts of a row that are made tokens; what reaches a reward function counts as well."""
    if trainer != "grpo":
        return [rendered.prompt or "", *rendered.answers.values()]
    others = {name: value for name, value in row.items() if name != "prompt" and plain_key(name) not in ASKED}
    return [rendered.prompt or "", *(str(text) for _, _, text in leaves(others))]


def _probe(row: dict[str, Any], remake: Remake) -> Callable[[tuple[Any, ...], Any], bool]:
    from mlintern.tools.data.content import marker_arrives

    def arrives(path: tuple[Any, ...], value: Any) -> bool:
        return marker_arrives(row, path, value=value, texts=remake)

    return arrives


def _lost(account: Account) -> Iterator[Check]:
    for line in account.lost():
        share = line.lost / max(1, account.rows)
        yield Check(
            rule="content_lost",
            severity="error" if _meant(line) else "warning",
            message=f"`{line.place}` does not reach the model in {line.lost} of {account.rows} rows ({share:.0%}), "
            f"such as {line.example!r}.",
            fix=_fix(line),
        )


def _meant(line: Line) -> bool:
    """Whether a trainer's data surely means it for the model: messages, and columns named after a part of them."""
    if any(line.place.endswith(name) for name in THOUGHTS):
        return False
    return "content" in line.place or "tool_calls" in line.place or plain_key(line.place) in MEANT


def _fix(line: Line) -> str:
    if any(line.place.endswith(name) for name in THOUGHTS):
        return "This chat template does not print it: put it into the content with `prepare`, or drop it on purpose."
    if "[].content" in line.place:
        return "Chat templates print text: make the content text with `prepare` (inspect_dataset offers one)."
    return "Use the `prepare` that inspect_dataset offers, or drop it on purpose with a `prepare` of your own."


def _as_objects(rows: Sequence[Rendered]) -> Iterator[Check]:
    found = [
        (row.number, content)
        for row in rows
        for message in row.messages
        if isinstance(content := message.get("content"), list | dict)
        and any(str(content) in text for text in (row.prompt or "", *row.answers.values()))
    ]
    if found:
        number, content = found[0]
        yield Check(
            rule="content_as_object",
            severity="error",
            message=f"Row {number}: the chat template prints a content that is no text as Python has it: "
            f"{str(content)[:120]!r}.",
            fix="Make the content text with `prepare` (inspect_dataset offers one).",
        )


def _arguments(rows: Sequence[Rendered]) -> Iterator[Check]:
    """Arguments of tool calls that are encoded twice, or that parquet filled with nulls."""
    for row in rows:
        whole = "\n".join((row.prompt or "", *row.answers.values()))
        for message in row.messages:
            for call in message.get("tool_calls") or ():
                arguments = (call.get("function") or call).get("arguments") if isinstance(call, Mapping) else None
                if isinstance(arguments, str) and arguments and json.dumps(arguments, ensure_ascii=False) in whole:
                    yield _odd_arguments(row.number, "are encoded twice: text that holds JSON inside JSON")
                    return
                if isinstance(arguments, Mapping):
                    empty = [key for key, value in arguments.items() if value is None]
                    if any(f'"{key}": null' in whole for key in empty):
                        yield _odd_arguments(row.number, f"hold nulls that nobody wrote ({', '.join(empty[:4])})")
                        return


def _odd_arguments(number: int, what: str) -> Check:
    return Check(
        rule="tool_arguments",
        severity="warning",
        message=f"Row {number}: the arguments of a tool call {what}.",
        fix="Use the `prepare` that inspect_dataset offers: it makes them objects without nulls.",
    )


def as_read(rows: Sequence[Rendered], *, count: Callable[[str], int] | None) -> str:
    """The first row as the model reads it; what carries loss stands between ⟦ and ⟧. Empty without rows."""
    row = next(iter(rows), None)
    if row is None:
        return ""
    parts, lengths = [], []
    for name, text in (row.answers or {"prompt": row.prompt or ""}).items():
        start = row.prompt if row.prompt is not None and text.startswith(row.prompt) else ""
        trained = text[len(start) :] if row.answers else ""
        shown = f"{start}⟦{trained}⟧" if row.answers else text
        parts.append(
            f"{name}: {shown if len(shown) <= SHOWN else shown[: SHOWN // 2] + ' ... ' + shown[-SHOWN // 2 :]}"
        )
        if count is not None:
            lengths.append(f"{name} {count(text)} tokens, {count(trained) if trained else 0} with loss")
    told = f" ({'; '.join(lengths)})" if lengths else ""
    return f" Row {row.number} as the model reads it, with loss between ⟦ and ⟧{told}:\n" + "\n".join(parts)
