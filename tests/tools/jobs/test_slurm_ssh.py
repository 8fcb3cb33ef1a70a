"""Slurm behind a real ssh: what arrives, what a cut connection leaves, and what a refused login is called."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from mlintern.common.clock import SystemClock
from mlintern.tools.config import SlurmHardware, SlurmSettings
from mlintern.tools.errors import BackendError, Blocked, Offline
from mlintern.tools.jobs.backend import BackendStatus
from mlintern.tools.jobs.backends.slurm.backend import SlurmBackend
from mlintern.tools.jobs.spec import FINAL, JobHandle
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services.slurm import Slurm, slurm_is_installed
from tests.services.ssh import Ssh, running_sshd, sshd_is_installed
from tests.tools.jobs.remote import submission
from tests.tools.jobs.remote_lab import RemoteLab
from tests.tools.jobs.test_hf_jobs_service import SCRIPT

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not slurm_is_installed(), reason="needs root and Debian's slurm-wlm and munge"),
    pytest.mark.skipif(not sshd_is_installed(), reason="needs Debian's openssh-server"),
]

WAITS = "import time; print('ready', flush=True); time.sleep(100)"
THEN_CUT = 'sh -c "$SSH_ORIGINAL_COMMAND" >/dev/null 2>&1; kill -9 $PPID'
"""Does what was asked for; the connection is cut before the answer."""


@pytest.fixture
def ssh(slurm: Slurm, tmp_path: Path) -> Iterator[Ssh]:
    with running_sshd(tmp_path / "ssh") as login:
        yield login
    slurm.run("scancel", "--full", "--signal=KILL", "--user=root")


def backend_of(slurm: Slurm, ssh: Ssh, folder: Path, **options: object) -> SlurmBackend:
    settings = SlurmSettings(
        prefix=ssh.prefix,
        folder=str(folder),
        launch=(sys.executable,),
        environment=slurm.environment,
        hardware={"debug": SlurmHardware(partition="debug", usd_per_hour=36.0)},
    )
    return SlurmBackend(settings=settings, **options)  # type: ignore[arg-type]


def lab_of(backend: SlurmBackend, workspace: Workspace, ledger: Ledger, clock: FakeClock | None = None) -> RemoteLab:
    return RemoteLab(workspace, ledger, clock or SystemClock(wait_scale=0.05), backend)


async def ended(backend: SlurmBackend, handle: JobHandle) -> BackendStatus:
    with anyio.fail_after(60):
        while (status := await backend.status(handle)).state not in FINAL:
            await anyio.sleep(0.1)
    return status


async def logged(backend: SlurmBackend, handle: JobHandle, text: bytes) -> bytes:
    with anyio.fail_after(30):
        while text not in (data := (await backend.logs(handle, None)).data):
            await anyio.sleep(0.1)
    return data


def numbers_of(slurm: Slurm, job_id: str) -> list[str]:
    return slurm.run("squeue", "-h", "--states=all", f"--name={job_id}", "-o", "%A").split()


async def test_a_job_brings_its_results_home_through_ssh(
    slurm: Slurm, ssh: Ssh, workspace: Workspace, ledger: Ledger, tmp_path: Path
) -> None:
    lab = lab_of(backend_of(slurm, ssh, tmp_path / "scratch"), workspace, ledger)
    job_id = await lab.start(SCRIPT, timeout="10m", run_name=tmp_path.name)
    status = await lab.end_of(job_id)
    assert (status.state, status.metrics, len(status.evaluations)) == ("succeeded", {"loss": 0.5}, 1)
    assert "the first line" in lab.log(job_id)
    assert 0 < status.usd_so_far < 1.0, "36 dollars an hour for some seconds"
    assert (tmp_path / "scratch" / job_id / "output").is_dir()


async def test_a_job_is_followed_and_cancelled_through_ssh(slurm: Slurm, ssh: Ssh, tmp_path: Path) -> None:
    backend = backend_of(slurm, ssh, tmp_path / "scratch")
    handle = await backend.submit(submission(tmp_path, WAITS, hardware="debug", run_name=tmp_path.name))
    assert await logged(backend, handle, b"ready") == b"ready\n"
    assert (await backend.status(handle)).state == "running"
    await backend.cancel(handle, reason="enough")
    assert (await ended(backend, handle)).state == "cancelled"
    await backend.cancel(handle, reason="again")  # harmless


async def test_whatever_stands_in_arguments_environment_secrets_and_paths_arrives_unchanged(
    slurm: Slurm, ssh: Ssh, tmp_path: Path
) -> None:
    odd = (
        "",
        " two  words ",
        'it\'s "$HOME" `id` $(id)',
        "a\nb\r\n\tc\\n\\",
        "*?[a] ~ ; & | > !x #",
        "ünï 雪 🦜",
        "%j'\r",
    )
    scratch = tmp_path / 'it\'s 100%j of $HOME "ü" here'
    backend = backend_of(slurm, ssh, scratch)
    script = (
        "import json, os, sys\n"
        "keep = {k: v for k, v in os.environ.items() if k.startswith(('ODD', 'SECRET'))}\n"
        "json.dump([sys.argv[1:], keep], open(os.environ['MLINTERN_OUTPUT_DIR'] + '/seen.json', 'w'))\n"
    )
    environment = {f"ODD{number}": text for number, text in enumerate(odd)}
    secrets = {f"SECRET{number}": f"{text}\n" for number, text in enumerate(odd)}
    job = submission(
        tmp_path, script, hardware="debug", run_name=tmp_path.name, args=odd, env=environment, secrets=secrets
    )
    handle = await backend.submit(job)
    status = await ended(backend, handle)
    assert (status.state, status.error) == ("succeeded", None)
    arguments, seen = json.loads((scratch / job.job_id / "output" / "seen.json").read_text())
    assert arguments == list(odd)
    assert seen == environment | secrets
    assert (await backend.logs(handle, None)).data == b""


async def test_what_a_login_prints_by_itself_is_taken_for_no_answer(slurm: Slurm, ssh: Ssh, tmp_path: Path) -> None:
    (ssh.home / ".bashrc").write_text("echo Welcome to login1; echo 4711; echo >&2 mind the quota\n")
    backend = backend_of(slurm, ssh, tmp_path / "scratch")
    assert [hardware.name for hardware in await backend.hardware()] == ["debug"]
    assert (await backend.examine()).startswith("slurm")
    job = submission(tmp_path, "print('ready')", hardware="debug", run_name=tmp_path.name)
    assert await backend.find(job.job_id) is None
    handle = await backend.submit(job)
    assert await backend.find(job.job_id) == handle
    assert (await ended(backend, handle)).state == "succeeded"
    assert await logged(backend, handle, b"ready") == b"ready\n"


async def test_a_secret_is_in_no_process_list_and_in_no_file_of_the_job(
    slurm: Slurm, ssh: Ssh, tmp_path: Path
) -> None:
    secret = "hf_" + "s" * 34
    backend = backend_of(slurm, ssh, tmp_path / "scratch")
    script = "import os; print(len(os.environ['HF_TOKEN']), flush=True)"
    with command_lines_seen() as seen:
        handle = await backend.submit(
            submission(tmp_path, script, hardware="debug", run_name=tmp_path.name, secrets={"HF_TOKEN": secret})
        )
        assert (await ended(backend, handle)).state == "succeeded"
    assert (await backend.logs(handle, None)).data == b"37\n"
    assert any("sbatch\0--parsable" in line for line in seen), "the watch was quick enough to see it at all"
    assert not any(secret in line for line in seen)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "batch.sh" for path in written)
    assert not any(secret.encode() in path.read_bytes() for path in written)


async def test_half_a_script_is_not_submitted(slurm: Slurm, ssh: Ssh, tmp_path: Path) -> None:
    backend = backend_of(slurm, ssh, tmp_path / "scratch")
    job = submission(tmp_path, "print('ran')", hardware="debug", run_name=tmp_path.name)
    # sshd dies while the script is on its way; what was started over there lives on and sees the end of its input.
    ssh.at_login('head -c 700 | sh -c "$SSH_ORIGINAL_COMMAND" 2>>$HOME/complaint; kill -9 $PPID')
    with pytest.raises(Offline):
        await backend.submit(job)
    ssh.at_login(None)
    assert "Half the script came" in (ssh.home / "complaint").read_text()
    assert await backend.find(job.job_id) is None


async def test_a_submission_whose_answer_was_cut_off_is_found_and_runs_once(
    slurm: Slurm, ssh: Ssh, workspace: Workspace, ledger: Ledger, tmp_path: Path
) -> None:
    lab = lab_of(backend_of(slurm, ssh, tmp_path / "scratch"), workspace, ledger)
    ssh.at_login(THEN_CUT)
    job_id = await lab.start("print('ran')", timeout="10m", run_name=tmp_path.name)
    assert (await lab.jobs.poll(job_id)).state == "queued", "neither lost nor failed while nobody can be asked"
    ssh.at_login(None)
    assert (await lab.end_of(job_id)).state == "succeeded"
    assert len(numbers_of(slurm, job_id)) == 1
    assert lab.log(job_id) == "ran\n"


async def test_a_key_refused_while_a_submission_is_looked_up_does_not_fail_the_job(
    slurm: Slurm, ssh: Ssh, workspace: Workspace, ledger: Ledger, tmp_path: Path
) -> None:
    lab = lab_of(backend_of(slurm, ssh, tmp_path / "scratch"), workspace, ledger)
    ssh.at_login(THEN_CUT)
    job_id = await lab.start("print('ran')", timeout="10m", run_name=tmp_path.name)
    ssh.refuse_the_key()
    status = await lab.jobs.poll(job_id)
    assert status.state == "queued" and "Permission denied" in status.detail
    ssh.at_login(None)
    assert (await lab.end_of(job_id)).state == "succeeded"


@pytest.mark.parametrize("cut", [THEN_CUT, 'sh -c "$SSH_ORIGINAL_COMMAND" | head -c 40; kill -9 $PPID'])
async def test_a_connection_cut_in_an_answer_loses_no_job_and_no_line(
    slurm: Slurm, ssh: Ssh, workspace: Workspace, ledger: Ledger, tmp_path: Path, cut: str
) -> None:
    backend = backend_of(slurm, ssh, tmp_path / "scratch")
    lab = lab_of(backend, workspace, ledger)
    job_id = await lab.start("print('\\n'.join(map(str, range(1000))))", timeout="10m", run_name=tmp_path.name)
    handle = JobHandle("slurm", *numbers_of(slurm, job_id), {"folder": str(tmp_path / "scratch" / job_id)})
    await ended(backend, handle)
    ssh.at_login(cut)
    for ask in (backend.status(handle), backend.logs(handle, None), backend.find(job_id)):
        with pytest.raises(Offline, match="connection of ssh"):
            await ask
    status = await lab.jobs.poll(job_id)
    assert status.state in ("queued", "running") and "could not be brought up to date" in status.detail
    ssh.at_login(None)
    assert (await lab.end_of(job_id)).state == "succeeded"
    assert lab.log(job_id) == "".join(f"{number}\n" for number in range(1000))


async def test_a_login_node_that_is_down_or_hangs_is_offline_in_bounded_time(
    slurm: Slurm, ssh: Ssh, tmp_path: Path
) -> None:
    patient = backend_of(slurm, ssh, tmp_path / "scratch")
    backend = backend_of(slurm, ssh, tmp_path / "scratch", command_seconds=2.0)
    handle = await patient.submit(submission(tmp_path, WAITS, hardware="debug", run_name=tmp_path.name))
    ssh.at_login("kill -STOP $PPID; sleep 100")
    with anyio.fail_after(60):
        with pytest.raises(Offline, match=r"No answer came from ssh .* in 2 s"):
            await backend.status(handle)
        ssh.stop()
        with pytest.raises(Offline, match="Connection refused"):
            await backend.status(handle)
        with pytest.raises(Offline, match="Connection refused"):
            await backend.cancel(handle, reason="")
    ssh.start()
    ssh.at_login(None)
    assert (await patient.status(handle)).state in ("queued", "running")
    await backend.cancel(handle, reason="")
    assert (await ended(backend, handle)).state == "cancelled"


@pytest.mark.parametrize(
    ("change", "words", "advice"),
    [
        (Ssh.change_host_key, "Host key verification failed", "ssh-keygen -R"),
        (Ssh.refuse_the_key, "Permission denied (publickey)", "ssh-copy-id"),
    ],
)
async def test_a_login_that_is_refused_is_named_with_what_to_do_and_loses_nothing(
    slurm: Slurm,
    ssh: Ssh,
    workspace: Workspace,
    ledger: Ledger,
    tmp_path: Path,
    change: object,
    words: str,
    advice: str,
) -> None:
    backend = backend_of(slurm, ssh, tmp_path / "scratch")
    lab = lab_of(backend, workspace, ledger)
    job_id = await lab.start(WAITS, timeout="10m", run_name=tmp_path.name)
    change(ssh)  # type: ignore[operator]
    for ask in (backend.examine(), lab.start("print(2)", timeout="10m", run_name=tmp_path.name)):
        with pytest.raises(Blocked) as refused:
            await ask
        assert words in refused.value.message and advice in refused.value.next_step
        assert f"ssh -F {ssh.folder}/client login true" in refused.value.next_step
    status = await lab.jobs.poll(job_id)
    assert status.state in ("queued", "running") and words in status.detail
    assert len((await lab.jobs.list()).items) == 1, "the refused one left nothing behind"
    assert len(numbers_of(slurm, job_id)) == 1


async def test_a_shared_connection_is_used_again_and_its_end_is_survived(
    slurm: Slurm, ssh: Ssh, tmp_path: Path
) -> None:
    control = Path("/tmp") / f"mlintern-{os.getpid()}.control"  # a socket's path has at most 107 bytes
    ssh.configure_client("ControlMaster auto", f"ControlPath {control}", "ControlPersist 60")
    backend = backend_of(slurm, ssh, tmp_path / "scratch")
    handle = await backend.submit(submission(tmp_path, "print('ready')", hardware="debug", run_name=tmp_path.name))
    assert control.exists()
    assert (await ended(backend, handle)).state == "succeeded"
    assert (ssh.folder / "sshd.log").read_text().count("Accepted publickey") == 1
    ssh.stop()
    with pytest.raises(Offline):
        await backend.status(handle)
    ssh.start()
    assert (await backend.logs(handle, None)).data == b"ready\n"


async def test_a_cluster_without_slurms_commands_says_so(ssh: Ssh, tmp_path: Path) -> None:
    settings = SlurmSettings(prefix=ssh.prefix, folder=str(tmp_path), environment={"PATH": str(tmp_path)})
    with pytest.raises(BackendError, match="not found on ssh") as refused:
        await SlurmBackend(settings=settings).examine()
    assert "Install Slurm's client commands there" in refused.value.next_step


@contextmanager
def command_lines_seen() -> Iterator[set[str]]:
    """Every command line that any process of this machine has while the block runs, looked at without a pause."""
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    try:
                        seen.add((entry / "cmdline").read_text(errors="replace"))
                    except (FileNotFoundError, ProcessLookupError):
                        continue

    watch = threading.Thread(target=look)
    watch.start()
    try:
        yield seen
    finally:
        over.set()
        watch.join()
