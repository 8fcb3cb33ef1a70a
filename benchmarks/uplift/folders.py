"""The folder that an agent starts in: base model, rows, the task in words; and in one arm mlintern's server."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from benchmarks.uplift.cells import Cell, Task, write_rows

ARMS = ("bare", "mlintern")
HOME = "mlintern"
"""The workspace of mlintern's server, inside the folder."""
ALLOWED = ("local", "run_trials:local", "confirm:local")

PROMPT = """Post-train a small language model. You have {minutes:g} minutes of wall-clock time from now; then
everything that you have started is ended. Nobody answers questions.

Task: {goal}. The folder that you are in holds
* base/ - the model to start from, for transformers. Leave it as it is.
* train.jsonl - {train} rows to train on, each a prompt and a completion as chat messages.
* practice.jsonl - {practice} items to measure with; the hidden test has such items, others.

Leave the trained model as the folder final_model, in the form that save_pretrained writes, with safetensors, of the
same architecture as base/ and without code of its own. It is scored on the hidden test with the tokenizer and the
chat template of base/: each question is one user message; {how}.
A model that does not load, that does not descend from base/, or that was trained on hidden items counts as untrained.
Save a model early and replace it by better ones: what is there when the time is over is what counts.
Other weights than base/ may not be used. This machine has no internet.
"""
CHOICES = "the choice that the model finds likeliest as its answer counts"
WRITES = "what the model writes, likeliest token by token, must be the answer and nothing else"

WITH_MLINTERN = """
You have mlintern's tools (the MCP server in mcp.json): open_experiment fixes how is measured and starts the clock,
run_trials trains and measures in the background, poll_experiment compares, confirm checks the choice on fresh items.
Jobs on this machine are allowed in advance. poll_experiment's best_model is a folder to copy to final_model.
"""


def prompt(cell: Cell, task: Task, *, arm: str, minutes: float) -> str:
    """What the agent is told; the same in both arms but for the paragraph about the tools."""
    said = PROMPT.format(
        minutes=minutes,
        goal=cell.goal,
        train=len(task.train),
        practice=len(task.practice),
        how=CHOICES if cell.evaluation["kind"] == "multiple_choice" else WRITES,
    )
    return said + (WITH_MLINTERN if arm == "mlintern" else "")


def prepare(folder: Path, *, cell: Cell, task: Task, base: Path, arm: str, minutes: float) -> str:
    """Make the folder; returns the prompt. The hidden items are not in it."""
    folder.mkdir(parents=True)
    shutil.copytree(base, folder / "base")
    write_rows(folder / "train.jsonl", task.train)
    write_rows(folder / "practice.jsonl", [public(item) for item in task.practice])
    (folder / "evaluation.json").write_text(json.dumps(cell.evaluation))
    said = prompt(cell, task, arm=arm, minutes=minutes)
    (folder / "TASK.md").write_text(said)
    if arm == "mlintern":
        (folder / "mcp.json").write_text(json.dumps(servers(folder), indent=2))
        shutil.copy(folder / "mcp.json", folder / ".mcp.json")  # where Claude Code looks
    return said


def servers(folder: Path) -> dict[str, object]:
    allow = [part for rule in ALLOWED for part in ("--allow", rule)]
    entry = {
        "command": sys.executable,
        "args": ["-m", "mlintern.server", "serve", "--slots", "2", *allow],
        "env": {"MLINTERN_HOME": str(folder / HOME), "HF_HUB_OFFLINE": "1"},
    }
    return {"mcpServers": {"mlintern": entry}}


def public(item: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in item.items() if name != "verifier"}
