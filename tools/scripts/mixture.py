"""Several datasets in one training run: what a recipe says of each, and what holds between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.filter_snippets import FILTERS_HELP, read_filters
from mlintern.tools.scripts.recipe_parts import Holdout, Source, Strict, read_dataset_fields, validation_errors
from mlintern.tools.scripts.snippets import read_snippet

MOST_PARTS = 32
OF_A_PART = ("dataset", "dataset_config", "dataset_revision", "split", "columns", "prepare", "holdout")
"""Fields of a recipe with one dataset that belong to each of `datasets` where there are several."""


class DatasetPart(Strict):
    """One dataset of a mixture. Alone, ``{"dataset": "org/name", "weight": 0.1}`` is a replay set."""

    dataset: Source = Field(description="Hub id, or a local parquet, jsonl, csv or saved dataset.")
    dataset_config: str | None = Field(default=None, description="Configuration of a Hub dataset.")
    dataset_revision: str | None = None
    split: str = Field(default="train", min_length=1)
    columns: dict[str, str] = Field(default={}, description="Rename columns: expected name -> name in the dataset.")
    prepare: str | None = Field(default=None, description="Source of a function row -> row, or None to leave it out.")
    filter: str | list[str] | None = Field(
        default=None, description=f"Source of a function row -> bool, a name ({FILTERS_HELP}), or a list of these."
    )
    holdout: Holdout | None = Field(default=None, description="Rows of it that are never trained on.")
    weight: float | None = Field(
        default=None,
        gt=0,
        description="Its share of the mixture's rows, none taken twice. Where all have weights, only their ratio "
        "counts; beside sets without a weight, which are taken whole, 0.1 is a tenth of all rows.",
    )
    rows: int | None = Field(default=None, ge=1, description="That many of its rows, drawn with the seed.")

    @model_validator(mode="after")
    def _part_fits(self) -> Self:
        with validation_errors():
            read_dataset_fields(self)
            check_renames(self.columns)
            if self.weight is not None and self.rows is not None:
                raise BadInput(f"{self.dataset} has weight and rows.", next_step="Keep one of them.")
            if self.prepare is not None:
                read_snippet(self.prepare, what="prepare", parameters=1, prefer="prepare")
            check_row_numbers(self.filter, held_out=self.holdout is not None)
        return self


def check_row_numbers(given: str | list[str] | None, *, held_out: bool) -> None:
    """Refuse filters that are none, and row numbers where the rows have lost theirs.

    Raises:
        BadInput: a filter is none, or `drop_rows` stands beside a `holdout`, which draws rows by chance.
    """
    if read_filters(given).loaded and held_out:
        raise BadInput(
            "`drop_rows` counts rows as the data has them, and `holdout` draws them by chance.",
            next_step="Train on the copy without these rows: check_contamination writes it with write_filtered.",
        )


def check_renames(columns: dict[str, str]) -> None:
    """Refuse to give one column two names.

    Raises:
        BadInput: it is given two.
    """
    if len(set(columns.values())) < len(columns):
        raise BadInput(
            "`columns` gives one column of the dataset two names.", next_step="Use `prepare` to copy a column."
        )


def check_mixture(parts: Sequence[DatasetPart], *, given: set[str]) -> None:
    """Refuse a mixture whose parts do not go together.

    Args:
        given: the fields that the recipe itself gives.

    Raises:
        BadInput: a field of one dataset stands beside `datasets`, or the weights cannot hold.
    """
    beside = [name for name in OF_A_PART if name in given]
    if beside:
        raise BadInput(
            f"{', '.join(beside)} stands beside `datasets`.",
            next_step="Give it to each of `datasets` that it is meant for.",
        )
    weights = [part.weight for part in parts if part.weight is not None]
    if 0 < len(weights) < len(parts) and sum(weights) >= 1:
        raise BadInput(
            f"The weights come to {sum(weights):g}, and other sets have none and are taken whole.",
            next_step="A weight beside sets without one is a share of all rows: together they stay below 1.",
        )
