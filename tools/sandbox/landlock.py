"""Isolation by Landlock (Linux 5.13 and later), for machines on which bubblewrap is missing or forbidden.

A process gives up rights that it can never get back, and its children inherit that. Files outside the policy can be
neither read nor written; from version 6 on no process outside can be signalled. What it does not do: other processes
stay visible by name in ``/proc`` (their memory and environment are not), named sockets can be reached, and without
network only TCP is cut off.

Numbers: include/uapi/linux/landlock.h. Standard library only: the supervisor of a job imports this.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from mlintern.tools.sandbox.policy import DEVICES, HIDDEN, SYSTEM, Policy, devices

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL_DEV = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_BITS_OF_VERSION = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_CONNECT_AND_BIND = 0b11
_SCOPES = 0b11
"""Abstract sockets and signals."""


@lru_cache(maxsize=1)
def version() -> int:
    """The version of Landlock in this kernel, 0 if it has none."""
    if os.uname().sysname != "Linux":
        return 0
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)))


def restrict(policy: Policy) -> None:
    """Confine this process and everything that it starts. Raises OSError where that fails; nothing may run then."""
    known = version()
    every = (1 << _BITS_OF_VERSION.get(known, 16)) - 1
    attributes = struct.pack("=Q", every)
    if known >= 4:
        attributes += struct.pack("=Q", 0 if policy.network else _CONNECT_AND_BIND)
    if known >= 6:
        attributes += struct.pack("=Q", _SCOPES)
    ruleset = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    try:
        for path, rights in _rules(policy, every):
            _allow(ruleset, path, rights & every)
        if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no_new_privs was refused")
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def environment(policy: Policy) -> Mapping[str, str]:
    """Variables that lead programs to the scratch: Landlock hides folders but puts nothing in their place."""
    cache = str(Path(policy.scratch) / "home" / ".cache")
    return {
        "TMPDIR": str(policy.own_tmp),
        "TMP": str(policy.own_tmp),
        "TEMP": str(policy.own_tmp),
        "XDG_CACHE_HOME": cache,
        "XDG_CONFIG_HOME": str(policy.own_home / ".config"),
        "MPLCONFIGDIR": f"{cache}/matplotlib",
        "TRITON_CACHE_DIR": f"{cache}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor",
    }


def _rules(policy: Policy, every: int) -> Iterator[tuple[Path, int]]:
    for path in (*SYSTEM, *policy.readable, "/proc", "/run/systemd/resolve"):
        if path == "/etc":
            yield from _without_hidden(Path(path))
        else:
            yield Path(path), _READ
    for path in (*policy.writable, policy.scratch, "/dev/shm"):
        yield Path(path), every
    usable = _READ | _WRITE_FILE | _IOCTL_DEV | _TRUNCATE
    for device in (*(Path("/dev") / name for name in DEVICES), *devices()):
        yield device, usable


def _without_hidden(folder: Path) -> Iterator[tuple[Path, int]]:
    """The entries of ``folder`` one by one: Landlock takes nothing out of a folder that it has given."""
    yield folder, _READ_DIR
    kept_out = {Path(path) for path in HIDDEN}
    for entry in folder.iterdir():
        if entry not in kept_out and not any(entry in hidden.parents for hidden in kept_out):
            yield entry, _READ


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # it does not exist here: nothing to allow
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_FILES
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc().syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock refused: {os.strerror(code)}")
    return result


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
