"""Runs and measurements put together, whatever a measurement carries."""

from __future__ import annotations

from pathlib import Path

from mlintern.tools.ledger import Ledger
from mlintern.tools.runs import experiment_rows
from mlintern.tools.runs.leaderboard import build_leaderboard
from mlintern.tools.workspace import Workspace
from tests.tools.evals.results import row
from tests.tools.runs.experiments import EVALUATION, Bench


def test_a_score_that_carries_its_protocol_is_placed_and_its_measurer_named(
    workspace: Workspace, ledger: Ledger
) -> None:
    bench = Bench(workspace, ledger)
    model = bench.train("job-1")
    bench.job("job-2", EVALUATION | {"model": model})
    measured = row(model=model, protocol={"prompt": "{question}", "shots": 0})
    board = build_leaderboard(
        experiment_rows.trials(ledger, experiment="maxnum"), [("job-2", measured)], jobs_folder=Path(model).parents[2]
    )
    trained = next(trial for trial in board.trials if trial.run.job_id == "job-1")
    assert trained.score is measured and trained.measured_by == "job-2"
