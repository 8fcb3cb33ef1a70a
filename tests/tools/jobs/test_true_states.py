"""A list of jobs says what is, within a bounded time, and what it could not ask."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from mlintern.tools.errors import Conflict, NotFound
from mlintern.tools.jobs import hardware
from mlintern.tools.jobs.backend import BackendStatus
from mlintern.tools.jobs.hardware import Hardware
from mlintern.tools.jobs.local_hardware import processor
from mlintern.tools.ledger import Ledger
from mlintern.tools.telemetry_marks import MARK
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.tools.jobs.distant import DistantBackend, DistantLab

pytestmark = pytest.mark.anyio


@pytest.fixture
def lab(workspace: Workspace, ledger: Ledger, clock: FakeClock) -> DistantLab:
    return DistantLab(workspace, ledger, clock)


async def test_a_list_shows_jobs_that_ended_since_the_last_poll(lab: DistantLab) -> None:
    ended, going_on = await lab.start(run_name="one"), await lab.start(run_name="two")
    lab.backend.jobs[ended] = BackendStatus("succeeded", started_at=1.0, finished_at=9.0, run_seconds=8.0)
    lab.backend.jobs[going_on] = BackendStatus("running", started_at=5.0, run_seconds=3600.0)
    page = await lab.server().list()
    assert {row.job_id: row.state for row in page.items} == {ended: "succeeded", going_on: "running"}
    assert page.note == ""
    assert {row.job_id: row.usd_so_far for row in page.items}[going_on] == pytest.approx(2.0)
    active = await lab.jobs.list(status="active")
    assert ([row.job_id for row in active.items], active.total) == ([going_on], 1)


async def test_a_list_names_the_job_that_could_not_be_asked_about(lab: DistantLab) -> None:
    job_id = await lab.start()
    lab.backend.unreachable = True
    page = await lab.jobs.list()
    assert page.items[0].state == "queued" and page.items[0].detail.startswith("Last known state")
    assert page.note.startswith(f"Not up to date: {job_id}: It cannot be reached.")
    lab.backend.unreachable = False
    assert (await lab.jobs.list()).note == ""


async def test_a_backend_that_never_answers_holds_a_list_up_for_a_bounded_time(lab: DistantLab) -> None:
    stuck = await lab.start()

    class Silent(DistantBackend):
        async def status(self, handle: object) -> BackendStatus:
            await anyio.sleep_forever()
            raise AssertionError

    lab.backend = Silent(jobs=lab.backend.jobs)
    with anyio.fail_after(30):
        assert await lab.server().bring_up_to_date(seconds=0.05) == {stuck: "no answer within 0 s."}


async def test_jobs_of_other_experiments_are_not_asked_about(lab: DistantLab) -> None:
    await lab.start(experiment="mine")
    other = await lab.start(experiment="other")
    lab.backend.jobs[other] = BackendStatus("running", started_at=5.0)
    await lab.jobs.list(experiment="mine")
    with lab.ledger.read() as connection:
        [row] = connection.execute("SELECT state FROM jobs WHERE job_id = ?", (other,)).fetchall()
    assert row["state"] == "queued"


async def test_a_job_is_found_by_the_beginning_of_its_id_and_by_the_name_of_its_run(lab: DistantLab) -> None:
    first, second = await lab.start(run_name="short"), await lab.start(run_name="long")
    assert lab.jobs.named(first) == lab.jobs.named(first[:-1]) == lab.jobs.named("short") == first
    assert lab.jobs.named(first.removeprefix("job-")) == first
    with pytest.raises(Conflict, match=second):
        lab.jobs.named("job-")
    with pytest.raises(NotFound, match="There is no job"):
        lab.jobs.named("medium")


async def test_the_log_of_an_evaluation_says_its_result_in_words(lab: DistantLab) -> None:
    job_id = await lab.start()
    rows = [{"metric": "accuracy", "filter": "strict", "value": 0.6125, "stderr": 0.0345, "n": 200}]
    row = {"v": 1, "kind": "evaluation", "evaluation": {"task": "gsm8k", "model": "m", "rows": rows}}
    lab.backend.log = f"{MARK}{json.dumps(row)}\n".encode()
    lab.backend.jobs[job_id] = BackendStatus("running", started_at=5.0)
    lab.backend.chunk_bytes = 1000
    page = await lab.jobs.read_logs(job_id)
    assert "Measured: gsm8k accuracy 0.6125 ± 0.035 (200 items)." in page.note
    lab.backend.jobs[job_id] = BackendStatus("succeeded", started_at=5.0, finished_at=9.0)
    assert "gsm8k accuracy 0.6125" in (await lab.jobs.read_logs(job_id)).note


# Hardware


async def test_what_is_free_comes_first_and_machines_for_rent_are_told_in_a_line(lab: DistantLab) -> None:
    listing = await lab.jobs.hardware()
    assert listing.items == []
    assert listing.note == "distant rents 1 machine at $2.00 an hour: list_hardware(backend='distant')."
    assert [item.name for item in (await lab.jobs.hardware("distant")).items] == ["a10g"]


def test_a_busy_machine_comes_after_a_free_one() -> None:
    gpu = hardware.with_free(Hardware(name="gpu", backend="local", slots=1), busy=1)
    cpu = hardware.with_free(Hardware(name="cpu", backend="local", slots=2), busy=1)
    assert (gpu.free, cpu.free) == (0, 1)
    assert sorted([gpu, cpu], key=hardware.order) == [cpu, gpu]


def test_the_processor_is_told_with_what_speeds_up_training(tmp_path: Path) -> None:
    listing = tmp_path / "cpuinfo"
    core = "model name\t: Intel(R) Xeon(R)\nflags\t\t: fpu sse2 avx2 avx512f avx512_bf16 amx_bf16 amx_tile amx_int8\n"
    listing.write_text(f"{core}\n{core}")
    assert processor(listing) == "Intel(R) Xeon(R): AMX bf16, AMX int8, AVX-512 bf16, AVX-512"
    listing.write_text("Features\t: fp asimd sve\n")
    assert processor(listing) == "NEON, SVE"
    assert processor(tmp_path / "absent") == ""
