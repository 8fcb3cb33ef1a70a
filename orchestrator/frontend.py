"""A `ports.Ui` as the run needs it: with, perhaps, a person behind it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mlintern.orchestrator.events import Event

if TYPE_CHECKING:
    from mlintern.orchestrator.approvals import Person
    from mlintern.orchestrator.assemble import Agent


class Interrupts(Protocol):
    """What the keyboard can do to a run."""

    def press(self) -> None:
        """Ctrl-C: the first cancels the step that runs, a second within two seconds ends the program."""
        ...

    def end_step(self) -> None:
        """Esc: end the step that runs, if one does."""
        ...

    def quit(self) -> None:
        """End the program after this step is closed."""
        ...


@dataclass(frozen=True)
class Controls:
    """What a frontend may act on while it is attached."""

    agent: Agent
    interrupts: Interrupts


class Frontend(Protocol):
    """Shows a run and, where a person is there, answers and asks for more."""

    @property
    def person(self) -> Person | None:
        """Who answers questions; None where nobody does."""
        ...

    def show(self, event: Event) -> None: ...

    def typed(self) -> list[str]: ...

    def attached(self, controls: Controls) -> AbstractAsyncContextManager[None]:
        """Whatever must run beside the agent (reading the keyboard) runs while this is entered."""
        ...

    async def next_message(self) -> str | None:
        """What to do next; None to end. Waits only where somebody can type."""
        ...


class Headless:
    """The part of a `Frontend` that is the same wherever nobody is there."""

    person: Person | None = None

    def typed(self) -> list[str]:
        return []

    @asynccontextmanager
    async def attached(self, controls: Controls) -> AsyncGenerator[None, None]:
        yield

    async def next_message(self) -> str | None:
        return None
