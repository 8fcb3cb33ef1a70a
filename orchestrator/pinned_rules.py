"""Rules that hold for the whole run, word for word: how is measured, which items are held out, what is limited.

They come from the user (``--rule``), from the agent (`update_plan`) and from results that carry ``rules`` (an
experiment's). A compaction keeps them as they are, and every sub-agent gets them with its task.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlintern.orchestrator.compacted_message import Handover
from mlintern.orchestrator.messages import calls_of
from mlintern.orchestrator.model import Message

MAX_RULES = 40
MAX_CHARACTERS = 600
"""Of one rule: what is longer is no rule but a text."""


class PinnedRules:
    """The rules in the order in which they came; the same one is kept once."""

    def __init__(self, rules: Iterable[str] = ()) -> None:
        self._rules: dict[str, None] = {}
        self.add(rules)

    def add(self, rules: Iterable[str]) -> None:
        """Keep ``rules``; of too many the oldest stay."""
        for rule in rules:
            text = " ".join(rule.split())
            if 0 < len(text) <= MAX_CHARACTERS and len(self._rules) < MAX_RULES:
                self._rules[text] = None

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(self._rules)

    def observe(self, structured: Mapping[str, Any] | None, text: str = "") -> None:
        """Take the ``rules`` of a result: of its structured content, else of its text if that is a JSON object."""
        if structured is None and text.startswith("{"):
            try:
                structured = json.loads(text)
            except ValueError:
                return
        if isinstance(structured, Mapping):
            for holder in (structured, structured.get("experiment")):
                rules = holder.get("rules") if isinstance(holder, Mapping) else None
                if isinstance(rules, list):
                    self.add(rule for rule in rules if isinstance(rule, str))

    def restore(self, messages: Sequence[Message], *, tool: str) -> None:
        """Take the rules from a history: of an earlier compaction and of the calls of ``tool``."""
        handover, _ = Handover.read(messages)
        if handover is not None:
            self.add(handover.rules)
        for message in messages:
            for call in calls_of(message):
                given = call["input"].get("rules") if call["name"] == tool else None
                if isinstance(given, list):
                    self.add(rule for rule in given if isinstance(rule, str))

    def render(self) -> str:
        """One rule a line; "" without any."""
        return "\n".join(f"- {rule}" for rule in self._rules)
