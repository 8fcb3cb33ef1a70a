"""What a completion is rewarded for, as data."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

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


Reward = Annotated[ExactMatchReward | PatternReward | PythonReward, Field(discriminator="kind")]
