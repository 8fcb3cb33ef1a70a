"""The one line that the server writes and the orchestrator reads: two rooms that know nothing of each other agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.orchestrator.allow_rules import Asked, Rule
from mlintern.tools.approvals import Action

DIGEST = "0123456789abcdef" * 2
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9 ._:+\-]{0,40}", fullmatch=True)


@given(
    name=NAMES,
    place=st.sampled_from(["local", "slurm", "ray", "hf_jobs"]),
    hardware=st.sampled_from(["", "cpu", "a100-large", "h200x8"]),
    usd=st.one_of(st.none(), st.just(0.0), st.floats(1e-4, 1e5)),
    seconds=st.floats(1, 30 * 86400),
)
def test_a_rule_reads_from_the_question_what_the_server_meant(
    name: str, place: str, hardware: str, usd: float | None, seconds: float
) -> None:
    action = Action(
        kind="submit_job", what=f"Run {name}", where=place, hardware=hardware, digest=DIGEST, usd_worst=usd,
        hours=seconds / 3600,
    )  # fmt: skip
    asked = Asked.parse(f"{action.headline}?\nScript: 40 lines")
    assert asked is not None
    assert (asked.place, asked.hardware, asked.digest) == (place, hardware, action.short_digest)
    assert asked.hours == pytest.approx(seconds / 3600, rel=0.006)
    assert (asked.usd_worst is None) == (usd is None)
    if usd is not None:
        assert asked.usd_worst == pytest.approx(usd, abs=0.0101)
        assert asked.usd_worst >= usd - 1e-6, "what is shown and counted is never less than the worst"


def test_half_an_hour_is_within_half_an_hour() -> None:
    action = Action(kind="submit_job", what="Run x", where="local", digest=DIGEST, hours=0.5)
    asked = Asked.parse(action.headline)
    assert asked is not None
    assert Rule.parse("submit_job:local<=30m").covers(asked, tool="submit_job", spent_usd=0.0)
    assert not Rule.parse("submit_job:local<=29m").covers(asked, tool="submit_job", spent_usd=0.0)


def test_hf_is_short_for_hugging_face_jobs() -> None:
    action = Action(kind="submit_job", what="Run x", where="hf_jobs", digest=DIGEST, usd_worst=4.5, hours=1)
    asked = Asked.parse(action.headline)
    assert asked is not None
    assert Rule.parse("submit_job:hf<=5usd").covers(asked, tool="submit_job", spent_usd=0.0)
    assert not Rule.parse("submit_job:hf<=5usd").covers(asked, tool="submit_job", spent_usd=0.6)
