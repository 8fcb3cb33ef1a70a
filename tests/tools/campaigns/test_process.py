"""The runner's process works with what the server's command line said about jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlintern.common.clock import SystemClock
from mlintern.server.services import Lab
from mlintern.server.settings import Settings
from mlintern.tools.campaigns.process import assemble
from mlintern.tools.jobs.backends import configured

CONFIG = """
[budget.experiments]
largest = 3.5

[local]
slots = 3
"""


@pytest.mark.parametrize("unsandboxed", [True, False])
def test_the_runner_sets_up_the_jobs_that_the_server_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unsandboxed: bool
) -> None:
    seen: list[dict[str, Any]] = []
    set_up = configured.set_up

    def watched(**settings: Any) -> Any:
        seen.append({name: settings.get(name) for name in ("slots", "python", "unsandboxed", "config")})
        return set_up(**settings)

    monkeypatch.setattr(configured, "set_up", watched)
    (tmp_path / "config.toml").write_text(CONFIG)
    lab = Lab(Settings(workspace=tmp_path, slots=2, unsandboxed=unsandboxed))
    assert lab.jobs is not None
    assemble("largest", workspace=lab.workspace, clock=SystemClock(), options=lab.job_options)
    server, runner = seen
    assert server == runner
    assert runner["unsandboxed"] is unsandboxed and runner["slots"] == 2


def test_the_runner_holds_to_the_budgets_of_the_configuration(tmp_path: Path) -> None:
    lab = Lab(Settings(workspace=tmp_path))
    (tmp_path / "config.toml").write_text(CONFIG)
    assemble("largest", workspace=lab.workspace, clock=SystemClock(), options=lab.job_options)
    with lab.ledger.read() as connection:
        row = connection.execute("SELECT budget_usd FROM experiments WHERE name = 'largest'").fetchone()
    assert row["budget_usd"] == 3.5
