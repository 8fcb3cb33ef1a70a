"""What the Messages API refuses about a request, so that the stand-in refuses it too.

Sources, read in November 2026 with anthropic 2.12.0: the parameter types and their docstrings in the installed
package (`request_schema` checks those), its `types/*_error.py` for the compaction errors, and the documentation at
https://platform.claude.com/docs/en/ : api/errors, api/versioning, build-with-claude/prompt-caching,
build-with-claude/compaction, build-with-claude/refusals-and-fallback, build-with-claude/extended-thinking.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlintern.orchestrator.rehearsal.request_schema import known_betas, message_complaints, schema_complaints

TOOL_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
MAX_BREAKPOINTS = 4
MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_OUTPUT_TOKENS = 128_000
ORPHANS = "`tool_use` ids were found without `tool_result` blocks"
NULLABLE = {("compaction", "content"), ("fallback", "trigger")}
"""Fields of a block that may be null: every other one is left out or has a value."""

FIELD_BETAS: Mapping[str, tuple[str, ...]] = {
    "compaction": ("compact-2026-09-04",),
    "context_management": ("context-management-2025-06-27", "compact-2026-01-12"),
    "fallbacks": ("server-side-fallback-2026-07-01", "server-side-fallback-2026-06-01"),
    "fallback_credit_token": ("fallback-credit-2026-07-01", "fallback-credit-2026-06-01"),
    "thread": ("message-threads-2026-08-12",),
    "diagnostics": ("cache-diagnosis-2026-04-07",),
    "mcp_servers": ("mcp-client-2025-04-04", "mcp-client-2025-11-20", "mcp-client-2026-09-15"),
    "speed": ("fast-mode-2026-02-01",),
}
"""Top-level fields that exist only with one of these in ``anthropic-beta``."""

BLOCK_BETAS: Mapping[str, tuple[str, ...]] = {
    "compaction": ("compact-2026-09-04", "compact-2026-01-12"),
    "fallback": ("server-side-fallback-2026-07-01", "server-side-fallback-2026-06-01"),
}
"""Blocks in ``messages`` that exist only with one of these: without it the block type is unknown."""


def blocks_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def complaint(request: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
    """Why the API would answer 400 to ``request``; None if it would not. Thinking bindings are checked elsewhere.

    ``headers`` have names in lower case.
    """
    return next(_complaints(request, headers), None)


def unauthorized(headers: Mapping[str, str]) -> bool:
    """Whether nobody says who is asking."""
    return not headers.get("x-api-key") and not headers.get("authorization", "").startswith("Bearer ")


def _complaints(request: Mapping[str, Any], headers: Mapping[str, str]) -> Iterator[str]:
    if not headers.get("anthropic-version"):
        yield "anthropic-version: header is required"
    if "json" not in headers.get("content-type", ""):
        yield "content-type: must be application/json"
    betas = [name.strip() for name in headers.get("anthropic-beta", "").split(",") if name.strip()]
    for unknown in sorted(set(betas) - known_betas()):
        yield f"Unexpected value(s) `{unknown}` for the `anthropic-beta` header."
    for name, needed in FIELD_BETAS.items():
        if name in request and not set(needed) & set(betas):
            yield f"{name}: Extra inputs are not permitted"
    for index, message in enumerate(request.get("messages") or ()):
        for position, block in enumerate(blocks_of(message)):
            needed = BLOCK_BETAS.get(block.get("type", ""), ())
            if needed and not set(needed) & set(betas):
                yield f"messages.{index}.content.{position}: Input tag '{block['type']}' is none of the expected tags"
    yield from schema_complaints(request)
    messages: list[dict[str, Any]] = request["messages"]
    for index, message in enumerate(messages):
        yield from (f"messages.{index}{found}" for found in _of_message(json.dumps(message)))
    yield from _sizes(request)
    yield from _order(request, messages)
    yield from _compaction(request, messages)
    yield from _fallbacks(request, messages)
    yield from _pairing(messages)
    yield from _tools(request)
    yield from _cache_marks(request)


def _sizes(request: Mapping[str, Any]) -> Iterator[str]:
    if not 0 <= request["max_tokens"] <= MAX_OUTPUT_TOKENS:
        yield f"max_tokens: {request['max_tokens']} > {MAX_OUTPUT_TOKENS}, the maximum of output tokens"
    budget = (request.get("thinking") or {}).get("budget_tokens")
    if budget is not None and not 1024 <= budget < request["max_tokens"]:
        yield "thinking.budget_tokens: must be at least 1024 and less than max_tokens"
    if len(request["messages"]) > 100_000:
        yield "messages: at most 100000 messages"
    if any(not block["text"].strip() for block in request.get("system") or () if isinstance(block, dict)):
        yield "system: text content blocks must contain non-whitespace text"


def _order(request: Mapping[str, Any], messages: list[dict[str, Any]]) -> Iterator[str]:
    if not messages or not all(blocks_of(message) for message in messages):
        yield "messages: at least one message is required, and all messages must have non-empty content"
        return
    first = blocks_of(messages[0])
    if messages[0]["role"] != "user" and first[0]["type"] != "compaction":
        yield 'messages: first message must use the "user" role'
    redeems = "fallback_credit_token" in request
    if messages[-1]["role"] == "assistant" and first[0]["type"] != "compaction" and not redeems:
        yield "This model does not support assistant message prefill. The conversation must end with a user message."


@functools.lru_cache(maxsize=4096)
def _of_message(text: str) -> tuple[str, ...]:
    """What is wrong with one message by itself, each from the name of its place on; a history is sent many times."""
    message = json.loads(text)
    found = list(message_complaints(message))
    if found:
        return tuple(found)
    for position, block in enumerate(blocks_of(message)):
        for name, value in block.items():
            if value is None and (block["type"], name) not in NULLABLE:
                found.append(f".content.{position}.{block['type']}.{name}: Input should not be null")
        inner = block.get("content") if block["type"] == "tool_result" else None
        for each in (block, *(inner if isinstance(inner, list) else ())):
            if each["type"] == "text" and not each["text"].strip():
                found.append(": text content blocks must contain non-whitespace text")
    return tuple(found)


def _compaction(request: Mapping[str, Any], messages: list[dict[str, Any]]) -> Iterator[str]:
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
    if "compaction" not in request:
        return
    forced = (request.get("tool_choice") or {}).get("type") in ("any", "tool")
    if forced or any(name in request for name in ("context_management", "stop_sequences", "output_format")):
        yield "compaction: cannot be combined with context_management, stop_sequences, a forced tool or a format"
    if places and len(messages) == 1 and len(blocks_of(messages[0])) == 1:
        yield "compaction: there is nothing to summarize"
    if messages[-1]["role"] == "assistant" and any(b["type"] == "tool_use" for b in blocks_of(messages[-1])):
        yield "compaction: the conversation ends on an assistant turn that is not finished"


def _fallbacks(request: Mapping[str, Any], messages: list[dict[str, Any]]) -> Iterator[str]:
    if "fallbacks" in request and "fallback_credit_token" in request:
        yield "fallback_credit_token: cannot be combined with fallbacks"
    for index, message in enumerate(messages):
        kinds = [block["type"] for block in blocks_of(message)]
        boundary = max((place for place, kind in enumerate(kinds) if kind == "fallback"), default=0)
        if "tool_use" in kinds[:boundary]:
            yield f"messages.{index}: a `tool_use` block of a model that declined must be left out"


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
        elif answered:
            yield f"messages.{index}: `tool_result` blocks can only be in `user` messages"
        elif asked:
            yield f"messages.{index - 1}: {ORPHANS} immediately after: {', '.join(asked)}."
        asked = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if asked and message["role"] == "user":
            yield f"messages.{index}: `tool_use` blocks can only be in `assistant` messages"
        if len(asked) != len(set(asked)):
            yield f"messages.{index}: `tool_use` ids must be unique"
        if any(not re.fullmatch(r"[a-zA-Z0-9_-]+", each) for each in asked):
            yield f"messages.{index}: tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
    if asked:
        yield f"messages: {ORPHANS} at the end: {', '.join(asked)}."


def _tools(request: Mapping[str, Any]) -> Iterator[str]:
    tools = request.get("tools") or []
    for index, tool in enumerate(tools):
        schema = tool.get("input_schema") or {}
        if not TOOL_NAME.match(tool["name"]):
            yield f"tools.{index}.custom.name: String should match pattern '{TOOL_NAME.pattern}'"
        if schema.get("type") != "object" or {"anyOf", "oneOf", "allOf"} & set(schema):
            yield f"tools.{index}.custom.input_schema: must be an object without oneOf, allOf or anyOf at its root"
    names = [tool["name"] for tool in tools]
    if len(names) != len(set(names)):
        yield "tools: Tool names must be unique."
    if not tools and (request.get("tool_choice") or {}).get("type") in ("any", "tool"):
        yield "tool_choice: may only be specified while providing tools"


def _cache_marks(request: Mapping[str, Any]) -> Iterator[str]:
    """At most four, none on thinking, and those of an hour before those of five minutes."""
    marked = [*(request.get("tools") or ()), *_dicts(request.get("system"))]
    for message in request["messages"]:
        for block in blocks_of(message):
            inner = block.get("content")
            marked += [*(_dicts(inner) if block["type"] == "tool_result" else ()), block]
    marks = [block["cache_control"] for block in marked if block.get("cache_control")]
    if any("thinking" in str(block.get("type")) and block.get("cache_control") for block in marked):
        yield "cache_control: cannot be set on thinking blocks"
    marks += [request["cache_control"]] if request.get("cache_control") else []
    if len(marks) > MAX_BREAKPOINTS:
        yield f"A maximum of 4 blocks with cache_control may be provided. Found {len(marks)}."
    lifetimes = [mark.get("ttl") or "5m" for mark in marks]
    if lifetimes != sorted(lifetimes):  # "1h" sorts before "5m"
        yield "cache_control: a ttl='1h' block must not come after a ttl='5m' block"


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def bare(value: Any) -> Any:
    """``value`` without cache markers, which are no part of the prompt."""
    if isinstance(value, dict):
        return {name: bare(each) for name, each in value.items() if name != "cache_control"}
    return [bare(each) for each in value] if isinstance(value, list) else value


def parts_of(request: Mapping[str, Any]) -> list[str]:
    """The prompt in the order in which it is cached: tools, system, then each message."""
    whole = [request.get("tools") or [], request.get("system") or [], *request["messages"]]
    return [_text_of_part(part) for part in whole]


def _text_of_part(part: Any) -> str:
    text = json.dumps(part, ensure_ascii=False, sort_keys=True)
    return json.dumps(bare(part), ensure_ascii=False, sort_keys=True) if '"cache_control"' in text else text


def prefix_signatures(parts: list[str], *, summarized: str | None = None) -> list[str]:
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
