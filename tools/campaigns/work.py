"""`runner.Work` for real: scripts rendered from recipes, jobs on the workspace's backends, evaluations from files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio.to_thread

from mlintern.common.clock import Clock, iso
from mlintern.common.files import write_json_durably
from mlintern.tools.campaigns import store
from mlintern.tools.campaigns.halves import CONFIRM, DECIDE, examples_file, folder_of
from mlintern.tools.campaigns.requests import scaled
from mlintern.tools.campaigns.runner import Look
from mlintern.tools.campaigns.state import StageKey, Trial
from mlintern.tools.errors import BadInput
from mlintern.tools.evals import eval_ledger
from mlintern.tools.evals.read_files import SampleFiles
from mlintern.tools.evals.result_rows import EvalRow
from mlintern.tools.jobs.job_results import JobStatus
from mlintern.tools.jobs.service import JobService
from mlintern.tools.jobs.spec import FINAL, JobSpec
from mlintern.tools.ledger import Ledger
from mlintern.tools.scripts.store import ScriptStore
from mlintern.tools.workspace import Workspace

WEIGHTS = ("*.safetensors", "*.bin")
CHUNK = 1 << 20


class JobWork:
    """Stages as jobs of the workspace."""

    def __init__(
        self, *, workspace: Workspace, ledger: Ledger, clock: Clock, scripts: ScriptStore, jobs: JobService
    ) -> None:
        self._workspace = workspace
        self._ledger = ledger
        self._clock = clock
        self._scripts = scripts
        self._jobs = jobs

    async def plan(
        self, experiment: str, trial: Trial, key: StageKey, *, attempt: int, inputs: Mapping[str, str]
    ) -> JobSpec:
        recipe = await anyio.to_thread.run_sync(lambda: self.recipe(experiment, trial, key, inputs=inputs))
        script = await anyio.to_thread.run_sync(self._scripts.render, recipe)
        again = f" attempt {attempt}" if attempt > 1 else ""
        return await self._jobs.planner.plan(
            script_id=script.script_id,
            backend=trial.place["backend"],
            hardware=trial.place.get("hardware"),
            timeout=trial.place["train" if key.kind in ("train", "generate") else "measure"],
            experiment=experiment,
            probe=key.kind == "probe",
            run_name=f"t{trial.number} {_label(trial.name)} {stage_name(trial, key)}{again}",
        )

    def recipe(self, experiment: str, trial: Trial, key: StageKey, *, inputs: Mapping[str, str]) -> dict[str, Any]:
        """The recipe of a stage."""
        plan = store.plan_of(self._ledger, experiment)
        name = f"{trial.name[:60]} {stage_name(trial, key)}"
        if key.kind == "generate":
            return {**(trial.data or {}), "name": name}
        if key.kind in ("train", "probe"):
            assert trial.recipe is not None
            recipe = scaled(trial.recipe, trial.rungs[key.rung]) | {"seed": key.seed, "name": name}
            return recipe | ({"dataset": inputs["dataset"]} if "dataset" in inputs else {})
        half = DECIDE if key.kind == "measure" else CONFIRM
        model = inputs.get("model", plan.model)
        base = {"revision": plan.revision} if model == plan.model and plan.revision else {}
        folder = folder_of(self._workspace, experiment)
        measured = {**plan.evaluation, **trial.measure}
        if measured.get("fewshot") and "fewshot_dataset" not in measured:
            measured |= {"fewshot_dataset": str(examples_file(folder)), "fewshot_split": "train"}
        return {
            **measured,
            **base,
            "trainer": "evaluation",
            "name": name,
            "model": model,
            "dataset": str(folder / half),
            "split": "train",
        }

    async def submit(self, spec: JobSpec) -> None:
        await self._jobs.submit(spec)

    async def look(self, spec: JobSpec, kind: str) -> Look:
        status = await self._jobs.poll(spec.job_id)
        if status.state not in FINAL:
            failing = [finding.advice for finding in status.findings if finding.severity == "error"]
            return Look(state=status.state, failing=failing[0] if failing else "")
        return await anyio.to_thread.run_sync(self._ended, spec, kind, status)

    def _ended(self, spec: JobSpec, kind: str, status: JobStatus) -> Look:
        seconds = status.resources.get("wall_seconds")
        model = status.artifacts.get("model") or status.artifacts.get("dataset")
        if status.state != "succeeded" or kind not in ("measure", "confirm"):
            error = status.error or (f"ended {status.state}" if status.state != "succeeded" else "")
            if status.state == "succeeded" and kind in ("train", "generate") and not model:
                return Look(state="failed", seconds=seconds, error="It ended without a model or a dataset.")
            return Look(state=status.state, seconds=seconds, error=error, model=model, pace=pace_of(status.resources))
        row = self._row(str(spec.experiment), spec.job_id)
        if row is None:
            return Look(state="failed", seconds=seconds, error="It left no evaluation with the experiment's metric.")
        try:
            scores = SampleFiles()(row)
        except BadInput as error:
            return Look(state="failed", seconds=seconds, error=str(error))
        sign = -1.0 if row.higher_is_better is False else 1.0
        return Look(
            state="succeeded",
            seconds=seconds,
            scores={item: sign * score for item, score in scores.items()} if scores else None,
            value=row.value,
            row=json.loads(row.model_dump_json(exclude_none=True)),
            model_sha256=weights_sha256(Path(row.model)) if row.model else None,
        )

    def _row(self, experiment: str, job_id: str) -> EvalRow | None:
        metric = store.plan_of(self._ledger, experiment).metric
        rows = eval_ledger.of_jobs(self._ledger, [job_id])[job_id]
        return next((row for row in reversed(rows) if row.metric == metric), None)

    async def stop(self, job_id: str, *, reason: str) -> None:
        await self._jobs.cancel(job_id, reason=reason)

    async def keep_best(self, experiment: str, trial: Trial, model: str) -> None:
        source = Path(model)
        if source.is_dir():  # elsewhere it stays where its job wrote it
            folder = folder_of(self._workspace, experiment)
            await anyio.to_thread.run_sync(self._keep, folder, source, trial)

    def _keep(self, folder: Path, source: Path, trial: Trial) -> None:
        fresh, place = folder / ".best.new", folder / "best"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(source, fresh, copy_function=_link)
        write_json_durably(
            folder / "best.json",
            {
                "trial": trial.name,
                "model": str(place),
                "from": str(source),
                "weights_sha256": weights_sha256(fresh),
                "kept_at": iso(self._clock.now()),
            },
        )
        old = folder / ".best.old"
        shutil.rmtree(old, ignore_errors=True)
        if place.exists():
            place.rename(old)
        fresh.rename(place)
        shutil.rmtree(old, ignore_errors=True)


def pace_of(resources: Mapping[str, float]) -> dict[str, float] | None:
    """The fields of a `state.Pace` by what a job measured; None if it took fewer than two steps or did not say."""
    needed = ("steps", "total_steps", "seconds_per_step", "wall_seconds")
    steps, total, per_step, wall = (resources.get(name) or 0.0 for name in needed)
    if min(steps, total, per_step, wall) <= 0:
        return None
    return {"startup": max(0.0, wall - steps * per_step), "per_step": per_step, "total_steps": total}


def stage_name(trial: Trial, key: StageKey) -> str:
    """What a stage is called within its trial: ``train rung 0 seed 0``, ``measure seed 1``, ``confirm 1 seed 0``."""
    if key.kind == "confirm":
        return f"confirm {key.rung} seed {key.seed}"
    rung = f" rung {key.rung}" if len(trial.rungs) > 1 and not trial.baseline else ""
    return f"{key.kind}{rung} seed {key.seed}"


def _label(name: str) -> str:
    """``name`` in the letters that a run's name may have."""
    return re.sub(r"[^A-Za-z0-9 ._:+-]", "_", name)[:50].strip()


def weights_sha256(folder: Path) -> str | None:
    """SHA-256 over the names and contents of a model's weight files; None where there are none on this machine."""
    files = sorted(path for pattern in WEIGHTS for path in folder.glob(pattern)) if folder.is_dir() else []
    if not files:
        return None
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _link(source: str, target: str) -> None:
    """A second name for the same bytes where the file system can, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
