"""The clock of a run with ``--hours``: what is left of time and money, said each turn; when the agent ends too early.

The hours count from the first start of the session, through kills and resumes: they are the user's time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mlintern.common.clock import Clock
from mlintern.common.durations import format_duration
from mlintern.common.text import format_usd
from mlintern.orchestrator.budget import ModelBudget
from mlintern.orchestrator.running_jobs import RunningJobs

WRAP_UP_SHARE = 0.1
"""Of the time: from here on only what can still be finished."""

WORTH_A_TRIAL_SECONDS = 600.0
"""With less left than this, an end is no early end."""


@dataclass
class TimeLeft:
    """``hours`` from ``started`` (seconds since the epoch) on; None: nobody limited the time."""

    clock: Clock
    budget: ModelBudget
    jobs: RunningJobs
    hours: float | None = None
    started: float = 0.0
    _asked_at: int = field(default=-1, init=False)
    _told_to_wrap_up: bool = field(default=False, init=False)

    @property
    def seconds(self) -> float | None:
        """Seconds left, not below 0; None without a limit."""
        if self.hours is None:
            return None
        return max(0.0, self.started + self.hours * 3600 - self.clock.now())

    def note(self) -> str | None:
        """What is left of time and money and what runs, for a turn's results; None without a limit of time."""
        left = self.seconds
        if left is None or self.hours is None:
            return None
        parts = [f"{_length(left)} of {_length(self.hours * 3600)} left"]
        if self.budget.limit_usd is not None:
            rest = max(0.0, self.budget.limit_usd - self.budget.spent_usd)
            parts.append(f"{format_usd(rest)} of {format_usd(self.budget.limit_usd)} for the model left")
        parts.append(f"running: {', '.join(self.jobs.ids)}" if self.jobs.ids else "no job is running")
        return f"[mlintern clock] {'; '.join(parts)}.{self._wrap_up(left)}"

    def early_end(self) -> str | None:
        """What to answer a reply that ends the run although time is left; None if it may end.

        Said once, and again only after another job was started: an agent that has given its reasons may end.
        """
        left = self.seconds
        if left is None or self.hours is None or left < WORTH_A_TRIAL_SECONDS:
            return None
        if left < WRAP_UP_SHARE * self.hours * 3600 or self._asked_at >= self.jobs.started:
            return None
        self._asked_at = self.jobs.started
        running = f" Running: {', '.join(self.jobs.ids)}." if self.jobs.ids else ""
        return (
            f"[mlintern loop] You ended with {_length(left)} of {_length(self.hours * 3600)} left.{running} Name the "
            "next trial and start it, or watch what runs. End only if the target is confirmed, the money is spent, "
            "or your written list of ideas is exhausted: then say which, and for each idea the evidence."
        )

    def _wrap_up(self, left: float) -> str:
        if self.hours is None or self._told_to_wrap_up or left > WRAP_UP_SHARE * self.hours * 3600:
            return ""
        self._told_to_wrap_up = True
        return (
            " Time runs out: start nothing that cannot end in time, confirm the best, save what is worth keeping, "
            "write the report."
        )


def _length(seconds: float) -> str:
    """In whole minutes, below ten minutes in seconds: nobody needs it closer."""
    return format_duration(seconds // 60 * 60 if seconds >= 600 else seconds // 1)
