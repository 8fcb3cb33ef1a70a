"""The Ray backend against a real Ray, and its failures against nothing at all."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import httpx2
import pytest

from mlintern.tools.config import RayHardware, RaySettings
from mlintern.tools.errors import BackendError, BadInput, NotFound, Offline
from mlintern.tools.jobs.backend import BackendStatus
from mlintern.tools.jobs.backends.ray.backend import RayBackend
from mlintern.tools.jobs.spec import FINAL, JobHandle
from tests.services.ports import free_port
from tests.services.ray import ray_program
from tests.tools.jobs.conftest import Ray
from tests.tools.jobs.remote import submission

pytestmark = pytest.mark.anyio
needs_ray = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(ray_program() is None, reason="needs Ray: make ray"),
]


@pytest.fixture
def cluster(ray: Ray) -> RayBackend:
    return RayBackend(settings=RaySettings(url=ray.url, launch=(sys.executable,), folder=str(ray.folder)))


async def ended(backend: RayBackend, handle: JobHandle) -> BackendStatus:
    with anyio.fail_after(60):
        while (status := await backend.status(handle)).state not in FINAL:
            await anyio.sleep(0.1)
    return status


class TestOnARealCluster:
    pytestmark = needs_ray

    async def test_a_job_of_somebody_else_is_described_and_can_be_ended(self, cluster: RayBackend, ray: Ray) -> None:
        body = {"entrypoint": "sleep 600", "metadata": {"name": "theirs"}}
        async with httpx2.AsyncClient() as client:
            made = (await client.post(f"{ray.url}/api/jobs/", json=body)).json()
        job = await cluster.foreign(made["submission_id"])
        assert (job.name, dict(job.details)["Command"]) == ("theirs", "sleep 600")
        assert job.state in ("queued", "running")
        await cluster.cancel_foreign(job)
        with anyio.fail_after(30):
            while (await cluster.foreign(job.reference)).state != "cancelled":
                await anyio.sleep(0.1)
        with pytest.raises(NotFound, match="no job nothing"):
            await cluster.foreign("nothing")
        with pytest.raises(BadInput, match="no job of Ray"):
            await cluster.foreign("../version")

    async def test_a_job_runs_with_its_arguments_environment_and_output_folder(
        self, cluster: RayBackend, tmp_path: Path
    ) -> None:
        script = (
            "import json, os, sys\n"
            "output = os.environ['MLINTERN_OUTPUT_DIR']\n"
            "json.dump([sys.argv[1:], os.environ['GREETING']], open(output + '/seen', 'w'))\n"
            "print(output, flush=True)\n"
        )
        args, environment = ("--name", "it's $HOME"), {"GREETING": 'a "b" `c`'}
        job = submission(tmp_path, script, backend="ray", hardware="default", args=args, env=environment)
        handle = await cluster.submit(job)
        status = await ended(cluster, handle)
        assert (status.state, status.exit_code, status.error) == ("succeeded", 0, None)
        assert status.run_seconds is not None and 0 < status.run_seconds < 60
        output = (await cluster.logs(handle, None)).data.decode().splitlines()[-1]
        assert json.loads((Path(output) / "seen").read_text()) == [list(args), 'a "b" `c`']

    async def test_a_failing_script_is_failed_with_its_exit_code(self, cluster: RayBackend, tmp_path: Path) -> None:
        handle = await cluster.submit(
            submission(tmp_path, "raise SystemExit(7)", backend="ray", hardware="default", run_name="fails")
        )
        status = await ended(cluster, handle)
        assert (status.state, status.exit_code) == ("failed", 7)
        assert status.error == "Job entrypoint command failed with exit code 7"

    async def test_the_time_limit_is_kept_though_ray_has_none(self, cluster: RayBackend, tmp_path: Path) -> None:
        script = "import time; time.sleep(100)"
        handle = await cluster.submit(
            submission(tmp_path, script, backend="ray", hardware="default", timeout_seconds=1)
        )
        assert (await ended(cluster, handle)).state == "timed_out"

    async def test_a_script_that_ignores_term_is_killed_and_timed_out_not_failed(
        self, cluster: RayBackend, tmp_path: Path
    ) -> None:
        script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(100)"
        job = submission(tmp_path, script, backend="ray", hardware="default", timeout_seconds=1)
        impatient = RayBackend(settings=cluster._settings, grace_seconds=1)
        assert (await ended(impatient, await impatient.submit(job))).state == "timed_out"

    async def test_time_spent_waiting_for_a_turn_is_not_running_time(
        self, cluster: RayBackend, tmp_path: Path
    ) -> None:
        settings = replace(cluster._settings, hardware={"all": RayHardware(cpus=2)})
        whole = RayBackend(settings=settings)
        first = await whole.submit(
            submission(tmp_path, "import time; time.sleep(4)", backend="ray", hardware="all", run_name="first")
        )
        second = await whole.submit(submission(tmp_path, "", backend="ray", hardware="all", run_name="second"))
        waited = await ended(whole, second)
        before = await ended(whole, first)
        assert waited.run_seconds is not None and waited.run_seconds < 3.5
        assert before.finished_at is not None and waited.started_at is not None
        assert waited.started_at >= before.finished_at - 1

    async def test_a_running_job_is_cancelled(self, cluster: RayBackend, tmp_path: Path) -> None:
        script = "import time; print('ready', flush=True); time.sleep(100)"
        handle = await cluster.submit(submission(tmp_path, script, backend="ray", hardware="default"))
        with anyio.fail_after(30):
            while b"ready" not in (await cluster.logs(handle, None)).data:
                await anyio.sleep(0.1)
        assert (await cluster.status(handle)).state == "running"
        await cluster.cancel(handle, reason="enough")
        assert (await ended(cluster, handle)).state == "cancelled"

    async def test_a_job_without_room_waits_and_says_so(self, cluster: RayBackend, tmp_path: Path) -> None:
        greedy = RayBackend(
            settings=replace(cluster._settings, hardware={"gpus": RayHardware(gpus=4, gpu_type="a100")})
        )
        handle = await greedy.submit(submission(tmp_path, "", backend="ray", hardware="gpus", run_name="greedy"))
        status = await greedy.status(handle)
        assert status.state == "queued"
        assert "waiting for resources" in status.detail
        await greedy.cancel(handle, reason="")  # Ray takes it, and acts on it when the job's turn comes

    async def test_the_same_job_is_found_and_never_starts_twice(self, cluster: RayBackend, tmp_path: Path) -> None:
        job = submission(tmp_path, "print('run')", backend="ray", hardware="default", run_name="once")
        assert await cluster.find(job.job_id) is None
        first = await cluster.submit(job)
        assert await cluster.find(job.job_id) == first
        assert await cluster.submit(job) == first
        await ended(cluster, first)
        log = (await cluster.logs(first, None)).data.decode()
        assert log.splitlines().count("run") == 1

    async def test_logs_go_on_where_they_were_left(self, cluster: RayBackend, tmp_path: Path) -> None:
        job = submission(tmp_path, "print('é' * 10)", backend="ray", hardware="default", run_name="logs")
        handle = await cluster.submit(job)
        await ended(cluster, handle)
        whole = await cluster.logs(handle, None)
        assert (await cluster.logs(handle, "5")).data == whole.data[5:]
        assert (await cluster.logs(handle, whole.cursor)).data == b""

    async def test_a_job_that_ray_does_not_know_is_lost(self, cluster: RayBackend) -> None:
        assert (await cluster.status(JobHandle("ray", "job-unknown"))).state == "lost"

    async def test_the_cluster_says_what_it_has(self, cluster: RayBackend) -> None:
        (only,) = await cluster.hardware()
        assert only.name == "default"
        assert "2 CPU" in only.note


async def test_an_absent_cluster_is_offline_and_says_what_to_check(tmp_path: Path) -> None:
    backend = RayBackend(settings=RaySettings(url=f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(Offline, match="does not answer") as failure:
        await backend.submit(submission(tmp_path, "", backend="ray", hardware="default"))
    assert "config.toml" in failure.value.next_step


async def test_secrets_are_not_sent_where_everyone_could_read_them(tmp_path: Path) -> None:
    backend = RayBackend(settings=RaySettings(url="http://127.0.0.1:1"))
    job = submission(tmp_path, "", backend="ray", hardware="default", secrets={"HF_TOKEN": "hf_x"})
    with pytest.raises(BadInput, match="HF_TOKEN is not sent"):
        await backend.submit(job)


async def test_a_server_that_is_not_rays_is_named(tmp_path: Path) -> None:
    import httpx2

    page = httpx2.MockTransport(lambda request: httpx2.Response(200, text="<html>It works!</html>"))
    backend = RayBackend(settings=RaySettings(url="http://head:80"), transport=page)
    with pytest.raises(BackendError, match="not as Ray's job server"):
        await backend.status(JobHandle("ray", "job-1"))


@pytest.mark.parametrize(("status", "text", "kind"), [(404, "no such page", BackendError), (503, "", Offline)])
async def test_the_answer_of_a_proxy_is_not_taken_for_rays(
    tmp_path: Path, status: int, text: str, kind: type[Exception]
) -> None:
    """A job is lost only when Ray itself says that it knows none."""
    import httpx2

    proxy = httpx2.MockTransport(lambda request: httpx2.Response(status, text=text))
    backend = RayBackend(settings=RaySettings(url="http://head:80"), transport=proxy)
    with pytest.raises(kind):
        await backend.status(JobHandle("ray", "job-1"))


def cluster_that_says(job: dict[str, object], *, logs: tuple[int, str]) -> RayBackend:
    import httpx2

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/logs"):
            return httpx2.Response(logs[0], text=logs[1])
        return httpx2.Response(200, json=job, headers={"date": "Thu, 26 Nov 2026 12:00:00 GMT"})

    return RayBackend(settings=RaySettings(url="http://head:80"), transport=httpx2.MockTransport(answer))


NOON = 1795694400


async def test_a_job_whose_log_went_with_its_node_is_not_called_free_of_charge() -> None:
    job = {"status": "FAILED", "start_time": (NOON - 7200) * 1000, "end_time": NOON * 1000, "message": "node died"}
    gone = await cluster_that_says(job, logs=(500, "Traceback: no agent")).status(JobHandle("ray", "job-1"))
    assert (gone.run_seconds, gone.started_at, gone.finished_at) == (None, NOON - 7200, None)
    never_began = await cluster_that_says(job, logs=(200, '{"logs": ""}')).status(JobHandle("ray", "job-2"))
    assert (never_began.run_seconds, never_began.started_at) == (0.0, None)


async def test_a_node_whose_clock_is_a_day_behind_does_not_make_a_job_overdue() -> None:
    job = {"status": "RUNNING", "start_time": (NOON - 60) * 1000, "end_time": None, "message": ""}
    log = f'{{"logs": "mlintern: started at {NOON - 86400} on node"}}'
    status = await cluster_that_says(job, logs=(200, log)).status(JobHandle("ray", "job-1"))
    assert status.run_seconds == 60.0


async def test_half_a_character_in_a_log_is_replaced() -> None:
    chunk = await cluster_that_says({}, logs=(200, '{"logs": "a\\udcffb\\n"}')).logs(JobHandle("ray", "job-1"), None)
    assert chunk.data == b"a?b\n"


@pytest.mark.parametrize("text", ["null", "[]", '"RUNNING"', "{}", '{"error": "upstream"}'])
async def test_json_of_another_shape_is_not_taken_for_rays(text: str) -> None:
    import httpx2

    proxy = httpx2.MockTransport(lambda request: httpx2.Response(200, text=text))
    backend = RayBackend(settings=RaySettings(url="http://head:80"), transport=proxy)
    for question in (backend.status(JobHandle("ray", "job-1")), backend.logs(JobHandle("ray", "job-1"), None)):
        with pytest.raises(BackendError, match="not as Ray's job server"):
            await question
