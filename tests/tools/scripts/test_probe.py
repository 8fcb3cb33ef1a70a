"""A probe: the script trains a few real steps, tells what they took, and keeps nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.tools.scripts.conftest import Materials, Run

pytestmark = pytest.mark.slow

Runner = Callable[[Mapping[str, Any]], Run]


def test_a_probe_stops_after_its_steps_and_tells_what_they_took(
    run: Runner, materials: Materials, environment: dict[str, str]
) -> None:
    environment["MLINTERN_PROBE_STEPS"] = "3"
    done = run(
        {
            "trainer": "sft",
            "model": str(materials.model),
            "dataset": str(materials.sft),
            "max_steps": 40,
            "validation_rows": 8,
            "push_to_hub": "nobody/nothing",
            "hyperparameters": {"per_device_train_batch_size": 2, "eval_strategy": "steps", "eval_steps": 1},
            "evaluation": {"dataset": str(materials.questions), "prompt": "{question}", "max_new_tokens": 4},
        }
    )
    assert done.code == 0, done.log[-2000:]
    (told,) = done.of_kind("measured")
    assert (told["steps"], told["total_steps"]) == (3, 40)
    assert 0 < told["seconds_per_step"] < told["startup_seconds"]
    assert 0.1 < told["peak_memory_gib"] < 8
    assert done.rows[-1] | {"time": 0} == {
        "v": 1, "kind": "end", "time": 0, "step": 3, "status": "completed", "model_path": None
    }  # fmt: skip
    assert not done.of_kind("evaluation") and not done.of_kind("checkpoint")
    assert not any(done.output.glob("model")) and not any(done.output.glob("checkpoint-*"))


def test_a_whole_run_tells_what_its_steps_took_too(run: Runner, materials: Materials) -> None:
    done = run(
        {"trainer": "sft", "model": str(materials.model), "dataset": str(materials.sft), "max_steps": 3,
         "save_steps": 0, "hyperparameters": {"logging_steps": 1}}
    )  # fmt: skip
    (told,) = done.of_kind("measured")
    assert (told["steps"], told["total_steps"]) == (3, 3)
    assert told["tokens_per_step"] > 10
