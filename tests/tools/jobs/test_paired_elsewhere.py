"""Two models measured where no files are shared are compared as if they had been measured here."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from mlintern.common.clock import SystemClock
from mlintern.tools.config import HfJobsSettings, HfVolume
from mlintern.tools.evals.comparison_results import Comparison
from mlintern.tools.evals.service import EvalService
from mlintern.tools.jobs.backends.hf.backend import HfJobsBackend
from mlintern.tools.jobs.backends.local.backend import LocalBackend
from mlintern.tools.jobs.service import JobService
from mlintern.tools.jobs.spec import FINAL
from mlintern.tools.ledger import Ledger
from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.store import ScriptStore
from mlintern.tools.telemetry_marks import MARK, SAMPLES
from mlintern.tools.workspace import Workspace
from tests.services import tiny_model
from tests.services.hf_jobs import TOKEN, HfJobs
from tests.tools.jobs.local_lab import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_two_evaluations_on_hugging_face_are_paired_exactly_as_two_that_ran_here(
    workspace: Workspace, ledger: Ledger, hf_jobs: HfJobs, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    clock = SystemClock(wait_scale=0.05)
    scripts = ScriptStore(workspace=workspace, ledger=ledger, clock=clock)
    evals = EvalService(workspace=workspace, ledger=ledger, clock=clock)
    files = HfVolume("bucket", "tester/files", str(tmp_path))
    settings = HfJobsSettings(launch=(sys.executable,), folder=str(tmp_path / "container"), volumes=(files,))
    jobs = JobService(
        workspace=workspace,
        ledger=ledger,
        clock=clock,
        scripts=scripts,
        backends={
            "local": LocalBackend(workspace=workspace, clock=clock, python=sys.executable),
            "hf_jobs": HfJobsBackend(api=lambda: HfApi(endpoint=hf_jobs.url, token=TOKEN), settings=settings),
        },
        collect_evaluations=evals.collect,
    )
    questions = str(tiny_model.write_rows(tmp_path / "questions.jsonl", tiny_model.questions(64)))

    async def measure(model: Path, backend: str) -> str:
        recipe = {"trainer": "evaluation", "model": str(model), "dataset": questions, "prompt": "{question}"}
        script = scripts.render(parse_recipe({**recipe, "max_new_tokens": 4, "use_cpu": True}))
        spec = await jobs.planner.plan(script_id=script.script_id, backend=backend, timeout="5m")
        await jobs.submit(spec)
        for job in hf_jobs.jobs.values():
            if job.stage == "SCHEDULING":
                hf_jobs.run(job)
        status = await eventually(partial(jobs.poll, spec.job_id), lambda status: status.state in FINAL, seconds=180)
        assert status.state == "succeeded", (backend, status.error, status.log_tail)
        return spec.job_id

    models = [tiny_model.make_tiny_model(tmp_path / f"model-{seed}", seed=seed) for seed in (0, 1)]
    comparisons: dict[str, Comparison] = {}
    samples: dict[str, list[bytes]] = {}
    for backend in ("local", "hf_jobs"):
        pair = [await measure(model, backend) for model in models]
        samples[backend] = [(workspace.job(job_id) / "output" / "samples.jsonl").read_bytes() for job_id in pair]
        comparisons[backend] = await evals.compare(*pair)
        log = (workspace.job(pair[0]) / "log.txt").read_text()
        assert (SAMPLES in log) == (backend == "hf_jobs"), "where files are shared, the log is not filled with them"
        page = await jobs.read_logs(pair[0])
        assert MARK not in page.text
    here, there = comparisons["local"].rows, comparisons["hf_jobs"].rows
    assert [(row.metric, row.method.partition(" (")[0]) for row in there] == [
        ("accuracy", "paired, exact McNemar test"),
        ("exact_match", "paired, exact McNemar test"),
    ]
    assert there == here
    assert samples["hf_jobs"] == samples["local"]
    assert samples["local"][0] != samples["local"][1], "two models that answer alike would prove nothing"
