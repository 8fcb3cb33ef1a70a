"""Facts re-read from the servers after a compaction."""

from __future__ import annotations

from typing import Any

import pytest

from mlintern.orchestrator.budget import ModelBudget
from mlintern.orchestrator.compacted_message import render
from mlintern.orchestrator.facts import LabFacts
from mlintern.orchestrator.prices import PRICES
from mlintern.orchestrator.tool import Tool, ToolOutcome

pytestmark = pytest.mark.anyio

JOBS = {
    "items": [
        {
            "job_id": "job-2",
            "state": "running",
            "backend": "local",
            "hardware": "cpu",
            "script_id": "ab12",
            "usd_so_far": 0.5,
        },
        {
            "job_id": "job-1",
            "state": "failed",
            "backend": "hf",
            "hardware": "a10g",
            "script_id": "cd34",
            "error": "OOM",
        },
    ],
    "total": 7,
    "next_cursor": "more",
}
RUNS = {
    "runs": [
        {
            "run_id": "r",
            "job_id": "job-0",
            "experiment": "exp",
            "state": "succeeded",
            "best": {"accuracy": 0.71},
            "usd": 2,
        }
    ]
}


class Servers:
    """Named tools with fixed answers."""

    def __init__(self, **answers: ToolOutcome) -> None:
        self.answers = answers

    def by_remote_name(self, remote: str) -> Tool | None:
        if remote not in self.answers:
            return None
        return Tool(name=f"lab__{remote}", description="", input_schema={}, side_effect="read_only")

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolOutcome:
        return self.answers[name.removeprefix("lab__")]


def structured(value: dict[str, Any]) -> ToolOutcome:
    return ToolOutcome(content=[], structured=value)


async def facts(servers: Servers, **options: Any) -> str:
    return render(await LabFacts(servers, budget=ModelBudget(5, PRICES, spent_usd=1.5), **options)())


async def test_jobs_scores_money_and_approvals_are_told() -> None:
    servers = Servers(list_jobs=structured(JOBS), list_runs=structured(RUNS))
    text = await facts(servers, approvals=lambda: ["submit_job:local<=30m"])
    assert "- job-2: running (local/cpu, script ab12)" in text
    assert "- job-1: failed (hf/a10g, script cd34, error OOM)" in text
    assert "- and older ones: 7 in all, see list_jobs" in text
    assert '- exp job-0: succeeded, best {"accuracy": 0.71}' in text
    assert "- model: $1.50 of $5.00 spent" in text and "- compute: $2.00 so far" in text
    assert "- submit_job:local<=30m" in text


async def test_what_cannot_be_read_is_said_not_left_out() -> None:
    text = await facts(Servers(list_jobs=ToolOutcome.error("the ledger is locked")))
    assert "could not be read just now (the ledger is locked); call lab__list_jobs" in text


async def test_other_servers_have_no_jobs_and_that_is_fine() -> None:
    assert await facts(Servers()) == "## Money\n- model: $1.50 of $5.00 spent"


async def test_a_result_in_text_form_is_read_too() -> None:
    import json

    outcome = ToolOutcome(content=[{"type": "text", "text": json.dumps(JOBS)}])
    assert "job-2: running" in await facts(Servers(list_jobs=outcome))
