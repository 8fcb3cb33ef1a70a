"""Training runs as data: the fields that all trainers share, and one class for each trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.data_sources import normalise_source, splits_overlap
from mlintern.tools.scripts.evaluation_plan import EvaluationPlan
from mlintern.tools.scripts.filter_snippets import FILTERS_HELP, read_filters
from mlintern.tools.scripts.hyperparameters import check_hyperparameters, hoist_recipe_fields
from mlintern.tools.scripts.mixture import (
    MOST_PARTS,
    OF_A_PART,
    DatasetPart,
    check_mixture,
    check_renames,
    check_row_numbers,
)
from mlintern.tools.scripts.recipe_parts import Holdout, Lora, Source, read_dataset_fields, validation_errors
from mlintern.tools.scripts.rewards import Reward, named_rewards
from mlintern.tools.scripts.run_recipe import Dtype, RunRecipe
from mlintern.tools.scripts.snippets import read_snippet

HUB_REPOSITORY = r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$"


class Freeze(BaseModel):
    """Weights that full training leaves as they are."""

    model_config = ConfigDict(extra="forbid")

    embeddings: bool = Field(default=False, description="The input embeddings (and the head, where they are tied).")
    layers_below: int = Field(default=0, ge=0, description="The layers before this one, counted from 0.")


class TrainingFields(RunRecipe):
    """What every trainer shares."""

    dataset: Source = Field(default="", description="Hub id, or a local parquet, jsonl, csv or saved dataset.")
    datasets: list[DatasetPart] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_PARTS,
        description="In place of `dataset`: several, each with its own split, columns, prepare, filter, holdout, and"
        ' `weight` or `rows`. {"dataset": "org/general", "weight": 0.1} beside your own set replays general data.',
    )
    mix: Literal["interleave", "concatenate"] = Field(
        default="interleave",
        description="Order of the rows of `datasets`; trainers that shuffle look at neither.",
    )
    dataset_config: str | None = Field(default=None, description="Configuration of a Hub dataset.")
    dataset_revision: str | None = None
    split: str = Field(default="train", min_length=1, description="Split; a local file has the single split `train`.")
    columns: dict[str, str] = Field(
        default={},
        description="Rename columns: name that the trainer expects -> name in the dataset. Others that it reads with "
        "these stay as they are.",
    )
    prepare: str | None = Field(
        default=None,
        description="Source of a function row -> row, applied after `columns`; what it returns is the new row,"
        " and None leaves the row out.",
    )
    limit: int | None = Field(
        default=None, ge=1, description="Train on that many rows, drawn with the seed. None: all."
    )
    filter: str | list[str] | None = Field(
        default=None,
        description="Rows to keep: the source of a function row -> bool, which sees the row before `prepare`, or"
        f" the name of a filter of prepared rows ({FILTERS_HELP}), or a list of these. What is left out is counted.",
    )
    holdout: Holdout | None = Field(
        default=None,
        description="Rows drawn first and kept out of training; an `evaluation` of the same data, and an evaluation "
        "recipe with the same `holdout`, measure on these.",
    )
    validation_rows: int = Field(default=0, ge=0, description="Rows held out of the training data, to log eval_loss.")
    hyperparameters: dict[str, Any] = Field(
        default={}, description="Fields of TRL's configuration class; describe_trainer."
    )
    epochs: float | None = Field(
        default=None, gt=0, description="Passes over the data; 1 if max_steps is not given either."
    )
    max_steps: int | None = Field(default=None, ge=1)
    max_minutes: float | None = Field(
        default=None,
        gt=0,
        le=60 * 24 * 30,
        description="Minutes that the whole script may take. Training ends by the clock, its learning rate decayed "
        "to 0 by then; a tenth is kept for saving, a fifth more where an evaluation follows.",
    )
    freeze: Freeze | None = Field(default=None, description="Weights that full training leaves as they are.")
    quantize: Literal["nf4"] | None = Field(
        default=None, description="nf4: load the weights in 4 bit and train an adapter (QLoRA). Needs a GPU."
    )
    scale: Literal["one_gpu", "ddp", "fsdp2", "zero3"] | None = Field(
        default=None,
        description="How several GPUs share the work. ddp: a copy each (the default where there are several); "
        "fsdp2, zero3: weights, gradients and optimizer are sharded.",
    )
    lora: Lora | None = Field(
        default=None, description="Train an adapter, merged into the saved model. {} for defaults."
    )
    dtype: Dtype | None = Field(
        default=None,
        description="Of the weights while they are trained. Default: float32; with LoRA bfloat16 where the device "
        "computes in it. The model is saved in the type that it came in.",
    )
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
    push_every: int | None = Field(
        default=None, ge=1, description="Save and push a checkpoint every so many steps; needs push_to_hub."
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
            self._read_data()
            if self.quantize is not None and self.lora is None:
                self.lora = Lora()
            self._check_together()
            if self.epochs is not None and self.max_steps is not None:
                raise BadInput("Both epochs and max_steps are given.", next_step="Keep one; max_steps would win.")
            check_renames(self.columns)
            if self.resume_from_checkpoint is not None:
                self.resume_from_checkpoint = normalise_source(self.resume_from_checkpoint, kind="model")
            if self.prepare is not None:
                read_snippet(self.prepare, what="prepare", parameters=1, prefer="prepare")
            check_row_numbers(self.filter, held_out=self.holdout is not None)
            if self.datasets and read_filters(self.filter).loaded:
                raise BadInput(
                    "`drop_rows` counts the rows of one dataset, and the filter of a mixture sees those of all.",
                    next_step="Give it to the one of `datasets` that it is meant for.",
                )
            if self.save_steps > 1 and self.save_steps != int(self.save_steps):
                raise BadInput(
                    f"save_steps {self.save_steps} is no whole number.", next_step="Use one, or a share below 1."
                )
            if self.dtype == "float16" and self.lora is None:
                raise BadInput(
                    "float16 weights cannot be trained: their gradients overflow.",
                    next_step='Use dtype "float32" with hyperparameters {"fp16": true, "bf16": false}, or LoRA.',
                )
            self._hold_out()
            if self.evaluation is not None and self._trains_on(self.evaluation):
                raise BadInput(
                    f"The evaluation reads the training data ({self.evaluation.dataset}, split "
                    f"{self.evaluation.split or '?'}).",
                    next_step="Evaluate on rows that are not trained on: another file or split.",
                )
            check_hyperparameters(
                self.config_class,
                self.hyperparameters,
                validation=self.validation_rows > 0,
                seed=self.seed,
                push_every=self.push_every,
            )
        return self

    def _read_data(self) -> None:
        """Either `dataset` or `datasets` says what is trained on."""
        if bool(self.dataset) == bool(self.datasets):
            raise BadInput(
                "The recipe names no dataset." if not self.dataset else "Both dataset and datasets are given.",
                next_step="Give `dataset`, or several as `datasets`.",
            )
        if self.datasets:
            check_mixture(self.datasets, given=self.model_fields_set)
        else:
            read_dataset_fields(self)

    @property
    def parts(self) -> list[DatasetPart]:
        """What is trained on, a single `dataset` with the recipe's own `filter` and `prepare` too."""
        if self.datasets:
            return self.datasets
        fields = (*OF_A_PART, "filter")
        return [DatasetPart.model_construct(**{name: getattr(self, name) for name in fields})]

    def _hold_out(self) -> None:
        """An evaluation of the data that is trained on measures on the rows that are held out of it."""
        plan = self.evaluation
        if plan is None:
            return
        for part in self.parts:
            if part.holdout is None or (plan.dataset, plan.dataset_config) != (part.dataset, part.dataset_config):
                continue
            if plan.split and splits_overlap(plan.split, part.split) and plan.split != part.split:
                raise BadInput(
                    f"The evaluation reads {plan.split!r}, training {part.split!r}, and rows are held out of that.",
                    next_step="Leave `split` of the evaluation out.",
                )
            if not plan.split or plan.split == part.split:
                plan.split, plan.holdout = part.split, part.holdout

    def _trains_on(self, plan: EvaluationPlan) -> bool:
        for part in self.parts:
            if plan.holdout is not None and plan.holdout == part.holdout:
                continue  # what is measured is never trained on
            same = (part.dataset, part.dataset_config) == (plan.dataset, plan.dataset_config)
            if same and (not plan.split or splits_overlap(part.split, plan.split)):
                return True
        return False

    def _check_together(self) -> None:
        if self.freeze is not None and self.lora is not None:
            raise BadInput("freeze and lora are both given.", next_step="An adapter freezes all weights by itself.")
        if self.limit is not None and self.validation_rows >= self.limit:
            raise BadInput(
                f"limit {self.limit} leaves no row beside validation_rows {self.validation_rows}.",
                next_step="Validate on fewer rows, or raise the limit.",
            )
        if self.push_every is not None and self.push_to_hub is None:
            raise BadInput("push_every needs push_to_hub.", next_step="Name the repository as push_to_hub.")
        if self.quantize is not None and self.use_cpu:
            raise BadInput("4-bit weights need a GPU.", next_step="Leave quantize out on a CPU.")
        if self.quantize is not None and self.scale == "zero3":
            raise BadInput("zero3 cannot shard 4-bit weights.", next_step='Use scale "ddp" or "fsdp2".')
        if self.lora is not None and self.lora.layers_given and self.lora.target_modules == "all-linear":
            raise BadInput(
                'layers_to_transform does not work with target_modules "all-linear".',
                next_step='Name the modules, such as ["q_proj", "v_proj"].',
            )


class WithRewards(TrainingFields):
    """What trainers share that sample answers and score them."""

    rewards: list[Reward] = Field(min_length=1, max_length=16, description="What a completion is rewarded for.")

    @field_validator("rewards", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return named_rewards(value)

    @model_validator(mode="after")
    def _weights_are_given_once(self) -> Self:
        with validation_errors():
            if "reward_weights" in self.hyperparameters:
                raise BadInput(
                    "reward_weights stands in hyperparameters.", next_step="Give each of `rewards` its own `weight`."
                )
        return self


class WithTeacher(TrainingFields):
    """What trainers share that learn from the probabilities of a larger model."""

    teacher: Source = Field(description="Model to learn from: Hub id or folder; it needs the student's vocabulary.")

    @model_validator(mode="after")
    def _teacher_is_a_model(self) -> Self:
        with validation_errors():
            self.teacher = normalise_source(self.teacher, kind="model")
        return self


class SftRecipe(TrainingFields):
    """Supervised fine-tuning on `text`, on `messages`, or on `prompt` and `completion`."""

    trainer: Literal["sft"]
    config_class: ClassVar[str] = "SFTConfig"


class DpoRecipe(TrainingFields):
    """Direct preference optimisation on `prompt`, `chosen` and `rejected`."""

    trainer: Literal["dpo"]
    config_class: ClassVar[str] = "DPOConfig"


class KtoRecipe(TrainingFields):
    """Kahneman-Tversky optimisation on `prompt`, `completion` and `label`, or on pairs."""

    trainer: Literal["kto"]
    config_class: ClassVar[str] = "KTOConfig"


class RewardRecipe(TrainingFields):
    """A reward model on `chosen` and `rejected`."""

    trainer: Literal["reward"]
    config_class: ClassVar[str] = "RewardConfig"


class OrpoRecipe(TrainingFields):
    """Odds-ratio preference optimisation (experimental in TRL) on `prompt`, `chosen` and `rejected`."""

    trainer: Literal["orpo"]
    config_class: ClassVar[str] = "ORPOConfig"


class CpoRecipe(TrainingFields):
    """Contrastive preference optimisation (experimental in TRL) on `prompt`, `chosen` and `rejected`."""

    trainer: Literal["cpo"]
    config_class: ClassVar[str] = "CPOConfig"


class GrpoRecipe(WithRewards):
    """Group-relative policy optimisation on `prompt`, with rewards that may read the other columns."""

    trainer: Literal["grpo"]
    config_class: ClassVar[str] = "GRPOConfig"


class RlooRecipe(WithRewards):
    """REINFORCE leave-one-out on `prompt`, with rewards that may read the other columns."""

    trainer: Literal["rloo"]
    config_class: ClassVar[str] = "RLOOConfig"


class OnlineDpoRecipe(WithRewards):
    """Online DPO (experimental in TRL) on `prompt`: two answers are sampled, the rewards say which is better."""

    trainer: Literal["online_dpo"]
    config_class: ClassVar[str] = "OnlineDPOConfig"


class DistillationRecipe(WithTeacher):
    """On-policy distillation on `prompt`: the student writes, the teacher's probabilities are the target."""

    trainer: Literal["distillation"]
    config_class: ClassVar[str] = "DistillationConfig"


class GkdRecipe(WithTeacher):
    """Generalised knowledge distillation (experimental in TRL) on `messages`."""

    trainer: Literal["gkd"]
    config_class: ClassVar[str] = "GKDConfig"
