"""What a call costs while it runs, for when it is cancelled and nobody reports it."""

from __future__ import annotations

from mlintern.orchestrator.model import ModelEvent, ReplyStarted, Retrying, Usage
from mlintern.orchestrator.ports import Journal, Ui
from mlintern.orchestrator.reply_reader import CHARS_PER_TOKEN


class Meter:
    """Passes a call's events on and estimates what it cost until now, for when it is cancelled."""

    def __init__(self, ui: Ui, journal: Journal) -> None:
        self._ui = ui
        self._journal = journal
        self._failed = Usage()
        self._prompt = Usage()
        self._chars = 0

    def take(self, event: ModelEvent) -> None:
        match event:
            case Retrying(error, attempt, wait_seconds):
                self._journal.append("retry", error=str(error), attempt=attempt, wait_seconds=wait_seconds)
                self._failed, self._prompt, self._chars = self._failed + error.usage, Usage(), 0
            case ReplyStarted(usage):
                self._prompt = usage
            case _:
                self._chars += len(getattr(event, "text", ""))
        self._ui.show(event)

    @property
    def usage(self) -> Usage:
        """Attempts that failed as they reported it, the running one by what has arrived of it."""
        arrived = int(self._chars / CHARS_PER_TOKEN)
        return self._failed + self._prompt + Usage(output_tokens=max(0, arrived - self._prompt.output_tokens))
