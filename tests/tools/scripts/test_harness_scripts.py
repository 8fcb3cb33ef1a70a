"""Scripts that run a harness: rendered from a suite's settings, and run for real where the harness is installed.

Set MLINTERN_HARNESS_PYTHON to an interpreter that has lm_eval[hf] and inspect-ai beside torch and transformers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.errors import BadInput
from mlintern.tools.evals.read_files import SampleFiles, read_path
from mlintern.tools.evals.suites import SUITES
from mlintern.tools.scripts.checks import static_checks
from mlintern.tools.scripts.describe import describe_trainer
from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.render import render
from tests.services import tiny_model
from tests.tools.scripts.conftest import Materials, Run
from tests.tools.scripts.test_render import ruff

PYTHON = os.environ.get("MLINTERN_HARNESS_PYTHON", sys.executable)
PLAIN: dict[str, Any] = {"trainer": "evaluation", "model": "org/model"}
ENDPOINT = {"url": "http://127.0.0.1:8000/v1", "key_variable": "TEACHER_KEY"}
RECIPES: dict[str, dict[str, Any]] = {
    "lm_eval": {"harness": "lm_eval", "tasks": ["arc_easy"], "fewshot": 2, "temperature": 0.5, "limit": 10},
    "lm_eval, endpoint": {"harness": "lm_eval", "tasks": ["gsm8k"], "endpoint": ENDPOINT},
    "lm_eval, vllm": {"harness": "lm_eval", "tasks": ["humaneval"], "engine": "vllm", "revision": "abc"},
    "inspect": {"harness": "inspect", "tasks": ["task.py@mine"], "samples": 4, "temperature": 0.6},
    "inspect, endpoint": {"harness": "inspect", "tasks": ["inspect_evals/gsm8k"], "endpoint": ENDPOINT},
    "inspect, vllm": {"harness": "inspect", "tasks": ["inspect_evals/gsm8k"], "engine": "vllm"},
    "lighteval": {"harness": "lighteval", "tasks": ["gsm8k"], "fewshot": 5},
}


@pytest.mark.parametrize("recipe", [*({"suite": name} for name in SUITES), *RECIPES.values()])
def test_the_script_of_a_harness_is_clean_and_pins_it(recipe: dict[str, Any]) -> None:
    rendered = render(parse_recipe({**PLAIN, **recipe}))
    assert ruff("format", "--diff", source=rendered.text) == ""
    assert ruff("check", "--select", "E4,E7,E9,F,I,B,UP,SIM,RUF,PIE,PTH,C90", source=rendered.text) == ""
    assert static_checks(rendered.text) == []
    assert all("==" in requirement for requirement in rendered.requirements)


def test_a_cap_that_a_harness_would_not_keep_is_refused() -> None:
    for cap in ({"max_output_tokens": 5}, {"max_usd": 5, "usd_per_million": [1, 1]}):
        with pytest.raises(BadInput, match="not keep the caps"):
            parse_recipe({**PLAIN, "suite": "gsm8k", "endpoint": {**ENDPOINT, **cap}})


def test_a_suite_brings_its_settings_and_the_recipe_may_change_them() -> None:
    text = render(parse_recipe({**PLAIN, "suite": "ARC_Challenge"})).text
    assert "FEWSHOT = 25" in text and 'TASKS = ["arc_challenge"]' in text
    text = render(parse_recipe({**PLAIN, "suite": "arc-challenge", "fewshot": 0, "limit": 50})).text
    assert "FEWSHOT = 0" in text and "EVALUATION_LIMIT = 50" in text


def test_the_gate_of_gpqa_is_said_before_a_job_starts() -> None:
    for recipe in ({"suite": "gpqa-diamond"}, {"harness": "lm_eval", "tasks": ["gpqa_main_zeroshot"]}):
        text = render(parse_recipe({**PLAIN, **recipe})).text
        assert "Needs HF_TOKEN of an account that accepted the conditions of Idavidrein/gpqa" in text
    [found] = describe_trainer("evaluation", search="gpqa diamond inspect").suites
    assert "gated" not in found.about  # Inspect's own task reads another copy
    assert "accept the conditions" in describe_trainer("evaluation", search="gpqa main").suites[0].about


def test_suites_are_found_by_words() -> None:
    assert all(name in describe_trainer("evaluation").notes[-1] for name in SUITES)
    assert {suite.suite for suite in describe_trainer("evaluation", search="suite").suites} == set(SUITES)
    found = {suite.suite for suite in describe_trainer("evaluation", search="aime").suites}
    assert found == {"aime-2024", "aime-2025"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "Nothing says what is measured"),
        ({"suite": "gsm8k", "dataset": "a/b"}, "dataset and suite are given"),
        ({"suite": "gsm9k"}, "no suite 'gsm9k'"),
        ({"dataset": "a/b", "tasks": ["gsm8k"]}, "are for a harness"),
        ({"suite": "gsm8k", "extract": "(.+)"}, "decides extract"),
    ],
)
def test_what_is_measured_is_said_once(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        parse_recipe({**PLAIN, **fields})


def test_a_harness_without_tasks_is_refused() -> None:
    with pytest.raises(BadInput, match="needs tasks"):
        render(parse_recipe({**PLAIN, "harness": "lm_eval"}))


# --- the real harnesses ---------------------------------------------------------------------------------------------


def installed(module: str) -> bool:
    command = [PYTHON, "-c", f"import {module}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def local(run_afresh: Callable[[Mapping[str, Any]], Run], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    monkeypatch.setattr(sys, "executable", PYTHON)
    return lambda materials, **recipe: run_afresh(
        {"trainer": "evaluation", "model": str(materials.model), "use_cpu": True, "batch_size": 20, **recipe}
    )


LM_EVAL_TASK = """\
task: largest
dataset_path: json
dataset_kwargs:
  data_files:
    test: {path}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
metadata:
  version: 1.0
"""

INSPECT_TASK = """\
import json
from pathlib import Path
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import match
from inspect_ai.solver import generate


@task
def largest():
    rows = [json.loads(line) for line in Path({path!r}).read_text().splitlines()]
    samples = [
        Sample(id=row["id"], input=row["question"], target=row["choices"][row["answer"]]) for row in rows
    ]
    return Task(dataset=samples, solver=generate(), scorer=match(location="exact"))
"""


@pytest.mark.real
@pytest.mark.slow
def test_lm_eval_runs_a_local_task_and_its_results_are_read_with_samples(
    local: Callable[..., Run], materials: Materials, tmp_path: Path
) -> None:
    if not installed("lm_eval"):
        pytest.skip("lm-eval is not installed")
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "largest.yaml").write_text(LM_EVAL_TASK.format(path=materials.questions))
    done = local(materials, harness="lm_eval", tasks=["largest"], task_path=str(tasks), limit=40)
    assert done.code == 0, done.log[-3000:]
    [row] = read_path(done.output).rows
    assert (row.suite, row.task, row.metric, row.n) == ("lm-eval", "largest", "acc", 40)
    assert row.protocol["chat_template"] is None
    scores = SampleFiles()(row)
    assert scores is not None and sum(scores.values()) / 40 == pytest.approx(row.value)
    items = SampleFiles().items(row)
    assert items is not None and items[0].prompt is not None and "Which is largest" in items[0].prompt
    assert done.of_kind("metrics")[0]["values"]["largest/acc,none"] == row.value


@pytest.mark.real
@pytest.mark.slow
def test_inspect_runs_a_local_task_and_its_log_is_read_with_samples(
    local: Callable[..., Run], materials: Materials, tmp_path: Path
) -> None:
    if not installed("inspect_ai"):
        pytest.skip("inspect-ai is not installed")
    questions = tiny_model.write_rows(tmp_path / "few.jsonl", tiny_model.questions(20))
    (tmp_path / "task.py").write_text(INSPECT_TASK.format(path=str(questions)))
    done = local(
        materials,
        harness="inspect",
        tasks=[f"{tmp_path / 'task.py'}@largest"],
        max_new_tokens=4,
        samples=2,
        temperature=1.0,
    )
    assert done.code == 0, done.log[-3000:]
    [row] = read_path(done.output).rows
    assert (row.suite, row.task, row.metric, row.n) == ("inspect", "largest", "accuracy", 20)
    assert row.protocol["epochs"] == 2 and row.protocol["generation"]["temperature"] == 1.0
    files = SampleFiles()
    items = files.items(row)
    assert items is not None and len(items) == 20
    whole = files.whole(row, items[0])
    assert whole.answer is not None and whole.question is not None and "Which is largest" in whole.question
    assert json.loads(json.dumps(whole.model_dump()))["id"].startswith("item-0-")
