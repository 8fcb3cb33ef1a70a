"""A tool as the loop knows it, and what a call of it gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mlintern.orchestrator.model import Block

SideEffect = Literal["read_only", "idempotent", "side_effect"]
"""What repeating a call does: nothing, the same once more, or something new (also when unknown)."""


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
    """What a call gave: blocks for the ``tool_result``, and the same as text for a person who reads along.

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
