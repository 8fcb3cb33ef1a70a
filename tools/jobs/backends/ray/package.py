"""The working directory that a job on Ray gets: the script, and the shell lines that hold its time limit."""

from __future__ import annotations

import io
import re
import shlex
import zipfile
from collections.abc import Sequence

from mlintern.tools.jobs.backend import Submission
from mlintern.tools.jobs.backends.script_launch import ENDED, KILLED, launch_line, limit_seconds

STARTED = re.compile(rb"mlintern: started at (\d+)")
"""How a job says when it began, as its first line: Ray's ``start_time`` is that of the submission."""

_RUN = """\
# {job_id}
export MLINTERN_OUTPUT_DIR={output}
mkdir -p "$MLINTERN_OUTPUT_DIR" || exit 1
echo "mlintern: started at $(date +%s) on $(hostname)"
timeout --kill-after={grace} {seconds} bash -c {launch}
code=$?
# A script that ignored TERM was killed instead of ended.
[ "$code" = {killed} ] && [ "$SECONDS" -ge {whole_seconds} ] && exit {ended}
exit "$code"
"""


def archive_of(
    submission: Submission,
    *,
    launch: Sequence[str] | None,
    processes: int,
    output: str | None,
    grace_seconds: int,
) -> bytes:
    """A zip file of the script and of what runs it; the same submission gives the same bytes.

    Args:
        launch: the interpreter, None for ``uv run``. processes: how many of the script run together.
        output: the job's output folder, None for one in the working directory.
        grace_seconds: between TERM and KILL at the time limit.
    """
    seconds = limit_seconds(submission.spec.timeout_seconds)
    run = _RUN.format(
        job_id=submission.job_id,  # makes the package this job's own: Ray deletes one when its job is over
        output=shlex.quote(output) if output else '"$PWD/output"',
        grace=grace_seconds,
        seconds=f"{seconds:g}",
        whole_seconds=int(seconds),
        launch=shlex.quote(launch_line(launch, script="script.py", args=submission.spec.args, processes=processes)),
        killed=KILLED,
        ended=ENDED,
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (("script.py", submission.script.text), ("run.sh", run)):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)  # same content, same name below
    return buffer.getvalue()
