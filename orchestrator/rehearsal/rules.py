"""What the real Messages API refuses about a conversation, so that a test's server refuses it too.

The rules and their messages are those of the platform documentation (anthropic 2.12.0, November 2026).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

TOOL_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
MAX_BREAKPOINTS = 4
ORPHANS = "`tool_use` ids were found without `tool_result` blocks"


def blocks_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def complaint(request: dict[str, Any]) -> str | None:
    """Why the API would answer 400 to ``request``; None if it would not. Thinking bindings are checked elsewhere."""
    return next(_complaints(request), None)


def _complaints(request: dict[str, Any]) -> Iterator[str]:
    messages: list[dict[str, Any]] = request["messages"]
    yield from _shape(messages)
    yield from _compaction_blocks(messages)
    yield from _pairing(messages)
    for tool in request.get("tools") or []:
        if not TOOL_NAME.match(tool["name"]):
            yield f"tools.0.custom.name: String should match pattern '{TOOL_NAME.pattern}'"
    names = [tool["name"] for tool in request.get("tools") or []]
    if len(names) != len(set(names)):
        yield "tools: Tool names must be unique."
    breakpoints = json.dumps(request).count('"cache_control"')
    if breakpoints > MAX_BREAKPOINTS:
        yield f"A maximum of 4 blocks with cache_control may be provided. Found {breakpoints}."
    for name in ("temperature", "top_p", "top_k", "thread"):
        if name in request:
            yield f"{name}: Extra inputs are not permitted"


def _shape(messages: list[dict[str, Any]]) -> Iterator[str]:
    if not messages:
        yield "messages: at least one message is required"
        return
    first = blocks_of(messages[0])
    if messages[0]["role"] != "user" and first[0]["type"] != "compaction":
        yield 'messages: first message must use the "user" role'
    if messages[-1]["role"] == "assistant" and first[0]["type"] != "compaction":
        yield "This model does not support assistant message prefill. The conversation must end with a user message."
    for index, message in enumerate(messages):
        blocks = blocks_of(message)
        if not blocks:
            yield f"messages.{index}: all messages must have non-empty content"
        for block in blocks:
            if block["type"] == "text" and not block["text"].strip():
                yield f"messages.{index}: text content blocks must be non-empty"


def _compaction_blocks(messages: list[dict[str, Any]]) -> Iterator[str]:
    places = [
        (index, position)
        for index, message in enumerate(messages)
        for position, block in enumerate(blocks_of(message))
        if block["type"] == "compaction" and block.get("content")
    ]
    if len(places) > 1:
        yield "messages: more than one `compaction` block with content"
    if places and places[0] != (0, 0):
        yield "messages: the `compaction` block must be the first block of the conversation"


def _pairing(messages: list[dict[str, Any]]) -> Iterator[str]:
    """Every tool_use is answered in the very next message, and nothing else is."""
    asked: list[str] = []
    for index, message in enumerate(messages):
        blocks = blocks_of(message)
        answered = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if message["role"] == "user":
            missing = [each for each in asked if each not in answered]
            if missing:
                yield f"messages.{index - 1}: {ORPHANS} immediately after: {', '.join(missing)}."
            strange = [each for each in answered if each not in asked]
            if strange:
                yield f"messages.{index}: unexpected `tool_use_id` found in `tool_result`: {', '.join(strange)}."
            if len(answered) != len(set(answered)):
                yield f"messages.{index}: each tool_use must have a single result."
            kinds = [block["type"] == "tool_result" for block in blocks]
            if kinds != sorted(kinds, reverse=True):
                yield f"messages.{index}: `tool_result` blocks must come first in the content."
        elif asked:
            yield f"messages.{index - 1}: {ORPHANS} immediately after: {', '.join(asked)}."
        asked = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if len(asked) != len(set(asked)):
            yield f"messages.{index}: `tool_use` ids must be unique"
    if asked:
        yield f"messages: {ORPHANS} at the end: {', '.join(asked)}."


def bare(value: Any) -> Any:
    """``value`` without cache markers, which are no part of the prompt."""
    if isinstance(value, dict):
        return {name: bare(each) for name, each in value.items() if name != "cache_control"}
    return [bare(each) for each in value] if isinstance(value, list) else value


def parts_of(request: dict[str, Any]) -> list[str]:
    """The prompt in the order in which it is cached: tools, system, then each message."""
    whole = [request.get("tools") or [], request.get("system") or [], *request["messages"]]
    return [json.dumps(bare(part), ensure_ascii=False, sort_keys=True) for part in whole]


def prefix_marks(parts: list[str], *, summarized: str | None = None) -> list[str]:
    """A mark of the prompt before each message, and of all of it. Thinking is bound to the mark before its message.

    ``summarized``: the first message is a compaction block, and this is the mark of what it stands for.
    """
    marks = [_mark("", *parts[:2])]
    for part in parts[2:]:
        marks.append(_mark(marks[-1], part))
        if summarized is not None and len(marks) == 2:
            marks[-1] = summarized
    return marks


def _mark(before: str, *parts: str) -> str:
    return "sig_" + hashlib.sha256("\n".join([before, *parts]).encode("utf-8", "surrogatepass")).hexdigest()[:24]
