"""What Hugging Face is asked to run: the settings of ``config.toml`` and a submission, as arguments of ``run_job``.

A script goes along compressed in environment variables, which need no upload and no token inside the job; a very
large one goes to a private repository that is mounted at its commit.
"""

from __future__ import annotations

import base64
import gzip
import io
import math
import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlintern.tools.config import HfJobsSettings
from mlintern.tools.errors import BadInput
from mlintern.tools.jobs.arguments import MAX_ARGUMENT_BYTES
from mlintern.tools.jobs.backend import Submission
from mlintern.tools.jobs.backends.hf.schedules import LABEL, Ask, not_after
from mlintern.tools.jobs.backends.script_launch import (
    GRACE_SECONDS,
    SAMPLES_IN_LOG,
    launch_line,
    limit_seconds,
    processes_for,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi

"""The image that Hugging Face's own ``hf jobs uv run`` uses: uv, and no CUDA toolkit, which PyTorch brings along."""

PIECE_CHARACTERS = 96 * 1024
"""Linux takes at most 128 KiB in one environment string."""

MAX_PIECES = 4


async def request_for(
    submission: Submission, settings: HfJobsSettings, *, namespace: str, accelerators: int, ask: Ask
) -> dict[str, Any]:
    """The arguments of ``run_job`` and ``create_scheduled_job``.

    Raises:
        BadInput: no container could be started with so many arguments.
    """
    from huggingface_hub import Volume

    volumes = [
        Volume(
            type=volume.type,
            source=volume.source,
            mount_path=volume.mount_path,
            revision=volume.revision,
            read_only=volume.read_only,
        )
        for volume in settings.volumes
    ]
    pieces = _packed(submission.script.text)
    if len(pieces) <= MAX_PIECES:
        environment = {f"MLINTERN_SCRIPT_{index}": piece for index, piece in enumerate(pieces)}
        unpack = "".join(f'"$MLINTERN_SCRIPT_{index}"' for index in range(len(pieces)))
        fetch = f"printf %s {unpack} | base64 -d | gzip -d > script.py"
    else:
        environment = {}
        volumes.append(await _uploaded(submission, namespace, ask))
        fetch = f"cp /mlintern-script/{submission.spec.script_id}.py script.py"
    environment |= {
        **dict(submission.spec.env),
        **SAMPLES_IN_LOG,
        "MLINTERN_JOB_ID": submission.job_id,
        "MLINTERN_OUTPUT_DIR": settings.output_of(submission.job_id),
        "PYTHONUNBUFFERED": "1",
        "UV_NO_PROGRESS": "1",
    }
    processes = processes_for(submission.script, accelerators)
    command = _command(submission, settings, fetch=fetch, processes=processes)
    if len(command.encode()) >= MAX_ARGUMENT_BYTES:
        raise BadInput(
            "The arguments together are over 128 KiB, which no container could be started with.",
            next_step="Put them in a dataset, or in the script.",
        )
    return {
        "image": settings.image,
        "command": ["/bin/sh", "-c", command],
        "env": environment,
        "secrets": dict(submission.secrets) or None,
        "flavor": submission.spec.hardware,
        "timeout": math.ceil(submission.spec.timeout_seconds),
        "labels": {LABEL: submission.job_id},
        "volumes": volumes or None,
        "namespace": namespace,
    }


def _command(submission: Submission, settings: HfJobsSettings, *, fetch: str, processes: int) -> str:
    """What the container runs: the script from a file, so that it has a path and can start workers."""
    seconds = limit_seconds(submission.spec.timeout_seconds)
    folder = settings.folder
    line = launch_line(settings.launch, script=f"{folder}/script.py", args=submission.spec.args, processes=processes)
    begin = "set -e; "
    if submission.until is not None:
        begin += not_after(submission.until)
        if settings.output:  # on a volume, which all runs of a schedule see; the service sets JOB_ID
            begin += 'MLINTERN_OUTPUT_DIR="${MLINTERN_OUTPUT_DIR%/output}/${JOB_ID:?}/output"; '
    return (
        f'{begin}mkdir -p {shlex.quote(folder)} "$MLINTERN_OUTPUT_DIR"; cd {shlex.quote(folder)}; '
        f"{fetch}; exec timeout -k {GRACE_SECONDS} {seconds:g} /bin/sh -c {shlex.quote(line)}"
    )


def limit_in(command: Sequence[str] | None) -> float | None:
    """The seconds after which TERM comes, from the ``command`` of a job that was started like that; else None."""
    found = re.search(rf"exec timeout -k {GRACE_SECONDS} ([\d.]+) /bin/sh", command[-1] if command else "")
    return float(found[1]) if found else None


async def _uploaded(submission: Submission, namespace: str, ask: Ask) -> Any:
    """The script in a private repository, as a volume at the commit that holds just it."""
    from huggingface_hub import Volume

    repository = f"{namespace}/mlintern-scripts"

    def upload(api: HfApi) -> str:
        api.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
        commit = api.upload_file(
            path_or_fileobj=io.BytesIO(submission.script.text.encode()),
            path_in_repo=f"{submission.spec.script_id}.py",
            repo_id=repository,
            repo_type="dataset",
            commit_message=f"Script {submission.spec.script_id}",
        )
        return str(commit.oid)

    revision = await ask(upload, doing="upload the script")
    return Volume(type="dataset", source=repository, mount_path="/mlintern-script", revision=revision)


def _packed(text: str) -> list[str]:
    packed = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
    return [packed[start : start + PIECE_CHARACTERS] for start in range(0, len(packed), PIECE_CHARACTERS)]
