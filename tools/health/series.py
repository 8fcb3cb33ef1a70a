"""The curves of a training run under one set of names, built row by row in bounded memory."""

from __future__ import annotations

import bisect
import math
import re
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

NAMES: Mapping[str, tuple[str, ...]] = {
    "loss": (
        *("loss", "training_loss", "train_loss", "lm_loss", "nll_loss"),
        *("train_loss_step", "loss_step", "train_loss_epoch", "loss_epoch", "policy/final_loss"),
    ),
    "reward": (
        *("reward", "reward/mean", "reward/all/mean", "rewards/mean", "objective/scores", "critic/score/mean"),
        *("critic/rewards/mean", "env/all/reward/total", "env/reward/total", "reward_mean", "rollout/reward", "rm"),
        *("reward/total", "rewards/total", "episode_reward", "avg_reward", "average_reward", "env/reward_mean"),
        *("rollout/raw_reward", "reward/avg_raw_reward", "objective/verifiable_reward"),
        *("ppo_actor/task_reward/avg", "grpo_actor/task_reward/avg"),
    ),
    "reward_std": ("reward_std", "reward/std", "rewards/std", "critic/score/std"),
    "entropy": (
        *("entropy", "policy/entropy", "objective/entropy", "policy/entropy_avg", "actor/entropy"),
        *("actor/entropy_loss", "entropy/all/mean", "entropy/mean", "optim/entropy", "policy/policy_entropy"),
    ),
    "kl": (
        "kl",
        "policy/kl",
        "actor/kl_loss",
        "critic/kl",
        "kl/mean",
        "kl_policy_base",
        "policy/policy_kl",
        "actor/reward_kl_penalty",
    ),
    "kl_of_sequence": ("objective/kl",),
    "length": (
        *("completions/mean_length", "completion_length", "completions/mean_completion_length"),
        *("response_length/mean", "response_length", "seq_len/mean", "seq_len/all/mean", "glen"),
        *(
            "mean_generation_length",
            "rollout/response_len/mean",
            "generate/avg_num_tokens",
            "mean_gen_tokens_per_sample",
        ),
    ),
    "clipped": ("completions/clipped_ratio", "response_length/clip_ratio", "truncated/mean", "is_truncated/mean"),
    "zero_std": ("frac_reward_zero_std",),
    "grad_norm": ("grad_norm", "actor/grad_norm", "optim/grad_norm", "policy/grad_norm", "gradient_norm", "gnorm"),
    "learning_rate": ("learning_rate", "lr", "actor/lr", "optim/lr", "actor_lr", "act_lr", "policy/lr"),
}
"""Our name of a curve, and what TRL (of today and before), verl, OpenRLHF, prime-rl and others call it."""

LARGEST = 1e100
"""A number beyond counts as infinite: no float32 gets there, and sums and squares of smaller ones stay finite."""
MOST_POINTS = 1_000
"""Points of a curve that are kept; with one more, neighbours are averaged: a look costs the same at any age."""
MOST_CURVES = 300
_LONGEST_NAME = 200

PREFERENCE = frozenset({"chosen", "rejected", "accuracies", "margins"})
_COMPONENT = re.compile(r"^rewards/(.+?)(?:/mean)?$|^reward/(.+)$")
_NO_COMPONENT = re.compile(r"(?:^|/)(?:mean|std|min|max|all|sum|total)(?:$|/)|_minus_")


@dataclass(frozen=True)
class Series:
    """One metric over the run, in order of steps: its finite values, and what is known of the others.

    ``highs`` holds the largest value in each point, which is the value itself until neighbours were averaged.
    ``bad`` counts values that were NaN or infinite, ``bad_at_end`` those after the last finite one.
    """

    name: str
    steps: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    highs: tuple[float, ...] = ()
    bad: int = 0
    bad_at_end: int = 0
    first_bad: float | None = None
    ends_in_nan: bool = False

    def __len__(self) -> int:
        return len(self.values)

    def first(self, rows: int) -> Series:
        """The earliest ``rows`` points."""
        return Series(self.name, self.steps[:rows], self.values[:rows], self.highs[:rows])

    def last(self, rows: int) -> Series:
        """The latest ``rows`` points."""
        return Series(self.name, self.steps[-rows:], self.values[-rows:], self.highs[-rows:])


@dataclass(frozen=True)
class Crash:
    """The error that ended the run, as far as its log tells."""

    cause: str
    line: str
    finished: bool = False
    """Whether the trainer had written its summary before: then the training itself is whole."""


@dataclass(frozen=True)
class Run:
    """All curves of a run. ``rows`` counts the logged rows."""

    rows: int
    curves: Mapping[str, Series] = field(default_factory=dict)
    epochs: Series = field(default_factory=lambda: Series("epoch"))
    total_steps: int | None = None
    last_step: float = 0.0
    hidden_nan: int = 0
    """Rows whose loss reads 0 because it was NaN: the gradient beside it is NaN."""
    crash: Crash | None = None

    def __getitem__(self, name: str) -> Series:
        """A curve by our name or the logged one; of several names the one with the most points. Empty if none."""
        found = [self.curves[logged] for logged in NAMES.get(name, (name,)) if logged in self.curves]
        return max(found, key=len, default=Series(name))

    @property
    def has_reward(self) -> bool:
        """Whether this is reinforcement learning on a reward: loss and entropy then mean something else."""
        return len(self["reward"]) > 0

    @property
    def has_policy_loss(self) -> bool:
        """Whether the loss is one of reinforcement learning, also where the reward has a name that is not known."""
        return self.has_reward or (bool(self.components()) and not self.has_preferences)

    @property
    def has_preferences(self) -> bool:
        return any(f"rewards/{name}" in self.curves for name in PREFERENCE)

    @property
    def over(self) -> bool:
        """Whether the run has done all steps that it set out to do; False where their number is unknown."""
        return self.total_steps is not None and self.last_step >= self.total_steps > 0

    def components(self) -> dict[str, Series]:
        """The single reward functions that the reward is made of."""
        found: dict[str, Series] = {}
        for name, series in self.curves.items():
            match = _COMPONENT.match(name)
            label = (match[1] or match[2]) if match else None
            if label and label not in PREFERENCE and not _NO_COMPONENT.search(label) and len(series):
                found.setdefault(label, series)
        return found

    def held_out(self, measure: str) -> dict[str, Series]:
        """Curves of ``measure`` on each evaluation set: ``eval_loss``, ``eval_german_loss``, ``eval_german/loss``."""
        pattern = re.compile(rf"^eval_(?:.+[_/])?(?:{measure})$")
        return {name: series for name, series in self.curves.items() if pattern.match(name) and len(series)}


class _Curve:
    """A curve as it grows. Above `MOST_POINTS` points every two become one, and so on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.steps = array("d")
        self.sums = array("d")
        self.highs = array("d")
        self.counts = array("q")
        self.stride = 1
        self.bad = self.bad_at_end = 0
        self.first_bad: float | None = None
        self.ends_in_nan = False

    def add(self, step: float, value: float, *, stated: bool) -> None:
        """``stated``: the log gives the step. Of a stated step that comes again, what is logged last counts."""
        if stated and self.steps and step <= self.steps[-1]:
            place = bisect.bisect_left(self.steps, step)
            if self.steps[place] == step or self.stride > 1:  # the run went back: to a checkpoint, or to its start
                del self.steps[place:], self.sums[place:], self.highs[place:], self.counts[place:]
            elif math.isfinite(value):
                self._insert(place, step, value)
                return
        if not math.isfinite(value):
            self.bad += 1
            self.bad_at_end += 1
            self.first_bad = step if self.first_bad is None else self.first_bad
            self.ends_in_nan = math.isnan(value)
            return
        self.bad_at_end, self.ends_in_nan = 0, False
        if self.counts and self.counts[-1] < self.stride:
            self.steps[-1] = step
            self.sums[-1] += value
            self.highs[-1] = max(self.highs[-1], value)
            self.counts[-1] += 1
        else:
            self._insert(len(self.steps), step, value)

    def _insert(self, place: int, step: float, value: float) -> None:
        self.steps.insert(place, step)
        self.sums.insert(place, value)
        self.highs.insert(place, value)
        self.counts.insert(place, 1)
        if len(self.steps) > MOST_POINTS:
            self._halve()

    def _halve(self) -> None:
        pairs = range(0, len(self.steps), 2)
        self.sums = array("d", [sum(self.sums[at : at + 2]) for at in pairs])
        self.highs = array("d", [max(self.highs[at : at + 2]) for at in pairs])
        self.counts = array("q", [sum(self.counts[at : at + 2]) for at in pairs])
        self.steps = array("d", [self.steps[min(at + 1, len(self.steps) - 1)] for at in pairs])
        self.stride *= 2

    def series(self) -> Series:
        return Series(
            name=self.name,
            steps=tuple(self.steps),
            values=tuple(total / count for total, count in zip(self.sums, self.counts, strict=True)),
            highs=tuple(self.highs),
            bad=self.bad,
            bad_at_end=self.bad_at_end,
            first_bad=self.first_bad,
            ends_in_nan=self.ends_in_nan,
        )


class CurveBuilder:
    """Takes telemetry rows in the order in which they were logged; memory and the cost of `run` are bounded.

    A row whose step is missing or no finite number stands at its place among the rows, or at the step before it
    where other rows do state theirs.
    """

    def __init__(self) -> None:
        self._curves: dict[str, _Curve] = {}
        self._epochs = _Curve("epoch")
        self._rows = self._hidden_nan = 0
        self._last_step = 0.0
        self._total: int | None = None
        self._stated = False
        self._crash: Crash | None = None

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one row; rows of other kinds than ``metrics`` and ``crash`` are passed by."""
        values = row.get("values")
        if row.get("kind") == "crash":
            finished = bool(row.get("finished"))
            self._crash = Crash(str(row.get("cause", "")), str(row.get("line", "")), finished)
        if row.get("kind") != "metrics" or not isinstance(values, Mapping):
            return
        self._rows += 1
        step, stated = self._step(row)
        numbers = {str(name): number for name, value in values.items() if (number := as_number(value)) is not None}
        for name, number in numbers.items():
            if name in self._curves or (len(self._curves) < MOST_CURVES and len(name) <= _LONGEST_NAME):
                self._curves.setdefault(name, _Curve(name)).add(step, number, stated=stated)
        if (epoch := as_number(row.get("epoch"))) is not None:
            self._epochs.add(step, epoch, stated=stated)
        if (total := as_number(row.get("total_steps"))) is not None and math.isfinite(total):
            self._total = int(total)
        self._hidden_nan += numbers.get("loss") == 0 and math.isnan(numbers.get("grad_norm", 0.0))

    def run(self) -> Run:
        return Run(
            rows=self._rows,
            curves={name: curve.series() for name, curve in self._curves.items()},
            epochs=self._epochs.series(),
            total_steps=self._total,
            last_step=self._last_step,
            hidden_nan=self._hidden_nan,
            crash=self._crash,
        )

    def _step(self, row: Mapping[str, Any]) -> tuple[float, bool]:
        logged = as_number(row.get("step"))
        if logged is not None and math.isfinite(logged):
            self._stated = True
            self._last_step = logged
            return logged, True
        if not self._stated:
            self._last_step = float(self._rows)
        return self._last_step, False


def build(rows: Iterable[Mapping[str, Any]]) -> Run:
    """The curves in telemetry rows, in the order of the rows. See `CurveBuilder`."""
    builder = CurveBuilder()
    for row in rows:
        builder.add(row)
    return builder.run()


def as_number(value: Any) -> float | None:
    """A number however it was written: 1.5, "1.5", "nan", "NaN", "-Infinity". None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    except OverflowError:  # an integer that no float can hold
        number = math.inf if value > 0 else -math.inf  # type: ignore[operator]
    return math.copysign(math.inf, number) if abs(number) > LARGEST else number
