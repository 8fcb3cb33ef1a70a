from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mlintern.tools.runs.recipes import differences, flat, shown, summary

settings = st.dictionaries(
    st.sampled_from("abcde"), st.integers(0, 3) | st.dictionaries(st.sampled_from("xy"), st.integers(0, 2))
)


def test_only_what_differs_is_told_for_each_run() -> None:
    shared, apart = differences(
        [
            {"trainer": "sft", "seed": 0, "hyperparameters": {"learning_rate": 1e-3, "warmup_steps": 5}},
            {
                "trainer": "sft",
                "seed": 0,
                "hyperparameters": {"learning_rate": 1e-4, "warmup_steps": 5},
                "lora": {"r": 8},
            },
            None,
        ]
    )
    assert shared == {"trainer": "sft", "seed": 0, "hyperparameters.warmup_steps": 5}
    assert apart == [
        {"hyperparameters.learning_rate": 1e-3},
        {"hyperparameters.learning_rate": 1e-4, "lora.r": 8},
        {},
    ]


@given(recipes=st.lists(settings, max_size=5))
def test_what_is_shared_and_what_is_apart_make_up_each_recipe(recipes: list[dict[str, Any]]) -> None:
    shared, apart = differences(recipes)
    for recipe, own in zip(recipes, apart, strict=True):
        if flat(recipe):
            assert shared | own == flat(recipe)
            assert not shared.keys() & own.keys()


def test_a_recipe_in_a_line_names_a_jobs_model_by_its_job() -> None:
    recipe = {
        "trainer": "dpo",
        "model": "/w/jobs/job-1/output/model",
        "dataset": "org/pairs",
        "epochs": 1.0,
        "lora": {},
    }
    assert summary(recipe, "x") == "dpo model of job-1 on pairs 1 epochs LoRA"
    assert summary(None, "my-script") == "my-script"


def test_a_long_value_is_cut_visibly() -> None:
    assert shown("/a" * 60).startswith("...")
    assert shown("prompt " * 20).endswith("…")
    assert shown(0.0015) == "0.0015"
