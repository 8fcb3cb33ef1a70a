"""Which jobs are running, as far as the results of tools said so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

RUNNING = frozenset({"queued", "running", "submitted", "already_submitted", "pending", "starting"})


class RunningJobs:
    """Fed with every result. A job is whatever has a ``job_id`` with a ``state`` or a ``status``."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}

    def observe(self, structured: Mapping[str, Any] | None, text: str = "") -> None:
        """Take note of one result: its structured content, else its text if that is a JSON object."""
        if structured is None and text.startswith("{"):
            try:
                structured = json.loads(text)
            except ValueError:
                return
        for job_id, state in _jobs_in(structured):
            self._states[job_id] = state

    @property
    def started(self) -> int:
        """How many jobs there have been."""
        return len(self._states)

    @property
    def ids(self) -> list[str]:
        """Jobs that were running when they were last seen, in the order of their submission."""
        return [job_id for job_id, state in self._states.items() if state in RUNNING]


def _jobs_in(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        job_id, state = value.get("job_id"), value.get("state") or value.get("status")
        if isinstance(job_id, str) and job_id and isinstance(state, str):
            yield job_id, state
        for each in value.values():
            if isinstance(each, list):
                for item in each:
                    yield from _jobs_in(item)
