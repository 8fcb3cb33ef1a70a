"""What jobs took on the hardware that they ran on: the history by which estimates are corrected.

A rendered training script reports what its steps took when they are over (a telemetry row of kind ``measured``); it
is kept among the resources of the job in the ledger. A probe is a job that does nothing else: some real steps on the
very hardware, then it stops.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlintern.tools.errors import BadInput
from mlintern.tools.jobs.backend import ScriptFile
from mlintern.tools.jobs.spec import PROBE_VARIABLE

PROBE_STEPS = 20
FIELDS = (
    *("steps", "total_steps", "seconds_per_step", "startup_seconds"),
    *("peak_memory_gib", "tokens_per_step"),
)
"""Numbers of a row ``measured``: steps done and planned, seconds of a step (without the first), seconds until the
first step was over, peak memory of the first process or its device, tokens of a step where the trainer counts."""

RECENT = 20


@dataclass(frozen=True)
class Past:
    """What one job measured. ``peak_memory_gib`` and ``tokens_per_step`` are 0 where it did not say."""

    job_id: str
    script_id: str
    recipe: Mapping[str, Any]
    steps: float
    total_steps: float
    seconds_per_step: float
    startup_seconds: float
    peak_memory_gib: float = 0.0
    tokens_per_step: float = 0.0


def demand_probe(script: ScriptFile, *, scheduled: bool) -> None:
    """Refuse a probe of what cannot stop by itself.

    Raises:
        BadInput: the script does not read the variable, or the job has a schedule.
    """
    if scheduled:
        raise BadInput("A probe runs once.", next_step="Leave schedule out.")
    if PROBE_VARIABLE not in script.text:
        raise BadInput(
            "A probe stops a training script after a few steps, and this script does not know how.",
            next_step="Render a training recipe anew with render_script, or submit the script with a short timeout.",
        )


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a telemetry row of kind ``measured``; what is none is left out."""
    found = {name: row.get(name) for name in FIELDS}
    return {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and math.isfinite(value) and value >= 0
    }


def history(connection: sqlite3.Connection, *, backend: str, hardware: str) -> list[Past]:
    """What the latest jobs on that hardware measured, the latest first."""
    rows = connection.execute(
        "SELECT jobs.job_id, jobs.script_id, scripts.recipe, json_extract(jobs.summary, '$.resources') AS resources"
        " FROM jobs JOIN scripts USING (script_id)"
        " WHERE jobs.backend = ? AND jobs.hardware = ? AND scripts.recipe IS NOT NULL"
        " AND json_extract(jobs.summary, '$.resources.seconds_per_step') > 0"
        " ORDER BY jobs.created_at DESC LIMIT ?",
        (backend, hardware, RECENT),
    )
    found = []
    for row in rows:
        known = numbers(json.loads(row["resources"]))
        if known.get("total_steps"):
            recipe = json.loads(row["recipe"])
            found.append(Past(job_id=row["job_id"], script_id=row["script_id"], recipe=recipe, **known))
    return found
