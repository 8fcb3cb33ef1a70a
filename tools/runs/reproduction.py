"""How to run again what the verdict rests on: scripts, versions, seeds, commands."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlintern.tools.runs.standing import Standing, Trial
from mlintern.tools.runs.tables import plain

_HEADER = re.compile(r"(?m)^# /// script\s*$\n((?:^#(?:| .*)$\n)+)^# ///\s*$")


def reproduction(standing: Standing, scripts: Mapping[str, Path]) -> Iterator[str]:
    """How to repeat the baseline, the best run, and the measurement of either.

    Args:
        scripts: where each script lies, by script id.
    """
    needed = {trial.run.job_id: trial for trial in (standing.baseline, standing.best) if trial is not None}
    by_id = {trial.run.job_id: trial for trial in standing.trials}
    for trial in list(needed.values()):
        if trial.measured_by in by_id:
            needed[trial.measured_by] = by_id[trial.measured_by]
    if not needed:
        return
    yield "## Reproduce"
    yield ""
    yield "Scripts are named by the first 12 digits of their SHA-256 and lie as they ran in the workspace."
    for trial in needed.values():
        yield ""
        yield from _how_to_repeat(trial, scripts.get(trial.run.script_id))


def _how_to_repeat(trial: Trial, script: Path | None) -> Iterator[str]:
    run = trial.run
    header = _script_header(script)
    command = ["uv", "run", str(script or f"{run.script_id}.py"), *map(str, run.spec.get("args", ()))]
    names = ", ".join(str(pair[0]) for pair in run.spec.get("env", ()) if pair)
    yield f"### {plain(run.run_id)}"
    yield ""
    yield f"* job `{run.job_id}` on {run.backend}, {run.hardware}"
    yield f"* script `{run.script_id}`, SHA-256 `{run.script_sha256}`"
    if run.recipe and run.recipe.get("seed") is not None:
        yield f"* seed {run.recipe['seed']}"
    if header.get("dependencies"):
        python = header.get("requires-python")
        yield f"* packages: {', '.join(map(str, header['dependencies']))}" + (f"; Python {python}" if python else "")
    if names:
        yield f"* environment variables (values in the job's spec.json): {names}"
    yield ""
    yield "```sh"
    yield f"MLINTERN_OUTPUT_DIR=out {shlex.join(command)}"
    yield "```"
    if run.recipe:
        yield ""
        yield "```json"
        yield json.dumps(run.recipe, indent=2, ensure_ascii=False)
        yield "```"


def _script_header(script: Path | None) -> dict[str, Any]:
    """The PEP 723 metadata of a script; empty if it has none that can be read."""
    if script is None or not script.is_file():
        return {}
    block = _HEADER.search(script.read_text(encoding="utf-8", errors="replace"))
    if block is None:
        return {}
    try:
        return tomllib.loads("".join(line[2:] or "\n" for line in block[1].splitlines(keepends=True)))
    except tomllib.TOMLDecodeError:
        return {}
