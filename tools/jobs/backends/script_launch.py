"""How a rendered script is started: on one device or several, here or on a machine that is not ours."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from mlintern.tools.jobs.backend import ScriptFile

GRACE_SECONDS = 120
"""Between TERM and KILL at the time limit. A job with more than twice this gets TERM so long before its limit, to
write a checkpoint."""

ENDED, KILLED = 124, 137
"""What coreutils' ``timeout`` exits with when the command obeyed TERM at the limit, and when it had to be killed."""

SAMPLES_IN_LOG: Mapping[str, str] = {"MLINTERN_SAMPLES": "log"}
"""For a job whose files stay where it ran: its evaluation prints its samples too, so that they come with the log."""


def limit_seconds(timeout_seconds: float) -> float:
    """Seconds after which the script gets TERM."""
    early = GRACE_SECONDS if timeout_seconds > 2 * GRACE_SECONDS else 0
    return max(1.0, timeout_seconds - early)


def processes_for(script: ScriptFile, accelerators: int) -> int:
    """How many processes to start on ``accelerators`` devices: a trainer on each of them, anything else once.

    An edited script has no recipe any more; what uses TRL's trainers names trl in its header.
    """
    if script.recipe is not None:
        trains = script.recipe.get("trainer") != "evaluation"
    else:
        trains = any(re.match(r"trl\b(?![-_.])", requirement, re.IGNORECASE) for requirement in script.requirements)
    return max(1, accelerators) if trains else 1


def spread(processes: int) -> list[str]:
    """Arguments of ``python`` before a script that ``processes`` of it run together on one machine; none for one.

    That is torchrun, which TRL's trainers (through accelerate) take part in wherever there are devices, and also on
    the CPU, where it is tested. ``--standalone`` takes a free port, since two such jobs may meet on a machine.
    """
    return [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]


def launch_line(command: Sequence[str] | None, *, script: str, args: Sequence[str], processes: int = 1) -> str:
    """A POSIX shell line that runs ``script`` (a path on that machine) with ``args``.

    Args:
        command: the interpreter to use, such as ``["python"]`` of a prepared environment. None uses ``uv run``, which
            installs what the script's PEP 723 header names, and ``python3`` where there is no uv.
        processes: how many processes train together on the node; the trainers do not spread over several GPUs by
            themselves.
    """
    tail = shlex.join([script, *args])
    if command is not None:
        return f"{shlex.join([*command, *spread(processes)])} {tail}"
    if processes > 1:
        requirements = shlex.quote(f"{script}.requirements.txt")
        return (
            f"uv export --quiet --script {shlex.quote(script)} -o {requirements} && "
            f"uv run --no-project --with-requirements {requirements} python {shlex.join(spread(processes))} {tail}"
        )
    return (
        f"if command -v uv >/dev/null; then exec uv run {tail}; fi; "
        f'echo "mlintern: there is no uv here, so python3 runs the script with what it has" >&2; exec python3 {tail}'
    )
