"""What a claim rests on, as a file that another process can recount: `certificate.json`.

Nothing in it is taken from a report. Where something cannot be shown (a base model that is not on this machine, a
dataset that was not compared with the items) the certificate has a hole, and the hole is named.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio.to_thread

from mlintern.common.clock import Clock, iso
from mlintern.common.files import read_json, write_json_durably
from mlintern.tools.campaigns import store
from mlintern.tools.campaigns.halves import CONFIRM, DECIDE, EXAMPLES, folder_of
from mlintern.tools.campaigns.ranking import best_trial
from mlintern.tools.campaigns.recount import file_sha256
from mlintern.tools.campaigns.runner import ended_stage, read_situation
from mlintern.tools.campaigns.state import Situation, StageKey, Trial
from mlintern.tools.campaigns.weights import descent
from mlintern.tools.campaigns.work import weights_sha256
from mlintern.tools.data.contamination import ContaminationChecker
from mlintern.tools.errors import MlinternError
from mlintern.tools.jobs import job_rows, money
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace

FORMAT = 1
PACKAGES = ("mlintern", "torch", "transformers", "trl", "peft", "datasets", "accelerate")
CACHE = "contamination.json"


class Certifier:
    """Writes the certificate of an experiment from the ledger and the files of its jobs."""

    def __init__(
        self, *, workspace: Workspace, ledger: Ledger, clock: Clock, contamination: ContaminationChecker
    ) -> None:
        self._workspace = workspace
        self._ledger = ledger
        self._clock = clock
        self._contamination = contamination

    async def write(self, experiment: str, path: Path) -> dict[str, Any]:
        """Write the certificate to ``path``; returns its content.

        Raises:
            NotFound: the experiment was not opened.
            WorkspaceError: it cannot be written.
        """
        rows = await anyio.to_thread.run_sync(store.stages, self._ledger, experiment)
        stages = [ended_stage(row) for row in rows if row.outcome]
        situation = read_situation(self._ledger, experiment, stages=stages, now=self._clock.now())
        best = best_trial(situation.trials)
        datasets = await anyio.to_thread.run_sync(self._datasets, situation)
        overlaps, holes = await self._overlaps(experiment, datasets)

        def finish() -> dict[str, Any]:
            document = self._document(experiment, situation, rows, best, datasets, overlaps, holes)
            write_json_durably(path, document, mode=0o644)
            return document

        return await anyio.to_thread.run_sync(finish)

    def _document(
        self,
        experiment: str,
        situation: Situation,
        rows: Sequence[store.StageRow],
        best: Trial | None,
        datasets: Sequence[Mapping[str, Any]],
        overlaps: Sequence[Mapping[str, Any]],
        holes: list[str],
    ) -> dict[str, Any]:
        plan = store.plan_of(self._ledger, experiment)
        folder = folder_of(self._workspace, experiment)
        openings = store.confirmations(self._ledger, experiment)
        base = _base_folder(plan.model, plan.revision)
        if base is None:
            holes.append(
                f"The base model {plan.model} is not here; that the trained one descends from it is not shown."
            )
        models = self._models(rows, best, base, holes)
        holes += self._peeks(folder / CONFIRM, rows)
        claim = next((one for one in reversed(openings) if one.verdict is not None), None)
        if claim is None:
            holes.append("The confirm half was not opened: no number here is free of the choice that was made by it.")
        elif best is not None and claim.trial != best.number:
            holes.append("The best trial is not the one that was confirmed.")
        failed = [f"{item['train']}: {item['flagged']} items stand in it" for item in overlaps if item.get("flagged")]
        holes += [f"Contaminated training data: {said}." for said in failed]
        with self._ledger.read() as connection:
            spent = money.committed(connection, experiment=experiment)
        return {
            "certificate": FORMAT,
            "experiment": experiment,
            "written_at": iso(self._clock.now()),
            "workspace_files_are_relative_to": "the workspace folder",
            "base_model": {
                "name": plan.model,
                "revision": plan.revision,
                "weights_sha256": weights_sha256(base) if base else None,
                "folder": self._relative(base) if base else None,
            },
            "protocol": {
                "fingerprint": plan.fingerprint,
                "evaluation": plan.evaluation,
                "metric": plan.metric,
                "items": {
                    name: {"sha256": plan.hashes[name], "path": self._relative(folder / name)}
                    for name in (DECIDE, CONFIRM)
                },
                "examples": {"sha256": plan.hashes[EXAMPLES], "path": self._relative(folder / EXAMPLES)}
                if EXAMPLES in plan.hashes
                else None,
                "decide_rows": plan.decide_rows,
                "confirm_rows": plan.confirm_rows,
            },
            "trials": [_trial_json(trial, situation.trials) for trial in situation.trials],
            "tries": sum(not trial.baseline for trial in situation.trials),
            "jobs": self._jobs(experiment),
            "measurements": self._measurements(rows, plan.metric, holes),
            "models": models,
            "datasets": list(datasets),
            "contamination": list(overlaps),
            "openings": [
                {"opening": one.opening, "trial": one.trial, "at": iso(one.opened_at), "verdict": one.verdict}
                for one in openings
            ],
            "claim": None
            if claim is None
            else {"opening": claim.opening, "trial": claim.trial, **(claim.verdict or {})},
            "approvals": [
                {"digest": batch["digest"], "usd_worst": batch["usd_worst"], "agreed_at": iso(batch["agreed_at"])}
                for batch in store.batches(self._ledger, experiment)
            ],
            "costs": {"usd": spent, "limit_usd": plan.usd},
            "environment": _environment(),
            "holes": holes,
        }

    def _models(
        self, rows: Sequence[store.StageRow], best: Trial | None, base: Path | None, holes: list[str]
    ) -> list[dict[str, Any]]:
        """The models of the best trial: one a seed."""
        if best is None or best.best_rung is None:
            return []
        found = []
        for row in rows:
            key = row.key
            if (key.trial, key.kind, key.rung) != (best.number, "train", best.best_rung) or not row.outcome:
                continue
            model = row.outcome.get("model")
            folder = Path(model) if model else None
            if folder is None or not folder.is_dir():
                holes.append(f"The model of seed {key.seed} is not on this machine.")
                continue
            entry: dict[str, Any] = {
                "trial": best.number,
                "seed": key.seed,
                "path": self._relative(folder),
                "weights_sha256": weights_sha256(folder),
            }
            if base is not None:
                related = descent(base, folder)
                entry["descent"] = related.to_json()
                if related.differing:
                    holes.append(
                        f"Seed {key.seed}: {len(related.differing)} tensors are not those of the base model."
                    )
                if related.distance is None:
                    holes.append(f"Seed {key.seed}: the distance to the base model is not known: {related.why}")
                elif related.distance == 0:
                    holes.append(f"Seed {key.seed}: the weights are those of the base model; nothing was trained.")
            found.append(entry)
        return found

    def _measurements(self, rows: Sequence[store.StageRow], metric: str, holes: list[str]) -> list[dict[str, Any]]:
        found = []
        for row in rows:
            if (
                row.key.kind not in ("measure", "confirm")
                or not row.outcome
                or row.outcome.get("state") != "succeeded"
            ):
                continue
            samples = self._workspace.job(row.job_id) / "output" / "samples.jsonl"
            if not samples.is_file():
                holes.append(f"{row.job_id}: the answers to single items are not here.")
                continue
            found.append(
                {
                    "job_id": row.job_id,
                    "trial": row.key.trial,
                    "seed": row.key.seed,
                    "half": DECIDE if row.key.kind == "measure" else CONFIRM,
                    "rung_or_opening": row.key.rung,
                    "metric": metric,
                    "value": row.outcome.get("value"),
                    "higher_is_better": (row.outcome.get("row") or {}).get("higher_is_better", True),
                    "samples": self._relative(samples),
                    "samples_sha256": file_sha256(samples),
                    "weights_sha256": row.outcome.get("model_sha256"),
                }
            )
        return found

    def _jobs(self, experiment: str) -> list[dict[str, Any]]:
        with self._ledger.read() as connection:
            ids = [
                str(row[0])
                for row in connection.execute(
                    "SELECT job_id FROM jobs WHERE experiment = ? ORDER BY created_at, job_id", (experiment,)
                )
            ]
            return [
                {
                    "job_id": record.job_id,
                    "name": record.spec.run_name,
                    "state": record.state,
                    "script_sha256": record.spec.script_sha256,
                    "usd": money.charged(connection, record.job_id),
                }
                for record in (job_rows.get(connection, job_id) for job_id in ids)
            ]

    def _peeks(self, confirm: Path, rows: Sequence[store.StageRow]) -> list[str]:
        """Jobs other than those of an opening whose script names the confirm half."""
        own = {row.job_id for row in rows if row.key.kind == "confirm"}
        with self._ledger.read() as connection:
            jobs = connection.execute("SELECT job_id, script_id FROM jobs").fetchall()
        found = []
        for job_id, script_id in jobs:
            path = self._workspace.script(script_id)
            if job_id not in own and path.is_file() and str(confirm) in path.read_text(errors="replace"):
                found.append(f"{job_id} names the confirm half and was no opening of it.")
        return found

    def _datasets(self, situation: Situation) -> list[dict[str, Any]]:
        """Every dataset that a trial trained on, once."""
        found: dict[str, dict[str, Any]] = {}
        for trial in situation.trials:
            for source in _sources(trial):
                entry = found.setdefault(json.dumps(source, sort_keys=True), {**source, "trials": []})
                entry["trials"].append(trial.number)
                path = Path(str(source["dataset"]))
                if path.is_file():
                    entry["sha256"] = file_sha256(path)
                if trial.data is not None:
                    entry["generated_by"] = trial.data
        return list(found.values())

    async def _overlaps(
        self, experiment: str, datasets: Sequence[Mapping[str, Any]]
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Each training set against both halves; what was compared before, by hash, is not compared again."""
        folder = folder_of(self._workspace, experiment)
        known: dict[str, Any] = read_json(folder / CACHE) or {}
        plan = store.plan_of(self._ledger, experiment)
        found: list[dict[str, Any]] = []
        holes: list[str] = []
        for entry in datasets:
            for half in (DECIDE, CONFIRM):
                identity = entry.get("sha256") or json.dumps([entry["dataset"], entry.get("revision")])
                mark = f"{identity}/{entry.get('split')}/{plan.hashes[half]}"
                if mark not in known:
                    try:
                        result = await self._contamination.check(
                            str(entry["dataset"]),
                            str(folder / half),
                            train_split=entry.get("split"),
                            train_config=entry.get("config"),
                        )
                    except MlinternError as error:
                        holes.append(f"{entry['dataset']} was not compared with {half}: {error}")
                        continue
                    known[mark] = {
                        "train_rows": result.train_rows,
                        "evaluation_rows": result.evaluation_rows,
                        "flagged": result.flagged,
                        "rate": result.rate,
                        "method": result.method,
                        "partial": result.partial,
                        "short_texts": result.short_texts,
                    }
                found.append({"train": entry["dataset"], "half": half, **known[mark]})
                holes += [f"{entry['dataset']} against {half}: {said}" for said in known[mark]["partial"]]
        write_json_durably(folder / CACHE, known)
        return found, holes

    def _relative(self, path: Path) -> str:
        """Relative to the workspace where it lies in it: certificates travel with it."""
        absolute = path.absolute()
        root = self._workspace.root
        return str(absolute.relative_to(root)) if absolute.is_relative_to(root) else str(absolute)


def _sources(trial: Trial) -> list[dict[str, Any]]:
    if trial.recipe is None or not any(key.kind == "train" for key in trial.stages):
        return []
    recipe = trial.recipe
    several = recipe.get("datasets") or ([recipe] if recipe.get("dataset") else [])
    return [
        {
            "dataset": source["dataset"],
            "config": source.get("dataset_config"),
            "split": source.get("split", "train"),
            "revision": source.get("dataset_revision"),
        }
        for source in several
    ]


def _trial_json(trial: Trial, trials: Sequence[Trial]) -> dict[str, Any]:
    names = {other.number: other.name for other in trials}
    return {
        "number": trial.number,
        "name": trial.name,
        "state": trial.state,
        "reason": trial.reason,
        "parent": names.get(trial.parent) if trial.parent is not None else None,
        "change": dict(trial.change),
        "recipe": dict(trial.recipe) if trial.recipe else None,
        "measure": dict(trial.measure),
        "seeds": list(trial.seeds),
        "rungs": list(trial.rungs),
        "jobs": [stage.job_id for _, stage in sorted(trial.stages.items(), key=_by_key)],
    }


def _by_key(pair: tuple[StageKey, object]) -> StageKey:
    return pair[0]


def _base_folder(model: str, revision: str | None) -> Path | None:
    """Where the base model lies on this machine: a folder, or a snapshot in the Hugging Face cache."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str | os.PathLike) else None


def _environment() -> dict[str, str]:
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
