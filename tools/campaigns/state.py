"""An experiment at one moment, as values: its trials, their stages, and what is left of time and money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

StageKind = Literal["generate", "probe", "train", "measure", "confirm"]
TrialState = Literal["waiting", "running", "done", "ended", "failed", "refused", "cancelled"]
OVER: frozenset[TrialState] = frozenset({"done", "ended", "failed", "refused", "cancelled"})
MOST_ATTEMPTS = 2
"""A stage whose job got lost (preempted, machine gone) is run once more; one that failed by itself is not."""


@dataclass(frozen=True, order=True)
class StageKey:
    """One job of a trial. ``rung`` counts from 0; ``seed`` is the training seed."""

    trial: int
    rung: int
    seed: int
    kind: StageKind


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a training or a probe went.

    Attributes:
        startup: seconds of the job that no step took: reading, compiling, saving.
        per_step: seconds of a step.
        total_steps: steps of the whole run that it is, or is the beginning of.
    """

    startup: float
    per_step: float
    total_steps: float


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage that was recorded, and what became of its job.

    Attributes:
        state: of the job; ``intended`` before it was submitted.
        seconds: measured run time, None before the end or if nobody knows.
        scores: of a measurement: the score of each item, larger is better.
        value: of a measurement: the metric over all items, as the evaluation states it.
        failing: what training health says of a run that is failing; empty otherwise.
        pace: of a training or a probe; None where it logged too little to say.
    """

    key: StageKey
    attempt: int
    job_id: str
    state: str
    seconds: float | None = None
    scores: Mapping[str, float] | None = None
    value: float | None = None
    error: str = ""
    failing: str = ""
    pace: Pace | None = None

    @property
    def active(self) -> bool:
        return self.state in ("intended", "queued", "running")

    @property
    def succeeded(self) -> bool:
        return self.state == "succeeded"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial with its plan and the latest attempt of each of its stages.

    Attributes:
        recipe: what it trains, at its whole budget; None for a baseline.
        rungs: shares of the budget, rising to 1; the last one is run with every seed.
        added: those of `seeds` that were asked for when it was done; it is not ended as a loser before they are run.
        parent, change: the trial that it differs from, and how.
        data: a generate recipe that makes its training data.
        measure: changes to the experiment's evaluation, such as few-shot examples of a baseline.
        place: `backend`, `hardware`, and the time-outs `train` and `measure` of its jobs.
    """

    number: int
    name: str
    state: TrialState
    recipe: Mapping[str, Any] | None
    seeds: tuple[int, ...] = (0,)
    rungs: tuple[float, ...] = (1.0,)
    added: tuple[int, ...] = ()
    parent: int | None = None
    change: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] | None = None
    measure: Mapping[str, Any] = field(default_factory=dict)
    place: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    stages: Mapping[StageKey, Stage] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return self.state in OVER

    @property
    def baseline(self) -> bool:
        """It measures the base model and trains nothing."""
        return self.recipe is None

    @property
    def last_rung(self) -> int:
        return len(self.rungs) - 1

    def chains(self, rung: int) -> list[list[StageKey]]:
        """The stages of a rung, a list for each seed, in the order in which they run."""
        if self.baseline:
            return [[StageKey(self.number, 0, self.seeds[0], "measure")]]
        seeds = self.seeds if rung == self.last_rung else self.seeds[:1]
        made = [StageKey(self.number, 0, self.seeds[0], "generate")] if self.data is not None else []
        return [
            [*made, StageKey(self.number, rung, seed, "train"), StageKey(self.number, rung, seed, "measure")]
            for seed in seeds
        ]

    def scores(self, rung: int) -> dict[int, Mapping[str, float]]:
        """The item scores of each seed that was measured at a rung."""
        return {
            key.seed: stage.scores
            for key, stage in sorted(self.stages.items())
            if key.kind == "measure" and key.rung == rung and stage.succeeded and stage.scores
        }

    def values(self, rung: int) -> list[float]:
        return [
            stage.value
            for key, stage in sorted(self.stages.items())
            if key.kind == "measure" and key.rung == rung and stage.succeeded and stage.value is not None
        ]

    @property
    def best_rung(self) -> int | None:
        """The highest rung at which it was measured."""
        measured = [rung for rung in range(len(self.rungs)) if self.scores(rung)]
        return max(measured, default=None)


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What the next step is decided from.

    Attributes:
        now, ends_at: Unix seconds.
        parallel: jobs of the experiment that may be active at once.
        end_failing: end runs that training health calls failing (the user agreed to that).
        stopped: a person or the agent asked to start nothing more.
        keep_free: seconds before the end that no training may use: the confirmation needs them.
    """

    trials: tuple[Trial, ...]
    now: float
    ends_at: float
    parallel: int
    end_failing: bool = False
    stopped: bool = False
    keep_free: float = 0.0

    @property
    def seconds_left(self) -> float:
        """For trials: without what is kept free for the confirmation."""
        return max(0.0, self.ends_at - self.keep_free - self.now)

    @property
    def active(self) -> list[Stage]:
        return [stage for trial in self.trials for stage in trial.stages.values() if stage.active]
