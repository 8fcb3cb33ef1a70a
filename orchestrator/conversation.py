"""The history that the model sees: only ever longer, except where a compaction replaces it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlintern.orchestrator.messages import OWN_NOTE, answered, calls_of, estimate_tokens, user_text
from mlintern.orchestrator.model import Block, Message, ModelReply, ModelRequest
from mlintern.orchestrator.settings import LoopSettings


class Conversation:
    """System prompt, tools and messages of one agent.

    ``system`` and ``tools`` never change: a different byte would lose the cache and the thinking that is bound to
    them. Messages are plain API dicts and are never edited once they are in. ``known_tokens`` is the size up to and
    with the last reply in ``messages``, as its usage gave it; 0 if unknown.
    """

    def __init__(
        self,
        *,
        system: str,
        tools: Sequence[Mapping[str, Any]],
        messages: Sequence[Message] = (),
        known_tokens: int = 0,
    ) -> None:
        self.system: tuple[Block, ...] = ({"type": "text", "text": system},)
        self.tools = tuple(dict(tool) for tool in tools)
        self.messages: list[Message] = list(messages)
        self._known_tokens = known_tokens
        self._checked = 0
        replies = [number for number, message in enumerate(self.messages, 1) if message["role"] == "assistant"]
        self._known_messages = replies[-1] if known_tokens and replies else 0

    def add_user(self, text: str) -> None:
        """What a person said. May follow tool results; the API reads both as one turn of the user."""
        self.messages.append({"role": "user", "content": text})

    def add_reply(self, reply: ModelReply) -> None:
        """The model's reply, verbatim, thinking included."""
        self.messages.append({"role": "assistant", "content": reply.blocks})
        self._known_tokens = reply.answered_usage.context_tokens
        self._known_messages = len(self.messages)

    def add_results(self, results: Sequence[Block]) -> None:
        """One message of nothing but the results of the last reply's calls, in their order.

        Raises:
            ValueError: they are not exactly those calls' results.
        """
        asked = [use["id"] for use in calls_of(self.messages[-1])] if self.messages else []
        if [result["tool_use_id"] for result in results] != asked:
            raise ValueError(f"results must answer {asked} in order")
        self.messages.append({"role": "user", "content": list(results)})

    def replace(self, messages: Sequence[Message], *, known_tokens: int = 0) -> None:
        """Put a compacted history in place of this one."""
        self.messages = list(messages)
        self._known_tokens = known_tokens
        self._known_messages = len(self.messages) if known_tokens else 0
        self._checked = 0

    @property
    def tokens(self) -> int:
        """Tokens that the next prompt will have: as last reported, plus an estimate of what was added since."""
        added = sum(estimate_tokens(message["content"]) for message in self.messages[self._known_messages :])
        if self._known_messages:
            return self._known_tokens + added
        return added + estimate_tokens(self.system) + estimate_tokens(self.tools)

    def before_last_said(self) -> tuple[str | None, list[Message]]:
        """The last thing that a person said and the messages before it; None if there is none."""
        for index in range(len(self.messages) - 1, -1, -1):
            text = user_text(self.messages[index])
            if text and not text.startswith(OWN_NOTE):
                return text, self.messages[:index]
        return None, self.messages

    def request(self, settings: LoopSettings) -> ModelRequest:
        """The next request. Calls that never got a result are answered by a stub, whatever their place."""
        return ModelRequest(
            model=settings.model,
            system=self.system,
            tools=self.tools,
            messages=self._answered(),
            max_tokens=settings.max_tokens,
            thinking=settings.thinking,
            effort=settings.effort,
            cache_ttl=settings.cache_ttl,
        )

    def _answered(self) -> list[Message]:
        """`answered` of the messages; those up to the last reply that was looked at before need no second look."""
        whole, latest = self.messages[: self._checked], self.messages[self._checked :]
        repaired = answered(latest)
        if len(repaired) == len(latest) and all(new is old for new, old in zip(repaired, latest, strict=True)):
            replies = [number for number, message in enumerate(latest) if message["role"] == "assistant"]
            self._checked += replies[-1] if replies else 0
        return whole + repaired
