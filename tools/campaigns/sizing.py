"""How long a stage will take, from what stages of the same experiment took; and the largest trial that still fits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from mlintern.common.durations import parse_duration
from mlintern.tools.campaigns.requests import budget, is_probed
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
    pace = _pace(situation, trial)
    return None if pace is None else (pace[0] + pace[1] * amount * share) * MARGIN


def needs_probe(situation: Situation, trial: Trial) -> bool:
    """Whether nothing tells how long the trial takes and it is too long, or of unknown length, to just begin."""
    if trial.recipe is None or "train" not in trial.place or not is_probed(trial.recipe):
        return False
    own = trial.stages.get(StageKey(trial.number, 0, trial.seeds[0], "probe"))
    if own is not None and own.succeeded and own.pace is None:
        return False  # it was probed and did not say: the trial begins, bounded by its time-out
    return _pace(situation, trial) is None


def probe_under_way(situation: Situation, trial: Trial) -> bool:
    """Whether a probe of this trial, or of one that trains like it, is running."""
    return any(
        stage.active and trains_alike(trial, other)
        for other in situation.trials
        for key, stage in other.stages.items()
        if key.kind == "probe"
    )


def trains_alike(trial: Trial, other: Trial) -> bool:
    """Whether the pace of one tells that of the other."""
    return other.number == trial.number or _alike(other, trial, budget(trial.recipe or {})[0])


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
    limit = timeout_of(trial)
    spare = min(spare, limit) if limit is not None else spare
    pace = None if unit == "max_minutes" else _pace(situation, trial)
    startup = 0.0 if pace is None else pace[0] * MARGIN
    fits = amount * trial.rungs[rung] * (spare - startup) / max(needed - startup, 1e-9)
    if fits <= 0 or (unit == "max_steps" and fits < 1):
        return "No training fits any more; what is left is for measuring and confirming."
    whole_units = math.floor(fits) if unit == "max_steps" else math.floor(fits * 100) / 100
    return f"The largest that fits is about {unit}={whole_units:.10g}."


def timeout_of(trial: Trial) -> float | None:
    """Seconds after which a training job of the trial is ended."""
    return parse_duration(trial.place["train"]) if "train" in trial.place else None


def _pace(situation: Situation, trial: Trial) -> tuple[float, float] | None:
    """Seconds that no step takes, and seconds a unit of budget: of its own runs, else of runs like it."""
    if trial.recipe is None:
        return None
    unit = budget(trial.recipe)[0]
    paces = [
        (stage.pace, budget(other.recipe)[1] * other.rungs[key.rung], other.number == trial.number)
        for other in situation.trials
        if other.recipe is not None and (other.number == trial.number or _alike(other, trial, unit))
        for key, stage in other.stages.items()
        if key.kind in ("train", "probe") and stage.succeeded and stage.pace is not None
    ]
    paces = [one for one in paces if one[2]] or paces
    if paces:
        return (
            median(pace.startup for pace, _, _ in paces),
            median(pace.per_step * pace.total_steps / length for pace, length, _ in paces),
        )
    rates = list(_rates(situation, trial, unit, own=True)) or list(_rates(situation, trial, unit, own=False))
    return (0.0, median(rates)) if rates else None


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
