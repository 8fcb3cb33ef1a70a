"""An experiment that allows more jobs at once than the hardware runs says so."""

from __future__ import annotations

from mlintern.tools.campaigns.service import serially
from mlintern.tools.jobs.hardware import Hardware


def hardware(slots: int | None) -> Hardware:
    return Hardware.model_construct(name="cpu", backend="local", slots=slots)


def test_more_jobs_at_once_than_slots_are_said_to_queue() -> None:
    assert "allows 2 jobs at once and cpu runs 1" in serially(2, hardware(1))
    assert "--slots" in serially(3, hardware(2))
    assert serially(2, hardware(2)) == "" and serially(2, hardware(None)) == ""
