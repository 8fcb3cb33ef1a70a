"""A real single-node Slurm, private to the test: own munge key, own sockets, own ports, everything in one folder.

    python -m tests.services.slurm FOLDER      starts one and keeps it until Ctrl-C

Needs Debian's ``slurm-wlm`` and ``munge`` (`slurm_is_installed`) and root, since slurmd starts jobs as their users.
With ``--accounting`` before FOLDER it keeps accounts too (`tests.services.slurm_accounting`).
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.services import slurm_accounting
from tests.services.ports import free_port

READY_SECONDS = 30.0

CONFIGURATION = """\
ClusterName=rehearsal
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={controller}
SlurmdPort={daemon}
{processes}JobAcctGatherType=jobacct_gather/linux
{accounting}JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters={counted}
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
MinJobAge={min_job_age}
SchedulerParameters=sched_interval=1,bf_interval=1
InactiveLimit=0
KillWait=5
Waittime=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=2000 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=01:00:00 State=UP
"""


FREE_PROCESSES = """\
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
"""
HELD_PROCESSES = """\
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
"""
CONTROL_GROUPS = Path("/sys/fs/cgroup")
CONTROL_GROUPS_CONFIGURATION = f"""\
CgroupPlugin=cgroup/v1
CgroupMountpoint={CONTROL_GROUPS}
ConstrainRAMSpace=yes
ConstrainSwapSpace=yes
AllowedSwapSpace=0
"""


def memory_can_be_limited() -> bool:
    """Whether Slurm 22 can end here what uses more memory than it asked for: by control groups of version 1."""
    return all(os.access(CONTROL_GROUPS / name, os.W_OK) for name in ("memory", "freezer"))


def slurm_is_installed() -> bool:
    return os.geteuid() == 0 and all(map(shutil.which, ("munged", "slurmctld", "slurmd", "sbatch")))


@dataclass(frozen=True)
class Slurm:
    """A running cluster. ``environment`` is what a client needs to find it."""

    folder: Path
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *command: str) -> str:
        """The output of one of Slurm's commands, run against this cluster."""
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=30, check=False
        )
        return done.stdout + done.stderr

    def start(self, *command: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a daemon of the cluster; it is known by its program's name from then on."""
        self.daemons[command[0]] = subprocess.Popen(
            command,
            env={**os.environ, **self.environment, **(environment or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self, *names: str, kill: bool = False) -> None:
        """End daemons, together and then one by one."""
        ending = [self.daemons.pop(name) for name in names if name in self.daemons]
        for daemon in ending:
            daemon.kill() if kill else daemon.terminate()
        for daemon in ending:
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def start_accounting(self) -> None:
        self.start("slurmdbd", "-D", environment=slurm_accounting.daemon_environment(self.folder))

    def forget_everything(self) -> None:
        """Start the controller without its memory, as after the loss of its state: it counts jobs from 1 again."""
        self.stop("slurmctld")
        shutil.rmtree(self.folder / "state")
        (self.folder / "state").mkdir()
        self.start("slurmctld", "-D", "-c")
        self.until(lambda: "idle" in self.run("sinfo", "-h", "-o", "%T"))

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for ``condition``, while every daemon lives."""
        deadline = time.monotonic() + READY_SECONDS
        while not condition():
            dead = [name for name, daemon in self.daemons.items() if daemon.poll() is not None]
            if dead or time.monotonic() > deadline:
                logs = "\n".join(path.read_text()[-500:] for path in sorted(self.folder.glob("*.log")))
                raise RuntimeError(f"Slurm did not start (ended: {dead}):\n{logs}")
            time.sleep(0.05)


@contextlib.contextmanager
def running_slurm(
    folder: Path, *, min_job_age: int = 600, accounting: bool = False, memory_limits: bool = False
) -> Iterator[Slurm]:
    """Start a cluster of this one machine in ``folder``; it is gone when the block ends.

    Args:
        min_job_age: seconds after which Slurm may forget a job that is over.
        accounting: remember jobs for good, with slurmdbd and MariaDB.
        memory_limits: end jobs that use more memory than they asked for (`memory_can_be_limited`). Slurm makes its
            control groups outside of ``folder``; they are removed.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    host = socket.gethostname().split(".")[0]
    keeps = "AccountingStorageType=accounting_storage/none\n"
    if accounting:
        port = free_port()
        keeps = slurm_accounting.configure(folder, port=port)
    configuration = CONFIGURATION.format(
        host=host,
        folder=folder,
        controller=free_port(),
        daemon=free_port(),
        cpus=os.cpu_count(),
        min_job_age=min_job_age,
        accounting=keeps,
        processes=HELD_PROCESSES if memory_limits else FREE_PROCESSES,
        counted="CR_Core_Memory" if memory_limits else "CR_Core",
    )
    (folder / "slurm.conf").write_text(configuration)
    if memory_limits:
        (folder / "cgroup.conf").write_text(CONTROL_GROUPS_CONFIGURATION)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    slurm = Slurm(folder)
    try:
        slurm.start(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
            f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed",
        )  # fmt: skip
        slurm.until((folder / "munge.socket").exists)
        if accounting:
            slurm_accounting.make_database(folder)
            slurm.start(*slurm_accounting.database_command(folder))
            slurm.until((folder / "database.socket").exists)
            slurm.start_accounting()
            slurm.until(lambda: _listens(port))
        slurm.start("slurmctld", "-D")
        slurm.until(
            lambda: "debug" in slurm.run("sinfo", "-h")
        )  # a slurmd that finds none waits long before it asks again
        slurm.start("slurmd", "-D", "-N", host)
        slurm.until(lambda: "idle" in slurm.run("sinfo", "-h", "-o", "%T"))
        yield slurm
    finally:
        try:
            if "slurmctld" in slurm.daemons and slurm.daemons["slurmctld"].poll() is None:
                # What a test leaves running would outlive its slurmd.
                slurm.run("scancel", "--signal=KILL", "--full", f"--user={getpass.getuser()}")
                slurm.until(lambda: not slurm.run("squeue", "-h", "-o", "%A").strip())
        finally:
            slurm.stop("slurmd", "slurmctld", "slurmdbd", "munged")
            slurm.stop("mariadbd", kill=True)
            if memory_limits:
                for group in CONTROL_GROUPS.glob(f"*/slurm_{host}"):
                    with contextlib.suppress(OSError):  # another cluster of this machine uses it
                        group.rmdir()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    *options, place = sys.argv[1:]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        contextlib.suppress(KeyboardInterrupt),
        running_slurm(Path(place).resolve(), accounting="--accounting" in options) as cluster,
    ):
        print(f"export SLURM_CONF={cluster.folder}/slurm.conf", flush=True)
        signal.pause()
