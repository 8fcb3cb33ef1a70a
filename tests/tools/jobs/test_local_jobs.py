"""Jobs on this machine, with real processes: how they run, end, queue, and survive."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlintern.tools.errors import BackendError, BadInput, Conflict, NotFound, WorkspaceError
from mlintern.tools.jobs.backends.local import process_table
from mlintern.tools.jobs.local_hardware import Gpu, Machine
from mlintern.tools.workspace import Workspace
from tests.tools.jobs.local_lab import LocalLab, alive, eventually, true_eventually

pytestmark = pytest.mark.anyio

SLEEP = "import time\nprint('up', flush=True)\ntime.sleep(600)\n"
TREE = """
import subprocess, sys, time
code = "import time; time.sleep(600)"
pids = [subprocess.Popen([sys.executable, "-c", code]).pid,
        subprocess.Popen([sys.executable, "-c", code], start_new_session=True).pid]
daemon = subprocess.run(["sh", "-c", f"setsid {sys.executable} -c '{code}' >/dev/null 2>&1 & echo $!"],
                        capture_output=True, text=True).stdout
print(*pids, daemon.strip(), flush=True)
time.sleep(600)
"""
STUBBORN = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)\n"
)


@pytest.fixture
def lab(workspace: Workspace) -> LocalLab:
    return LocalLab(workspace)


async def test_a_script_that_ends_well_has_succeeded_with_what_it_used(lab: LocalLab) -> None:
    status = await lab.end_of(await lab.start("print(sum(range(10**6)))"))
    assert (status.state, status.exit_code, status.error) == ("succeeded", 0, None)
    assert status.resources["wall_seconds"] > 0
    assert status.resources["cpu_seconds"] > 0
    assert status.resources["peak_rss_bytes"] > 4 * 2**20
    assert lab.log(status.job_id) == "499999500000\n"


async def test_a_dataset_that_a_script_leaves_is_named(lab: LocalLab) -> None:
    code = "import os, pathlib\n(pathlib.Path(os.environ['MLINTERN_OUTPUT_DIR']) / 'dataset').mkdir()\n"
    status = await lab.end_of(await lab.start(code))
    assert status.artifacts["dataset"] == f"{status.artifacts['output']}/dataset"


async def test_a_model_that_nothing_has_measured_is_to_be_measured_next(lab: LocalLab) -> None:
    code = "import os, pathlib\n(pathlib.Path(os.environ['MLINTERN_OUTPUT_DIR']) / 'model').mkdir()\n"
    status = await lab.end_of(await lab.start(code))
    assert f'render_script(recipe={{"trainer": "evaluation", "model": "{status.job_id}"' in (status.next_step or "")


async def test_a_script_that_raises_has_failed_and_the_error_names_the_exception(lab: LocalLab) -> None:
    status = await lab.end_of(await lab.start("raise ValueError('no such column: text')"))
    assert (status.state, status.exit_code) == ("failed", 1)
    assert status.error is not None and status.error.startswith("ValueError: no such column: text")
    assert "Traceback" in status.log_tail


async def test_a_script_killed_by_a_signal_has_failed_not_succeeded(lab: LocalLab) -> None:
    status = await lab.end_of(await lab.start("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))
    assert (status.state, status.exit_code) == ("failed", 137)
    assert status.error is not None and "SIGKILL" in status.error


async def test_a_running_job_is_never_reported_as_done(lab: LocalLab) -> None:
    job_id = await lab.start(SLEEP)
    await lab.running(job_id)
    status = await lab.jobs.poll(job_id)
    assert (status.state, status.exit_code) == ("running", None)
    await lab.jobs.cancel(job_id)


async def test_the_timeout_ends_the_whole_tree_of_processes(lab: LocalLab) -> None:
    job_id = await lab.start(TREE, timeout="2s")
    await lab.running(job_id)
    pids = [int(word) for word in lab.log(job_id).split()]
    assert len(pids) == 3 and all(alive(pid) for pid in pids)
    status = await lab.end_of(job_id)
    assert status.state == "timed_out"
    assert not any(alive(pid) for pid in pids)


async def test_cancelling_ends_children_and_grandchildren_in_other_sessions(lab: LocalLab) -> None:
    job_id = await lab.start(TREE)
    await lab.running(job_id)
    pids = [int(word) for word in lab.log(job_id).split()]
    status = await lab.jobs.cancel(job_id, reason="wrong dataset")
    assert (status.state, status.error) == ("cancelled", "wrong dataset")
    assert not any(alive(pid) for pid in pids)


async def test_a_script_that_ignores_term_is_killed_after_the_grace(lab: LocalLab) -> None:
    job_id = await lab.start(STUBBORN)
    state = await lab.running(job_id)
    assert (await lab.jobs.cancel(job_id)).state == "cancelled"
    assert not alive(state["pid"])


async def test_a_script_that_does_not_ignore_term_ends_by_it_long_before_the_grace_is_over(
    workspace: Workspace,
) -> None:
    lab = LocalLab(workspace, backend_options={"grace_seconds": 60.0})
    job_id = await lab.start(SLEEP)
    await lab.running(job_id)
    status = await lab.jobs.cancel(job_id)
    assert (status.state, status.exit_code) == ("cancelled", 128 + signal.SIGTERM)


async def test_a_script_inherits_no_lock_of_its_supervisor(lab: LocalLab) -> None:
    text = (
        "import os\n"
        "paths = [f'/proc/self/fd/{number}' for number in range(3, 64)]\n"
        "print([os.readlink(path) for path in paths if os.path.exists(path)])"
    )
    status = await lab.end_of(await lab.start(text))
    assert lab.log(status.job_id) == "[]\n"


async def test_a_background_process_does_not_outlive_its_job(lab: LocalLab) -> None:
    text = "import subprocess; print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid, flush=True)"
    status = await lab.end_of(await lab.start(text))
    assert status.state == "succeeded"
    assert not alive(int(lab.log(status.job_id)))


async def test_jobs_run_one_at_a_time_in_the_order_of_submission(lab: LocalLab, tmp_path: Path) -> None:
    track = tmp_path / "track"
    text = (
        f"import sys, time\nfor word in 'in', 'out':\n"
        f"  open({str(track)!r}, 'a').write(f'{{word}} {{sys.argv[1]}}\\n')\n  time.sleep(.05)"
    )
    ids = [await lab.start(text, args=[str(number)]) for number in range(5)]
    for job_id in ids:
        assert (await lab.end_of(job_id)).state == "succeeded"
    assert track.read_text().split() == [word for n in "01234" for word in ("in", n, "out", n)]


async def test_two_slots_run_two_jobs_at_once_and_share_the_cores(workspace: Workspace) -> None:
    machine = Machine(cores=(0, 1), memory_gib=8)
    lab = LocalLab(workspace, backend_options={"slots": 2, "machine": machine})
    text = "import os, sys, time; print(os.environ['OMP_NUM_THREADS'], flush=True); time.sleep(600)"
    first, second = [await lab.start(text, args=[str(number)]) for number in range(2)]
    for job_id in (first, second):
        await lab.running(job_id)
        assert lab.log(job_id) == "1\n"
    for job_id in (first, second):
        assert (await lab.jobs.cancel(job_id)).state == "cancelled"


async def test_gpu_jobs_get_devices_of_their_own_and_cpu_jobs_none(workspace: Workspace) -> None:
    gpus = tuple(Gpu(device=str(index), model="H200", memory_gib=140) for index in range(3))
    lab = LocalLab(workspace, backend_options={"machine": Machine((0, 1), 8, gpus)})
    text = "import os, time; print('[' + os.environ['CUDA_VISIBLE_DEVICES'] + ']', flush=True); time.sleep(600)"
    names = ["gpux2", "gpu", "cpu"]
    ids = [await lab.start(text, hardware=name) for name in names]
    for job_id in ids:
        await lab.running(job_id)
    assert [lab.log(job_id).strip() for job_id in ids] == ["[0,1]", "[2]", "[]"]
    waiting = await lab.start(text, hardware="gpu", run_name="fourth")
    await eventually(lambda: lab.jobs.poll(waiting), lambda status: status.detail == "next in the queue")
    for job_id in (waiting, *ids):
        assert (await lab.jobs.cancel(job_id)).state == "cancelled"


async def test_servers_that_see_other_gpus_never_give_one_to_two_jobs(workspace: Workspace) -> None:
    def server(*devices: str) -> LocalLab:
        gpus = tuple(Gpu(device=device, model="H200", memory_gib=140) for device in devices)
        return LocalLab(workspace, backend_options={"machine": Machine((0, 1), 8, gpus)})

    both, second_only = server("0", "1"), server("1")
    text = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep(600)"
    first = await second_only.start(text, hardware="gpu")
    await second_only.running(first)
    second = await both.start(text, hardware="gpu", run_name="second")
    await both.running(second)
    assert (both.log(first), both.log(second)) == ("1\n", "0\n")
    third = await second_only.start(text, hardware="gpu", run_name="third")
    await eventually(lambda: both.jobs.poll(third), lambda status: status.detail == "next in the queue")
    for job_id in (third, second, first):
        assert (await both.jobs.cancel(job_id)).state == "cancelled"


async def test_a_job_for_more_gpus_than_a_server_sees_does_not_hold_up_the_queue(workspace: Workspace) -> None:
    gpus = tuple(Gpu(device=str(index), model="H200", memory_gib=140) for index in range(2))
    lab = LocalLab(workspace, backend_options={"machine": Machine((0, 1), 8, gpus)})
    spec = await lab.plan("print(1)", hardware="gpux2")
    lab.backend_options = {"machine": Machine((0, 1), 8, gpus[:1])}
    restarted = lab.another_server()
    with pytest.raises(BackendError, match="sees 1 GPU"):
        await restarted.jobs.submit(spec)
    assert (await restarted.end_of(await restarted.start("print(1)", hardware="gpu"))).state == "succeeded"


async def test_a_training_script_runs_once_on_each_of_its_gpus_and_an_evaluation_once(workspace: Workspace) -> None:
    gpus = tuple(Gpu(device=str(index), model="H200", memory_gib=140) for index in range(2))
    lab = LocalLab(workspace, backend_options={"machine": Machine((0, 1), 8, gpus)})
    text = """
import os
ranks = [os.environ.get(name, "-") for name in ("RANK", "WORLD_SIZE", "CUDA_VISIBLE_DEVICES")]
os.write(1, ("ran " + " ".join(ranks) + chr(10)).encode())
"""
    for trainer, ran in (("sft", ["ran 0 2 0,1", "ran 1 2 0,1"]), ("evaluation", ["ran - - 0,1"])):
        script_id = lab.scripts.add(f"# {trainer}\n{text}", recipe={"trainer": trainer})
        spec = await lab.jobs.planner.plan(script_id=script_id, hardware="gpux2", timeout="1m")
        await lab.jobs.submit(spec)
        assert (await lab.end_of(spec.job_id)).state == "succeeded"
        assert sorted(line for line in lab.log(spec.job_id).splitlines() if line.startswith("ran")) == ran


async def test_slices_of_gpus_are_given_one_to_a_job(workspace: Workspace) -> None:
    gpus = tuple(Gpu(device=f"MIG-{index}/7/0", model="H200 MIG 1g.18gb", memory_gib=18) for index in range(2))
    lab = LocalLab(workspace, backend_options={"machine": Machine((0, 1), 8, gpus)})
    assert [item.name for item in await lab.backend.hardware()] == ["gpu", "cpu"]
    job_id = await lab.start("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])", hardware="gpu")
    assert (await lab.end_of(job_id)).state == "succeeded" and lab.log(job_id) == "MIG-0/7/0\n"


async def test_what_else_lies_in_the_queue_folder_holds_nobody_up(lab: LocalLab) -> None:
    assert (await lab.end_of(await lab.start("print(1)"))).state == "succeeded"
    [queue] = [path for path in lab.workspace.root.rglob("*") if (path / ".order").exists()]
    (queue / "notes.txt").write_text("not a ticket")
    assert (await lab.end_of(await lab.start("print(2)"))).state == "succeeded"
    assert (queue / "notes.txt").exists()


async def test_a_queued_job_is_cancelled_without_running(lab: LocalLab, tmp_path: Path) -> None:
    first = await lab.start(SLEEP)
    await lab.running(first)
    trace = tmp_path / "ran"
    second = await lab.start(f"open({str(trace)!r}, 'w')")
    status = await lab.jobs.poll(second)
    assert (status.state, status.detail) == ("queued", "next in the queue")
    assert (await lab.jobs.cancel(second)).state == "cancelled"
    assert (await lab.jobs.cancel(first)).state == "cancelled"
    assert not trace.exists()


async def test_a_job_outlives_the_server_that_submitted_it(lab: LocalLab) -> None:
    """The server is a real process that is killed as soon as the job is on its way."""
    spec = await lab.plan("import time; print('up', flush=True); time.sleep(1); print('done')")
    server = (
        "import anyio, os, signal, sys\n"
        "from pathlib import Path\n"
        "from mlintern.tools.workspace import Workspace\n"
        "from mlintern.tools.jobs.spec import JobSpec\n"
        "from tests.tools.jobs.local_lab import LocalLab\n"
        "import json\n"
        "lab = LocalLab(Workspace.open(sys.argv[1]))\n"
        "lab.scripts.add(sys.argv[3])\n"
        "async def main():\n"
        "    await lab.jobs.submit(JobSpec.from_json(json.loads(sys.argv[2])))\n"
        "    os.killpg(0, signal.SIGKILL)\n"
        "anyio.run(main)\n"
    )
    import json

    text = lab.scripts.get(spec.script_id).text
    command = [sys.executable, "-c", server, str(lab.workspace.root), json.dumps(spec.to_json()), text]
    code = subprocess.run(command, start_new_session=True, check=False, timeout=60).returncode
    assert code == -signal.SIGKILL
    status = await lab.end_of(spec.job_id)
    assert status.state == "succeeded"
    assert lab.log(spec.job_id) == "up\ndone\n"


async def test_a_job_whose_supervisor_is_killed_is_lost_and_its_script_ends(lab: LocalLab) -> None:
    job_id = await lab.start(TREE)
    state = await lab.running(job_id)
    pids = [state["pid"], *map(int, lab.log(job_id).split())]
    os.kill(state["supervisor"], signal.SIGKILL)
    status = await lab.end_of(job_id)
    assert status.state == "lost"
    assert status.error is not None and "supervisor" in status.error
    assert status.log_tail, "its log is still shown"
    assert not any(alive(pid) for pid in pids)


async def test_the_next_job_clears_the_slot_of_an_orphan_without_any_server(lab: LocalLab) -> None:
    first = await lab.start(TREE)
    state = await lab.running(first)
    second = await lab.start("print('mine')")
    os.kill(state["supervisor"], signal.SIGKILL)
    await true_eventually(lambda: lab.folder(second).read("exit") is not None)
    pids = [int(word) for word in lab.log(first).split()]
    assert not any(alive(pid) for pid in pids)
    assert (lab.folder(first).read("exit") or {})["state"] == "lost"


async def test_a_queued_job_whose_supervisor_is_killed_is_started_again_and_runs_once(lab: LocalLab) -> None:
    first = await lab.start(SLEEP)
    await lab.running(first)
    second = await lab.start("print('ran')")
    folder = lab.folder(second)
    await true_eventually(lambda: (folder.read("state") or {}).get("phase") == "queued")
    os.kill((folder.read("state") or {})["supervisor"], signal.SIGKILL)
    await true_eventually(lambda: not folder.supervised())
    assert (await lab.jobs.poll(second)).state == "queued"
    await lab.jobs.cancel(first)
    assert (await lab.end_of(second)).state == "succeeded"
    assert lab.log(second) == "ran\n"
    assert (folder.read("state") or {})["launches"] == 2


async def test_a_pid_that_was_given_to_someone_else_is_not_killed(lab: LocalLab) -> None:
    """The record of a lost job names the pid of a process that is not the job's: the start time does not fit."""
    job_id = await lab.start(SLEEP)
    state = await lab.running(job_id)
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        os.kill(state["supervisor"], signal.SIGKILL)
        await true_eventually(lambda: not lab.folder(job_id).supervised() and not alive(state["pid"]))
        lab.folder(job_id).write("state", {**state, "pid": bystander.pid})
        assert (await lab.end_of(job_id)).state == "lost"
        assert alive(bystander.pid)
    finally:
        bystander.kill()
        bystander.wait()


async def test_a_session_without_its_leader_is_ended_but_not_on_a_record_of_before_a_reboot() -> None:
    """The leader is gone and a child keeps its session: only the run of the machine tells whose session it is."""
    spawn = "import subprocess; print(subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL).pid)"
    leader = subprocess.Popen(
        [sys.executable, "-c", spawn], start_new_session=True, stdout=subprocess.PIPE, text=True
    )
    child = int(leader.communicate(timeout=30)[0])
    try:
        earlier = process_table.kill_orphans(mark="NOTHING=1", leader=leader.pid, started="earlier:123")
        assert earlier == 0 and alive(child)
        started = f"{process_table.boot_id()}:123"
        assert process_table.kill_orphans(mark="NOTHING=1", leader=leader.pid, started=started) == 1
        assert not alive(child)
    finally:
        if alive(child):
            os.kill(child, signal.SIGKILL)


async def test_no_secret_of_the_server_reaches_a_job_unless_named(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_fromTheLoginFileaaaaaaaaaaaaaa")
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path),
        "HF_TOKEN": "hf_serverTokenaaaaaaaaaaaaaaaaaaa",
        "ANTHROPIC_API_KEY": "sk-ant-api03-aaaaaaaaaaaaaaaa",
        "MLINTERN_HOME": "x",
        "HTTPS_PROXY": "http://user:secret99@proxy:3128",
        "UV_PUBLISH_TOKEN": "pypi-abcdefgh",
    }
    lab = LocalLab(workspace, environ=environ)
    text = "import json, os; print(json.dumps(dict(os.environ)))"
    plain = await lab.end_of(await lab.start(text))
    assert plain.state == "succeeded"
    seen = lab.log(plain.job_id)
    for value in ("serverToken", "sk-ant", "secret99", "pypi-", "fromTheLogin"):
        assert value not in seen
    assert '"HF_TOKEN_PATH": "/dev/null"' in seen and '"HF_HOME"' in seen

    named = await lab.end_of(await lab.start(text, secrets=["HF_TOKEN"]))
    assert '"HF_TOKEN": "hf_serverToken' in lab.log(named.job_id)
    kept = [path for path in lab.folder(named.job_id).path.iterdir() if path.suffix == ".json"]
    assert kept and not any("serverToken" in path.read_text() for path in kept)
    assert "serverToken" not in (await lab.jobs.read_logs(named.job_id)).text


async def test_the_memory_limit_ends_a_job_that_passes_it(workspace: Workspace) -> None:
    lab = LocalLab(workspace, backend_options={"memory_limit_gib": 0.1})
    status = await lab.end_of(await lab.start("import time\nx = bytearray(300 << 20)\ntime.sleep(600)"))
    assert status.state == "failed"
    assert status.error is not None and "memory limit" in status.error


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores are confined on Linux only")
async def test_a_job_may_be_confined_to_some_cores(workspace: Workspace) -> None:
    lab = LocalLab(workspace, backend_options={"cpus": 1})
    status = await lab.end_of(await lab.start("import os; print(len(os.sched_getaffinity(0)))"))
    assert lab.log(status.job_id) == "1\n"


async def test_a_script_whose_file_was_changed_after_planning_is_refused(lab: LocalLab) -> None:
    spec = await lab.plan("print('agreed')")
    changed = lab.scripts.get(spec.script_id)
    lab.scripts.kept[spec.script_id] = type(changed)("print('something else')")
    with pytest.raises(Conflict, match="changed"):
        await lab.jobs.submit(spec)
    with pytest.raises(NotFound):
        await lab.jobs.poll(spec.job_id)


async def test_a_job_that_cannot_be_started_leaves_no_record_and_may_be_tried_again(lab: LocalLab) -> None:
    spec = await lab.plan("print(1)")
    blocker = lab.workspace.folder("local") / "queue-cpu"
    blocker.write_text("a file where a folder should be")
    with pytest.raises(WorkspaceError):
        await lab.jobs.submit(spec)
    assert (await lab.jobs.list()).total == 0
    blocker.unlink()
    assert (await lab.jobs.submit(spec)).status == "submitted"
    assert (await lab.end_of(spec.job_id)).state == "succeeded"


async def test_cancelling_a_job_that_is_over_is_a_conflict(lab: LocalLab) -> None:
    status = await lab.end_of(await lab.start("print(1)"))
    with pytest.raises(Conflict, match="succeeded"):
        await lab.jobs.cancel(status.job_id)


async def test_unknown_hardware_and_backends_are_refused_with_the_nearest_name(lab: LocalLab) -> None:
    with pytest.raises(BadInput, match="'cpu'"):
        await lab.plan("print(1)", hardware="cpus")
    with pytest.raises(BadInput, match="'local'"):
        await lab.plan("print(1)", backend="locale")


async def test_a_supervisor_stays_small(lab: LocalLab) -> None:
    job_id = await lab.start(SLEEP)
    state = await lab.running(job_id)
    kibibytes = Path(f"/proc/{state['supervisor']}/status").read_text().split("VmRSS:")[1].split()[0]
    await lab.jobs.cancel(job_id)
    assert int(kibibytes) < 15 * 1024


async def test_a_full_disk_while_a_job_runs_does_not_lose_its_ending(tmp_path: Path) -> None:
    """A workspace on a small file system that the script fills to the last block."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(mount)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("no right to mount a small file system")
    try:
        lab = LocalLab(Workspace.open(mount / "home"))
        text = "f = open('big', 'wb', buffering=0)\nwhile True: f.write(bytes(4096))"
        spec = await lab.plan(text)
        await lab.jobs.submit(spec)
        await true_eventually(lambda: lab.folder(spec.job_id).read("exit") is not None)
        record = lab.folder(spec.job_id).read("exit") or {}
        assert (record["state"], record["exit_code"]) == ("failed", 1)
        (lab.folder(spec.job_id).work / "big").unlink()
        status = await lab.end_of(spec.job_id)
        assert status.state == "failed"
        lab.ledger.close()
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False)


async def test_a_job_that_fills_the_disk_can_be_cancelled(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(mount)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("no right to mount a small file system")
    try:
        lab = LocalLab(Workspace.open(mount / "home"))
        text = """
import time
with open("big", "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
    open("full", "wb").close()
    time.sleep(600)
"""
        job_id = await lab.start(text, timeout="5m")
        await true_eventually(lambda: (lab.folder(job_id).work / "full").exists())
        with contextlib.suppress(WorkspaceError):  # the ledger has no room either
            await lab.jobs.cancel(job_id, reason="It fills the disk.")
        await true_eventually(lambda: lab.folder(job_id).read("exit") is not None)
        assert (lab.folder(job_id).read("exit") or {})["state"] == "cancelled"
        (lab.folder(job_id).work / "big").unlink()
        status = await lab.end_of(job_id)
        assert (status.state, status.error) == ("cancelled", "It fills the disk.")
        lab.ledger.close()
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False)


async def test_a_full_disk_at_submission_is_named_and_nothing_runs(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(mount)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("no right to mount a small file system")
    try:
        lab = LocalLab(Workspace.open(mount / "home"))
        spec = await lab.plan("print('ran')")
        filler = mount / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError):
            while True:
                file.write(bytes(1 << 12))
        with pytest.raises(WorkspaceError, match="full"):
            await lab.jobs.submit(spec)
        assert not lab.folder(spec.job_id).log.exists()
        filler.unlink()
        assert (await lab.jobs.submit(spec)).status == "submitted"
        assert (await lab.end_of(spec.job_id)).state == "succeeded"
        lab.ledger.close()
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False)


async def test_the_time_a_job_runs_does_not_follow_the_wall_clock(lab: LocalLab) -> None:
    job_id = await lab.start(SLEEP)
    state = await lab.running(job_id)
    handle = await lab.backend.find(job_id)
    assert handle is not None
    lab.folder(job_id).write("state", {**state, "started_at": time.time() + 86400})
    status = await lab.backend.status(handle)
    assert status.run_seconds is not None and 0 <= status.run_seconds < 30
    await lab.jobs.cancel(job_id)


async def test_a_server_whose_clock_is_days_ahead_does_not_cancel_a_job_that_is_just_ending(lab: LocalLab) -> None:
    """The script is gone and its final record not yet there: nothing can be measured, so nothing is overdue."""
    job_id = await lab.start(SLEEP)
    state = await lab.running(job_id)
    handle = await lab.backend.find(job_id)
    assert handle is not None
    gone = subprocess.Popen(["true"])
    gone.wait()
    lab.folder(job_id).write("state", {**state, "pid": gone.pid, "started_at": time.time() - 3 * 86400})
    assert (await lab.backend.status(handle)).run_seconds is None
    assert (await lab.jobs.poll(job_id)).state == "running"
    assert not (lab.folder(job_id).path / "cancel.json").exists()
    lab.folder(job_id).write("state", state)
    await lab.jobs.cancel(job_id)


async def test_a_disk_that_cannot_be_written_is_named_when_a_job_is_cancelled(lab: LocalLab) -> None:
    job_id = await lab.start(SLEEP)
    await lab.running(job_id)
    obstacle = lab.folder(job_id).path / "cancel.json"
    (obstacle / "inside").mkdir(parents=True)
    handle = await lab.backend.find(job_id)
    assert handle is not None
    with pytest.raises(WorkspaceError, match="disk"):
        await lab.backend.cancel(handle, reason="x")
    (obstacle / "inside").rmdir()
    obstacle.rmdir()
    with contextlib.suppress(Conflict):  # the supervisor may have stumbled over the obstacle and ended the job
        await lab.jobs.cancel(job_id)


async def test_a_script_killed_by_a_signal_without_a_name_is_failed_and_not_lost(lab: LocalLab) -> None:
    status = await lab.end_of(await lab.start("import os; os.kill(os.getpid(), 40)"))
    assert (status.state, status.exit_code) == ("failed", 168) and "killed by signal 40" in str(status.error)


async def test_the_time_a_job_ran_is_told_by_the_clock_that_stands_still_while_the_machine_sleeps(
    lab: LocalLab,
) -> None:
    job_id = await lab.start(SLEEP)
    state = await lab.running(job_id)
    handle = await lab.backend.find(job_id)
    assert handle is not None
    ago = time.monotonic() - 100
    lab.folder(job_id).write("state", {**state, "started_monotonic": ago})
    assert (await lab.backend.status(handle)).run_seconds == pytest.approx(time.monotonic() - ago, abs=50)
    assert (await lab.jobs.cancel(job_id)).state == "cancelled"


async def test_a_secret_that_a_script_reports_as_a_metric_is_not_shown_nor_kept(lab: LocalLab) -> None:
    value = "plain-but-secret-value"
    lab.environ = {**lab.environ, "MY_API_KEY": value}
    lab = lab.another_server()
    text = """if True:
        import json, os
        key, folder = os.environ["MY_API_KEY"], os.environ["MLINTERN_OUTPUT_DIR"]
        rows = [
            {"kind": "metrics", "step": 1, "values": {"note": "with " + key, "loss": 1.0}},
            {"kind": "end", "model_path": "model-" + key},
        ]
        with open(folder + "/metrics.jsonl", "w") as file:
            file.writelines(json.dumps({"v": 1, **row}) + "\\n" for row in rows)
    """
    status = await lab.end_of(await lab.start(text, secrets=["MY_API_KEY"]))
    assert status.metrics == {"note": "with [REDACTED]", "loss": 1.0}
    assert value not in status.model_dump_json()
    with lab.ledger.read() as connection:
        assert value not in "\n".join(connection.iterdump())
