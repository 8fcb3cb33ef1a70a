"""Put the rehearsal together and run it: inputs, loopback model, real agent, verification."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import anyio

from mlintern.common.clock import SystemClock
from mlintern.common.consent import Rule
from mlintern.orchestrator.events import Notice
from mlintern.orchestrator.frontend import Frontend
from mlintern.orchestrator.mcp_config import own_server
from mlintern.orchestrator.options import Options
from mlintern.orchestrator.prices import PRICES
from mlintern.orchestrator.rehearsal.campaign_plan import campaign
from mlintern.orchestrator.rehearsal.campaign_verify import CERTIFICATE, verify_campaign
from mlintern.orchestrator.rehearsal.messages_server import MessagesServer
from mlintern.orchestrator.rehearsal.plan import EXPERIMENT, TARGET, Inputs, first_light
from mlintern.orchestrator.rehearsal.script import replay
from mlintern.orchestrator.rehearsal.verify import Unproven, verify
from mlintern.orchestrator.run import run_agent
from mlintern.orchestrator.stops import Stop

NEEDED = ("torch", "trl", "transformers", "datasets", "accelerate", "matplotlib")
INPUTS_SECONDS = 300
MODEL = "fixed-plan"
"""What stands where a model's name would: nobody shall take it for one."""

ALLOWED = ("local", "run_trials:local", "confirm:local")
"""What ``--yes`` agrees to: free jobs on this machine."""

SLOTS = 2
"""Jobs that run side by side: as many as the experiment's limit on parallel ones."""

VERIFY_SECONDS = 300
FAILED = 1
USAGE = 2

EXPLANATION = (
    "A rehearsal: the decisions come from a fixed plan, served by a loopback server in the model's place.\n"
    "Everything else is real: the agent, its model client, the MCP server, the approvals, the jobs, the training."
)
GOAL = (
    f"Train the base model {{base}} to name the option with the largest number. Held-out items: {{held_out}}. "
    f"Training data: {{train}}. Target: {TARGET:.0%} accuracy. Use this machine only."
)


def run_first_light(*, yes: bool, frontend: Frontend, folder: Path | None = None, as_campaign: bool = False) -> int:
    """Measure, train, measure, report on this machine. Everything is kept in ``folder`` (default: a new one below
    ``./mlintern-rehearsal``).

    ``as_campaign``: baselines, four trials, a confirmation and a certificate that another process recounts.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"The rehearsal trains for real and needs {', '.join(missing)}. Install it with\n"
            "  pip install 'mlintern[train]'",
            file=sys.stderr,
        )
        return USAGE
    if not yes and frontend.person is None:
        print(
            "Nobody is here to approve the rehearsal's jobs: add --yes to allow jobs on this machine.",
            file=sys.stderr,
        )
        return USAGE
    started = time.monotonic()
    folder = (folder or Path("mlintern-rehearsal", time.strftime("%Y%m%d-%H%M%S"))).absolute()
    folder.mkdir(parents=True)
    say = functools.partial(_say, frontend)
    say(EXPLANATION)
    say("Making an untrained model of 0.1 M parameters and a task of 20,000 training and 1,000 held-out items.")
    try:
        inputs = make_inputs(folder / "inputs")
    except subprocess.SubprocessError as error:  # its own words stand above, on stderr
        say(f"The rehearsal failed: its model could not be made ({error}).", level="error")
        return FAILED
    stopped: list[str] = []
    stop = anyio.run(
        functools.partial(_run, folder, inputs, stopped, yes=yes, frontend=frontend, as_campaign=as_campaign)
    )
    if stop.exit_code or stopped:
        return stop.exit_code or FAILED
    try:
        proof = (verify_campaign if as_campaign else verify)(folder / "home", inputs)
    except Unproven as doubt:
        say(f"The rehearsal failed: {doubt}", level="error")
        return FAILED
    say(f"Verified from the files: {proof}")
    report = folder / "home" / "reports" / EXPERIMENT
    if as_campaign:
        holds, printed = verify_certificate(report / CERTIFICATE)
        say(f"$ mlintern-server verify {report / CERTIFICATE}\n{printed.rstrip()}")
        if not holds:
            say("The rehearsal failed: its certificate does not hold.", level="error")
            return FAILED
    say(f"Report: {report / 'report.md'}")
    say(f"The rehearsal took {time.monotonic() - started:.0f} s.")
    return 0


def make_inputs(folder: Path) -> Inputs:
    """Make the model and the task in a process of their own (torch stays out of this one)."""
    subprocess.run(
        [sys.executable, "-m", "mlintern.orchestrator.rehearsal.inputs", str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"},
        stdout=subprocess.DEVNULL,
        timeout=INPUTS_SECONDS,
        check=True,
    )
    return Inputs(base=folder / "base", train=folder / "train.jsonl", held_out=folder / "held_out.jsonl")


def verify_certificate(path: Path) -> tuple[bool, str]:
    """Have `mlintern-server verify` recount the certificate, as a user would: whether it holds, what it printed."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mlintern.server", "verify", str(path)],
            capture_output=True,
            text=True,
            timeout=VERIFY_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"It took longer than {VERIFY_SECONDS} s."
    return done.returncode == 0, done.stdout + done.stderr


async def _run(
    folder: Path, inputs: Inputs, stopped: list[str], *, yes: bool, frontend: Frontend, as_campaign: bool
) -> Stop:
    environment = {**os.environ, "MLINTERN_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    plan = functools.partial(campaign if as_campaign else first_light, inputs, on_stop=stopped.append)
    slots = ("--slots", str(SLOTS)) if as_campaign else ()
    with MessagesServer(functools.partial(replay, plan)) as model:
        options = Options(
            entries=(own_server(environment, args=("serve", "--data", str(folder), *slots)),),
            model=MODEL,
            prices=PRICES.with_price(MODEL, input=0.0, output=0.0),
            base_url=model.url,
            api_key="rehearsal",
            endpoint_profile="anthropic",
            allow=tuple(map(Rule.parse, ALLOWED if as_campaign else ALLOWED[:1])) if yes else (),
            sessions=folder / "sessions",
        )
        goal = GOAL.format(base=inputs.base, train=inputs.train, held_out=inputs.held_out)
        return await run_agent(options, goal, frontend=frontend, clock=SystemClock())


def _say(frontend: Frontend, text: str, *, level: str = "info") -> None:
    frontend.show(Notice(text=text, level="error" if level == "error" else "info"))
