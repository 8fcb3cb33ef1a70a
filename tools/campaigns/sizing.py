"""How long a stage will take, from what stages of the same experiment took; and the largest trial that still fits."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from mlintern.tools.campaigns.requests import budget
from mlintern.tools.campaigns.state import Situation, Stage, StageKey, Trial

MARGIN = 1.15
"""A stage is taken to need this much more than stages like it needed: machines are shared."""
SECONDS_PER_MINUTE = 60.0


def seconds_for(situation: Situation, trial: Trial, *, key: StageKey) -> float | None:
    """Expected seconds of a stage, or None if nothing like it has run in this experiment yet.

    Training is taken as proportional to its budget (steps, epochs), by the runs of this trial if there are any, else
    by runs with the same model, trainer and unit. `max_minutes` is a promise and needs no history.
    """
    if key.kind != "train":
        seen = [stage.seconds for stage in _ended(situation, key.kind) if stage.seconds is not None]
        return median(seen) * MARGIN if seen else None
    assert trial.recipe is not None
    unit, amount = budget(trial.recipe)
    share = trial.rungs[key.rung]
    if unit == "max_minutes":
        return amount * share * SECONDS_PER_MINUTE
    rates = list(_rates(situation, trial, unit, own=True)) or list(_rates(situation, trial, unit, own=False))
    return median(rates) * amount * share * MARGIN if rates else None


def rest_of(situation: Situation, trial: Trial, *, rung: int) -> float | None:
    """Expected seconds of one chain of a rung, of the stages that have not ended; None if a part is unknown."""
    total = 0.0
    for key in trial.chains(rung)[0]:
        stage = trial.stages.get(key)
        if stage is not None and stage.succeeded:
            continue
        needed = seconds_for(situation, trial, key=key)
        if needed is None:
            return None
        total += needed
    return total


def largest_that_fits(situation: Situation, trial: Trial, *, rung: int) -> str:
    """The budget, in the recipe's own unit, that the time left allows; in words."""
    assert trial.recipe is not None
    unit, amount = budget(trial.recipe)
    train = StageKey(trial.number, rung, trial.seeds[0], "train")
    whole, needed = rest_of(situation, trial, rung=rung), seconds_for(situation, trial, key=train)
    if whole is None or not needed:
        return ""
    spare = situation.seconds_left - (whole - needed)
    fits = amount * trial.rungs[rung] * spare / needed
    if fits <= 0 or (unit == "max_steps" and fits < 1):
        return "No training fits any more; what is left is for measuring and confirming."
    return f"The largest that fits is about {unit}={int(fits) if unit == 'max_steps' else round(fits, 2)}."


def _ended(situation: Situation, kind: str) -> Iterator[Stage]:
    for trial in situation.trials:
        for key, stage in trial.stages.items():
            if key.kind == kind and stage.succeeded:
                yield stage


def _rates(situation: Situation, trial: Trial, unit: str, *, own: bool) -> Iterator[float]:
    """Seconds for a unit of budget, of the runs that are like those of ``trial``."""
    for other in situation.trials:
        if other.recipe is None or (other.number == trial.number) != own or not _alike(other, trial, unit):
            continue
        amount = budget(other.recipe)[1]
        for key, stage in other.stages.items():
            if key.kind == "train" and stage.succeeded and stage.seconds:
                yield stage.seconds / (amount * other.rungs[key.rung])


def _alike(one: Trial, other: Trial, unit: str) -> bool:
    a, b = one.recipe, other.recipe
    if a is None or b is None or budget(a)[0] != unit:
        return False
    same = ("trainer", "model", "lora") if unit == "max_steps" else ("trainer", "model", "lora", "dataset", "limit")
    return all(a.get(field) == b.get(field) for field in same) and _batch(one) == _batch(other)


def _batch(trial: Trial) -> object:
    settings = (trial.recipe or {}).get("hyperparameters") or {}
    return settings.get("per_device_train_batch_size"), settings.get("gradient_accumulation_steps")
