"""Probes: jobs that measure, and estimates that learn from what jobs measured."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlintern.tools.errors import BadInput
from mlintern.tools.jobs import estimate, timing
from mlintern.tools.jobs.hardware import Hardware
from mlintern.tools.jobs.measured import Past
from mlintern.tools.workspace import Workspace
from tests.tools.jobs.local_lab import LocalLab, WrittenScript

pytestmark = pytest.mark.anyio

MEASURES = """
import json, os
steps = int(os.environ.get("MLINTERN_PROBE_STEPS", "100"))
row = {"v": 1, "kind": "measured", "steps": steps, "total_steps": 100, "seconds_per_step": 2.0,
       "startup_seconds": 12.0, "peak_memory_gib": 3.5, "tokens_per_step": 512, "strange": "x", "time": 0}
with open(os.path.join(os.environ["MLINTERN_OUTPUT_DIR"], "metrics.jsonl"), "a") as file:
    print(json.dumps(row), file=file)
"""
RECIPE = {"trainer": "sft", "model": "org/m-0.6B", "dataset": "org/d", "max_steps": 100}


def put(lab: LocalLab, recipe: dict[str, Any]) -> str:
    script_id = lab.scripts.add(f"{MEASURES}# {json.dumps(recipe)}\n", recipe=recipe)
    with lab.ledger.transaction() as connection:
        connection.execute("UPDATE scripts SET recipe = ? WHERE script_id = ?", (json.dumps(recipe), script_id))
    return script_id


async def test_a_probe_is_another_job_and_corrects_the_estimate_of_its_script(workspace: Workspace) -> None:
    lab = LocalLab(workspace)
    script_id = put(lab, RECIPE)
    before = await lab.jobs.planner.estimate(script_id=script_id)
    whole = await lab.jobs.planner.plan(script_id=script_id, timeout="1m")
    probe = await lab.jobs.planner.plan(script_id=script_id, timeout="1m", probe=True)
    assert (whole.probes, probe.probes) == (False, True)
    assert whole.digest != probe.digest
    await lab.jobs.submit(probe)
    done = await lab.end_of(probe.job_id)
    assert done.resources["steps"] == 20
    assert done.resources["seconds_per_step"] == 2.0
    after = await lab.jobs.planner.estimate(script_id=script_id)
    assert after.duration_seconds is not None and after.memory_gib is not None
    assert after.duration_seconds.likely == 12 + 99 * 2
    assert after.memory_gib.low == 3.5
    assert probe.job_id in after.duration_seconds.dominant
    assert before.duration_seconds != after.duration_seconds


async def test_what_one_recipe_took_corrects_another_on_the_same_hardware_alone(workspace: Workspace) -> None:
    lab = LocalLab(workspace)
    spec = await lab.jobs.planner.plan(script_id=put(lab, RECIPE), timeout="1m")
    await lab.jobs.submit(spec)
    await lab.end_of(spec.job_id)
    twice = put(lab, {**RECIPE, "max_steps": 200, "hyperparameters": {"learning_rate": 1e-5}})
    found = (await lab.jobs.planner.estimate(script_id=twice)).duration_seconds
    assert found is not None
    assert found.likely == pytest.approx(200 * 2.0 + 12, rel=0.02)
    past = Past("job-1", "other", RECIPE, 100, 100, 2.0, 12.0)
    gpu = Hardware(name="l4", backend="x", accelerators=1, accelerator="L4", accelerator_memory_gib=24)
    script = WrittenScript("x", recipe=RECIPE)
    alone = await estimate.estimate(script, gpu, timeout_seconds=60, find_shape=None)
    told = await estimate.estimate(script, gpu, timeout_seconds=60, find_shape=None, history=[past])
    assert alone.duration_seconds is not None and told.duration_seconds is not None
    assert told.duration_seconds.likely == pytest.approx(212, rel=0.01) != alone.duration_seconds.likely


async def test_rows_of_the_same_data_tell_the_steps_of_another_number_of_passes(workspace: Workspace) -> None:
    recipe = {name: value for name, value in RECIPE.items() if name != "max_steps"}
    past = Past("job-1", "other", recipe, 20, 50, 1.0, 5.0, tokens_per_step=900)
    cpu = Hardware(name="cpu", backend="local", cpus=2, memory_gib=16)
    script = WrittenScript("x", recipe={**recipe, "epochs": 3})
    found = await estimate.estimate(script, cpu, timeout_seconds=60, find_shape=None, history=[past])
    assert found.duration_seconds is not None
    assert found.duration_seconds.likely == pytest.approx(3 * 50 * 1.0 + 5, rel=0.01)
    assert timing.measured(past).likely == 5 + 49


async def test_what_cannot_stop_is_not_probed(workspace: Workspace) -> None:
    lab = LocalLab(workspace)
    with pytest.raises(BadInput, match="does not know how"):
        await lab.plan("print(1)", probe=True)
