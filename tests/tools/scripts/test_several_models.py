"""A baseline and candidates measured in one job: results apart, adapters not merged, compared item by item."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mlintern.common.clock import SystemClock
from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.evals.service import EvalService
from mlintern.tools.jobs.backends.local.confinement import named_paths
from mlintern.tools.jobs.mirror import _append, _Mark
from mlintern.tools.jobs.spec import JobSpec
from mlintern.tools.ledger import Ledger
from mlintern.tools.scripts.checks import static_checks
from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.render import render
from mlintern.tools.workspace import Workspace
from tests.services import tiny_model
from tests.tools.jobs.local_lab import WrittenScript
from tests.tools.scripts.conftest import Materials, Run
from tests.tools.scripts.test_render import ruff


@pytest.fixture(scope="module")
def adapter(materials: Materials, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes what the model says, saved without a tokenizer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    base = AutoModelForCausalLM.from_pretrained(materials.model)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "o_proj"], task_type="CAUSAL_LM"))
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 3)
    model.save_pretrained(folder)
    return folder


def record_job(ledger: Ledger, job: str, *, recipe: Mapping[str, Any] | None = None) -> None:
    """A job that has succeeded, as the ledger knows it."""
    with ledger.transaction() as connection:
        connection.execute(
            "INSERT INTO scripts (script_id, sha256, name, created_at, recipe) VALUES ('s', 's', 's', 0, ?)",
            (json.dumps(recipe) if recipe is not None else None,),
        )
        columns = {row["name"]: row for row in connection.execute("PRAGMA table_info(jobs)")}
        known = {"job_id": job, "script_id": "s", "state": "succeeded"}
        filled = {
            name: known.get(name, "{}" if row["type"] == "TEXT" else 0)
            for name, row in columns.items()
            if name in known or (row["notnull"] and row["dflt_value"] is None)
        }
        marks = ", ".join("?" * len(filled))
        connection.execute(f"INSERT INTO jobs ({', '.join(filled)}) VALUES ({marks})", list(filled.values()))


def workspace_with(job: str, output: Path, folder: Path) -> EvalService:
    """A workspace in which a job has left ``output``."""
    folder.mkdir()
    workspace = Workspace(folder)
    ledger = Ledger(workspace.ledger)
    record_job(ledger, job)
    workspace.job(job).mkdir(parents=True)
    output.rename(workspace.job(job) / "output")
    return EvalService(workspace=workspace, ledger=ledger, clock=SystemClock())


def test_what_cannot_be_measured_in_one_job_is_refused() -> None:
    plain: dict[str, Any] = {"trainer": "evaluation", "model": "m/m", "candidates": ["m/n"]}
    for wrong in ({"suite": "gsm8k"}, {"dataset": "o/d", "engine": "vllm"}):
        with pytest.raises(BadInput, match="Several models in one job"):
            parse_recipe({**plain, **wrong})
    with pytest.raises(BadInput, match="is a dataset"):
        parse_recipe({**plain, "dataset": "o/d", "candidates": ["datasets/o/d"]})


@pytest.mark.parametrize("more", [{}, {"scorer": "exact"}, {"scorer": "likelihood"}])
def test_the_script_is_clean_and_names_revisions(more: dict[str, Any], adapter: Path) -> None:
    recipe = {"trainer": "evaluation", "model": "m/m", "dataset": "o/d", "candidates": ["m/n@abc", str(adapter)]}
    rendered = render(parse_recipe({**recipe, **more}))
    assert '["m/n", "abc"]' in rendered.text and any("peft" in one for one in rendered.requirements)
    assert ruff("format", "--diff", source=rendered.text) == ""
    assert ruff("check", "--select", "E4,E7,E9,F,I,B,UP,SIM,RUF,PIE,PTH,C90", source=rendered.text) == ""
    assert static_checks(rendered.text) == []


@pytest.mark.anyio
async def test_each_model_has_its_results_and_is_compared_item_by_item(
    run: Callable[[Mapping[str, Any]], Run], materials: Materials, adapter: Path, tmp_path: Path
) -> None:
    other = tiny_model.make_tiny_model(tmp_path / "other", seed=5)
    recipe = {
        "trainer": "evaluation",
        "model": str(materials.model),
        "candidates": [str(adapter), str(other)],
        "dataset": str(materials.questions),
        "prompt": "{question}",
        "limit": 40,
        "scorer": "likelihood",
        "use_cpu": True,
    }
    done = run(recipe)
    assert done.code == 0, done.log[-3000:]
    alone = {}
    for folder in (".", "candidates/1", "candidates/2"):
        told = json.loads((done.output / folder / "evaluation.json").read_text())
        rows = [json.loads(line) for line in (done.output / folder / "samples.jsonl").read_text().splitlines()]
        alone[told["model"]] = {row["id"]: row["likelihood"] for row in rows}
        assert len(rows) == 40
    assert list(alone) == [str(materials.model), str(adapter), str(other)]
    base, adapted, _ = alone.values()
    assert base.keys() == adapted.keys() and base != adapted
    assert [row["step"] for row in done.of_kind("metrics")] == [40, 80, 120]

    printed = tmp_path / "elsewhere"
    (printed / "output").mkdir(parents=True)
    _append(printed, _Mark(), done.log.encode())
    assert json.loads((printed / "output/candidates/2/evaluation.json").read_text())["model"] == str(other)
    assert json.loads((printed / "output/evaluation.json").read_text())["model"] == str(materials.model)

    evals = workspace_with("job-0123456789ab", done.output, tmp_path / "home")
    page = await evals.read("job-0123456789ab")
    assert {row.model for row in page.rows} == set(alone)
    found = await evals.compare("job-0123456789ab", "job-0123456789ab/candidates/1")
    [row] = found.rows
    assert row.n == 40 and "McNemar" in row.method
    right = {name: sum(one.value * 40 for one in page.rows if one.model == name) for name in alone}
    assert round(row.baseline * 40) == round(right[str(materials.model)])
    assert round(row.candidate * 40) == round(right[str(adapter)])
    with pytest.raises(NotFound, match="has no candidates/7"):
        await evals.read("job-0123456789ab/candidates/7")


def test_a_job_sees_the_base_of_an_adapter_that_it_names(adapter: Path, materials: Materials, tmp_path: Path) -> None:
    spec = JobSpec("s", "s", "local", "cpu", 60.0)
    assert str(materials.model) in named_paths(spec, WrittenScript(f"MODEL = {str(adapter)!r}\n"))
    made = tmp_path / "made"
    made.mkdir()
    (made / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path)}))
    named = named_paths(spec, WrittenScript(f"MODEL = {str(made)!r}\n"))
    assert named == [str(made)], "a folder that is no model is not opened for it"
    (made / "adapter_config.json").unlink()
    os.mkfifo(made / "adapter_config.json")
    assert named_paths(spec, WrittenScript(f"MODEL = {str(made)!r}\n")) == [str(made)]
