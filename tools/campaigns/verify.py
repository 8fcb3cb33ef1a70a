"""A certificate recounted from the files it names, in a process that knows nothing else: `mlintern-server verify`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from mlintern.tools.campaigns.campaign_results import Verification, VerifyProblem
from mlintern.tools.campaigns.recount import Samples, file_sha256, read_ids, read_samples
from mlintern.tools.campaigns.verdicts import Effect, recipe_effect
from mlintern.tools.campaigns.weights import descent
from mlintern.tools.campaigns.work import weights_sha256
from mlintern.tools.errors import BadInput, MlinternError

TOLERANCE = 1e-9


def verify(certificate: Path, *, workspace: Path) -> Verification:
    """Recount a certificate; every statement that does not hold is named.

    Args:
        workspace: the folder that the certificate's relative paths begin in.

    Raises:
        BadInput: the file is no certificate.
    """
    document = _read(certificate)
    checks = (
        ("the held-out items are those of the protocol", _items),
        ("every measurement is what its answers give", _measurements),
        ("the weights are those that were measured", _weights),
        ("the trained model descends from the base model", _descent),
        ("the claim is what the answers of the confirm half give", _claim),
        ("no trial or job is missing", _tries),
        ("the training data are those that were compared", _datasets),
    )
    problems: list[VerifyProblem] = []
    for what, check in checks:
        try:
            found = list(check(document, workspace))
        except (MlinternError, KeyError, TypeError, ValueError, AttributeError, OSError) as error:
            said = str(error) if isinstance(error, MlinternError) else f"The certificate is damaged there: {error!r}"
            found = [said]
        problems += [VerifyProblem(what=what, message=message) for message in found]
    claim = document.get("claim") or {}
    return Verification(
        certificate=str(certificate),
        holds=not problems,
        checked=[what for what, _ in checks],
        problems=problems,
        holes=[str(hole) for hole in document.get("holes") or []],
        summary={
            name: claim[name]
            for name in ("verdict", "baseline", "candidate", "delta", "ci_low", "ci_high", "seeds", "items")
            if name in claim
        },
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is no certificate: {error}.", next_step="Name a certificate.json.") from error
    if not isinstance(document, dict) or document.get("certificate") != 1:
        raise BadInput(f"{path} is no certificate of this version.", next_step="Name a certificate.json.")
    return document


def _items(document: Mapping[str, Any], workspace: Path) -> Iterator[str]:
    shown = document["protocol"].get("examples")
    parts = {**document["protocol"]["items"], **({"The file of worked examples": shown} if shown else {})}
    for name, entry in parts.items():
        if file_sha256(workspace / entry["path"]) != entry["sha256"]:
            yield f"{name} was changed: it is not the file that the experiment was opened with."


def _measurements(document: Mapping[str, Any], workspace: Path) -> Iterator[str]:
    protocol = document["protocol"]
    column = protocol["evaluation"].get("id_column", "id")
    ids = {name: read_ids(workspace / entry["path"], column) for name, entry in protocol["items"].items()}
    for entry in document["measurements"]:
        samples, problems = _samples(entry, workspace)
        yield from (f"{entry['job_id']}: {problem}." for problem in problems[:5])
        if samples.sha256 != entry["samples_sha256"]:
            yield f"{entry['job_id']}: its answers were changed after they were certified."
        if strange := set(samples.scores) - ids[entry["half"]]:
            yield f"{entry['job_id']}: {len(strange)} answers are to items that are not of {entry['half']}."
        mean = fmean(samples.scores.values()) if samples.scores else float("nan")
        if entry["value"] is None or abs(mean - entry["value"]) > 1e-6:
            yield f"{entry['job_id']}: {entry['value']} is certified, its answers give {mean:.6f}."


def _weights(document: Mapping[str, Any], workspace: Path) -> Iterator[str]:
    for model in document["models"]:
        now = weights_sha256(workspace / model["path"])
        if now != model["weights_sha256"]:
            yield f"The model of seed {model['seed']} was changed: its weights are not those certified."
    certified = {(model["trial"], model["seed"]): model["weights_sha256"] for model in document["models"]}
    for entry in document["measurements"]:
        expected = certified.get((entry["trial"], entry["seed"]))
        on_top = entry["half"] != "decide.jsonl" or entry["rung_or_opening"] == _top_rung(document, entry["trial"])
        if expected is not None and on_top and entry["weights_sha256"] not in (None, expected):
            yield f"{entry['job_id']} measured other weights than those of the certified model of its seed."
    base = document["base_model"]
    if base["folder"] and weights_sha256(workspace / base["folder"]) != base["weights_sha256"]:
        yield "The base model was changed."


def _top_rung(document: Mapping[str, Any], trial: int) -> int:
    own = next(one for one in document["trials"] if one["number"] == trial)
    return len(own["rungs"]) - 1


def _descent(document: Mapping[str, Any], workspace: Path) -> Iterator[str]:
    base = document["base_model"]["folder"]
    for model in document["models"]:
        if "descent" not in model or base is None:
            continue
        found = descent(workspace / base, workspace / model["path"])
        if list(found.differing[:10]) != model["descent"]["differing"]:
            yield f"Seed {model['seed']}: other tensors differ from the base model's than certified."
        stated = model["descent"]["distance"]
        if found.distance is not None and (stated is None or abs(found.distance - stated) > 1e-6 * (1 + stated)):
            yield f"Seed {model['seed']}: the distance to the base model is {found.distance:.6g}, not {stated}."


def _claim(document: Mapping[str, Any], workspace: Path) -> Iterator[str]:
    claim = document["claim"]
    if claim is None or "delta" not in claim:
        return
    own = [
        (entry, _samples(entry, workspace)[0])
        for entry in document["measurements"]
        if entry["half"] == "confirm.jsonl" and entry["rung_or_opening"] == claim["opening"]
    ]
    chosen = [_signed(entry, samples) for entry, samples in own if entry["trial"] == claim["trial"]]
    base = [_signed(entry, samples) for entry, samples in own if entry["trial"] != claim["trial"]]
    if not chosen or not base:
        yield "The measurements that the claim rests on are not in the certificate."
        return
    found = recipe_effect(base, chosen, tries=claim["opening"])
    if not isinstance(found, Effect):
        yield found
        return
    for name in ("delta", "ci_low", "ci_high", "p_adjusted", "verdict", "seeds", "items"):
        stated, counted = claim.get(name), getattr(found, name)
        same = stated == counted if isinstance(counted, str) else abs(float(stated) - float(counted)) <= TOLERANCE
        if not same:
            yield f"The claim says {name} = {stated}; recounted it is {counted}."


def _tries(document: Mapping[str, Any], workspace: Path) -> Iterator[str]:
    """Every job folder of the workspace that belongs to the experiment stands in the certificate."""
    known = {job["job_id"] for job in document["jobs"]}
    experiment = document["experiment"]
    for path in sorted((workspace / "jobs").glob("*/spec.json")):
        spec = json.loads(path.read_bytes()).get("spec", {})
        if spec.get("experiment") == experiment and path.parent.name not in known:
            yield f"{path.parent.name} ({spec.get('run_name')}) is of the experiment and not in the certificate."
    listed = {job for trial in document["trials"] for job in trial["jobs"]}
    for job in document["jobs"]:
        if job["job_id"] not in listed and job["state"] == "succeeded" and not _retried(job):
            yield f"{job['job_id']} ({job['name']}) belongs to no trial of the certificate."
    tries = sum(trial["recipe"] is not None for trial in document["trials"])
    if tries != document["tries"]:
        yield f"{document['tries']} tries are certified, {tries} trials are listed."
    numbers: Sequence[int] = sorted(trial["number"] for trial in document["trials"])
    if list(numbers) != list(range(1, len(numbers) + 1)):
        yield "The numbers of the trials have gaps: a trial was taken out."


def _retried(job: Mapping[str, Any]) -> bool:
    """A first attempt that was lost and made again stands in no trial's list."""
    return " attempt " in str(job.get("name"))


def _datasets(document: Mapping[str, Any], workspace: Path) -> Iterator[str]:
    for entry in document["datasets"]:
        path = Path(str(entry["dataset"]))
        if entry.get("sha256") and (not path.is_file() or file_sha256(path) != entry["sha256"]):
            yield f"{path.name} is not the file that was trained on."
    compared = {(entry["train"], entry["half"]) for entry in document["contamination"]}
    for entry in document["datasets"]:
        for half in document["protocol"]["items"]:
            if (entry["dataset"], half) not in compared and not document.get("holes"):
                yield f"{entry['dataset']} was not compared with {half}, and no hole says so."


def _signed(entry: Mapping[str, Any], samples: Samples) -> dict[str, float]:
    """Scores of which a larger one is better, as verdicts take them."""
    sign = -1.0 if entry.get("higher_is_better") is False else 1.0
    return {item: sign * score for item, score in samples.scores.items()}


def _samples(entry: Mapping[str, Any], workspace: Path) -> tuple[Samples, list[str]]:
    return read_samples(workspace / entry["samples"], entry["metric"])
