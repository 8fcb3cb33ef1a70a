"""What a diagnosis says."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Kind = Literal[
    "nan_or_inf",
    "divergence",
    "reward_collapse",
    "no_reward_signal",
    "kl_blowup",
    "entropy_collapse",
    "length_explosion",
    "length_collapse",
    "truncation",
    "overfitting",
    "reward_hacking",
    "stalled",
    "gradient_spikes",
    "crash",
]
Severity = Literal["error", "warning", "note"]
Verdict = Literal["healthy", "watch", "failing", "too_little_to_judge"]


class Finding(BaseModel):
    """One thing that is wrong with a run, the numbers that show it, and what helps."""

    kind: Kind
    severity: Severity = Field(description="error: the run is wasting its time; warning: look before it goes on.")
    step: int | None = Field(default=None, description="Step at which it shows first.")
    evidence: str
    advice: str

    @property
    def news(self) -> str:
        """What makes it another finding than one that was told before: not the step, which moves."""
        return f"{self.kind} {self.severity}"


class Diagnosis(BaseModel):
    """The health of a training run, from what it logged."""

    verdict: Verdict = Field(
        description="failing: an error was found; watch: a warning; healthy: neither, over at least 10 rows with a "
        "loss or a reward; too_little_to_judge: neither, over less."
    )
    findings: list[Finding]
    steps_read: int = Field(description="Logged rows that were read.")
    last_step: int | None = None
    metrics: list[str] = Field(default_factory=list, description="Metrics that were looked at, at most 40.")
    notes: list[str] = Field(default_factory=list, description="What could not be judged, and why.")
    source: str | None = None
