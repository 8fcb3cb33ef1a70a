"""Was it real? Answered from the files that the jobs left, not from what anyone reported."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from mlintern.orchestrator.errors import OrchestratorError
from mlintern.orchestrator.rehearsal.plan import EXPERIMENT, TARGET, Inputs

CHANCE = 0.1
PNG = b"\x89PNG\r\n\x1a\n"


class Unproven(OrchestratorError):
    """A step of the rehearsal left no proof; the text says which."""


def verify(home: Path, inputs: Inputs) -> str:
    """Check every step from the files in the workspace ``home``; returns a sentence about what was found.

    Raises:
        Unproven: a step is missing, a number is not what its samples give, or the target was not reached.
    """
    items = {item["id"]: item["answer"] for item in rows_of(inputs.held_out)}
    scores: dict[str, float] = {}
    for path in sorted(home.glob("jobs/*/output/evaluation.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        scores[document["model"]] = _recounted(path.parent, document, items)
    baseline = scores.pop(str(inputs.base), None)
    if baseline is None or not scores:
        raise Unproven("the base model and at least one trained model must have been measured")
    error = math.sqrt(CHANCE * (1 - CHANCE) / len(items))
    if abs(baseline - CHANCE) > 4 * error:
        raise Unproven(f"the untrained model scores {baseline:.1%}, which is not chance")
    untrained = content_of(inputs.base / "model.safetensors")
    for model in scores:
        check_trained(Path(model), untrained)
    check_report(home / "reports" / EXPERIMENT)
    best = max(scores.values())
    if best < TARGET:
        raise Unproven(f"the best model scores {best:.1%}; the target was {TARGET:.0%}")
    return (
        f"{len(items)} held-out items, recounted from every answer; baseline {baseline:.1%}, "
        f"trained {', '.join(f'{score:.1%}' for score in sorted(scores.values()))}."
    )


def _recounted(output: Path, document: dict[str, Any], items: dict[str, str]) -> float:
    """The accuracy that the samples give, which must be the one in the result file."""
    samples = {row["id"]: row for row in rows_of(output / document["samples"])}
    if samples.keys() != items.keys():
        raise Unproven(f"{output} did not score just the held-out items")
    right = len([key for key, row in samples.items() if row["prediction"] == items[key]])
    reported = next(row for row in document["rows"] if row["metric"] == "accuracy")
    if not math.isclose(reported["value"], right / len(items), abs_tol=1e-9) or reported["n"] != len(items):
        raise Unproven(f"{output} reports {reported['value']} but its samples give {right}/{len(items)}")
    return right / len(items)


def check_trained(model: Path, untrained: bytes) -> None:
    weights = content_of(model / "model.safetensors")
    if weights == untrained or len(weights) != len(untrained):
        raise Unproven(f"{model} is not the base model, trained")
    steps = [
        row for row in rows_of(model.parent / "metrics.jsonl") if row["kind"] == "metrics" and "loss" in row["values"]
    ]
    if len(steps) < 3 or not steps[-1]["values"]["loss"] < steps[0]["values"]["loss"]:
        raise Unproven(f"{model.parent} shows no training")


def check_report(folder: Path) -> None:
    report = folder / "report.md"
    pictures = sorted(folder.glob("*.png"))
    if not report.is_file() or len(pictures) < 2:
        raise Unproven(f"there is no report with two pictures in {folder}")
    for picture in pictures:
        if not picture.read_bytes().startswith(PNG) or picture.name not in report.read_text(encoding="utf-8"):
            raise Unproven(f"{picture} is not a picture of the report")


def rows_of(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in content_of(path).splitlines()]
    except ValueError as error:
        raise Unproven(f"{path} is not what a job writes: {error}") from error


def content_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unproven(f"{path} cannot be read: {error.strerror}") from error
