"""One rendered script, unchanged, gives the same evaluation on this machine, on Slurm and on Ray, item by item."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import pytest

from mlintern.common.clock import SystemClock
from mlintern.tools.config import RaySettings, SlurmSettings
from mlintern.tools.evals.service import EvalService
from mlintern.tools.jobs.backend import Backend
from mlintern.tools.jobs.backends.local.backend import LocalBackend
from mlintern.tools.jobs.backends.ray.backend import RayBackend
from mlintern.tools.jobs.backends.slurm.backend import SlurmBackend
from mlintern.tools.jobs.service import JobService
from mlintern.tools.jobs.spec import FINAL
from mlintern.tools.ledger import Ledger
from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.store import ScriptStore
from mlintern.tools.telemetry_marks import SAMPLES
from mlintern.tools.workspace import Workspace
from tests.services import tiny_model
from tests.services.slurm import Slurm
from tests.tools.jobs.conftest import Ray
from tests.tools.jobs.local_lab import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.real, pytest.mark.slow]

LAUNCH = (sys.executable,)
COMPARED = ("task", "metric", "filter", "value", "stderr", "n")


async def test_one_script_gives_the_same_evaluation_on_local_slurm_and_ray(
    workspace: Workspace,
    ledger: Ledger,
    slurm: Slurm,
    ray: Ray,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    pytest.importorskip("torch")
    clock = SystemClock(wait_scale=0.05)
    scripts = ScriptStore(workspace=workspace, ledger=ledger, clock=clock)
    far = tmp_path_factory.mktemp("far")
    recipe = {
        "trainer": "evaluation",
        "model": str(tiny_model.make_tiny_model(far / "model")),
        "dataset": str(tiny_model.write_rows(far / "questions.jsonl", tiny_model.questions(64))),
        "prompt": "{question}",
        "max_new_tokens": 4,
        "use_cpu": True,
    }
    script = scripts.render(parse_recipe(recipe))
    backends: dict[str, Backend] = {
        "local": LocalBackend(workspace=workspace, clock=clock, python=sys.executable),
        "slurm": SlurmBackend(
            settings=SlurmSettings(launch=LAUNCH, environment=slurm.environment), workspace=workspace
        ),
        "slurm-without-a-shared-folder": SlurmBackend(
            settings=SlurmSettings(
                prefix=("sh", "-c"),
                folder=str(far),
                launch=LAUNCH,
                environment=slurm.environment,
            )
        ),
        "ray": RayBackend(settings=RaySettings(url=ray.url, launch=LAUNCH)),
    }
    evals = EvalService(workspace=workspace, ledger=ledger, clock=clock)
    jobs = JobService(
        workspace=workspace,
        ledger=ledger,
        clock=clock,
        scripts=scripts,
        backends=backends,
        collect_evaluations=evals.collect,
    )

    evaluations: dict[str, list[dict[str, Any]]] = {}
    samples: dict[str, bytes] = {}
    for name in backends:  # one after another: each loads torch
        spec = await jobs.planner.plan(script_id=script.script_id, backend=name, timeout="5m")
        await jobs.submit(spec)
        status = await eventually(
            partial(jobs.poll, spec.job_id),
            lambda status: status.state in FINAL,
            seconds=180,
        )
        assert status.state == "succeeded", (name, status.error, status.log_tail)
        evaluations[name] = [{key: row.get(key) for key in COMPARED} for row in status.evaluations]
        folder = workspace.job(spec.job_id)
        samples[name] = (folder / "output" / "samples.jsonl").read_bytes()
        assert (SAMPLES in (folder / "log.txt").read_text()) == (name not in ("local", "slurm")), name

    assert {row["metric"] for row in evaluations["local"]} == {"accuracy", "exact_match"}
    assert all(row["n"] == 64 for row in evaluations["local"])
    for name in backends:
        assert evaluations[name] == evaluations["local"], name
        assert samples[name] == samples["local"], name
