"""What a completion is rewarded for, as data."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlintern.tools.scripts.data_sources import normalise_source
from mlintern.tools.scripts.recipe_parts import check_pattern, validation_errors
from mlintern.tools.scripts.snippets import read_snippet


class _Reward(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    weight: float = Field(default=1.0, description="Factor in the sum of all rewards.")


class ExactMatchReward(_Reward):
    """1 where the completion, without surrounding space, is the text of a column; else 0."""

    kind: Literal["exact_match"]
    column: str = Field(default="answer", min_length=1, description="Column of the right answer.")


class PatternReward(_Reward):
    """1 where a regular expression is found in the completion; else 0."""

    kind: Literal["pattern"]
    pattern: str = Field(min_length=1, description=r"Such as '(?s)^<think>.*</think>' for a format.")

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        with validation_errors():
            check_pattern(self.pattern, what="pattern")
        return self


class PythonReward(_Reward):
    """A function of your own: ``def name(completions, **kwargs) -> list[float]``."""

    kind: Literal["python"]
    source: str = Field(
        description="Source of the function. TRL passes prompts, completions and every column by name, "
        "each a list; conversational completions are [{'role', 'content'}]. None for a completion means no reward."
    )

    @model_validator(mode="after")
    def _is_a_function(self) -> Self:
        with validation_errors():
            read_snippet(self.source, what="The reward", parameters=0)
        return self


class AccuracyReward(_Reward):
    """1 where the last number or \\boxed{} of the completion equals that of a column, read as mathematics; else 0."""

    kind: Literal["math_verify"]
    column: str = Field(default="solution", min_length=1, description="Column of the right answer.")


class FormatReward(_Reward):
    """1 where the completion is <think>...</think> and then an answer; else 0."""

    kind: Literal["format"]


class LengthReward(_Reward):
    """0 up to a length, then falling to -1 at the length limit (DAPO, arXiv:2503.14476, equation 13)."""

    kind: Literal["length"]
    free_characters: int = Field(default=2000, ge=1, description="Characters that cost nothing.")
    most_characters: int = Field(default=4000, ge=2, description="Characters from which the reward is -1.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.most_characters <= self.free_characters:
            raise ValueError("most_characters is not above free_characters")
        return self


class CodeReward(_Reward):
    """The share of a row's tests that pass after the completion's last Python block, run in a process of its own."""

    kind: Literal["code"]
    column: str = Field(default="tests", min_length=1, description="Column of a list of test statements.")
    seconds: int = Field(default=5, ge=1, le=600, description="Processor time of one completion.")


class ModelReward(_Reward):
    """The score of a reward model."""

    kind: Literal["reward_model"]
    model: str = Field(min_length=1, max_length=4096, description="Hub id or folder of a reward model.")

    @model_validator(mode="after")
    def _is_a_model(self) -> Self:
        with validation_errors():
            self.model = normalise_source(self.model, kind="model")
        return self


Reward = Annotated[
    ExactMatchReward
    | PatternReward
    | PythonReward
    | AccuracyReward
    | FormatReward
    | LengthReward
    | CodeReward
    | ModelReward,
    Field(discriminator="kind"),
]

NAMES = {"accuracy": "math_verify", "math": "math_verify"}
"""Other names of built-in rewards."""


def named_rewards(value: Any) -> Any:
    """``value`` with rewards that are given by name alone written out."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        return value
    found = [{"kind": item} if isinstance(item, str) else item for item in value]
    return [
        {**item, "kind": NAMES.get(str(item.get("kind")), item.get("kind"))} if isinstance(item, dict) else item
        for item in found
    ]
