"""Every trainer really takes three steps: in full and with an adapter, on plain texts and on conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.render import render
from mlintern.tools.scripts.rendered import RENDERED
from mlintern.tools.scripts.trainers.advice import TRAINERS
from tests.services.preloaded import Preloaded
from tests.tools.scripts.conftest import Materials

pytestmark = pytest.mark.slow

RUNNER = """
import os, runpy, sys
for script, output in zip(sys.argv[1::2], sys.argv[2::2]):
    os.environ["MLINTERN_OUTPUT_DIR"] = output
    runpy.run_path(script, run_name="__main__")
"""
QUESTION, RIGHT, WRONG = "Which is largest ? A 24 B 51", "B", "A"


def said(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def row_for(trainer: str, number: int, *, conversational: bool) -> dict[str, Any]:
    """A row as the trainer takes it; the answer alternates, so that there is something to learn."""
    right, wrong = (RIGHT, WRONG) if number % 2 else (WRONG, RIGHT)
    prompt: Any = said("user", QUESTION) if conversational else QUESTION
    answers: Any = [said("assistant", text) if conversational else text for text in (right, wrong)]
    if trainer == "sft":
        return {"prompt": prompt, "completion": answers[0]}
    if trainer in ("dpo", "reward", "orpo", "cpo"):
        return {"prompt": prompt, "chosen": answers[0], "rejected": answers[1]}
    if trainer == "kto":
        return {"prompt": prompt, "completion": answers[0], "label": bool(number % 3)}
    if trainer == "gkd":
        return {"messages": [*said("user", QUESTION), *said("assistant", right)]}
    return {"prompt": prompt, "answer": right}


def recipe_for(trainer: str, materials: Materials, data: Path, *, lora: bool) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "logging_steps": 1,
    }
    recipe: dict[str, Any] = {
        "trainer": trainer,
        "model": str(materials.model),
        "dataset": str(data),
        "max_steps": 3,
        "save_steps": 0,
        "use_cpu": True,
        "hyperparameters": settings,
    }
    if lora:
        recipe |= {"lora": {"r": 4}}
    if trainer in ("grpo", "rloo", "online_dpo"):
        recipe["rewards"] = [{"kind": "exact_match"}, "length"]
    if trainer in ("grpo", "rloo"):
        settings |= {"num_generations": 4, "max_completion_length": 4}
    if trainer in ("online_dpo", "gkd"):
        settings |= {"max_new_tokens": 4}
    if trainer == "distillation":
        settings |= {"max_completion_length": 4}
    if trainer in ("gkd", "distillation"):
        recipe["teacher"] = str(materials.model)
    return recipe


@pytest.mark.parametrize("trainer", sorted(set(RENDERED) & set(TRAINERS)))
def test_it_trains_three_steps_and_saves_a_whole_model(
    trainer: str, materials: Materials, tmp_path: Path, environment: dict[str, str], preloaded: Preloaded
) -> None:
    arguments: list[str] = []
    for conversational in (False, True) if trainer != "gkd" else (True,):
        data = tmp_path / f"{conversational}.jsonl"
        rows = [row_for(trainer, number, conversational=conversational) for number in range(24)]
        data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        for lora in (False, True):
            script = tmp_path / f"{conversational}-{lora}.py"
            script.write_text(render(parse_recipe(recipe_for(trainer, materials, data, lora=lora))).text)
            arguments += [str(script), str(tmp_path / f"output-{conversational}-{lora}")]
    runner = tmp_path / "runner.py"
    runner.write_text(RUNNER)
    done = preloaded.run(runner, *arguments, folder=tmp_path, environment=environment, seconds=600)
    assert done.returncode == 0, done.stdout[-4000:]
    for output in map(Path, arguments[1::2]):
        reported = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        losses = [row["values"]["loss"] for row in reported if "loss" in row.get("values", {})]
        assert len(losses) == 3 and all(isinstance(loss, float) for loss in losses), output
        assert reported[-1]["status"] == "completed"
        assert (output / "model" / "config.json").is_file() and list((output / "model").glob("*.safetensors"))
        assert (output / "adapter").exists() is output.name.endswith("True")
