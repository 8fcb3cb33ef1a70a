"""The batch script of a Slurm job, and the record that it keeps of its own life.

Slurm forgets finished jobs after ``MinJobAge`` and many clusters keep no accounting, so the job writes down what
happened, and that is believed first.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RECORD = "slurm_record"
TAKEN = 75
"""What a second copy of a job exits with, having done nothing."""

_BATCH = """\
#!/bin/bash
umask 077
folder={folder}
cd "$folder/work" || exit 1
record() {{ echo "$@" >> "$folder/{record}"; sync "$folder/{record}" 2>/dev/null; }}
if ! mkdir "$folder/claimed"; then
    echo "mlintern: this job was started before, or its folder cannot be written; it does not run." >&2
    exit {taken}
fi
began=$(date +%s)
trap 'code=$?; record exit $code $(date +%s.%N)' EXIT
record start "$(date +%s.%N)" "$SLURM_JOB_ID"
base64 -d > "$folder/script.py" <<'MLINTERN_SCRIPT'
{script}
MLINTERN_SCRIPT
{environment}
{modules}
{prologue}
term=
trap 'term=1; record term "$(date +%s)"; kill -TERM "$child" 2>/dev/null' TERM
timeout --verbose --kill-after={grace} {seconds} bash -c {launch} &
child=$!
while :; do
    interrupted=$term
    wait "$child"
    code=$?
    [ "$term" = "$interrupted" ] && break
done
ran=$(($(date +%s) - began))
# A script that ignored TERM was killed (137) instead of ended (124).
if [ "$code" = 124 ] || {{ [ "$code" = 137 ] && [ -z "$term" ] && [ "$ran" -ge {whole_seconds} ]; }}; then
    record limit "$(date +%s)"
fi
exit "$code"
"""


def batch_script(
    *,
    folder: str,
    script: str,
    environment: Mapping[str, str],
    modules: Sequence[str],
    prologue: str,
    seconds: float,
    grace: int,
    launch: str,
) -> str:
    """A bash script that claims ``folder`` and runs ``launch`` in it, for ``seconds`` at most.

    Args:
        script: source of ``<folder>/script.py``, which ``launch`` (a shell line) starts.
        grace: seconds between TERM and KILL at the limit.
    """
    loads = [f"module load {shlex.quote(module)} || exit 1" for module in modules]
    if loads:  # a batch shell is no login shell, so the command is often not there yet
        loads.insert(0, "type module > /dev/null 2>&1 || . /etc/profile")
    return _BATCH.format(
        folder=shlex.quote(folder),
        record=RECORD,
        taken=TAKEN,
        script=base64.b64encode(script.encode()).decode(),
        environment="\n".join(f"export {name}={_word(value)}" for name, value in environment.items()),
        modules="\n".join(loads),
        prologue=prologue.replace("\r\n", "\n"),
        seconds=f"{seconds:g}",
        whole_seconds=int(seconds),
        grace=grace,
        launch=_word(launch),
    )


def _word(text: str) -> str:
    """``text`` as one word of bash, without a DOS line end in it: ``sbatch`` takes no script that has one."""
    if "\r" not in text:
        return shlex.quote(text)
    escaped = re.sub(r"[\\']", r"\\\g<0>", text).replace("\r", r"\r")
    return f"$'{escaped}'"


@dataclass(frozen=True)
class Record:
    """What the batch script, and a cancellation by us, wrote down. Times are Unix seconds.

    Attributes:
        number: the Slurm job that claimed the folder.
        cancelled: we were asked to cancel it before it ended.
        terminated: TERM came from outside: from `scancel`, a preemption, or Slurm's own limit.
        limited: its time was up.
    """

    number: str | None = None
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    cancelled: bool = False
    terminated: bool = False
    limited: bool = False

    @classmethod
    def read(cls, text: str) -> Record:
        words = [line.split() for line in text.splitlines() if line.strip()]
        kinds = [each[0] for each in words]
        start = next((each for each in words if each[0] == "start" and len(each) == 3), None)
        end = next((each for each in words if each[0] == "exit" and len(each) == 3), None)
        before_end = kinds[: kinds.index("exit")] if "exit" in kinds else kinds
        return cls(
            number=start[2] if start else None,
            started=float(start[1]) if start else None,
            ended=float(end[2]) if end else None,
            exit_code=int(end[1]) if end else None,
            cancelled="cancel" in before_end,
            terminated="term" in kinds,
            limited="limit" in kinds,
        )
