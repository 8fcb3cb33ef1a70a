"""The scripted agent of the mlintern arm: an experiment through the MCP server in mcp.json, its best model handed in.

Like the one of the bare arm it decides nothing by understanding: two learning rates side by side for the time there
is, chosen by measurement on practice items. Trials that are refused because they do not fit are asked for again at
the size that is said to fit. Whatever is best so far is copied to final_model while the experiment goes on.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

NAME = "uplift"
RATES = (5e-5, 2e-4)
PARALLEL = 2
SAVING_SECONDS = 20.0
ITEMS_A_MINUTE = 20
"""Items to decide by, for each minute of the clock: measuring shall not take the time that training needs."""
FEWEST = 40
SHARE_OF_TRAINING = 0.5
"""Part of the clock that is asked for at first; the rest is for loading and measuring."""
MOST_TRIES = 4


async def main() -> int:
    entry = json.loads(Path("mcp.json").read_text())["mcpServers"]["mlintern"]
    parameters = StdioServerParameters(
        command=entry["command"], args=entry["args"], env={**os.environ, **entry["env"]}
    )
    with Path("server.log").open("w") as log:
        async with Client(stdio_client(parameters, errlog=log)) as client:
            await work(partial(call, client))
    return 0


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await client.call_tool(tool, arguments)
    if answer.is_error or answer.structured_content is None:
        raise SystemExit(f"{tool} failed: {[getattr(part, 'text', '') for part in answer.content]}")
    return dict(answer.structured_content)


async def work(use: Any) -> None:
    ends = float(os.environ["UPLIFT_ENDS_AT"]) - SAVING_SECONDS
    minutes = (ends - time.time()) / 60
    steps = os.environ.get("UPLIFT_STEPS")
    folder = Path.cwd()
    practice = len((folder / "practice.jsonl").read_text().splitlines())
    decide = max(FEWEST, min(int(ITEMS_A_MINUTE * minutes), practice * 2 // 3))
    opened = await use(
        "open_experiment",
        name=NAME,
        model=str(folder / "base"),
        evaluation={
            **json.loads((folder / "evaluation.json").read_text()),
            "dataset": str(folder / "practice.jsonl"),
            "task": NAME,
            "batch_size": 32,
            "use_cpu": True,
        },
        limits={"hours": minutes / 60, "usd": 0, "parallel": PARALLEL},
        decide_rows=decide,
        confirm_rows=min(FEWEST, practice - decide),
    )
    say(f"opened: {opened['decide_rows']} items to decide by; {opened['detectable']}")
    first = {
        "trainer": "sft",
        "dataset": str(folder / "train.jsonl"),
        "save_steps": 0,
        "use_cpu": True,
        "hyperparameters": {
            "learning_rate": RATES[0],
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 1,
            "gradient_checkpointing": False,
            "max_length": 128,
        },
    }
    length: dict[str, Any] = (
        {"max_steps": int(steps)} if steps else {"max_minutes": round(minutes * SHARE_OF_TRAINING, 2)}
    )
    for attempt in range(MOST_TRIES):
        await queue(use, first | length, attempt)
        best, fits = await follow(use)
        say(f"best: {best}; fits: {fits}")
        if best is not None or fits is None:
            return
        length = {"max_minutes": fits}


async def queue(use: Any, recipe: dict[str, Any], attempt: int) -> None:
    """Both learning rates, of one length, as one batch."""
    seeds = [int(os.environ["UPLIFT_SEED"])]
    name = f"sft {attempt + 1}"
    trials: list[dict[str, Any]] = [{"name": name, "recipe": recipe, "seeds": seeds}]
    trials += [
        {
            "name": f"{name}, rate {rate:g}",
            "base": name,
            "change": {"hyperparameters.learning_rate": rate},
            "seeds": seeds,
        }
        for rate in RATES[1:]
    ]
    started = await use("run_trials", experiment=NAME, trials=trials)
    say(f"{started['status']}: {', '.join(started.get('trials', []))} {started.get('note', '')}")


async def follow(use: Any) -> tuple[str | None, float | None]:
    """Keep the best model so far as final_model until nothing runs any more.

    Returns the best trial, and the minutes of training that were said to fit where trials were refused.
    """
    kept: str | None = None
    while True:
        status = await use("poll_experiment", experiment=NAME, wait_seconds=15)
        for row in status["leaderboard"]:
            say(f"  {row['trial']}: {row['state']} {row.get('score')} {row.get('reason') or ''}")
        if status.get("best_model") and status["best"] != kept:
            kept = status["best"]
            hand_in(Path(status["best_model"]))
        if status["state"] != "running":
            say(status["next_step"])
            said = re.findall(r"max_minutes=([0-9.]+[0-9])", " ".join(row["reason"] for row in status["leaderboard"]))
            return kept, min(map(float, said)) if said else None


def hand_in(model: Path) -> None:
    """Whole or not at all: a copy beside it, then a rename."""
    fresh, place, old = Path("final_model.new"), Path("final_model"), Path("final_model.old")
    for one in (fresh, old):
        shutil.rmtree(one, ignore_errors=True)
    shutil.copytree(model, fresh)
    if place.exists():
        place.rename(old)
    fresh.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(anyio.run(main))
