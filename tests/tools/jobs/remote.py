"""Submissions for the tests of remote backends, without the service around them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.tools.jobs.spec import JobSpec, Submission


@dataclass(frozen=True)
class TextScript:
    """A script that lies nowhere."""

    text: str
    name: str = "script"
    recipe: dict[str, Any] | None = None
    requirements: tuple[str, ...] = ()
    python: str | None = None

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def script_id(self) -> str:
        return self.sha256[:12]


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
) -> Submission:
    """A job of ``text``, its folder made below ``folder``."""
    script = TextScript(text)
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
