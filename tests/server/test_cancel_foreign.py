"""Ending a job that somebody else submitted: a person is asked, whatever was allowed for our own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mcp.types import ElicitResult

from mlintern.common.commands import shown_command
from tests.server.asking import NO, YES, Person
from tests.server.test_jobs import answer, store, text
from tests.server.test_schedules import desk
from tests.services.hf_jobs import NAMESPACE, HfJobs, Job

pytestmark = pytest.mark.anyio


@pytest.fixture
def service() -> Iterator[HfJobs]:
    with HfJobs() as running:
        yield running


@pytest.fixture
def theirs(service: HfJobs) -> Job:
    body = {
        "command": ["python", "train.py"],
        "environment": {},
        "flavor": "a10g-largex2",
        "labels": {"name": "nightly"},
    }
    job = Job("a" * 24, body, stage="RUNNING")
    job.initiator = {"type": "user", "id": "o2", "name": "colleague"}
    service.jobs[job.id] = job
    return job


@pytest.mark.parametrize("era", ["auto", "legacy"])
async def test_the_person_sees_whose_job_it_is_and_it_ends_when_they_agree(
    tmp_path: Path, service: HfJobs, theirs: Job, era: str
) -> None:
    person = Person(ElicitResult(action="accept", content={"approve": True, "note": "She asked me to"}))
    async with desk(tmp_path, service, era=era, person=person) as client:
        ended = await answer(client, "cancel_job", job_id=f"hf_jobs:{NAMESPACE}/{theirs.id}")
    assert (ended["status"], ended["state"], theirs.stage) == ("asked_to_end", "cancelled", "CANCELED")
    assert ended["note"].endswith("She asked me to")
    lines = person.asked[0].message.splitlines()
    assert lines[0].startswith("free of charge on hf_jobs (digest ") and "Cancel somebody else's job" in lines[0]
    assert f"Job: {NAMESPACE}/{theirs.id}" in lines
    assert {"Name: nightly", "Submitted by: colleague", "Hardware: a10g-largex2", "Command: python train.py"} <= set(
        lines
    )


async def test_a_no_leaves_the_job_alone_and_is_a_normal_answer(tmp_path: Path, service: HfJobs, theirs: Job) -> None:
    async with desk(tmp_path, service, person=Person(NO)) as client:
        denied = await answer(client, "cancel_job", job_id=f"hf_jobs:{NAMESPACE}/{theirs.id}")
    assert (denied["status"], denied["state"], theirs.stage) == ("denied", "running", "RUNNING")


async def test_where_nobody_can_be_asked_the_command_is_named_and_the_job_goes_on(
    tmp_path: Path, service: HfJobs, theirs: Job
) -> None:
    async with desk(tmp_path, service) as client:
        waits = await answer(client, "cancel_job", job_id=f"hf_jobs:{NAMESPACE}/{theirs.id}")
    assert (waits["status"], theirs.stage) == ("approval_required", "RUNNING")
    assert waits["how_to_approve"].startswith(shown_command("mlintern-server", "approve", waits["digest"][:12]))


async def test_an_approval_for_one_job_is_none_for_another(tmp_path: Path, service: HfJobs, theirs: Job) -> None:
    other = Job("b" * 24, dict(theirs.body), stage="RUNNING")
    service.jobs[other.id] = other
    person = Person(YES)
    async with desk(tmp_path, service, person=person) as client:
        await answer(client, "cancel_job", job_id=f"hf_jobs:{NAMESPACE}/{theirs.id}")
        person.answer = NO
        denied = await answer(client, "cancel_job", job_id=f"hf_jobs:{NAMESPACE}/{other.id}")
    assert (denied["status"], other.stage, len(person.asked)) == ("denied", "RUNNING", 2)


async def test_our_own_job_is_known_by_the_address_of_its_page_and_needs_no_question(
    tmp_path: Path, service: HfJobs
) -> None:
    async with desk(tmp_path, service, person=None) as client:
        script_id = await store(client)
        ours = await answer(client, "submit_job", script_id=script_id, backend="hf_jobs", hardware="cpu-basic")
        (job,) = service.jobs.values()
        page = f"https://huggingface.co/jobs/{NAMESPACE}/{job.id}"
        ended = await answer(client, "cancel_job", job_id=page, reason="enough")
    assert (ended["job_id"], ended["state"], ended["error"]) == (ours["job_id"], "cancelled", "enough")


@pytest.mark.parametrize(
    ("job_id", "said"),
    [
        (f"hf_jobs:{NAMESPACE}/{'c' * 24}", "shows this token no job"),
        ("hf_jobs:elsewhere", "hf_jobs:NAMESPACE/ID"),
        ("slurm:12", "no backend 'slurm'"),
        ("job-123456123456", "There is no job"),
    ],
)
async def test_what_names_no_job_is_refused_with_what_to_do(
    tmp_path: Path, service: HfJobs, job_id: str, said: str
) -> None:
    person = Person(YES)
    async with desk(tmp_path, service, person=person) as client:
        result = await client.call_tool("cancel_job", {"job_id": job_id})
    assert result.is_error and said in text(result) and person.asked == []


async def test_a_job_that_is_over_is_not_asked_about(tmp_path: Path, service: HfJobs, theirs: Job) -> None:
    theirs.stage = "COMPLETED"
    person = Person(YES)
    async with desk(tmp_path, service, person=person) as client:
        result = await client.call_tool("cancel_job", {"job_id": f"hf_jobs:{NAMESPACE}/{theirs.id}"})
    assert result.is_error and "over: succeeded" in text(result) and person.asked == []


async def test_a_token_on_somebodys_command_line_is_neither_shown_nor_kept(
    tmp_path: Path, service: HfJobs, theirs: Job
) -> None:
    token = "hf_" + "a1" * 17
    theirs.body["command"] = ["python", "train.py", "--token", token]
    person = Person(NO)
    async with desk(tmp_path, service, person=person) as client:
        await answer(client, "cancel_job", job_id=f"hf_jobs:{NAMESPACE}/{theirs.id}")
    assert "Command: python train.py" in person.asked[0].message and token not in person.asked[0].message
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("ledger.db*"))
    assert b"--token" in kept and token.encode() not in kept
