"""More training seeds of a trial that is there: which requests ask for them, and what they add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlintern.common.text import did_you_mean
from mlintern.tools.campaigns.requests import MOST_TRIAL_SEEDS, TrialRequest, changed, request_name
from mlintern.tools.campaigns.state import Trial
from mlintern.tools.errors import BadInput, Conflict

SAME_PLACE = {"backend": "backend", "hardware": "hardware", "train": "timeout", "measure": "measure_timeout"}
"""What `Trial.place` calls an argument of run_trials."""


@dataclass(frozen=True, kw_only=True)
class MoreSeeds:
    """Seeds that a trial is to be trained with besides those that it has."""

    trial: Trial
    seeds: tuple[int, ...]

    @property
    def jobs(self) -> int:
        """Of each kind: a training and a measurement for each seed."""
        return len(self.seeds)


def more_seeds(
    requests: Sequence[TrialRequest],
    *,
    model: str,
    existing: Sequence[Trial],
    place: Mapping[str, str],
    added: Mapping[str, Sequence[int]],
) -> tuple[list[MoreSeeds], list[TrialRequest]]:
    """The seeds that requests with the name of an existing trial add to it, and the other requests.

    Args:
        model: base model of the experiment.
        place: where the batch runs, as `Trial.place`.
        added: what this very batch added when it was started, by trial; empty if it was not.

    Raises:
        BadInput: the recipe or place is another one, or no seed is new. Conflict: the trial did not end well.
    """
    known = {trial.name: trial for trial in existing}
    found: dict[str, MoreSeeds] = {}
    others = []
    for request in requests:
        trial = known.get(request_name(request))
        if trial is None:
            _needs_recipe(request, known)
            others.append(request)
            continue
        if trial.name in found:
            raise BadInput(f"Trial {trial.name!r} is named twice.", next_step="Give all its seeds at once.")
        _check_same(request, trial, known, model)
        if trial.name in added:
            found[trial.name] = MoreSeeds(trial=trial, seeds=tuple(added[trial.name]))
            continue
        found[trial.name] = MoreSeeds(trial=trial, seeds=_new_seeds(request, trial))
        _check_state(trial)
        _check_place(trial, place)
    return list(found.values()), others


def _needs_recipe(request: TrialRequest, known: Mapping[str, Trial]) -> None:
    if request.recipe is None and request.base is None:
        raise BadInput(
            f"There is no trial {request.name!r} to add seeds to.",
            next_step=did_you_mean(
                request.name, [name for name, trial in known.items() if trial.recipe], what="trial"
            ),
        )


def _check_same(request: TrialRequest, trial: Trial, known: Mapping[str, Trial], model: str) -> None:
    if trial.recipe is None:
        raise BadInput(
            f"There is a trial {trial.name!r} already, a baseline: it is measured and not trained.",
            next_step="Give `name`, another one.",
        )
    if request.recipe is None and request.base is None:
        return
    asked = _recipe(request, known, model)
    differing = sorted(
        name for name in {*asked, *trial.recipe} - {"name"} if asked.get(name) != trial.recipe.get(name)
    )
    if request.data != trial.data:
        differing.append("data")
    if differing:
        raise BadInput(
            f"There is a trial {trial.name!r} already, with another {', '.join(differing)}.",
            next_step="Give `name`, another one. To add seeds to that trial give {name, seeds} alone.",
        )


def _recipe(request: TrialRequest, known: Mapping[str, Trial], model: str) -> dict[str, Any]:
    """The recipe that is asked for, as `batch.expand` would make it of a trial."""
    if request.recipe is not None:
        asked = {"model": model, **request.recipe}
    else:
        base = known.get(request.base or "")
        if base is None or base.recipe is None:
            raise BadInput(
                f"There is no trial {request.base!r} to differ from.",
                next_step="To add seeds to a trial give {name, seeds} alone.",
            )
        asked = changed(base.recipe, request.change) if request.change else dict(base.recipe)
    asked.pop("evaluation", None)
    return asked


def _new_seeds(request: TrialRequest, trial: Trial) -> tuple[int, ...]:
    new = tuple(seed for seed in request.seeds if seed not in trial.seeds)
    if not new:
        raise BadInput(
            f"There is a trial {trial.name!r} already, with the seeds {', '.join(map(str, trial.seeds))}.",
            next_step="Give seeds that it does not have, or another `name`.",
        )
    if len(trial.seeds) + len(new) > MOST_TRIAL_SEEDS:
        raise BadInput(
            f"Trial {trial.name!r} has {len(trial.seeds)} seeds; {len(new)} more would be over {MOST_TRIAL_SEEDS}.",
            next_step="Add fewer.",
        )
    return new


def _check_state(trial: Trial) -> None:
    if trial.over and trial.state != "done":
        raise Conflict(
            f"Trial {trial.name!r} is over: {trial.state}. {trial.reason}".rstrip(),
            next_step="Seeds are added to trials that wait, run or are done; give the recipe under another `name`.",
        )


def _check_place(trial: Trial, place: Mapping[str, str]) -> None:
    """Seeds of one recipe are compared with each other: they run where, and as long as, the first ones could."""
    wrong = [name for name in SAME_PLACE if trial.place.get(name) != place.get(name)]
    if wrong:
        own = ", ".join(f"{SAME_PLACE[name]} {trial.place.get(name)!r}" for name in wrong)
        raise BadInput(
            f"Trial {trial.name!r} was begun with {own}, and its further seeds run likewise.",
            next_step="Give the same arguments.",
        )
