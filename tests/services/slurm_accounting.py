"""Real accounting for `tests.services.slurm`: MariaDB on a socket and slurmdbd on a port, private to the cluster.

Needs Debian's ``slurmdbd`` and ``mariadb-server`` (`accounting_is_installed`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

PROGRAMS = ("mariadbd", "mariadb-install-db", "slurmdbd")

CONFIGURATION = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=accounting
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""
CLUSTER_LINES = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.socket
"""


def accounting_is_installed() -> bool:
    return all(map(shutil.which, PROGRAMS))


def make_database(folder: Path) -> None:
    """An empty database in ``folder``, without a network, without passwords: only its owner reaches the socket."""
    make = [
        "mariadb-install-db", "--no-defaults", f"--datadir={folder}/database", "--user=root",
        "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve",
    ]  # fmt: skip
    done = subprocess.run(make, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise RuntimeError(f"mariadb-install-db failed:\n{(done.stdout + done.stderr)[-1000:]}")


def database_command(folder: Path) -> list[str]:
    """Keeps nothing worth a careful end: it may be killed."""
    return [
        "mariadbd", "--no-defaults", f"--datadir={folder}/database", f"--socket={folder}/database.socket",
        f"--pid-file={folder}/database.pid", f"--log-error={folder}/database.log", "--skip-networking", "--user=root",
        "--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0", "--performance-schema=off",
    ]  # fmt: skip


def configure(folder: Path, *, port: int) -> str:
    """Write ``slurmdbd.conf`` beside ``slurm.conf`` and return the lines that the latter needs."""
    path = folder / "slurmdbd.conf"
    path.write_text(CONFIGURATION.format(folder=folder, port=port))
    path.chmod(0o600)  # slurmdbd refuses it otherwise
    return CLUSTER_LINES.format(folder=folder, port=port)


def daemon_environment(folder: Path) -> Mapping[str, str]:
    """``slurmdbd`` has no option for a socket; MariaDB's own client library, which it uses, reads this."""
    return {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf", "MYSQL_UNIX_PORT": f"{folder}/database.socket"}
