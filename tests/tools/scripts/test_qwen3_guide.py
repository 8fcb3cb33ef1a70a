"""docs/post-training-qwen3.md from its first block to its last, with a tiny model and stand-in questions.

Needs inspect-ai: set MLINTERN_HARNESS_PYTHON to an interpreter that has it beside torch and transformers.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.evals.compare import compare_rows
from mlintern.tools.evals.read_files import SampleFiles, read_path
from mlintern.tools.scripts.checks import static_checks
from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.render import render
from tests.services import tiny_model
from tests.tools.scripts.conftest import Materials, Run
from tests.tools.scripts.test_harness_scripts import PYTHON, installed

GUIDE = Path(__file__).parents[3] / "docs" / "post-training-qwen3.md"
TEXT = GUIDE.read_text(encoding="utf-8")
RECIPES: list[dict[str, Any]] = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]
TASK = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[0]


def test_every_recipe_of_the_guide_is_rendered_without_a_complaint() -> None:
    assert [recipe["trainer"] for recipe in RECIPES] == ["evaluation", "generate", "sft", "evaluation"]
    for recipe in RECIPES:
        paths = {name: f"/jobs/{recipe[name]}" for name in ("model", "dataset") if "JOB" in recipe.get(name, "")}
        rendered = render(parse_recipe({**recipe, **paths}))
        errors = {check.rule for check in static_checks(rendered.text) if check.severity == "error"}
        assert errors <= {"absent_file"}  # what an earlier job will have written


@pytest.mark.real
@pytest.mark.slow
def test_the_guide_runs_from_its_first_step_to_its_last(
    run_afresh: Callable[[Mapping[str, Any]], Run],
    materials: Materials,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not installed("inspect_ai"):
        pytest.skip("inspect-ai is not installed")
    monkeypatch.setattr(sys, "executable", PYTHON)
    rows = [
        {
            "Record ID": f"rec{number}",
            "Question": item["question"],
            "Correct Answer": "A 24",
            **{f"Incorrect Answer {other}": f"B {other}0" for other in (1, 2, 3)},
        }
        for number, item in enumerate(tiny_model.questions(12, seed=5))
    ]
    (tmp_path / "gpqa_main.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    there = 'hf_dataset("Idavidrein/gpqa", name="gpqa_main", split="train", '
    local = TASK.replace(there, f"json_dataset({str(tmp_path / 'gpqa_main.jsonl')!r}, ")
    local = local.replace("hf_dataset", "json_dataset")
    (tmp_path / "gpqa_main.py").write_text(local)
    prompts = [
        {"question": item["question"], "correct_answer": tiny_model.LETTERS[item["answer"]]}
        for item in tiny_model.questions(60, seed=6)
    ]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    jobs: dict[str, Path] = {}
    for number, recipe in enumerate(RECIPES, start=1):
        given = json.loads(
            re.sub(r"JOB_(\d)/output", lambda job: str(jobs[job[1]]), json.dumps(recipe))
            .replace("Qwen/Qwen3-1.7B-Base", str(materials.model))
            .replace("/work/", f"{tmp_path}/")
            .replace("allenai/sciq", str(tmp_path / "prompts.jsonl"))
        )
        small = {"max_new_tokens": 4} if recipe["trainer"] != "sft" else {"max_steps": 2, "save_steps": 0}
        if recipe["trainer"] == "generate":  # an untrained model writes no ANSWER: line
            small |= {"extract": None, "keep": "all", "pass_rate": [0, 1], "keep_cut": True, "max_per_prompt": 4}
        given.pop("engine", None)
        given.pop("epochs", None)
        done = run_afresh({"use_cpu": True, **given, **small})
        assert done.code == 0, done.log[-3000:]
        jobs[str(number)] = done.output.rename(tmp_path / f"job-{number}")
    told = json.loads((jobs["2"] / "generation.json").read_text())["yield"]
    assert told["prompts"] == 60 and told["rows"] > 0
    before, after = read_path(jobs["1"]), read_path(jobs["4"])
    [row] = compare_rows(before.rows, after.rows, samples=SampleFiles()).rows
    assert row.verdict in ("no_evidence", "improved", "regressed") and row.n == 12
