"""Commands for people: what they print, and what they exit with."""

from __future__ import annotations

import json

import anyio
import pytest

from mlintern.server.cli import main
from mlintern.server.people import tables
from mlintern.server.services import Lab
from mlintern.server.settings import Settings
from mlintern.tools.jobs.job_results import JobStatus, Progress
from mlintern.tools.jobs.spec import JobSpec
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.server.test_jobs import ENDLESS, QUICK
from tests.tools.runs.experiments import Bench, first_light

Said = pytest.CaptureFixture[str]


@pytest.fixture
def bench(workspace: Workspace, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("COLUMNS", "160")
    return first_light(workspace, ledger)


def start(code: str, **details: str) -> str:
    """A job on this machine, as an agent starts it; returns its id."""

    async def submit() -> str:
        lab = Lab(Settings())
        script = lab.scripts.edit(code=code, name="hello")
        spec: JobSpec = await lab.jobs.planner.plan(script_id=script.script_id, timeout="5m", **details)
        await lab.jobs.submit(spec)
        return spec.job_id

    return anyio.run(submit)


def test_jobs_shows_every_job_with_its_state_and_cost(bench: Bench, capsys: Said) -> None:
    assert main(["jobs"]) == 0
    shown = capsys.readouterr().out
    assert "job-oom" in shown and "failed" in shown and "killed: out of memory" in shown and "$1.50" in shown
    assert main(["jobs", "--status", "failed", "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert [job["job_id"] for job in page["items"]] == ["job-oom"]


def test_an_unknown_job_is_an_error_with_the_nearest(bench: Bench, capsys: Said) -> None:
    assert main(["show", "job-sft3"]) == 1
    assert "There is no job 'job-sft3'" in capsys.readouterr().err


def test_runs_shows_scores_and_verdicts(bench: Bench, capsys: Said) -> None:
    assert main(["runs", "maxnum", "--sort", "best"]) == 0
    shown = capsys.readouterr().out
    assert "sft-800" in shown and "improved" in shown and "0.878 ±" in shown and "(1,000 items)" in shown
    assert main(["runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == 5


def test_report_writes_the_report_and_says_where(bench: Bench, workspace: Workspace, capsys: Said) -> None:
    assert main(["report", "maxnum"]) == 0
    path = workspace.root / "reports" / "maxnum" / "report.md"
    assert path.is_file() and str(path) in capsys.readouterr().out.replace("\n", "")


def test_a_job_is_watched_to_its_end_and_shown(workspace: Workspace, capsys: Said) -> None:
    job_id = start(QUICK, run_name="greeting")
    assert main(["watch", "greeting"]) == 0
    assert main(["logs", "-f", job_id[:10]]) == 0
    captured = capsys.readouterr()
    assert "hello from the job\n" in captured.out and f"{job_id} succeeded" in captured.err
    assert main(["show", job_id]) == 0
    shown = capsys.readouterr().out
    assert job_id in shown and "succeeded" in shown and "local cpu" in shown and "greeting" in shown


def test_a_job_is_cancelled_and_then_is_over(workspace: Workspace, capsys: Said) -> None:
    job_id = start(ENDLESS)
    assert main(["cancel", job_id, "--reason", "enough"]) == 0
    assert main(["watch", job_id]) == 1, "what did not succeed is no success"
    capsys.readouterr()
    assert main(["show", job_id, "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["state"] == "cancelled" and "enough" in status["error"]
    assert main(["cancel", job_id]) == 1
    assert "is over: cancelled" in capsys.readouterr().err


def test_a_job_cannot_cancel_jobs(bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    monkeypatch.setenv("MLINTERN_JOB_ID", "job-sft1")
    assert main(["cancel", "job-sft1"]) == 1
    assert "only a person decides" in capsys.readouterr().err


def test_a_line_of_metrics_is_short_and_free_of_control_characters() -> None:
    status = JobStatus(
        job_id="job-1",
        state="running",
        seconds_in_state=3.0,
        backend="local",
        hardware="cpu",
        progress=Progress(step=40, total=100, eta_seconds=180.0),
        metrics={"epoch": 0.4, "loss": 1.23456, "note": "\x1b[2J"},
    )
    assert tables.metrics_line(status).startswith("step 40 of 100, 3 min left · loss 1.235  epoch 0.4")
    assert "\x1b" not in tables.metrics_line(status)
