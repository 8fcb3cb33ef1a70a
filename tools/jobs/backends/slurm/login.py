"""Shell lines on the machine that has Slurm's commands: this one, or a login node behind a prefix such as ssh."""

from __future__ import annotations

import base64
import contextlib
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence

from mlintern.tools.errors import BackendError, Blocked, Offline

COMMAND_SECONDS = 30.0
"""How long one command may take, an ssh included."""

NOT_FOUND, OVERDUE, SSH_FAILED = 127, 124, 255
"""What a shell exits with for an unknown command, ``timeout`` for a slow one, ssh for its own troubles."""

UNREACHABLE = ("Unable to contact slurm", "Socket timed out", "Connection refused", "Zero Bytes were transmitted")

REFUSALS: Mapping[str, str] = {
    "Host key verification failed": "Compare its key with the one that the cluster's operators publish, correct"
    " known_hosts (ssh-keygen -R), and connect once by hand: {by_hand}",
    "Permission denied (": "Have it let you in without a question, with a key (ssh-copy-id, ssh-add) or a ticket;"
    " until then this asks or fails by hand too: {by_hand}",
    "Too many authentication failures": "Name the one key to use with IdentityFile and IdentitiesOnly in"
    " ~/.ssh/config; try by hand: {by_hand}",
    "no matching host key type": "Name an algorithm that both sides know in ~/.ssh/config; try by hand: {by_hand}",
    "Bad configuration option": "Correct the file that it names; try by hand: {by_hand}",
    "Bad owner or permissions": "Correct the permissions of the file that it names; try by hand: {by_hand}",
}
"""What ssh says when it will not get in by waiting, and what to do about it. Nothing was run on the other side."""

_BEGIN = "mlintern-begin"
"""Printed before a line's own output: what a login prints by itself comes earlier and is left out."""


class Login:
    """Runs lines of POSIX shell.

    Args:
        prefix: put before the line, which it hands to the login shell over there as one word; as ssh does.
        environment: variables for the lines. With a prefix they go through standard input, not through the prefix.
        seconds: how long one line may take.
    """

    def __init__(self, *, prefix: Sequence[str], environment: Mapping[str, str], seconds: float) -> None:
        self._prefix = tuple(prefix)
        self._environment = environment
        self._seconds = seconds

    @property
    def place(self) -> str:
        """For messages: ``"ssh login1"``, or ``"this machine"``."""
        return shlex.join(self._prefix) if self._prefix else "this machine"

    async def run(self, line: str, *, stdin: bytes = b"", variables: Mapping[str, str] | None = None) -> str:
        """Standard output of ``line``.

        Args:
            variables: exported to ``line``. They come as the first lines of the input, so that no command line and
                no file shows them.

        Raises:
            Offline: no answer in time, or the connection broke: what was asked may have been done.
            Blocked: ssh does not let us in, so nothing was done.
            BackendError: the command ran and refused, or is not installed.
        """
        from anyio import fail_after

        exported = {**(self._environment if self._prefix else {}), **(variables or {})}
        read = "".join(
            f'IFS= read -r line && {name}=$(printf %s "$line" | base64 -d && echo .) && export {name}="${{{name}%.}}"'
            " || exit 1; "
            for name in exported
        )
        values = "".join(f"{base64.b64encode(value.encode()).decode()}\n" for value in exported.values())
        words = ["sh", "-c", f"{read}echo {_BEGIN}; {line}"]
        command = [*self._prefix, shlex.join(words)] if self._prefix else words
        surroundings = os.environ if self._prefix else {**os.environ, **self._environment}
        try:
            with fail_after(self._seconds):
                code, printed, complained = await _run(command, surroundings, stdin=values.encode() + stdin)
        except FileNotFoundError as error:
            raise BackendError(
                f"{command[0]} is not installed on this machine.",
                next_step="Install it, or set another prefix in [slurm] of config.toml.",
            ) from error
        except TimeoutError as error:
            raise self._offline(f"No answer came from {self.place} in {self._seconds:g} s.") from error
        complaint = complained.decode(errors="replace").strip()
        out = printed.decode(errors="replace").partition(f"{_BEGIN}\n")[2]
        if code == 0:
            return out
        raise self._failure(code, complaint or out.strip())

    def _failure(self, code: int, complaint: str) -> BackendError | Blocked | Offline:
        if code == SSH_FAILED and self._prefix:
            for words, advice in REFUSALS.items():
                if words in complaint:
                    return Blocked(
                        f"{self.place} is not let in: {complaint[-300:]}",
                        service="slurm",
                        next_step=advice.format(by_hand=shlex.join([*self._prefix, "true"])),
                    )
            return self._offline(f"The connection of {self.place} failed: {complaint[-300:] or 'it said nothing'}")
        if code == OVERDUE:
            return self._offline(f"Slurm did not answer in time: {complaint[-300:]}")
        if any(words in complaint for words in UNREACHABLE):
            return self._offline(f"The cluster did not answer: {complaint[-300:]}")
        if code == NOT_FOUND:
            return BackendError(
                f"A command is not found on {self.place}: {complaint[-300:]}",
                next_step="Install Slurm's client commands there, or set prefix in [slurm] or PATH in"
                " [slurm.environment] of config.toml.",
            )
        return BackendError(f"{self.place} refused ({code}): {complaint[-500:]}")

    def _offline(self, message: str) -> Offline:
        by_hand = f"try by hand: {shlex.join([*self._prefix, 'sinfo'])}"
        return Offline(
            message, service="slurm", next_step=f"Check that the login node and slurmctld are up; {by_hand}"
        )


async def _run(command: Sequence[str], environment: Mapping[str, str], *, stdin: bytes) -> tuple[int, bytes, bytes]:
    """Exit code, output and complaints of a program that reads ``stdin``, or as much of it as it wants.

    Never the server's own standard input, which is the host's side of the protocol. In a session of its own there is
    no terminal either, on which ssh would ask for a password and wait for it.
    """
    import anyio
    from anyio.abc import ByteReceiveStream

    said: dict[str, bytes] = {}

    async def drain(name: str, stream: ByteReceiveStream) -> None:
        said[name] = b"".join([chunk async for chunk in stream])

    process = await anyio.open_process(command, stdin=subprocess.PIPE, env=environment, start_new_session=True)
    async with process, anyio.create_task_group() as group:
        assert process.stdin and process.stdout and process.stderr, "all three are pipes"
        group.start_soon(drain, "out", process.stdout)
        group.start_soon(drain, "complaints", process.stderr)
        with contextlib.suppress(anyio.BrokenResourceError):  # it ended before it had read all; its exit code tells
            await process.stdin.send(stdin)
        await process.stdin.aclose()
        code = await process.wait()
    return code, said["out"], said["complaints"]
