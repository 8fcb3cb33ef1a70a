"""Submissions for the tests of remote backends, without the service around them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mlintern.tools.jobs.backend import Submission
from mlintern.tools.jobs.spec import JobSpec
from tests.tools.jobs.local_lab import WrittenScript


def submission(
    folder: Path,
    text: str,
    *,
    backend: str = "slurm",
    hardware: str,
    timeout_seconds: float = 300,
    args: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    run_name: str | None = None,
    requirements: tuple[str, ...] = (),
) -> Submission:
    """A job of ``text``, its folder made below ``folder``."""
    script = WrittenScript(text, requirements=requirements)
    spec = JobSpec(
        script_id=script.script_id,
        script_sha256=script.sha256,
        backend=backend,
        hardware=hardware,
        timeout_seconds=timeout_seconds,
        args=args,
        env=tuple(sorted((env or {}).items())),
        secrets=tuple(sorted(secrets or ())),
        run_name=run_name,
    )
    job_folder = folder / "jobs" / spec.job_id
    job_folder.mkdir(parents=True, exist_ok=True)
    return Submission(job_id=spec.job_id, spec=spec, script=script, folder=job_folder, secrets=secrets or {})
