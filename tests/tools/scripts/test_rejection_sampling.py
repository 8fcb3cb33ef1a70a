"""A half-trained model writes answers, a verifier keeps the right ones, and training on those makes it better."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.evals.compare import compare_rows
from mlintern.tools.evals.read_files import SampleFiles, read_path
from tests.services import tiny_model
from tests.tools.scripts.conftest import Run

pytestmark = pytest.mark.slow
TRAINING = {"learning_rate": 1.5e-3, "per_device_train_batch_size": 64, "lr_scheduler_type": "constant"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("trl")
    tiny_model.make_tiny_model(tmp_path / "base", hidden=64)
    tiny_model.write_rows(tmp_path / "sft.jsonl", tiny_model.sft_rows(8_000, seed=1))
    tiny_model.write_rows(tmp_path / "prompts.jsonl", tiny_model.grpo_rows(2_500, seed=2))
    tiny_model.write_rows(tmp_path / "held_out.jsonl", tiny_model.questions(600, seed=3))
    return tmp_path


def test_rejection_sampling_beats_the_model_that_wrote_the_answers(
    folder: Path, run: Callable[[Mapping[str, Any]], Run]
) -> None:
    def done(recipe: Mapping[str, Any], name: str) -> Path:
        found = run({"use_cpu": True, **recipe})
        assert found.code == 0, found.log[-3000:]
        return found.output.rename(folder / name)

    def train(model: Path, dataset: Path, *, steps: int, name: str) -> Path:
        recipe = {"trainer": "sft", "max_steps": steps, "hyperparameters": TRAINING, "save_steps": 0}
        return done({**recipe, "model": str(model), "dataset": str(dataset)}, name) / "model"

    def measure(model: Path, name: str) -> Path:
        recipe = {"trainer": "evaluation", "prompt": "{question}", "scorer": "likelihood", "batch_size": 100}
        return done({**recipe, "model": str(model), "dataset": str(folder / "held_out.jsonl")}, name)

    half = train(folder / "base", folder / "sft.jsonl", steps=140, name="half")
    written = done(
        {
            "trainer": "generate",
            "model": str(half),
            "prompts": str(folder / "prompts.jsonl"),
            "verifier": "exact",
            "keep": "best",
            "samples": 4,
            "max_new_tokens": 4,
            "batch_size": 250,
            "held_out": [str(folder / "held_out.jsonl")],
        },
        "written",
    )
    told = json.loads((written / "generation.json").read_text())["yield"]
    assert 0.1 < told["right"] / told["answers"] < 0.9  # neither untrained nor trained to the end
    assert told["left_out_as_held_out"] == 0
    better = train(half, written / "dataset" / "train.jsonl", steps=200, name="better")
    before, after = (read_path(measure(model, name)) for model, name in ((half, "before"), (better, "after")))
    [row] = compare_rows(before.rows, after.rows, samples=SampleFiles()).rows
    assert row.verdict == "improved", row.reason
    assert row.delta is not None and row.delta > 0.05
