"""A training or evaluation run as data: what to render a script from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from mlintern.tools.errors import BadInput
from mlintern.tools.evals.suites import Harness, find_suite
from mlintern.tools.scripts.data_sources import read_source
from mlintern.tools.scripts.evaluation_plan import Endpoint, Engine, EvaluationPlan, check_engine
from mlintern.tools.scripts.generate_recipe import GenerateRecipe
from mlintern.tools.scripts.hyperparameters import CONFIG_CLASSES
from mlintern.tools.scripts.recipe_parts import Source, validation_errors
from mlintern.tools.scripts.rendered import RENDERED
from mlintern.tools.scripts.run_recipe import Dtype, RunRecipe
from mlintern.tools.scripts.trainers.removed import TRAINERS
from mlintern.tools.scripts.trainers.schema import did_you_mean
from mlintern.tools.scripts.training_recipe import (
    CpoRecipe,
    DistillationRecipe,
    DpoRecipe,
    GkdRecipe,
    GrpoRecipe,
    KtoRecipe,
    OnlineDpoRecipe,
    OrpoRecipe,
    RewardRecipe,
    RlooRecipe,
    SftRecipe,
)

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

    candidates: list[Source] = Field(
        default=[],
        max_length=16,
        description="Further models, measured after `model` in the same job, on the same items and with the same "
        "settings; LoRA adapters are not merged. compare_evals(JOB, JOB/candidates/1) compares.",
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
        if self.endpoint is not None and (self.endpoint.max_usd or self.endpoint.max_output_tokens):
            raise BadInput(
                "A harness counts neither money nor tokens, so it would not keep the caps of the endpoint.",
                next_step="Leave max_usd and max_output_tokens out and give `limit`, or measure a `dataset`.",
            )
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
            if self.candidates and (self.by_harness or self.engine == "vllm" or self.endpoint is not None):
                raise BadInput(
                    "Several models in one job are measured by the transformers engine, on a `dataset`.",
                    next_step="Leave `candidates` out, and render an evaluation for each model.",
                )
            for model in self.candidates:
                read_source(model, kind="model", revision=None)
            if self.endpoint is not None and self.kind != "exact_match" and not self.by_harness:
                raise BadInput(
                    "An endpoint gives no likelihoods of options.",
                    next_step='Use kind "exact_match": show the options in the question and let it write the letter.',
                )
        return self


Stable = SftRecipe | DpoRecipe | GrpoRecipe | RlooRecipe | KtoRecipe | RewardRecipe | DistillationRecipe
TrainingRecipe = Stable | GkdRecipe | OrpoRecipe | CpoRecipe | OnlineDpoRecipe
AnyRecipe = TrainingRecipe | EvaluationRecipe | GenerateRecipe
"""Every kind of recipe. A new one: its class here or in a module beside, its program in `render.program_of`."""

Recipe = Annotated[AnyRecipe, Field(discriminator="trainer")]
"""What `render_script` takes."""

_ADAPTER: TypeAdapter[AnyRecipe] = TypeAdapter(Recipe)


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
