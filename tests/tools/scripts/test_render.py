"""A rendered script is Python that says exactly what the recipe says, and reads as a person would write it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.checks import static_checks
from mlintern.tools.scripts.recipe import EvaluationRecipe, parse_recipe
from mlintern.tools.scripts.render import TESTED, render

HOSTILE = st.text(min_size=1, max_size=40) | st.sampled_from(
    [
        '"""',
        "'''",
        "\\",
        "\n",
        "a\"b'c",
        "{{ MODEL }}",
        "{% raw %}",
        "{#",
        "%s {0} {question}",
        "# ///",
        "x\r\ny",
        "‮\u2028",
        "\0",
        "日本語 é 🦊",
        "import os; os.remove('x')",
    ]
)
PLAIN = {"trainer": "sft", "model": "Qwen/Qwen3-0.6B", "dataset": "trl-lib/Capybara"}
MEASURE: dict[str, Any] = {"dataset": "cais/mmlu", "dataset_config": "all", "split": "test"}
PREPARE = '''import re

from zlib import crc32


def prepare(row):
    """Keep it short."""
    return {"text": re.sub(r"\\s+", " ", row["text"])[: crc32(b"")]}
'''
REWARD = "def short(completions, **kwargs):\n    return [float(len(text) < 9) for text in completions]\n"
RECIPES: dict[str, dict[str, Any]] = {
    "plain sft": PLAIN,
    "sft, judged at the end": {
        **PLAIN,
        "evaluation": {
            "dataset": "org/held-out",
            "scorer": "judge",
            "judge": {
                "endpoint": {"url": "https://x/v1", "max_usd": 1, "usd_per_million": [1, 2]},
                "model": "j",
                "rubric": "r",
            },
        },
    },
    "sft with everything": {
        **PLAIN,
        "name": "all of it",
        "revision": "main",
        "dataset_config": "x",
        "columns": {"messages": "chat"},
        "prepare": PREPARE,
        "limit": 100,
        "validation_rows": 10,
        "lora": {"r": 8, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]},
        "hyperparameters": {"model_init_kwargs": {"attn_implementation": "sdpa"}, "bf16": True, "packing": True},
        "evaluation": {**MEASURE, "limit": 200, "fewshot": 2, "chat_template_kwargs": {"enable_thinking": False}},
        "push_to_hub": "me/model",
        "resume_from_checkpoint": "/somewhere/checkpoint-5",
        "max_steps": 40,
    },
    "sft without checkpoints": {**PLAIN, "save_steps": 0, "resume": False, "use_cpu": True, "epochs": 2.5},
    "dpo": {
        **PLAIN,
        "trainer": "dpo",
        "hyperparameters": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1, 0.5]},
    },
    "grpo": {**PLAIN, "trainer": "grpo", "rewards": [{"kind": "exact_match"}]},
    "grpo with many rewards": {
        **PLAIN,
        "trainer": "grpo",
        "prepare": "def as_prompt(row):\n    return {**row, 'prompt': row['question']}\n".replace("'", '"'),
        "rewards": [
            {"kind": "exact_match", "column": "solution"},
            {"kind": "exact_match", "column": "other solution", "weight": 0.5},
            {"kind": "pattern", "pattern": r"(?s)^<think>.*</think>"},
            {"kind": "pattern", "pattern": r"\d"},
            {"kind": "python", "source": REWARD},
        ],
        "evaluation": {**MEASURE, "kind": "exact_match", "extract": r"#### (.*)", "ignore_case": True},
    },
    "sft by the clock": {
        **PLAIN,
        "max_minutes": 10,
        "holdout": {"rows": 50},
        "freeze": {"embeddings": True, "layers_below": 2},
        "filter": "def keep(row):\n    return True\n",
        "push_to_hub": "me/model",
        "push_every": 10,
        "evaluation": {"dataset": "trl-lib/Capybara", "scorer": "likelihood", "kind": "multiple_choice"},
    },
    "sft on some rows": {**PLAIN, "limit": 100, "columns": {"text": "body"}},
    "a mixture": {
        "trainer": "sft",
        "model": PLAIN["model"],
        "limit": 1000,
        "filter": "def every(row):\n    return True\n",
        "datasets": [
            {"dataset": "a/b", "prepare": "def prepare(row):\n    return row\n", "holdout": {"rows": 5}},
            {"dataset": "a/b", "prepare": "def prepare(row):\n    return dict(row)\n", "weight": 0.1},
            {"dataset": "c/d", "rows": 100, "columns": {"text": "body"}},
        ],
    },
    "prompts of several sets": {
        "trainer": "grpo",
        "model": PLAIN["model"],
        "mix": "concatenate",
        "rewards": ["accuracy"],
        "datasets": [{"dataset": "a/b", "weight": 1}, {"dataset": "c/d", "weight": 2}],
    },
    "qlora": {**PLAIN, "quantize": "nf4"},
    "zero3": {**PLAIN, "scale": "zero3"},
    "fsdp2": {**PLAIN, "scale": "fsdp2", "lora": {}, "evaluation": MEASURE},
    **{name: {**PLAIN, "trainer": name} for name in ("kto", "reward", "orpo", "cpo")},
    **{name: {**PLAIN, "trainer": name, "teacher": "a/b"} for name in ("distillation", "gkd")},
    **{
        name: {
            **PLAIN,
            "trainer": name,
            "rewards": ["accuracy", "format", "length", "code", {"kind": "reward_model", "model": "a/b"}],
        }
        for name in ("rloo", "online_dpo")
    },
    "multiple choice": {**PLAIN, "trainer": "evaluation", **MEASURE, "system": "Be brief."},
    "texts of options": {**PLAIN, "trainer": "evaluation", **MEASURE, "prompt": "{question}"},
    "filled prompt": {**PLAIN, "trainer": "evaluation", **MEASURE, "prompt": "Q: {question}\nA:"},
    "exact match": {**PLAIN, "trainer": "evaluation", **MEASURE, "kind": "exact_match", "limit": 50},
    "prepared items": {
        **PLAIN,
        "trainer": "evaluation",
        **MEASURE,
        "prepare": 'def item(row):\n    return {**row, "answer": int(row["label"])}\n',
    },
}


def ruff(*arguments: str, source: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments, "--isolated", "-"],
        input=source.encode(),
        capture_output=True,
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout.decode() + done.stderr.decode()


@pytest.mark.parametrize("name", RECIPES)
def test_ruff_has_nothing_to_say(name: str) -> None:
    text = render(parse_recipe(RECIPES[name])).text
    assert ruff("format", "--diff", source=text) == ""
    assert ruff("check", "--select", "E4,E7,E9,F,I,B,UP,SIM,RUF,PIE,PTH,C90", source=text) == ""


@pytest.mark.parametrize("name", RECIPES)
def test_our_own_checks_have_nothing_to_say(name: str) -> None:
    assert static_checks(render(parse_recipe(RECIPES[name])).text) == []


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_a_local_file_is_loaded_by_its_builder(suffix: str) -> None:
    text = render(parse_recipe({**PLAIN, "dataset": f"/data/train.{suffix}"})).text
    builder = {"jsonl": "json"}.get(suffix, suffix)
    assert f'load_dataset("{builder}", data_files=DATASET, split=SPLIT)' in text
    assert ruff("format", "--diff", source=text) == ""


def test_saved_datasets_are_loaded_from_disk(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    for name in ("state.json", "dataset_info.json"):
        (tmp_path / "one" / name).write_text("{}")
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "dataset_dict.json").write_text("{}")
    one = render(parse_recipe({**PLAIN, "dataset": str(tmp_path / "one")})).text
    many = render(parse_recipe({**PLAIN, "dataset": str(tmp_path / "many"), "split": "test"})).text
    assert "load_from_disk(DATASET)\n" in one
    assert "load_from_disk(DATASET)[SPLIT]\n" in many and 'SPLIT = "test"' in many


def test_versions_are_exact_and_peft_is_asked_for_only_when_used() -> None:
    plain, adapter = render(parse_recipe(PLAIN)), render(parse_recipe({**PLAIN, "lora": {}}))
    assert all("==" in requirement for requirement in plain.requirements)
    assert f"trl=={TESTED['trl']}" in plain.requirements
    assert not any("peft" in requirement for requirement in plain.requirements)
    assert f"peft=={TESTED['peft']}" in adapter.requirements
    extra = render(parse_recipe({**PLAIN, "requirements": ["math-verify==0.8.0"]}))
    assert "math-verify==0.8.0" in extra.requirements and '"math-verify==0.8.0"' in extra.text


def test_a_nan_loss_is_not_filtered_and_no_progress_bar_garbles_the_log() -> None:
    text = render(parse_recipe(PLAIN)).text
    assert "logging_nan_inf_filter=False" in text
    assert "disable_tqdm=True" in text
    assert "enable_jit_checkpoint=True" in text


@pytest.mark.parametrize("name", RECIPES)
def test_every_script_can_be_tried_with_other_settings(name: str) -> None:
    text = render(parse_recipe(RECIPES[name])).text
    head = text[: text.index("def ")]
    assert head.count("MLINTERN_DRY_RUN") == 2, "it reads them once, at its top, after its own"
    assert head.index("MODEL = ") < head.index("MLINTERN_DRY_RUN")


def test_rendering_twice_gives_the_same_text() -> None:
    for recipe in RECIPES.values():
        assert render(parse_recipe(recipe)) == render(parse_recipe(recipe))


@pytest.mark.parametrize(
    "snippet",
    [
        "def main(row):\n    return row",
        "def report(row):\n    return row",
        "SEED = 3\n\n\ndef f(row):\n    return row",
        "import numpy as json\n\n\ndef f(row):\n    return row",
    ],
)
def test_a_snippet_that_hides_a_part_of_the_script_is_refused(snippet: str) -> None:
    with pytest.raises(BadInput, match="Two parts of the script"):
        render(parse_recipe({**PLAIN, "prepare": snippet}))


def constants(text: str) -> dict[str, Any]:
    """What the constants at the top of a script evaluate to."""
    values = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                values[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return values


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(HOSTILE, min_size=12, max_size=12))
def test_hostile_values_in_training_recipes_come_out_as_they_went_in(words: list[str]) -> None:
    recipe = parse_recipe(
        {
            "trainer": "grpo",
            "name": words[0],
            "model": f"/models/{words[1]}",
            "revision": words[2],
            "dataset": f"/data/{words[3]}.jsonl",
            "columns": {words[4]: words[5]},
            "hyperparameters": {"run_name": words[6], "generation_kwargs": {words[7]: words[7]}},
            "rewards": [
                {"kind": "exact_match", "column": words[8]},
                {"kind": "pattern", "pattern": re.escape(words[9])},
            ],
            "evaluation": {"dataset": f"/data/{words[10]}.csv", "system": words[11], "limit": 3},
        }
    )
    assert not isinstance(recipe, EvaluationRecipe) and recipe.evaluation is not None
    text = render(recipe).text
    compile(text, "script.py", "exec")
    found = constants(text)
    expected = {
        "NAME": words[0],
        "MODEL": recipe.model,
        "REVISION": words[2],
        "DATASET": recipe.dataset,
        "COLUMNS": {words[5]: words[4]},
        "EXACT_MATCH_COLUMN": words[8],
        "PATTERN": re.escape(words[9]),
        "EVALUATION_DATASET": recipe.evaluation.dataset,
        "SYSTEM": words[11],
    }
    assert {name: found[name] for name in expected} == expected
    assert found["HYPERPARAMETERS"]["run_name"] == words[6]
    assert found["HYPERPARAMETERS"]["generation_kwargs"] == {words[7]: words[7]}


@settings(max_examples=40, deadline=None)
@given(st.lists(HOSTILE, min_size=8, max_size=8))
def test_hostile_values_in_evaluation_recipes_come_out_as_they_went_in(words: list[str]) -> None:
    recipe = parse_recipe(
        {
            "trainer": "evaluation",
            "model": f"/models/{words[0]}",
            "dataset": f"/data/{words[1]}.parquet",
            "task": words[2],
            "split": words[3],
            "question_column": words[4],
            "choices_column": words[5],
            "answer_column": words[6],
            "prompt": words[7] + "{question}",
        }
    )
    text = render(recipe).text
    compile(text, "script.py", "exec")
    found = constants(text)
    assert [found[name] for name in ("TASK", "EVALUATION_SPLIT", "QUESTION_COLUMN")] == words[2:5]
    assert [found[name] for name in ("CHOICES_COLUMN", "ANSWER_COLUMN", "PROMPT")] == [
        words[5],
        words[6],
        words[7] + "{question}",
    ]
    assert (found["MODEL"], found["EVALUATION_DATASET"]) == (recipe.model, recipe.dataset)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(alphabet="ab'\"\\\n{}%#é中 ", min_size=1, max_size=90), min_size=6, max_size=6))
def test_awkward_values_leave_nothing_for_ruff_to_change(words: list[str]) -> None:
    recipe = {
        **PLAIN,
        "name": words[0],
        "model": f"/m/{words[1]}",
        "columns": {words[2]: words[3]},
        "evaluation": {**MEASURE, "system": words[4], "chat_template_kwargs": {words[5]: words}},
    }
    assert ruff("format", "--diff", source=render(parse_recipe(recipe)).text) == ""
