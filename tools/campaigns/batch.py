"""A batch of trials as one thing to agree to: what will run, where, and what it can cost at most."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlintern.common.text import did_you_mean
from mlintern.tools.campaigns import search
from mlintern.tools.campaigns.more_seeds import MoreSeeds
from mlintern.tools.campaigns.requests import SearchRequest, TrialRequest, changed, is_probed, request_name
from mlintern.tools.campaigns.state import Trial
from mlintern.tools.campaigns.store import Plan
from mlintern.tools.errors import BadInput

SHOTS = 4
"""Worked examples of the few-shot baseline."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Trials that one yes starts.

    Attributes:
        more: seeds that it adds to trials that are there.
        body: the request as it is kept.
        jobs: the most jobs that it can submit.
        usd_worst: what they cost if every one of them runs until its time-out and spends all it may at served models.
        served: the served models that cost money which the jobs ask, each with its cap.
        seconds_worst: run time of all of them together.
        note: what of it will go otherwise than one may expect.
    """

    experiment: str
    trials: tuple[Trial, ...]
    body: dict[str, Any]
    backend: str
    hardware: str
    jobs: int
    usd_worst: float
    seconds_worst: float
    more: tuple[MoreSeeds, ...] = ()
    note: str = ""
    served: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """32 hex of the SHA-256 of all that is agreed to, the price included."""
        said = [self.experiment, self.body, self.backend, self.hardware, self.usd_worst]
        return hashlib.sha256(json.dumps(said, sort_keys=True, allow_nan=False).encode()).hexdigest()[:32]


def expand(
    requests: Sequence[TrialRequest],
    *,
    plan: Plan,
    existing: Sequence[Trial],
    rungs: Sequence[float],
    place: Mapping[str, str],
    forbidden: Sequence[str] = (),
) -> list[Trial]:
    """The trials of a batch, with the honest baselines before them if the experiment has none yet.

    Args:
        rungs: shares of the budget, rising, the last one 1.
        forbidden: files that no trial may train on.

    Raises:
        BadInput: a base does not exist, a name is taken, a recipe cannot be rendered or trains on held-out items.
    """
    if not rungs or rungs[-1] != 1 or sorted(set(rungs)) != list(rungs) or rungs[0] <= 0:
        raise BadInput(f"rungs are {list(rungs)}.", next_step="Give rising shares that end in 1, such as [0.25, 1].")
    known = {trial.name: trial for trial in existing}
    number = max((trial.number for trial in existing), default=0)
    found: list[Trial] = []
    if not any(trial.baseline for trial in existing):
        own = int(plan.evaluation.get("fewshot") or 0)
        zero: dict[str, Any] = {"fewshot": 0} if own else {}
        shots: dict[str, Any] = {} if own else {"fewshot": SHOTS}
        for name, measure in (("baseline", zero), (f"baseline {own or SHOTS}-shot", shots)):
            number += 1
            found.append(
                Trial(number=number, name=name, state="waiting", recipe=None, measure=measure, place=dict(place))
            )
    for request in requests:
        number += 1
        trial = _trial(request, number, plan, known | {one.name: one for one in found}, rungs, place)
        if trial.name in known or trial.name in {one.name for one in found}:
            raise BadInput(f"There is a trial {trial.name!r} already.", next_step="Give `name`, another one.")
        _check_recipe(trial, forbidden)
        found.append(trial)
    return found


def _trial(
    request: TrialRequest,
    number: int,
    plan: Plan,
    known: Mapping[str, Trial],
    rungs: Sequence[float],
    place: Mapping[str, str],
) -> Trial:
    parent = None
    if request.base is not None:
        parent = known.get(request.base)
        if parent is None or parent.recipe is None:
            raise BadInput(
                f"There is no trial {request.base!r} to differ from.",
                next_step=did_you_mean(
                    request.base, [one.name for one in known.values() if one.recipe], what="trial"
                ),
            )
        recipe = changed(parent.recipe or {}, request.change) if request.change else dict(parent.recipe or {})
    else:
        recipe = {"model": plan.model, **(request.recipe or {})}
    recipe.pop("evaluation", None)  # the experiment measures, by one protocol
    name = request_name(request) or str(recipe.get("name") or f"trial {number}")
    return Trial(
        number=number,
        name=name,
        state="waiting",
        recipe=recipe,
        parent=parent.number if parent else None,
        change=dict(request.change),
        data=request.data,
        seeds=tuple(request.seeds),
        rungs=tuple(float(rung) for rung in rungs),
        place=dict(place),
    )


def _with_data(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """``recipe``, with a stand-in for the dataset that a data step will make."""
    return {**recipe} if recipe.get("datasets") else {"dataset": "made-by/data-step", **recipe}


def _parse(recipe: Mapping[str, Any]) -> None:
    """Refuse what is no recipe. Recipes' classes take long to build: not before the first batch comes."""
    from mlintern.tools.scripts.recipe import parse_recipe

    parse_recipe(recipe)


def _check_recipe(trial: Trial, forbidden: Sequence[str]) -> None:
    assert trial.recipe is not None
    if trial.recipe.get("trainer") in ("evaluation", "generate", "export"):
        raise BadInput(
            f"Trial {trial.name!r} trains nothing: its trainer is {trial.recipe['trainer']!r}.",
            next_step="A trial is a training recipe; the experiment measures by itself, and `data` generates.",
        )
    if trial.recipe.get("push_to_hub"):
        raise BadInput(
            f"Trial {trial.name!r} has push_to_hub: the jobs of an experiment are given no secrets, so that none of"
            " them may write to the Hub.",
            next_step="Leave push_to_hub out (with hub_private and push_every). The best model lies in"
            " experiments/NAME/best; publish_to_hub uploads it after confirm.",
        )
    try:
        _parse(_with_data(trial.recipe))
        if trial.data is not None:
            _parse(trial.data)
    except BadInput as error:
        raise BadInput(f"Trial {trial.name!r}: {error.message}", next_step=error.next_step) from error
    if trial.data is None and "dataset" not in trial.recipe and not trial.recipe.get("datasets"):
        raise BadInput(f"Trial {trial.name!r} has no dataset.", next_step="Give `dataset`, or a `data` step.")
    if trial.data is not None and trial.recipe.get("datasets"):
        raise BadInput(
            f"Trial {trial.name!r} has `datasets` and a `data` step, whose rows would replace them.",
            next_step="Generate the data in a job first, and name its job among `datasets`.",
        )
    named = json.dumps([trial.recipe, trial.data], default=str)
    for path in forbidden:
        if json.dumps(path)[1:-1] in named:
            raise BadInput(
                f"Trial {trial.name!r} names the held-out items of the experiment ({path}).",
                next_step="Train on other data.",
            )


@dataclass(frozen=True, kw_only=True)
class MostJobs:
    """The most jobs that a batch submits: those that make something, that measure it, and that measure a speed."""

    making: int
    measuring: int
    probing: int


def most_jobs(trials: Sequence[Trial], request: SearchRequest | None, *, rungs: Sequence[float]) -> MostJobs:
    """What `trials`, and a search that adds some, can come to."""
    kinds = [kind for trial in trials for kind in _jobs_of(trial)]
    measuring, probing = kinds.count("measure"), kinds.count("probe")
    more = request.trials * (len(rungs) - 1 + len(request.seeds)) if request is not None else 0
    probes = request.trials if request is not None and more else 0
    making = len(kinds) - measuring - probing
    return MostJobs(making=making + more, measuring=measuring + more, probing=probing + probes)


def _jobs_of(trial: Trial) -> list[str]:
    keys = {key for rung in range(len(trial.rungs)) for chain in trial.chains(rung) for key in chain}
    probes = ["probe"] if trial.recipe is not None and is_probed(trial.recipe) else []
    return probes + [key.kind for key in sorted(keys)]


def check_search(request: SearchRequest, trials: Sequence[Trial]) -> None:
    """Refuse a search whose base is no trial or whose space cannot be searched.

    Raises:
        BadInput, MissingDependency: see `search.check`.
    """
    base = next((trial for trial in trials if trial.name == request.base and trial.recipe is not None), None)
    if base is None:
        names = [trial.name for trial in trials if trial.recipe is not None]
        raise BadInput(
            f"The search starts from {request.base!r}, which is no trial.",
            next_step=did_you_mean(request.base, names, what="trial"),
        )
    if "push_to_hub" in request.space:
        raise BadInput(
            "The search would set push_to_hub: the jobs of an experiment are given no secrets.",
            next_step="Leave it out of the space; publish_to_hub uploads the best model after confirm.",
        )
    search.check(request)
    for change in search.next_changes(request, [], count=1):
        recipe = changed(base.recipe or {}, change)
        _parse(_with_data(recipe))
