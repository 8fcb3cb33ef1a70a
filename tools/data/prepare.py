"""Ready `prepare` functions: Python that turns a row of this dataset into a row that a trainer takes.

A snippet is only offered after it was run on one real row of every shape and the trainer's rules accepted the result.
The function returns the whole new row; columns that it does not return are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mlintern.tools.data.messages import MessageColumn
from mlintern.tools.data.table import Table

QUESTIONS = ("prompt", "question", "instruction", "query", "problem", "user", "input", "task", "inputs")
ANSWERS = (
    "completion",
    "response",
    "answer",
    "output",
    "solution",
    "assistant",
    "target",
    "reply",
    "generation",
    "targets",
)
CHOSEN = ("chosen", "chosen_response", "response_chosen", "preferred", "accepted", "better", "winner")
REJECTED = ("rejected", "rejected_response", "response_rejected", "dispreferred", "worse", "loser")
SYSTEMS = ("system", "system_prompt")
TEXTS = ("text", "content", "body", "document", "article", "code", "raw")
LABELS = (
    "label",
    "labels",
    "rating",
    "score",
    "good",
    "is_good",
    "thumbs_up",
    "feedback",
    "liked",
    "correct",
    "is_correct",
)
ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant"}
GOOD = ("true", "good", "desirable", "yes", "positive", "up", "thumbs_up", "liked", "chosen", "correct", "1")


@dataclass(frozen=True)
class Preparation:
    """``fix`` says in words what ``code`` does."""

    fix: str
    code: str

    def function(self) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """The function of ``code``, which this module wrote itself: column names enter it by ``repr`` only."""
        namespace: dict[str, Any] = {}
        exec(self.code, namespace)
        prepare: Callable[[dict[str, Any]], dict[str, Any]] = namespace["prepare"]
        return prepare


@dataclass(frozen=True)
class Parts:
    """The columns that could play each role, or None."""

    question: str | None
    answer: str | None
    chosen: str | None
    rejected: str | None
    system: str | None
    context: str | None
    text: str | None
    label: str | None
    label_kind: str
    conversation: MessageColumn | None
    conversations: dict[str, MessageColumn]
    tools: bool


def find_parts(table: Table, conversations: list[MessageColumn]) -> Parts:
    by_name = {item.column.name: item for item in conversations}
    texts = [column.name for column in table.columns if column.kind == "text"]
    usable = set(texts) | set(by_name)
    question = _first(QUESTIONS, usable)
    context = "input" if question == "instruction" and "input" in texts else None
    whole = [item for item in conversations if item.column.name not in ("prompt", "completion", *CHOSEN, *REJECTED)]
    label = _first(LABELS, {column.name for column in table.columns if column.kind in ("bool", "number", "text")})
    return Parts(
        question=question,
        answer=_first([name for name in ANSWERS if name != question], usable),
        chosen=_first(CHOSEN, usable),
        rejected=_first(REJECTED, usable),
        system=_first(SYSTEMS, set(texts)),
        context=context,
        text=_first(TEXTS, set(texts)),
        label=label,
        label_kind=table.column(label).kind if label else "",
        conversation=whole[0] if whole else None,
        conversations=by_name,
        tools=table.has("tools"),
    )


def preparations(trainer: str, parts: Parts) -> Iterator[Preparation]:
    """Candidates for ``trainer``, the most faithful first. The caller tries them on real rows."""
    yield from CANDIDATES[trainer](parts)


def _sft(parts: Parts) -> Iterator[Preparation]:
    if parts.conversation is not None:
        name = parts.conversation.column.name
        extra = ', "tools": row["tools"]' if parts.tools else ""
        yield Preparation(
            f"Train on the conversation in `{name}`: keep it as `messages` with the roles user, assistant and system"
            + ("" if extra else ", and drop the other columns")
            + ".",
            _function(f'return {{"messages": {_messages(parts, name)}{extra}}}', roles=True),
        )
    if parts.question and parts.answer:
        yield Preparation(
            f"Make prompt and completion of `{parts.question}` and `{parts.answer}`.",
            _function(
                _return(
                    prompt=_turns(parts, parts.question, "user"), completion=_turns(parts, parts.answer, "assistant")
                )
            ),
        )
    if parts.chosen and parts.rejected:
        yield from _sft_on_chosen(parts, parts.chosen)
    if parts.text:
        yield Preparation(f"Train on the text in `{parts.text}`.", _function(_return(text=_cell(parts.text))))


def _sft_on_chosen(parts: Parts, chosen: str) -> Iterator[Preparation]:
    if parts.question:
        yield Preparation(
            f"Train on the preferred answers: `{parts.question}` is the prompt, `{chosen}` the completion.",
            _function(
                _return(prompt=_turns(parts, parts.question, "user"), completion=_turns(parts, chosen, "assistant"))
            ),
        )
    if chosen in parts.conversations:
        yield Preparation(
            f"Train on the preferred conversations: `{chosen}` becomes `messages`.",
            _function(_return(messages=_messages(parts, chosen)), roles=True),
        )
    else:
        yield Preparation(f"Train on the preferred texts in `{chosen}`.", _function(_return(text=_cell(chosen))))


def _pairs(parts: Parts) -> Iterator[Preparation]:
    if not (parts.chosen and parts.rejected):
        return
    chosen, rejected = parts.chosen, parts.rejected
    whole = {"chosen": _messages(parts, chosen), "rejected": _messages(parts, rejected)}
    both = chosen in parts.conversations and rejected in parts.conversations
    if both:
        yield Preparation(
            f"Give `chosen` and `rejected` alone: they hold whole conversations, whose common start is the prompt; "
            f"a separate `{parts.question or 'prompt'}` must go.",
            _function(
                "chosen = " + whole["chosen"],
                "rejected = " + whole["rejected"],
                "shared = 0",
                "while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:",
                "    shared += 1",
                "if not shared:",
                '    raise ValueError("chosen and rejected share no start")',
                'return {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}',
                roles=True,
            ),
        )
    if parts.question:
        answers = {
            "chosen": whole["chosen"] if both else _turns(parts, chosen, "assistant"),
            "rejected": whole["rejected"] if both else _turns(parts, rejected, "assistant"),
        }
        yield Preparation(
            f"Make `prompt`, `chosen` and `rejected` all lists of messages, from `{parts.question}`, `{chosen}` and "
            f"`{rejected}`.",
            _function(_return(prompt=_turns(parts, parts.question, "user"), **answers), roles=both),
        )
    yield Preparation(
        f"Name the columns `chosen` and `rejected` (here: `{chosen}`, `{rejected}`).",
        _function(_return(chosen=_cell(chosen), rejected=_cell(rejected))),
    )


def _kto(parts: Parts) -> Iterator[Preparation]:
    if parts.question and parts.answer and parts.label:
        label = _cell(parts.label)
        if parts.label_kind == "text":
            label = f"str({label}).strip().lower() in {GOOD!r}"
        elif parts.label_kind == "number":
            label = f"{label} > 0"
        yield Preparation(
            f"Make `prompt`, `completion` and a true-or-false `label` of `{parts.question}`, `{parts.answer}` and "
            f"`{parts.label}`"
            + (" (true for: " + ", ".join(GOOD) + ")" if parts.label_kind == "text" else "")
            + (" (true above 0)" if parts.label_kind == "number" else "")
            + ".",
            _function(
                _return(
                    prompt=_turns(parts, parts.question, "user"),
                    completion=_turns(parts, parts.answer, "assistant"),
                    label=label,
                )
            ),
        )
    yield from _pairs(parts)


def _generating(parts: Parts) -> Iterator[Preparation]:
    keep = "{name: value for name, value in row.items() if name not in DROPPED}"
    reserved = ("prompts", "completions")
    if parts.question:
        yield Preparation(
            f"Name the question `prompt` (from `{parts.question}`); the other columns stay and reach the reward "
            "function.",
            _function(
                f"kept = {keep.replace('DROPPED', repr(reserved))}",
                f'return {{**kept, "prompt": {_turns(parts, parts.question, "user")}}}',
            ),
        )
    source = parts.conversation.column.name if parts.conversation else None
    source = source or (parts.chosen if parts.chosen in parts.conversations else None)
    if source:
        yield Preparation(
            f"Split `{source}`: everything before the last assistant message is the prompt, that message is kept as "
            "`answer` for the reward function.",
            _function(
                f"messages = {_messages(parts, source)}",
                'last = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=len(messages))',
                'answer = messages[last]["content"] if last < len(messages) else None',
                f"kept = {keep.replace('DROPPED', repr((source, *reserved)))}",
                'return {**kept, "prompt": messages[:last], "answer": answer}',
                roles=True,
            ),
        )


CANDIDATES: dict[str, Callable[[Parts], Iterator[Preparation]]] = {
    "sft": _sft,
    "dpo": _pairs,
    "reward": _pairs,
    "kto": _kto,
    "grpo": _generating,
    "rloo": _generating,
}


def _function(*lines: str, roles: bool = False) -> str:
    body = [f"roles = {ROLES!r}"] if roles and any("roles.get" in line for line in lines) else []
    return "\n".join(["def prepare(row):", *(f"    {line}" for line in (*body, *lines))]) + "\n"


def _return(**values: str) -> str:
    return "return {" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}"


def _cell(name: str) -> str:
    return f"row[{name!r}]"


def _messages(parts: Parts, name: str) -> str:
    """The messages in a column with our names for keys and speakers."""
    found = parts.conversations.get(name)
    if found is None:
        return _cell(name)
    if found.style == "from/value":
        turn = '{"role": roles.get(turn["from"], turn["from"]), "content": turn["value"]}'
        return f"[{turn} for turn in {_cell(name)}]"
    return _cell(name)


def _turns(parts: Parts, name: str, role: str) -> str:
    """The column as a list of messages; plain text becomes one message of ``role``."""
    if name in parts.conversations:
        return _messages(parts, name)
    content = _cell(name)
    if role == "user" and parts.context:
        content = f'{content} + ("\\n\\n" + {_cell(parts.context)} if {_cell(parts.context)} else "")'
    turn = f'{{"role": "{role}", "content": {content}}}'
    if role == "user" and parts.system:
        system = _cell(parts.system)
        return f'([{{"role": "system", "content": {system}}}] if {system} else []) + [{turn}]'
    return f"[{turn}]"


def _first(names: tuple[str, ...] | list[str], present: set[str]) -> str | None:
    return next((name for name in names if name in present), None)
