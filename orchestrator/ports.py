"""The seams of the loop: what it asks of its parts, and the small values that pass between them.

`loop.Orchestrator` is written against these; `mcp_hosts`, `loop_guard`, `budget`, `compaction`, `session` and `ui`
implement them, and a test may put anything else in their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mlintern.orchestrator.model import Block, Message, ModelEvent, ModelRequest, Usage

if TYPE_CHECKING:
    from mlintern.orchestrator.conversation import Conversation

SideEffect = Literal["read_only", "idempotent", "side_effect"]
"""What repeating a call does: nothing, the same once more, or something new (also when unknown)."""


# --- tools ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A tool as the model sees it. ``name`` is unique and legal for the API."""

    name: str
    description: str
    input_schema: dict[str, Any]
    side_effect: SideEffect
    polls: bool = False
    """Whether it waits for or reads the state of something that runs (a job): repeating it is no loop."""

    server: str = ""
    """The MCP server that has it, "" for the orchestrator's own."""

    def definition(self) -> dict[str, Any]:
        """The entry of ``tools`` in a request."""
        return {"name": self.name, "description": self.description, "input_schema": self.input_schema}


@dataclass(frozen=True, kw_only=True)
class ToolOutcome:
    """What a call gave: blocks for the ``tool_result``, and the same as text for whoever reads along.

    ``structured`` is the server's structured content, if it gave any. ``unknown`` marks a call of which nobody can
    say whether it happened (the connection broke, it was interrupted).
    """

    content: list[Block]
    is_error: bool = False
    structured: Mapping[str, Any] | None = None
    unknown: bool = False

    @property
    def text(self) -> str:
        """All text blocks, joined by newlines."""
        return "\n".join(block["text"] for block in self.content if block["type"] == "text")

    @classmethod
    def error(cls, text: str, *, unknown: bool = False) -> ToolOutcome:
        return cls(content=[{"type": "text", "text": text}], is_error=True, unknown=unknown)


class LocalTool(Protocol):
    """A tool that the orchestrator has itself (`update_plan`, `research`)."""

    @property
    def tool(self) -> Tool: ...

    async def call(self, arguments: dict[str, Any]) -> ToolOutcome:
        """Run it. Bad arguments are an error outcome, not an exception."""
        ...


class Hosts(Protocol):
    """The tools of all connected MCP servers."""

    @property
    def tools(self) -> tuple[Tool, ...]:
        """Sorted by name, frozen for the session."""
        ...

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolOutcome:
        """Call a tool. Whatever goes wrong with it is an error outcome."""
        ...


# --- guard ---------------------------------------------------------------------------------------------------------


class Nudge(Protocol):
    """What the guard says about a circle.

    hint and refuse: ``text`` goes to the model inside the last result (after refuse, `Guard.refusal` answers the
    repeated call instead of running it). stop: the run ends, ``pattern`` is its reason.
    """

    @property
    def level(self) -> Literal["hint", "refuse", "stop"]: ...
    @property
    def text(self) -> str: ...
    @property
    def pattern(self) -> str: ...


class Guard(Protocol):
    """Sees every call with its result, in order. `loop_guard.LoopGuard` is the real one."""

    def refusal(self, *, name: str, arguments: Mapping[str, Any]) -> str | None:
        """Before a call: what to answer instead of running it, or None."""
        ...

    def pause_before(self, *, name: str, arguments: Mapping[str, Any]) -> float:
        """Seconds that should lie between the last answer to this poll and asking again; 0 for other calls."""
        ...

    def observe(
        self,
        *,
        name: str,
        arguments: Mapping[str, Any],
        result: Any,
        is_error: bool = False,
        turn: int | None = None,
    ) -> Nudge | None:
        """After a call of assistant turn ``turn``."""
        ...

    def observe_text(self, text: str) -> Nudge | None:
        """After a reply without calls."""
        ...

    def forget(self) -> None:
        """Start afresh: a person said something new."""
        ...


# --- money ---------------------------------------------------------------------------------------------------------


class BudgetExhausted(Exception):
    """The next call could pass ``--budget-usd``. The text says what was spent and what the call could cost."""


class Reservation(Protocol):
    """The worst case of one call, held until it is known what it cost."""

    @property
    def worst_usd(self) -> float: ...

    def settle(self, usage: Usage) -> float:
        """Charge what it cost; returns USD. Settling with an empty usage releases it."""
        ...


class Budget(Protocol):
    """What the model may cost. Shared with compaction and sub-agents."""

    @property
    def spent_usd(self) -> float: ...
    @property
    def limit_usd(self) -> float | None: ...

    def reserve(self, request: ModelRequest, *, prompt_tokens: int) -> Reservation:
        """Hold the worst case of ``request``.

        Raises:
            BudgetExhausted: it does not fit.
        """
        ...

    def warning(self) -> str | None:
        """Once, at 80 % of the limit: what to tell the model."""
        ...


# --- compaction ----------------------------------------------------------------------------------------------------


class CompactionFailed(Exception):
    """The conversation cannot be brought below its trigger; the text says why. The run ends."""


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """A shorter history in place of the old one. Sizes in tokens, as far as known."""

    messages: list[Message]
    summary: str
    before_tokens: int
    after_tokens: int
    method: Literal["server", "client"] = "client"


class Compactor(Protocol):
    """Shortens the conversation when it is long, between turns only. Knows the model, the budget and the facts."""

    async def maybe_compact(self, conversation: Conversation, *, force: bool = False) -> Compaction | None:
        """The shorter history, or None if nothing needs doing. The conversation itself is left alone.

        ``force``: a request was refused as too long, whatever the count says.

        Raises:
            CompactionFailed: it had to be done and cannot.
            BudgetExhausted: the summary call does not fit the budget.
        """
        ...


# --- plan ----------------------------------------------------------------------------------------------------------


class Plan(Protocol):
    """What the agent means to do."""

    def open_steps(self) -> list[str]:
        """Steps that are neither done nor given up."""
        ...


# --- journal -------------------------------------------------------------------------------------------------------


class Journal(Protocol):
    """The session on disk."""

    def append(self, kind: str, **fields: Any) -> None:
        """Write one event durably before anything is done about it."""
        ...


# --- what happens, for whoever watches -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Started:
    """The session is open and its servers are connected, or named with the reason why not."""

    session_id: str
    model: str
    tools: Sequence[str]
    servers: Sequence[str]
    failures: Mapping[str, str]
    resumed: bool = False


@dataclass(frozen=True, kw_only=True)
class ToolStarted:
    id: str
    name: str
    arguments: Mapping[str, Any]
    server: str = ""


@dataclass(frozen=True, kw_only=True)
class ToolFinished:
    id: str
    name: str
    outcome: ToolOutcome
    seconds: float


@dataclass(frozen=True, kw_only=True)
class GuardFired:
    level: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Compacted:
    before_tokens: int
    after_tokens: int
    method: str


@dataclass(frozen=True, kw_only=True)
class TurnEnded:
    """One reply is in the history. ``context_tokens`` is what the conversation now holds."""

    turn: int
    max_turns: int
    usage: Usage
    context_tokens: int
    usd: float
    budget_usd: float | None
    model: str


@dataclass(frozen=True, kw_only=True)
class ApprovalAnswered:
    """A question of a server was answered, by a person or by a rule."""

    tool: str
    message: str
    approved: bool
    note: str
    via: str


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Anything else a person should see; ``level`` as in logging."""

    text: str
    level: Literal["info", "warning", "error"] = "info"


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Why a run ended. ``name`` is stable for programs, ``reason`` is for people, ``exit_code`` for the shell."""

    name: str
    reason: str
    exit_code: int
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The process ends. ``stop`` is how its last run ended; ``running_jobs`` go on without us."""

    stop: Stop
    session_id: str
    turns: int
    usd: float
    running_jobs: Sequence[str] = ()

    @property
    def text(self) -> str:
        """The agent's last words."""
        return str(self.stop.details.get("text") or "")


Event = (
    ModelEvent
    | Started
    | ToolStarted
    | ToolFinished
    | GuardFired
    | Compacted
    | TurnEnded
    | ApprovalAnswered
    | Notice
    | Stop
    | Finished
)


class Ui(Protocol):
    """Whoever watches the run. Never raises, never blocks for long."""

    def show(self, event: Event) -> None: ...

    def typed(self) -> list[str]:
        """What the person typed while the agent worked, taken out of the queue."""
        ...
