"""A recipe says by name what is wrong with it, and what to write instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.recipe import DpoRecipe, EvaluationRecipe, SftRecipe, parse_recipe
from mlintern.tools.scripts.render import render
from mlintern.tools.scripts.training_program import hyperparameters

SFT: dict[str, Any] = {"trainer": "sft", "model": "Qwen/Qwen3-0.6B", "dataset": "trl-lib/Capybara"}
GRPO: dict[str, Any] = {**SFT, "trainer": "grpo", "rewards": [{"kind": "exact_match"}]}
EVALUATION: dict[str, Any] = {**SFT, "trainer": "evaluation", "dataset": "cais/mmlu"}


def refusal(recipe: dict[str, Any]) -> str:
    with pytest.raises(BadInput) as caught:
        parse_recipe(recipe)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"modle": "x"}, "Did you mean model?"),
        ({"learning_rate": 1e-5}, "one of SFTConfig: put it into `hyperparameters`"),
        ({"warmup_ratio": 0.1}, "removed in transformers 5. Use warmup_steps"),
        ({"hyperparameters": {"lerning_rate": 1e-5}}, "Did you mean learning_rate"),
        ({"hyperparameters": {"max_seq_length": 512}}, "removed in TRL 0.20. Use max_length."),
        ({"hyperparameters": {"learning_rate": "1e-5"}}, "takes float, not str"),
        ({"hyperparameters": {"lr_scheduler_type": "cosin"}}, "Did you mean cosine"),
        ({"hyperparameters": {"packing": True, "max_length": None}}, "packing cuts the data"),
        ({"hyperparameters": {"output_dir": "x"}}, "output_dir is set by the script"),
        ({"hyperparameters": {"logging_nan_inf_filter": True}}, "would log a NaN loss as 0"),
        ({"hyperparameters": {"model_init_kwargs": {"dtype": "float32"}}}, "Set `dtype` and `revision`"),
        ({"hyperparameters": {"eval_strategy": "steps"}}, "Set validation_rows"),
        ({"hyperparameters": {"max_steps": 5}, "max_steps": 6}, "Keep the one in the recipe"),
        ({"epochs": 1, "max_steps": 5}, "Both epochs and max_steps"),
        ({"lora": {"rank": 8}}, "Did you mean r?"),
        ({"dtype": "float16"}, "float16 weights cannot be trained"),
        ({"dataset": "no such thing"}, "neither a Hub id"),
        ({"model": "https://example.com/a/b"}, "no address of a Hub repository"),
        ({"prepare": "lambda row: row"}, "defines no function"),
        ({"prepare": "def f(row) return row"}, "is not Python"),
        ({"prepare": "import os\nos.remove('x')\ndef f(row):\n    return row"}, "would run when the script starts"),
        ({"prepare": "def f():\n    return {}"}, "called with 1"),
        ({"columns": {"prompt": "q", "completion": "q"}}, "two names"),
        ({"requirements": ["not a requirement!"]}, "is no requirement"),
        ({"push_to_hub": "../x"}, "push_to_hub"),
        ({"save_steps": 2.5}, "no whole number"),
        ({"evaluation": {"dataset": "trl-lib/Capybara"}}, "reads the training data"),
        ({"split": "train[:50%]", "evaluation": {"dataset": "trl-lib/Capybara"}}, "reads the training data"),
        (
            {"split": "train[:50%]", "evaluation": {"dataset": "trl-lib/Capybara", "split": "train[40%:60%]"}},
            "reads the training data",
        ),
        ({"epochs": float("inf")}, "epochs"),
        ({"save_steps": float("inf")}, "save_steps"),
        ({"hyperparameters": {"learning_rate": 10**400}}, "takes float"),
        ({"hyperparameters": {"max_length": 2**63}}, "takes int"),
        ({"requirements": ["trl==0.9"]}, "need trl==1.16.0"),
        ({"requirements": ["Huggingface-Hub<2"]}, "need Huggingface-Hub==2.4.0"),
        ({"evaluation": {"dataset": "a/b", "chat_template_kwargs": {"tokenize": True}}}, "names tokenize"),
        ({"evaluation": {"dataset": "a/b", "prompt": "Answer!"}}, "does not hold {question}"),
        ({"evaluation": {"dataset": "a/b", "shots": 1}}, "no field shots"),
    ],
)
def test_a_wrong_field_is_refused_with_what_to_do(change: dict[str, Any], expected: str) -> None:
    assert expected in refusal({**SFT, **change})


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({}, "has no `trainer`"),
        ({**SFT, "trainer": "sfd"}, "Did you mean sft?"),
        ({**SFT, "trainer": "ppo"}, "Use grpo or rloo."),
        ({**SFT, "trainer": "nash_md"}, "grpo with a reward function"),
        ({**SFT, "trainer": "distillation"}, "teacher"),
        ({**SFT, "freeze": {"embeddings": True}, "lora": {}}, "An adapter freezes"),
        ({**SFT, "push_every": 5}, "push_to_hub"),
        ({**SFT, "quantize": "nf4", "use_cpu": True}, "need a GPU"),
        ({**SFT, "lora": {"layers_to_transform": [1]}}, "all-linear"),
        ({**GRPO, "rewards": []}, "rewards"),
        ({**GRPO, "rewards": [{"kind": "exact_match", "weight": float("nan")}]}, "weight"),
        ({**GRPO, "rewards": [{"kind": "pattern", "pattern": "("}]}, "no regular expression"),
        ({**GRPO, "rewards": [{"kind": "python", "source": "def f(x):\n    return x"}]}, "has no **kwargs"),
        ({**GRPO, "hyperparameters": {"num_generations": 6}}, "(8 x 1 = 8) is not a multiple of num_generations (6)"),
        ({**GRPO, "hyperparameters": {"num_generations": 1}}, "nothing to be compared with"),
        (
            {**GRPO, "hyperparameters": {"generation_batch_size": 8, "steps_per_generation": 1}},
            "generation_batch_size and steps_per_generation are both set",
        ),
        ({**GRPO, "hyperparameters": {"auto_find_batch_size": True}}, "auto_find_batch_size"),
        ({**GRPO, "hyperparameters": {"max_prompt_length": 512}}, "Use `prepare` to shorten"),
        ({**GRPO, "hyperparameters": {"reward_weights": [1.0]}}, "its own `weight`"),
        (
            {**SFT, "trainer": "dpo", "hyperparameters": {"loss_weights": [1.0, 2.0]}},
            "2 loss_weights for 1 loss_type",
        ),
        ({**SFT, "trainer": "dpo", "hyperparameters": {"rpo_alpha": 1.0}}, '["sigmoid", "sft"]'),
        ({**EVALUATION, "kind": "exact_match", "extract": "("}, "no regular expression"),
        ({**EVALUATION, "kind": "exact_match", "prompt": "{question} {choices}"}, "is for multiple choice"),
        ({**EVALUATION, "kind": "generate"}, "kind"),
    ],
)
def test_a_wrong_recipe_is_refused_with_what_to_do(recipe: dict[str, Any], expected: str) -> None:
    assert expected in refusal(recipe)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    message = refusal({**SFT, "seed": -1, "hyperparameters": {"lerning_rate": 1, "warmup_ratio": 0.1}, "limit": 0})
    assert "seed" in message and "limit" in message


def test_a_wrong_recipe_is_a_validation_error_for_those_who_construct_it() -> None:
    with pytest.raises(ValidationError, match="packing cuts the data"):
        SftRecipe.model_validate({**SFT, "hyperparameters": {"packing": True, "max_length": None}})


def test_hyperparameters_that_belong_to_the_recipe_are_moved_there() -> None:
    recipe = parse_recipe({**SFT, "hyperparameters": {"max_steps": 7, "seed": 3, "learning_rate": 1e-5}})
    assert isinstance(recipe, SftRecipe)
    assert (recipe.max_steps, recipe.seed, recipe.hyperparameters) == (7, 3, {"learning_rate": 1e-5})


def test_what_the_script_sets_anyway_may_be_repeated() -> None:
    recipe = parse_recipe({**SFT, "hyperparameters": {"logging_nan_inf_filter": False, "disable_tqdm": True}})
    assert isinstance(recipe, SftRecipe)
    assert "disable_tqdm" not in hyperparameters(recipe)


def test_dpo_takes_its_loss_as_text_or_list() -> None:
    for loss in ("ipo", ["ipo"]):
        recipe = parse_recipe({**SFT, "trainer": "dpo", "hyperparameters": {"loss_type": loss}})
        assert isinstance(recipe, DpoRecipe)


@pytest.mark.parametrize(
    "pasted",
    [
        "https://huggingface.co/datasets/cais/mmlu",
        "https://huggingface.co/datasets/cais/mmlu/viewer/all",
        " cais/mmlu ",
    ],
)
def test_a_hub_dataset_may_be_given_as_people_paste_it(pasted: str) -> None:
    assert parse_recipe({**EVALUATION, "dataset": pasted}).dataset == "cais/mmlu"


def test_a_relative_path_becomes_absolute_for_the_job_runs_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    recipe = parse_recipe({**SFT, "model": "org/model", "dataset": "train.jsonl"})
    assert recipe.model == str(tmp_path / "org" / "model")
    assert recipe.dataset == str(tmp_path / "train.jsonl")


def test_weights_are_float32_and_bfloat16_under_an_adapter() -> None:
    full, adapter = render(parse_recipe(SFT)).text, render(parse_recipe({**SFT, "lora": {}})).text
    assert 'DTYPE = "float32"\n' in full and '{"dtype": DTYPE' in full
    assert 'dtype = DTYPE or ("bfloat16" if BF16 else "float32")' in adapter  # as the device computes
    given = render(parse_recipe({**SFT, "lora": {}, "dtype": "float32"})).text
    assert 'DTYPE = "float32"\n' in given and '{"dtype": DTYPE' in given


def test_learning_rates_and_batches_are_those_of_the_trainer_in_full_or_with_an_adapter() -> None:
    full, adapter = parse_recipe(SFT), parse_recipe({**SFT, "lora": {}})
    assert not isinstance(full, EvaluationRecipe) and not isinstance(adapter, EvaluationRecipe)
    assert hyperparameters(full)["learning_rate"] == 2e-5  # type: ignore[arg-type]
    assert hyperparameters(adapter)["learning_rate"] == 2e-4  # type: ignore[arg-type]
    best = parse_recipe({**SFT, "validation_rows": 9, "hyperparameters": {"load_best_model_at_end": True}})
    found = hyperparameters(best)  # type: ignore[arg-type]
    assert found["save_steps"] == found["eval_steps"] == 0.2  # what is saved was evaluated


def test_an_evaluation_of_the_training_data_reads_the_rows_that_are_held_out() -> None:
    plan = {"dataset": SFT["dataset"], "split": "train"}
    recipe = parse_recipe({**SFT, "split": "train", "holdout": {"rows": 50, "seed": 3}, "evaluation": plan})
    text = render(recipe).text
    assert 'rows = rows.shuffle(seed=HOLDOUT["seed"]).select(range(HOLDOUT["rows"]))' in text
    assert 'rows.shuffle(seed=HOLDOUT["seed"]).select(range(held, len(rows)))' in text
    alone = render(
        parse_recipe({"trainer": "evaluation", "model": "a/b", **plan, "holdout": {"rows": 50, "seed": 3}})
    )
    drawn = 'HOLDOUT = {\n    "rows": 50,\n    "seed": 3,\n}'
    assert drawn in alone.text and drawn in text


def test_an_adapter_takes_every_field_of_peft() -> None:
    recipe = parse_recipe({**SFT, "lora": {"r": 8, "use_rslora": True, "target_modules": ["q_proj"]}})
    assert not isinstance(recipe, EvaluationRecipe) and recipe.lora is not None
    assert recipe.lora.model_dump()["use_rslora"] is True


@pytest.mark.parametrize("pattern", [r"(-?[\d.,]*)", "x*", "", "a|", r"\b|x", "(?:answer is )?(.*)"])
def test_a_pattern_that_finds_an_answer_in_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(BadInput, match="matches the empty text"):
        parse_recipe({**EVALUATION, "kind": "exact_match", "extract": pattern})


def test_an_evaluation_scores_the_test_split_and_shows_examples_of_another() -> None:
    recipe = parse_recipe({**EVALUATION, "kind": "exact_match", "fewshot": 3})
    assert isinstance(recipe, EvaluationRecipe)
    assert (recipe.scored_split, recipe.examples_from) == ("test", ("cais/mmlu", "train"))
    recipe = parse_recipe({**EVALUATION, "split": "validation", "fewshot": 3, "fewshot_split": "dev"})
    assert isinstance(recipe, EvaluationRecipe)
    assert (recipe.scored_split, recipe.examples_from) == ("validation", ("cais/mmlu", "dev"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"scorer": "numbers"}, "no scorer 'numbers'"),
        ({"scorer": "lambda a, b: 1"}, "defines no function"),
        ({"scorer": "def f(answer):\n    return 1"}, "will be called with 2"),
        ({"scorer": "likelihood", "kind": "exact_match"}, "for multiple choice"),
        ({"scorer": "numeric", "kind": "multiple_choice"}, "judges written answers"),
        ({"scorer": "judge"}, "go together"),
        ({"kind": "exact_match", "samples": 8}, "at temperature 0"),
        ({"kind": "exact_match", "json_schema": {"type": "object"}}, "is for the scorer json"),
        ({"engine": "endpoint"}, "needs an address"),
        ({"endpoint": {"url": "http://127.0.0.1:1/v1"}}, "no likelihoods"),
        ({"kind": "exact_match", "endpoint": {"url": "ftp://x/v1"}}, "url"),
        ({"kind": "exact_match", "endpoint": {"url": "http://me:secret@x/v1"}}, "url"),
        ({"kind": "exact_match", "endpoint": {"url": "http://x/v1", "max_usd": 1}}, "usd_per_million"),
        ({"kind": "exact_match", "endpoint": {"url": "http://x/v1", "key_variable": "sk-12345"}}, "key_variable"),
    ],
)
def test_what_an_evaluation_cannot_do_is_refused_with_what_to_write_instead(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        parse_recipe({**EVALUATION, **fields})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"verifier": "reward_model", "keep": "best"}, "go together"),
        ({"verifier": "exact", "reward_model": "o/rm", "keep": "best"}, "go together"),
        ({"verifier": "reward_model", "reward_model": "o/rm"}, "none of them means"),
        ({"verifier": "reward_model", "reward_model": "o/rm", "keep": "labels"}, "none of them means"),
        (
            {"verifier": "reward_model", "reward_model": "o/rm", "keep": "best", "threshold": 0.5},
            "none of them means",
        ),
    ],
)
def test_a_reward_model_says_which_answer_is_better_and_never_which_is_right(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        parse_recipe({"trainer": "generate", "model": "o/m", "prompts": ["Write a poem."], **fields})
