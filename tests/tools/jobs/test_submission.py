"""One submission of each intent, at a backend that would take each one it gets; and what it leaves where it fails."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from mlintern.tools.errors import BadInput, NotFound, OutOfBudget, WorkspaceError
from mlintern.tools.jobs import job_rows, money, submission
from mlintern.tools.jobs.backend import BackendStatus, Submission
from mlintern.tools.jobs.spec import JobHandle, JobSpec, Schedule
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.tools.jobs.distant import DistantBackend, DistantLab

pytestmark = pytest.mark.anyio


@dataclass
class SlowBackend(DistantBackend):
    """Takes every submission, twice the same too, and answers when the test says so."""

    asked: anyio.Event = field(default_factory=anyio.Event)
    answers: anyio.Event = field(default_factory=anyio.Event)

    async def submit(self, submission: Submission) -> JobHandle:
        handle = await super().submit(submission)
        self.asked.set()
        await self.answers.wait()
        return handle


@pytest.fixture
def lab(workspace: Workspace, ledger: Ledger, clock: FakeClock) -> DistantLab:
    return DistantLab(workspace, ledger, clock)


async def planned(lab: DistantLab, **arguments: Any) -> JobSpec:
    return await lab.jobs.planner.plan(
        script_id=lab.scripts.add("print(1)"), backend="distant", timeout="1h", **arguments
    )


async def test_while_one_server_waits_for_the_answer_no_other_submits_or_cancels_the_same_job(
    workspace: Workspace, ledger: Ledger, clock: FakeClock
) -> None:
    backend = SlowBackend()
    lab = DistantLab(workspace, ledger, clock, backend)
    spec = await planned(lab)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lab.jobs.submit, spec)
            await backend.asked.wait()
            (workspace.job(spec.job_id) / "submission.json").unlink()  # the lock alone keeps the others out
            other = lab.server()
            await other._submitter.act(spec.job_id, answer_to_caller=False)
            assert not await other._submitter.forget_unsent(spec.job_id, error="not wanted")
            assert backend.created == [spec.job_id]
            backend.answers.set()
    await lab.server()._submitter.act(spec.job_id, answer_to_caller=False)
    assert backend.created == [spec.job_id], "what is on record with its handle is not submitted again"


async def test_a_job_is_submitted_again_only_where_its_backend_says_so_and_while_it_is_not_over(
    lab: DistantLab,
) -> None:
    job_id = await lab.start()
    submitter = lab.jobs._submitter
    await submitter.act(job_id, answer_to_caller=False)
    assert lab.backend.created == [job_id]
    await submitter.act(job_id, answer_to_caller=False, restart=True)
    assert lab.backend.created == [job_id, job_id]
    lab.backend.jobs[job_id] = BackendStatus("succeeded", started_at=1.0, run_seconds=60.0)
    await lab.jobs.poll(job_id)
    await submitter.act(job_id, answer_to_caller=False, restart=True)
    assert lab.backend.created == [job_id, job_id]


async def test_a_disk_that_fills_up_before_the_backend_is_asked_leaves_no_job_and_no_reservation(
    lab: DistantLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    spec = await planned(lab)
    with monkeypatch.context() as small:
        small.setattr(submission, "write_json_durably", full)
        with pytest.raises(WorkspaceError, match="full"):
            await lab.jobs.submit(spec)
    assert lab.backend.created == [] and lab.entries(spec.job_id) == [("reserve", 2.0), ("release", 2.0)]
    with lab.ledger.read() as connection:
        assert money.committed(connection) == 0
        with pytest.raises(NotFound):
            job_rows.get(connection, spec.job_id)
    assert (await lab.jobs.submit(spec)).status == "submitted"


async def test_a_disk_that_fills_up_while_nobody_waits_leaves_the_intent_for_later(
    lab: DistantLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    spec = await planned(lab)
    lab.jobs._submitter.record_intent(spec)
    with monkeypatch.context() as small:
        small.setattr(submission, "write_json_durably", full)
        with pytest.raises(WorkspaceError):
            await lab.jobs._submitter.act(spec.job_id, answer_to_caller=False)
    with lab.ledger.read() as connection:
        assert money.committed(connection) == 2.0 and not job_rows.get(connection, spec.job_id).over
    await lab.jobs._submitter.act(spec.job_id, answer_to_caller=False)
    assert lab.backend.created == [spec.job_id]


async def test_a_secret_that_is_gone_by_the_time_of_the_submission_is_named_and_nothing_starts(
    workspace: Workspace, ledger: Ledger, clock: FakeClock
) -> None:
    lab = DistantLab(workspace, ledger, clock)
    spec = replace(await planned(lab), secrets=("WANDB_API_KEY",))
    with pytest.raises(BadInput, match="WANDB_API_KEY"):
        await lab.jobs.submit(spec)
    assert lab.backend.created == []
    with ledger.read() as connection:
        assert money.committed(connection) == 0


async def test_the_folder_of_a_job_is_closed_to_others(lab: DistantLab) -> None:
    spec = await planned(lab)
    lab.jobs._submitter.record_intent(spec)
    assert lab.workspace.job(spec.job_id).stat().st_mode & 0o777 == 0o700


# Money -------------------------------------------------------------------------------------------------------------


async def test_a_settled_schedule_has_nothing_left_to_hand_over(lab: DistantLab) -> None:
    spec = replace(await planned(lab), schedule=Schedule("@daily", 3))
    run = replace(spec, schedule=None, run_name="late")
    with lab.ledger.transaction() as connection:
        for each in (spec, run):
            job_rows.insert(connection, each, now=0)
        money.reserve(connection, spec, budget_usd=None, now=0)
        money.settle(connection, spec.job_id, seconds=0.0, now=1)
        money.hand_over(connection, run, schedule=spec.job_id, now=2)
        assert money.committed(connection) == 0
    assert lab.entries(run.job_id) == []


async def test_a_job_that_costs_more_than_was_set_aside_counts_with_what_it_costs(lab: DistantLab) -> None:
    job_id = await lab.start(experiment="e")
    with lab.ledger.transaction() as connection:
        money.charge(connection, job_id, seconds=7200.0, now=1)
        assert money.committed(connection) == money.committed(connection, experiment="e") == 4.0


async def test_the_newest_budget_of_an_experiment_holds_and_only_its_own_jobs_count(lab: DistantLab) -> None:
    def limit(usd: float) -> None:
        with lab.ledger.transaction() as connection:
            money.limit_experiments(connection, {"small": usd}, now=0)

    limit(1.0)
    await lab.start(run_name="elsewhere", experiment="large")
    with pytest.raises(OutOfBudget, match=r"\$0\.00 of the \$1\.00 of the experiment 'small'"):
        await lab.start(run_name="a", experiment="small")
    limit(2.0)
    assert await lab.start(run_name="a", experiment="small") in lab.backend.created
    limit(1.5)
    with pytest.raises(OutOfBudget, match=r"\$2\.00 of the \$1\.50 of the experiment 'small'"):
        await lab.start(run_name="b", experiment="small")
