"""What a batch of trials may hold: nothing that its jobs could not do, and more seeds of a trial that ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlintern.server.services import Lab
from mlintern.server.settings import Settings
from mlintern.tools.campaigns.requests import SearchRequest, TrialRequest
from mlintern.tools.errors import BadInput
from tests.tools.campaigns.test_stage_jobs import NAME, opened

RECIPE: dict[str, Any] = {"trainer": "sft", "dataset": "org/data", "max_steps": 10}
pytestmark = pytest.mark.anyio


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(Settings(workspace=tmp_path))
    opened(lab.ledger)
    return lab


async def test_a_trial_that_would_push_to_the_hub_is_refused_before_anything_is_asked(lab: Lab) -> None:
    pushing = TrialRequest(name="pushes", recipe=RECIPE | {"push_to_hub": "me/model"})
    with pytest.raises(BadInput, match=r"'pushes' has push_to_hub.*no secrets") as refused:
        await lab.campaigns.plan_batch(NAME, [pushing])
    assert "publish_to_hub" in str(refused.value.next_step) and "confirm" in str(refused.value.next_step)
    by_change = [
        TrialRequest(name="sft", recipe=RECIPE),
        TrialRequest(base="sft", change={"push_to_hub": "me/model"}),
    ]
    with pytest.raises(BadInput, match="has push_to_hub"):
        await lab.campaigns.plan_batch(NAME, by_change)
    searched = SearchRequest(kind="grid", base="sft", space={"push_to_hub": ["me/model"]})
    with pytest.raises(BadInput, match="would set push_to_hub"):
        await lab.campaigns.plan_batch(NAME, by_change[:1], search=searched)
    kept = TrialRequest(name="stays", recipe=RECIPE | {"push_to_hub": None})
    assert [trial.name for trial in (await lab.campaigns.plan_batch(NAME, [kept])).trials][-1] == "stays"
