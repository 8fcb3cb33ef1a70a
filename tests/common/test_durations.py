"""Durations: every form that people write, one form that we write, and the way back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.common.durations import BadDuration, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("90 s", 90),
        ("30m", 1800),
        ("30min", 1800),
        ("30 min", 1800),
        ("30 minutes", 1800),
        ("1h", 3600),
        ("1.5h", 5400),
        (".5h", 1800),
        ("1h30m", 5400),
        ("1 h 30 min", 5400),
        ("1 hour 30 minutes", 5400),
        ("2d", 172800),
        ("2 Days", 172800),
        ("1d12h", 129600),
        ("  5M ", 300),
        ("0s", 0),
    ],
)
def test_reads_what_people_write(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "soon", "m", "-5m", "5 parsecs", "30m1h", "1h1h", "1h 30", "1e3s", "٣m", "1:30", "5mm"]
)
def test_refuses_what_is_no_duration(text: str) -> None:
    with pytest.raises(BadDuration, match="is not a duration: write a number and a unit"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["30", " 30 ", "1.5"])
def test_a_bare_number_is_refused_with_both_readings(text: str) -> None:
    with pytest.raises(BadDuration, match=rf"has no unit: {text.strip()}s or {text.strip()}m\?"):
        parse_duration(text)


def test_a_text_that_never_ends_is_refused_and_not_repeated_in_full() -> None:
    with pytest.raises(BadDuration) as refusal:
        parse_duration("9" * 100_000 + "s")
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.5, "0.5 s"),
        (45, "45 s"),
        (1800, "30 min"),
        (5400, "1 h 30 min"),
        (86400, "1 d"),
        (90061, "1 d 1 h 1 min 1 s"),
    ],
)
def test_writes_whole_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.01234, "0.012 s"),
        (1.26, "1.3 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min"),
        (61.4, "1 min 1 s"),
        (3599.7, "1 h"),
        (5431, "1 h 31 min"),
        (86399, "1 d"),
        (90061, "1 d 1 h"),
    ],
)
def test_rounds_what_was_measured(seconds: float, text: str) -> None:
    assert format_duration(seconds, rounded=True) == text


@given(st.floats(min_value=0, max_value=1e10, allow_nan=False) | st.integers(min_value=0, max_value=10**9))
def test_what_is_written_reads_back_exactly_with_and_without_spaces(seconds: float) -> None:
    written = format_duration(seconds)
    assert parse_duration(written) == seconds
    assert parse_duration(written.replace(" ", "")) == seconds


@given(st.floats(min_value=0, max_value=1e10, allow_nan=False))
def test_what_is_rounded_can_be_read_and_is_near(seconds: float) -> None:
    assert parse_duration(format_duration(seconds, rounded=True)) == pytest.approx(seconds, rel=0.06)


@given(st.text(max_size=120))
def test_any_text_is_read_or_refused_by_name(text: str) -> None:
    try:
        assert parse_duration(text) >= 0
    except BadDuration as refusal:
        assert "write a number and a unit" in str(refusal) or "has no unit" in str(refusal)
