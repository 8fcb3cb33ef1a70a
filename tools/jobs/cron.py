"""When a schedule starts its runs: what callers give, checked, and the times that it means.

The names and the five fields are those that Hugging Face documents for scheduled Jobs. What parsers of cron disagree
about (names of days, ``L``, ``W``, ``#``, seconds) is refused, so that the times counted here are those meant there.
Times are UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from mlintern.tools.errors import BadInput
from mlintern.tools.jobs.spec import Schedule

NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
MOST_RUNS = 1000
_FIELD = re.compile(r"[0-9*,/-]+")


def check_schedule(cron: str | None, runs: int | None) -> Schedule | None:
    """The schedule that the arguments describe; None if there is none.

    Raises:
        BadInput: it is no schedule, or does not say how often at most it runs.
    """
    if cron is None:
        if runs is not None:
            raise BadInput("schedule_runs is given without a schedule.", next_step='Give one, such as "@daily".')
        return None
    text = " ".join(cron.split())
    if runs is None or isinstance(runs, bool) or not 1 <= runs <= MOST_RUNS:
        raise BadInput(
            f"A schedule needs schedule_runs: how many times it runs at most, from 1 to {MOST_RUNS}.",
            next_step="All of these runs together are what the user is asked to pay for: choose few.",
        )
    schedule = Schedule(cron=text, runs=runs)
    next(times(schedule, after=0.0))
    return schedule


def times(schedule: Schedule, *, after: float) -> Iterator[float]:
    """The moments (Unix seconds) at which the schedule starts a run, the first one after ``after``. Endless.

    Raises:
        BadInput: on the first step, if the schedule cannot be read.
    """
    from cronsim import CronSim, CronSimError

    fields = NAMES.get(schedule.cron, schedule.cron)
    try:
        if len(fields.split()) != 5 or not all(map(_FIELD.fullmatch, fields.split())):
            raise CronSimError("not five fields of digits and * , / -")
        moments = CronSim(fields, datetime.fromtimestamp(after, UTC))
        for moment in moments:
            yield moment.timestamp()
    except CronSimError as error:
        raise BadInput(
            f"The schedule {schedule.cron!r} cannot be read ({error}).",
            next_step=f"Give one of {', '.join(NAMES)}, or minute, hour, day, month and weekday in numbers, such as"
            " '0 6 * * 1'.",
        ) from error


def end(schedule: Schedule, *, since: float) -> float:
    """When a schedule that was made at ``since`` is over: where the first run too many would start."""
    moments = times(schedule, after=since)
    for _ in range(schedule.runs):
        next(moments)
    return next(moments)
