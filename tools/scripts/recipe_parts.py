"""Parts of a recipe that stand in several: adapters, evaluation plans, and the way a wrong field is refused."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.data_sources import read_source
from mlintern.tools.scripts.hyperparameters import CONFIG_CLASSES, check_lora, unknown_recipe_field
from mlintern.tools.scripts.snippets import read_snippet

SET_BY_EVALUATION = frozenset({"conversation", "tokenize", "add_generation_prompt", "return_dict", "return_tensors"})
"""Arguments of `apply_chat_template` that the script gives or relies on."""

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
                    raise ValueError(unknown_recipe_field(str(name), cls.model_fields, cls._config_class(data)))
        return data

    @classmethod
    def _config_class(cls, data: Mapping[str, Any]) -> str | None:
        """The TRL class whose fields someone may have put beside `hyperparameters` instead of into it."""
        return CONFIG_CLASSES.get(str(data.get("trainer")))


class Lora(BaseModel):
    """Fields of peft.LoraConfig. The usual ones are listed; every other one is taken too, and checked."""

    model_config = ConfigDict(extra="allow")

    r: int = Field(default=16, ge=1, description="Rank of the update.")
    lora_alpha: int = Field(default=32, ge=1, description="Scale; the update is multiplied by lora_alpha / r.")
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | list[str] = Field(default="all-linear", description="Modules that get an adapter.")

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


class EvaluationPlan(Strict):
    """Measure a model on held-out items: multiple choice by the likelihood of the options, or exact match."""

    dataset: Source = Field(
        description="Hub id, or a local parquet, jsonl, csv or saved dataset; held out from training."
    )
    dataset_config: str | None = Field(default=None, description="Configuration of a Hub dataset.")
    dataset_revision: str | None = None
    split: str = Field(default="train", min_length=1, description="Split; a local file has the single split `train`.")
    task: str | None = Field(
        default=None, description="Name in results; default: the last part of the dataset's name."
    )
    kind: Literal["multiple_choice", "exact_match"] = "multiple_choice"
    question_column: str = Field(
        default="question", description="Column of the question: text, or a list of chat messages."
    )
    choices_column: str = Field(
        default="choices", description="Column of the options: a list of texts (multiple choice)."
    )
    answer_column: str = Field(
        default="answer",
        description="Column of the right answer. Multiple choice: its index from 0, its letter, or its text.",
    )
    id_column: str = Field(
        default="id", description="Column of a stable id; where absent, a hash of the item is the id."
    )
    prepare: str | None = Field(default=None, description="Source of a function row -> row that is applied first.")
    prompt: str | None = Field(
        default=None,
        description="What is asked. {question} and {choices} are replaced; with {choices} the options are shown as "
        "'A. ...' lines and the letters are scored, without it the options' own texts are scored. Default: "
        "'{question}\\n{choices}\\nAnswer:' for multiple choice, '{question}' for exact match.",
    )
    system: str | None = Field(default=None, description="System message, for chat models.")
    fewshot: int = Field(default=0, ge=0, le=64, description="Worked examples; taken from the data and not scored.")
    limit: int | None = Field(
        default=None, ge=1, description="Score that many items, drawn with the seed. None: all."
    )
    batch_size: int = Field(default=32, ge=1)
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="Default: 16 for multiple choice, 256 for exact match."
    )
    extract: str | None = Field(
        default=None,
        description="Exact match: regular expression whose last match (group 1 if there is one) is the answer.",
    )
    ignore_case: bool = Field(default=False, description="Exact match: take upper and lower case as the same.")
    chat_template: bool | None = Field(
        default=None, description="Ask in chat format. None: if the tokenizer has a template."
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default={}, description='Such as {"enable_thinking": false} for Qwen3.'
    )

    @model_validator(mode="after")
    def _plan_fits(self) -> Self:
        with validation_errors():
            read_dataset_fields(self)
            if self.prepare is not None:
                read_snippet(self.prepare, what="prepare of the evaluation", parameters=1, prefer="prepare")
            if self.prompt is not None and "{question}" not in self.prompt:
                raise BadInput(
                    "`prompt` does not hold {question}.", next_step="Put {question} where the question goes."
                )
            if self.kind == "exact_match" and self.prompt is not None and "{choices}" in self.prompt:
                raise BadInput(
                    "{choices} in `prompt` is for multiple choice.", next_step='Use kind="multiple_choice".'
                )
            if self.extract is not None:
                check_pattern(self.extract, what="extract")
            if taken := sorted(SET_BY_EVALUATION & set(self.chat_template_kwargs)):
                raise BadInput(
                    f"chat_template_kwargs names {', '.join(taken)}, which the script sets by itself.",
                    next_step="Leave it out; give only what the template of the model knows.",
                )
        return self
