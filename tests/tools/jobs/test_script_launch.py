"""How scripts are started, on one device or several."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mlintern.tools.jobs.backends.script_launch import launch_line, limit_seconds, processes_for
from mlintern.tools.jobs.backends.slurm.batch import batch_script
from tests.tools.jobs.local_lab import WrittenScript


@pytest.mark.parametrize(
    ("recipe", "requirements", "accelerators", "processes"),
    [
        ({"trainer": "sft"}, (), 4, 4),
        ({"trainer": "evaluation"}, ("trl==1.16.0",), 4, 1),
        ({"trainer": "sft"}, (), 0, 1),
        (None, ("torch>=2.9", "trl[peft]>=1.16"), 2, 2),
        (None, ("TRL",), 2, 2),
        (None, ("torch", "trl-jobs==0.4"), 2, 1),
        (None, (), 2, 1),
    ],
)
def test_trainers_spread_over_all_devices_and_anything_else_runs_once(
    recipe: dict[str, str] | None, requirements: tuple[str, ...], accelerators: int, processes: int
) -> None:
    script = WrittenScript("", recipe=recipe, requirements=requirements)
    assert processes_for(script, accelerators) == processes


@pytest.mark.parametrize(("timeout", "limit"), [(3600, 3480), (241, 121), (240, 240), (0.2, 1)])
def test_long_jobs_are_told_two_minutes_before_their_limit(timeout: float, limit: float) -> None:
    assert limit_seconds(timeout) == limit


def test_where_there_is_no_uv_the_plain_interpreter_is_used_and_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\necho ran $*\n")
    (tmp_path / "python3").chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", launch_line(None, script="a b.py", args=["$HOME"])],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "ran a b.py $HOME\n"
    assert "there is no uv here" in done.stderr


def test_a_module_that_cannot_be_loaded_fails_the_job_before_its_script(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    script = batch_script(
        folder=str(tmp_path),
        script="",
        environment={},
        modules=("cuda/0",),
        prologue="",
        seconds=5,
        grace=1,
        launch=f"touch {tmp_path}/ran",
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=False, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 1
    assert not (tmp_path / "ran").exists()
