"""The words in which a test scripts a Messages API server: turns, their blocks, every way an answer can go wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Event = tuple[str, dict[str, Any]]
"""One server-sent event: its name and its data."""


@dataclass(frozen=True)
class Text:
    """A text block, streamed in ``pieces`` deltas."""

    text: str
    pieces: int = 2


@dataclass(frozen=True)
class Thinking:
    """A thinking block. The server signs it over the prefix that it was thought in, unless ``signature`` is given."""

    thinking: str
    signature: str | None = None


@dataclass(frozen=True)
class ToolUse:
    """A call. ``raw`` are partial_json pieces to send instead of the JSON of ``input``: cut or malformed ones too."""

    name: str
    input: dict[str, Any] = field(default_factory=dict)
    id: str | None = None
    raw: Sequence[str] | None = None


@dataclass(frozen=True)
class Compaction:
    """A compaction block; None for a compaction that failed on the server."""

    content: str | None


@dataclass(frozen=True)
class RawBlock:
    """Any other block, streamed as its start and its stop only."""

    block: dict[str, Any]


Block = Text | Thinking | ToolUse | Compaction | RawBlock


@dataclass(frozen=True)
class EndEarly:
    """The body ends, properly framed, after ``after`` events: no error on the wire, and no stop reason."""

    after: int


@dataclass(frozen=True)
class Reset:
    """The connection is reset (RST) after ``after`` events; ``graceful`` closes it (FIN) inside a chunk instead."""

    after: int
    graceful: bool = False


@dataclass(frozen=True)
class Stall:
    """After ``after`` events nothing more comes (but ``pings`` every so many seconds) until the client goes away."""

    after: int
    pings: float | None = None


@dataclass(frozen=True)
class ErrorEvent:
    """An ``error`` event after ``after`` events; the HTTP status was 200 long ago."""

    after: int
    type: str = "overloaded_error"
    message: str = "Overloaded"


Fault = EndEarly | Reset | Stall | ErrorEvent


@dataclass(frozen=True, kw_only=True)
class Form:
    """How the bytes of an event stream look. The defaults are what the real service sends."""

    chunked: bool = True
    crlf: bool = False
    pings: bool = False
    piece_bytes: int | None = None
    message_start: bool = True
    usage: bool = True
    event_lines: bool = True
    done_line: bool = False


@dataclass(frozen=True)
class Turn:
    """An answer of the model.

    ``stop_reason`` defaults to ``tool_use`` where there is a call, ``compaction`` where there is a compaction block
    and ``end_turn`` otherwise. ``usage`` overrides single fields of what the server would count.
    """

    blocks: Sequence[Block]
    stop_reason: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    fault: Fault | None = None
    form: Form = Form()
    stop_details: dict[str, Any] | None = None

    @property
    def why_it_stopped(self) -> str:
        if self.stop_reason is not None:
            return self.stop_reason
        if any(isinstance(block, ToolUse) for block in self.blocks):
            return "tool_use"
        return "compaction" if any(isinstance(block, Compaction) for block in self.blocks) else "end_turn"


@dataclass(frozen=True)
class HttpAnswer:
    """A whole HTTP answer that is no event stream: an error, a proxy's page, a wrong body."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


Answer = Turn | HttpAnswer


def says(text: str, **turn: Any) -> Turn:
    """A turn of plain text that ends the run."""
    return Turn([Text(text)], **turn)


def calls(name: str, /, **arguments: Any) -> Turn:
    """A turn of one call."""
    return Turn([ToolUse(name, arguments)])


def error(
    status: int,
    type: str,
    message: str,
    *,
    error_code: str | None = None,
    headers: dict[str, str] | None = None,
) -> HttpAnswer:
    """An error in the API's own form. The SDK's own retries are off, so that a test sees the client's."""
    detail: dict[str, Any] = {"type": type, "message": message}
    if error_code is not None:
        detail["details"] = {"error_code": error_code}
    body = json.dumps({"type": "error", "error": detail, "request_id": "req_error"}).encode()
    return HttpAnswer(status, body, headers={"x-should-retry": "false", **(headers or {})})


def overloaded() -> HttpAnswer:
    return error(529, "overloaded_error", "Overloaded")


def too_large() -> HttpAnswer:
    """What the edge in front of the API answers to a body over 32 MB."""
    page = b"<html><head><title>413 Request Entity Too Large</title></head><body>cloudflare</body></html>"
    return HttpAnswer(413, page, "text/html")


def events_of(turn: Turn, *, message: dict[str, Any], ids: Iterator[str], signature: str) -> list[Event]:
    """The events of ``turn``. ``message`` is the empty message with the usage; ``ids`` name calls without an id."""
    usage: dict[str, Any] = message["usage"]
    start = {**message, "usage": {**usage, "output_tokens": 1}}
    delta_usage = {"usage": {"output_tokens": usage["output_tokens"]}}
    if "iterations" in usage:
        delta_usage["usage"]["iterations"] = usage["iterations"]
    if not turn.form.usage:
        del start["usage"]
        delta_usage = {}
    events: list[Event] = []
    if turn.form.message_start:
        events.append(("message_start", {"type": "message_start", "message": start}))
    if turn.form.pings:
        events.append(("ping", {"type": "ping"}))
    for index, block in enumerate(turn.blocks):
        events += _block_events(index, block, ids=ids, signature=signature)
        if turn.form.pings:
            events.append(("ping", {"type": "ping"}))
    delta: dict[str, Any] = {"stop_reason": turn.why_it_stopped, "stop_sequence": None}
    if turn.stop_details is not None:
        delta["stop_details"] = turn.stop_details
    events.append(("message_delta", {"type": "message_delta", "delta": delta, **delta_usage}))
    events.append(("message_stop", {"type": "message_stop"}))
    return events


def _block_events(index: int, block: Block, *, ids: Iterator[str], signature: str) -> Iterator[Event]:
    deltas: list[dict[str, Any]] = []
    match block:
        case Text(text, pieces):
            start: dict[str, Any] = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in in_pieces(text, pieces)]
        case Thinking(thinking, own):
            start = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": thinking}] if thinking else []
            deltas.append({"type": "signature_delta", "signature": own or signature})
        case ToolUse(name, arguments, given, raw):
            start = {"type": "tool_use", "id": given or next(ids), "name": name, "input": {}}
            pieces_of_json = in_pieces(json.dumps(arguments), 3) if raw is None else raw
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces_of_json]
        case Compaction(content):
            start = {"type": "compaction", "content": None, "encrypted_content": None}
            if content is not None:
                start["signature"] = signature
                deltas = [{"type": "compaction_delta", "content": content, "encrypted_content": None}]
        case RawBlock(start):
            pass
    yield "content_block_start", {"type": "content_block_start", "index": index, "content_block": start}
    for delta in deltas:
        yield "content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta}
    yield "content_block_stop", {"type": "content_block_stop", "index": index}


def in_pieces(text: str, count: int) -> list[str]:
    """``text`` cut into at most ``count`` pieces of about equal length; an empty text is no piece."""
    size = max(1, -(-len(text) // max(1, count)))
    return [text[start : start + size] for start in range(0, len(text), size)]
