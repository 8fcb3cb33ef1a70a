"""What a caller asks of an experiment: its goal and limits, the trials to run, the space to search."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mlintern.common.text import cut_line, did_you_mean
from mlintern.tools.errors import BadInput
from mlintern.tools.jobs.measured import PROBE_STEPS

UNPROBED_STEPS = 20 * PROBE_STEPS
"""A run of at most so many steps begins without a probe, which would be over 5 % of it; its time-out bounds it."""

MOST_TRIAL_SEEDS = 20
"""Training seeds of one trial, those included that are added when it has run."""

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(gt=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Limits(_Strict):
    """What an experiment may use. Its clock runs from the moment it is opened."""

    usd: float | None = Field(default=None, ge=0, description="US dollars for all its jobs. None: the workspace's.")
    hours: float = Field(gt=0, le=24 * 60, description="Hours from opening to the end of its last job.")
    parallel: int = Field(default=1, ge=1, le=64, description="Jobs of the experiment that run at the same time.")


class TrialRequest(_Strict):
    """One trial: a whole training recipe, the difference to another trial, or more seeds of one that is there."""

    name: str = Field(default="", max_length=80, description="Default: the change, as it stands in tables.")
    recipe: dict[str, Any] | None = Field(default=None, description="A training recipe as render_script takes it.")
    base: str | None = Field(default=None, description="Name of the trial that this one differs from.")
    change: dict[str, Any] = Field(
        default={},
        description='Fields that differ from base, nested by dots: {"hyperparameters.learning_rate": 2e-4}. null'
        " removes a field.",
    )
    data: dict[str, Any] | None = Field(
        default=None, description="A generate recipe that runs first; the trial trains on what it makes."
    )
    seeds: list[Seed] = Field(
        default=[0], min_length=1, max_length=MOST_TRIAL_SEEDS, description="Training seeds of the last rung."
    )

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        names_one = self.recipe is None and self.base is None and not self.change and self.data is None
        if not (names_one and self.name and "seeds" in self.model_fields_set) and (
            (self.recipe is None) == (self.base is None)
        ):
            raise ValueError(
                "a trial has either `recipe`, or `base` with `change`; or `name` and `seeds` alone, which adds seeds"
                " to a trial that is there"
            )
        if self.recipe is not None and self.change:
            raise ValueError("`change` goes with `base`; put the values into `recipe`")
        if self.base is not None and not self.change and self.data is None:
            raise ValueError(
                "`base` without `change` or `data` is the same trial again; give its `name` and `seeds` alone"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is given twice")
        return self


class SearchRequest(_Strict):
    """A space of changes to one trial."""

    kind: Literal["grid", "optuna", "tree"]
    base: str = Field(description="Name of the trial that all of them differ from; of a tree, its root.")
    space: dict[str, list[Any]] = Field(
        description="grid: every value to try, by field. optuna: [low, high] or [low, high, 'log'] of numbers, or a"
        " list of values. tree: values that a child may change, one at a time."
    )
    trials: int = Field(default=8, ge=1, le=200, description="The most that are tried.")
    width: int = Field(default=2, ge=1, le=10, description="tree: the best so many of a level get children.")
    seed: Seed = 0
    seeds: list[Seed] = Field(default=[0], min_length=1, max_length=20)


Request = TypeVar("Request", bound=_Strict)


def parse(kind: type[Request], data: Mapping[str, Any], *, what: str) -> Request:
    """``data`` (JSON values) as a request.

    Raises:
        BadInput: a field is unknown, missing or wrong; the message names every one, with what was meant.
    """
    for name in data:
        if name not in kind.model_fields:
            raise BadInput(f"{what} has no field {name!r}.", next_step=did_you_mean(str(name), kind.model_fields))
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        said = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or what}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors()
        )
        raise BadInput(f"{what} cannot be used: {said}.") from None


def change_name(change: Mapping[str, Any]) -> str:
    """The change as it stands in tables: ``learning_rate=0.0002, limit=500``."""
    parts = []
    for field, value in change.items():
        text = f"{value:g}" if isinstance(value, float) else str(value)
        parts.append(f"{field.rpartition('.')[2]}={cut_line(text, 40)}")
    return ", ".join(parts)


def request_name(request: TrialRequest) -> str:
    """What a trial is called in tables; empty where only its number names it."""
    return request.name or change_name(request.change) or str((request.recipe or {}).get("name") or "")


def changed(recipe: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """``recipe`` with ``change`` applied: dots descend, null removes, everything else is set.

    Raises:
        BadInput: the change descends into a value that is no object, or changes nothing.
    """
    result = copy.deepcopy(dict(recipe))
    for field, value in change.items():
        place: Any = result
        *path, last = field.split(".")
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise BadInput(
                    f"The change {field!r} descends into {part!r}, which is {place!r} in the base.",
                    next_step=f"Give {part!r} as a whole.",
                )
        if value is None:
            place.pop(last, None)
        else:
            place[last] = copy.deepcopy(value)
    if result == recipe:
        raise BadInput(
            f"The change {change_name(change)!r} leaves the base as it is.",
            next_step="Give values that the base does not have, or more seeds of the base itself.",
        )
    return result


def scaled(recipe: Mapping[str, Any], share: float) -> dict[str, Any]:
    """``recipe`` with ``share`` of its training budget, with its own schedule run to the end.

    A rung is a run of its own rather than the first part of a longer one: a learning rate that is stopped half way
    down its schedule says little about the model that the whole schedule gives.
    """
    result = copy.deepcopy(dict(recipe))
    if share == 1:
        return result
    if result.get("max_steps") is not None:
        result["max_steps"] = max(1, round(result["max_steps"] * share))
    elif result.get("max_minutes") is not None:
        result["max_minutes"] = result["max_minutes"] * share
    else:
        result["epochs"] = (result.get("epochs") or 1.0) * share
    return result


def is_probed(recipe: Mapping[str, Any]) -> bool:
    """Whether a recipe is so long, or of such unknown length, that it is probed before anything is known of it."""
    unit, amount = budget(recipe)
    return unit == "epochs" or (unit == "max_steps" and amount > UNPROBED_STEPS)


def budget(recipe: Mapping[str, Any]) -> tuple[str, float]:
    """What a recipe's length is given in, and how much of it."""
    for field in ("max_steps", "max_minutes"):
        if recipe.get(field) is not None:
            return field, float(recipe[field])
    return "epochs", float(recipe.get("epochs") or 1.0)
