"""One call to a model over the Messages API, as types: what is asked, what comes back, what can go wrong.

Nothing here touches the network. `anthropic_model.AnthropicModel` is the implementation that does; the loop, the
compactors, the sub-agents and the budget know only this module.

    ModelError
    ├── TransportFailed   no reply, or one that broke off: cut stream, reset, stall, a body that is no event stream
    ├── MalformedReply    a complete reply that cannot be used: tool arguments that are not a JSON object
    ├── Overloaded        the service says that it is overloaded or failing (500, 503, 529)
    ├── RateLimited       it asked to wait (429)
    ├── ContextOverflow   the prompt is longer than the window or the body limit: compact, then ask again
    ├── HistoryRejected   the history breaks a rule of the API (orphaned tool_use, thinking bound elsewhere)
    ├── BadRequest        any other refusal of the request itself; asking again cannot help
    ├── AuthFailed        the key is missing, wrong or not allowed to use the model
    └── BillingFailed     out of credit or at a spending limit; waiting does not help

A refusal by the model is not an error but a reply with ``stop_reason == "refusal"``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from mlintern.orchestrator.errors import OrchestratorError

Message = dict[str, Any]
"""One message as the API takes it: ``{"role": ..., "content": str or list of blocks}``."""

Block = dict[str, Any]
"""One content block as the API takes it."""

CacheTtl = Literal["5m", "1h"]


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens of one or more calls, in the classes that have prices of their own. Addable."""

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, however they were billed."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_5m_tokens + self.cache_write_1h_tokens

    @property
    def context_tokens(self) -> int:
        """Tokens that the conversation holds after this call: prompt and reply."""
        return self.prompt_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_5m_tokens=self.cache_write_5m_tokens + other.cache_write_5m_tokens,
            cache_write_1h_tokens=self.cache_write_1h_tokens + other.cache_write_1h_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
        )

    def to_json(self) -> dict[str, int]:
        """The five counts by name; `from_json` reads them back."""
        return {
            "input_tokens": self.input_tokens,
            "cache_read_tokens": self.cache_read_tokens,
            "cache_write_5m_tokens": self.cache_write_5m_tokens,
            "cache_write_1h_tokens": self.cache_write_1h_tokens,
            "output_tokens": self.output_tokens,
        }

    @classmethod
    def from_json(cls, counts: Mapping[str, int]) -> Usage:
        return cls(**{name: int(counts.get(name, 0)) for name in cls.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """One request. ``system`` and ``tools`` stay byte-identical from request to request of a conversation.

    ``cache_ttl`` None sends no cache markers at all. ``extra`` holds further top-level fields of the request
    (such as ``{"compaction": {"type": "summarize"}}``); the betas that they need are the profile's.
    """

    model: str
    system: Sequence[Block]
    tools: Sequence[dict[str, Any]]
    messages: Sequence[Message]
    max_tokens: int
    thinking: Mapping[str, Any] | None = None
    effort: str | None = None
    cache_ttl: CacheTtl | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ToolUse:
    """A call that the model asked for. Either ``arguments`` is a dict, or ``error`` says why it is none."""

    id: str
    name: str
    arguments: dict[str, Any] | None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelReply:
    """A complete reply: the stream ended properly and gave a stop reason.

    ``blocks`` go back to the API as they are, thinking and its signatures included. ``usage`` is what the requested
    model read and wrote, ``fallbacks`` what other models did in its place after it declined, in order; the last of
    them answered. ``discarded`` is what earlier attempts at the same request cost; it is to be paid too.
    """

    blocks: list[Block]
    stop_reason: str
    usage: Usage
    tool_uses: tuple[ToolUse, ...] = ()
    request_id: str | None = None
    model: str = ""
    stop_details: Mapping[str, Any] | None = None
    discarded: Usage = Usage()
    fallbacks: tuple[tuple[str, Usage], ...] = ()

    @property
    def answered_usage(self) -> Usage:
        """Tokens of the model that answered."""
        return self.fallbacks[-1][1] if self.fallbacks else self.usage

    @property
    def text(self) -> str:
        """All text of the reply, thinking left out."""
        return "".join(block["text"] for block in self.blocks if block["type"] == "text")


# What happens during a call, for the front end that shows it. Nothing of this is history.


@dataclass(frozen=True)
class ReplyStarted:
    """The service accepted the request; ``usage`` holds the prompt's tokens."""

    usage: Usage
    model: str


@dataclass(frozen=True)
class TextDelta:
    text: str


@dataclass(frozen=True)
class ThinkingDelta:
    text: str


@dataclass(frozen=True)
class ToolUseStarted:
    name: str


@dataclass(frozen=True)
class ArgumentsDelta:
    """A piece of a call's JSON, for counting only: never parse it."""

    text: str


@dataclass(frozen=True)
class Retrying:
    """What was streamed since the last `ReplyStarted` is void; the same request goes out again after a wait."""

    error: ModelError
    attempt: int
    wait_seconds: float


ModelEvent = ReplyStarted | TextDelta | ThinkingDelta | ToolUseStarted | ArgumentsDelta | Retrying
OnEvent = Callable[[ModelEvent], None]


class ModelClient(Protocol):
    """Whatever can answer a request: the real client, a sub-agent's, a test's."""

    async def call(self, request: ModelRequest, on_event: OnEvent) -> ModelReply:
        """Answer ``request``, retries included.

        Raises:
            ModelError: no usable reply; ``error.usage`` is what the attempts cost nevertheless.
        """
        ...


class ModelError(OrchestratorError):
    """Base of all. ``usage`` estimates what the failed attempts cost; None of it was executed or kept."""

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        next_step: str = "",
        status: int | None = None,
        retry_after_seconds: float | None = None,
        request_id: str | None = None,
        usage: Usage | None = None,
    ) -> None:
        self.message = message
        self.next_step = next_step
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self.request_id = request_id
        self.usage = usage or Usage()
        super().__init__(message)

    def __str__(self) -> str:
        return f"{self.message} {self.next_step}".rstrip()


class TransportFailed(ModelError):
    """No reply, or one that broke off. Whatever arrived is void."""

    retryable = True


class MalformedReply(ModelError):
    """The reply ended, but holds a call whose arguments are no JSON object.

    ``salvaged`` is the reply with that call marked (`ToolUse.error`), for when asking again does not help.
    """

    retryable = True

    def __init__(self, message: str, *, salvaged: ModelReply | None = None, usage: Usage | None = None) -> None:
        self.salvaged = salvaged
        super().__init__(message, usage=usage)


class Overloaded(ModelError):
    """The service is overloaded or failing."""

    retryable = True


class RateLimited(ModelError):
    """The service asked to wait ``retry_after_seconds``."""

    retryable = True


class ContextOverflow(ModelError):
    """The prompt is longer than the model's window, or the body than the service takes."""


class HistoryRejected(ModelError):
    """The history breaks a rule of the API: a tool_use without its result, thinking bound to another prefix."""


class BadRequest(ModelError):
    """The service refuses the request itself."""


class AuthFailed(ModelError):
    """No key, a wrong one, or one without the right to this model."""


class BillingFailed(ModelError):
    """Out of credit, or at a spending limit of the account."""


@dataclass(frozen=True, kw_only=True)
class EndpointProfile:
    """What an endpoint understands. Chosen explicitly and never probed: most servers ignore what they do not know."""

    name: Literal["anthropic", "compatible"]
    caching: bool
    adaptive_thinking: bool
    server_compaction: bool
    fallbacks: bool
    """Whether the service asks another model itself when the requested one declines."""

    betas: tuple[str, ...]
    """Sent with every request: a compaction block is unknown to the service in any request that lacks its beta."""

    read_timeout_seconds: float


ANTHROPIC = EndpointProfile(
    name="anthropic",
    caching=True,
    adaptive_thinking=True,
    server_compaction=True,
    fallbacks=True,
    betas=("compact-2026-09-04", "server-side-fallback-2026-07-01", "fallback-credit-2026-07-01"),
    read_timeout_seconds=120.0,
)
COMPATIBLE = EndpointProfile(  # llama.cpp, vLLM, Ollama, LM Studio: silent while they read a long prompt
    name="compatible",
    caching=False,
    adaptive_thinking=False,
    server_compaction=False,
    fallbacks=False,
    betas=(),
    read_timeout_seconds=900.0,
)


def endpoint_profile(base_url: str | None, name: str | None = None) -> EndpointProfile:
    """The profile called ``name``; without one, Anthropic's for its own host (or no URL), `COMPATIBLE` elsewhere."""
    if name is not None:
        return {"anthropic": ANTHROPIC, "compatible": COMPATIBLE}[name]
    host = urlsplit(base_url).hostname if base_url else "api.anthropic.com"
    return ANTHROPIC if host == "api.anthropic.com" else COMPATIBLE
