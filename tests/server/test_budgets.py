"""Budgets in the workspace's config.toml hold for every server on it; stuck jobs are ended with nobody polling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from mlintern.server.app import _watch_jobs
from mlintern.server.services import Lab
from mlintern.server.settings import Settings
from mlintern.tools.allowances import Allowances
from mlintern.tools.approvals import Action
from mlintern.tools.errors import OutOfBudget
from mlintern.tools.jobs.backend import BackendStatus
from tests.clock import FakeClock
from tests.tools.jobs.distant import DistantBackend, DistantLab
from tests.tools.jobs.local_lab import WrittenScripts, true_eventually

pytestmark = pytest.mark.anyio


def lab_in(folder: Path, **settings: Any) -> Lab:
    lab = Lab(Settings(workspace=folder, **settings), clock=FakeClock())
    lab.backends = {"distant": DistantBackend()}  # 2 dollars an hour
    lab.scripts = WrittenScripts(lab.ledger)  # type: ignore[assignment]
    return lab


async def submit(lab: Lab, *, run_name: str, experiment: str) -> None:
    script_id = lab.scripts.add("print(1)")  # type: ignore[attr-defined]
    spec = await lab.jobs.planner.plan(
        script_id=script_id, backend="distant", timeout="1h", run_name=run_name, experiment=experiment
    )
    await lab.jobs.submit(spec)


async def test_the_budget_of_an_experiment_holds_for_every_server_of_the_workspace(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[budget.experiments]\nsmall = 3\n")
    await submit(lab_in(tmp_path), run_name="a", experiment="small")
    generous = lab_in(tmp_path, allowances=Allowances.parse(budget_usd=100.0))
    with pytest.raises(OutOfBudget, match="experiment 'small'"):
        await submit(generous, run_name="b", experiment="small")
    await submit(generous, run_name="b", experiment="another")


async def test_the_budget_of_the_workspace_holds_though_a_server_is_started_without_one(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[budget]\nworkspace = 3\n")
    await submit(lab_in(tmp_path), run_name="a", experiment="x")
    for settings in ({}, {"allowances": Allowances.parse(budget_usd=100.0)}):
        with pytest.raises(OutOfBudget, match=r"\$3\.00 of the workspace"):
            await submit(lab_in(tmp_path, **settings), run_name="b", experiment="y")


@pytest.mark.parametrize(
    ("file", "flag", "holds"), [(None, None, None), (50, None, 50), (None, 20, 20), (50, 20, 20), (5, 20, 5)]
)
def test_of_two_budgets_the_lower_holds(file: float | None, flag: float | None, holds: float | None) -> None:
    assert Allowances(budget_usd=flag, ceiling_usd=file).limit_usd == holds


def test_nobody_is_asked_about_what_the_budget_of_the_workspace_does_not_hold(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[budget]\nworkspace = 3\n")
    approvals = lab_in(tmp_path).approvals
    dear = Action(kind="submit_job", what="Run x", where="distant", digest="d" * 32, usd_worst=4.0, seconds=7200)
    with pytest.raises(OutOfBudget, match="budget of 3 USD"):
        approvals.standing(dear)
    cheap = replace(dear, usd_worst=2.0, digest="e" * 32)
    assert not approvals.standing(cheap), "a limit is no permission: within it a person is still asked"


async def test_a_stuck_job_is_ended_at_the_end_of_its_reservation_though_nobody_polls(tmp_path: Path) -> None:
    lab = lab_in(tmp_path)
    distant = DistantLab(lab.workspace, lab.ledger, FakeClock())
    lab.jobs = distant.jobs
    job_id = await distant.start(timeout="1h")
    distant.backend.jobs[job_id] = BackendStatus("running", started_at=1.0, run_seconds=3600.0 + 301)
    async with anyio.create_task_group() as group:
        group.start_soon(_watch_jobs, lab)
        await true_eventually(lambda: distant.backend.cancelled == [job_id])
        group.cancel_scope.cancel()
