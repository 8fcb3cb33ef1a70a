"""The service over a distant backend: once only, nothing lost, told truthfully, and paid for rightly."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from mlintern.tools.errors import (
    BackendError,
    BadInput,
    Blocked,
    Conflict,
    MlinternError,
    NotFound,
    OutOfBudget,
    RateLimited,
    ServiceError,
    WorkspaceError,
)
from mlintern.tools.health.findings import Diagnosis, Finding
from mlintern.tools.health.series import Run
from mlintern.tools.jobs.backend import BackendStatus
from mlintern.tools.jobs.rebuild import rebuild
from mlintern.tools.jobs.service import JobService
from mlintern.tools.jobs.spec import JobSpec
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.tools.jobs.distant import DistantLab
from tests.tools.jobs.local_lab import LocalLab

pytestmark = pytest.mark.anyio


@pytest.fixture
def lab(workspace: Workspace, ledger: Ledger, clock: FakeClock) -> DistantLab:
    return DistantLab(workspace, ledger, clock)


# Once


async def test_the_same_specification_twice_is_one_job(lab: DistantLab) -> None:
    spec = await lab.jobs.planner.plan(script_id=lab.scripts.add("print(1)"), backend="distant")
    first, second = await lab.jobs.submit(spec), await lab.server().submit(spec)
    assert (first.status, second.status) == ("submitted", "already_submitted")
    assert first.job_id == second.job_id == lab.backend.created[0]
    assert len(lab.backend.created) == 1


async def test_another_run_name_is_another_job(lab: DistantLab) -> None:
    assert await lab.start(run_name="a") != await lab.start(run_name="b")
    assert len(lab.backend.created) == 2


async def test_a_changed_price_list_does_not_make_a_second_job_of_the_same_one(lab: DistantLab) -> None:
    await lab.start()
    lab.backend.usd_per_hour = 3.0
    await lab.start()
    assert len(lab.backend.created) == 1


async def test_two_servers_that_submit_at_once_start_one_job_that_runs_once(
    workspace: Workspace, tmp_path: Path
) -> None:
    lab = LocalLab(workspace)
    other = lab.another_server()
    trace = tmp_path / "trace"
    spec = await lab.plan(f"open({str(trace)!r}, 'a').write('ran ')")
    results = []

    async def submit(server: LocalLab) -> None:
        results.append((await server.jobs.submit(spec)).status)

    async with anyio.create_task_group() as group:
        for server in (lab, other, lab, other):
            group.start_soon(submit, server)
    assert sorted(results) == ["already_submitted"] * 3 + ["submitted"]
    assert (await lab.end_of(spec.job_id)).state == "succeeded"
    assert trace.read_text() == "ran "


async def test_a_submission_whose_answer_was_lost_is_found_again_and_not_repeated(lab: DistantLab) -> None:
    lab.backend.answer_lost = True
    spec = await lab.jobs.planner.plan(script_id=lab.scripts.add("print(1)"), backend="distant")
    result = await lab.jobs.submit(spec)
    assert (result.status, result.state) == ("submitted", "queued") and "No answer" in result.note
    lab.backend.answer_lost = False
    lab.backend.jobs[spec.job_id] = BackendStatus("running", started_at=5.0)
    assert (await lab.server().poll(spec.job_id)).state == "running"
    assert lab.backend.created == [spec.job_id]


async def test_a_submission_that_never_arrived_fails_after_the_time_for_looking_and_costs_nothing(
    lab: DistantLab, clock: FakeClock
) -> None:
    lab.backend.never_arrives = True
    job_id = await lab.start()
    lab.backend.never_arrives = False
    early = await lab.jobs.poll(job_id)
    assert early.state == "queued" and "not confirmed" in early.detail
    clock.advance(61)
    status = await lab.jobs.poll(job_id)
    assert status.state == "failed" and status.error is not None and "never reached" in status.error
    assert (status.usd_so_far, lab.backend.created) == (0.0, [])


@pytest.mark.parametrize(
    "failure",
    [
        RateLimited("Asked to wait.", service="distant", retry_after_seconds=30),
        Blocked("The token is not accepted.", service="distant"),
        BackendError("It cannot be listed."),
    ],
)
async def test_a_submission_that_cannot_be_looked_up_now_is_neither_failed_nor_repeated(
    lab: DistantLab, clock: FakeClock, failure: MlinternError
) -> None:
    lab.backend.answer_lost = True
    spec = await lab.jobs.planner.plan(script_id=lab.scripts.add("print(1)"), backend="distant")
    await lab.jobs.submit(spec)
    lab.backend.failing = failure
    for _ in range(3):
        clock.advance(300)
        status = await lab.server().poll(spec.job_id)
        assert status.state == "queued" and failure.message in status.detail
        again = await lab.server().submit(spec)
        assert (again.status, again.state) == ("already_submitted", "queued") and failure.message in again.note
    lab.backend.failing = None
    lab.backend.jobs[spec.job_id] = BackendStatus("running", started_at=5.0)
    assert (await lab.server().poll(spec.job_id)).state == "running"
    assert lab.backend.created == [spec.job_id]


class LedgerOnAFullDisk(Ledger):
    """``writes_left`` counts down to the one write that fails; the disk has room again after it."""

    writes_left = -1

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        self.writes_left -= 1
        if self.writes_left == 0:
            raise WorkspaceError("The disk is full.")
        with super().transaction() as connection:
            yield connection


async def test_a_job_that_was_started_is_not_forgotten_when_that_cannot_be_written_down(
    workspace: Workspace, clock: FakeClock
) -> None:
    ledger = LedgerOnAFullDisk(workspace.ledger)
    lab = DistantLab(workspace, ledger, clock)
    spec = await lab.jobs.planner.plan(script_id=lab.scripts.add("print(1)"), backend="distant")
    ledger.writes_left = 2  # the intent is the first, the handle the second
    result = await lab.jobs.submit(spec)
    assert (result.status, result.state) == ("submitted", "queued")
    again = await lab.server().submit(spec)
    assert again.status == "already_submitted"
    assert lab.backend.created == [spec.job_id]
    lab.backend.jobs[spec.job_id] = BackendStatus("running", started_at=5.0)
    assert (await lab.server().poll(spec.job_id)).state == "running"


async def test_a_server_without_the_backend_leaves_a_submission_to_those_that_have_it(lab: DistantLab) -> None:
    lab.backend.answer_lost = True
    job_id = await lab.start()
    stranger = JobService(
        workspace=lab.workspace, ledger=lab.ledger, clock=lab.clock, scripts=lab.scripts, backends={}, environ={}
    )
    await stranger.reconcile()
    status = await stranger.poll(job_id)
    assert status.state == "queued" and "not set up in this server" in status.detail
    lab.backend.jobs[job_id] = BackendStatus("running", started_at=5.0)
    assert (await lab.server().poll(job_id)).state == "running"


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_that_is_set_does_not_change_how_long_a_submission_is_looked_for(
    lab: DistantLab, clock: FakeClock, hours: int
) -> None:
    lab.backend.never_arrives = True
    job_id = await lab.start()
    clock.wall_offset = hours * 3600.0
    server = lab.server()
    clock.advance(10)
    assert (await server.poll(job_id)).state == "queued"  # it may only not be visible yet
    clock.advance(61)
    assert (await server.poll(job_id)).state == "failed"


async def test_an_intent_left_by_a_server_that_died_is_submitted_when_the_next_one_starts(lab: DistantLab) -> None:
    spec = await lab.jobs.planner.plan(script_id=lab.scripts.add("print(1)"), backend="distant")
    lab.jobs._submitter.record_intent(spec)  # the server dies here: nothing was sent
    result = await lab.server().reconcile()
    assert (result.checked, result.submitted, result.problems) == (1, 1, [])
    assert lab.backend.created == [spec.job_id]


async def test_a_refused_submission_leaves_nothing_and_succeeds_once_the_reason_is_gone(lab: DistantLab) -> None:
    lab.backend.refusal = "402: no credits"
    with pytest.raises(BackendError, match="402"):
        await lab.start()
    assert (await lab.jobs.list()).total == 0
    lab.backend.refusal = None
    job_id = await lab.start()
    assert lab.backend.created == [job_id]
    assert lab.entries(job_id) == [("reserve", 2.0), ("release", 2.0), ("reserve", 2.0)]


async def test_a_refusal_that_nobody_waits_for_is_recorded_as_a_failed_job(lab: DistantLab) -> None:
    spec = await lab.jobs.planner.plan(script_id=lab.scripts.add("print(1)"), backend="distant")
    lab.jobs._submitter.record_intent(spec)
    lab.backend.refusal = "402: no credits"
    await lab.server().reconcile()
    status = await lab.jobs.poll(spec.job_id)
    assert status.state == "failed" and status.error is not None and "402" in status.error


async def test_without_room_for_its_folder_nothing_is_recorded_and_the_same_call_works_once_there_is_some(
    lab: DistantLab, workspace: Workspace
) -> None:
    spec = await lab.jobs.planner.plan(script_id=lab.scripts.add("print(1)"), backend="distant")
    (workspace.root / "jobs").write_text("in the way of every job folder")
    with pytest.raises(WorkspaceError, match="cannot be used"):
        await lab.jobs.submit(spec)
    assert (await lab.jobs.list()).total == 0 and lab.entries(spec.job_id) == []
    (workspace.root / "jobs").unlink()
    assert (await lab.jobs.submit(spec)).status == "submitted"
    assert lab.backend.created == [spec.job_id]


async def test_an_intent_waits_for_space_when_the_disk_is_full_and_is_then_submitted(
    lab: DistantLab, workspace: Workspace
) -> None:
    spec = await lab.jobs.planner.plan(script_id=lab.scripts.add("print(1)"), backend="distant")
    lab.jobs._submitter.record_intent(spec)
    shutil.rmtree(workspace.root / "jobs")
    (workspace.root / "jobs").write_text("in the way of every job folder")
    status = await lab.jobs.poll(spec.job_id)
    assert status.state == "queued" and status.detail.startswith("Last known state")
    (workspace.root / "jobs").unlink()
    await lab.jobs.poll(spec.job_id)
    assert lab.backend.created == [spec.job_id]


# Told truthfully


async def test_polling_returns_as_soon_as_the_state_changes(lab: DistantLab, clock: FakeClock) -> None:
    job_id = await lab.start()
    start = clock.time

    class Turning(FakeClock):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            if len(self.slept) == 3:
                lab.backend.jobs[job_id] = BackendStatus("running", started_at=self.time)

    turning = Turning(start)
    lab.jobs._clock = turning
    status = await lab.jobs.poll(job_id, wait_seconds=45)
    assert status.state == "running"
    assert turning.slept == [5.0, 5.0, 5.0]


async def test_polling_returns_at_the_deadline_when_nothing_happens(lab: DistantLab, clock: FakeClock) -> None:
    job_id = await lab.start()
    before = clock.time
    status = await lab.jobs.poll(job_id, wait_seconds=3600)
    assert status.state == "queued"
    assert clock.time - before == 45.0


async def test_a_change_between_two_polls_is_reported_at_once(lab: DistantLab, clock: FakeClock) -> None:
    job_id = await lab.start()
    first = await lab.jobs.poll(job_id)
    lab.backend.jobs[job_id] = BackendStatus("running", started_at=clock.time)
    assert (await lab.jobs.poll(job_id, wait_seconds=45, since=first.next_since)).state == "running"
    assert clock.slept == []


async def test_polling_returns_when_the_health_check_finds_something_new(
    workspace: Workspace, ledger: Ledger, clock: FakeClock
) -> None:
    found = Finding(kind="nan_or_inf", severity="error", evidence="loss is NaN", advice="Lower the learning rate.")

    def diagnose(run: Run) -> Diagnosis:
        bad = any(curve.ends_in_nan for curve in run.curves.values())
        findings = [found] if bad else []
        return Diagnosis(verdict="failing" if bad else "healthy", findings=findings, steps_read=run.rows)

    lab = DistantLab(workspace, ledger, clock, options={"diagnose": diagnose})
    lab.backend.chunk_bytes = 10_000
    job_id = await lab.start()
    lab.backend.jobs[job_id] = BackendStatus("running", started_at=clock.time)
    first = await lab.jobs.poll(job_id)
    lab.backend.log = b'@mlintern {"v":1,"kind":"metrics","time":1,"step":1,"values":{"loss":"NaN"}}\n'
    status = await lab.jobs.poll(job_id, wait_seconds=45, since=first.next_since)
    assert status.findings == [found]
    assert clock.slept == []
    again = await lab.jobs.poll(job_id, wait_seconds=45, since=status.next_since)
    assert sum(clock.slept) == 45.0, "a finding that was reported is not new again"
    assert again.findings == [found]
    assert (await lab.jobs.poll(job_id, since=status.next_since, only_new=True)).findings == []


async def test_only_new_log_lines_are_told(lab: DistantLab) -> None:
    job_id = await lab.start()
    lab.backend.chunk_bytes = 10_000
    lab.backend.jobs[job_id] = BackendStatus("running", started_at=5.0)
    lab.backend.log = b"one\ntwo\n"
    first = await lab.jobs.poll(job_id)
    assert first.log_tail == "one\ntwo"
    assert (await lab.jobs.poll(job_id, since=first.next_since, only_new=True)).log_tail == ""
    lab.backend.log += b"three\nfour\n"
    assert (await lab.jobs.poll(job_id, since=first.next_since, only_new=True)).log_tail == "three\nfour"
    assert (await lab.jobs.poll(job_id, since=first.next_since)).log_tail == "one\ntwo\nthree\nfour"


@pytest.mark.parametrize(
    "since", ["running", "up.0", "running.0.xyz", "running.0.a1b2c3.", "running.1e9", "RUNNING.0"]
)
async def test_what_poll_never_gave_as_since_is_refused(lab: DistantLab, since: str) -> None:
    job_id = await lab.start()
    with pytest.raises(BadInput, match="no value of since"):
        await lab.jobs.poll(job_id, since=since)


async def test_a_backend_that_cannot_be_reached_leaves_the_last_known_state_and_says_so(lab: DistantLab) -> None:
    job_id = await lab.start()
    lab.backend.unreachable = True
    status = await lab.jobs.poll(job_id)
    assert status.state == "queued" and status.detail.startswith("Last known state")
    listing = await lab.jobs.planner.hardware()
    assert (listing.status, listing.sources[0].status) == ("offline", "offline")


async def test_a_backend_that_asks_to_wait_is_left_alone_so_long(lab: DistantLab, clock: FakeClock) -> None:
    job_id = await lab.start()
    lab.backend.failing = RateLimited("Asked to wait.", service="distant", retry_after_seconds=60)
    status = await lab.jobs.poll(job_id, wait_seconds=45)
    assert "Asked to wait" in status.detail and lab.backend.failures == 1
    lab.backend.failing = None
    lab.backend.jobs[job_id] = BackendStatus("running", started_at=5.0)
    clock.advance(16)
    assert (await lab.jobs.poll(job_id)).state == "running"


@pytest.mark.parametrize("name", ["cancellation.json", "mirror.json", "log.txt"])
async def test_a_damaged_job_folder_is_named_and_does_not_stop_the_others(lab: DistantLab, name: str) -> None:
    damaged, sound = await lab.start(run_name="damaged"), await lab.start(run_name="sound")
    lab.backend.log = b"line\n"
    for job_id in (damaged, sound):
        lab.backend.jobs[job_id] = BackendStatus("running", started_at=5.0)
    (lab.workspace.job(damaged) / name).mkdir()
    assert (await lab.server().reconcile()).checked == 2
    assert (await lab.jobs.poll(sound)).state == "running"
    status = await lab.jobs.poll(damaged)
    assert "cannot be" in status.detail and "folder" in status.detail


async def test_half_a_file_in_a_job_folder_is_named(lab: DistantLab) -> None:
    job_id = await lab.start()
    lab.backend.jobs[job_id] = BackendStatus("running", started_at=5.0)
    (lab.workspace.job(job_id) / "cancellation.json").write_text('{"at": 1')
    assert "damaged" in (await lab.jobs.poll(job_id)).detail


@pytest.mark.parametrize("state", ["failed", "cancelled", "timed_out", "lost"])
async def test_no_bad_ending_is_reported_as_success(lab: DistantLab, state: Any) -> None:
    job_id = await lab.start()
    lab.backend.jobs[job_id] = BackendStatus(state, started_at=1.0, run_seconds=60.0, error="why")
    status = await lab.jobs.poll(job_id, wait_seconds=45)
    assert (status.state, status.error) == (state, "why")


async def test_a_final_state_never_changes_again(lab: DistantLab) -> None:
    job_id = await lab.start()
    lab.backend.jobs[job_id] = BackendStatus("failed", started_at=1.0, run_seconds=60.0, error="out of memory")
    await lab.jobs.poll(job_id)
    lab.backend.jobs[job_id] = BackendStatus("succeeded", started_at=1.0, run_seconds=60.0)
    assert (await lab.server().poll(job_id)).state == "failed"


async def test_the_log_of_a_distant_job_is_copied_without_loss_or_repetition(
    lab: DistantLab, workspace: Workspace
) -> None:
    job_id = await lab.start()
    rows = [
        {"v": 1, "kind": "metrics", "time": n, "step": n, "total_steps": 9, "values": {"loss": n}} for n in (1, 2)
    ]
    lines = [f"line {n}\n@mlintern {json.dumps(row)}\n" for n, row in enumerate(rows)]
    lab.backend.jobs[job_id] = BackendStatus("running", started_at=1.0)
    lab.backend.log = (lines[0] + lines[1][:30]).encode()
    await lab.jobs.poll(job_id)
    folder = workspace.job(job_id)
    with (folder / "log.txt").open("ab") as file:
        file.write(b"bytes of a copy that was cut by a crash before it was marked" * 50)
    with (folder / "output" / "metrics.jsonl").open("ab") as file:
        file.write(b'{"v":1,"kind":"metrics"')
    lab.backend.log = "".join(lines).encode()
    status = await lab.server().poll(job_id)
    assert (folder / "log.txt").read_text() == "".join(lines)
    assert [json.loads(line) for line in (folder / "output" / "metrics.jsonl").read_text().splitlines()] == rows
    assert status.progress is not None and (status.progress.step, status.progress.total) == (2, 9)
    assert "line 1" in status.log_tail and "@mlintern" not in status.log_tail


async def test_a_log_without_a_newline_is_copied_and_not_held_in_memory(lab: DistantLab) -> None:
    job_id = await lab.start()
    lab.backend.jobs[job_id] = BackendStatus("running", started_at=5.0)
    lab.backend.chunk_bytes = 4 << 20
    row = {"v": 1, "kind": "metrics", "step": 7, "values": {"loss": 0.5}}
    lab.backend.log = b"x" * (60 << 20)
    await lab.jobs.poll(job_id)
    folder = lab.workspace.job(job_id)
    mark = json.loads((folder / "mirror.json").read_text())
    assert mark["log_bytes"] == 60 << 20 and mark["log_bytes"] - mark["parsed_bytes"] <= 20 << 20
    lab.backend.log += f"\n@mlintern {json.dumps(row)}\n".encode()
    assert (await lab.jobs.poll(job_id)).metrics == {"loss": 0.5}
    assert (folder / "log.txt").read_bytes() == lab.backend.log


async def test_what_was_collected_stays_when_the_storage_of_the_job_is_gone(
    workspace: Workspace, ledger: Ledger, clock: FakeClock
) -> None:
    class Row(BaseModel):
        task: str
        value: float

    async def collect(job_id: str) -> list[Row]:
        return [Row(task="maxmc", value=0.65)]

    lab = DistantLab(workspace, ledger, clock, options={"collect_evaluations": collect})
    lab.backend.chunk_bytes = 10_000
    job_id = await lab.start()
    lab.backend.log = (
        b'@mlintern {"v":1,"kind":"metrics","time":1,"step":180,"total_steps":180,"values":{"loss":0.4}}\n'
        b'@mlintern {"v":1,"kind":"checkpoint","time":1,"step":100,"path":"checkpoint-100"}\n'
        b'@mlintern {"v":1,"kind":"end","time":1,"step":180,"status":"completed","model_path":"model"}\n'
    )
    lab.backend.jobs[job_id] = BackendStatus(
        "succeeded", started_at=1.0, finished_at=61.0, run_seconds=60.0, exit_code=0, output="/far/output"
    )
    await lab.jobs.poll(job_id)
    shutil.rmtree(workspace.job(job_id))
    status = await lab.server().poll(job_id)
    assert (status.state, status.metrics, status.exit_code) == ("succeeded", {"loss": 0.4}, 0)
    assert status.evaluations == [{"task": "maxmc", "value": 0.65}]
    assert status.artifacts["model"] == "/far/output/model", "where it was written, which is not here"
    assert status.artifacts["checkpoints"] == ["/far/output/checkpoint-100"]
    assert "gone" in (await lab.jobs.read_logs(job_id)).note


async def test_evaluations_that_cannot_be_read_do_not_hide_the_end_of_the_job(
    workspace: Workspace, ledger: Ledger, clock: FakeClock
) -> None:
    async def collect(job_id: str) -> list[BaseModel]:
        raise BadInput("evaluation.json is torn.")

    lab = DistantLab(workspace, ledger, clock, options={"collect_evaluations": collect})
    job_id = await lab.start()
    lab.backend.jobs[job_id] = BackendStatus("succeeded", started_at=1.0, run_seconds=1.0, exit_code=0)
    status = await lab.jobs.poll(job_id)
    assert status.state == "succeeded" and "torn" in status.detail


# Money


async def test_the_worst_cost_is_reserved_and_the_measured_time_is_charged(lab: DistantLab) -> None:
    job_id = await lab.start(timeout="2h")
    lab.backend.jobs[job_id] = BackendStatus("running", started_at=1.0, run_seconds=1800.0)
    running = await lab.jobs.poll(job_id)
    assert running.usd_so_far == 1.0
    lab.backend.jobs[job_id] = BackendStatus("succeeded", started_at=1.0, run_seconds=3600.0)
    assert (await lab.jobs.poll(job_id)).usd_so_far == 2.0
    assert lab.entries(job_id) == [("reserve", 4.0), ("charge", 1.0), ("charge", 1.0), ("release", 2.0)]


async def test_a_job_that_nobody_could_measure_is_charged_in_full(lab: DistantLab) -> None:
    job_id = await lab.start(timeout="1h")
    lab.backend.jobs[job_id] = BackendStatus("lost", error="gone")
    assert (await lab.jobs.poll(job_id)).usd_so_far == 2.0


async def test_a_job_whose_end_nobody_saw_is_charged_in_full(lab: DistantLab) -> None:
    job_id = await lab.start(timeout="30m")
    lab.backend.jobs[job_id] = BackendStatus("failed", started_at=5.0, error="its node died")
    assert (await lab.jobs.poll(job_id)).usd_so_far == 1.0


@pytest.mark.parametrize("seconds", [float("inf"), float("nan")])
async def test_a_time_that_is_no_number_is_not_charged(lab: DistantLab, seconds: float) -> None:
    job_id = await lab.start(timeout="30m")
    lab.backend.jobs[job_id] = BackendStatus("running", started_at=5.0, run_seconds=seconds)
    assert (await lab.jobs.poll(job_id)).usd_so_far == 0.0
    lab.backend.jobs[job_id] = BackendStatus("failed", started_at=5.0, run_seconds=seconds, error="?")
    assert (await lab.jobs.poll(job_id)).usd_so_far == 1.0  # nobody measured it


async def test_a_budget_counts_what_running_jobs_have_reserved(
    workspace: Workspace, ledger: Ledger, clock: FakeClock
) -> None:
    lab = DistantLab(workspace, ledger, clock, options={"budget_usd": 3.0})
    first = await lab.start(run_name="a")
    with pytest.raises(OutOfBudget, match=r"\$2\.00 of the \$3\.00"):
        await lab.start(run_name="b")
    lab.backend.jobs[first] = BackendStatus("running", started_at=1.0, run_seconds=1.0)
    await lab.jobs.poll(first)
    with pytest.raises(OutOfBudget):
        await lab.start(run_name="b")
    lab.backend.jobs[first] = BackendStatus("failed", started_at=1.0, run_seconds=900.0, error="x")
    await lab.jobs.poll(first)
    assert await lab.start(run_name="b") in lab.backend.created


async def test_an_experiment_has_a_budget_of_its_own(lab: DistantLab) -> None:
    with lab.ledger.transaction() as connection:
        connection.execute("INSERT INTO experiments (name, budget_usd, created_at) VALUES ('small', 2.5, 0)")
    await lab.start(run_name="a", experiment="small")
    with pytest.raises(OutOfBudget, match="experiment 'small'"):
        await lab.start(run_name="b", experiment="small")
    await lab.start(run_name="b", experiment="other")


async def test_two_submissions_at_once_cannot_together_pass_the_budget(lab: DistantLab) -> None:
    specs = [
        await lab.jobs.planner.plan(
            script_id=lab.scripts.add("print(1)"), backend="distant", timeout="1h", run_name=str(number)
        )
        for number in range(8)
    ]
    lab.jobs._submitter._budget_usd = 5.0
    outcomes: list[str] = []
    barrier = threading.Barrier(len(specs))

    def record(spec: JobSpec) -> None:
        barrier.wait(60)
        try:
            lab.jobs._submitter.record_intent(spec)
            outcomes.append("reserved")
        except OutOfBudget:
            outcomes.append("refused")

    threads = [threading.Thread(target=record, args=(spec,)) for spec in specs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["refused"] * 6 + ["reserved"] * 2


async def test_a_job_that_uses_more_time_than_was_reserved_is_cancelled(lab: DistantLab) -> None:
    job_id = await lab.start(timeout="1h")
    lab.backend.jobs[job_id] = BackendStatus("running", started_at=1.0, run_seconds=3600.0 + 301)
    await lab.jobs.poll(job_id)
    assert lab.backend.cancelled == [job_id]
    assert (await lab.jobs.poll(job_id)).state == "cancelled"


# Asking


async def test_cancelling_an_intent_that_was_never_sent_ends_it_here(lab: DistantLab) -> None:
    spec = await lab.jobs.planner.plan(script_id=lab.scripts.add("print(1)"), backend="distant")
    lab.backend.unreachable = True
    lab.jobs._submitter.record_intent(spec)
    del lab.jobs._backends["distant"]
    assert await lab.jobs._submitter.forget_unsent(spec.job_id, error="not wanted")
    assert (await lab.jobs.poll(spec.job_id)).state == "cancelled"
    assert lab.backend.created == []


async def test_cancelling_a_submission_that_is_not_confirmed_says_to_wait(lab: DistantLab) -> None:
    lab.backend.never_arrives = True
    job_id = await lab.start()
    with pytest.raises(Conflict, match="not confirmed"):
        await lab.jobs.cancel(job_id)


async def test_jobs_are_listed_newest_first_in_pages_that_miss_none(lab: DistantLab, clock: FakeClock) -> None:
    ids = []
    for number in range(7):
        ids.append(await lab.start(run_name=str(number), experiment="e" if number % 2 else "f"))
        clock.advance(number % 3)  # some at the same moment
    seen: list[str] = []
    cursor = None
    while True:
        page = await lab.jobs.list(limit=2, cursor=cursor)
        assert page.total == 7
        seen += [row.job_id for row in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(seen) == sorted(ids) and len(seen) == 7
    assert (await lab.jobs.list(experiment="e")).total == 3
    assert (await lab.jobs.list(status="active")).total == 7
    assert (await lab.jobs.list(status="lost")).total == 0


async def test_a_wrong_cursor_status_or_id_is_refused_with_advice(lab: DistantLab) -> None:
    job_id = await lab.start()
    with pytest.raises(BadInput, match="cursor"):
        await lab.jobs.list(cursor="nonsense")
    with pytest.raises(BadInput, match="'succeeded'"):
        await lab.jobs.list(status="succeded")
    with pytest.raises(NotFound, match=job_id):
        await lab.jobs.poll(job_id[:-1] + "x")


async def test_planning_records_and_starts_nothing(lab: DistantLab) -> None:
    await lab.jobs.planner.plan(script_id=lab.scripts.add("print(1)"), backend="distant")
    assert (await lab.jobs.list()).total == 0 and lab.backend.created == []
    lab.backend.unreachable = True
    with pytest.raises(ServiceError):
        await lab.jobs.planner.plan(script_id=lab.scripts.add("print(1)"), backend="distant")


@pytest.mark.parametrize("spec", ["{", "null", "[]", '{"args": 1}', '{"unknown": 1}', '{"env": [["A"]]}'])
async def test_a_damaged_row_of_the_ledger_is_named(lab: DistantLab, spec: str) -> None:
    job_id = await lab.start()
    with lab.ledger.transaction() as connection:
        connection.execute("UPDATE jobs SET spec = ?", (spec,))
    for call in (lab.jobs.poll(job_id), lab.jobs.list(), lab.jobs.read_logs(job_id), lab.jobs.cancel(job_id)):
        with pytest.raises(WorkspaceError, match=f"{job_id} is damaged"):
            await call


async def test_jobs_and_their_money_come_back_when_the_ledger_is_lost(lab: DistantLab, clock: FakeClock) -> None:
    over, going_on = await lab.start(run_name="over"), await lab.start(run_name="on")
    lab.backend.jobs[over] = BackendStatus("failed", started_at=1.0, run_seconds=1800.0, exit_code=3, error="why")
    await lab.jobs.poll(over)
    (lab.workspace.job("job-damaged")).mkdir()
    (lab.workspace.job("job-damaged") / "spec.json").write_text("{")
    lab.ledger.close()
    lab.workspace.ledger.rename(lab.workspace.root / "aside.db")
    for name in ("ledger.db-wal", "ledger.db-shm"):
        (lab.workspace.root / name).unlink(missing_ok=True)
    ledger = Ledger(lab.workspace.ledger)
    assert rebuild(lab.workspace, ledger, now=clock.now()) == 2
    assert rebuild(lab.workspace, ledger, now=clock.now()) == 0
    found = DistantLab(lab.workspace, ledger, clock, lab.backend, {"budget_usd": 4.0})
    ended = await found.jobs.poll(over)
    assert (ended.state, ended.exit_code, ended.error, ended.usd_so_far) == ("failed", 3, "why", 1.0)
    lab.backend.jobs[going_on] = BackendStatus("running", started_at=5.0)
    assert (await found.jobs.poll(going_on)).state == "running"
    assert len(lab.backend.created) == 2, "nothing is submitted again"
    with pytest.raises(OutOfBudget):  # 1 spent and 2 reserved of 4
        await found.start(run_name="third")
