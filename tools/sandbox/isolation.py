"""Which isolation this machine has, and a program started in it. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mlintern.tools.sandbox import bubblewrap, landlock, seatbelt
from mlintern.tools.sandbox.policy import Method, Policy

FindMethod = Callable[[], Method | None]

HOW_TO_GET_IT = (
    "Install bubblewrap (Debian, Ubuntu: apt install bubblewrap; Fedora: dnf install bubblewrap), or start the server"
    " with --unsandboxed, which lets every job do what you can do."
)


def best_method() -> Method | None:
    """The strongest isolation that works here; None if there is none."""
    if bubblewrap.program() is not None:
        return "bubblewrap"
    if landlock.version() > 0:
        return "landlock"
    return "seatbelt" if seatbelt.program() is not None else None


@dataclass(frozen=True)
class Start:
    """How to start an isolated program: call ``confine`` in the child process, then execute ``argv``."""

    argv: list[str]
    environment: dict[str, str]
    confine: Callable[[], None]


def start(policy: Policy | None, argv: Sequence[str], *, environment: Mapping[str, str]) -> Start:
    """``argv`` under ``policy``; without one as it is.

    Raises:
        OSError: the isolation of the policy is not here (any more).
    """
    if policy is None:
        return Start(list(argv), dict(environment), _nothing)
    for folder in (policy.own_home, policy.own_tmp):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if policy.method == "bubblewrap" and (bwrap := bubblewrap.program()):
        inside = {**environment, "HOME": policy.home, "TMPDIR": "/tmp", "TMP": "/tmp", "TEMP": "/tmp"}
        return Start(bubblewrap.command(policy, argv, bwrap=bwrap), inside, _nothing)
    if policy.method == "landlock" and landlock.version():
        inside = {**environment, **landlock.environment(policy)}
        return Start(list(argv), inside, lambda: landlock.restrict(policy))
    if policy.method == "seatbelt" and (sandbox_exec := seatbelt.program()):
        inside = {**environment, **landlock.environment(policy)}
        return Start(seatbelt.command(policy, argv, sandbox_exec=sandbox_exec), inside, _nothing)
    raise FileNotFoundError(f"{policy.method}, which isolates the job, does not work here any more")


def _nothing() -> None:
    pass
