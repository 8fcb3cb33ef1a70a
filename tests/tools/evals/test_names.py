from __future__ import annotations

import pytest

from mlintern.tools.evals.names import canonical_task, direction, is_proportion


@pytest.mark.parametrize(
    ("raw", "task"),
    [
        ("gsm8k", "gsm8k"),
        ("inspect_evals/GSM8K", "gsm8k"),
        ("gpqa:diamond", "gpqa_diamond"),
        ("gpqa_diamond_zeroshot", "gpqa_diamond"),
        ("gpqa_diamond_cot_n_shot", "gpqa_diamond"),
        ("leaderboard_gpqa_main_generative_n_shot", "gpqa_main"),
        ("mmlu:abstract_algebra", "mmlu_abstract_algebra"),
        ("hendrycksTest-abstract_algebra", "mmlu_abstract_algebra"),
        ("mmlu:_average", "mmlu"),
        ("mmlu_5_shot", "mmlu"),
        ("minerva_math500", "math_500"),
        ("MATH-500", "math_500"),
        ("aime2025", "aime25"),
        ("my-task", "my-task"),
    ],
)
def test_a_benchmark_has_one_name_whatever_the_harness_calls_it(raw: str, task: str) -> None:
    assert canonical_task(raw) == task
    assert canonical_task(task) == task


def test_mmlu_pro_is_not_mmlu() -> None:
    assert canonical_task("mmlu_pro") != canonical_task("mmlu")


@pytest.mark.parametrize("metric", ["acc", "acc_norm", "accuracy", "exact_match", "f1", "eval_accuracy", "pass@1"])
def test_more_of_these_is_better(metric: str) -> None:
    assert direction(metric) is True


@pytest.mark.parametrize("metric", ["loss", "eval_loss", "ppl", "word_perplexity", "wer", "bits_per_byte"])
def test_less_of_these_is_better(metric: str) -> None:
    assert direction(metric) is False


@pytest.mark.parametrize("metric", ["mean", "length", "entropy", "score"])
def test_the_direction_of_other_metrics_is_not_guessed(metric: str) -> None:
    assert direction(metric) is None


def test_a_mean_of_partial_credit_is_not_taken_for_a_proportion() -> None:
    assert is_proportion("exact_match")
    assert not is_proportion("f1")
    assert not is_proportion("inst_level_strict_acc")
