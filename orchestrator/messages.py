"""Read and change the messages of a conversation, which are plain dicts as the API takes them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlintern.orchestrator.model import Block, Message
from mlintern.orchestrator.signatures import text_of

CHARS_PER_TOKEN = 3.5
"""Rough, and on the high side for English, code and JSON: the gauge must not run late."""

IMAGE_TOKENS = 1_600
"""What a picture of the largest size that is not scaled down costs."""

OWN_NOTE = "[mlintern "
"""How every text begins that the orchestrator itself puts where a person or a tool speaks."""

ABANDONED = "This call was not run: the conversation went on without it."

RESULT_CHARACTERS = 1_500

TURN_CHARACTERS = 4_000

SHORT_CHARACTERS = 200
"""A result of this length is not made shorter: that a call's outcome is unknown must not be cut out."""


def user_message(text: str) -> Message:
    """A user message of one text."""
    return {"role": "user", "content": [{"type": "text", "text": text}]}


def blocks_of(message: Message) -> list[Block]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


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


def said_by_person(message: Message) -> str:
    """What a person said in ``message``; "" for what the orchestrator itself said in their place."""
    text = user_text(message).strip("\n")
    return "" if text.startswith(OWN_NOTE) else text


def exchanges(messages: Sequence[Message]) -> Iterator[tuple[Block, Block]]:
    """Every call with its result."""
    for message, following in itertools.pairwise(messages):
        content = following["content"]
        if following["role"] != "user" or isinstance(content, str):
            continue
        results = {block["tool_use_id"]: block for block in content if block["type"] == "tool_result"}
        for use in calls_of(message):
            if use["id"] in results:
                yield use, results[use["id"]]


def result_text(result: Block) -> str:
    """The text of a ``tool_result``, without what the orchestrator added to it."""
    content = result.get("content", "")
    if isinstance(content, str):
        return content
    return text_of([block for block in content if not str(block.get("text", "")).startswith(OWN_NOTE)])


def count_replies(messages: Sequence[Message]) -> int:
    return sum(message["role"] == "assistant" for message in messages)


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


def reply_texts(messages: Sequence[Message]) -> list[str]:
    """What the agent wrote in each of its replies that holds text, oldest first."""
    texts = []
    for message in messages:
        if message["role"] == "assistant":
            texts.append("".join(block["text"] for block in blocks_of(message) if block["type"] == "text"))
    return [text for text in texts if text.strip()]


def sendable(blocks: Sequence[Block]) -> list[Block]:
    """``blocks`` of a reply as the API takes them back: no text of white space alone, no field that is null."""
    return [
        {name: value for name, value in block.items() if value is not None}
        for block in blocks
        if block["type"] != "text" or str(block.get("text") or "").strip()
    ]


def without_compaction_blocks(messages: Sequence[Message]) -> list[Message]:
    """``messages`` for an endpoint that does not know compaction blocks: their summaries as plain text."""
    result: list[Message] = []
    for message in messages:
        blocks = blocks_of(message)
        if not any(block["type"] == "compaction" for block in blocks):
            result.append(message)
            continue
        for block in blocks:
            if block["type"] == "compaction" and block.get("content"):
                result.append(user_message(f"<summary>\n{block['content']}\n</summary>"))
        others = [block for block in blocks if block["type"] != "compaction"]
        if others:
            result.append({**message, "content": others})
    return joined(result)


def joined(messages: Sequence[Message]) -> list[Message]:
    """``messages`` with neighbours of one role made one message, results before other content.

    Some chat templates refuse two messages of a role in a row, and the API reads them as one anyway. Messages that
    have no such neighbour are passed on as they are.
    """
    result: list[Message] = []
    for message in messages:
        if not result or result[-1]["role"] != message["role"]:
            result.append(message)
            continue
        blocks = [*blocks_of(result[-1]), *blocks_of(message)]
        if message["role"] == "user":
            blocks.sort(key=lambda block: block["type"] != "tool_result")
        result[-1] = {"role": message["role"], "content": blocks}
    return result


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


def with_smaller_results(message: Message, characters: int) -> Message:
    """``message`` with its results cut to ``characters`` in all, each by its share."""
    content = message["content"]
    if message["role"] != "user" or isinstance(content, str):
        return message
    total = sum(_length(block) for block in content)
    if total <= characters:
        return message
    return {**message, "content": [_smaller(block, characters / total) for block in content]}


def _length(block: Block) -> int:
    if block["type"] != "tool_result":
        return 0
    content = block.get("content", "")
    return len(content) if isinstance(content, str) else sum(len(each.get("text", "")) for each in content)


def _smaller(block: Block, share: float) -> Block:
    if block["type"] != "tool_result":
        return block
    content = block.get("content", "")
    if isinstance(content, str):
        return {**block, "content": _share_of(content, share)}
    parts = [{**part, "text": _share_of(part["text"], share)} if "text" in part else part for part in content]
    return {**block, "content": parts}


def _share_of(text: str, share: float) -> str:
    return shortened(text, max(SHORT_CHARACTERS, int(len(text) * share)))


def shortened(text: str, characters: int) -> str:
    """``text`` with its middle cut out if it is longer than ``characters``; the cut is said."""
    if len(text) <= characters:
        return text
    half = max(1, characters // 2)
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters cut ...]\n{text[-half:]}"


def transcript(messages: Sequence[Message], *, max_tokens: int) -> str:
    """The messages as readable text of at most about ``max_tokens``: both ends, and what was cut is said."""
    lines = [line for message in messages for line in _lines(message)]
    if sum(map(estimate_tokens, lines)) <= max_tokens:
        return "\n".join(lines)
    first, last, room = 0, len(lines), max_tokens - 50
    while first < last:
        from_end = first > 0 and 3 * first >= len(lines) - last
        line = lines[last - 1] if from_end else lines[first]
        room -= estimate_tokens(line)
        if room < 0:
            break
        first, last = (first, last - 1) if from_end else (first + 1, last)
    return "\n".join([*lines[:first], f"[{last - first} entries cut here]", *lines[last:]])


def _lines(message: Message) -> Iterator[str]:
    for block in blocks_of(message):
        match block["type"]:
            case "text":
                yield f"{message['role'].upper()}: {shortened(block['text'], TURN_CHARACTERS)}"
            case "tool_use":
                arguments = json.dumps(block["input"], ensure_ascii=False, default=str)
                yield f"CALL {block['name']}: {shortened(arguments, RESULT_CHARACTERS)}"
            case "tool_result":
                kind = "ERROR" if block.get("is_error") else "RESULT"
                yield f"{kind}: {shortened(result_text(block), RESULT_CHARACTERS)}"
            case "compaction":
                yield f"EARLIER SUMMARY: {block.get('content') or ''}"


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
