"""Schedules on Hugging Face Jobs: their runs become jobs, are paid from one reservation, and end when agreed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from mlintern.common.clock import iso
from mlintern.tools.config import HfJobsSettings, HfVolume
from mlintern.tools.errors import BadInput, OutOfBudget
from mlintern.tools.jobs.backends.hf.backend import HfJobsBackend
from mlintern.tools.ledger import Ledger
from mlintern.tools.runs.service import RunService
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services.hf_jobs import NAMESPACE, TOKEN, HfJobs, Job, Scheduled
from tests.tools.jobs.local_lab import LocalLab
from tests.tools.jobs.remote_lab import RemoteLab

pytestmark = pytest.mark.anyio

DAY = 86400.0
HELLO = "import os\nprint('hello', os.environ['MLINTERN_OUTPUT_DIR'])"


def lab_of(service: HfJobs, workspace: Workspace, ledger: Ledger, clock: FakeClock, folder: Path) -> RemoteLab:
    settings = HfJobsSettings(launch=(sys.executable,), folder=str(folder / "container"))
    return RemoteLab(workspace, ledger, clock, HfJobsBackend(api=api_of(service), settings=settings))


def api_of(service: HfJobs):  # type: ignore[no-untyped-def]
    return lambda: HfApi(endpoint=service.url, token=TOKEN)


@pytest.fixture
def lab(hf_jobs: HfJobs, workspace: Workspace, ledger: Ledger, clock: FakeClock, tmp_path: Path) -> RemoteLab:
    return lab_of(hf_jobs, workspace, ledger, clock, tmp_path)


async def scheduled(lab: RemoteLab, text: str = HELLO, *, runs: int = 3, **arguments: object) -> str:
    options = {"schedule": "@daily", "schedule_runs": runs, "hardware": "a10g-largex2", "timeout": "1h"} | arguments
    return await lab.start(text, **options)  # 3 dollars an hour


def only(service: HfJobs) -> Scheduled:
    (one,) = service.scheduled.values()
    return one


def tick(service: HfJobs, clock: FakeClock) -> Job:
    """A day passes, and the service starts a run."""
    clock.advance(DAY)
    job = service.tick(only(service), at=iso(clock.now()))
    assert job is not None
    return job


def finish(job: Job, *, seconds: float = 600.0, well: bool = True) -> None:
    job.running_seconds = seconds
    job.stage, job.message = ("COMPLETED", None) if well else ("ERROR", "Job failed with exit code: 1. Reason: Error")


async def test_a_schedule_is_made_once_with_its_time_limit_and_one_run_at_a_time(
    lab: RemoteLab, hf_jobs: HfJobs
) -> None:
    job_id = await scheduled(lab)
    body = only(hf_jobs).body
    assert (body["schedule"], body["concurrency"]) == ("@daily", False)
    assert (body["jobSpec"]["timeoutSeconds"], body["jobSpec"]["labels"]["mlintern"]) == (3600, job_id)
    assert hf_jobs.jobs == {}, "nothing runs before its time"
    status = await lab.jobs.poll(job_id)
    assert (status.state, status.schedule) == ("queued", "@daily, at most 3 runs")
    assert "0 of at most 3 runs" in status.detail and "2026-11-24T00:00:00Z" in status.detail
    assert await scheduled(lab) == job_id
    assert hf_jobs.asked.count(("POST", f"/api/scheduled-jobs/{NAMESPACE}")) == 1


async def test_what_a_schedule_starts_is_a_job_with_its_own_log_state_and_bill(
    lab: RemoteLab, hf_jobs: HfJobs, clock: FakeClock
) -> None:
    job_id = await scheduled(lab, run_name="nightly", experiment="nights", hardware="cpu-basic")
    hf_jobs.run(tick(hf_jobs, clock))  # a minute of it
    status = await lab.jobs.poll(job_id)
    (run,) = status.scheduled_runs
    assert (status.state, run.state, run.started) == ("running", "succeeded", iso(clock.now()))
    ended = await lab.jobs.poll(run.job_id)
    assert (ended.run_of, ended.experiment, ended.run_name) == (job_id, "nights", f"nightly {iso(clock.now())}")
    assert ended.usd_so_far == status.usd_so_far == 0.000167
    assert [row.usd_so_far for row in (await lab.jobs.list()).items] == [0.000167, 0.000167]
    assert (await lab.jobs.read_logs(run.job_id)).text.startswith("hello ")
    assert "poll_job names its runs" in (await lab.jobs.read_logs(job_id)).note


async def test_what_all_runs_can_cost_is_reserved_at_once_and_goes_over_to_each_as_it_starts(
    lab: RemoteLab, hf_jobs: HfJobs, clock: FakeClock
) -> None:
    job_id = await scheduled(lab)
    assert lab.entries(job_id) == [("reserve", 9.75)]
    finish(tick(hf_jobs, clock), seconds=1200.0)
    status = await lab.jobs.poll(job_id)
    assert lab.entries(job_id) == [("reserve", 9.75), ("release", 3.25)]
    (run,) = status.scheduled_runs
    assert lab.entries(run.job_id) == [("reserve", 3.25), ("charge", 1.0), ("release", 2.25)]
    await lab.jobs.cancel(job_id)
    assert lab.entries(job_id)[-1] == ("release", 6.5)


async def test_a_schedule_that_could_pass_the_budget_is_not_made(
    hf_jobs: HfJobs, workspace: Workspace, ledger: Ledger, clock: FakeClock, tmp_path: Path
) -> None:
    lab = lab_of(hf_jobs, workspace, ledger, clock, tmp_path)
    lab.options["budget_usd"] = 8.0
    lab.jobs = lab.server()
    with pytest.raises(OutOfBudget, match=r"\$9\.75"):
        await scheduled(lab)
    assert hf_jobs.scheduled == {}
    assert await scheduled(lab, runs=2) in {job.body["jobSpec"]["labels"]["mlintern"] for job in [only(hf_jobs)]}


@pytest.mark.parametrize("well", [True, False])
async def test_after_its_last_run_a_schedule_is_deleted_and_as_good_as_its_worst_run(
    lab: RemoteLab, hf_jobs: HfJobs, clock: FakeClock, well: bool
) -> None:
    job_id = await scheduled(lab, runs=2)
    finish(tick(hf_jobs, clock), well=well)
    assert (await lab.jobs.poll(job_id)).state == "running"
    last = tick(hf_jobs, clock)
    last.stage = "RUNNING"
    status = await lab.jobs.poll(job_id)
    assert status.state == "running" and "not over: job-" in status.detail
    assert hf_jobs.scheduled == {}, "nothing more can start while the last run goes on"
    finish(last)
    await lab.jobs.poll(job_id)
    status = await lab.jobs.poll(job_id)
    bad = status.scheduled_runs[-1].job_id
    assert status.state == ("succeeded" if well else "failed")
    assert status.error == (None if well else f"1 of 2 runs did not succeed: {bad} (failed)")


@pytest.mark.parametrize("told", [True, False])
async def test_a_schedule_whose_moments_have_passed_without_a_run_has_failed(
    lab: RemoteLab, hf_jobs: HfJobs, clock: FakeClock, told: bool
) -> None:
    job_id = await scheduled(lab, runs=2)
    only(hf_jobs).next_at = iso(clock.now() + 4 * DAY) if told else None
    clock.advance(0 if told else 4 * DAY)
    await lab.jobs.poll(job_id)
    status = await lab.jobs.poll(job_id)
    assert hf_jobs.scheduled == {}
    assert (status.state, status.error) == ("failed", "It is over, and it has started no run.")
    assert lab.entries(job_id) == [("reserve", 6.5), ("release", 6.5)]


async def test_a_server_whose_clock_is_ahead_ends_no_schedule_that_has_time_left(
    lab: RemoteLab, hf_jobs: HfJobs, clock: FakeClock
) -> None:
    job_id = await scheduled(lab, runs=2)
    only(hf_jobs).next_at = iso(clock.now() + DAY)
    clock.advance(100 * DAY)
    assert (await lab.jobs.poll(job_id)).state == "queued" and len(hf_jobs.scheduled) == 1


async def test_a_run_after_the_last_moment_does_nothing_though_no_server_was_there_to_end_the_schedule(
    hf_jobs: HfJobs, workspace: Workspace, ledger: Ledger, tmp_path: Path
) -> None:
    years_ago = FakeClock(start=1_600_000_000.0)
    lab = lab_of(hf_jobs, workspace, ledger, years_ago, tmp_path)
    await scheduled(lab, "raise SystemExit('must not run')", runs=1, hardware="cpu-basic")
    late = hf_jobs.tick(only(hf_jobs))
    assert late is not None and hf_jobs.run(late) == 0
    assert [line for _, line in late.events] == [
        "mlintern: this schedule was over at 2020-09-15T00:00:00Z; nothing was run."
    ]


async def test_runs_beyond_what_was_agreed_to_are_ended_and_what_they_used_is_charged(
    lab: RemoteLab, hf_jobs: HfJobs, clock: FakeClock
) -> None:
    job_id = await scheduled(lab, runs=1)
    finish(tick(hf_jobs, clock))
    extra = tick(hf_jobs, clock)
    extra.stage, extra.running_seconds = "RUNNING", 60.0
    status = await lab.jobs.poll(job_id)
    assert extra.stage == "CANCELED" and hf_jobs.scheduled == {}
    await lab.jobs.poll(job_id)
    status = await lab.jobs.poll(job_id)
    ended = await lab.jobs.poll(status.scheduled_runs[0].job_id)
    assert (ended.state, ended.usd_so_far) == ("cancelled", 0.05)
    assert ended.error and "more runs than were agreed to" in ended.error
    assert (status.state, status.detail) == ("failed", "It started 2 runs, 1 were agreed to.")


async def test_cancelling_a_schedule_deletes_it_and_ends_what_it_has_started(
    lab: RemoteLab, hf_jobs: HfJobs, clock: FakeClock
) -> None:
    job_id = await scheduled(lab)
    run = tick(hf_jobs, clock)
    run.stage = "RUNNING"
    await lab.jobs.poll(job_id)
    await lab.jobs.cancel(job_id, reason="enough")
    status = await lab.jobs.poll(job_id)
    assert (status.state, status.error) == ("cancelled", "enough")
    assert hf_jobs.scheduled == {} and run.stage == "CANCELED"
    assert [each.state for each in status.scheduled_runs] == ["cancelled"]


async def test_a_schedule_that_somebody_deleted_is_cancelled_not_lost_and_nothing_is_charged_for_it(
    lab: RemoteLab, hf_jobs: HfJobs
) -> None:
    job_id = await scheduled(lab)
    hf_jobs.scheduled.clear()
    status = await lab.jobs.poll(job_id)
    assert (status.state, status.usd_so_far) == ("cancelled", 0.0)
    assert status.error and "deleted at Hugging Face" in status.error
    assert lab.entries(job_id) == [("reserve", 9.75), ("release", 9.75)]


async def test_a_schedule_whose_answer_never_came_is_found_by_its_label_and_not_made_twice(
    lab: RemoteLab, hf_jobs: HfJobs, clock: FakeClock
) -> None:
    hf_jobs.drop_after_submit = True
    job_id = await scheduled(lab)
    hf_jobs.drop_after_submit = False
    tick(hf_jobs, clock).stage = "RUNNING"  # carries the label too, and is not taken for the schedule
    status = await lab.jobs.poll(job_id)
    status = await lab.jobs.poll(job_id)
    assert (status.state, len(status.scheduled_runs)) == ("running", 1)
    assert hf_jobs.asked.count(("POST", f"/api/scheduled-jobs/{NAMESPACE}")) == 1


async def test_a_job_that_a_person_started_again_with_the_label_is_no_run(
    lab: RemoteLab, hf_jobs: HfJobs, clock: FakeClock
) -> None:
    job_id = await scheduled(lab, runs=1)
    run = tick(hf_jobs, clock)
    copy = Job("copy", dict(run.body), created_at=run.created_at)  # "run again" on the page of the job: by a user
    hf_jobs.jobs[copy.id] = copy
    await lab.jobs.poll(job_id)
    status = await lab.jobs.poll(job_id)
    assert len(status.scheduled_runs) == 1 and copy.stage == "SCHEDULING", "nobody ends what is none of its runs"


async def test_all_runs_without_the_label_are_found_by_who_started_them(
    lab: RemoteLab, hf_jobs: HfJobs, clock: FakeClock
) -> None:
    hf_jobs.runs_have_labels = False
    job_id = await scheduled(lab)
    for _ in (1, 2):  # the service names the last one only
        finish(tick(hf_jobs, clock))
    assert len((await lab.jobs.poll(job_id)).scheduled_runs) == 2


async def test_the_last_run_is_found_even_if_runs_do_not_carry_the_label(
    lab: RemoteLab, hf_jobs: HfJobs, clock: FakeClock
) -> None:
    hf_jobs.runs_have_labels = False
    job_id = await scheduled(lab)
    for number in (1, 2):
        finish(tick(hf_jobs, clock))
        assert len((await lab.jobs.poll(job_id)).scheduled_runs) == number


async def test_two_servers_make_one_job_of_a_run(lab: RemoteLab, hf_jobs: HfJobs, clock: FakeClock) -> None:
    job_id = await scheduled(lab)
    tick(hf_jobs, clock).stage = "RUNNING"
    other = lab.server()
    for jobs in (lab.jobs, other, lab.jobs):
        await jobs.reconcile()
    assert (await other.list()).total == 2
    assert lab.entries(job_id) == [("reserve", 9.75), ("release", 3.25)]


async def test_a_waiting_poll_returns_when_a_run_starts(lab: RemoteLab, hf_jobs: HfJobs, clock: FakeClock) -> None:
    job_id = await scheduled(lab)
    finish(tick(hf_jobs, clock))
    first = await lab.jobs.poll(job_id)
    hf_jobs.tick(only(hf_jobs), at=iso(clock.now() + 1))
    before = clock.now()
    status = await lab.jobs.poll(job_id, wait_seconds=45, since=first.next_since, only_new=True)
    assert len(status.scheduled_runs) == 1
    assert clock.now() == before


async def test_a_schedule_is_no_run_of_an_experiment_and_what_it_starts_is(
    lab: RemoteLab, hf_jobs: HfJobs, clock: FakeClock
) -> None:
    job_id = await scheduled(lab, experiment="nights")
    finish(tick(hf_jobs, clock))
    run = (await lab.jobs.poll(job_id)).scheduled_runs[0].job_id
    runs = RunService(workspace=lab.workspace, ledger=lab.ledger, clock=clock)
    assert [row.job_id for row in (await runs.list(experiment="nights")).runs] == [run]
    report = Path((await runs.report("nights")).path).read_text()
    assert "over 1 jobs; $6.50 for runs that schedules may start." in report
    rows = (await lab.jobs.list(experiment="nights")).items
    assert {(row.job_id, row.schedule, row.run_of) for row in rows} == {
        (job_id, "@daily, at most 3 runs", None),
        (run, None, job_id),
    }


async def test_on_a_volume_the_runs_of_a_schedule_keep_their_output_apart(
    hf_jobs: HfJobs, workspace: Workspace, ledger: Ledger, clock: FakeClock, tmp_path: Path
) -> None:
    volume = tmp_path / "data"
    settings = HfJobsSettings(
        launch=(sys.executable,),
        folder=str(tmp_path / "container"),
        output=str(volume),
        volumes=(HfVolume("bucket", "tester/jobs", str(volume), read_only=False),),
    )
    lab = RemoteLab(workspace, ledger, clock, HfJobsBackend(api=api_of(hf_jobs), settings=settings))
    text = """
import json, os, pathlib
out = pathlib.Path(os.environ["MLINTERN_OUTPUT_DIR"])
print("found", sorted(path.name for path in out.iterdir()))
(out / "checkpoint-1").mkdir()
print("@mlintern " + json.dumps({"v": 1, "time": 1.0, "kind": "end", "step": 1, "model_path": "model"}))
"""
    job_id = await scheduled(lab, text, hardware="cpu-basic")
    for _ in range(2):
        hf_jobs.run(tick(hf_jobs, clock))
    runs = (await lab.jobs.poll(job_id)).scheduled_runs
    models = {(await lab.jobs.poll(run.job_id)).artifacts["model"] for run in runs}
    assert models == {f"{volume}/{job_id}/{reference}/output/model" for reference in hf_jobs.jobs}
    for run in runs:
        assert (await lab.jobs.read_logs(run.job_id)).text.strip() == "found []"
    assert len(list(volume.glob("*/*/output/checkpoint-1"))) == 2


async def test_only_a_backend_that_can_start_jobs_by_itself_takes_a_schedule(
    workspace: Workspace, ledger: Ledger, clock: FakeClock
) -> None:
    lab = LocalLab(workspace, clock)
    with pytest.raises(BadInput, match="no jobs on a schedule"):
        await lab.jobs.planner.plan(script_id=lab.scripts.add("x"), schedule="@daily", schedule_runs=2)
