"""How to run again what the verdict rests on: scripts, versions, seeds, commands."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlintern.tools.errors import BadInput
from mlintern.tools.runs.leaderboard import Leaderboard, Trial
from mlintern.tools.runs.markdown_tables import plain
from mlintern.tools.scripts.header import Header, read_header


def reproduction(board: Leaderboard, scripts: Mapping[str, Path]) -> Iterator[str]:
    """How to repeat the baseline, the best run, and the measurement of either.

    Args:
        scripts: where each script lies, by script id.
    """
    needed = {trial.run.job_id: trial for trial in (board.baseline, board.best) if trial is not None}
    by_id = {trial.run.job_id: trial for trial in board.trials}
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
        yield from _how_to_repeat(trial, scripts.get(trial.run.spec.script_id))


def _how_to_repeat(trial: Trial, script: Path | None) -> Iterator[str]:
    run = trial.run
    header = _header(script)
    command = ["uv", "run", str(script or f"{run.spec.script_id}.py"), *map(str, run.spec.args)]
    names = ", ".join(str(pair[0]) for pair in run.spec.env if pair)
    yield f"### {plain(run.run_id)}"
    yield ""
    yield f"* job `{run.job_id}` on {run.spec.backend}, {run.spec.hardware}"
    yield f"* script `{run.spec.script_id}`, SHA-256 `{run.spec.script_sha256}`"
    if run.recipe and run.recipe.get("seed") is not None:
        yield f"* seed {run.recipe['seed']}"
    if header is not None and header.requirements:
        yield f"* packages: {', '.join(header.requirements)}" + (f"; Python {header.python}" if header.python else "")
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


def _header(script: Path | None) -> Header | None:
    """The PEP 723 header of a script; None if it has none that can be read."""
    if script is None or not script.is_file():
        return None
    try:
        return read_header(script.read_text(encoding="utf-8", errors="replace"))
    except BadInput:  # its checks said so; it has run all the same
        return None
