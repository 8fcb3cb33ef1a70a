"""The history that the model sees: only ever longer, except where a compaction replaces it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlintern.orchestrator.model import Block, CacheTtl, Message, ModelReply, ModelRequest

CHARS_PER_TOKEN = 3.5
"""Rough, and on the high side for English, code and JSON: the gauge must not run late."""

IMAGE_TOKENS = 1_600
"""What a picture of the largest size that is not scaled down costs."""

OWN_NOTE = "[mlintern "
"""How every text begins that the orchestrator itself puts where a person or a tool speaks."""

ABANDONED = "This call was not run: the conversation went on without it."


class Conversation:
    """System prompt, tools and messages of one agent.

    ``system`` and ``tools`` never change: a different byte would lose the cache and the thinking that is bound to
    them. Messages are plain API dicts and are never edited once they are in. ``known_tokens`` is the size up to and
    with the last reply in ``messages``, as its usage gave it; 0 if unknown.
    """

    def __init__(
        self,
        *,
        system: str,
        tools: Sequence[Mapping[str, Any]],
        messages: Sequence[Message] = (),
        known_tokens: int = 0,
    ) -> None:
        self.system: tuple[Block, ...] = ({"type": "text", "text": system},)
        self.tools = tuple(dict(tool) for tool in tools)
        self.messages: list[Message] = list(messages)
        self._known_tokens = known_tokens
        self._checked = 0
        replies = [number for number, message in enumerate(self.messages, 1) if message["role"] == "assistant"]
        self._known_messages = replies[-1] if known_tokens and replies else 0

    def add_user(self, text: str) -> None:
        """What a person said. May follow tool results; the API reads both as one turn of the user."""
        self.messages.append({"role": "user", "content": text})

    def add_reply(self, reply: ModelReply) -> None:
        """The model's reply, verbatim, thinking included."""
        self.messages.append({"role": "assistant", "content": reply.blocks})
        self._known_tokens = reply.answered_usage.context_tokens
        self._known_messages = len(self.messages)

    def add_results(self, results: Sequence[Block]) -> None:
        """One message of nothing but the results of the last reply's calls, in their order.

        Raises:
            ValueError: they are not exactly those calls' results.
        """
        asked = [use["id"] for use in calls_of(self.messages[-1])] if self.messages else []
        if [result["tool_use_id"] for result in results] != asked:
            raise ValueError(f"results must answer {asked} in order")
        self.messages.append({"role": "user", "content": list(results)})

    def replace(self, messages: Sequence[Message], *, known_tokens: int = 0) -> None:
        """Put a compacted history in place of this one."""
        self.messages = list(messages)
        self._known_tokens = known_tokens
        self._known_messages = len(self.messages) if known_tokens else 0
        self._checked = 0

    @property
    def tokens(self) -> int:
        """Tokens that the next prompt will have: as last reported, plus an estimate of what was added since."""
        added = sum(estimate_tokens(message["content"]) for message in self.messages[self._known_messages :])
        if self._known_messages:
            return self._known_tokens + added
        return added + estimate_tokens(self.system) + estimate_tokens(self.tools)

    def user_texts(self) -> list[str]:
        """Everything that people said in the messages at hand, oldest first."""
        return [text for message in self.messages if (text := user_text(message))]

    def before_last_said(self) -> tuple[str | None, list[Message]]:
        """The last thing that a person said and the messages before it; None if there is none."""
        for index in range(len(self.messages) - 1, -1, -1):
            text = user_text(self.messages[index])
            if text and not text.startswith(OWN_NOTE):
                return text, self.messages[:index]
        return None, self.messages

    def request(
        self,
        *,
        model: str,
        max_tokens: int,
        thinking: Mapping[str, Any] | None = None,
        effort: str | None = None,
        cache_ttl: CacheTtl | None = None,
    ) -> ModelRequest:
        """The next request. Calls that never got a result are answered by a stub, whatever their place."""
        return ModelRequest(
            model=model,
            system=self.system,
            tools=self.tools,
            messages=self._answered(),
            max_tokens=max_tokens,
            thinking=thinking,
            effort=effort,
            cache_ttl=cache_ttl,
        )

    def _answered(self) -> list[Message]:
        """`answered` of the messages; those up to the last reply that was looked at before need no second look."""
        whole, latest = self.messages[: self._checked], self.messages[self._checked :]
        repaired = answered(latest)
        if len(repaired) == len(latest) and all(new is old for new, old in zip(repaired, latest, strict=True)):
            replies = [number for number, message in enumerate(latest) if message["role"] == "assistant"]
            self._checked += replies[-1] if replies else 0
        return whole + repaired


def calls_of(message: Message) -> list[Block]:
    """The ``tool_use`` blocks of a message."""
    content = message["content"]
    if message["role"] != "assistant" or isinstance(content, str):
        return []
    return [block for block in content if block["type"] == "tool_use"]


def user_text(message: Message) -> str:
    """What a person said in ``message``; "" for tool results and replies."""
    if message["role"] != "user":
        return ""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content if block["type"] == "text")


def without_thinking(messages: Sequence[Message]) -> list[Message]:
    """``messages`` with all thinking blocks left out, and replies that were nothing else left out whole."""
    kept: list[Message] = []
    for message in messages:
        if message["role"] == "assistant" and not isinstance(message["content"], str):
            blocks = [block for block in message["content"] if "thinking" not in block["type"]]
            if not blocks:
                continue
            message = {"role": "assistant", "content": blocks}
        kept.append(message)
    return kept


def sendable(blocks: Sequence[Block]) -> list[Block]:
    """``blocks`` of a reply as the API takes them back: no text of white space alone, no field that is null."""
    return [
        {name: value for name, value in block.items() if value is not None}
        for block in blocks
        if block["type"] != "text" or str(block.get("text") or "").strip()
    ]


def answered(messages: Sequence[Message]) -> list[Message]:
    """``messages`` with an error result for every call that has none in the very next message.

    Matched by adjacency: servers reuse ids, and a result further down does not count. A history in which nothing is
    missing comes back with the same message objects.
    """
    repaired: list[Message] = []
    for index, message in enumerate(messages):
        following = messages[index + 1] if index + 1 < len(messages) else None
        previous = messages[index - 1] if index else None
        if previous is not None and (asked := calls_of(previous)) and message["role"] == "user":
            message = _with_results(message, [use["id"] for use in asked])
        repaired.append(message)
        if (asked := calls_of(message)) and (following is None or following["role"] != "user"):
            repaired.append({"role": "user", "content": [stub_result(use["id"]) for use in asked]})
    return repaired


def _with_results(message: Message, ids: Sequence[str]) -> Message:
    content = message["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    given = {block["tool_use_id"]: block for block in blocks if block["type"] == "tool_result"}
    if list(given) == list(ids):
        return message
    results = [given.get(each) or stub_result(each) for each in ids]
    return {"role": "user", "content": [*results, *(b for b in blocks if b["type"] != "tool_result")]}


def stub_result(tool_use_id: str, text: str = ABANDONED) -> Block:
    """An error result for a call that has none."""
    return {
        "type": "tool_result",
        "tool_use_id": tool_use_id,
        "content": [{"type": "text", "text": text}],
        "is_error": True,
    }


def estimate_tokens(value: Any) -> int:
    """A rough count for text, blocks or any JSON value; pictures count by their usual size, not their bytes."""
    if isinstance(value, str):
        return int(len(value) / CHARS_PER_TOKEN) + 1
    if isinstance(value, Mapping):
        if value.get("type") == "image":
            return IMAGE_TOKENS
        if "content" in value and value.get("type") in (None, "tool_result"):
            return estimate_tokens(value["content"]) + 8
        return int(len(json.dumps(value, ensure_ascii=False, default=str)) / CHARS_PER_TOKEN) + 1
    if isinstance(value, Sequence):
        return sum(estimate_tokens(each) for each in value)
    return int(len(json.dumps(value, default=str)) / CHARS_PER_TOKEN) + 1
