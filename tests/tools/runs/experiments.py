"""An experiment as it lies in ledger and workspace after a few jobs."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlintern.tools.evals import eval_ledger
from mlintern.tools.evals.read_files import read_path
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.tools.evals.results import add_job, write_own
from tests.tools.health.curves import decay, rows

SFT = {
    "trainer": "sft",
    "model": "/models/base",
    "dataset": "/data/train.jsonl",
    "seed": 0,
    "max_steps": 180,
    "hyperparameters": {"learning_rate": 0.0015, "per_device_train_batch_size": 64},
}
EVALUATION = {"trainer": "evaluation", "model": "/models/base", "dataset": "/data/heldout.jsonl", "seed": 0}
START = 1_800_000_000.0


def items(right: int, count: int, *, seed: int) -> list[float]:
    """Scores of ``count`` items, ``right`` of them 1, in an order of their own."""
    return random.Random(seed).sample([1.0] * right + [0.0] * (count - right), count)


class Bench:
    """Adds jobs with their files, one minute apart."""

    def __init__(self, workspace: Workspace, ledger: Ledger, experiment: str | None = "maxnum") -> None:
        self.workspace = workspace
        self.ledger = ledger
        self.experiment = experiment
        self.count = 0

    def job(self, job_id: str, recipe: dict[str, Any] | None, **details: Any) -> Path:
        """A job; returns its output folder."""
        self.count += 1
        experiment = details.pop("experiment", self.experiment)
        script_id = add_job(
            self.ledger, job_id, recipe=recipe, experiment=experiment, created=START + 60 * self.count, **details
        )
        self.workspace.script(script_id).write_text(
            '# /// script\n# requires-python = ">=3.11"\n# dependencies = ["trl==1.16.0"]\n# ///\nprint("train")\n'
        )
        output = self.workspace.job(job_id) / "output"
        output.mkdir(parents=True, exist_ok=True)
        return output

    def measure(self, job_id: str, model: str, scores: Sequence[float], **changes: Any) -> None:
        """What the job measured of ``model``, stored as the jobs service does at its end."""
        path = write_own(self.workspace.job(job_id) / "output", scores, model=model, **changes)
        eval_ledger.store(self.ledger, job_id=job_id, rows=read_path(path).rows, now=START)

    def evaluate(self, job_id: str, model: str, scores: Sequence[float], **details: Any) -> None:
        """An evaluation job."""
        changes = details.pop("changes", {})
        self.job(job_id, EVALUATION | {"model": model}, **details)
        self.measure(job_id, model, scores, **changes)

    def train(self, job_id: str, *, steps: int = 180, **details: Any) -> str:
        """A training job with a healthy curve; returns its model."""
        output = self.job(job_id, SFT | {"max_steps": steps}, **details)
        curve = rows(60, seed=self.count, loss=decay(2.4, 0.3), grad_norm=decay(9.0, 2.0))
        (output / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in curve))
        return str(output / "model")


def first_light(workspace: Workspace, ledger: Ledger) -> Bench:
    """Baseline, a run that missed the target, a failed one, and one that reached it."""
    bench = Bench(workspace, ledger)
    bench.evaluate("job-base", "/models/base", items(101, 1000, seed=1), run_name="base")
    short = bench.train("job-sft1", steps=180, run_name="sft-180", usd=0.25)
    bench.evaluate("job-eval1", short, items(650, 1000, seed=2), run_name="eval-sft-180")
    bench.job("job-oom", SFT | {"max_steps": 900}, run_name="sft-big", state="failed", error="killed: out of memory")
    best = bench.train("job-sft2", steps=800, run_name="sft-800", usd=1.5, seconds=3600.0)
    bench.measure("job-sft2", best, items(878, 1000, seed=3))
    return bench
