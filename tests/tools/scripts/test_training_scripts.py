"""Rendered scripts really train, on a model of a few thousand parameters, and leave what they promise."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.jobs.backends.script_launch import spread
from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.render import render
from tests.tools.scripts.conftest import Materials, Run

pytestmark = pytest.mark.slow

Runner = Callable[[Mapping[str, Any]], Run]
BATCH = {"per_device_train_batch_size": 8, "learning_rate": 1e-3, "logging_steps": 1}


def plan(materials: Materials, **more: Any) -> dict[str, Any]:
    return {
        "dataset": str(materials.questions),
        "prompt": "{question}",
        "batch_size": 50,
        "max_new_tokens": 4,
        "limit": 100,
        **more,
    }


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32")


def check_trained(done: Run, *, trainer: str, steps: int) -> None:
    """Exit 0, the rows of the contract in file and log alike, a saved model that loads."""
    assert done.code == 0, done.log[-3000:]
    assert done.marked == done.rows
    begin, end = done.of_kind("begin")[0], done.rows[-1]
    assert (begin["trainer"], begin["total_steps"]) == (trainer, steps)
    assert (end["kind"], end["status"], end["step"], end["model_path"]) == ("end", "completed", steps, "model")
    metrics = [row for row in done.of_kind("metrics") if "loss" in row["values"]]
    assert [row["step"] for row in metrics] == list(range(1, steps + 1))
    assert all(row["v"] == 1 and row["total_steps"] == steps and row["epoch"] > 0 for row in metrics)
    kept = done.of_kind("checkpoint")[-2:]
    assert kept[-1]["step"] == steps
    assert all((done.output / row["path"] / "trainer_state.json").is_file() for row in kept)
    load(done.output / "model")


def test_sft_trains_on_messages_and_measures_itself_at_the_end(run: Runner, materials: Materials) -> None:
    done = run(
        {
            "trainer": "sft",
            "name": "first try",
            "model": str(materials.model),
            "dataset": str(materials.sft),
            "max_steps": 4,
            "save_steps": 2,
            "validation_rows": 8,
            "hyperparameters": {**BATCH, "eval_strategy": "steps", "eval_steps": 2},
            "evaluation": plan(materials),
        }
    )
    check_trained(done, trainer="sft", steps=4)
    assert done.of_kind("begin")[0]["script"] == "first try"
    assert [row["step"] for row in done.of_kind("checkpoint")] == [2, 4]
    assert any("eval_loss" in row["values"] for row in done.of_kind("metrics"))
    (row,) = done.of_kind("evaluation")
    assert json.loads((done.output / row["path"]).read_text()) == row["evaluation"]
    assert row["evaluation"]["model"] == str(done.output / "model")
    assert [result["n"] for result in row["evaluation"]["rows"]] == [100, 100]
    assert len((done.output / "samples.jsonl").read_text().splitlines()) == 100


def test_by_the_clock_evaluations_and_checkpoints_come_by_the_clock_too(run: Runner, materials: Materials) -> None:
    done = run(
        {
            "trainer": "sft",
            "model": str(materials.model),
            "dataset": str(materials.sft),
            "max_minutes": 0.2,
            "validation_rows": 4,
            "hyperparameters": {**BATCH, "load_best_model_at_end": True},
        }
    )
    assert done.code == 0, done.log[-3000:]
    evaluated = [row["step"] for row in done.of_kind("metrics") if "eval_loss" in row["values"]]
    saved = [row["step"] for row in done.of_kind("checkpoint")]
    last = done.rows[-1]["step"]
    assert 2 <= len(evaluated) <= 6 and evaluated[-1] == last  # every fifth, and the model that is there at the end
    assert saved == evaluated
    state = json.loads((done.output / f"checkpoint-{saved[-1]}" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"].rsplit("-", 1)[-1] in map(str, saved)
    assert last < state["max_steps"]


def test_an_adapter_is_saved_beside_a_model_that_has_it_merged_in(run: Runner, materials: Materials) -> None:
    done = run(
        {
            "trainer": "sft",
            "model": str(materials.model),
            "dataset": str(materials.sft),
            "max_steps": 2,
            "dtype": "float32",
            "lora": {"r": 4, "lora_alpha": 64},
            "hyperparameters": {**BATCH, "learning_rate": 1e-2},
            "prepare": ('def prepare(row):\n    return {"prompt": row["prompt"], "completion": row["completion"]}\n'),
        }
    )
    check_trained(done, trainer="sft", steps=2)
    assert (done.output / "adapter" / "adapter_model.safetensors").is_file()
    before, after = load(materials.model).state_dict(), load(done.output / "model").state_dict()
    assert set(before) == set(after)
    assert any(not before[name].equal(after[name]) for name in before)


def test_dpo_trains_on_preferences(run: Runner, materials: Materials) -> None:
    done = run(
        {
            "trainer": "dpo",
            "model": str(materials.model),
            "dataset": str(materials.dpo),
            "max_steps": 3,
            "hyperparameters": {**BATCH, "beta": 0.3},
        }
    )
    check_trained(done, trainer="dpo", steps=3)
    assert "rewards/margins" in done.of_kind("metrics")[0]["values"]


def test_grpo_trains_on_rewards_and_measures_itself_at_the_end(run: Runner, materials: Materials) -> None:
    done = run(
        {
            "trainer": "grpo",
            "model": str(materials.model),
            "dataset": str(materials.grpo),
            "max_steps": 3,
            "hyperparameters": {**BATCH, "num_generations": 4, "max_completion_length": 4},
            "rewards": [
                {"kind": "exact_match", "weight": 2.0},
                {"kind": "pattern", "pattern": "[A-J]"},
                {
                    "kind": "python",
                    "source": "def brief(completions, **kwargs):\n"
                    '    return [-len(turns[-1]["content"]) / 100 for turns in completions]\n',
                },
            ],
            "evaluation": plan(materials, kind="exact_match", answer_column="letter", limit=20)
            | {"prepare": 'def with_letter(row):\n    return {**row, "letter": "ABCDEFGHIJ"[row["answer"]]}\n'},
        }
    )
    check_trained(done, trainer="grpo", steps=3)
    values = done.of_kind("metrics")[0]["values"]
    assert {"rewards/exact_match/mean", "rewards/pattern/mean", "rewards/brief/mean"} <= set(values)
    expected = 2 * values["rewards/exact_match/mean"] + values["rewards/pattern/mean"] + values["rewards/brief/mean"]
    assert values["reward"] == pytest.approx(expected, abs=1e-5)
    (row,) = done.of_kind("evaluation")[0]["evaluation"]["rows"]
    assert (row["metric"], row["filter"], row["n"]) == ("exact_match", "greedy", 20)


def test_a_nan_loss_is_reported_as_nan(run: Runner, materials: Materials) -> None:
    done = run(
        {
            "trainer": "sft",
            "model": str(materials.model),
            "dataset": str(materials.sft),
            "max_steps": 4,
            "save_steps": 0,
            "hyperparameters": {**BATCH, "learning_rate": 1e30, "max_grad_norm": 0.0},
        }
    )
    assert done.code == 0, done.log[-3000:]
    losses = [row["values"]["loss"] for row in done.of_kind("metrics") if "loss" in row["values"]]
    assert losses[-1] == "NaN"
    assert done.marked == done.rows
    assert not list(done.output.glob("checkpoint-*"))


def test_a_script_started_again_goes_on_from_its_last_whole_checkpoint(run: Runner, materials: Materials) -> None:
    recipe = {
        "trainer": "sft",
        "model": str(materials.model),
        "dataset": str(materials.sft),
        "max_steps": 4,
        "save_steps": 2,
        "hyperparameters": BATCH,
    }
    first = run(recipe)
    assert first.code == 0, first.log[-3000:]
    trained = load(first.output / "model").state_dict()
    shutil.rmtree(first.output / "model")
    (first.output / "checkpoint-4" / "trainer_state.json").unlink()  # as if the machine had died while saving it
    again = run(recipe)
    assert again.code == 0, again.log[-3000:]
    steps = [row["step"] for row in again.marked if "loss" in row.get("values", {})]
    assert steps == [3, 4]
    resumed = load(again.output / "model").state_dict()
    assert all(trained[name].allclose(resumed[name], atol=1e-6) for name in trained)


def test_a_script_that_is_told_to_stop_saves_where_it_is_and_says_that_it_stopped(
    tmp_path: Path, environment: dict[str, str], materials: Materials
) -> None:
    recipe = {
        "trainer": "sft",
        "model": str(materials.model),
        "dataset": str(materials.sft),
        "max_steps": 1_000_000,
        "save_steps": 500_000,
        "hyperparameters": {**BATCH, "logging_steps": 5},
    }
    script = tmp_path / "script.py"
    script.write_text(render(parse_recipe(recipe)).text, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if '"kind": "metrics"' in line:
                    break
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
            assert process.wait(timeout=120) == 143
        finally:
            process.kill()
    done = Run(143, "", tmp_path / "output")
    end = done.rows[-1]
    assert (end["kind"], end["status"], end["model_path"]) == ("end", "stopped", None)
    (state,) = done.output.glob("checkpoint-*/trainer_state.json")
    assert json.loads(state.read_text())["global_step"] in (end["step"] - 1, end["step"])
    assert not (done.output / "model").exists()


def test_two_processes_train_one_model_and_one_of_them_reports(
    tmp_path: Path, environment: dict[str, str], materials: Materials
) -> None:
    """As backends start a script on a machine with several GPUs; here on two processes of the CPU."""
    recipe = {
        "trainer": "sft",
        "model": str(materials.model),
        "dataset": str(materials.sft),
        "max_steps": 3,
        "dtype": "float32",
        "lora": {"r": 4},
        "use_cpu": True,
        "hyperparameters": BATCH,
        "evaluation": plan(materials, limit=20),
    }
    script = tmp_path / "script.py"
    script.write_text(render(parse_recipe(recipe)).text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *spread(2), str(script)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        check=False,
    )
    found = Run(done.returncode, done.stdout.decode(), tmp_path / "output")
    check_trained(found, trainer="sft", steps=3)
    assert [len(found.of_kind(kind)) for kind in ("begin", "evaluation", "end")] == [1, 1, 1]
    steps = [row["step"] for row in found.of_kind("checkpoint")]
    assert steps == sorted(set(steps))
