"""Conversations in every layout that people keep them in, and the Python that makes messages of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlintern.tools.data import transcripts
from mlintern.tools.data.cells import CONVERSATION_KEYS, Cell, Row, is_blank, parser_of

USER = ("user", "human", "prompter", "customer", "client", "question", "prompt", "instruction", "input", "query", "q")
ASSISTANT = tuple(
    [
        "assistant",
        "gpt",
        "chatgpt",
        "bot",
        "model",
        "ai",
        "agent",
        "response",
        "answer",
        "output",
        "a",
        "chosen",
        "bing",
        "bard",
        "claude",
        "gemini",
        "llama",
        "chatbot",
    ]
)
SYSTEM = ("system", "developer", "sys", "context_system")
TOOL = tuple(
    [
        "tool",
        "observation",
        "function",
        "function_response",
        "tool_response",
        "ipython",
        "function_result",
        "tool_result",
        "environment",
    ]
)
CALLS = ("function_call", "tool_call", "functioncall", "tool_calls")
ROLES = ("system", "user", "assistant", "tool")
ROLE_KEYS = ("role", "from", "speaker", "author", "sender")
CONTENT_KEYS = ("content", "value", "text", "message", "utterance", "body", "parts")
EXTRAS = ("reasoning_content", "reasoning", "thinking", "tool_calls", "tool_call_id", "name")


@dataclass(frozen=True)
class Talk:
    """A conversation in a cell.

    Attributes:
        turns: Python for its raw turns.
        role, content: keys of a raw turn.
        imports: modules that ``turns`` uses.
        examples: raw turns of the rows that have any.
        how: what has to be done to read it, in words; empty for messages as they should be.
    """

    cell: Cell
    turns: str
    role: str
    content: str
    imports: tuple[str, ...] = ()
    examples: tuple[list[dict[str, Any]], ...] = ()
    how: tuple[str, ...] = ()
    unknown: tuple[str, ...] = field(default=())

    def roles(self) -> dict[str, str]:
        """Names of speakers that are no role, with the role that each has; unknown ones are left out."""
        seen = list(dict.fromkeys(str(turn.get(self.role)) for turns in self.examples for turn in turns))
        return {name: role for name in seen if name not in ROLES and (role := role_of(name)) and role != name}

    def strangers(self) -> list[str]:
        """Speakers of whom nobody can say what role they have."""
        seen = list(dict.fromkeys(str(turn.get(self.role)) for turns in self.examples for turn in turns))
        return [name for name in seen if name not in ROLES and role_of(name) is None]

    def is_plain(self) -> bool:
        """Whether the cell can be used as it is."""
        return not self.how and not self.messages_need()

    def messages_need(self) -> list[str]:
        """What must be done to the turns, in words."""
        need = []
        if self.role != "role" or self.content != "content":
            need.append(f"`{self.role}` and `{self.content}` become role and content")
        if roles := self.roles():
            need.append("speakers are mapped: " + ", ".join(f"{one} to {two}" for one, two in roles.items()))
        kinds = {_content_kind(turn.get(self.content)) for turns in self.examples for turn in turns} - {"text"}
        if kinds:
            need.append(f"content that is {' or '.join(sorted(kinds))} becomes text")
        if self._called_in_text():
            need.append("function calls in the text become tool_calls")
        if self._calls_functions():
            need.append("function_call becomes tool_calls")
        if self._arguments_need():
            need.append("arguments of tool calls become objects without nulls")
        return need

    def messages(self) -> tuple[list[str], str]:
        """Lines to put before, and Python for the list of messages."""
        if not self.messages_need():
            return [], self.turns
        lines = []
        role = f'm["{self.role}"]'
        if roles := self.roles():
            lines.append(f"roles = {roles!r}")
            role = f"roles.get({role}, {role})"
        content = f'm["{self.content}"]'
        kinds = {_content_kind(turn.get(self.content)) for turns in self.examples for turn in turns} - {"text"}
        if kinds:
            lines += _TEXT_OF
            content = f"text({content})"
        if not all(self.content in turn for turns in self.examples for turn in turns):
            content = content.replace(f'm["{self.content}"]', f'm.get("{self.content}")')
        extras = [key for key in EXTRAS if any(turn.get(key) for turns in self.examples for turn in turns)]
        more = ""
        if "tool_calls" in extras and self._arguments_need():
            lines += _CALLS_OF
            extras.remove("tool_calls")
            more = ', **({"tool_calls": calls(m["tool_calls"])} if m.get("tool_calls") else {})'
        if extras:
            more += f", **{{key: m[key] for key in {tuple(extras)!r} if m.get(key)}}"
        if self._calls_functions():
            lines += _CALLS_OF if _CALLS_OF[0] not in lines else []
            content = f'({content} or "")'
            more += ', **({"tool_calls": calls([m["function_call"]])} if m.get("function_call") else {})'
        turn = f'{{"role": {role}, "content": {content}{more}}}'
        if self._called_in_text():
            lines += _CALL_IN_TEXT
            calls = tuple(name for name in self._names() if _key(name) in CALLS)
            turn = f'(call(m["{self.content}"]) if m["{self.role}"] in {calls!r} else {turn})'
        return lines, f"[{turn} for m in {self.turns}]"

    def needs_json(self) -> bool:
        return bool(self.messages_need()) and (
            self._called_in_text()
            or self._arguments_need()
            or self._calls_functions()
            or any(_content_kind(turn.get(self.content)) != "text" for turns in self.examples for turn in turns)
        )

    def _names(self) -> list[str]:
        return list(dict.fromkeys(str(turn.get(self.role)) for turns in self.examples for turn in turns))

    def _calls_functions(self) -> bool:
        """Whether calls are kept as OpenAI's API had them before tools."""
        return any(isinstance(turn.get("function_call"), Mapping) for turns in self.examples for turn in turns)

    def _called_in_text(self) -> bool:
        return any(
            _key(str(turn.get(self.role))) in CALLS and isinstance(turn.get(self.content), str)
            for turns in self.examples
            for turn in turns
        )

    def _arguments_need(self) -> bool:
        for turns in self.examples:
            for turn in turns:
                for call in turn.get("tool_calls") or ():
                    function = (call.get("function") or call) if isinstance(call, Mapping) else {}
                    arguments = function.get("arguments") if isinstance(function, Mapping) else None
                    if isinstance(arguments, str) or (isinstance(arguments, Mapping) and None in arguments.values()):
                        return True
        return False


_TEXT_OF = [
    "def text(content):",
    "    if isinstance(content, list):",
    '        return "".join(part if isinstance(part, str) else part.get("text") or "" for part in content)',
    "    if content is None or isinstance(content, str):",
    '        return content or ""',
    "    return json.dumps(content, ensure_ascii=False)",
    "",
]
_CALLS_OF = [
    "def calls(given):",
    "    made = []",
    "    for one in given:",
    '        function = one.get("function") or one',
    '        arguments = function["arguments"]',
    "        while isinstance(arguments, str):",
    "            arguments = json.loads(arguments)",
    "        if isinstance(arguments, dict):",
    "            arguments = {key: value for key, value in arguments.items() if value is not None}",
    '        made.append({"type": "function", "function": {"name": function["name"], "arguments": arguments}})',
    "    return made",
    "",
]
_CALL_IN_TEXT = [
    "def call(content):",
    "    made = json.loads(content)",
    "    made = made if isinstance(made, list) else [made]",
    '    made = [{"type": "function", "function": one} for one in made]',
    '    return {"role": "assistant", "content": "", "tool_calls": made}',
    "",
]


def role_of(name: str) -> str | None:
    """The role that a speaker of this name has; None if it cannot be told."""
    key = _key(name)
    for role, names in (("user", USER), ("assistant", (*ASSISTANT, *CALLS)), ("system", SYSTEM), ("tool", TOOL)):
        if key in names:
            return role
    words = set(key.replace("-", "_").split("_"))
    starts = (
        "gpt",
        "chatgpt",
        "claude",
        "gemini",
        "llama",
        "mistral",
        "qwen",
        "deepseek",
        "assistant",
        "model",
        "bot",
    )
    if any(key.startswith(start) for start in starts) or words & {"assistant", "bot", "ai", "model"}:
        return "assistant"
    return "user" if words & {"user", "human", "customer"} else None


def read_talk(cell: Cell, *, any_name: bool = False) -> Talk | None:
    """The conversation that ``cell`` holds, if it does."""
    shape = _read(cell.access, [value for value in cell.values if not is_blank(value)], named=_named(cell, any_name))
    if shape is not None:
        return replace(shape, cell=cell)
    return (_read_single(cell) if any_name else None) or _read_transcript(cell)


def _read_single(cell: Cell) -> Talk | None:
    """Lists of one plain text: the only message."""
    values = [value for value in cell.values if not is_blank(value)]
    if not values or not all(isinstance(v, list) and len(v) == 1 and isinstance(v[0], str) for v in values):
        return None
    role = "user" if cell.key == "prompt" else "assistant"
    made = f'[{{"role": "{role}", "content": turn}} for turn in {cell.access}]'
    examples = [[{"role": role, "content": value[0]}] for value in values]
    return replace(_made(cell.access, made, examples, f"its only text is the {role}'s"), cell=cell)


def _read_transcript(cell: Cell) -> Talk | None:
    values = [value for value in cell.values if not is_blank(value)]
    if cell.key not in CONVERSATION_KEYS and cell.key not in transcripts.KEYS:
        return None
    if not values or not all(isinstance(value, str) for value in values):
        return None
    pattern = transcripts.pattern_of(values)
    if pattern is None:
        return None
    turns = transcripts.split_code(cell.access, pattern, ends=any(transcripts.END in value for value in values))
    found = [transcripts.split(value, pattern) for value in values]
    talk = _made(cell.access, turns, found, "it is one text, which is split into messages at the speakers' names")
    return replace(talk, cell=cell, imports=("re",))


def _named(cell: Cell, any_name: bool) -> bool:
    return any_name or cell.key in CONVERSATION_KEYS


def _read(access: str, values: Sequence[Any], *, named: bool) -> Talk | None:
    if not values:
        return None
    empty = Cell("", "", access, ())
    if all(isinstance(value, str) for value in values):
        parser = parser_of(values)
        if parser is None:
            return None
        read: Any = json.loads if parser == "json.loads" else __import__("ast").literal_eval
        inner = _read(f"{parser}({access})", [read(value.strip()) for value in values], named=named)
        if inner is None:
            return None
        kind = "JSON" if parser == "json.loads" else "a Python literal"
        return replace(
            inner, imports=(parser.split(".")[0], *inner.imports), how=(f"it is text that holds {kind}", *inner.how)
        )
    if all(isinstance(value, Mapping) for value in values):
        return _read_struct(access, values, named=named)
    if not all(isinstance(value, list) for value in values):
        return None
    turns = [turn for value in values for turn in value]
    if all(isinstance(turn, Mapping) for turn in turns):
        keys = set().union(*turns)
        role = next((key for key in ROLE_KEYS if key in keys), None)
        content = next((key for key in CONTENT_KEYS if key in keys and key != role), None)
        if role and content and all(isinstance(turn.get(role), str) for turn in turns):
            return Talk(
                empty, access, role, content, examples=tuple([dict(turn) for turn in value] for value in values)
            )
        return _read_pairs(access, values, keys)
    if all(isinstance(turn, list) and len(turn) == 2 for turn in turns) and named:
        made = f"[m for t in {access} for m in ({_said('user', 't[0]')}, {_said('assistant', 't[1]')})]"
        found = tuple([m for pair in value for m in _exchange(pair[0], pair[1])] for value in values)
        return _made(access, made, found, "its pairs are question and answer")
    if named and all(isinstance(turn, str) for turn in turns) and all(len(value) > 1 for value in values):
        made = f'[{{"role": ("user", "assistant")[i % 2], "content": turn}} for i, turn in enumerate({access})]'
        found = tuple(
            [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(value)]
            for value in values
        )
        return _made(access, made, found, "its texts are the user's and the assistant's in turn")
    return None


def _made(access: str, turns: str, examples: Sequence[list[dict[str, Any]]], how: str) -> Talk:
    return Talk(Cell("", "", access, ()), turns, "role", "content", examples=tuple(examples), how=(how,))


def _said(role: str, content: str) -> str:
    return f'{{"role": "{role}", "content": {content}}}'


def _exchange(question: Any, answer: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _read_struct(access: str, values: Sequence[Row], *, named: bool) -> Talk | None:
    keys = set.intersection(*(set(value) for value in values))
    empty = Cell("", "", access, ())
    role = next((key for key in ROLE_KEYS if key in keys), None)
    content = next((key for key in CONTENT_KEYS if key in keys and key != role), None)
    if role and content:
        if all(isinstance(value[role], list) and isinstance(value[content], list) for value in values):
            made = f'[{{"role": r, "content": c}} for r, c in zip({access}[{role!r}], {access}[{content!r}])]'
            found = [
                [{"role": r, "content": c} for r, c in zip(value[role], value[content], strict=False)]
                for value in values
            ]
            return _made(access, made, found, "its lists of roles and of contents are put together")
        if all(isinstance(value[role], str) for value in values):
            single = tuple([dict(value)] for value in values)
            how = ("the single message becomes a list",)
            return Talk(empty, f"[{access}]", role, content, examples=single, how=how)
    inner = next((key for key in CONVERSATION_KEYS if key in keys), None)
    if inner:
        below = [value[inner] for value in values if not is_blank(value[inner])]
        talk = _read(f"{access}[{inner!r}]", below, named=True)
        return replace(talk, how=(f"it lies under `{inner}`", *talk.how)) if talk else None
    return None


def _read_pairs(access: str, values: Sequence[Any], keys: set[str]) -> Talk | None:
    """Turns such as ``{"human": ..., "assistant": ...}``: two messages each."""
    asks = next((key for key in keys if _key(key) in USER), None)
    says = next((key for key in keys if _key(key) in ASSISTANT), None)
    if not asks or not says:
        return None
    both = f"({_said('user', f't[{asks!r}]')}, {_said('assistant', f't[{says!r}]')})"
    made = f'[m for t in {access} for m in {both} if m["content"]]'
    examples = tuple(
        [m for t in value for m in _exchange(t.get(asks), t.get(says)) if m["content"]] for value in values
    )
    return _made(access, made, examples, f"each turn's `{asks}` is the user's and its `{says}` the assistant's")


def _content_kind(value: Any) -> str:
    if value is None or isinstance(value, str):
        return "text"
    if isinstance(value, list):
        return "a list of parts"
    return "a number" if isinstance(value, int | float) and not isinstance(value, bool) else "an object"


def _key(name: str) -> str:
    return name.strip().lower().replace(" ", "_")
