"""The confirm half: what an opening measures, and what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from mlintern.tools.campaigns.ranking import baseline_trial
from mlintern.tools.campaigns.state import MOST_ATTEMPTS, StageKey, Trial
from mlintern.tools.campaigns.store import Confirmation
from mlintern.tools.campaigns.verdicts import Effect, recipe_effect


def confirm_keys(trials: Sequence[Trial], confirmation: Confirmation) -> list[StageKey]:
    """The measurements that an opening needs: the baseline, and each seed's model of the trial."""
    baseline = baseline_trial(trials)
    chosen = next((trial for trial in trials if trial.number == confirmation.trial), None)
    keys = []
    if baseline is not None:
        keys.append(StageKey(baseline.number, confirmation.opening, baseline.seeds[0], "confirm"))
    if chosen is not None and chosen.best_rung is not None:
        keys += [
            StageKey(chosen.number, confirmation.opening, seed, "confirm") for seed in chosen.scores(chosen.best_rung)
        ]
    return keys


def confirm_verdict(trials: Sequence[Trial], confirmation: Confirmation) -> dict[str, Any] | None:
    """What an opening showed, once all its measurements are over; None before."""
    keys = confirm_keys(trials, confirmation)
    stages = [stage for trial in trials for key, stage in trial.stages.items() if key in keys]
    if len(stages) < len(keys) or any(stage.active for stage in stages):
        return None
    failed = [stage for stage in stages if not stage.succeeded or not stage.scores]
    if any(stage.state == "lost" and stage.attempt < MOST_ATTEMPTS for stage in failed):
        return None
    if failed:
        return {"verdict": "not_comparable", "reason": f"{failed[0].job_id} {failed[0].state}: {failed[0].error}"}
    chosen = [stage.scores for stage in stages if stage.key.trial == confirmation.trial and stage.scores]
    base = [stage.scores for stage in stages if stage.key.trial != confirmation.trial and stage.scores]
    if not base:
        return {"verdict": "not_comparable", "reason": "No baseline was measured."}
    found = recipe_effect(base, chosen, tries=confirmation.opening)
    values = {
        "baseline": fmean(fmean(scores.values()) for scores in base),
        "candidate": fmean(fmean(scores.values()) for scores in chosen),
    }
    if not isinstance(found, Effect):
        return {"verdict": "not_comparable", "reason": found, **values}
    return {**values, **{name: value for name, value in vars(found).items() if value is not None}}
