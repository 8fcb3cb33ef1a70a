"""A session for others to read: as Markdown, or as the trace that the Hub's viewer shows. Secrets are blotted out."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mlintern.common.clock import iso
from mlintern.common.redact import redact, secrets_of
from mlintern.orchestrator.model import Usage

Events = Sequence[Mapping[str, Any]]

RESULT_CHARS = 4_000
"""Of each result in the Markdown; the trace holds all of it."""


def as_markdown(events: Events) -> str:
    """The session as one document: what was said, each call with its result, approvals, what it cost."""
    spent = sum(float(event["usd"] or 0.0) for event in events if event["kind"] == "spend")
    parts = list(_markdown_parts(events))
    parts.append(f"---\n\nThe model cost ${spent:.2f}.")
    return _clean("\n\n".join(parts) + "\n")


def _markdown_parts(events: Events) -> Iterator[str]:
    for event in events:
        match event["kind"]:
            case "session_start":
                yield f"# Session of {iso(event['time'])}\n\nModel: {event['model']} · mlintern {event['version']}"
            case "user":
                yield f"## {'mlintern' if event.get('by') == 'loop' else 'User'}\n\n{event['text']}"
            case "reply":
                yield "## Agent"
                yield from _markdown_blocks(event["blocks"])
            case "tool_end":
                state = "error" if event["is_error"] else "result"
                yield f"**{event['name']}** {state}, {event['seconds']:.1f} s\n\n{_fenced(_texts(event['content']))}"
            case "approval":
                answer = "approved" if event["approved"] else "denied"
                note = f": {event['note']}" if event["note"] else ""
                yield f"> {_one_line(event['message'])}\n>\n> **{answer}** ({event['via']}){note}"
            case "guard":
                yield f"> guard, {event['level']}: {event['pattern']}"
            case "compaction":
                yield f"> compacted to {event.get('after_tokens', '?')} tokens"
            case "stop":
                yield f"**{event['name']}**: {event['reason']}"


def _markdown_blocks(blocks: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for block in blocks:
        if block["type"] == "text":
            yield block["text"]
        elif block["type"] == "thinking" and block.get("thinking"):
            yield f"<details><summary>thinking</summary>\n\n{block['thinking']}\n\n</details>"
        elif block["type"] == "tool_use":
            arguments = json.dumps(block["input"], ensure_ascii=False, indent=2)
            yield f"Calls **{block['name']}**\n\n{_fenced(arguments, 'json')}"


def as_trace(events: Events) -> str:
    """The session as JSON lines of the form that coding agents write and the Hub's trace viewer reads.

    One line a message: ``type`` user or assistant, ``uuid`` and ``parentUuid`` as a chain, ``sessionId``,
    ``timestamp``, ``message`` as the Messages API has it.
    """
    return "".join(json.dumps(_clean_all(line), ensure_ascii=False) + "\n" for line in _trace(events))


def _trace(events: Events) -> Iterator[dict[str, Any]]:
    start = next((event for event in events if event["kind"] == "session_start"), None)
    seed = hashlib.sha256(json.dumps(start, default=str).encode()).digest()
    session_id = str(uuid.UUID(bytes=seed[:16]))
    parent: str | None = None
    for number, (event, message) in enumerate(_messages(events)):
        own = str(uuid.UUID(bytes=hashlib.sha256(seed + number.to_bytes(4, "big")).digest()[:16]))
        yield {
            "type": message["role"],
            "uuid": own,
            "parentUuid": parent,
            "sessionId": session_id,
            "timestamp": iso(event["time"]).replace("Z", ".000Z"),
            "version": start["version"] if start else "",
            "message": message,
        }
        parent = own


def _messages(events: Events) -> Iterator[tuple[Mapping[str, Any], dict[str, Any]]]:
    model = ""
    for event in events:
        match event["kind"]:
            case "session_start":
                model = event["model"]
            case "user":
                yield event, {"role": "user", "content": event["text"]}
            case "reply":
                usage = Usage.from_json(event["usage"])
                yield (
                    event,
                    {
                        "id": event.get("request_id") or "",
                        "type": "message",
                        "role": "assistant",
                        "model": event.get("model") or model,
                        "content": event["blocks"],
                        "stop_reason": event["stop_reason"],
                        "usage": {
                            "input_tokens": usage.input_tokens,
                            "cache_read_input_tokens": usage.cache_read_tokens,
                            "cache_creation_input_tokens": usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
                            "output_tokens": usage.output_tokens,
                        },
                    },
                )
            case "tool_end":
                result = {"type": "tool_result", "tool_use_id": event["id"], "content": event["content"]}
                if event["is_error"]:
                    result["is_error"] = True
                yield event, {"role": "user", "content": [result]}


def _texts(content: Iterable[Mapping[str, Any]]) -> str:
    text = "\n".join(block.get("text", f"[{block['type']}]") for block in content)
    left = len(text) - RESULT_CHARS
    return text if left <= 0 else f"{text[:RESULT_CHARS]}\n[{left} more characters]"


def _fenced(text: str, language: str = "") -> str:
    longest = max((len(run) for run in text.split() if set(run) == {"`"}), default=2)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _clean(text: str) -> str:
    return redact(text, known=secrets_of(os.environ))


def _clean_all(value: Any) -> Any:
    """Every text in a JSON value cleaned, its structure left alone."""
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, Mapping):
        return {key: _clean_all(each) for key, each in value.items()}
    return [_clean_all(each) for each in value] if isinstance(value, list) else value
