"""A job cannot answer for a person with the commands that people have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlintern.server.inside_job import refuse_inside_job
from mlintern.tools.errors import BadInput

APPROVE = [sys.executable, "-m", "mlintern.server", "approve", "0123456789ab"]


def run(command: list[str], home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MLINTERN_HOME": str(home), **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("arguments", [["approve", "0123456789ab"], ["deny", "0123456789ab"], ["approvals", "--web"]])
def test_a_decision_from_inside_a_job_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    ended = run([*APPROVE[:3], *arguments], tmp_path, MLINTERN_JOB_ID="job-1")
    assert ended.returncode == 1 and "from inside a job; only a person decides" in ended.stderr


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads the processes above from /proc")
def test_a_job_that_clears_its_variables_first_is_refused_all_the_same(tmp_path: Path) -> None:
    clean = f"env -u MLINTERN_JOB_ID {' '.join(APPROVE)}; exit $?"
    ended = run(["sh", "-c", clean], tmp_path, MLINTERN_JOB_ID="job-1")
    assert ended.returncode == 1 and "from inside a job" in ended.stderr


def test_a_person_is_not_refused(tmp_path: Path) -> None:
    ended = run(APPROVE, tmp_path)
    assert ended.returncode == 1 and "No question with digest" in ended.stderr


def test_processes_that_cannot_be_read_end_the_search(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (a) b) S 6 7 7")
    refuse_inside_job("approve", environ={}, process=7, proc=tmp_path)
    (tmp_path / "6").mkdir()
    (tmp_path / "6" / "environ").write_bytes(b"A=1\0MLINTERN_DRY_RUN={}\0")
    with pytest.raises(BadInput):
        refuse_inside_job("approve", environ={}, process=7, proc=tmp_path)
