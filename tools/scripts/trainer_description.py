"""What `describe_trainer` answers, apart from the recipes that it is read from."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class FieldDescription(BaseModel):
    """One field of a configuration class, or of the evaluation recipe."""

    name: str
    type: str
    default: Any = None
    advice: str = Field(default="", description="How we would set it.")
    help: str = Field(default="", description="The library's own text; given for a search or for named fields.")
    choices: list[Any] = []


class RemovedField(BaseModel):
    """A field that older versions had."""

    name: str
    removed_in: str
    use: str


class SuiteDescription(BaseModel):
    """A benchmark, with the settings that published numbers have."""

    suite: str
    about: str = Field(description="Harness, tasks, items, metric, settings, conditions, where numbers are.")


class TrainerDescription(BaseModel):
    """What a trainer takes."""

    trainer: str
    summary: str
    library: str = Field(description="Distribution and version that the fields were read from.")
    config_class: str | None = Field(default=None, description="Its fields go into `hyperparameters` of a recipe.")
    rendered: bool = Field(description="Whether render_script writes its script.")
    data: list[str] = Field(description="Shapes of datasets that it takes.")
    fields: list[FieldDescription]
    recipe_fields: list[str] = Field(default=[], description="Fields of the recipe beside `hyperparameters`.")
    other_fields: list[str] = Field(default=[], description="More fields of its own; ask with `fields` or `search`.")
    removed_fields: list[RemovedField] = []
    suites: list[SuiteDescription] = Field(
        default=[],
        description="evaluation, with search: benchmarks for the field `suite` that match; `suite` finds all.",
    )
    notes: list[str] = []
