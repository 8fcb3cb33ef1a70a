"""What the experiment tools answer with. Field names are part of the public surface."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class Remaining(BaseModel):
    """What an experiment has left; stands in every result that belongs to it."""

    hours: float
    usd: float | None = Field(description="Dollars neither spent nor reserved; null if none were set.")
    trials_running: int
    trials_waiting: int
    confirmed: bool


class OpenedExperiment(BaseModel):
    experiment: str
    fingerprint: str = Field(description="Of the protocol: numbers with another one are not comparable.")
    metric: str
    decide_rows: int
    confirm_rows: int
    detectable: str = Field(description="The smallest difference that the decide half can show.")
    remaining: Remaining
    next_step: str


class LeaderboardRow(BaseModel):
    trial: str
    state: str
    change: str = Field(default="", description="What differs from the parent.")
    parent: str | None = None
    rung: str = Field(default="", description="Share of the budget that its score was reached with.")
    seeds: int = 0
    score: float | None = None
    delta: float | None = Field(default=None, description="Against the better baseline, on the same items.")
    ci_low: float | None = None
    ci_high: float | None = None
    verdict: str = Field(default="", description="About the recipe: improved needs two seeds or more.")
    reason: str = ""
    hours: float | None = Field(default=None, description="Run time of all its jobs.")


class ActiveJob(BaseModel):
    job_id: str
    trial: str
    stage: str
    state: str
    ends_in_minutes: float | None = Field(default=None, description="Expected, from jobs like it.")


class Confirmed(BaseModel):
    """One opening of the confirm half."""

    opening: int
    trial: str
    verdict: str = Field(description="measuring, improved, regressed, no_evidence or not_comparable")
    baseline: float | None = None
    candidate: float | None = None
    delta: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p_adjusted: float | None = Field(default=None, description="Corrected for the number of openings.")
    reason: str = ""


class ExperimentStatus(BaseModel):
    experiment: str
    goal: str = ""
    target: float | None = None
    state: Literal["idle", "running", "over"]
    leaderboard: list[LeaderboardRow]
    running: list[ActiveJob] = Field(default_factory=list)
    best: str | None = None
    best_model: str | None = Field(default=None, description="Folder of the best model so far; it has been loaded.")
    optimism: float | None = Field(
        default=None, description="By how much the best of so many flatters itself on the decide half, on average."
    )
    open_questions: list[str] = Field(default_factory=list)
    confirmations: list[Confirmed] = Field(default_factory=list)
    remaining: Remaining
    next_step: str = ""


class TrialsResult(BaseModel):
    status: Literal["started", "already_started", "approval_required", "denied"]
    experiment: str
    digest: str
    trials: list[str] = Field(default_factory=list, description="Names of the trials of this batch.")
    usd_worst: float | None = None
    how_to_approve: str | None = None
    note: str = ""
    remaining: Remaining | None = None


class VerifyProblem(BaseModel):
    what: str
    message: str


class Verification(BaseModel):
    """A certificate recounted from files."""

    certificate: str
    holds: bool
    checked: list[str]
    problems: list[VerifyProblem]
    holes: list[str] = Field(description="What the certificate itself says it cannot show.")
    summary: dict[str, Any] = Field(default_factory=dict)
