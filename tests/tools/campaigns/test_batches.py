"""What a batch of trials may hold: nothing that its jobs could not do, and more seeds of a trial that ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlintern.common.clock import SystemClock
from mlintern.server.services import Lab
from mlintern.server.settings import Settings
from mlintern.tools.campaigns import store
from mlintern.tools.campaigns.requests import SearchRequest, TrialRequest, parse
from mlintern.tools.campaigns.state import Trial
from mlintern.tools.errors import BadInput, Conflict
from tests.tools.campaigns.test_stage_jobs import NAME, opened

RECIPE: dict[str, Any] = {"trainer": "sft", "dataset": "org/data", "max_steps": 10}
pytestmark = pytest.mark.anyio


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = Lab(Settings(workspace=tmp_path))
    opened(lab.ledger)
    monkeypatch.setattr(lab.campaigns, "_ensure_runner", lambda name: None)
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


def asked(**fields: Any) -> TrialRequest:
    return parse(TrialRequest, fields, what="trials[0]")


def trial_of(lab: Lab, name: str = "sft") -> Trial:
    return next(trial for trial, _ in store.trials(lab.ledger, NAME) if trial.name == name)


def end(lab: Lab, state: Any, reason: str = "") -> None:
    with lab.ledger.transaction() as connection:
        store.set_state(
            connection, NAME, trial=trial_of(lab).number, state=state, reason=reason, now=SystemClock().now()
        )


@pytest.fixture
async def ran(lab: Lab) -> Lab:
    """With a trial `sft` of one seed that is done, and one that waits."""
    first = [asked(name="sft", recipe=RECIPE), asked(base="sft", change={"max_steps": 20})]
    assert await lab.campaigns.start(await lab.campaigns.plan_batch(NAME, first))
    end(lab, "done")
    return lab


@pytest.mark.parametrize(
    "request_",
    [
        {"name": "sft", "seeds": [0, 1, 2]},
        {"name": "sft", "seeds": [1, 2]},
        {"name": "sft", "recipe": RECIPE, "seeds": [0, 1, 2]},
        {"name": "sft", "recipe": RECIPE | {"model": "org/base"}, "seeds": [2, 1]},
    ],
)
async def test_the_same_name_with_more_seeds_adds_the_new_ones_and_asks_for_their_jobs_alone(
    ran: Lab, request_: dict[str, Any]
) -> None:
    batch = await ran.campaigns.plan_batch(NAME, [asked(**request_)])
    assert batch.trials == () and [sorted(one.seeds) for one in batch.more] == [[1, 2]]
    assert batch.jobs == 4, "a training and a measurement for each"
    assert trial_of(ran).seeds == (0,), "nothing is changed before the yes"
    assert await ran.campaigns.start(batch)
    trial = trial_of(ran)
    assert trial.state == "running" and trial.seeds[0] == 0 and sorted(trial.seeds) == [0, 1, 2]
    again = await ran.campaigns.plan_batch(NAME, [asked(**request_)])
    assert again.digest == batch.digest and not await ran.campaigns.start(again), "an answer that got lost"
    assert trial_of(ran) == trial


async def test_a_trial_named_by_its_change_takes_seeds_while_it_waits_and_beside_new_trials(ran: Lab) -> None:
    change = {"max_steps": 20}
    batch = await ran.campaigns.plan_batch(
        NAME, [asked(base="sft", change=change, seeds=[0, 5]), asked(base="sft", change={"max_steps": 40})]
    )
    assert [trial.name for trial in batch.trials] == ["max_steps=40"] and batch.jobs == 2 + 2
    await ran.campaigns.start(batch)
    assert trial_of(ran, "max_steps=20").seeds == (0, 5) and trial_of(ran, "max_steps=20").state == "waiting"


@pytest.mark.parametrize(
    "request_, said",
    [
        ({"name": "sft", "recipe": RECIPE | {"max_steps": 11}, "seeds": [1]}, "another max_steps"),
        ({"name": "sft", "recipe": RECIPE, "data": {"trainer": "generate"}, "seeds": [1]}, "another data"),
        ({"name": "sft", "base": "max_steps=20", "change": {"max_steps": 30}, "seeds": [1]}, "another max_steps"),
        ({"name": "sft", "seeds": [0]}, "with the seeds 0"),
        ({"name": "sft", "recipe": RECIPE}, "with the seeds 0"),
        ({"name": "sft", "seeds": list(range(1, 21))}, "over 20"),
        ({"name": "sfft", "seeds": [1]}, "no trial 'sfft'"),
        ({"name": "baseline", "seeds": [1]}, "a baseline"),
    ],
)
async def test_another_recipe_or_no_new_seed_is_refused_by_name(
    ran: Lab, request_: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=said) as refused:
        await ran.campaigns.plan_batch(NAME, [asked(**request_)])
    assert refused.value.next_step


async def test_seeds_run_where_and_as_long_as_the_first_ones_could(ran: Lab) -> None:
    with pytest.raises(BadInput, match="begun with timeout '1h', measure_timeout '30m'"):
        await ran.campaigns.plan_batch(NAME, [asked(name="sft", seeds=[1])], timeout="10m", measure_timeout="5m")


async def test_a_trial_that_was_ended_or_failed_takes_no_seeds(lab: Lab) -> None:
    await lab.campaigns.start(await lab.campaigns.plan_batch(NAME, [asked(name="sft", recipe=RECIPE)]))
    planned = await lab.campaigns.plan_batch(NAME, [asked(name="sft", seeds=[1])])
    end(lab, "failed", "out of memory")
    with pytest.raises(Conflict, match=r"failed\. out of memory"):
        await lab.campaigns.plan_batch(NAME, [asked(name="sft", seeds=[2])])
    with pytest.raises(Conflict, match=r"failed\. out of memory"):
        await lab.campaigns.start(planned)
    assert trial_of(lab).seeds == (0,) and len(store.batches(lab.ledger, NAME)) == 1


async def test_a_trial_keeps_its_seeds_while_the_confirm_half_is_measured(ran: Lab) -> None:
    with ran.ledger.transaction() as connection:
        store.add_confirmation(connection, NAME, trial=trial_of(ran).number, now=1.0)
    with pytest.raises(Conflict, match="confirm half"):
        await ran.campaigns.plan_batch(NAME, [asked(name="sft", seeds=[1])])


async def test_a_trial_that_got_seeds_while_its_end_was_being_decided_goes_on(ran: Lab) -> None:
    with ran.ledger.transaction() as connection:
        number = trial_of(ran).number
        store.add_seeds(connection, NAME, trial=number, seeds=[1])
        store.set_state(connection, NAME, trial=number, state="done", reason="", now=1.0, seeds=(0,))
    assert trial_of(ran).state == "running"
