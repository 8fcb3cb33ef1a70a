"""Searches over changes to one trial: a grid, ask and tell with Optuna, or a tree of children of the best.

A search is a function of what was tried and scored so far. It keeps no state of its own, so it goes on where it was
after any restart.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlintern.tools.campaigns.requests import SearchRequest
from mlintern.tools.errors import BadInput, MissingDependency


@dataclass(frozen=True)
class Tried:
    """A trial of the search: its change to the base, its score (larger is better), None while it is not known."""

    change: Mapping[str, Any]
    score: float | None
    over: bool


def check(request: SearchRequest) -> None:
    """Refuse a space that cannot be searched.

    Raises:
        BadInput: it is empty, a field has no values, or a range is none.
        MissingDependency: Optuna is not installed.
    """
    if not request.space:
        raise BadInput(
            "The space of the search is empty.", next_step='Give {"hyperparameters.learning_rate": [...]}.'
        )
    for field, values in request.space.items():
        if not values:
            raise BadInput(f"The space gives {field!r} no values.", next_step="Give at least one.")
        if request.kind == "optuna" and _is_range(values) and not values[0] < values[1]:
            raise BadInput(
                f"The range of {field!r} is empty: {values}.", next_step="Give [low, high] with low < high."
            )
    if request.kind == "optuna":
        _optuna()


def next_changes(request: SearchRequest, tried: Sequence[Tried], *, count: int) -> list[dict[str, Any]]:
    """At most ``count`` further changes to try now, given everything tried so far; none when the search is over."""
    left = min(count, request.trials - len(tried))
    if left <= 0:
        return []
    if request.kind == "grid":
        return _grid(request)[len(tried) : len(tried) + left]
    if request.kind == "optuna":
        return _ask(request, tried, left)
    return _children(request, tried)[:left]


def _grid(request: SearchRequest) -> list[dict[str, Any]]:
    fields = list(request.space)
    cells = itertools.product(*(request.space[field] for field in fields))
    return [dict(zip(fields, cell, strict=True)) for cell in cells][: request.trials]


def _is_range(values: Sequence[Any]) -> bool:
    numbers = [value for value in values[:2] if isinstance(value, int | float) and not isinstance(value, bool)]
    return len(numbers) == 2 and (len(values) == 2 or (len(values) == 3 and values[2] == "log"))


def _ask(request: SearchRequest, tried: Sequence[Tried], count: int) -> list[dict[str, Any]]:
    """Optuna's tree-structured Parzen estimator, told everything that is known so far."""
    optuna = _optuna()
    space = {field: _distribution(optuna, values) for field, values in request.space.items()}
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=request.seed + len(tried), constant_liar=True, n_startup_trials=4),
    )
    for one in tried:
        fields = {"params": dict(one.change), "distributions": space}
        if one.score is not None:
            study.add_trial(optuna.trial.create_trial(value=one.score, **fields))
        elif not one.over:
            study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING, **fields))
    known = {repr(sorted(one.change.items())) for one in tried}
    asked: list[dict[str, Any]] = []
    for _ in range(20 * count):
        change = dict(study.ask(space).params)
        if (name := repr(sorted(change.items()))) not in known:
            known.add(name)
            asked.append(change)
        if len(asked) == count:
            break
    return asked


def _distribution(optuna: Any, values: Sequence[Any]) -> Any:
    if not _is_range(values):
        return optuna.distributions.CategoricalDistribution(list(values))
    low, high, log = values[0], values[1], len(values) == 3
    if isinstance(low, int) and isinstance(high, int):
        return optuna.distributions.IntDistribution(low, high, log=log)
    return optuna.distributions.FloatDistribution(float(low), float(high), log=log)


def _children(request: SearchRequest, tried: Sequence[Tried]) -> list[dict[str, Any]]:
    """Children of the root, then of the best few of what was measured: each changes one further field."""
    known = {repr(sorted(one.change.items())) for one in tried}
    measured = sorted((one for one in tried if one.score is not None), key=lambda one: -(one.score or 0.0))
    parents: list[Mapping[str, Any]] = [{}]
    if tried and not any(not one.over for one in tried):
        parents += [one.change for one in measured[: request.width]]
    found: list[dict[str, Any]] = []
    for parent in parents:
        for field, values in request.space.items():
            for value in values:
                child = {**parent, field: value}
                name = repr(sorted(child.items()))
                if child != dict(parent) and name not in known:
                    known.add(name)
                    found.append(child)
    return found


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "A search of kind optuna needs the package optuna, which is not installed.",
            next_step="pip install 'optuna>=4', or use kind grid or tree.",
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
