"""Rewards of a recipe as functions of a script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlintern.tools.scripts.literals import LINE
from mlintern.tools.scripts.rewards import (
    AccuracyReward,
    CodeReward,
    ExactMatchReward,
    LengthReward,
    ModelReward,
    PatternReward,
    Reward,
)
from mlintern.tools.scripts.snippets import Snippet, read_snippet


@dataclass(frozen=True)
class BuiltIn:
    """A reward that a template writes; ``constant`` is the name of the constant that it reads."""

    kind: str
    function: str
    constant: str


@dataclass(frozen=True)
class RewardFunctions:
    """The rewards of a recipe: ``argument`` is the list of their names as the trainer's call shows it."""

    argument: str
    built_in: tuple[BuiltIn, ...]
    snippets: tuple[Snippet, ...]
    constants: dict[str, Any]
    packages: frozenset[str] = frozenset()


def reward_functions(rewards: Sequence[Reward]) -> RewardFunctions:
    """The functions of ``rewards``, in their order."""
    names: list[str] = []
    built_in: list[BuiltIn] = []
    snippets: list[Snippet] = []
    constants: dict[str, Any] = {}
    packages: set[str] = set()
    for index, reward in enumerate(rewards):
        if reward.kind == "python":
            snippets.append(read_snippet(reward.source, what=f"rewards.{index}", parameters=0))
            names.append(snippets[-1].function)
            continue
        number = sum(other.kind == reward.kind for other in rewards[: index + 1])
        stem = {"math_verify": "accuracy", "format": "well_formed", "length": "short_enough"}.get(
            reward.kind, reward.kind
        ) + (f"_{number}" if number > 1 else "")
        constant = f"{stem}_column" if hasattr(reward, "column") else stem
        match reward:
            case ExactMatchReward() | AccuracyReward() | CodeReward():
                value: Any = reward.column
            case PatternReward():
                value = reward.pattern
            case LengthReward():
                value = [reward.free_characters, reward.most_characters]
            case ModelReward():
                value = reward.model
            case _:
                value = None
        if reward.kind == "math_verify":
            packages.add("math-verify")
        if reward.kind == "code":
            constants["CODE_SECONDS"] = reward.seconds
        built_in.append(BuiltIn(reward.kind, stem, constant.upper()))
        constants[constant.upper()] = value
        names.append(constant.upper() if reward.kind == "reward_model" else stem)
    found = tuple(built_in)
    return RewardFunctions(_argument(names), found, tuple(snippets), constants, frozenset(packages))


def _argument(names: list[str]) -> str:
    line = f"[{', '.join(names)}]"
    if len(f"        reward_funcs={line},") <= LINE:
        return line
    return "\n".join(["[", *(f"            {name}," for name in names), "        ]"])
