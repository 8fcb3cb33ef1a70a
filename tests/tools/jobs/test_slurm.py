"""The Slurm backend against a real Slurm: every state, the time limit, and what is left when Slurm forgets."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import anyio
import pytest

from mlintern.tools.config import SlurmHardware, SlurmSettings
from mlintern.tools.errors import BackendError, BadInput, NotFound, Offline
from mlintern.tools.jobs.backend import BackendStatus
from mlintern.tools.jobs.backends.slurm.backend import SlurmBackend
from mlintern.tools.jobs.backends.slurm.batch import batch_script
from mlintern.tools.jobs.spec import FINAL, JobHandle
from mlintern.tools.workspace import Workspace
from tests.services.slurm import Slurm, running_slurm, slurm_is_installed
from tests.tools.jobs.remote import submission

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not slurm_is_installed(), reason="needs root and Debian's slurm-wlm and munge"),
]


def backend_of(slurm: Slurm, **settings: object) -> SlurmBackend:
    return SlurmBackend(
        settings=SlurmSettings(launch=(sys.executable,), environment=slurm.environment, **settings)  # type: ignore[arg-type]
    )


async def ended(backend: SlurmBackend, handle: JobHandle) -> BackendStatus:
    with anyio.fail_after(60):
        while (status := await backend.status(handle)).state not in FINAL:
            await anyio.sleep(0.1)
    return status


async def has_logged(backend: SlurmBackend, handle: JobHandle, text: bytes) -> None:
    with anyio.fail_after(30):
        while text not in (await backend.logs(handle, None)).data:
            await anyio.sleep(0.1)


async def test_a_job_runs_with_its_arguments_environment_and_output_folder(slurm: Slurm, tmp_path: Path) -> None:
    backend = backend_of(slurm)
    script = (
        "import json, os, sys\n"
        "keep = {k: os.environ.get(k) for k in ('MLINTERN_JOB_ID', 'MLINTERN_OUTPUT_DIR', 'GREETING')}\n"
        "json.dump([sys.argv[1:], keep], open(os.environ['MLINTERN_OUTPUT_DIR'] + '/seen.json', 'w'))\n"
        "print('done', flush=True)\n"
    )
    job = submission(
        tmp_path,
        script,
        backend="slurm",
        hardware="debug",
        args=("--name", "it's $HOME"),
        env={"GREETING": 'a "b" `c`'},
    )

    handle = await backend.submit(job)
    status = await ended(backend, handle)

    assert (status.state, status.exit_code) == ("succeeded", 0)
    assert status.started_at is not None and status.finished_at is not None
    arguments, environment = json.loads((job.folder / "output" / "seen.json").read_text())
    assert arguments == ["--name", "it's $HOME"]
    assert environment == {
        "MLINTERN_JOB_ID": job.job_id,
        "MLINTERN_OUTPUT_DIR": f"{job.folder}/output",
        "GREETING": 'a "b" `c`',
    }
    assert (job.folder / "log.txt").read_bytes() == b"done\n"


async def test_a_failing_script_is_failed_with_its_exit_code(slurm: Slurm, tmp_path: Path) -> None:
    backend = backend_of(slurm)
    handle = await backend.submit(submission(tmp_path, "raise SystemExit(7)", backend="slurm", hardware="debug"))
    status = await ended(backend, handle)
    assert (status.state, status.exit_code) == ("failed", 7)


async def test_the_time_limit_sends_term_and_the_script_may_still_save_its_work(slurm: Slurm, tmp_path: Path) -> None:
    backend = backend_of(slurm)
    script = (
        "import signal, sys, time, os\n"
        "def save(*_):\n"
        "    open(os.environ['MLINTERN_OUTPUT_DIR'] + '/checkpoint', 'w').write('saved'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "print('ready', flush=True)\n"
        "time.sleep(100)\n"
    )
    job = submission(tmp_path, script, backend="slurm", hardware="debug", timeout_seconds=2)
    handle = await backend.submit(job)
    status = await ended(backend, handle)
    assert status.state == "timed_out"
    assert (job.folder / "output" / "checkpoint").read_text() == "saved"


async def test_a_script_that_ignores_term_is_killed_and_timed_out_not_failed(slurm: Slurm, tmp_path: Path) -> None:
    script = batch_script(
        folder=str(tmp_path),
        script="import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(100)\n",
        environment={},
        modules=(),
        prologue="",
        seconds=1,
        grace=1,
        launch=f"{sys.executable} {tmp_path}/script.py",
    )
    (tmp_path / "work").mkdir()
    number = await anyio.run_process(
        ["sbatch", "--parsable", f"--job-name={tmp_path.name}", f"--output={tmp_path}/log.txt"],
        input=script.encode(),
        env={**os.environ, **slurm.environment},
    )
    handle = JobHandle("slurm", number.stdout.decode().strip(), {"folder": str(tmp_path)})
    status = await ended(backend_of(slurm), handle)
    assert (status.state, status.exit_code) == ("timed_out", 137)


async def test_a_job_that_somebody_else_ends_on_the_cluster_is_cancelled_not_timed_out(
    slurm: Slurm, tmp_path: Path
) -> None:
    backend = backend_of(slurm)
    job = submission(tmp_path, "import time; print('ready', flush=True); time.sleep(100)", hardware="debug")
    handle = await backend.submit(job)
    await has_logged(backend, handle, b"ready")
    running = await backend.status(handle)
    assert running.state == "running" and running.run_seconds is not None and running.run_seconds < 60
    slurm.run("scancel", handle.reference)
    status = await ended(backend, handle)
    assert status.state == "cancelled"
    assert status.error is not None and "not through mlintern" in status.error


async def test_a_controller_that_is_down_loses_no_job(tmp_path: Path) -> None:
    with running_slurm(tmp_path / "slurm") as cluster:
        backend = backend_of(cluster)
        script = "import time; print('ready', flush=True); time.sleep(100)"
        handle = await backend.submit(submission(tmp_path, script, hardware="debug"))
        await has_logged(backend, handle, b"ready")
        cluster.stop("slurmctld")
        with pytest.raises(Offline):
            await backend.status(handle)
        with pytest.raises(Offline):
            await backend.find("job-unknown")
        cluster.start("slurmctld", "-D")
        cluster.until(lambda: "debug" in cluster.run("sinfo", "-h"))
        assert (await backend.status(handle)).state == "running"


async def test_a_job_that_slurm_has_forgotten_is_found_by_the_record_it_left(
    slurm: Slurm, workspace: Workspace, tmp_path: Path
) -> None:
    backend = SlurmBackend(
        settings=SlurmSettings(launch=(sys.executable,), environment=slurm.environment), workspace=workspace
    )
    job = submission(workspace.root, "", backend="slurm", hardware="debug")
    (workspace.job(job.job_id) / "slurm_record").write_text("start 1800000000 987654\nexit 0 1800000060\n")
    found = await backend.find(job.job_id)
    assert found is not None and found.reference == "987654"
    status = await backend.status(found)
    assert (status.state, status.run_seconds) == ("succeeded", 60.0)


async def test_a_cancelled_job_is_cancelled_and_its_script_gets_term(slurm: Slurm, tmp_path: Path) -> None:
    backend = backend_of(slurm)
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('terminated', flush=True), sys.exit(1)))\n"
        "print('ready', flush=True)\n"
        "time.sleep(100)\n"
    )
    job = submission(tmp_path, script, backend="slurm", hardware="debug")
    handle = await backend.submit(job)
    await has_logged(backend, handle, b"ready")
    assert (await backend.status(handle)).state == "running"

    await backend.cancel(handle, reason="enough")

    assert (await ended(backend, handle)).state == "cancelled"
    assert b"terminated" in (job.folder / "log.txt").read_bytes()


async def test_a_waiting_job_says_why_it_waits_and_can_be_cancelled_unrun(slurm: Slurm, tmp_path: Path) -> None:
    everything = SlurmHardware(partition="debug", cpus=os.cpu_count() or 1)
    backend = backend_of(slurm, hardware={"whole": everything})
    first = await backend.submit(
        submission(tmp_path / "a", "import time; print('ready', flush=True); time.sleep(100)", hardware="whole")
    )
    await has_logged(backend, first, b"ready")
    second_job = submission(tmp_path / "b", "print('ran')", hardware="whole", run_name="second")
    second = await backend.submit(second_job)

    with anyio.fail_after(30):
        while "Resources" not in (status := await backend.status(second)).detail:
            assert status.state == "queued"
            await anyio.sleep(0.1)

    await backend.cancel(second, reason="")
    await backend.cancel(first, reason="")
    assert (await ended(backend, second)).state == "cancelled"
    assert (await ended(backend, first)).state == "cancelled"
    assert not (second_job.folder / "log.txt").exists()


async def test_the_end_of_a_job_is_known_after_slurm_forgot_it(tmp_path: Path) -> None:
    with running_slurm(tmp_path / "slurm", min_job_age=2) as forgetful:
        backend = backend_of(forgetful)
        handle = await backend.submit(submission(tmp_path, "raise SystemExit(3)", backend="slurm", hardware="debug"))
        await ended(backend, handle)
        with anyio.fail_after(60):
            while handle.reference in forgetful.run("squeue", "-h", "--states=all", "-o", "%i").split():
                await anyio.sleep(0.2)
        status = await backend.status(handle)
        assert (status.state, status.exit_code) == ("failed", 3)

        unheard_of = JobHandle("slurm", "4711", {"folder": str(tmp_path / "nothing")})
        assert (await backend.status(unheard_of)).state == "lost"


async def test_a_job_is_found_by_its_id_and_never_runs_twice(slurm: Slurm, tmp_path: Path) -> None:
    backend = backend_of(slurm)
    script = "import os; print('run', flush=True)"
    job = submission(tmp_path, script, backend="slurm", hardware="debug", run_name="once")
    assert await backend.find(job.job_id) is None

    first = await backend.submit(job)
    found = await backend.find(job.job_id)
    assert found == first
    await ended(backend, first)
    second = await backend.submit(job)  # as after an answer that never came
    with anyio.fail_after(30):
        while "JobState=FAILED" not in slurm.run("scontrol", "show", "job", "-o", second.reference):
            await anyio.sleep(0.1)

    assert (job.folder / "log.txt").read_text().count("run\n") == 1
    assert await backend.status(second) == await backend.status(first), "it is the one job, whichever copy is asked"


async def test_a_secret_reaches_the_job_by_name_and_no_file(slurm: Slurm, tmp_path: Path) -> None:
    backend = backend_of(slurm)
    script = "import os; print(len(os.environ['HF_TOKEN']), flush=True)"
    job = submission(tmp_path, script, backend="slurm", hardware="debug", secrets={"HF_TOKEN": "hf_" + "s" * 34})
    handle = await backend.submit(job)
    assert (await ended(backend, handle)).state == "succeeded"
    assert (job.folder / "log.txt").read_text() == "37\n"
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"hf_ssss" in path.read_bytes() for path in written)
    assert "hf_ssss" not in slurm.run("scontrol", "show", "job", handle.reference)


async def test_logs_come_in_pieces_that_join_without_loss(slurm: Slurm, tmp_path: Path) -> None:
    backend = backend_of(slurm)
    job = submission(
        tmp_path, "for n in range(1000): print('line', n, 'é')", backend="slurm", hardware="debug", run_name="log"
    )
    handle = await backend.submit(job)
    await ended(backend, handle)
    first = await backend.logs(handle, None)
    assert first.data.decode().splitlines() == [f"line {n} é" for n in range(1000)]
    rest = await backend.logs(handle, "7")
    assert rest.data == first.data[7:]
    assert (await backend.logs(handle, first.cursor)).data == b""


async def test_a_command_prefix_reaches_the_cluster_and_its_job_folders(slurm: Slurm, tmp_path: Path) -> None:
    """`sh -c` stands for ssh: it too gets the whole command as one word and hands it to a shell."""
    remote = tmp_path / "remote"
    backend = backend_of(slurm, prefix=("sh", "-c"), folder=str(remote))
    script = "import os; print('there', os.environ['KEY'])"
    secrets = {"KEY": "two\nlines, it's $HOME"}
    job = submission(tmp_path / "local", script, hardware="debug", run_name="ssh", secrets=secrets)
    handle = await backend.submit(job)
    assert (await ended(backend, handle)).state == "succeeded"
    assert (await backend.logs(handle, None)).data == b"there two\nlines, it's $HOME\n"
    assert (remote / job.job_id / "output").is_dir()
    assert not backend.capabilities.shares_files


async def test_partitions_are_hardware_until_names_are_configured(slurm: Slurm) -> None:
    (partition,) = await backend_of(slurm).hardware()
    assert (partition.name, partition.cpus, partition.memory_gib) == ("debug", os.cpu_count(), 2.0)
    gpu = SlurmHardware(partition="debug", gpus=4, gpu_type="a100", gpu_memory_gib=320, memory="512G", usd_per_hour=8)
    (named,) = await backend_of(slurm, hardware={"a100x4": gpu}).hardware()
    assert (named.name, named.accelerator, named.accelerators, named.memory_gib) == ("a100x4", "a100", 4, 512)


async def test_what_slurm_refuses_is_refused_with_its_words(slurm: Slurm, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="invalid partition"):
        await backend_of(slurm).submit(submission(tmp_path, "", backend="slurm", hardware="nowhere"))
    configured = backend_of(slurm, hardware={"a": SlurmHardware()})
    with pytest.raises(BadInput, match="Known: a"):
        await configured.submit(submission(tmp_path, "", backend="slurm", hardware="b"))


async def test_a_job_of_somebody_else_is_described_and_can_be_ended(slurm: Slurm, tmp_path: Path) -> None:
    backend = backend_of(slurm)
    options = ["--parsable", "--job-name=theirs", f"--output={tmp_path}/log", "--wrap=sleep 600"]
    made = await anyio.run_process(["sbatch", *options], env={**os.environ, **slurm.environment})
    number = made.stdout.decode().strip()

    job = await backend.foreign(number)
    assert (job.job_id, job.name, job.state in ("queued", "running")) == (f"slurm:{number}", "theirs", True)
    assert dict(job.details)["Submitted by"] == "root"
    assert job.identity == (await backend.foreign(number)).identity

    await backend.cancel_foreign(job)
    with anyio.fail_after(30):
        while (await backend.foreign(number)).state != "cancelled":
            await anyio.sleep(0.1)
    with pytest.raises(NotFound, match="knows no job 999999"):
        await backend.foreign("999999")
    with pytest.raises(BadInput, match="job number"):
        await backend.foreign("1; scancel 2")
