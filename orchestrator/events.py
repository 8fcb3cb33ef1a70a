"""What happens in a run, as values for the user interfaces: see `ports.Ui`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlintern.orchestrator.model import ModelEvent, Usage
from mlintern.orchestrator.stops import Stop
from mlintern.orchestrator.tool import ToolOutcome


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
class ToolProgress:
    """How far the call ``id`` is, as its server says: ``progress`` of ``total`` (None: unknown), in its words."""

    id: str
    name: str
    progress: float
    total: float | None = None
    message: str = ""


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
class Finished:
    """The process ends. ``stop`` is how its last run ended; ``running_jobs`` go on without us.

    ``jobs_asked``: the server was asked just now which do; otherwise it is what results said earlier. ``resumable``:
    ``--resume`` finds the session.
    """

    stop: Stop
    session_id: str
    turns: int
    usd: float
    running_jobs: Sequence[str] = ()
    jobs_asked: bool = False
    resumable: bool = True

    @property
    def text(self) -> str:
        """The agent's last words."""
        return str(self.stop.details.get("text") or "")


Event = (
    ModelEvent
    | Started
    | ToolStarted
    | ToolProgress
    | ToolFinished
    | GuardFired
    | Compacted
    | TurnEnded
    | ApprovalAnswered
    | Notice
    | Stop
    | Finished
)
