"""What a job may spend at served models stands in its worst price, is set aside, and charged as its script says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from mlintern.server.services import Lab
from mlintern.server.settings import Settings
from mlintern.server.toolsets.experiments import starting
from mlintern.tools.campaigns.requests import Limits, TrialRequest
from mlintern.tools.errors import OutOfBudget
from mlintern.tools.jobs import money
from mlintern.tools.jobs.served_models import most_usd
from mlintern.tools.workspace import Workspace
from tests.tools.jobs.local_lab import LocalLab

pytestmark = pytest.mark.anyio

TEACHER = {"url": "https://teacher.example/v1", "key_variable": "KEY", "max_usd": 5, "usd_per_million": [1, 4]}
JUDGE = {"endpoint": {**TEACHER, "max_usd": 2}, "model": "judge", "rubric": "Is it right?"}
GENERATE: dict[str, Any] = {
    "trainer": "generate",
    "model": "teacher",
    "endpoint": TEACHER,
    "prompts": "org/prompts",
    "verifier": "judge",
    "judge": JUDGE,
}


def test_caps_are_summed_over_all_served_models_of_a_recipe() -> None:
    assert most_usd(GENERATE) == 7
    assert most_usd({"trainer": "sft", "evaluation": {"judge": JUDGE}}) == 2
    assert most_usd({"endpoint": {"url": "http://127.0.0.1:8000/v1"}}) == most_usd(None) == 0


async def test_estimate_and_plan_contain_them_and_a_budget_holds_them_back(tmp_path: Path) -> None:
    lab = Lab(Settings(workspace=tmp_path))
    assert lab.jobs is not None
    script_id = lab.scripts.render(GENERATE).script_id
    estimate = await lab.jobs.planner.estimate(script_id=script_id)
    assert estimate.usd_worst == 7
    assert any("at most $5.00" in line for line in estimate.basis) and any("$2.00" in line for line in estimate.basis)
    plan = await lab.jobs.planner.plan(script_id=script_id)
    assert plan.usd_worst == money.worst(plan) == 7
    with pytest.raises(OutOfBudget, match=r"\$7\.00"), lab.ledger.transaction() as connection:
        money.reserve(connection, plan, budget_usd=6, now=0.0)


@pytest.mark.parametrize(
    ("said", "charged"), [("3.25", 3.25), ("900", 5.0), ("-1", 0.0), ('"NaN"', 5.0), (None, 5.0)]
)
async def test_a_job_is_charged_what_its_script_says_and_the_cap_where_it_says_nothing(
    tmp_path: Path, said: str | None, charged: float
) -> None:
    row = f'{{"v": 1, "kind": "metrics", "time": 1, "values": {{"served_usd": {said}}}}}'
    write = f"Path(os.environ['MLINTERN_OUTPUT_DIR'], 'metrics.jsonl').write_text({row!r} + '\\n')"
    lab = LocalLab(Workspace(tmp_path))
    text = f"import os\nfrom pathlib import Path\n{write if said else ''}\n"
    script_id = lab.scripts.add(text, recipe={"trainer": "generate", "endpoint": TEACHER})
    with anyio.fail_after(60):
        plan = await lab.jobs.planner.plan(script_id=script_id, timeout="1m")
        await lab.jobs.submit(plan)
        job = plan.job_id
        assert (await lab.end_of(job)).state == "succeeded"
    with lab.ledger.read() as connection:
        assert money.charged(connection, job) == charged
        assert money.committed(connection) == charged


async def test_the_price_of_a_batch_contains_teachers_and_judges_and_the_person_is_asked(tmp_path: Path) -> None:
    lab = Lab(Settings(workspace=tmp_path / "home"))
    items = tmp_path / "items.jsonl"
    items.write_text("".join(json.dumps({"id": n, "question": f"{n}?", "answer": str(n)}) + "\n" for n in range(60)))
    evaluation = {"dataset": str(items), "scorer": "judge", "judge": JUDGE}
    await lab.campaigns.open(
        "judged", model="org/model", evaluation=evaluation, limits=Limits(hours=1), metric="accuracy"
    )
    data = {key: value for key, value in GENERATE.items() if key not in ("verifier", "judge")} | {"keep": "all"}
    trial = TrialRequest(recipe={"trainer": "sft"}, data=data, seeds=[0, 1])
    batch = await lab.campaigns.plan_batch("judged", [trial])
    # Two baselines and two seeds are judged, the teacher is asked once.
    assert batch.usd_worst == 4 * 2 + 5
    [judge, teacher] = starting(batch).always_ask
    assert "$2.00" in judge and "$5.00" in teacher
