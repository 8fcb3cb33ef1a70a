"""Assemble a reply from stream events, believing nothing that the stream did not finish.

The SDK's own accumulator parses tool arguments leniently: a stream cut inside ``{"path": "a", "text": ...`` ends as
the valid-looking call ``{"path": "a"}``. So the raw JSON is kept here and parsed strictly once its block is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from mlintern.orchestrator.messages import CHARS_PER_TOKEN, sendable
from mlintern.orchestrator.model import (
    ArgumentsDelta,
    Block,
    CacheTtl,
    MalformedReply,
    ModelEvent,
    ModelReply,
    ReplyStarted,
    TextDelta,
    ThinkingDelta,
    ToolUse,
    ToolUseStarted,
    TransportFailed,
    Usage,
)

STOP_REASONS = frozenset(
    {
        "end_turn",
        "tool_use",
        "max_tokens",
        "stop_sequence",
        "pause_turn",
        "compaction",
        "refusal",
        "model_context_window_exceeded",
    }
)


class ReplyReader:
    """Takes the events of one stream in order; `finish` gives the reply or says why there is none."""

    def __init__(self, *, model: str = "", cache_ttl: CacheTtl | None = None) -> None:
        self._requested = model
        self._cache_ttl = cache_ttl
        self._blocks: dict[int, Block] = {}
        self._arguments: dict[int, list[str]] = {}
        self._finished: set[int] = set()
        self._counts: dict[str, Any] = {}
        self._streamed_chars = 0
        self._model = ""
        self._stop_reason: str | None = None
        self._stop_details: Mapping[str, Any] | None = None
        self._started = False
        self._stopped = False

    def feed(self, event: Any) -> ModelEvent | None:
        """Take one event of the SDK's stream; returns what there is to show. Unknown events are passed over.

        Raises:
            AttributeError, KeyError: the event lacks a field that its type must have.
        """
        match event.type:
            case "message_start":
                self._started = True
                self._model = event.message.model
                self._counts = event.message.usage.to_dict()
                return ReplyStarted(usage=self.usage, model=self._model)
            case "content_block_start":
                return self._open(event.index, event.content_block.to_dict())
            case "content_block_delta":
                return self._extend(event.index, event.delta)
            case "content_block_stop":
                self._finished.add(event.index)
            case "message_delta":
                self._stop_reason = event.delta.stop_reason
                details = getattr(event.delta, "stop_details", None)
                self._stop_details = details.to_dict() if details is not None else None
                self._counts |= {k: v for k, v in event.usage.to_dict().items() if v is not None}
            case "message_stop":
                self._stopped = True
        return None

    @property
    def usage(self) -> Usage:
        """What the service reported so far."""
        return usage_of(self._counts, cache_ttl=self._cache_ttl)

    @property
    def estimated_usage(self) -> Usage:
        """For a stream that broke off: the prompt as reported, the output by what arrived of it."""
        reported = self.usage
        arrived = int(self._streamed_chars / CHARS_PER_TOKEN)
        return reported + Usage(output_tokens=max(0, arrived - reported.output_tokens))

    def finish(self, *, request_id: str | None) -> ModelReply:
        """The reply, once the stream has ended.

        Raises:
            TransportFailed: it ended before the message did.
            MalformedReply: it is complete, but a call in it has no usable arguments.
        """
        if not self._started:
            raise TransportFailed("The endpoint answered, but not with a Messages stream.", request_id=request_id)
        if not self._stopped or self._stop_reason not in STOP_REASONS:
            seen = f" (stop reason {self._stop_reason!r})" if self._stop_reason else ""
            raise TransportFailed(
                f"The stream ended before the reply did{seen}.", request_id=request_id, usage=self.estimated_usage
            )
        reply = self._assemble(request_id, self._stop_reason)
        broken = [use for use in reply.tool_uses if use.error]
        if broken and reply.stop_reason == "tool_use":
            raise MalformedReply(
                f"The call of {broken[0].name} came with unusable arguments: {broken[0].error}.",
                salvaged=reply,
                usage=reply.usage,
            )
        return reply

    def reject(self, reason: str) -> NoReturn:
        """The SDK gave up inside a call's JSON: raise `MalformedReply` with what came before it."""
        has_call = any(block["type"] == "tool_use" for block in self._blocks.values())
        salvaged = self._assemble(None, "tool_use") if has_call else None
        raise MalformedReply(
            f"The model wrote tool arguments that are not JSON: {reason[:200]}",
            salvaged=salvaged,
            usage=self.estimated_usage,
        )

    def _open(self, index: int, block: Block) -> ModelEvent | None:
        self._blocks[index] = block
        if block["type"] in ("tool_use", "server_tool_use"):
            self._arguments[index] = []
            return ToolUseStarted(name=block["name"])
        return None

    def _extend(self, index: int, delta: Any) -> ModelEvent | None:
        block = self._blocks[index]
        match delta.type:
            case "text_delta":
                block["text"] = block.get("text", "") + delta.text
                self._streamed_chars += len(delta.text)
                return TextDelta(delta.text)
            case "thinking_delta":
                block["thinking"] = block.get("thinking", "") + delta.thinking
                self._streamed_chars += len(delta.thinking)
                return ThinkingDelta(delta.thinking)
            case "input_json_delta":
                self._arguments[index].append(delta.partial_json)
                self._streamed_chars += len(delta.partial_json)
                return ArgumentsDelta(delta.partial_json)
            case "signature_delta":
                block["signature"] = delta.signature
            case "citations_delta":
                block["citations"] = [*(block.get("citations") or []), delta.citation.to_dict()]
            case "compaction_delta":
                block |= delta.to_dict()
                block["type"] = "compaction"
        return None

    def _assemble(self, request_id: str | None, stop_reason: str) -> ModelReply:
        blocks: list[Block] = []
        uses: list[ToolUse] = []
        for index, block in sorted(self._blocks.items()):
            if index in self._arguments:
                use = self._tool_use(index, block)
                block = block | {"input": use.arguments or {}}
                if block["type"] == "tool_use":
                    uses.append(use)
            blocks.append(block)
        blocks, uses = _after_fallback(sendable(blocks), uses)
        usage, fallbacks = usages_of(self._counts, cache_ttl=self._cache_ttl, model=self._requested)
        return ModelReply(
            blocks=blocks,
            stop_reason=stop_reason,
            usage=usage,
            fallbacks=fallbacks,
            tool_uses=tuple(uses),
            request_id=request_id,
            model=fallbacks[-1][0] if fallbacks else self._model,
            stop_details=self._stop_details,
        )

    def _tool_use(self, index: int, block: Block) -> ToolUse:
        raw = "".join(self._arguments[index])
        if index not in self._finished:
            arguments, error = None, "cut off or not JSON"
        elif not raw:  # no argument at all, or a server that sends them whole at the start
            arguments, error = block.get("input") or {}, None
        else:
            arguments, error = parse_arguments(raw)
        return ToolUse(id=block["id"], name=block["name"], arguments=arguments, error=error)


def parse_arguments(raw: str) -> tuple[dict[str, Any] | None, str | None]:
    """``raw`` as one JSON object, or None and the reason why it is none. NaN and Infinity are not JSON."""
    try:
        value = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return None, f"not valid JSON ({error})"
    if not isinstance(value, dict):
        return None, f"a JSON {type(value).__name__} where an object is needed"
    return value, None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _after_fallback(blocks: list[Block], uses: list[ToolUse]) -> tuple[list[Block], list[ToolUse]]:
    """Without the calls of a model that declined before another took over: they are neither run nor sent back."""
    boundary = max((place for place, block in enumerate(blocks) if block["type"] == "fallback"), default=0)
    void = {block["id"] for block in blocks[:boundary] if block["type"] == "tool_use"}
    kept = [block for block in blocks if block["type"] != "tool_use" or block["id"] not in void]
    return kept, [use for use in uses if use.id not in void]


def usages_of(
    counts: Mapping[str, Any], *, cache_ttl: CacheTtl | None, model: str
) -> tuple[Usage, tuple[tuple[str, Usage], ...]]:
    """What the requested ``model`` used, and what each model did that took over after it declined.

    Only ``iterations`` tells them apart: an entry ``fallback_message`` is the one that answered, and an entry
    ``message`` names its model where that is not the requested one.
    """
    iterations = list(counts.get("iterations") or ())
    if all(each.get("type") != "fallback_message" for each in iterations):
        return usage_of(counts, cache_ttl=cache_ttl), ()
    own, others = Usage(), []
    for each in iterations:
        usage = usage_of(each, cache_ttl=cache_ttl)
        if each.get("model") in (None, model) and each["type"] != "fallback_message":
            own += usage
        else:
            others.append((str(each.get("model") or model), usage))
    return own, tuple(others)


def usage_of(counts: Mapping[str, Any], *, cache_ttl: CacheTtl | None = None) -> Usage:
    """`Usage` from the API's ``usage`` object.

    Cache writes without a breakdown count as ``cache_ttl`` (5m if none). The tokens of a server-side compaction
    stand only in ``iterations`` and are added.
    """
    written = int(counts.get("cache_creation_input_tokens") or 0)
    breakdown = counts.get("cache_creation") or {}
    hour = int(breakdown.get("ephemeral_1h_input_tokens") or 0)
    if not breakdown and cache_ttl == "1h":
        hour = written
    usage = Usage(
        input_tokens=int(counts.get("input_tokens") or 0),
        cache_read_tokens=int(counts.get("cache_read_input_tokens") or 0),
        cache_write_5m_tokens=max(0, written - hour),
        cache_write_1h_tokens=hour,
        output_tokens=int(counts.get("output_tokens") or 0),
    )
    for iteration in counts.get("iterations") or ():
        if iteration.get("type") == "compaction":
            usage += usage_of({k: v for k, v in iteration.items() if k != "iterations"}, cache_ttl=cache_ttl)
    return usage
