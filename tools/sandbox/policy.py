"""What an isolated program may see and change. Standard library only: the supervisor of a job imports this."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

Method = Literal["bubblewrap", "landlock", "seatbelt"]

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix", "/sys", "/gnu")
"""Folders of programs and libraries that every program may read, where they exist."""

MAC_SYSTEM = ("/usr", "/bin", "/sbin", "/System", "/Library", "/private/etc", "/private/var/db", "/opt", "/dev")

HIDDEN = ("/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/munge/munge.key", "/etc/slurm/slurmdbd.conf")
"""Files among these folders that are replaced by an empty one; they matter where jobs run as root."""

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
ACCELERATORS = ("nvidia*", "nvidia-caps", "dri", "kfd", "infiniband", "accel*", "dxg")
"""Names below ``/dev`` through which GPUs and their network are reached."""


@dataclass(frozen=True)
class Policy:
    """Everything that is not named here cannot be seen, except the system's own programs and libraries.

    Attributes:
        readable, writable: files and folders, absolute and without symbolic links.
        work: where the program starts.
        scratch: a folder of the program's own; in it lie the home folder and the temporary folder that it sees.
        home: the path at which it sees its home folder.
        network: whether it may reach other machines.
    """

    method: Method
    readable: tuple[str, ...]
    writable: tuple[str, ...]
    work: str
    scratch: str
    home: str
    network: bool = True

    @property
    def own_home(self) -> Path:
        return Path(self.scratch) / "home"

    @property
    def own_tmp(self) -> Path:
        return Path(self.scratch) / "tmp"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(**{**value, "readable": tuple(value["readable"]), "writable": tuple(value["writable"])})


def devices() -> list[Path]:
    """The device files and folders of accelerators that this machine has."""
    return sorted({path for pattern in ACCELERATORS for path in Path("/dev").glob(pattern)})
