"""The times of schedules, and which schedules are taken."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.tools.errors import BadInput
from mlintern.tools.jobs import cron
from mlintern.tools.jobs.spec import Schedule

THURSDAY = datetime(2026, 11, 26, 12, 30, tzinfo=UTC).timestamp()


def moments(text: str, count: int) -> list[str]:
    found = itertools.islice(cron.times(Schedule(text, 1), after=THURSDAY), count)
    return [datetime.fromtimestamp(at, UTC).strftime("%a %d %b %H:%M") for at in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@hourly", ["Thu 26 Nov 13:00", "Thu 26 Nov 14:00"]),
        ("@daily", ["Fri 27 Nov 00:00", "Sat 28 Nov 00:00"]),
        ("@weekly", ["Sun 29 Nov 00:00", "Sun 06 Dec 00:00"]),
        ("@monthly", ["Tue 01 Dec 00:00", "Fri 01 Jan 00:00"]),
        ("@yearly", ["Fri 01 Jan 00:00", "Sat 01 Jan 00:00"]),
        ("0 9 * * 1", ["Mon 30 Nov 09:00", "Mon 07 Dec 09:00"]),
        ("*/20 6,18 * * 1-5", ["Thu 26 Nov 18:00", "Thu 26 Nov 18:20"]),
    ],
)
def test_a_schedule_means_these_moments_in_utc(text: str, expected: list[str]) -> None:
    assert moments(text, 2) == expected


@pytest.mark.parametrize(
    "text",
    ["", "daily", "@midnight", "* * * *", "0 0 0 * * *", "61 * * * *", "0 0 31 2 *", "0 9 * * MON", "0 0 L * *", "x"],
)
def test_what_is_no_schedule_everywhere_is_refused_with_what_to_give(text: str) -> None:
    with pytest.raises(BadInput, match="@daily"):
        cron.check_schedule(text, 3)


@pytest.mark.parametrize("runs", [None, 0, -1, 1001, True])
def test_a_schedule_without_a_bound_is_refused(runs: int | None) -> None:
    with pytest.raises(BadInput, match="schedule_runs"):
        cron.check_schedule("@daily", runs)


def test_runs_without_a_schedule_are_refused() -> None:
    with pytest.raises(BadInput, match="without a schedule"):
        cron.check_schedule(None, 3)
    assert cron.check_schedule(None, None) is None


@given(
    text=st.sampled_from(["@hourly", "@weekly", "*/7 * * * *", "0 0 29 2 *", "30 4 1,15 * 5"]),
    runs=st.integers(min_value=1, max_value=12),
    since=st.floats(min_value=0, max_value=4e9),
)
def test_until_its_end_a_schedule_starts_exactly_its_runs(text: str, runs: int, since: float) -> None:
    schedule = Schedule(text, runs)
    end = cron.end(schedule, since=since)
    before = list(itertools.takewhile(lambda at: at < end, cron.times(schedule, after=since)))
    assert len(before) == runs
    assert before[0] > since and before == sorted(set(before))
