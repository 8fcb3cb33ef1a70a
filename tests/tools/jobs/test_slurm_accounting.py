"""What is told of a job that Slurm has forgotten: by real accounting (slurmdbd), or nothing where there is none."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from mlintern.tools.config import SlurmHardware, SlurmSettings
from mlintern.tools.errors import Offline
from mlintern.tools.jobs.backend import BackendStatus
from mlintern.tools.jobs.backends.slurm.backend import SlurmBackend
from mlintern.tools.jobs.backends.slurm.batch import RECORD
from mlintern.tools.jobs.spec import FINAL, JobHandle
from tests.services.slurm import Slurm, memory_can_be_limited, running_slurm, slurm_is_installed
from tests.services.slurm_accounting import accounting_is_installed
from tests.tools.jobs.remote import submission

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not slurm_is_installed(), reason="needs root and Debian's slurm-wlm and munge"),
    pytest.mark.skipif(not accounting_is_installed(), reason="needs Debian's slurmdbd and mariadb-server"),
]

RUNS = "import time; print('ready', flush=True); time.sleep(200)"
DIES = "import os, signal, time\nos.kill(int(os.environ['BATCH']), signal.SIGKILL)\ntime.sleep(200)"
"""Kills the batch script that watches over it: nobody writes down how it ended."""


@dataclass(frozen=True)
class Ended:
    """A job that is over, and what ``sacct`` counts of it: start, end and paid time, in seconds."""

    handle: JobHandle
    started: float
    finished: float
    seconds: float


def backend_of(slurm: Slurm, **settings: object) -> SlurmBackend:
    return SlurmBackend(
        settings=SlurmSettings(launch=(sys.executable,), environment=slurm.environment, **settings)  # type: ignore[arg-type]
    )


def accounts_of(slurm: Slurm, handle: JobHandle, *fields: str) -> list[str]:
    shown = slurm.run(
        "env", "SLURM_TIME_FORMAT=%s", "sacct", "-X", "-n", "-P", "-j", handle.reference, "-o", ",".join(fields)
    )
    return shown.strip().split("|")


def wait_for(slurm: Slurm, handle: JobHandle, *states: str) -> None:
    slurm.until(
        lambda: slurm.run("squeue", "-h", "--states=all", f"--jobs={handle.reference}", "-o", "%T").strip() in states
    )


async def until_ready(backend: SlurmBackend, handle: JobHandle) -> None:
    with anyio.fail_after(30):
        while b"ready" not in (await backend.logs(handle, None)).data:
            await anyio.sleep(0.1)


async def ended(backend: SlurmBackend, handle: JobHandle) -> BackendStatus:
    with anyio.fail_after(60):
        while (status := await backend.status(handle)).state not in FINAL:
            await anyio.sleep(0.1)
    return status


def forgets(slurm: Slurm, *handles: JobHandle) -> None:
    """Wait until the controller has forgotten these."""
    numbers = {handle.reference for handle in handles}
    slurm.until(lambda: not numbers & set(slurm.run("squeue", "-h", "--states=all", "-o", "%A").split()))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with running_slurm(tmp_path_factory.mktemp("accounting") / "slurm", min_job_age=2, accounting=True) as slurm:
        yield slurm


@pytest.fixture(scope="module")
def forgotten(cluster: Slurm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """One job for each end. The controller has forgotten them all, their records are gone: only accounts are left."""
    folder = tmp_path_factory.mktemp("jobs")

    async def run() -> dict[str, JobHandle]:
        backend = backend_of(cluster)
        scripts = {"timed_out": RUNS, "succeeded": "", "failed": "raise SystemExit(7)", "cancelled": RUNS}
        handles = {
            name: await backend.submit(submission(folder, text, hardware="debug", run_name=name))
            for name, text in scripts.items()
        }
        await until_ready(backend, handles["timed_out"])
        cluster.run("scontrol", "update", f"JobId={handles['timed_out'].reference}", "EndTime=now")
        await until_ready(backend, handles["cancelled"])
        cluster.run("scancel", handles["cancelled"].reference)
        for name, state in (("succeeded", "COMPLETED"), ("failed", "FAILED"), ("cancelled", "CANCELLED")):
            wait_for(cluster, handles[name], state, "")
        with anyio.fail_after(60):  # Slurm looks at limits twice a minute
            while accounts_of(cluster, handles["timed_out"], "State") != ["TIMEOUT"]:
                await anyio.sleep(0.2)
        return handles

    handles = anyio.run(run)
    forgets(cluster, *handles.values())
    found = {}
    for name, handle in handles.items():
        times = [float(value) for value in accounts_of(cluster, handle, "Start", "End", "ElapsedRaw")]
        found[name] = Ended(handle, *times)
        (Path(handle.details["folder"]) / RECORD).unlink()
    return found


@pytest.mark.parametrize(
    ("name", "exit_code", "error"),
    [
        ("succeeded", 0, None),
        ("failed", 7, "FAILED."),
        ("cancelled", None, "Somebody ended it on the cluster (scancel), not through mlintern."),
        ("timed_out", None, "TIMEOUT."),
    ],
)
async def test_a_forgotten_job_is_told_from_the_accounts_with_the_time_to_pay_for(
    cluster: Slurm, forgotten: dict[str, Ended], name: str, exit_code: int | None, error: str | None
) -> None:
    job = forgotten[name]
    status = await backend_of(cluster).status(job.handle)
    assert (status.state, status.exit_code, status.error) == (name, exit_code, error)
    assert (status.started_at, status.finished_at, status.run_seconds) == (job.started, job.finished, job.seconds)
    if name == "timed_out":
        assert job.seconds >= 1


async def test_accounts_that_do_not_answer_lose_no_job(cluster: Slurm, forgotten: dict[str, Ended]) -> None:
    backend, job = backend_of(cluster), forgotten["succeeded"]
    assert "; accounting answers;" in await backend.examine()
    cluster.stop("slurmdbd")
    with pytest.raises(Offline, match="talking to the database"):
        await backend.status(job.handle)
    assert "accounting does not answer" in await backend.examine()
    cluster.start_accounting()
    with anyio.fail_after(90):
        while "accounting answers" not in await backend.examine():
            await anyio.sleep(0.1)
    assert (await backend.status(job.handle)).state == "succeeded"


async def test_a_job_whose_end_nobody_could_write_down_failed_by_its_signal(cluster: Slurm, tmp_path: Path) -> None:
    backend = backend_of(cluster, prologue="export BATCH=$$")
    handle = await backend.submit(submission(tmp_path, DIES, hardware="debug"))
    status = await ended(backend, handle)
    assert (status.state, status.exit_code) == ("failed", 128 + signal.SIGKILL)
    forgets(cluster, handle)
    later = await backend.status(handle)
    assert (later.state, later.exit_code, later.started_at) == ("failed", 137, status.started_at)
    assert later.run_seconds is not None and later.run_seconds < 10


async def test_a_job_put_back_into_the_queue_shows_its_last_state_and_all_its_time(
    cluster: Slurm, tmp_path: Path
) -> None:
    backend = backend_of(cluster)
    handle = await backend.submit(submission(tmp_path, RUNS, hardware="debug"))
    await until_ready(backend, handle)
    assert "disabled" in cluster.run("scontrol", "requeue", handle.reference), "it takes an operator to insist"
    cluster.run("scontrol", "update", f"JobId={handle.reference}", "Requeue=1")
    cluster.run("scontrol", "requeue", handle.reference)
    status = await ended(backend, handle)
    assert status.state == "failed" and status.error is not None and "put it back into the queue" in status.error

    record = Path(handle.details["folder"]) / RECORD
    started, *_ = record.read_text().splitlines(keepends=True)
    record.write_text(started)  # as if the node had died and written no more
    wait_for(cluster, handle, "PENDING")
    assert (await backend.status(handle)).state == "queued"
    # Not in this second: its daemon would take the new start for the one that it was just told to end.
    cluster.run("scontrol", "update", f"JobId={handle.reference}", "StartTime=now+3")
    again = await ended(backend, handle)
    assert (again.state, again.exit_code) == ("failed", 75)
    assert again.error is not None and "never runs twice" in again.error

    forgets(cluster, handle)
    record.unlink()
    attempts = cluster.run("sacct", "-X", "-D", "-n", "-P", "-j", handle.reference, "-o", "State,ElapsedRaw").split()
    assert [attempt.split("|")[0] for attempt in attempts] == ["REQUEUED", "FAILED"]
    later = await backend.status(handle)
    assert (later.state, later.exit_code) == ("failed", 75)


async def test_a_suspended_job_still_runs_and_its_suspension_is_not_paid_for(cluster: Slurm, tmp_path: Path) -> None:
    backend = backend_of(cluster)
    handle = await backend.submit(submission(tmp_path, RUNS, hardware="debug"))
    await until_ready(backend, handle)
    cluster.run("scontrol", "suspend", handle.reference)
    wait_for(cluster, handle, "SUSPENDED")
    first = await backend.status(handle)
    assert first.state == "running" and first.detail == "SUSPENDED" and first.started_at is not None
    counted = cluster.run("squeue", "-h", f"--jobs={handle.reference}", "-o", "%M").strip()
    with anyio.fail_after(60):
        minutes, seconds = map(int, counted.split(":"))
        ran = 60 * minutes + seconds
        while time.time() - first.started_at < ran + 5:
            await anyio.sleep(0.1)
    later = await backend.status(handle)
    assert later.run_seconds is not None and later.run_seconds <= ran + 1
    cluster.run("scontrol", "resume", handle.reference)
    await backend.cancel(handle, reason="")
    assert (await ended(backend, handle)).state == "cancelled"


@pytest.mark.parametrize("accounting", [True, False])
async def test_a_number_that_a_new_cluster_gave_to_another_job_is_not_taken_for_the_old_one(
    tmp_path: Path, accounting: bool
) -> None:
    with running_slurm(tmp_path / "slurm", accounting=accounting) as slurm:
        backend = backend_of(slurm)
        old = await backend.submit(submission(tmp_path, "raise SystemExit(3)", hardware="debug", run_name="old"))
        assert (await ended(backend, old)).state == "failed"
        (Path(old.details["folder"]) / RECORD).unlink()
        if accounting:
            with anyio.fail_after(90):
                while accounts_of(slurm, old, "State") != ["FAILED"]:
                    await anyio.sleep(0.1)
        slurm.forget_everything()
        new = await backend.submit(submission(tmp_path, RUNS, hardware="debug", run_name="new"))
        assert new.reference == old.reference
        await until_ready(backend, new)
        status = await backend.status(old)
        assert (status.state, status.exit_code) == (("failed", 3) if accounting else ("lost", None))
        await backend.cancel(old, reason="it is over")
        assert (await backend.status(new)).state == "running", "somebody else's job was not cancelled"
        await backend.cancel(new, reason="")
        assert (await ended(backend, new)).state == "cancelled"


@pytest.mark.skipif(not memory_can_be_limited(), reason="needs control groups of version 1 that may be written")
async def test_a_job_that_uses_up_its_memory_is_told_so_while_slurm_remembers_it_and_later(tmp_path: Path) -> None:
    with running_slurm(tmp_path / "slurm", min_job_age=2, accounting=True, memory_limits=True) as slurm:
        backend = backend_of(slurm, hardware={"small": SlurmHardware(partition="debug", memory="64M")})
        handle = await backend.submit(submission(tmp_path, "x = bytearray(300 << 20)", hardware="small"))
        status = await ended(backend, handle)
        assert (status.state, status.exit_code) == ("failed", 137)
        assert status.error is not None and "raise memory of this hardware" in status.error
        forgets(slurm, handle)
        assert (await backend.status(handle)).error == status.error.replace(": OutOfMemory", "")
        (Path(handle.details["folder"]) / RECORD).unlink()
        later = await backend.status(handle)
        assert (later.state, later.exit_code) == ("failed", None)
        assert later.error is not None and "raise memory of this hardware" in later.error
