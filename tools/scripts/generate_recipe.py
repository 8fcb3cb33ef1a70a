"""A recipe that lets a model write training data: prompts, answers, a verifier, and what of it is kept."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.data_sources import normalise_source
from mlintern.tools.scripts.evaluation_plan import (
    SCORERS,
    WITHOUT_GOLD,
    Asking,
    Endpoint,
    Engine,
    check_engine,
    check_scorer_source,
)
from mlintern.tools.scripts.recipe_parts import Source, validation_errors
from mlintern.tools.scripts.run_recipe import Dtype, RunRecipe
from mlintern.tools.scripts.snippets import read_snippet

Keep = Literal["correct", "best", "all", "pairs", "labels"]
REWARD_MODEL = "reward_model"
NEEDS_A_VERIFIER = ("correct", "best", "pairs", "labels")
Share = Annotated[float, Field(ge=0, le=1)]


class GenerateRecipe(Asking, RunRecipe):
    """Let a model or an endpoint answer prompts several times, verify the answers, and keep a dataset of them."""

    trainer: Literal["generate"]
    engine: Engine = Field(
        default="auto", description="transformers, vllm (needs a GPU; many times faster), or endpoint."
    )
    endpoint: Endpoint | None = Field(
        default=None, description="The served model (a teacher) to ask; `model` is its name there."
    )
    terms: str | None = Field(
        default=None,
        max_length=2000,
        description="With an endpoint: licence and terms of what it writes, for the dataset's card.",
    )
    dtype: Dtype | None = Field(default=None, description="Default: float32 on a CPU, bfloat16 on a GPU.")
    prompts: Source | list[Source] = Field(
        description="Dataset of prompts: Hub id, or a local parquet, jsonl or csv file; or a list of prompts."
    )
    prompts_config: str | None = None
    prompts_revision: str | None = None
    split: str = Field(default="train", min_length=1)
    prompt_column: str = Field(default="prompt", description="Column of the prompt: text, or chat messages.")
    answer_column: str = Field(default="answer", description="Column of the right answer, for the verifier.")
    id_column: str = "id"
    prepare: str | None = Field(
        default=None, description="Source of a function row -> row, or None to leave it out; applied first."
    )
    template: str | None = Field(
        default=None, description="What is asked; {prompt} is replaced. To rewrite prompts or make new ones of seeds."
    )
    limit: int | None = Field(default=None, ge=1, description="Ask that many prompts, drawn with the seed.")
    temperature: float = Field(default=1.0, ge=0, le=2)
    samples: int = Field(default=4, ge=1, le=1024, description="Answers to each prompt.")
    verifier: str | None = Field(
        default=None,
        max_length=100_000,
        description=f"{', '.join(SCORERS)}, reward_model, or the source of a function (answer, gold) -> number from "
        "0 to 1.",
    )
    reward_model: Source | None = Field(
        default=None,
        description="Verifier reward_model: Hub id, folder or job of a reward model whose score orders the answers "
        "to a prompt. keep best: the highest; pairs: high against low; all, with scores in samples.jsonl.",
    )
    threshold: float = Field(default=1.0, gt=0, le=1, description="Score from which an answer counts as right.")
    keep: Keep = Field(
        default="correct",
        description="correct: right answers; best: the best right answer a prompt; all; pairs: a right against a "
        "wrong answer (DPO); labels: right and wrong answers, labelled (KTO).",
    )
    max_per_prompt: int = Field(default=4, ge=1, description="Rows kept of one prompt.")
    pass_rate: tuple[Share, Share] = Field(
        default=(0.0, 1.0),
        description="Keep prompts whose share of right answers lies here. (0.01, 0.99) drops those that are always "
        "or never solved, from which GRPO learns nothing.",
    )
    characters: tuple[int, int] = Field(default=(1, 100_000), description="Shortest and longest answer kept.")
    similar: float = Field(
        default=0.95, gt=0, le=1, description="Of a prompt's answers, drop those alike to this ratio. 1: equal."
    )
    keep_cut: bool = Field(default=False, description="Keep answers that were cut off at the token limit.")
    format: Literal["messages", "prompt_completion"] = "messages"
    held_out: list[Source] = Field(
        default=[],
        max_length=20,
        description="Evaluation datasets: prompts that share words with them are left out and counted.",
    )
    ngram: int = Field(default=13, ge=3, le=50, description="Words in a row that count as shared.")

    @property
    def verified_by(self) -> str | None:
        """Name of the verifier; ``python`` for a function."""
        return self.verifier if self.verifier in (None, *SCORERS, REWARD_MODEL) else "python"

    @property
    def needs_gold(self) -> bool:
        return self.verified_by is not None and self.verified_by not in (*WITHOUT_GOLD, REWARD_MODEL)

    @model_validator(mode="after")
    def _generation_fits(self) -> Self:
        with validation_errors():
            check_engine(self.engine, self.endpoint, dtype=self.dtype)
            if isinstance(self.prompts, str):
                self.prompts = normalise_source(self.prompts, kind="dataset")
            self.held_out = [normalise_source(source, kind="dataset") for source in self.held_out]
            if self.prepare is not None:
                read_snippet(self.prepare, what="prepare", parameters=1, prefer="prepare")
            if self.template is not None and "{prompt}" not in self.template:
                raise BadInput("`template` does not hold {prompt}.", next_step="Put {prompt} where the prompt goes.")
            self._check_reward_model()
            if self.verified_by == "python":
                check_scorer_source(self.verifier or "")
            self._check_keep()
        return self

    def _check_reward_model(self) -> None:
        if (self.verified_by == REWARD_MODEL) != (self.reward_model is not None):
            raise BadInput(
                "The verifier reward_model and the field `reward_model` go together.",
                next_step='Give "verifier": "reward_model" and "reward_model": a model, or neither.',
            )
        if self.reward_model is None:
            return
        self.reward_model = normalise_source(self.reward_model, kind="model")
        if self.keep in ("correct", "labels") or {"threshold", "pass_rate"} & self.model_fields_set:
            raise BadInput(
                "The scores of a reward model order answers to a prompt; none of them means that one is right.",
                next_step='Use "keep": "best", "pairs" or "all", and leave threshold and pass_rate out.',
            )

    def _check_keep(self) -> None:
        if self.verifier is None and self.keep in NEEDS_A_VERIFIER:
            raise BadInput(
                f'keep "{self.keep}" needs a verifier.',
                next_step='Give `verifier`, or "keep": "all" to take every answer as it is.',
            )
        if (self.verified_by == "judge") != (self.judge is not None):
            raise BadInput(
                "The verifier judge and the field `judge` go together.",
                next_step='Give "verifier": "judge" and "judge": {"endpoint", "model", "rubric"}, or neither.',
            )
        if self.needs_gold and isinstance(self.prompts, list):
            raise BadInput(
                f"The verifier {self.verifier!r:.40} compares with right answers, and a list of prompts has none.",
                next_step="Give a dataset with an answer column, or a function that needs none.",
            )
        if self.keep == "pairs" and self.samples < 2:
            raise BadInput("A pair needs two answers.", next_step="Give `samples` of 2 or more.")
        for name in ("pass_rate", "characters"):
            low, high = getattr(self, name)
            if low > high:
                raise BadInput(f"{name} is ({low}, {high}).", next_step="Give the smaller number first.")
