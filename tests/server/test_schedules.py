"""A schedule is asked about each time, whatever was allowed in advance, and with the cost of all its runs."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from mcp import Client

from mlintern.common.consent import Action
from mlintern.server.app import build_server
from mlintern.server.services import Lab
from mlintern.server.settings import Settings
from mlintern.tools.allowances import Allowances
from mlintern.tools.config import HfJobsSettings
from mlintern.tools.jobs.backends.hf.backend import HfJobsBackend
from tests.server.asking import NO, YES, Person
from tests.server.test_jobs import answer, store
from tests.services.hf_jobs import TOKEN, HfJobs

pytestmark = pytest.mark.anyio

NIGHTLY = {
    "backend": "hf_jobs",
    "hardware": "a10g-largex2",
    "timeout": "30m",
    "schedule": "0 3 * * 1-5",
    "schedule_runs": 4,
}


@pytest.fixture
def service() -> Iterator[HfJobs]:
    with HfJobs() as running:
        yield running


@asynccontextmanager
async def desk(
    home: Path, service: HfJobs, *, era: str = "auto", person: Person | None = None, **given: object
) -> AsyncIterator[Client]:
    allowed = Allowances.parse(allow=("hf<=100usd", "hf<=2h"), budget_usd=200.0)
    lab = Lab(Settings(workspace=home, allowances=allowed))
    settings = HfJobsSettings(launch=(sys.executable,), folder=str(home / "container"))
    lab.backends = {"hf_jobs": HfJobsBackend(api=lambda: HfApi(endpoint=service.url, token=TOKEN), settings=settings)}
    async with Client(build_server(lab.settings, lab=lab), mode=era, elicitation_callback=person) as client:
        yield client


@pytest.mark.parametrize("era", ["auto", "legacy"])
async def test_a_schedule_asks_in_spite_of_every_allowance_and_names_times_runs_and_the_cost_of_all(
    tmp_path: Path, service: HfJobs, era: str
) -> None:
    person = Person(YES)
    async with desk(tmp_path, service, era=era, person=person) as client:
        script_id = await store(client, name="nightly")
        once = {"script_id": script_id, "backend": "hf_jobs", "hardware": "a10g-largex2"}
        assert (await answer(client, "submit_job", **once))["status"] == "submitted"
        assert person.asked == [], "a single job is covered by the allowance"
        made = await answer(client, "submit_job", script_id=script_id, **NIGHTLY)
        assert (made["status"], made["usd_worst"]) == ("submitted", 7.0)
        assert (await answer(client, "submit_job", script_id=script_id, **NIGHTLY))["status"] == "already_submitted"
    [asked] = person.asked
    lines = asked.message.splitlines()
    cost = "at most 7.00 USD on hf_jobs a10g-largex2, 4 runs, up to 30 min each"
    assert lines[0] == f'{cost} (digest {made["digest"][:12]}): Schedule script "nightly"?'
    assert "Schedule: 0 3 * * 1-5 (UTC), 4 runs at most" in lines
    assert len(service.scheduled) == 1


async def test_no_rule_of_the_orchestrator_speaks_for_a_schedule(tmp_path: Path, service: HfJobs) -> None:
    person = Person(NO)
    async with desk(tmp_path, service, person=person) as client:
        denied = await answer(client, "submit_job", script_id=await store(client), **NIGHTLY)
    assert denied["status"] == "denied" and service.scheduled == {}
    [asked] = person.asked
    action = Action.from_meta(asked.meta)
    assert action is not None and action.kind == "schedule_job", "no rule for single jobs speaks for it"


async def test_a_poll_of_a_schedule_lists_its_runs_and_cancel_ends_it(tmp_path: Path, service: HfJobs) -> None:
    async with desk(tmp_path, service, person=Person(YES)) as client:
        made = await answer(client, "submit_job", script_id=await store(client), **NIGHTLY)
        (scheduled,) = service.scheduled.values()
        job = service.tick(scheduled)
        assert job is not None
        job.stage, job.running_seconds = "COMPLETED", 60.0
        status = await answer(client, "poll_job", job_id=made["job_id"])
        assert [run["state"] for run in status["scheduled_runs"]] == ["succeeded"]
        assert status["usd_so_far"] == 0.05 and "cancel_job ends the schedule" in status["next_step"]
        ended = await answer(client, "cancel_job", job_id=made["job_id"], reason="enough")
        assert (ended["state"], ended["error"]) == ("cancelled", "enough")
    assert service.scheduled == {}


async def test_a_schedule_without_a_bound_or_on_another_backend_is_refused_before_anybody_is_asked(
    tmp_path: Path, service: HfJobs
) -> None:
    person = Person(YES)
    async with desk(tmp_path, service, person=person) as client:
        script_id = await store(client)
        for wrong, said in [
            ({"schedule_runs": None}, "schedule_runs"),
            ({"schedule": "every night"}, "@daily"),
            ({"schedule": None}, "without a schedule"),
        ]:
            result = await client.call_tool("submit_job", {"script_id": script_id, **NIGHTLY, **wrong})
            assert result.is_error and said in result.content[0].text  # type: ignore[union-attr]
    assert person.asked == [] and service.scheduled == {}


async def test_what_was_approved_and_then_refused_can_be_taken_back_and_holds_no_budget_then(
    tmp_path: Path, service: HfJobs
) -> None:
    service.refuse = (402, {}, "You need credits to run jobs")
    async with desk(tmp_path, service, person=Person(YES)) as client:
        script_id = await store(client)
        result = await client.call_tool("submit_job", {"script_id": script_id, **NIGHTLY})
        assert result.is_error and "settings/billing" in result.content[0].text  # type: ignore[union-attr]
        lab = Lab(Settings(workspace=tmp_path))
        [held] = lab.approvals.list(state="approved")
        assert lab.approvals.spent_usd() == 7.0
        lab.approvals.deny(held.digest, via="command line")
        assert lab.approvals.spent_usd() == 0.0
        service.refuse = None
        assert (await answer(client, "submit_job", script_id=script_id, **NIGHTLY))["status"] == "denied"
