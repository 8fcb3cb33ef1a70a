"""Benchmarks by name, each with the harness, the task and the settings that published numbers were made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mlintern.common.text import did_you_mean
from mlintern.tools.errors import BadInput

Harness = Literal["lm_eval", "inspect", "lighteval"]


@dataclass(frozen=True)
class Suite:
    """A benchmark as people quote it.

    Attributes:
        items: how many there are; of a group, over all of its tasks.
        metric: what is quoted.
        settings: fields of an evaluation recipe that the quoted numbers have; what the task itself sets stays out.
        gated: Hub dataset whose conditions must be accepted first.
        runs_code: whether it runs what the model writes.
        published: where numbers with these settings are.
    """

    name: str
    title: str
    harness: Harness
    tasks: tuple[str, ...]
    items: int
    metric: str
    published: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    gated: str | None = None
    runs_code: bool = False
    notes: str = ""

    @property
    def summary(self) -> str:
        """One line: what, how, where the numbers are."""
        parts = [f"{self.title}; {self.harness}: {', '.join(self.tasks)}; {self.items:,} items; {self.metric}"]
        parts += [f"{name} {value}" for name, value in self.settings.items()]
        parts += [f"gated: accept the conditions of {self.gated} on the Hub and set HF_TOKEN"] if self.gated else []
        parts += ["runs code that the model writes"] if self.runs_code else []
        parts += [self.notes] if self.notes else []
        return "; ".join([*parts, f"numbers: {self.published}"])


GPQA = "Idavidrein/gpqa"
HARNESS_NUMBERS = "model cards that name lm-evaluation-harness and this task"
LEADERBOARD_1 = "Open LLM Leaderboard 1 (2023-2024)"
INSPECT_NUMBERS = "inspect_evals, README of the task"
POSTTRAINBENCH = "PostTrainBench (aisa-group/PostTrainBench, src/eval/tasks)"

_ALL = (
    Suite("gsm8k", "GSM8K, grade-school mathematics", "lm_eval", ("gsm8k",), 1319, "exact_match", HARNESS_NUMBERS,
          notes="5 shots; strict-match wants '#### N', flexible-extract takes the last number"),
    Suite("gsm8k-inspect", "GSM8K as Inspect has it", "inspect", ("inspect_evals/gsm8k",), 1319, "accuracy",
          INSPECT_NUMBERS, notes="10 shots"),
    Suite("math-500", "MATH-500", "lm_eval", ("minerva_math500",), 500, "math_verify", HARNESS_NUMBERS,
          notes="4 shots"),
    Suite("aime-2024", "AIME 2024", "lm_eval", ("aime24",), 30, "exact_match", HARNESS_NUMBERS,
          {"chat_template": True}, notes="30 items: quote avg@k over several seeds"),
    Suite("aime-2025", "AIME 2025", "lm_eval", ("aime25",), 30, "exact_match", HARNESS_NUMBERS,
          {"chat_template": True}, notes="30 items: quote avg@k over several seeds"),
    Suite("gpqa-diamond", "GPQA diamond, zero-shot with reasoning", "lm_eval", ("gpqa_diamond_cot_zeroshot",), 198,
          "exact_match, flexible-extract", HARNESS_NUMBERS, {"chat_template": True}, GPQA),
    Suite("gpqa-main", "GPQA main, zero-shot with reasoning", "lm_eval", ("gpqa_main_cot_zeroshot",), 448,
          "exact_match, flexible-extract", HARNESS_NUMBERS, {"chat_template": True}, GPQA),
    Suite("gpqa-diamond-inspect", "GPQA diamond as Inspect has it", "inspect", ("inspect_evals/gpqa_diamond",), 198,
          "accuracy", INSPECT_NUMBERS, notes="zero-shot with reasoning, 4 epochs"),
    Suite("mmlu", "MMLU", "lm_eval", ("mmlu",), 14042, "acc", LEADERBOARD_1, {"fewshot": 5}),
    Suite("mmlu-pro", "MMLU-Pro", "lm_eval", ("mmlu_pro",), 12032, "exact_match, custom-extract", HARNESS_NUMBERS,
          notes="5 shots with reasoning"),
    Suite("arc-challenge", "ARC challenge", "lm_eval", ("arc_challenge",), 1172, "acc_norm", LEADERBOARD_1,
          {"fewshot": 25}),
    Suite("arc-easy", "ARC easy", "lm_eval", ("arc_easy",), 2376, "acc_norm", HARNESS_NUMBERS, {"fewshot": 0}),
    Suite("hellaswag", "HellaSwag", "lm_eval", ("hellaswag",), 10042, "acc_norm", LEADERBOARD_1, {"fewshot": 10}),
    Suite("truthfulqa", "TruthfulQA, multiple choice", "lm_eval", ("truthfulqa_mc2",), 817, "acc", LEADERBOARD_1,
          {"fewshot": 0}),
    Suite("ifeval", "IFEval, instructions that a program checks", "lm_eval", ("ifeval",), 541,
          "prompt_level_strict_acc", HARNESS_NUMBERS, {"chat_template": True}),
    Suite("humaneval", "HumanEval", "lm_eval", ("humaneval",), 164, "pass@1", HARNESS_NUMBERS, runs_code=True),
    Suite("humaneval-instruct", "HumanEval for chat models", "lm_eval", ("humaneval_instruct",), 164, "pass@1",
          HARNESS_NUMBERS, {"chat_template": True}, runs_code=True),
    Suite("mbpp", "MBPP", "lm_eval", ("mbpp",), 500, "pass_at_1", HARNESS_NUMBERS, runs_code=True, notes="3 shots"),
    Suite("bfcl", "Berkeley function calling", "inspect", ("inspect_evals/bfcl",), 3981, "accuracy", INSPECT_NUMBERS),
    Suite("posttrainbench-gsm8k", "GSM8K as PostTrainBench measures it", "inspect", ("inspect_evals/gsm8k",), 150,
          "accuracy", POSTTRAINBENCH, {"limit": 150, "max_new_tokens": 4000, "engine": "vllm"},
          notes="its quick setting of 150 items; 10 shots"),
    Suite("posttrainbench-gpqa-main", "GPQA main as PostTrainBench measures it", "lm_eval",
          ("gpqa_main_cot_zeroshot",), 448, "exact_match, flexible-extract", POSTTRAINBENCH,
          {"max_new_tokens": 16000, "engine": "vllm", "chat_template": True}, GPQA,
          notes="the same items, reasoning and token limit; its own prompt is Inspect's multiple_choice(cot=True) on "
          "gpqa_main, which is no task of inspect_evals: quote neither as the other"),
)  # fmt: skip

SUITES: Mapping[str, Suite] = {suite.name: suite for suite in _ALL}


def find_suite(name: str) -> Suite:
    """The suite of that name; case, ``_`` and spaces do not matter.

    Raises:
        BadInput: there is none; near names are suggested.
    """
    key = name.strip().lower().replace("_", "-").replace(" ", "-")
    if key in SUITES:
        return SUITES[key]
    hint = did_you_mean(key, SUITES) or f"There are: {', '.join(SUITES)}."
    raise BadInput(f"There is no suite {name!r:.60}.", next_step=hint)


def gated_by(tasks: tuple[str, ...]) -> str | None:
    """The Hub dataset whose conditions must be accepted for one of ``tasks``, as far as is known."""
    return next((GPQA for task in tasks if task.startswith(("gpqa", "leaderboard_gpqa"))), None)
