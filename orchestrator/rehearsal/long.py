"""Three hundred turns on this machine: compactions, a doom loop, a failing service, a kill and a resume, counted.

The agent runs in a process of its own, the real command with its JSON output, so that it can be killed. The model's
part is `long_plan`; the server is ours, over stdio, with real calls.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlintern.orchestrator.events import Notice
from mlintern.orchestrator.frontend import Frontend
from mlintern.orchestrator.rehearsal.long_plan import DONE, KILL_AT, TURNS, LongPlan
from mlintern.orchestrator.rehearsal.messages_server import MessagesServer

COMPACT_AT = 40_000
"""Tokens; low, so that three hundred short turns need several compactions."""

GOAL = "Read what the trainers' parameters mean, run the one job, and say when you are done."
NO_KEY = "no-key-is-needed-on-loopback"
FAILED = 1


@dataclass
class Tally:
    """What the agent's own JSON lines said, over both of its lives."""

    turns: int = 0
    session: str = ""
    compactions: list[tuple[int, int]] = field(default_factory=list)
    guard: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    result: dict[str, Any] = field(default_factory=dict)

    def take(self, record: dict[str, Any]) -> None:
        match record["type"]:
            case "init":
                self.session = record["session_id"]
            case "usage":
                self.turns += 1
            case "compaction":
                self.compactions.append((record["before_tokens"], record["after_tokens"]))
            case "guard":
                self.guard[record["level"]] += 1
            case "retry":
                self.retries += 1
            case "tool_result":
                self.calls[record["name"].rsplit("__", 1)[-1]] += 1
            case "result":
                self.result = record


def run_long(*, frontend: Frontend, folder: Path | None = None) -> int:
    """Run it in ``folder`` (default: a new one below ``./mlintern-rehearsal``); 0 if every count is as it must be."""
    started = time.monotonic()
    folder = (folder or Path("mlintern-rehearsal", time.strftime("%Y%m%d-%H%M%S"))).absolute()
    folder.mkdir(parents=True)
    _say(frontend, f"{TURNS} turns with a fixed plan in the model's place; killed at turn {KILL_AT} and resumed.")
    tally, plan = Tally(), LongPlan()
    with MessagesServer(plan) as model:
        _run_until(folder, model.url, [GOAL], tally, frontend, kill_at=KILL_AT)
        before = tally.turns
        _say(frontend, f"Killed after turn {before} with SIGKILL; resuming session {tally.session}.")
        _run_until(folder, model.url, ["--resume", tally.session], tally, frontend)
        refused = len([each for each in model.requests if not each.scripted and "compaction" not in each.json])
        goal_lost = len([each for each in model.requests if each.scripted and GOAL not in each.body.decode()])
    jobs = len(list((folder / "home" / "jobs").glob("job-*")))
    checks = {
        f"turns: {tally.turns}": plan.turn == TURNS and tally.turns >= TURNS - 1,
        f"compactions: {len(tally.compactions)} ({_sizes(tally)})": len(tally.compactions) >= 2
        and all(after < 0.6 * COMPACT_AT for _, after in tally.compactions),
        f"doom loop: {dict(tally.guard)}": tally.guard["refuse"] >= 1 and not tally.guard["stop"],
        f"retries: {tally.retries} (529: {plan.failures.get('529', 0)}, cut stream: {plan.failures.get('cut', 0)})": (
            tally.retries >= 2 and len(plan.failures) == 2
        ),
        f"killed at turn {before}, resumed, ended: {tally.result.get('stop')}": before >= KILL_AT
        and tally.result.get("text") == DONE,
        f"jobs: {jobs} (submitted {tally.calls['submit_job']} time)": jobs == 1 and tally.calls["submit_job"] == 1,
        f"requests that broke a rule of the API: {refused}": refused == 0,
        f"requests in which the goal was missing: {goal_lost}": goal_lost == 0,
    }
    for text, good in checks.items():
        _say(frontend, f"{'✓' if good else '✗'} {text}")
    _say(frontend, f"The long rehearsal took {time.monotonic() - started:.0f} s.")
    return 0 if all(checks.values()) else FAILED


def _run_until(
    folder: Path, url: str, what: list[str], tally: Tally, frontend: Frontend, *, kill_at: int | None = None
) -> None:
    """One life of the agent: until it ends, or until it is killed."""
    command = [
        *(sys.executable, "-m", "mlintern.orchestrator.cli", "-p", "--output", "stream-json", "--yes"),
        *("--base-url", url, "--endpoint-profile", "anthropic", "--model", "fixed-plan"),
        *(
            "--price-in",
            "0",
            "--price-out",
            "0",
            "--compact-at",
            str(COMPACT_AT),
            "--max-iterations",
            str(TURNS + 10),
        ),
        *what,
    ]
    environment = {
        **os.environ,
        "ANTHROPIC_API_KEY": NO_KEY,
        "MLINTERN_HOME": str(folder / "home"),
        "MLINTERN_SESSIONS": str(folder / "sessions"),
        "MLINTERN_WAIT_SCALE": "0.1",
        "HF_HUB_OFFLINE": "1",
    }
    with (
        (folder / "agent.log").open("ab") as log,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as agent,
    ):
        assert agent.stdout is not None
        for line in agent.stdout:
            record = json.loads(line)
            tally.take(record)
            if record["type"] == "usage" and tally.turns % 50 == 0:
                _say(frontend, f"turn {tally.turns}, {record['context_tokens']} tokens of context")
            if record["type"] in ("compaction", "guard", "retry"):
                _say(frontend, f"turn {tally.turns}: {_short(record)}")
            if kill_at is not None and tally.turns >= kill_at and record["type"] == "tool_use":
                agent.send_signal(signal.SIGKILL)
                break


def _short(record: dict[str, Any]) -> str:
    match record["type"]:
        case "compaction":
            return f"compacted from {record['before_tokens']} to {record['after_tokens']} tokens"
        case "guard":
            return f"guard ({record['level']})"
    return f"the service failed: {record['error'].splitlines()[0][:100]}"


def _sizes(tally: Tally) -> str:
    return ", ".join(f"{before} to {after}" for before, after in tally.compactions) + " tokens"


def _say(frontend: Frontend, text: str) -> None:
    frontend.show(Notice(text=text))
