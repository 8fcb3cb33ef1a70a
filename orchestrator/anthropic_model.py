"""`ModelClient` over the Anthropic SDK: one streamed request, its failures sorted, and asking again within limits."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio

from mlintern.common.clock import Clock
from mlintern.orchestrator.model import (
    AuthFailed,
    BadRequest,
    BillingFailed,
    ContextOverflow,
    EndpointProfile,
    HistoryRejected,
    MalformedReply,
    ModelError,
    ModelReply,
    ModelRequest,
    OnEvent,
    Overloaded,
    RateLimited,
    Retrying,
    TransportFailed,
    Usage,
)
from mlintern.orchestrator.reply_reader import ReplyReader
from mlintern.orchestrator.retry import Attempts, RetryPolicy

if TYPE_CHECKING:
    from anthropic import APIStatusError, AsyncAnthropic

logger = logging.getLogger(__name__)

FACTS_SECONDS = 15.0
REPLY_SECONDS = 1800.0
"""No reply takes longer; pings would otherwise keep a dead stream alive for ever."""

LOOKBACK_BLOCKS = 18
"""The cache is searched twenty blocks back from a marker; a turn near that size needs one of its own."""

STREAM_FAULTS = (ValueError, AssertionError, AttributeError, IndexError, KeyError, TypeError, RuntimeError)
"""What the SDK raises when events are missing, out of order or of another shape."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What an endpoint says about a model: sizes in tokens, None where it does not say."""

    window: int | None = None
    max_output: int | None = None
    adaptive_thinking: bool = False


class AnthropicModel:
    """The Messages API of Anthropic or of a server that speaks it.

    The SDK's own retries are off: they wait unseen, for as long as a ``retry-after`` asks, and never cover a stream
    that has begun. The policy here covers every failure alike, within stated bounds, and reports each wait.
    """

    def __init__(
        self,
        *,
        profile: EndpointProfile,
        clock: Clock,
        base_url: str | None = None,
        api_key: str | None = None,
        policy: RetryPolicy | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.profile = profile
        self._clock = clock
        self._base_url = base_url
        self._api_key = api_key
        self._policy = policy or RetryPolicy()
        self._jitter = jitter
        self._client: AsyncAnthropic | None = None

    async def call(self, request: ModelRequest, on_event: OnEvent) -> ModelReply:
        """See `ModelClient.call`. Arguments that stay malformed come back marked (`ToolUse.error`), not raised."""
        attempts = Attempts(self._policy, jitter=self._jitter)
        while True:
            spent = attempts.discarded
            try:
                return replace(await self._attempt(request, on_event), discarded=spent)
            except ModelError as error:
                wait = attempts.wait_after(error)
                if wait is None:
                    if isinstance(error, MalformedReply) and error.salvaged is not None:
                        return replace(error.salvaged, usage=error.usage, discarded=spent)
                    error.usage = attempts.discarded
                    raise
                on_event(Retrying(error=error, attempt=attempts.count, wait_seconds=wait))
                await self._clock.sleep(wait)

    async def facts(self, model: str) -> ModelFacts:
        """What the endpoint says about ``model``; nothing where it does not say."""
        import anthropic
        import httpx2

        try:
            with anyio.move_on_after(FACTS_SECONDS):
                info = await self._connect().models.retrieve(model)
                thinking = getattr(getattr(info, "capabilities", None), "thinking", None)
                adaptive = getattr(getattr(getattr(thinking, "types", None), "adaptive", None), "supported", False)
                return ModelFacts(
                    window=getattr(info, "max_input_tokens", None),
                    max_output=getattr(info, "max_tokens", None),
                    adaptive_thinking=adaptive is True,
                )
        except (ModelError, anthropic.APIError, httpx2.TransportError, *STREAM_FAULTS) as error:
            logger.info("the endpoint says nothing about %s: %s", model, error)
        return ModelFacts()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()

    async def _attempt(self, request: ModelRequest, on_event: OnEvent) -> ModelReply:
        import anthropic
        import httpx2

        reader = ReplyReader(model=request.model, cache_ttl=request.cache_ttl)
        try:
            with anyio.fail_after(REPLY_SECONDS):
                return await self._stream(request, reader, on_event)
        except TimeoutError as error:
            raise TransportFailed("The reply took too long.", usage=reader.estimated_usage) from error
        except anthropic.APIStatusError as error:
            raise _sorted(error, reader.estimated_usage) from error
        except (anthropic.APIError, httpx2.TransportError) as error:
            reason = str(error) or type(error).__name__
            raise TransportFailed(f"The connection failed: {reason}", usage=reader.estimated_usage) from error

    async def _stream(self, request: ModelRequest, reader: ReplyReader, on_event: OnEvent) -> ModelReply:
        client = self._connect()
        async with client.beta.messages.stream(**wire_arguments(request, self.profile)) as stream:
            events = aiter(stream)
            while True:
                try:
                    shown = reader.feed(await anext(events))
                except StopAsyncIteration:
                    break
                except STREAM_FAULTS as error:
                    if "tool parameter JSON" in str(error):
                        reader.reject(str(error))
                    raise TransportFailed(
                        f"The endpoint sent a stream that is no Messages stream ({type(error).__name__}: {error}).",
                        usage=reader.estimated_usage,
                    ) from error
                if shown is not None:
                    on_event(shown)
            return reader.finish(request_id=stream.request_id)

    def _connect(self) -> AsyncAnthropic:
        """The client, made at the first call.

        Raises:
            AuthFailed: nothing says who is asking.
        """
        if self._client is None:
            import anthropic
            import httpx2

            key = self._api_key
            if key is None and self.profile.name == "compatible" and not os.environ.get("ANTHROPIC_API_KEY"):
                key = "none"  # local servers take any key, the SDK wants one
            try:
                client = anthropic.AsyncAnthropic(
                    api_key=key,
                    base_url=self._base_url,
                    max_retries=0,
                    timeout=httpx2.Timeout(self.profile.read_timeout_seconds, connect=10.0),
                )
            except anthropic.AnthropicError as error:
                raise AuthFailed(f"The stored credentials cannot be used: {error}") from error
            if client.api_key is None and client.auth_token is None and client.credentials is None:
                raise AuthFailed("There is no key for the model.", next_step="Set ANTHROPIC_API_KEY.")
            self._client = client
        return self._client

    def check_key(self) -> None:
        """Find the key, in the environment or in a profile on disk; nothing is sent.

        Raises:
            AuthFailed: there is none.
        """
        self._connect()


def wire_arguments(request: ModelRequest, profile: EndpointProfile) -> dict[str, Any]:
    """Keyword arguments of ``beta.messages.stream`` for ``request``.

    With a ``cache_ttl`` there is a marker of one hour on the last block of ``system`` (it covers the tools too), the
    automatic one at the end of the conversation, and one before a turn too large for the cache to look back over.
    """
    arguments: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_tokens,
        "messages": list(request.messages),
    }
    system = [dict(block) for block in request.system]
    if request.cache_ttl is not None:
        marker = {"type": "ephemeral"} | ({"ttl": "1h"} if request.cache_ttl == "1h" else {})
        if system:
            system[-1]["cache_control"] = {"type": "ephemeral", "ttl": "1h"}
        arguments["cache_control"] = marker
        _mark_before_large_turn(arguments["messages"], marker)
    if system:
        arguments["system"] = system
    if request.tools:
        arguments["tools"] = list(request.tools)
    if request.thinking is not None:
        arguments["thinking"] = dict(request.thinking)
    if request.effort is not None:
        arguments["output_config"] = {"effort": request.effort}
    if profile.betas:
        arguments["betas"] = list(profile.betas)
    if profile.fallbacks and not {"compaction", "fallback_credit_token"} & set(request.extra):
        arguments["fallbacks"] = "default"
    return arguments | dict(request.extra)


def _mark_before_large_turn(messages: list[Any], marker: dict[str, str]) -> None:
    """Put ``marker`` on the message before the last reply, in ``messages`` but not in the message itself."""
    if len(messages) < 3 or sum(_block_count(message) for message in messages[-2:]) < LOOKBACK_BLOCKS:
        return
    earlier = messages[-3]
    content = earlier["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    if blocks and "thinking" not in blocks[-1]["type"]:
        messages[-3] = earlier | {"content": [*blocks[:-1], blocks[-1] | {"cache_control": marker}]}


def _block_count(message: dict[str, Any]) -> int:
    return 1 if isinstance(message["content"], str) else len(message["content"])


def _sorted(error: APIStatusError, usage: Usage) -> ModelError:
    """The `ModelError` for a status or an SSE ``error`` event: by type and code, by text where there is neither."""
    body = error.body if isinstance(error.body, dict) else {}
    inner = body.get("error")
    details: dict[str, Any] = inner if isinstance(inner, dict) else body
    kind = str(details.get("type") or "")
    status: int | None = error.status_code
    if status == 200:  # an error event inside a stream; llama.cpp puts a status into it
        code = details.get("code")
        status = code if isinstance(code, int) else None
    message = str(details.get("message") or error.message)
    cause, next_step = _class_of(status, kind, message)
    wait = _retry_after(error)
    if cause is RateLimited and wait is None and error.error_code:
        cause, next_step = BillingFailed, "Raise the spending limit of the account; waiting does not help."
    failure = cause(f"{message} [{kind or 'HTTP'}{f' {status}' if status else ''}]", usage=usage)
    failure.status, failure.next_step, failure.request_id = status, next_step, error.request_id
    failure.retry_after_seconds = wait
    return failure


def _class_of(status: int | None, kind: str, message: str) -> tuple[type[ModelError], str]:
    text = message.lower()
    if kind == "exceed_context_size_error" or status == 413 or kind == "request_too_large":
        return ContextOverflow, ""
    if status == 402 or kind == "billing_error" or "credit balance is too low" in text:  # the latter with status 400
        return BillingFailed, "Add credit to the account: https://platform.claude.com/settings/billing"
    if status == 400 or kind == "invalid_request_error":
        if any(sign in text for sign in ("prompt is too long", "maximum context length", "context window")):
            return ContextOverflow, ""
        if ("tool_use" in text and "tool_result" in text) or "bound to a different conversation" in text:
            return HistoryRejected, ""
        return BadRequest, ""
    if status in (401, 403) or kind in ("authentication_error", "permission_error"):
        return AuthFailed, "Check ANTHROPIC_API_KEY and that it may use this model."
    if status == 404 or kind == "not_found_error":
        return BadRequest, "Check --model and --base-url."
    if status == 429 or kind == "rate_limit_error":
        return RateLimited, ""
    if status in (408, 409) or kind == "timeout_error":
        return TransportFailed, ""
    if status is None or status >= 500 or kind in ("overloaded_error", "api_error"):
        return Overloaded, ""
    return BadRequest, ""


def _retry_after(error: APIStatusError) -> float | None:
    """Seconds that the answer asks to wait; dates are left to the policy's own waits."""
    headers = error.response.headers
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return float(headers[name]) * scale
        except (KeyError, ValueError):
            continue
    return None
