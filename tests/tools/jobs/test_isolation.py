"""What a local job can reach: its own work and what it names, and nothing by which it could answer for the user."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from mlintern.tools.errors import MissingDependency
from mlintern.tools.jobs.backends.local.confinement import Guard
from mlintern.tools.sandbox import bubblewrap, landlock, seatbelt
from mlintern.tools.sandbox.policy import Method, Policy
from mlintern.tools.workspace import Workspace
from tests.tools.jobs.local_lab import LocalLab, eventually

pytestmark = pytest.mark.anyio

METHODS: list[Any] = [
    pytest.param(
        "bubblewrap", marks=pytest.mark.skipif(bubblewrap.program() is None, reason="bwrap does not work here")
    ),
    pytest.param("landlock", marks=pytest.mark.skipif(landlock.version() < 6, reason="the kernel has no Landlock 6")),
]

LOOK = """
import json, os, sys
found = {}
for name, path in json.loads(sys.argv[1]).items():
    try:
        found[name] = sorted(os.listdir(path)) if os.path.isdir(path) else open(path).read()
    except OSError as error:
        found[name] = type(error).__name__
print(json.dumps(found))
"""


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Method:
    chosen: Method = request.param
    return chosen


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with what must not be seen, and with the caches."""
    home = tmp_path / "person"
    for path, text in {
        ".ssh/id_ed25519": "PRIVATE KEY",
        ".cache/huggingface/token": "hf_secret",
        ".cache/huggingface/hub/models--org--name/config.json": "{}",
        ".netrc": "password",
        "notes.txt": "private",
        "data/train.jsonl": '{"text": "1"}\n',
    }.items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(text)
    return home


@pytest.fixture
def lab(tmp_path: Path, home: Path, method: Method) -> LocalLab:
    """The workspace lies in the home folder, as it does by default."""
    workspace = Workspace.open(home / ".mlintern")
    environ = {"PATH": os.environ["PATH"], "HOME": str(home)}
    return LocalLab(workspace, backend_options={"isolation": lambda: method}, environ=environ)


async def seen(lab: LocalLab, paths: dict[str, Path], text: str = LOOK, **arguments: Any) -> dict[str, Any]:
    """What a job gets to read at ``paths``, which it learns in a way that names nothing."""
    hidden = json.dumps({name: str(path) for name, path in paths.items()})
    job_id = await lab.start(text, args=[hidden, *arguments.pop("args", [])], **arguments)
    status = await lab.end_of(job_id)
    assert status.state == "succeeded", (status.error, lab.log(job_id))
    found: dict[str, Any] = json.loads(lab.log(job_id).splitlines()[-1])
    return found


async def test_keys_tokens_and_the_workspace_are_not_there(lab: LocalLab, home: Path) -> None:
    other = await lab.start("print('secret of another job')")
    await lab.end_of(other)
    paths = {
        "key": home / ".ssh" / "id_ed25519",
        "token": home / ".cache" / "huggingface" / "token",
        "netrc": home / ".netrc",
        "notes": home / "notes.txt",
        "ledger": lab.workspace.ledger,
        "log of another": lab.folder(other).log,
        "script of another": lab.folder(other).script,
        "jobs": lab.workspace.root / "jobs" / other,
    }
    found = await seen(lab, paths)
    assert set(found.values()) <= {"FileNotFoundError", "PermissionError"}, found


async def test_the_cache_and_named_data_are_there(lab: LocalLab, home: Path) -> None:
    cached, data = home / ".cache/huggingface/hub/models--org--name/config.json", home / "data" / "train.jsonl"
    found = await seen(lab, {"cached": cached, "data": data}, args=[str(home / "data")])
    assert found == {"cached": "{}", "data": '{"text": "1"}\n'}


async def test_data_that_the_text_of_a_script_names_is_there_and_cannot_be_changed(lab: LocalLab, home: Path) -> None:
    data = home / "data" / "train.jsonl"
    job_id = await lab.start(f"DATASET = {str(data)!r}\nprint(open(DATASET).read())\nopen(DATASET, 'w')")
    status = await lab.end_of(job_id)
    assert status.state == "failed" and '"text"' in lab.log(job_id)
    assert data.read_text() == '{"text": "1"}\n'


PROTECTED = (".ssh", ".ssh/id_ed25519", ".mlintern", ".netrc", "", "..", ".cache/huggingface/token")


@pytest.mark.parametrize("name", PROTECTED)
async def test_naming_what_is_protected_does_not_open_it(lab: LocalLab, home: Path, name: str) -> None:
    path = home / name
    paths = {"it": path, "ledger": lab.workspace.ledger, "key": home / ".ssh/id_ed25519"}
    found = await seen(lab, paths, args=[str(path)])
    assert found["ledger"] in ("FileNotFoundError", "PermissionError")
    assert found["key"] in ("FileNotFoundError", "PermissionError")
    assert "notes.txt" not in found["it"]


async def test_a_link_to_what_is_protected_does_not_open_it(lab: LocalLab, home: Path) -> None:
    (home / "data" / "innocent.txt").symlink_to(home / ".ssh" / "id_ed25519")
    link = home / "data" / "innocent.txt"
    for named in (link, home / "data"):
        assert (await seen(lab, {"it": link}, args=[str(named)], run_name=named.name))["it"] in (
            "FileNotFoundError",
            "PermissionError",
        )


async def test_a_job_reads_the_output_of_another_that_it_names_and_not_its_records(lab: LocalLab) -> None:
    first = await lab.start("import os\nopen(os.environ['MLINTERN_OUTPUT_DIR'] + '/model.bin', 'w').write('weights')")
    await lab.end_of(first)
    output, records = lab.folder(first).output, lab.folder(first).path / "exit.json"
    found = await seen(lab, {"model": output / "model.bin", "records": records}, args=[str(output)])
    assert found["model"] == "weights" and found["records"] in ("FileNotFoundError", "PermissionError")


async def test_a_job_cannot_write_its_own_records(lab: LocalLab) -> None:
    text = """
import os, pathlib
folder = pathlib.Path(os.environ["MLINTERN_OUTPUT_DIR"]).parent
for name in ("exit.json", "state.json", "launch.json", "script.py", "cancel.json"):
    try:
        (folder / name).write_text('{"state": "succeeded"}')
    except OSError as error:
        print(name, type(error).__name__)
os._exit(3)
"""
    job_id = await lab.start(text)
    status = await lab.end_of(job_id)
    assert (status.state, status.exit_code) == ("failed", 3)
    assert lab.folder(job_id).script.read_text() == text


async def test_the_environment_of_other_processes_cannot_be_read(lab: LocalLab) -> None:
    text = f"""
import glob
for path in glob.glob("/proc/[0-9]*/environ") + ["/proc/{os.getpid()}/environ"]:
    try:
        content = open(path, "rb").read()
        print("READ", content) if b"MLINTERN_OF_THE_SERVER" in content else None
    except OSError:
        pass
"""
    os.environ["MLINTERN_OF_THE_SERVER"] = "1"
    try:
        job_id = await lab.start(text)
        await lab.end_of(job_id)
    finally:
        del os.environ["MLINTERN_OF_THE_SERVER"]
    assert "READ" not in lab.log(job_id)


async def test_a_job_cannot_end_its_supervisor_nor_outlive_its_time(lab: LocalLab, tmp_path: Path) -> None:
    text = """
import os, signal, subprocess, sys, time
for pid in range(2, 400000):
    if pid != os.getpid():
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
subprocess.Popen([sys.executable, "-c", "import os, time; os.setsid(); time.sleep(600)"], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    time.sleep(600)
print("started", flush=True)
time.sleep(600)
"""
    job_id = await lab.start(text, timeout="3s")
    status = await lab.end_of(job_id)
    assert status.state == "timed_out", status
    await _none_left(f"MLINTERN_OUTPUT_DIR={lab.folder(job_id).output}")


async def test_what_a_script_left_behind_ends_with_it(lab: LocalLab) -> None:
    text = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(600)\nprint('done')"
    job_id = await lab.start(text)
    assert (await lab.end_of(job_id)).state == "succeeded"
    await _none_left(f"MLINTERN_OUTPUT_DIR={lab.folder(job_id).output}")


async def test_a_cancelled_job_may_clean_up_first(lab: LocalLab) -> None:
    text = """
import os, signal, sys, time
def end(*_):
    open(os.environ["MLINTERN_OUTPUT_DIR"] + "/checkpoint", "w").write("saved")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
while True:
    time.sleep(0.1)
"""
    lab.backend._limits = type(lab.backend._limits)(slots=1, memory_limit_gib=None, cpus=None, grace_seconds=10.0)
    job_id = await lab.start(text)
    await lab.running(job_id)
    await lab.jobs.cancel(job_id)
    assert (await lab.end_of(job_id)).state == "cancelled"
    assert (lab.folder(job_id).output / "checkpoint").read_text() == "saved"


async def test_work_scratch_home_and_shared_memory_can_be_written_and_the_scratch_goes(lab: LocalLab) -> None:
    text = """
import os, pathlib, tempfile
pathlib.Path("here.txt").write_text("x")
tempfile.NamedTemporaryFile(delete=False).write(b"x")
pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")).joinpath("made").mkdir(parents=True)
pathlib.Path(f"/dev/shm/mlintern-{os.getpid()}").write_text("x")
pathlib.Path(f"/dev/shm/mlintern-{os.getpid()}").unlink()
open(os.environ["MLINTERN_OUTPUT_DIR"] + "/kept", "w").write("x")
"""
    job_id = await lab.start(text)
    status = await lab.end_of(job_id)
    assert status.state == "succeeded", lab.log(job_id)
    folder = lab.folder(job_id)
    assert (folder.work / "here.txt").exists() and (folder.output / "kept").exists()
    await eventually(lambda: _later(not folder.scratch.exists()), bool)


async def test_a_death_by_a_signal_is_told_as_one(lab: LocalLab) -> None:
    job_id = await lab.start("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    status = await lab.end_of(job_id)
    assert status.state == "failed" and "SIGSEGV" in (status.error or "") and status.exit_code == 139


async def test_cpu_time_and_memory_are_measured(lab: LocalLab) -> None:
    job_id = await lab.start(
        "import time\nx = bytearray(100 << 20)\nend = time.process_time() + 0.5\n"
        "while time.process_time() < end: pass"
    )
    status = await lab.end_of(job_id)
    assert status.resources["cpu_seconds"] >= 0.5 and status.resources["peak_rss_bytes"] > 100 << 20


async def test_a_script_that_was_changed_while_it_waited_is_not_started(workspace: Workspace) -> None:
    lab = LocalLab(workspace)
    blocker = await lab.start("import time; print('up', flush=True); time.sleep(600)")
    await lab.running(blocker)
    waiting = await lab.start("print('agreed')")
    lab.folder(waiting).script.write_text("print('not agreed')")
    await lab.jobs.cancel(blocker)
    status = await lab.end_of(waiting)
    assert status.state == "failed" and "changed after it was submitted" in (status.error or "")
    assert not lab.folder(waiting).log.exists()


async def test_without_any_isolation_nothing_is_started(workspace: Workspace) -> None:
    def nothing() -> Method:
        raise MissingDependency("Nothing here can isolate a local job.", next_step="Install bubblewrap.")

    lab = LocalLab(workspace, backend_options={"isolation": nothing})
    with pytest.raises(MissingDependency, match="bubblewrap"):
        await lab.start("print(1)")
    assert (await lab.jobs.list()).total == 0


def test_the_profile_of_seatbelt_names_what_may_be_written_and_quotes_it() -> None:
    policy = Policy("seatbelt", ('/data/a "b"',), ("/w/output",), "/w/work", "/w/scratch", "/Users/me", network=False)
    profile = seatbelt.profile(policy)
    assert "(deny default)" in profile and "network" not in profile
    assert '(allow file-write* (subpath "/w/output") (subpath "/w/scratch"))' in profile
    assert '(subpath "/data/a \\"b\\"")' in profile


@pytest.mark.parametrize(
    ("path", "admitted"),
    [
        ("/", False), ("/home", False), ("/home/me", False), ("/home/me/.aws/credentials", False),
        ("/home/me/.cache/huggingface/hub", True), ("/home/me/.cache/huggingface/token", False),
        ("/home/me/data", True), ("/srv/data/x.jsonl", True), ("/proc/1/environ", False), ("/dev/sda", False),
        ("/run/docker.sock", False), ("/var/run/docker.sock", False), ("/ws", False), ("/ws/ledger.db", False),
        ("/ws/jobs/job-1", False), ("/ws/jobs/job-1/spec.json", False), ("/ws/jobs/job-1/output", True),
        ("/ws/jobs/job-1/output/model", True), ("/ws/jobs/output", False), ("/ws/data/a.jsonl", True),
        ("/ws/config.toml", False),
    ],
)  # fmt: skip
def test_what_may_be_named(path: str, admitted: bool) -> None:
    assert Guard(workspace=Path("/ws"), home=Path("/home/me")).admits(Path(path)) is admitted


async def _later(value: bool) -> bool:
    return value


async def _none_left(mark: str) -> None:
    """The kernel takes a moment to end a process; of those here none would end by itself."""
    with anyio.fail_after(60):
        while [pid for pid in _marked(mark) if pid != os.getpid()]:
            await anyio.sleep(0.05)


def _marked(mark: str) -> list[int]:
    """Processes that were started with ``mark`` in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
