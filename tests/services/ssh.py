"""A real sshd on loopback, private to the test: own host key, own user key, own home, everything in one folder.

    python -m tests.services.ssh FOLDER        starts one and keeps it until Ctrl-C

Needs Debian's ``openssh-server`` (`sshd_is_installed`). It lets in whoever started it, by key only. As root, sshd
insists on the empty folder ``/run/sshd``, which its package makes when a machine starts; where it is missing it is
made, and stays.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.services.ports import free_port

READY_SECONDS = 20.0
PROGRAMS = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

SERVER = """\
ListenAddress 127.0.0.1
Port {port}
HostKey "{folder}/host_key"
PidFile "{folder}/sshd.pid"
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PrintMotd no
MaxStartups 100
SetEnv HOME={folder}/home
"""
CLIENT = """\
Host login
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile "{folder}/user_key"
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile "{folder}/known_hosts"
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
    ConnectTimeout 10
    {more}
"""


def sshd_is_installed() -> bool:
    return all(shutil.which(program, path=PROGRAMS) for program in ("sshd", "ssh", "ssh-keygen"))


@dataclass
class Ssh:
    """A login node. ``prefix`` is what a client puts before a command; what can go wrong is a method each."""

    folder: Path
    port: int
    daemon: subprocess.Popen[bytes] | None = None

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("ssh", "-F", str(self.folder / "client"), "login")

    @property
    def home(self) -> Path:
        """Of whoever logs in: its ``.bashrc`` is read at every login."""
        return self.folder / "home"

    def configure_client(self, *more: str) -> None:
        """Write the client's configuration anew, with ``more`` lines, such as ``"ControlMaster auto"``."""
        (self.folder / "client").write_text(
            CLIENT.format(folder=self.folder, port=self.port, user=getpass.getuser(), more="\n    ".join(more))
        )

    def at_login(self, lines: str | None) -> None:
        """Have sshd run these shell ``lines`` instead of what was asked for, ``$SSH_ORIGINAL_COMMAND``.

        ``$PPID`` is sshd's own process for this connection, which the lines may kill or stop.
        """
        (self.folder / "forced").write_text(lines or "")
        option = f'command="/bin/sh {self.folder}/forced" ' if lines is not None else ""
        (self.folder / "authorized_keys").write_text(option + (self.folder / "user_key.pub").read_text())

    def refuse_the_key(self) -> None:
        (self.folder / "authorized_keys").write_text("")

    def change_host_key(self) -> None:
        """As after a reinstallation, or with somebody in between: the client knows another key."""
        self.stop()
        _key(self.folder / "host_key")
        self.start()

    def start(self) -> None:
        program = shutil.which("sshd", path=PROGRAMS)
        assert program is not None
        command = [program, "-D", "-e", "-f", str(self.folder / "server")]
        with (self.folder / "sshd.log").open("ab") as log:
            self.daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + READY_SECONDS
        while b"Server listening" not in (written := (self.folder / "sshd.log").read_bytes()):
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"sshd did not start:\n{written.decode(errors='replace')[-1000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the listener and cut every connection."""
        if self.daemon is None:
            return
        sessions = _descendants(self.daemon.pid, named="sshd")
        self.daemon.terminate()
        for session in sessions:
            with contextlib.suppress(ProcessLookupError):
                os.kill(session, signal.SIGKILL)
        self.daemon.wait(timeout=10)
        self.daemon = None
        (self.folder / "sshd.log").write_bytes(b"")


@contextlib.contextmanager
def running_sshd(folder: Path) -> Iterator[Ssh]:
    """Start a login node in ``folder``; it and its connections are gone when the block ends."""
    (folder / "home").mkdir(parents=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name in ("host_key", "user_key"):
        _key(folder / name)
    ssh = Ssh(folder, free_port())
    (folder / "server").write_text(SERVER.format(folder=folder, port=ssh.port))
    host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{ssh.port} {host_key}\n")
    ssh.configure_client()
    ssh.at_login(None)
    try:
        ssh.start()
        yield ssh
    finally:
        ssh.stop()


def _key(path: Path) -> None:
    path.unlink(missing_ok=True)
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "rehearsal", "-f", str(path)]
    subprocess.run(make, check=True, stdin=subprocess.DEVNULL)


def _descendants(pid: int, *, named: str) -> list[int]:
    """Processes below ``pid`` whose program is ``named``: not the commands that a login left running."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{child}/comm").read_text().strip() == named:
                found += [int(child), *_descendants(int(child), named=named)]
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), running_sshd(Path(sys.argv[1]).resolve()) as login:
        print(f"prefix = {list(login.prefix)}".replace("'", '"'), flush=True)
        signal.pause()
