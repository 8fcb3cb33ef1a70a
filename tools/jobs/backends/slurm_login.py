"""Shell lines on the machine that has Slurm's commands: this one, or a login node behind a prefix such as ssh."""

from __future__ import annotations

import base64
import os
import shlex
from collections.abc import Mapping, Sequence

from mlintern.tools.errors import BackendError, Blocked, Offline

COMMAND_SECONDS = 30.0
"""How long one command may take, an ssh included."""

NOT_FOUND, OVERDUE, SSH_FAILED = 127, 124, 255
"""What a shell exits with for an unknown command, ``timeout`` for a slow one, ssh for its own troubles."""

UNREACHABLE = ("Unable to contact slurm", "Socket timed out", "Connection refused", "Zero Bytes were transmitted")

REFUSALS: Mapping[str, str] = {
    "Host key verification failed": "Compare its key with the one that the cluster's operators publish, mend"
    " known_hosts (ssh-keygen -R), and connect once by hand: {by_hand}",
    "Permission denied (": "Have it let you in without a question, with a key (ssh-copy-id, ssh-add) or a ticket;"
    " until then this asks or fails by hand too: {by_hand}",
    "Too many authentication failures": "Name the one key to use with IdentityFile and IdentitiesOnly in"
    " ~/.ssh/config; try by hand: {by_hand}",
    "no matching host key type": "Name an algorithm that both sides know in ~/.ssh/config; try by hand: {by_hand}",
    "Bad configuration option": "Mend the file that it names; try by hand: {by_hand}",
    "Bad owner or permissions": "Mend the permissions of the file that it names; try by hand: {by_hand}",
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
        import anyio

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
            with anyio.fail_after(self._seconds):
                # A session of its own has no terminal, on which ssh would ask for a password and wait for it.
                done = await anyio.run_process(
                    command, input=values.encode() + stdin, check=False, env=surroundings, start_new_session=True
                )
        except FileNotFoundError as error:
            raise BackendError(
                f"{command[0]} is not installed on this machine.",
                next_step="Install it, or set another prefix in [slurm] of config.toml.",
            ) from error
        except TimeoutError as error:
            raise self._offline(f"No answer came from {self.place} in {self._seconds:g} s.") from error
        complaint = done.stderr.decode(errors="replace").strip()
        out = done.stdout.decode(errors="replace").partition(f"{_BEGIN}\n")[2]
        if done.returncode == 0:
            return out
        raise self._failure(done.returncode, complaint or out.strip())

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
