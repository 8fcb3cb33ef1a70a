"""Fields of an evaluation, and of everything that lets a model write: data, prompt, sampling, scorer, endpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mlintern.tools.errors import BadInput
from mlintern.tools.folders import files_below
from mlintern.tools.scripts.data_sources import dataset_kind, is_local, normalise_source
from mlintern.tools.scripts.recipe_parts import (
    Holdout,
    Source,
    Strict,
    check_pattern,
    read_dataset_fields,
    validation_errors,
)
from mlintern.tools.scripts.snippets import read_snippet

SET_BY_EVALUATION = frozenset({"conversation", "tokenize", "add_generation_prompt", "return_dict", "return_tensors"})
"""Arguments of `apply_chat_template` that the script gives or relies on."""

SCORERS = ("exact", "numeric", "math_verify", "regex", "json", "code", "judge")
"""Scorers of written answers, by name; anything else is the source of a function."""

WITHOUT_GOLD = ("json", "judge")
"""Scorers that can do without an answer to compare with."""

Engine = Literal["auto", "transformers", "vllm", "endpoint"]


class Endpoint(Strict):
    """A served model that is asked over HTTP: its address, its dialect, and what it may cost."""

    url: str = Field(
        pattern=r"^https?://[^\s@?#]+$",
        max_length=2000,
        description="Base address, such as https://api.openai.com/v1, https://api.anthropic.com/v1 or "
        "http://127.0.0.1:8000/v1.",
    )
    api: Literal["openai", "messages"] = Field(
        default="openai", description="openai: POST /chat/completions; messages: POST /messages, as Claude has it."
    )
    key_variable: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Name of the environment variable that holds the key; pass it to the job with `env`. Never the "
        "key itself.",
    )
    concurrency: int = Field(default=8, ge=1, le=256, description="Requests at once.")
    timeout: float = Field(default=600, gt=0, le=3600, description="Seconds that one request may take.")
    max_output_tokens: int | None = Field(
        default=None, ge=1, description="Stop when that many tokens were written, over all requests."
    )
    max_usd: float | None = Field(
        default=None, gt=0, description="Spend no more than that; needs prices. Counts in the job's worst price."
    )
    usd_per_million: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = Field(
        default=(0.0, 0.0), description="Price of a million tokens: read, written."
    )
    sends_seed: bool = Field(default=True, description="openai: send `seed`; off where the server refuses it.")
    extra: dict[str, Any] = Field(default={}, description="openai: further fields of the request body.")

    @model_validator(mode="after")
    def _cap_can_be_kept(self) -> Self:
        self.url = self.url.rstrip("/")
        if self.max_usd is not None and not any(self.usd_per_million):
            raise ValueError("max_usd needs usd_per_million: the prices of a million tokens, read and written")
        return self


class Judge(Strict):
    """A model that judges answers. Each is judged twice; how often the two agree is reported."""

    endpoint: Endpoint
    model: str = Field(min_length=1, max_length=200, description="Name of the judging model at its endpoint.")
    rubric: str = Field(min_length=1, max_length=20_000, description="What a good answer is.")
    pairwise: bool = Field(
        default=False, description="Compare with the answer in the dataset, in both orders; else apply the rubric."
    )
    max_tokens: int = Field(default=1024, ge=1)


class Asking(Strict):
    """How a model is asked, and how its answer is judged."""

    system: str | None = Field(default=None, description="System message, for chat models.")
    chat_template: bool | None = Field(
        default=None, description="Ask in chat format. None: if the tokenizer has a template."
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default={}, description='Such as {"enable_thinking": false} for Qwen3.'
    )
    samples: int = Field(default=1, ge=1, le=1024, description="Answers to each item. Above 1, give a temperature.")
    temperature: float = Field(
        default=0.0, ge=0, le=2, description="0: always the likeliest token; above, answers are drawn."
    )
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, description="0: all tokens.")
    batch_size: int = Field(default=32, ge=1)
    max_new_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Default: what the longest option or right answer takes, and room to reason where the answer is "
        "extracted (256 tokens; 8192 where the chat template thinks).",
    )
    extract: str | None = Field(
        default=None,
        description="Regular expression whose last match (group 1 if there is one) is the answer. An answer without "
        "a match is wrong and counted as no answer.",
    )
    ignore_case: bool = Field(default=False, description="Take upper and lower case as the same.")
    tolerance: float = Field(default=1e-6, ge=0, lt=1, description="Scorer numeric: relative difference allowed.")
    json_schema: dict[str, Any] | None = Field(
        default=None, description="Scorer json: JSON schema (draft 2020-12) that answers must fit."
    )
    code_seconds: int = Field(default=10, ge=1, le=600, description="Scorer code: time limit of one answer.")
    judge: Judge | None = Field(default=None, description="Scorer judge: who judges, by which rubric.")

    @model_validator(mode="after")
    def _asking_fits(self) -> Self:
        with validation_errors():
            if self.extract is not None:
                check_answer_pattern(self.extract)
            if taken := sorted(SET_BY_EVALUATION & set(self.chat_template_kwargs)):
                raise BadInput(
                    f"chat_template_kwargs names {', '.join(taken)}, which the script sets by itself.",
                    next_step="Leave it out; give only what the template of the model knows.",
                )
            if self.samples > 1 and self.temperature == 0:
                raise BadInput(
                    f"{self.samples} samples at temperature 0 are {self.samples} times the same answer.",
                    next_step="Give a temperature, such as 0.7, or leave `samples` out.",
                )
        return self


class EvaluationPlan(Asking):
    """Measure a model on held-out items: multiple choice by the likelihood of the options, or written answers."""

    dataset: Source = Field(
        description="Hub id, or a local parquet, jsonl, csv or saved dataset; held out from training."
    )
    dataset_config: str | None = Field(default=None, description="Configuration of a Hub dataset.")
    dataset_revision: str | None = None
    split: str = Field(
        default="", description="Split to score. Default: `test`; a local file has the single split `train`."
    )
    task: str | None = Field(
        default=None, description="Name in results; default: the last part of the dataset's name."
    )
    kind: Literal["multiple_choice", "exact_match"] = Field(
        default="multiple_choice", description="exact_match: the model writes its answer, and `scorer` judges it."
    )
    scorer: str | None = Field(
        default=None,
        max_length=100_000,
        description=f"Written answers: {', '.join(SCORERS)}, or the source of a function (answer, gold) -> number "
        "from 0 to 1. Multiple choice: likelihood, to write nothing. Default: exact; for multiple choice both the "
        "likelihood and what the model writes.",
    )
    question_column: str = Field(
        default="question", description="Column of the question: text, or a list of chat messages."
    )
    choices_column: str = Field(
        default="choices", description="Column of the options: a list of texts (multiple choice)."
    )
    answer_column: str = Field(
        default="answer",
        description="Column of the right answer. Multiple choice: its index from 0, its letter, or its text. Scorer "
        "regex: a pattern; code: Python that fails where the answer is wrong.",
    )
    id_column: str = Field(
        default="id", description="Column of a stable id; where absent, a hash of the item is the id."
    )
    prepare: str | None = Field(
        default=None, description="Source of a function row -> row, or None to leave it out; applied first."
    )
    prompt: str | None = Field(
        default=None,
        description="What is asked. {question} and {choices} are replaced; with {choices} the options are shown as "
        "'A. ...' lines and the letters are scored, without it the options' own texts are scored. Default: "
        "'{question}\\n{choices}\\nAnswer:' for multiple choice, '{question}' for written answers.",
    )
    fewshot: int = Field(default=0, ge=0, le=64, description="Worked examples, with their whole answers.")
    fewshot_dataset: Source | None = Field(
        default=None, description="Where worked examples are from. Default: another split of the dataset."
    )
    fewshot_split: str = Field(
        default="",
        description="Their split. Default: `train` of a Hub dataset; a local file gives rows that are not scored.",
    )
    fewshot_column: str | None = Field(
        default=None, description="Column of the answer that an example shows. Default: the whole right answer."
    )
    limit: int | None = Field(
        default=None, ge=1, description="Score that many items, drawn with the seed. None: all."
    )
    holdout: Holdout | None = Field(
        default=None, description="Score only the rows that a training recipe with the same `holdout` leaves out."
    )

    @property
    def writes(self) -> bool:
        """Whether the model writes answers."""
        return self.kind == "exact_match" or self.scorer != "likelihood"

    @property
    def scored_by(self) -> str:
        """Name of the scorer of written answers; ``python`` for a function."""
        if self.scorer is None or self.kind == "multiple_choice":
            return "exact"
        return self.scorer if self.scorer in SCORERS else "python"

    @property
    def scored_split(self) -> str:
        """The split to score, where none is named the one that is held out by its name."""
        return self.split or _held_out(self.dataset)

    @property
    def examples_from(self) -> tuple[str, str] | None:
        """Dataset and split of the worked examples; None for rows of the scored split that are not scored."""
        if not self.fewshot:
            return None
        if self.fewshot_dataset is not None:
            return self.fewshot_dataset, self.fewshot_split or "train"
        other = self.fewshot_split or ("" if is_local(self.dataset) else "train")
        return (self.dataset, other) if other and other != self.scored_split else None

    @model_validator(mode="after")
    def _plan_fits(self) -> Self:
        with validation_errors():
            if self.dataset:
                read_dataset_fields(self)
            if self.fewshot_dataset is not None:
                self.fewshot_dataset = normalise_source(self.fewshot_dataset, kind="dataset")
            if self.prepare is not None:
                read_snippet(self.prepare, what="prepare of the evaluation", parameters=1, prefer="prepare")
            if self.prompt is not None and "{question}" not in self.prompt:
                raise BadInput(
                    "`prompt` does not hold {question}.", next_step="Put {question} where the question goes."
                )
            self._check_scorer()
            if self.kind == "exact_match" and self.prompt is not None and "{choices}" in self.prompt:
                raise BadInput(
                    "{choices} in `prompt` is for multiple choice.", next_step='Use kind="multiple_choice".'
                )
        return self

    def _check_scorer(self) -> None:
        if self.scorer is not None and self.scorer != "likelihood" and "kind" not in self.model_fields_set:
            self.kind = "exact_match"
        if self.scorer == "likelihood" and self.kind == "exact_match":
            raise BadInput(
                "The scorer likelihood is for multiple choice.",
                next_step='Use kind="multiple_choice".',
            )
        if self.kind == "multiple_choice" and self.scorer not in (None, "likelihood"):
            raise BadInput(
                f"The scorer {self.scorer:.40} judges written answers.", next_step='Use kind="exact_match".'
            )
        if self.scored_by == "python":
            check_scorer_source(self.scorer or "")
        if (self.scored_by == "judge") != (self.judge is not None):
            raise BadInput(
                "The scorer judge and the field `judge` go together.",
                next_step='Give "scorer": "judge" and "judge": {"endpoint", "model", "rubric"}, or neither.',
            )
        if self.json_schema is not None and self.scored_by != "json":
            raise BadInput("json_schema is for the scorer json.", next_step='Give "scorer": "json".')


def check_engine(engine: Engine, endpoint: Endpoint | None, *, dtype: str | None) -> None:
    """Refuse an engine without what it needs.

    Raises:
        BadInput: ``endpoint`` and engine do not go together, or the engine takes no such ``dtype``.
    """
    if engine == "endpoint" and endpoint is None:
        raise BadInput("The engine endpoint needs an address.", next_step='Give "endpoint": {"url": ...}.')
    if endpoint is not None and engine not in ("auto", "endpoint"):
        raise BadInput(
            f"Both the engine {engine} and an endpoint are given.", next_step="Keep one: leave `engine` out."
        )
    if endpoint is not None and dtype is not None:
        raise BadInput("An endpoint chooses its own precision.", next_step="Leave `dtype` out.")


def check_scorer_source(source: str) -> None:
    """Refuse a scorer that is neither a name nor the source of a function.

    Raises:
        BadInput: the names are listed, or what is wrong with the source is said.
    """
    if re.fullmatch(r"[\w -]*", source):
        raise BadInput(
            f"There is no scorer {source!r:.60}.",
            next_step=f"One of {', '.join((*SCORERS, 'likelihood'))}, or the source of a function (answer, gold).",
        )
    read_snippet(source, what="scorer", parameters=2, prefer="score")


def check_answer_pattern(pattern: str) -> None:
    """Refuse a pattern that finds an answer in any text, even in none.

    Raises:
        BadInput: it is no regular expression, or it matches the empty text.
    """
    check_pattern(pattern, what="extract")
    if any(match[0] == "" for text in ("", "x 1.") for match in re.finditer(pattern, text)):
        raise BadInput(
            f"extract {pattern!r:.80} matches the empty text, so it would find an answer where there is none.",
            next_step="Let it need a character of the answer: + in place of *, such as (-?[\\d.,]*\\d).",
        )


def _held_out(dataset: str) -> str:
    """The split that is held out by its name, as far as the dataset lies here."""
    if not is_local(dataset):
        return "test"
    try:
        kind = dataset_kind(dataset)
    except BadInput:  # said elsewhere, when the dataset is looked at
        return "train"
    path = Path(dataset)
    if kind == "saved_splits":
        known = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8")).get("splits", [])
        return "test" if "test" in known or "train" not in known else "train"
    if kind != "folder":
        return "train"
    parts = (part for file in files_below(path) for part in file.relative_to(path).parts)
    return "test" if any(part.startswith("test") for part in parts) else "train"
