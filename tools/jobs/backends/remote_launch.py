"""How a rendered script is started on a machine that is not ours."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def launch_line(command: Sequence[str] | None, *, script: str, args: Sequence[str], processes: int = 1) -> str:
    """A POSIX shell line that runs ``script`` (a path on that machine) with ``args``.

    Args:
        command: the interpreter to use, such as ``["python"]`` of a prepared environment. None uses ``uv run``, which
            installs what the script's PEP 723 header names, and ``python3`` where there is no uv.
        processes: how many processes train together on the node; more than one are started by ``accelerate launch``,
            since the trainers do not spread over several GPUs by themselves.
    """
    tail = shlex.join([script, *args])
    if command is not None:
        python = shlex.join(command)
        if processes > 1:
            return f"{python} -m accelerate.commands.launch --num_processes {processes} {tail}"
        return f"{python} {tail}"
    if processes > 1:
        requirements = shlex.quote(f"{script}.requirements.txt")
        return (
            f"uv export --quiet --script {shlex.quote(script)} -o {requirements} && "
            f"uv run --no-project --with-requirements {requirements} "
            f"accelerate launch --num_processes {processes} {tail}"
        )
    return f"if command -v uv >/dev/null; then uv run {tail}; else python3 {tail}; fi"
