"""Two hundred local jobs while everything around them is killed: is every one of them accounted for?

    python benchmarks/faults.py [--jobs 200] [--seed 0]

Two servers submit and poll the same jobs on one workspace. Meanwhile servers and supervisors are killed at random
moments, each new server's clock is hours off the last one's, and the disk is filled now and then. Each script leaves
a trace of its own, outside the workspace, which is the truth that the ledger is held against:

* every job is on record once, and is over;
* no script ran twice;
* what is reported is what happened: succeeded ran to its end, failed exited with 3 (or the disk was full), timed_out
  is one that sleeps, lost is one whose supervisor was killed;
* no process of a job is left, every account is settled, and no server died of an error that has no name.

Prints its counts; exits with 1 on any misreport.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' parts serve here too

from mlintern.common.clock import SystemClock
from mlintern.tools.errors import MlinternError
from mlintern.tools.jobs import job_rows
from mlintern.tools.jobs.backends.job_folder import JobFolder
from mlintern.tools.jobs.backends.local.backend import LocalBackend, process_table
from mlintern.tools.jobs.hardware import Hardware
from mlintern.tools.jobs.spec import FINAL, JobSpec
from mlintern.tools.workspace import Workspace
from tests.tools.jobs.local_lab import LocalLab

DEADLINE_SECONDS = 540.0
SERVERS = 2
DISK_MEGABYTES = 64
NAMED_FAILURE = 75
"""Exit code of a server that ended with an error of our own tree, such as a full disk (EX_TEMPFAIL)."""

SCRIPT = """
import os, sys, time
trace, name, kind = sys.argv[1:4]
def leave(word):
    descriptor = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{word} {name}\\n".encode())
    os.close(descriptor)
leave("start")
time.sleep(600 if kind == "sleeps" else float(sys.argv[4]))
leave("end")
sys.exit(3 if kind == "fails" else 0)
"""


class ShiftedClock(SystemClock):
    """A server whose wall clock is wrong."""

    def __init__(self, offset: float) -> None:
        super().__init__(wait_scale=1.0)
        self.offset = offset

    def now(self) -> float:
        return super().now() + self.offset


class PricedBackend(LocalBackend):
    """This machine for money, so that accounts are kept."""

    async def hardware(self) -> list[Hardware]:
        return [item.model_copy(update={"usd_per_hour": 3.0}) for item in await super().hardware()]


def open_lab(root: Path, *, offset: float = 0.0) -> LocalLab:
    lab = LocalLab(
        Workspace.open(root),
        ShiftedClock(offset),
        backend_options={"slots": 3, "grace_seconds": 0.3},
        backend_class=PricedBackend,
    )
    lab.scripts.add(SCRIPT)
    return lab


async def serve(root: Path, specs_file: Path, *, seed: int, offset: float) -> None:
    """A server: pick up what is there, submit every job (whoever else does too), and poll until all are over."""
    lab = open_lab(root, offset=offset)
    specs = [JobSpec.from_json(value) for value in json.loads(specs_file.read_text())]
    order = random.Random(seed)
    await lab.jobs.reconcile()
    waiting = list(specs)
    while waiting:
        order.shuffle(waiting)
        for spec in list(waiting):
            with contextlib.suppress(MlinternError):  # a full disk: the next round tries again
                await lab.jobs.submit(spec)
                if (await lab.jobs.poll(spec.job_id)).state in FINAL:
                    waiting.remove(spec)


@dataclass
class Chaos:
    """What is done to the jobs, and what has been done."""

    root: Path
    random: random.Random
    small_disk: bool
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    supervisors_killed: set[str] = field(default_factory=set)
    crashes: list[str] = field(default_factory=list)

    def kill_a_supervisor(self) -> None:
        folders = [JobFolder(path) for path in self.root.glob("jobs/*")]
        self.random.shuffle(folders)
        for folder in folders:
            state = folder.read("state")
            if state is None or "supervisor" not in state or folder.read("exit") is not None:
                continue
            process = process_table.find(state["supervisor"])
            if process is None or process.started != state["supervisor_started"]:
                continue
            self.supervisors_killed.add(folder.path.name)
            process_table.send([process], signal.SIGKILL)
            self.counts[f"supervisors killed while {state['phase']}"] += 1
            return

    def look_at(self, server: subprocess.Popen[bytes]) -> None:
        """A server may be killed, be done, or give up over a full disk; anything else is a bug."""
        code = server.poll()
        if code == NAMED_FAILURE:
            self.counts["servers that gave up over a full disk"] += 1
        elif code not in (None, 0, -signal.SIGKILL):
            self.crashes.append(f"a server crashed with exit code {code}; its traceback is on stderr")

    def fill_the_disk(self) -> None:
        if not self.small_disk:
            return
        filler = self.root / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        time.sleep(self.random.uniform(0.05, 0.5))
        filler.unlink()
        self.counts["times the disk was full"] += 1


def start_server(root: Path, specs: Path, *, seed: int, offset: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.faults", "--serve", str(root), "--specs", str(specs)]
    return subprocess.Popen([*command, "--seed", str(seed), f"--offset={offset}"], start_new_session=True)


def torment(chaos: Chaos, specs: Path, total: int) -> None:
    """Keep servers running and kill whatever there is, until every job is over or the time is up."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    servers: list[subprocess.Popen[bytes]] = []
    try:
        while time.monotonic() < deadline and len(list(chaos.root.glob("jobs/*/exit.json"))) < total:
            for server in servers:
                chaos.look_at(server)
            servers = [server for server in servers if server.poll() is None]
            while len(servers) < SERVERS:
                offset = chaos.random.uniform(-48, 48) * 3600
                servers.append(start_server(chaos.root, specs, seed=chaos.random.getrandbits(30), offset=offset))
                chaos.counts["servers started, each with another clock"] += 1
            time.sleep(chaos.random.uniform(0.1, 0.8))
            chance = chaos.random.random()
            if chance < 0.25:
                chaos.random.choice(servers).kill()
                chaos.counts["servers killed"] += 1
            elif chance < 0.75:
                chaos.kill_a_supervisor()
            elif chance < 0.85:
                chaos.fill_the_disk()
    finally:
        for server in servers:
            server.kill()
            server.wait()


async def settle(root: Path, specs: list[JobSpec]) -> None:
    """One last server with the right time brings everything to its end."""
    lab = open_lab(root)
    with anyio.fail_after(120):
        for spec in specs:
            await lab.jobs.submit(spec)
            while (await lab.jobs.poll(spec.job_id, wait_seconds=45)).state not in FINAL:
                pass


def verdict(chaos: Chaos, specs: list[JobSpec], trace: Path) -> list[str]:
    """Every way in which what is on record is not what happened."""
    wrong: list[str] = []
    events = collections.Counter(trace.read_text().split("\n") if trace.exists() else [])
    lab = open_lab(chaos.root)
    with lab.ledger.read() as connection:
        count = connection.execute("SELECT COUNT(*) FROM jobs").fetchone()[0]
        found = {spec.job_id: job_rows.get(connection, spec.job_id) for spec in specs}
        unsettled = connection.execute("SELECT COUNT(*) FROM money WHERE NOT settled OR usd_charged < 0").fetchone()[
            0
        ]
    if count != len(specs):
        wrong.append(f"{count} jobs on record instead of {len(specs)}")
    if unsettled:
        wrong.append(f"{unsettled} accounts not settled")
    for spec in specs:
        record, name, kind = found[spec.job_id], spec.args[1], spec.args[2]
        starts, ends = events[f"start {name}"], events[f"end {name}"]
        disk = "could not go on" in (record.error or "") or "No space" in (record.error or "")
        chaos.counts[f"jobs {record.state}"] += 1
        truthful = {
            "succeeded": kind == "ends" and starts == ends == 1,
            "failed": (kind == "fails" and starts == ends == 1 and record.exit_code == 3) or disk,
            "timed_out": kind == "sleeps" and starts == 1 and ends == 0,
            "lost": spec.job_id in chaos.supervisors_killed,
        }.get(record.state, False)
        if starts > 1:
            wrong.append(f"{spec.job_id} ran {starts} times")
        if not truthful:
            wrong.append(f"{spec.job_id} ({kind}, started {starts}, ended {ends}) is {record.state}: {record.error}")
    lab.ledger.close()
    wrong += chaos.crashes
    wrong += [f"process {pid} of a job is still there" for pid in leftovers(chaos.root)]
    return wrong


def leftovers(root: Path) -> list[int]:
    mark = f"MLINTERN_OUTPUT_DIR={root}/".encode()
    found = []
    for process in process_table.processes().values():
        with contextlib.suppress(OSError):
            environ = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            if any(entry.startswith(mark) for entry in environ):
                found.append(process.pid)
    return found


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of its own for the workspace, if there is the right to make one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "none", str(folder)]
    mounted = sys.platform == "linux" and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


async def plan(root: Path, trace: Path, *, jobs: int, seed: int) -> list[JobSpec]:
    lab = open_lab(root)
    chance = random.Random(seed)
    specs = []
    for number in range(jobs):
        kind = chance.choices(["ends", "fails", "sleeps"], [8, 2, 1])[0]
        arguments = [str(trace), str(number), kind, f"{chance.uniform(0.0, 0.4):.3f}"]
        specs.append(await lab.plan(SCRIPT, args=arguments, timeout="2s" if kind == "sleeps" else "2m"))
    lab.ledger.close()
    return specs


def run_server(options: argparse.Namespace) -> int:
    code = 0
    try:
        anyio.run(lambda: serve(options.serve, options.specs, seed=options.seed, offset=options.offset))
    except* MlinternError:  # also from within the task group of `reconcile`
        code = NAMED_FAILURE
    return code


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", type=Path)
    parser.add_argument("--specs", type=Path)
    parser.add_argument("--offset", type=float, default=0.0)
    options = parser.parse_args()
    if options.serve is not None:
        return run_server(options)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, small_disk(Path(name) / "disk") as own_disk:
        root, trace, specs_file = Path(name) / "disk" / "home", Path(name) / "trace", Path(name) / "specs.json"
        specs = anyio.run(lambda: plan(root, trace, jobs=options.jobs, seed=options.seed))
        specs_file.write_text(json.dumps([spec.to_json() for spec in specs]))
        chaos = Chaos(root, random.Random(options.seed), own_disk)
        torment(chaos, specs_file, len(specs))
        anyio.run(settle, root, specs)
        wrong = verdict(chaos, specs, trace)
    for what, count in sorted(chaos.counts.items()):
        print(f"{count:5d} {what}")
    if not own_disk:
        print("      the disk was not filled: no right to mount one of its own")
    print(f"{len(wrong):5d} misreports in {options.jobs} jobs, seed {options.seed}, {time.monotonic() - began:.0f} s")
    for line in wrong:
        print("      " + line)
    return 1 if wrong else 0


if __name__ == "__main__":
    os.environ.setdefault("MLINTERN_WAIT_SCALE", "1")
    sys.exit(main())
