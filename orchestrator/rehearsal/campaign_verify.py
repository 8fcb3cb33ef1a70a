"""Was the campaign real? Answered from the files that its jobs left, not from what anyone reported."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from mlintern.orchestrator.rehearsal.plan import EXPERIMENT, TARGET, Inputs
from mlintern.orchestrator.rehearsal.verify import (
    CHANCE,
    Unproven,
    check_report,
    check_trained,
    content_of,
    rows_of,
)

TRIALS = 4
CERTIFICATE = "certificate.json"


def verify_campaign(home: Path, inputs: Inputs) -> str:
    """Check every step from the files in the workspace ``home``; returns a sentence about what was found.

    Raises:
        Unproven: a step is missing, a number is not what its samples give, or the target was not reached.
    """
    items = {item["id"]: item["answer"] for item in rows_of(inputs.held_out)}
    decide, confirm = (_half(home / "experiments" / EXPERIMENT / name, items) for name in ("decide", "confirm"))
    if decide.keys() & confirm.keys():
        raise Unproven("an item stands in both halves")
    chosen_by: dict[str, float] = {}
    confirmed: dict[str, float] = {}
    for path in sorted(home.glob("jobs/*/output/evaluation.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        scored = {row["id"] for row in rows_of(path.parent / document["samples"])}
        half, scores = (confirm, confirmed) if scored <= confirm.keys() else (decide, chosen_by)
        scores[document["model"]] = _recounted(path.parent, document, half, shown=document.get("fewshot", 0))
    baseline = confirmed.pop(str(inputs.base), None)
    trained = [model for model in chosen_by if model != str(inputs.base)]
    if baseline is None or not confirmed or len(trained) < TRIALS or not confirmed.keys() <= set(trained):
        raise Unproven(f"the base model, {TRIALS} trained models and the confirmed ones must have been measured")
    error = math.sqrt(CHANCE * (1 - CHANCE) / len(confirm))
    if abs(baseline - CHANCE) > 4 * error:
        raise Unproven(f"the untrained model scores {baseline:.1%}, which is not chance")
    untrained = content_of(inputs.base / "model.safetensors")
    for model in trained:
        check_trained(Path(model), untrained)
    report = home / "reports" / EXPERIMENT
    check_report(report)
    if not (report / CERTIFICATE).is_file():
        raise Unproven(f"there is no certificate in {report}")
    final = sum(confirmed.values()) / len(confirmed)
    if final < TARGET:
        raise Unproven(f"the confirmed recipe scores {final:.1%}; the target was {TARGET:.0%}")
    return (
        f"{len(decide)} items to choose by and {len(confirm)} to confirm by, recounted from every answer; "
        f"{len(trained)} trained models; on the confirm half baseline {baseline:.1%}, "
        f"trained {', '.join(f'{score:.1%}' for score in sorted(confirmed.values()))}."
    )


def _half(path: Path, items: dict[str, str]) -> dict[str, str]:
    """The answers of the items of one half, which must be held-out items as they were made."""
    half = {item["id"]: item["answer"] for item in rows_of(path.with_suffix(".jsonl"))}
    if not half or any(items.get(name) != answer for name, answer in half.items()):
        raise Unproven(f"{path.with_suffix('.jsonl')} does not hold held-out items as they were made")
    return half


def _recounted(output: Path, document: dict[str, Any], items: dict[str, str], *, shown: int) -> float:
    """The accuracy that the samples give, which must be the one in the result file.

    Args:
        shown: how many items may be missing because they were shown as worked examples.
    """
    samples = {row["id"]: row for row in rows_of(output / document["samples"])}
    if not samples.keys() <= items.keys() or len(samples) < len(items) - shown:
        raise Unproven(f"{output} did not score just the items of one half")
    right = len([key for key, row in samples.items() if row["prediction"] == items[key]])
    reported = next(row for row in document["rows"] if row["metric"] == "accuracy")
    if not math.isclose(reported["value"], right / len(samples), abs_tol=1e-9) or reported["n"] != len(samples):
        raise Unproven(f"{output} reports {reported['value']} but its samples give {right}/{len(samples)}")
    return right / len(samples)
