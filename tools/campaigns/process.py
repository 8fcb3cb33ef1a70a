"""The process that carries an experiment on, whether or not a server or an agent is there.

    python -m mlintern.tools.campaigns.process WORKSPACE EXPERIMENT

It holds the experiment's lock, so that one at a time works; the kernel frees it when the process dies, and the next
server that starts, or the next `poll_experiment`, starts another one.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import anyio

from mlintern.common.clock import Clock, SystemClock
from mlintern.common.files import exclusive_lock, write_json_durably
from mlintern.tools.campaigns.halves import folder_of
from mlintern.tools.campaigns.runner import Runner
from mlintern.tools.errors import MlinternError, WorkspaceError
from mlintern.tools.ledger import Ledger
from mlintern.tools.runs.job_service import JobOptions
from mlintern.tools.workspace import Workspace

MODULE = "mlintern.tools.campaigns.process"
LOCK, LOG, OPTIONS = "runner.lock", "runner.log", "runner.json"
MOST_FAILURES = 20
"""Passes that may fail (a full disk, a ledger that is held) before the process gives up; servers start it anew."""


def ensure_runner(
    experiment: str, *, workspace: Workspace, options: JobOptions, environ: Mapping[str, str] | None = None
) -> None:
    """Start the experiment's runner as a process of its own unless one is at work.

    Raises:
        WorkspaceError: the process could not be started.
    """
    folder = folder_of(workspace, experiment)
    with exclusive_lock(folder / LOCK, blocking=False) as free:
        if not free:
            return
    try:
        write_json_durably(folder / OPTIONS, asdict(options))
        with (folder / LOG).open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, str(workspace.root), experiment],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(os.environ if environ is None else environ),
                cwd=folder,
                start_new_session=True,
            )
    except OSError as error:
        raise WorkspaceError(
            f"The runner of {experiment!r} could not be started: {error.strerror}.",
            next_step="Check the disk and the limits on processes; poll_experiment tries again.",
        ) from error


async def carry_on(experiment: str, *, workspace: Workspace, clock: Clock, options: JobOptions) -> None:
    """Work on the experiment until nothing is left to do.

    Raises:
        MlinternError: twenty passes in a row failed.
    """
    runner = assemble(experiment, workspace=workspace, clock=clock, options=options)
    failures = 0
    while True:
        try:
            await runner.run()
            return
        except MlinternError as error:
            failures += 1
            logging.getLogger(__name__).warning("%s", error)
            if failures >= MOST_FAILURES:
                raise
            await clock.sleep(min(60.0, 2.0**failures))


def assemble(experiment: str, *, workspace: Workspace, clock: Clock, options: JobOptions) -> Runner:
    """A runner on the workspace's own services."""
    from mlintern.tools.campaigns.work import JobWork
    from mlintern.tools.config import Config
    from mlintern.tools.evals.service import EvalService
    from mlintern.tools.hub.client import HubClient
    from mlintern.tools.runs.job_service import job_service
    from mlintern.tools.scripts.store import ScriptStore

    ledger = Ledger(workspace.ledger)
    scripts = ScriptStore(workspace=workspace, ledger=ledger, clock=clock)
    jobs = job_service(
        workspace=workspace,
        ledger=ledger,
        clock=clock,
        config=Config.load(workspace.root / "config.toml"),
        options=options,
        scripts=scripts,
        evals=EvalService(workspace=workspace, ledger=ledger, clock=clock),
        hub=HubClient(),
    )
    work = JobWork(workspace=workspace, ledger=ledger, clock=clock, scripts=scripts, jobs=jobs)
    return Runner(experiment=experiment, ledger=ledger, clock=clock, work=work)


def main(arguments: list[str]) -> int:
    root, experiment = arguments
    workspace = Workspace.open(Path(root))
    folder = folder_of(workspace, experiment)
    with exclusive_lock(folder / LOCK, blocking=False) as ours:
        if not ours:
            return 0
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
        options = JobOptions(**json.loads((folder / OPTIONS).read_text()))
        clock = SystemClock()
        anyio.run(partial(carry_on, experiment, workspace=workspace, clock=clock, options=options))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
