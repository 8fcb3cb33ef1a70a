"""What a job is: its states, its specification, and how its backend finds it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal, Self, get_args

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled", "timed_out", "lost"]
PROBE_VARIABLE = "MLINTERN_PROBE_STEPS"
"""Set in a job that only measures: the steps after which its training stops."""

STATES: tuple[JobState, ...] = get_args(JobState)
FINAL: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled", "timed_out", "lost"})


def may_follow(state: JobState, following: JobState) -> bool:
    """Whether a job recorded in ``state`` may be recorded as ``following`` next. Final states are final.

    A queued job may end without ever having been seen to run: it was short, or cancelled, or refused.
    """
    if state in FINAL:
        return False
    return following in FINAL or (state == "queued" and following == "running")


@dataclass(frozen=True)
class Schedule:
    """When a backend starts a job again and again by itself, and how often at most.

    ``cron`` is five fields in UTC or a name such as ``@daily`` (`mlintern.tools.jobs.cron`).
    """

    cron: str
    runs: int


@dataclass(frozen=True)
class RunOf:
    """Of which schedule a job is a run: the schedule's ``job_id``, and the backend's own name of the run."""

    schedule: str
    reference: str


@dataclass(frozen=True)
class JobSpec:
    """Everything that decides what a job does, where, and at what worst cost.

    With a ``schedule`` it is many runs, each of which becomes a job of its own with ``run_of`` once it has started;
    ``timeout_seconds`` is that of each.

    ``env`` holds plain values and ``secrets`` the names of variables whose values the job gets without their ever
    being written down. ``usd_per_hour``, ``usd_served`` (what one run may spend at served models), ``usd_worst``
    (time-out times price as the backend bills it, and that, of all runs) and ``priced_at`` (the month of the price
    list, if it is not today's) say what was known at planning; they are not part of the digest, so that a changed
    price list does not make a second job of the same one. ``billed_to`` is the account that pays,
    where the backend knows one; another account is another job.
    """

    script_id: str
    script_sha256: str
    backend: str
    hardware: str
    timeout_seconds: float
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()
    experiment: str | None = None
    run_name: str | None = None
    usd_per_hour: float = 0.0
    usd_worst: float = 0.0
    priced_at: str | None = None
    schedule: Schedule | None = None
    run_of: RunOf | None = None
    billed_to: str | None = None
    usd_served: float = 0.0

    @cached_property
    def digest(self) -> str:
        """32 hex of the SHA-256 of the canonical JSON of the specification: what a person's consent is bound to."""
        identity = asdict(self)
        del identity["usd_per_hour"], identity["usd_worst"], identity["priced_at"], identity["usd_served"]
        for name in ("schedule", "run_of", "billed_to"):  # what a job may lack leaves the ids of others as they were
            if identity[name] is None:
                del identity[name]
        canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]

    @property
    def probes(self) -> bool:
        """Whether it only measures: a few real steps, and nothing is kept (`mlintern.tools.jobs.measured`)."""
        return any(name == PROBE_VARIABLE for name, _ in self.env)

    @property
    def job_id(self) -> str:
        """``job-`` and the first 12 hex of the digest: the same specification is the same job, in every server."""
        return f"job-{self.digest[:12]}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        known = dict(value)
        known["args"] = tuple(known.get("args", ()))
        known["env"] = tuple((name, text) for name, text in known.get("env", ()))
        known["secrets"] = tuple(known.get("secrets", ()))
        known["schedule"] = Schedule(**known["schedule"]) if known.get("schedule") else None
        known["run_of"] = RunOf(**known["run_of"]) if known.get("run_of") else None
        return cls(**known)


@dataclass(frozen=True)
class JobHandle:
    """How a backend finds a job again: ``reference`` is its own id for it, ``details`` is JSON of its choosing."""

    backend: str
    reference: str
    details: dict[str, Any] = field(default_factory=dict)
