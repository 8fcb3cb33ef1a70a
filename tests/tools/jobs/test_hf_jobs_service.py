"""Hugging Face Jobs as a user of the service sees them: found again, followed, paid for, and remembered."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import anyio
import pytest
from huggingface_hub import HfApi

from mlintern.common.clock import SystemClock
from mlintern.tools.config import HfJobsSettings
from mlintern.tools.errors import Blocked, Conflict, OutOfBudget
from mlintern.tools.jobs.backends.hf.backend import HfJobsBackend
from mlintern.tools.jobs.watch import COLLECT_SECONDS
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services.hf_jobs import NAMESPACE, TOKEN, HfJobs, Job
from tests.tools.jobs.remote_lab import RemoteLab

pytestmark = pytest.mark.anyio

EVALUATION = {
    "mlintern_evaluation": 1,
    "suite": "mlintern",
    "task": "largest",
    "model": "tiny",
    "fewshot": 0,
    "rows": [{"metric": "accuracy", "filter": "likelihood", "value": 0.5, "stderr": 0.05, "n": 100}],
}
SCRIPT = f"""
import json, os
metrics = open(os.environ["MLINTERN_OUTPUT_DIR"] + "/metrics.jsonl", "a")
def say(**row):
    text = json.dumps({{"v": 1, "time": 1.0, **row}})
    print("@mlintern " + text, flush=True)
    print(text, file=metrics, flush=True)
say(kind="begin", trainer="sft", total_steps=2)
print("the first line")
for step in (1, 2): say(kind="metrics", step=step, total_steps=2, values={{"loss": 1.0 / step}})
say(kind="checkpoint", step=2, path="checkpoint-2")
say(kind="evaluation", path="evaluation.json", evaluation={EVALUATION!r})
say(kind="end", step=2, status="completed", model_path="model")
print("the last line")
"""


@pytest.fixture
def lab(hf_jobs: HfJobs, workspace: Workspace, ledger: Ledger, clock: FakeClock, tmp_path: Path) -> RemoteLab:
    settings = HfJobsSettings(launch=(sys.executable,), folder=str(tmp_path / "container"))
    backend = HfJobsBackend(api=lambda: HfApi(endpoint=hf_jobs.url, token=TOKEN), settings=settings)
    return RemoteLab(workspace, ledger, clock, backend)


def only(service: HfJobs) -> Job:
    (job,) = service.jobs.values()
    return job


def submissions(service: HfJobs) -> int:
    return service.asked.count(("POST", f"/api/jobs/{NAMESPACE}"))


async def test_a_job_is_copied_home_log_telemetry_evaluation_and_bill(lab: RemoteLab, hf_jobs: HfJobs) -> None:
    job_id = await lab.start(SCRIPT)
    hf_jobs.run(only(hf_jobs))
    status = await lab.jobs.poll(job_id)
    assert (status.state, status.exit_code, status.metrics) == ("succeeded", 0, {"loss": 0.5})
    assert [(row["task"], row["metric"], row["value"]) for row in status.evaluations] == [
        ("largest", "accuracy", 0.5)
    ]
    folder = lab.workspace.job(job_id)
    assert lab.log(job_id).splitlines() == [line for _, line in only(hf_jobs).events]
    kinds = [json.loads(line)["kind"] for line in (folder / "output" / "metrics.jsonl").read_text().splitlines()]
    assert kinds == ["begin", "metrics", "metrics", "checkpoint", "evaluation", "end"]
    assert json.loads((folder / "output" / "evaluation.json").read_text()) == EVALUATION
    page = await lab.jobs.read_logs(job_id, tail=1)
    assert page.text.strip() == "the last line"
    assert status.next_step == "read_eval reads its evaluation; diagnose_run judges its training curve."


async def test_after_a_training_that_measured_nothing_the_next_step_is_to_measure_its_model(
    lab: RemoteLab, hf_jobs: HfJobs
) -> None:
    pushed = SCRIPT.replace('model_path="model"', 'model_path="https://huggingface.co/org/trained"')
    job_id = await lab.start("\n".join(line for line in pushed.splitlines() if "evaluation" not in line))
    hf_jobs.run(only(hf_jobs))
    step = (await lab.jobs.poll(job_id)).next_step or ""
    assert 'render_script(recipe={"trainer": "evaluation", "model": "https://huggingface.co/org/trained"' in step
    assert "diagnose_run judges its training curve" in step


async def test_after_a_job_that_measured_nothing_its_log_is_what_to_read(lab: RemoteLab, hf_jobs: HfJobs) -> None:
    job_id = await lab.start("print('hello')")
    hf_jobs.run(only(hf_jobs))
    assert (await lab.jobs.poll(job_id)).next_step == "read_job_logs shows what it printed."


async def test_what_is_reserved_is_charged_by_measured_time_and_released_only_at_the_end(
    lab: RemoteLab, hf_jobs: HfJobs
) -> None:
    job_id = await lab.start("", hardware="a10g-largex2", timeout="2h")  # 3 dollars an hour
    job = only(hf_jobs)
    assert lab.entries(job_id) == [("reserve", 6.25)], "five minutes of starting are paid for too"
    job.scheduling_seconds = 1200.0
    assert (await lab.jobs.poll(job_id)).usd_so_far == 0.0, "waiting for a machine is not charged"
    job.stage, job.running_seconds = "RUNNING", 1800.0
    running = await lab.jobs.poll(job_id)
    assert (running.state, running.usd_so_far) == ("running", 1.75)
    assert lab.entries(job_id) == [("reserve", 6.25), ("charge", 1.75)]
    job.stage, job.message, job.running_seconds = "ERROR", "Job failed with exit code: 1. Reason: Error", 2400.0
    over = await lab.jobs.poll(job_id)
    assert (over.state, over.exit_code, over.usd_so_far) == ("failed", 1, 2.25)
    assert lab.entries(job_id) == [("reserve", 6.25), ("charge", 1.75), ("charge", 0.5), ("release", 4.0)]


async def test_minutes_that_have_begun_are_paid_for_whole_with_those_of_starting(
    lab: RemoteLab, hf_jobs: HfJobs
) -> None:
    job_id = await lab.start("", hardware="a10g-largex2", timeout="90s")  # 3 dollars an hour: 5 cents a minute
    assert lab.entries(job_id) == [("reserve", 0.35)], "90 s and 5 min of starting are seven minutes that have begun"
    job = only(hf_jobs)
    job.stage, job.scheduling_seconds, job.running_seconds = "RUNNING", 31.0, 1.0
    assert (await lab.jobs.poll(job_id)).usd_so_far == 0.05
    job.stage, job.running_seconds = "COMPLETED", 30.0
    assert (await lab.jobs.poll(job_id)).usd_so_far == 0.1, "61 s are two minutes"


async def test_a_start_that_failed_is_paid_for_and_a_job_cancelled_while_it_waited_is_not(
    lab: RemoteLab, hf_jobs: HfJobs
) -> None:
    failed, cancelled = [await lab.start(text, hardware="a10g-largex2") for text in ("1", "2")]
    first, second = hf_jobs.jobs.values()
    first.scheduling_seconds = second.scheduling_seconds = 90.0
    hf_jobs.end(first, "ERROR", "image cannot be pulled")
    hf_jobs.end(second, "CANCELED")
    assert (await lab.jobs.poll(failed)).usd_so_far == 0.1
    assert (await lab.jobs.poll(cancelled)).usd_so_far == 0.0


async def test_an_estimate_says_how_the_time_is_billed(lab: RemoteLab) -> None:
    script = lab.scripts.add("print(1)")
    found = await lab.jobs.planner.estimate(
        script_id=script, backend="hf_jobs", hardware="a10g-largex2", timeout="1h"
    )
    assert found.usd_worst == 3.25
    assert any("5 min of starting" in line and "by the minute" in line for line in found.basis), found.basis


async def test_a_submission_whose_answer_never_came_is_found_by_its_label_and_not_repeated(
    lab: RemoteLab, hf_jobs: HfJobs
) -> None:
    hf_jobs.drop_after_submit = True
    spec = await lab.jobs.planner.plan(script_id=lab.scripts.add("print(1)"), backend="hf_jobs")
    result = await lab.jobs.submit(spec)
    assert (result.status, result.state) == ("submitted", "queued") and "not started twice" in result.note
    again = await lab.server().submit(spec)
    assert (again.status, again.job_id) == ("already_submitted", result.job_id)
    only(hf_jobs).stage = "RUNNING"
    assert (await lab.server().poll(spec.job_id)).state == "running"
    assert submissions(hf_jobs) == 1


async def test_without_credit_nothing_starts_and_the_same_call_works_once_there_is_some(
    lab: RemoteLab, hf_jobs: HfJobs
) -> None:
    hf_jobs.refuse = (402, {}, "You need credits to run jobs")
    with pytest.raises(Blocked, match="settings/billing"):
        await lab.start("print(1)")
    assert (await lab.jobs.list()).total == 0
    hf_jobs.refuse = None
    job_id = await lab.start("print(1)")
    assert [kind for kind, _ in lab.entries(job_id)] == ["reserve", "release", "reserve"]


async def test_a_token_without_the_right_is_told_which_right(lab: RemoteLab, hf_jobs: HfJobs) -> None:
    hf_jobs.refuse = (403, {}, "Forbidden")
    with pytest.raises(Blocked, match=r"job\.write"):
        await lab.start("print(1)")


async def test_thirty_seconds_of_scheduling_are_shown_as_such(
    lab: RemoteLab, hf_jobs: HfJobs, clock: FakeClock
) -> None:
    job_id = await lab.start("print(1)")
    clock.advance(30)
    only(hf_jobs).scheduling_seconds = 30.0
    status = await lab.jobs.poll(job_id)
    assert (status.state, status.seconds_in_state, status.detail) == ("queued", 30.0, "SCHEDULING for 30 s")


async def test_a_job_that_ran_out_of_time_is_timed_out(lab: RemoteLab, hf_jobs: HfJobs) -> None:
    job_id = await lab.start("print(1)")
    job = only(hf_jobs)
    job.stage, job.message, job.running_seconds = "ERROR", "Job timeout", 3600.0
    status = await lab.jobs.poll(job_id)
    assert (status.state, status.error, status.usd_so_far) == ("timed_out", "Job timeout", 0.01)


async def test_servers_that_poll_one_job_at_once_agree_and_copy_its_log_once(lab: RemoteLab, hf_jobs: HfJobs) -> None:
    lab.clock = SystemClock(wait_scale=0.01)  # while one copies the log, the others wait for it
    job_id = await lab.start(SCRIPT)
    hf_jobs.run(only(hf_jobs))
    states = []

    async def poll() -> None:
        states.append((await lab.server().poll(job_id, wait_seconds=45)).state)

    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(poll)
    assert states == ["succeeded"] * 6
    assert lab.log(job_id).splitlines() == [line for _, line in only(hf_jobs).events]
    assert [kind for kind, _ in lab.entries(job_id)] == ["reserve", "charge", "release"]
    assert len((await lab.jobs.poll(job_id)).evaluations) == 1


async def test_results_stay_when_the_service_and_the_folder_have_forgotten_the_job(
    lab: RemoteLab, hf_jobs: HfJobs
) -> None:
    job_id = await lab.start(SCRIPT)
    hf_jobs.run(only(hf_jobs))
    before = await lab.jobs.poll(job_id)
    hf_jobs.jobs.clear()
    shutil.rmtree(lab.workspace.job(job_id))
    after = await lab.server().poll(job_id)
    assert after.evaluations == before.evaluations != []
    assert (after.state, after.metrics) == ("succeeded", {"loss": 0.5})
    assert "what was not pushed to the Hub is gone" in after.artifacts["not_kept"]


async def test_with_a_writable_volume_the_model_and_checkpoints_have_addresses(
    lab: RemoteLab, hf_jobs: HfJobs, tmp_path: Path
) -> None:
    settings = HfJobsSettings(launch=(sys.executable,), folder=str(tmp_path / "c"), output=str(tmp_path / "bucket"))
    lab.backend = HfJobsBackend(api=lambda: HfApi(endpoint=hf_jobs.url, token=TOKEN), settings=settings)
    lab.jobs = lab.server()
    job_id = await lab.start(SCRIPT)
    hf_jobs.run(only(hf_jobs))
    status = await lab.jobs.poll(job_id)
    assert status.artifacts["model"] == f"{tmp_path}/bucket/{job_id}/output/model"
    assert status.artifacts["checkpoints"] == [f"{tmp_path}/bucket/{job_id}/output/checkpoint-2"]


async def test_the_end_waits_for_the_rest_of_the_log_which_holds_the_evaluation(
    lab: RemoteLab, hf_jobs: HfJobs
) -> None:
    job_id = await lab.start(SCRIPT)
    hf_jobs.run(only(hf_jobs))
    hf_jobs.drop_logs_after = 3
    await lab.jobs.poll(job_id)
    early = await lab.jobs.poll(job_id)
    assert early.state != "succeeded" and "It is over (succeeded)" in early.detail
    hf_jobs.drop_logs_after = None
    late = await lab.jobs.poll(job_id)
    assert (late.state, len(late.evaluations)) == ("succeeded", 1)


async def test_a_log_that_never_comes_whole_is_given_up_and_that_is_said(
    lab: RemoteLab, hf_jobs: HfJobs, clock: FakeClock
) -> None:
    job_id = await lab.start(SCRIPT)
    hf_jobs.run(only(hf_jobs))
    hf_jobs.drop_logs_after = 3
    await lab.jobs.poll(job_id)
    clock.advance(COLLECT_SECONDS)
    status = await lab.jobs.poll(job_id)
    assert status.state == "succeeded" and "Given up" in status.detail
    assert lab.log(job_id).splitlines() == [line for _, line in only(hf_jobs).events[:3]]


async def test_a_cancelled_job_keeps_the_reason(lab: RemoteLab, hf_jobs: HfJobs) -> None:
    job_id = await lab.start("print(1)")
    status = await lab.jobs.cancel(job_id, reason="the loss is NaN")
    assert (status.state, status.error) == ("cancelled", "the loss is NaN")


async def test_a_stuck_job_is_cancelled_when_what_was_reserved_is_used_up(lab: RemoteLab, hf_jobs: HfJobs) -> None:
    job_id = await lab.start("", timeout="1h")
    job = only(hf_jobs)
    job.stage, job.running_seconds = "RUNNING", 3600.0 + 301  # the service did not end it
    await lab.jobs.reconcile()
    status = await lab.jobs.poll(job_id)
    assert status.state == "cancelled"
    assert status.error == "Its reserved time is used up."


async def test_the_budget_holds_whatever_server_asks(lab: RemoteLab, hf_jobs: HfJobs) -> None:
    lab.options["budget_usd"] = 4.0
    await lab.server().submit(
        await lab.jobs.planner.plan(
            script_id=lab.scripts.add(""), backend="hf_jobs", hardware="a10g-largex2", timeout="1h", run_name="a"
        )
    )
    second = await lab.jobs.planner.plan(
        script_id=lab.scripts.add(""), backend="hf_jobs", hardware="a10g-largex2", timeout="1h", run_name="b"
    )
    with pytest.raises(OutOfBudget, match=r"\$3\.25 of the \$4\.00"):
        await lab.server().submit(second)
    assert submissions(hf_jobs) == 1


async def test_the_account_that_pays_is_part_of_what_is_planned_and_no_other_is_used(
    workspace: Workspace, ledger: Ledger, clock: FakeClock, tmp_path: Path, hf_jobs: HfJobs
) -> None:
    def backend(namespace: str | None) -> HfJobsBackend:
        settings = HfJobsSettings(namespace=namespace, launch=(sys.executable,), folder=str(tmp_path / "container"))
        return HfJobsBackend(api=lambda: HfApi(endpoint=hf_jobs.url, token=TOKEN), settings=settings)

    own = RemoteLab(workspace, ledger, clock, backend(None))
    org = RemoteLab(workspace, ledger, clock, backend("an-org"))
    script = own.scripts.add("print(1)")
    org.scripts.kept = own.scripts.kept
    mine = await own.jobs.planner.plan(script_id=script, backend="hf_jobs")
    theirs = await org.jobs.planner.plan(script_id=script, backend="hf_jobs")
    assert (mine.billed_to, theirs.billed_to) == (NAMESPACE, "an-org") and mine.digest != theirs.digest
    with pytest.raises(Conflict, match="billed to 'an-org'"):
        await own.jobs.submit(theirs)  # the configuration was changed after the plan
    assert hf_jobs.jobs == {}
    hf_jobs.drop_after_submit = True
    await own.jobs.submit(mine)
    status = await org.jobs.poll(mine.job_id)  # its namespace is not the one to look in
    assert status.state == "queued" and "'an-org' now" in status.detail
    assert (await own.server().poll(mine.job_id)).state == "queued" and len(hf_jobs.jobs) == 1
    only(hf_jobs).stage = "RUNNING"
    assert (await own.server().poll(mine.job_id)).state == "running"
