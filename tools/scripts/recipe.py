"""A training or evaluation run as data: what to render a script from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from mlintern.tools.errors import BadInput
from mlintern.tools.evals.suites import Harness, find_suite
from mlintern.tools.scripts.data_sources import normalise_source, splits_overlap
from mlintern.tools.scripts.evaluation_plan import Endpoint, Engine, EvaluationPlan, check_engine
from mlintern.tools.scripts.filter_snippets import FILTERS_HELP, read_filters
from mlintern.tools.scripts.generate_recipe import GenerateRecipe
from mlintern.tools.scripts.hyperparameters import (
    CONFIG_CLASSES,
    check_hyperparameters,
    hoist_recipe_fields,
)
from mlintern.tools.scripts.recipe_parts import Lora, Source, read_dataset_fields, validation_errors
from mlintern.tools.scripts.rewards import Reward
from mlintern.tools.scripts.run_recipe import Dtype, RunRecipe
from mlintern.tools.scripts.snippets import read_snippet
from mlintern.tools.scripts.trainers.removed import TRAINERS
from mlintern.tools.scripts.trainers.schema import did_you_mean

HUB_REPOSITORY = r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$"


class _Training(RunRecipe):
    """What every trainer shares."""

    dataset: Source = Field(description="Hub id, or a local parquet, jsonl, csv or saved dataset.")
    dataset_config: str | None = Field(default=None, description="Configuration of a Hub dataset.")
    dataset_revision: str | None = None
    split: str = Field(default="train", min_length=1, description="Split; a local file has the single split `train`.")
    columns: dict[str, str] = Field(
        default={}, description="Rename columns: name that the trainer expects -> name in the dataset."
    )
    prepare: str | None = Field(
        default=None,
        description="Source of a function row -> row, applied after `columns`; what it returns is the new row,"
        " and None leaves the row out.",
    )
    filter: str | list[str] | None = Field(
        default=None,
        description="Rows to keep: the source of a function row -> bool, which sees the row before `prepare`, or"
        f" the name of a filter of prepared rows ({FILTERS_HELP}), or a list of these. What is left out is counted.",
    )
    limit: int | None = Field(
        default=None, ge=1, description="Train on that many rows, drawn with the seed. None: all."
    )
    validation_rows: int = Field(default=0, ge=0, description="Rows held out of the training data, to log eval_loss.")
    hyperparameters: dict[str, Any] = Field(
        default={}, description="Fields of TRL's configuration class; describe_trainer."
    )
    epochs: float | None = Field(
        default=None, gt=0, description="Passes over the data; 1 if max_steps is not given either."
    )
    max_steps: int | None = Field(default=None, ge=1)
    lora: Lora | None = Field(
        default=None, description="Train an adapter, merged into the saved model. {} for defaults."
    )
    dtype: Dtype | None = Field(default=None, description="Of the weights. Default: float32; bfloat16 with LoRA.")
    save_steps: float = Field(
        default=0.25, ge=0, description="Checkpoint every so many steps; below 1 a share; 0 for none."
    )
    save_total_limit: int = Field(default=2, ge=1, description="Checkpoints that are kept.")
    resume: bool = Field(
        default=True, description="Go on from the last checkpoint in the output folder, if there is one."
    )
    resume_from_checkpoint: str | None = Field(
        default=None, description="Folder of a checkpoint of another job to start from."
    )
    evaluation: EvaluationPlan | None = Field(
        default=None, description="Measure the model on held-out items at the end."
    )
    push_to_hub: str | None = Field(
        default=None, pattern=HUB_REPOSITORY, description="Repository for the model. Off: None."
    )
    hub_private: bool = Field(default=True, description="Whether a repository made by push_to_hub is private.")

    config_class: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _hoist(cls, data: Any) -> Any:
        with validation_errors():
            return hoist_recipe_fields(data) if isinstance(data, Mapping) else data

    @model_validator(mode="after")
    def _training_fits(self) -> Self:
        with validation_errors():
            read_dataset_fields(self)
            if self.epochs is not None and self.max_steps is not None:
                raise BadInput("Both epochs and max_steps are given.", next_step="Keep one; max_steps would win.")
            if len(set(self.columns.values())) < len(self.columns):
                raise BadInput(
                    "`columns` gives one column of the dataset two names.",
                    next_step="Use `prepare` to copy a column.",
                )
            if self.resume_from_checkpoint is not None:
                self.resume_from_checkpoint = normalise_source(self.resume_from_checkpoint, kind="model")
            if self.prepare is not None:
                read_snippet(self.prepare, what="prepare", parameters=1, prefer="prepare")
            read_filters(self.filter)
            if self.save_steps > 1 and self.save_steps != int(self.save_steps):
                raise BadInput(
                    f"save_steps {self.save_steps} is no whole number.", next_step="Use one, or a share below 1."
                )
            if self.weights_dtype == "float16" and self.lora is None:
                raise BadInput(
                    "float16 weights cannot be trained: their gradients overflow.",
                    next_step='Use dtype "float32" with hyperparameters {"fp16": true, "bf16": false}, or LoRA.',
                )
            if self.evaluation is not None and self._trains_on(self.evaluation):
                raise BadInput(
                    f"The evaluation reads the training data ({self.dataset}, split {self.evaluation.split or '?'}).",
                    next_step="Evaluate on rows that are not trained on: another file or split.",
                )
            check_hyperparameters(
                self.config_class, self.hyperparameters, validation=self.validation_rows > 0, seed=self.seed
            )
        return self

    def _trains_on(self, plan: EvaluationPlan) -> bool:
        same = (self.dataset, self.dataset_config) == (plan.dataset, plan.dataset_config)
        return same and (not plan.split or splits_overlap(self.split, plan.split))

    @property
    def weights_dtype(self) -> str:
        return self.dtype or ("float32" if self.lora is None else "bfloat16")


class SftRecipe(_Training):
    """Supervised fine-tuning on `text`, on `messages`, or on `prompt` and `completion`."""

    trainer: Literal["sft"]
    config_class: ClassVar[str] = "SFTConfig"


class DpoRecipe(_Training):
    """Direct preference optimisation on `prompt`, `chosen` and `rejected`."""

    trainer: Literal["dpo"]
    config_class: ClassVar[str] = "DPOConfig"


class GrpoRecipe(_Training):
    """Group-relative policy optimisation on `prompt`, with rewards that may read the other columns."""

    trainer: Literal["grpo"]
    rewards: list[Reward] = Field(min_length=1, max_length=16, description="What a completion is rewarded for.")
    config_class: ClassVar[str] = "GRPOConfig"

    @model_validator(mode="after")
    def _weights_are_given_once(self) -> Self:
        with validation_errors():
            if "reward_weights" in self.hyperparameters:
                raise BadInput(
                    "reward_weights stands in hyperparameters.", next_step="Give each of `rewards` its own `weight`."
                )
        return self


NO_HARNESS_SETTING = ("scorer", "prompt", "extract", "prepare", "kind", "split", "judge", "json_schema", "task")


class EvaluationRecipe(EvaluationPlan, RunRecipe):
    """Measure a model; the same plan can stand in a training recipe's `evaluation`."""

    trainer: Literal["evaluation"]
    dtype: Dtype | None = Field(
        default=None,
        description="Of the weights. Default: float32 on a CPU, bfloat16 on a GPU. auto: as they were saved.",
    )
    engine: Engine = Field(
        default="auto",
        description="What writes: transformers, vllm (needs a GPU; many times faster where much is written), or "
        "endpoint (a served model). auto: transformers, or the endpoint that is given.",
    )
    endpoint: Endpoint | None = Field(
        default=None, description="The served model to ask in place of loading one; `model` is its name there."
    )

    dataset: Source = Field(
        default="", description="Your own task: Hub id, or a local parquet, jsonl, csv or saved dataset."
    )
    suite: str | None = Field(
        default=None,
        description="In place of `dataset`: a benchmark by name, such as gsm8k, gpqa-diamond, ifeval, with the "
        'settings of published numbers; describe_trainer("evaluation", search="suite") lists them.',
    )
    harness: Harness | None = Field(
        default=None, description="In place of `dataset`: a harness that runs `tasks` of its own."
    )
    tasks: list[str] = Field(default=[], max_length=100, description="Tasks as the harness calls them.")
    task_path: str | None = Field(
        default=None, description="lm_eval: folder with task files of your own. Inspect: put file.py into `tasks`."
    )
    harness_arguments: dict[str, Any] = Field(
        default={}, description="Further arguments: flags of lm_eval or lighteval, keywords of inspect_ai.eval."
    )

    @property
    def by_harness(self) -> bool:
        """Whether a harness measures, rather than our own script."""
        return self.suite is not None or self.harness is not None

    def _check_what(self) -> None:
        """One of dataset, suite and harness says what is measured."""
        given = [name for name in ("dataset", "suite", "harness") if getattr(self, name)]
        if not given or given not in (["dataset"], ["suite"], ["harness"]):
            said = f"{' and '.join(given)} are given" if given else "Nothing says what is measured"
            raise BadInput(f"{said}.", next_step="Give one of `dataset`, `suite` and `harness` (with `tasks`).")
        if not self.by_harness:
            if self.tasks or self.task_path or self.harness_arguments:
                raise BadInput("`tasks` are for a harness.", next_step='Give "harness", such as "lm_eval".')
            return
        if self.suite is not None:
            find_suite(self.suite)
        if taken := [name for name in NO_HARNESS_SETTING if name in self.model_fields_set]:
            raise BadInput(
                f"A harness decides {', '.join(taken)} by its task.",
                next_step="Leave it out, or measure a `dataset`.",
            )

    @model_validator(mode="after")
    def _engine_fits(self) -> Self:
        with validation_errors():
            self._check_what()
            check_engine(self.engine, self.endpoint, dtype=self.dtype)
            if self.endpoint is not None and self.kind != "exact_match" and not self.by_harness:
                raise BadInput(
                    "An endpoint gives no likelihoods of options.",
                    next_step='Use kind "exact_match": show the options in the question and let it write the letter.',
                )
        return self


TrainingRecipe = SftRecipe | DpoRecipe | GrpoRecipe
AnyRecipe = TrainingRecipe | EvaluationRecipe | GenerateRecipe
"""Every kind of recipe. A new one: its class here or in a module beside, its program in `render.program_of`."""

Recipe = Annotated[AnyRecipe, Field(discriminator="trainer")]
"""What `render_script` takes."""

_ADAPTER: TypeAdapter[AnyRecipe] = TypeAdapter(Recipe)
RENDERED = tuple(get_args(kind.model_fields["trainer"].annotation)[0] for kind in get_args(AnyRecipe))
"""What `trainer` may be."""


def parse_recipe(data: Mapping[str, Any]) -> AnyRecipe:
    """The recipe that ``data`` (parsed JSON) describes.

    Raises:
        BadInput: a field is unknown, missing or wrong; the message names every one, with what to write instead.
    """
    trainer = str(data.get("trainer", "")).lower()
    if trainer not in RENDERED:
        raise BadInput(
            f"No script can be rendered for trainer {trainer!r}." if trainer else "The recipe has no `trainer`.",
            next_step=_other_trainer(trainer),
        )
    try:
        return _ADAPTER.validate_python({**data, "trainer": trainer})
    except ValidationError as error:
        raise BadInput("The recipe cannot be used: " + "; ".join(map(_sentence, error.errors()))) from None


def _other_trainer(trainer: str) -> str:
    if trainer in TRAINERS:
        gone = TRAINERS[trainer]
        return f"It is no stable trainer of {gone.since}. Use {gone.use}."
    if trainer in CONFIG_CLASSES:
        return "describe_trainer describes it; write its script yourself and store it with edit_script(code=...)."
    return did_you_mean(trainer, RENDERED) or f"One of: {', '.join(RENDERED)}."


def _sentence(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"] if part not in RENDERED)
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
