"""Which trial is the best so far, and which baseline it has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from mlintern.tools.campaigns.state import Trial


def score_of(trial: Trial) -> float | None:
    """The mean over seeds and items at the highest rung where it was measured."""
    rung = trial.best_rung
    if rung is None:
        return None
    return fmean(fmean(scores.values()) for scores in trial.scores(rung).values())


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """The best of those that reached the highest share of their budget; the earlier one of equals."""
    measured = [trial for trial in trials if not trial.baseline and trial.best_rung is not None]
    if not measured:
        return None
    return max(measured, key=lambda trial: (trial.rungs[trial.best_rung or 0], score_of(trial) or 0.0, -trial.number))


def baseline_trial(trials: Sequence[Trial]) -> Trial | None:
    """The baseline with the better score: beating the weaker one is no achievement."""
    measured = [trial for trial in trials if trial.baseline and trial.best_rung is not None]
    return max(measured, key=lambda trial: (score_of(trial) or 0.0, -trial.number), default=None)
