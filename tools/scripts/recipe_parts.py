"""Parts of a recipe that stand in several: adapters, and the way a wrong field is refused."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.data_sources import read_source
from mlintern.tools.scripts.hyperparameters import CONFIG_CLASSES, check_lora, unknown_recipe_field

Source = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


@contextlib.contextmanager
def validation_errors() -> Iterator[None]:
    """Lets pydantic gather a `BadInput` with everything else that is wrong, instead of ending at the first."""
    try:
        yield
    except BadInput as error:
        raise ValueError(str(error)) from None


def check_pattern(pattern: str, *, what: str) -> None:
    """Refuse what is no regular expression.

    Raises:
        BadInput: it does not compile.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        raise BadInput(f"{what} is no regular expression: {error}.", next_step="Mind the backslashes.") from None


class Strict(BaseModel):
    """Refuses unknown fields by name, with what was probably meant."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_fields_only(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for name in data:
                if name not in cls.model_fields:
                    raise ValueError(
                        unknown_recipe_field(str(name), cls.model_fields, class_name=cls._config_class(data))
                    )
        return data

    @classmethod
    def _config_class(cls, data: Mapping[str, Any]) -> str | None:
        """The TRL class whose fields someone may have put beside `hyperparameters` instead of into it."""
        return CONFIG_CLASSES.get(str(data.get("trainer")))


class Holdout(BaseModel):
    """Rows of the training data that are drawn once and never trained on."""

    model_config = ConfigDict(extra="forbid")

    rows: int = Field(ge=1, description="How many.")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        default=0, description="Of the draw. The same seed and data give the same rows everywhere."
    )


class Lora(BaseModel):
    """Fields of peft.LoraConfig. The usual ones are listed; every other one is taken too, and checked."""

    model_config = ConfigDict(extra="allow")

    r: int = Field(default=16, ge=1, description="Rank of the update.")
    lora_alpha: int = Field(default=32, ge=1, description="Scale; the update is multiplied by lora_alpha / r.")
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | list[str] = Field(default="all-linear", description="Modules that get an adapter.")

    @property
    def layers_given(self) -> bool:
        """Whether only some layers get an adapter."""
        return (self.model_extra or {}).get("layers_to_transform") is not None

    @model_validator(mode="after")
    def _fields_exist(self) -> Self:
        with validation_errors():
            check_lora(self.model_dump())
        return self


class DatasetFields(Protocol):
    dataset: str
    dataset_config: str | None
    dataset_revision: str | None
    split: str

    @property
    def model_fields_set(self) -> set[str]: ...


def read_dataset_fields(recipe: DatasetFields) -> None:
    """Take what an address of the dataset says apart into the fields of the recipe."""
    found = read_source(
        recipe.dataset, kind="dataset", revision=recipe.dataset_revision, config=recipe.dataset_config
    )
    recipe.dataset, recipe.dataset_revision, recipe.dataset_config = found.name, found.revision, found.config
    if found.split and "split" not in recipe.model_fields_set:
        recipe.split = found.split
