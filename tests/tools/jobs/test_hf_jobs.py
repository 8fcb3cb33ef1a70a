"""Hugging Face Jobs through the real client, against a stand-in that fails as the service does."""

from __future__ import annotations

import json
import random
import string
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import httpx2
import pytest
from huggingface_hub import HfApi

from mlintern.tools.config import HfJobsSettings, HfVolume
from mlintern.tools.errors import BackendError, BadInput, Blocked, Offline, RateLimited
from mlintern.tools.jobs.backends.hf import log_stream
from mlintern.tools.jobs.backends.hf.answers import missing_right
from mlintern.tools.jobs.backends.hf.backend import HfJobsBackend
from mlintern.tools.jobs.spec import JobHandle
from tests.services.hf_jobs import HARDWARE, NAMESPACE, TOKEN, HfJobs
from tests.services.ports import free_port
from tests.tools.jobs.remote import submission

pytestmark = pytest.mark.anyio


@pytest.fixture
def service() -> Iterator[HfJobs]:
    with HfJobs() as running:
        yield running


@pytest.fixture
def backend(service: HfJobs, tmp_path: Path) -> HfJobsBackend:
    settings = HfJobsSettings(launch=(sys.executable,), folder=str(tmp_path / "container"))
    return HfJobsBackend(api=lambda: HfApi(endpoint=service.url, token=TOKEN), settings=settings)


def _scope(name: str, *permissions: str) -> dict[str, object]:
    return {"entity": {"type": "org", "name": name}, "permissions": list(permissions)}


def job_of(service: HfJobs, handle: JobHandle):  # type: ignore[no-untyped-def]
    return service.jobs[handle.reference]


async def test_a_job_runs_its_script_from_a_file_with_arguments_and_environment(
    service: HfJobs, backend: HfJobsBackend, tmp_path: Path
) -> None:
    script = "import sys, os, pathlib\nprint(pathlib.Path(__file__).name, sys.argv[1:], os.environ['GREETING'])"
    job = submission(
        tmp_path, script, backend="hf_jobs", hardware="cpu-basic", args=("it's", "$HOME"), env={"GREETING": "a 'b'"}
    )
    handle = await backend.submit(job)
    service.run(job_of(service, handle))
    status = await backend.status(handle)
    assert (status.state, status.run_seconds) == ("succeeded", 60.0)
    log = (await backend.logs(handle, None)).data.decode()
    assert log == "script.py [\"it's\", '$HOME'] a 'b'\n"


async def test_every_submission_has_a_time_limit_a_label_and_only_the_secrets_it_names(
    service: HfJobs, backend: HfJobsBackend, tmp_path: Path
) -> None:
    plain = submission(tmp_path, "", backend="hf_jobs", hardware="cpu-basic", timeout_seconds=90)
    body = job_of(service, await backend.submit(plain)).body
    assert body["timeoutSeconds"] == 90
    assert body["labels"]["mlintern"] == plain.job_id
    assert "secrets" not in body
    named = submission(tmp_path, "", backend="hf_jobs", hardware="cpu-basic", secrets={"HF_TOKEN": "hf_secret"})
    body = job_of(service, await backend.submit(named)).body
    assert body["secrets"] == {"HF_TOKEN": "hf_secret"}
    assert "hf_secret" not in json.dumps({**body, "secrets": None})


async def test_a_large_script_is_split_and_a_huge_one_goes_to_a_private_repository_at_its_commit(
    service: HfJobs, backend: HfJobsBackend, tmp_path: Path
) -> None:
    noise = random.Random(0)

    def script(characters: int) -> str:
        return "data = '" + "".join(noise.choices(string.ascii_letters, k=characters)) + "'\nprint(len(data))\n"

    large = submission(tmp_path, script(200_000), backend="hf_jobs", hardware="cpu-basic")
    handle = await backend.submit(large)
    body = job_of(service, handle).body
    assert max(len(value) for value in body["environment"].values()) <= 128 * 1024
    assert len([name for name in body["environment"] if name.startswith("MLINTERN_SCRIPT")]) > 1
    service.run(job_of(service, handle))
    assert (await backend.logs(handle, None)).data == b"200000\n"

    huge = submission(tmp_path, script(1_000_000), backend="hf_jobs", hardware="cpu-basic")
    body = job_of(service, await backend.submit(huge)).body
    (volume,) = body["volumes"]
    assert (volume["type"], volume["source"]) == ("dataset", f"{NAMESPACE}/mlintern-scripts")
    assert volume["revision"] in service.commits
    assert not any(name.startswith("MLINTERN_SCRIPT") for name in body["environment"])


async def test_training_on_more_than_one_gpu_really_starts_so_many_processes(
    service: HfJobs, backend: HfJobsBackend, tmp_path: Path
) -> None:
    text = "import os\nos.write(1, f\"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}\\n\".encode())"
    job = submission(tmp_path, text, backend="hf_jobs", hardware="a10g-largex2", requirements=("trl==1.16.0",))
    handle = await backend.submit(job)
    assert service.run(job_of(service, handle)) == 0
    printed = (await backend.logs(handle, None)).data.decode().splitlines()
    assert sorted(line for line in printed if line.startswith("rank")) == ["rank 0 of 2", "rank 1 of 2"]


async def test_a_job_that_waits_says_for_how_long(service: HfJobs, backend: HfJobsBackend, tmp_path: Path) -> None:
    handle = await backend.submit(submission(tmp_path, "", backend="hf_jobs", hardware="cpu-basic"))
    job_of(service, handle).scheduling_seconds = 30.0
    status = await backend.status(handle)
    assert (status.state, status.detail, status.run_seconds) == ("queued", "SCHEDULING for 30 s", None)


@pytest.mark.parametrize(
    ("stage", "message", "state"),
    [
        ("ERROR", "Job timeout", "timed_out"),
        ("ERROR", "Job failed with exit code: 1. Reason: Error", "failed"),
        ("ERROR", "Job failed with exit code: 124. Reason: Error", "timed_out"),
        ("ERROR", "Job failed with exit code: 137. Reason: OOMKilled", "failed"),
        ("CANCELED", None, "cancelled"),
        ("DELETED", None, "lost"),
        ("PREEMPTING", None, "running"),
    ],
)
async def test_a_stage_is_never_taken_for_a_better_one(
    service: HfJobs, backend: HfJobsBackend, tmp_path: Path, stage: str, message: str | None, state: str
) -> None:
    handle = await backend.submit(submission(tmp_path, "", backend="hf_jobs", hardware="cpu-basic"))
    job_of(service, handle).stage, job_of(service, handle).message = stage, message
    status = await backend.status(handle)
    assert status.state == state
    assert status.error == (message or ("DELETED" if stage == "DELETED" else None))


async def test_a_job_is_cancelled_in_its_own_namespace(
    service: HfJobs, backend: HfJobsBackend, tmp_path: Path
) -> None:
    handle = await backend.submit(submission(tmp_path, "", backend="hf_jobs", hardware="cpu-basic"))
    await backend.cancel(handle, reason="enough")
    assert (await backend.status(handle)).state == "cancelled"
    await backend.cancel(handle, reason="again")
    assert service.asked.count(("POST", f"/api/jobs/{NAMESPACE}/{handle.reference}/cancel")) == 1
    assert [path for _, path in service.asked].count("/api/whoami-v2") == 1


async def test_a_submission_whose_answer_never_came_is_found_again_by_its_label(
    service: HfJobs, backend: HfJobsBackend, tmp_path: Path
) -> None:
    job = submission(tmp_path, "", backend="hf_jobs", hardware="cpu-basic")
    assert await backend.find(job.job_id) is None
    service.drop_after_submit = True
    with pytest.raises(Offline):
        await backend.submit(job)
    assert len(service.jobs) == 1
    found = await backend.find(job.job_id)
    assert found is not None and found.reference in service.jobs
    lost = job_of(service, found)
    lost.stage, lost.message, lost.running_seconds = "ERROR", "Job failed with exit code: 137. Reason: Error", 400.0
    assert (await backend.status(found)).state == "timed_out", "its time limit is known again too"


@pytest.mark.parametrize(
    ("status", "error", "kind", "words"),
    [
        (402, "Insufficient credits", Blocked, "billing"),
        (403, "missing job.write", Blocked, "job.write"),
        (401, "Invalid username or password", Blocked, "HF_TOKEN"),
        (500, "Internal error", Offline, "failed"),
        (400, "Invalid flavor", BackendError, "Invalid flavor"),
    ],
)
async def test_a_refusal_says_what_to_do(
    service: HfJobs,
    backend: HfJobsBackend,
    tmp_path: Path,
    status: int,
    error: str,
    kind: type[Exception],
    words: str,
) -> None:
    service.refuse = (status, {}, error)
    with pytest.raises(kind, match=words):
        await backend.submit(submission(tmp_path, "", backend="hf_jobs", hardware="cpu-basic"))


async def test_a_rate_limit_says_when_to_come_back(service: HfJobs, backend: HfJobsBackend, tmp_path: Path) -> None:
    headers = {"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
    service.refuse = (429, headers, "Too many requests")
    with pytest.raises(RateLimited) as limit:
        await backend.submit(submission(tmp_path, "", backend="hf_jobs", hardware="cpu-basic"))
    assert limit.value.retry_after_seconds == 55


async def test_hardware_has_live_prices_and_a_dated_list_without_the_service(
    service: HfJobs, backend: HfJobsBackend
) -> None:
    cpu, gpu = await backend.hardware()
    assert (cpu.usd_per_hour, cpu.cpus, cpu.memory_gib) == (0.01, 2, 16)
    assert (gpu.usd_per_hour, gpu.accelerators, gpu.accelerator_memory_gib) == (3.0, 2, 48)
    absent = HfJobsBackend(
        api=lambda: HfApi(endpoint=f"http://127.0.0.1:{free_port()}", token=TOKEN), settings=HfJobsSettings()
    )
    fallback = await absent.hardware()
    assert "could not be asked" in fallback[0].note
    assert {each.name for each in fallback} >= {"cpu-basic", "h200"}


@pytest.mark.parametrize("page", ["<html>Please log in</html>", "null", "[]", "{}"])
async def test_the_page_of_a_proxy_is_no_answer(
    service: HfJobs, backend: HfJobsBackend, tmp_path: Path, page: str
) -> None:
    job = submission(tmp_path, "", backend="hf_jobs", hardware="cpu-basic")
    handle = await backend.submit(job)
    service.page = page
    with pytest.raises(Offline, match="not as Hugging Face does"):
        await backend.status(handle)
    with pytest.raises((Offline, BadInput)):
        await backend.submit(job)
    service.page = None
    assert len(service.jobs) == 1 and (await backend.status(handle)).state == "queued"


async def test_hardware_with_a_price_that_is_not_understood_is_not_called_free(
    service: HfJobs, backend: HfJobsBackend
) -> None:
    strange = {**HARDWARE[0], "unitLabel": "day"}
    service.hardware = [strange, {**strange, "name": "new"}, HARDWARE[1]]
    listed = await backend.hardware()
    assert [each.name for each in listed] == ["cpu-basic", "a10g-largex2"]
    assert listed[0].usd_per_hour == 0.01 and "not understood" in listed[0].note


async def test_arguments_that_no_container_could_be_started_with_are_refused(
    service: HfJobs, backend: HfJobsBackend, tmp_path: Path
) -> None:
    job = submission(tmp_path, "", backend="hf_jobs", hardware="cpu-basic", args=("x" * 70_000, "y" * 70_000))
    with pytest.raises(BadInput, match="128 KiB"):
        await backend.submit(job)
    assert service.jobs == {}


async def test_an_unknown_flavor_is_refused_before_anything_is_sent(
    service: HfJobs, backend: HfJobsBackend, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="no hardware 'h1000'"):
        await backend.submit(submission(tmp_path, "", backend="hf_jobs", hardware="h1000"))
    assert not service.jobs


async def test_a_writable_volume_keeps_the_output(service: HfJobs, tmp_path: Path) -> None:
    settings = HfJobsSettings(
        launch=(sys.executable,),
        folder=str(tmp_path / "container"),
        output=str(tmp_path / "bucket"),
        volumes=(HfVolume("bucket", "tester/results", str(tmp_path / "bucket"), read_only=False),),
    )
    backend = HfJobsBackend(api=lambda: HfApi(endpoint=service.url, token=TOKEN), settings=settings)
    script = "import os; open(os.environ['MLINTERN_OUTPUT_DIR'] + '/model', 'w').write('weights')"
    job = submission(tmp_path, script, backend="hf_jobs", hardware="cpu-basic")
    handle = await backend.submit(job)
    service.run(job_of(service, handle))
    assert (tmp_path / "bucket" / job.job_id / "output" / "model").read_text() == "weights"
    assert job_of(service, handle).body["volumes"][0]["readOnly"] is False


async def test_a_log_is_followed_over_broken_streams_without_loss_or_repeat(
    service: HfJobs, backend: HfJobsBackend, tmp_path: Path
) -> None:
    handle = await backend.submit(submission(tmp_path, "", backend="hf_jobs", hardware="cpu-basic"))
    job = job_of(service, handle)
    expected, read, cursor = [], b"", None
    for round, drop in enumerate([3, None, 0, 7, None]):
        lines = [f"round {round} line {n % 4}" for n in range(5)]  # the same text may come again
        service.log(job, *lines)
        expected += lines
        service.drop_logs_after = drop
        try:
            chunk = await backend.logs(handle, cursor)
        except Offline:  # it broke off before anything new
            assert drop is not None
            continue
        assert chunk.complete == (drop is None)
        read, cursor = read + chunk.data, chunk.cursor or cursor
    service.drop_logs_after = None
    chunk = await backend.logs(handle, cursor)
    assert (read + chunk.data).decode().splitlines() == expected
    assert (await backend.logs(handle, chunk.cursor)).data == b""


class Pausing(httpx2.AsyncByteStream):
    """A log stream that pauses after its first lines and then hangs."""

    def __init__(self, *parts: str, pause: float) -> None:
        self.parts = parts
        self.pause = pause

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number, line in enumerate(self.parts):
            if number:
                await anyio.sleep(self.pause)
            event = json.dumps({"data": line, "timestamp": f"2026-11-23T10:00:0{number}.000Z"})
            yield f"data: {event}\n\n".encode()
        await anyio.sleep(60.0)


@pytest.mark.parametrize(
    ("over", "first", "read"),
    [
        (True, "training", b"training\nevaluation\n"),
        (False, "training", b"training\n"),
        (True, '@mlintern {"v": 1, "kind": "end", "status": "completed"}', None),
    ],
    ids=["over", "running", "the last row was seen"],
)
async def test_the_log_of_a_job_that_is_over_is_whole_after_the_silence_that_the_official_client_waits(
    monkeypatch: pytest.MonkeyPatch, over: bool, first: str, read: bytes | None
) -> None:
    assert log_stream.ENDED_SECONDS == 5.0, "HfApi.fetch_job_logs without follow"
    monkeypatch.setattr(log_stream, "IDLE_SECONDS", 0.3)
    monkeypatch.setattr(log_stream, "ENDED_SECONDS", 3.0)
    stream = Pausing(first, "evaluation", pause=0.8)
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, stream=stream))
    with anyio.fail_after(20):
        chunk = await log_stream.read_logs(
            "http://jobs.test/logs", token=None, cursor=None, over=over, transport=transport
        )
    assert (chunk.data, chunk.complete) == (read or f"{first}\n".encode(), True)


async def test_what_a_job_prints_cannot_break_its_log(
    service: HfJobs, backend: HfJobsBackend, tmp_path: Path
) -> None:
    handle = await backend.submit(submission(tmp_path, "", backend="hf_jobs", hardware="cpu-basic"))
    lines = ["a\u2028b", "c\x85d\x0be", "f\rg", 'data: {"data": "h"}', "===== Job started at noon", ""]
    service.log(job_of(service, handle), *lines)
    chunk = await backend.logs(handle, None)
    assert (chunk.data.decode().split("\n"), chunk.complete) == ([*lines, ""], True)


async def test_an_event_of_another_kind_is_passed_over(
    service: HfJobs, backend: HfJobsBackend, tmp_path: Path
) -> None:
    handle = await backend.submit(submission(tmp_path, "", backend="hf_jobs", hardware="cpu-basic"))
    service.log(job_of(service, handle), "one", "two")
    service.log_noise = (
        'data: {"error": "upstream"}\n\ndata: {half\n\ndata: {"data": 1, "timestamp": 2}\n\n: keep-alive\n\n'
    )
    chunk = await backend.logs(handle, None)
    assert (chunk.data, chunk.complete) == (b"one\ntwo\n", True)


@pytest.mark.parametrize("later", [10, 6_000])
async def test_lines_after_a_clock_was_set_back_are_not_lost_nor_the_others_repeated(
    service: HfJobs, backend: HfJobsBackend, tmp_path: Path, later: int
) -> None:
    handle = await backend.submit(submission(tmp_path, "", backend="hf_jobs", hardware="cpu-basic"))
    job = job_of(service, handle)
    job.events += [("2026-11-23T10:05:00.000Z", "one"), ("2026-11-23T10:05:00.000Z", "two")]
    first = await backend.logs(handle, None)
    job.events += [("2026-11-23T10:04:00.000Z", "three"), ("2026-11-23T10:04:00.000Z", "four")]
    second = await backend.logs(handle, first.cursor)
    assert second.data == b"three\nfour\n"
    expected = [f"line {number}" for number in range(later)]
    service.log(job, *expected)
    third = await backend.logs(handle, second.cursor)
    assert third.data.decode().splitlines() == expected
    assert (await backend.logs(handle, third.cursor)).data == b""


async def test_the_log_of_a_running_job_is_read_though_its_stream_never_ends(
    service: HfJobs, backend: HfJobsBackend, tmp_path: Path
) -> None:
    handle = await backend.submit(submission(tmp_path, "", backend="hf_jobs", hardware="cpu-basic"))
    job = job_of(service, handle)
    job.stage = "RUNNING"
    service.log(job, "one", "two")
    chunk = await backend.logs(handle, None)
    assert (chunk.data, chunk.complete) == (b"one\ntwo\n", True)


async def test_a_script_that_had_to_be_killed_at_its_limit_is_timed_out(
    service: HfJobs, backend: HfJobsBackend, tmp_path: Path
) -> None:
    job = submission(tmp_path, "", backend="hf_jobs", hardware="cpu-basic", timeout_seconds=600)
    handle = await backend.submit(job)
    killed = job_of(service, handle)
    killed.stage, killed.message, killed.running_seconds = "ERROR", "Job failed with exit code: 137.", 480.0
    assert (await backend.status(handle)).state == "timed_out"


async def test_a_job_that_this_token_cannot_see_is_not_called_lost(service: HfJobs, backend: HfJobsBackend) -> None:
    with pytest.raises(Blocked, match="may not see the jobs of other-org"):
        await backend.status(JobHandle("hf_jobs", "f" * 24, {"namespace": "other-org"}))


async def test_examining_says_who_pays_and_what_is_missing(service: HfJobs, backend: HfJobsBackend) -> None:
    assert NAMESPACE in await backend.examine()
    anonymous = HfJobsBackend(api=lambda: HfApi(endpoint=service.url, token=False), settings=HfJobsSettings())
    with pytest.raises(Blocked, match="HF_TOKEN"):
        await anonymous.examine()
    service.token_role = "read"
    with pytest.raises(Blocked, match="may only read"):
        await backend.examine()


async def test_without_an_account_nothing_is_asked_and_the_list_says_how_to_get_the_live_one(service: HfJobs) -> None:
    anonymous = HfJobsBackend(api=lambda: HfApi(endpoint=service.url, token=False), settings=HfJobsSettings())
    assert "HF_TOKEN" in (await anonymous.hardware())[0].note
    assert service.asked == []


@pytest.mark.parametrize(
    ("token", "namespace", "lacks"),
    [
        ({"role": "write"}, "me", ""),
        ({"role": "read"}, "me", "may only read"),
        ({"role": "fineGrained"}, "me", "lacks the right job.write for me"),
        (
            {"role": "fineGrained", "fineGrained": {"scoped": [_scope("me", "job.write")]}},
            "org",
            "lacks the right job.write for org",
        ),
        ({"role": "fineGrained", "fineGrained": {"scoped": [_scope("org", "job.write")]}}, "org", ""),
    ],
)
def test_a_token_says_whether_it_may_start_jobs(token: dict[str, object], namespace: str, lacks: str) -> None:
    assert missing_right({"name": "me", "auth": {"accessToken": token}}, namespace) == lacks


async def test_a_job_the_service_forgot_is_lost(service: HfJobs, backend: HfJobsBackend) -> None:
    status = await backend.status(JobHandle("hf_jobs", "f" * 24, {"namespace": NAMESPACE}))
    assert status.state == "lost"
