"""A stand-in for Hugging Face Jobs on a real socket: the REST calls of `reference` documentation, and its failures.

Jobs really run: their command goes to ``/bin/sh`` with their environment and secrets. Nothing moves by itself: a job
stays in SCHEDULING until the test starts it.

    python -m tests.services.hf_jobs      starts one, whose jobs run by themselves (those of a schedule every few
                                          seconds, whatever it says), and keeps it until Ctrl-C
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

TOKEN = "hf_" + "t" * 34
NAMESPACE = "tester"
T0 = "2026-11-23T10:00:00.000Z"
TICK_SECONDS = 5.0
"""How soon the moment of every scheduled job comes, in a stand-in that runs by itself."""

HARDWARE = [
    {
        "name": "cpu-basic", "prettyName": "CPU Basic", "cpu": "2 vCPU", "ram": "16 GB", "ephemeralStorage": "20 GB",
        "accelerator": None, "unitCostMicroUSD": 167, "unitCostUSD": 0.000167, "unitLabel": "minute",
    },
    {
        "name": "a10g-largex2", "prettyName": "2x Nvidia A10G - large", "cpu": "24 vCPU", "ram": "92 GB",
        "ephemeralStorage": "200 GB",
        "accelerator": {"type": "gpu", "model": "A10G", "quantity": "2", "vram": "48 GB", "manufacturer": "Nvidia"},
        "unitCostMicroUSD": 50000, "unitCostUSD": 0.05, "unitLabel": "minute",
    },
]  # fmt: skip


@dataclass
class Job:
    """One job: what was asked for, and what became of it."""

    id: str
    body: dict[str, Any]
    stage: str = "SCHEDULING"
    message: str | None = None
    events: list[tuple[str, str]] = field(default_factory=list)
    scheduling_seconds: float = 0.0
    running_seconds: float | None = None
    created_at: str = T0
    never_started: bool = False
    process: subprocess.Popen[str] | None = None
    initiator: dict[str, str] = field(default_factory=lambda: {"type": "user", "id": "o1", "name": NAMESPACE})

    def as_json(self) -> dict[str, Any]:
        over = self.stage in ("COMPLETED", "ERROR", "CANCELED")
        return {
            "id": self.id,
            "createdAt": self.created_at,
            "startedAt": None if self.stage == "SCHEDULING" or self.never_started else self.created_at,
            "finishedAt": "2026-11-23T10:01:00.000Z" if over else None,
            "dockerImage": self.body.get("dockerImage"),
            "command": self.body["command"],
            "arguments": [],
            "environment": self.body["environment"],
            "secrets": list(self.body.get("secrets", {})),
            "flavor": self.body["flavor"],
            "labels": self.body.get("labels", {}),
            "status": {"stage": self.stage, "message": self.message, "exposeUrls": None, "sshUrl": None},
            "durations": {
                "schedulingSecs": self.scheduling_seconds,
                "runningSecs": self.running_seconds,
                "totalSecs": self.scheduling_seconds + (self.running_seconds or 0),
            },
            "owner": {"id": "o1", "name": NAMESPACE, "type": "user"},
            "initiator": self.initiator,
        }


@dataclass
class Scheduled:
    """A scheduled job: what was asked for, and the job that it started last."""

    id: str
    body: dict[str, Any]
    last: Job | None = None
    next_at: str | None = "2026-11-24T00:00:00.000Z"

    def as_json(self) -> dict[str, Any]:
        last = {"id": self.last.id, "at": self.last.created_at} if self.last else None
        spec = self.body["jobSpec"]
        return {
            "id": self.id,
            "createdAt": T0,
            "jobSpec": {**spec, "secrets": list(spec.get("secrets", {})), "timeout": spec["timeoutSeconds"]},
            "schedule": self.body["schedule"],
            "suspend": self.body.get("suspend", False),
            "concurrency": self.body.get("concurrency", False),
            "status": {"lastJob": last, "nextJobRunAt": self.next_at},
            "owner": {"id": "o1", "name": NAMESPACE, "type": "user"},
        }


class HfJobs:
    """The service. The attributes below make its next answers fail as the real one does.

    Attributes:
        refuse: (status, headers, error) with which submissions are answered.
        drop_after_submit: accept a submission, then close the connection without an answer.
        token_role: what `whoami` says of the token.
        scheduled: scheduled jobs by id; `tick` starts one.
        runs_have_labels: what a schedule starts carries its labels.
        drop_logs_after: events after which a log stream breaks off.
        page: what a proxy answers in place of the service, whatever is asked.
        log_noise: what else stands in a log stream, after each event.
        hardware: what can be asked for.
        asked: (method, path) of every request.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.scheduled: dict[str, Scheduled] = {}
        self.runs_have_labels = True
        self.asked: list[tuple[str, str]] = []
        self.refuse: tuple[int, dict[str, str], str] | None = None
        self.drop_after_submit = False
        self.token_role = "write"
        self.drop_logs_after: int | None = None
        self.log_noise = ""
        self.page: str | None = None
        self.hardware: list[dict[str, Any]] = HARDWARE
        self.commits: dict[str, bytes] = {}
        self.closing = threading.Event()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.service = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()

    def tick(self, scheduled: Scheduled, *, at: str = T0) -> Job | None:
        """The moment of a scheduled job has come: start one, unless it is suspended or its last one still goes on."""
        last = scheduled.last
        busy = last is not None and last.stage in ("SCHEDULING", "RUNNING") and not scheduled.body["concurrency"]
        if scheduled.body.get("suspend") or busy:
            return None
        by = {"type": "scheduled-job", "id": scheduled.id}
        spec = dict(scheduled.body["jobSpec"])
        if not self.runs_have_labels:
            del spec["labels"]
        job = Job(f"{len(self.jobs):024x}", spec, created_at=at, initiator=by)
        self.jobs[job.id] = scheduled.last = job
        return job

    def run(self, job: Job) -> int:
        """Take the job to RUNNING, run its command to its end, and take it to its last stage."""
        job.stage = "RUNNING"
        environment = {**os.environ, **job.body["environment"], **job.body.get("secrets", {}), "JOB_ID": job.id}
        job.process = subprocess.Popen(
            job.body["command"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        overdue = threading.Timer(job.body.get("timeoutSeconds", 1800), self.end, [job, "ERROR", "Job timeout"])
        overdue.start()
        with job.process as process:
            assert process.stdout is not None
            for line in process.stdout:
                self.log(job, line.rstrip("\n"))
        overdue.cancel()
        code = process.returncode
        job.running_seconds = 60.0
        if job.stage == "RUNNING":
            job.stage = "COMPLETED" if code == 0 else "ERROR"
            job.message = None if code == 0 else f"Job failed with exit code: {code}. Reason: Error"
        return code

    def end(self, job: Job, stage: str, message: str | None = None) -> None:
        """End a job from outside: cancelled, or out of time."""
        job.never_started = job.stage == "SCHEDULING"
        job.stage, job.message = stage, message
        if job.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.process.pid, signal.SIGKILL)

    def log(self, job: Job, *lines: str) -> None:
        """Add lines, two to a timestamp, as fast jobs have them."""
        for line in lines:
            second, milli = divmod(len(job.events) // 2, 1000)
            job.events.append((f"2026-11-23T10:{second // 60:02}:{second % 60:02}.{milli:03}Z", line))


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    service: HfJobs


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        service, (path, query) = self.server.service, self._split()
        service.asked.append(("GET", path))
        match path.strip("/").split("/"):
            case _ if service.page is not None:
                self._answer(200, "text/html", service.page.encode())
            case ["api", "jobs", "hardware"]:
                self._json(200, service.hardware)
            case ["api", "agent-harnesses"]:
                self._json(200, {})
            case _ if self.headers.get("authorization") != f"Bearer {TOKEN}":
                self._json(401, {"error": "Invalid credentials in Authorization header"})
            case ["api", "whoami-v2"]:
                auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": service.token_role}}
                self._json(200, {"type": "user", "name": NAMESPACE, "id": "o1", "orgs": [], "auth": auth})
            case ["api", "jobs" | "scheduled-jobs", namespace, *_] if namespace != NAMESPACE:
                self._json(404, {"error": "Not found"})
            case ["api", "scheduled-jobs", _]:
                found = [each for each in service.scheduled.values() if _labelled(each.body["jobSpec"], query)]
                self._json(200, [each.as_json() for each in found])
            case ["api", "scheduled-jobs", _, each_id] if each_id in service.scheduled:
                self._json(200, service.scheduled[each_id].as_json())
            case ["api", "jobs", _]:
                jobs = [job for job in service.jobs.values() if _labelled(job.body, query)]
                self._json(200, [job.as_json() for job in jobs])
            case ["api", "jobs", _, job_id] if job_id in service.jobs:
                self._json(200, service.jobs[job_id].as_json())
            case ["api", "jobs", _, job_id, "logs"] if job_id in service.jobs:
                self._logs(service.jobs[job_id], int(query["tail"][0]) if "tail" in query else None)
            case _:
                self._json(404, {"error": "Not found"})

    def do_DELETE(self) -> None:
        service, (path, _) = self.server.service, self._split()
        service.asked.append(("DELETE", path))
        match path.strip("/").split("/"):
            case ["api", "scheduled-jobs", namespace, each_id] if namespace == NAMESPACE:
                gone = service.scheduled.pop(each_id, None)
                self._json(200 if gone else 404, {} if gone else {"error": "Not found"})
            case _:
                self._json(404, {"error": "Not found"})

    def do_POST(self) -> None:
        service, (path, _) = self.server.service, self._split()
        service.asked.append(("POST", path))
        data = self.rfile.read(int(self.headers.get("content-length", 0)))
        match path.strip("/").split("/"):
            case _ if service.page is not None:
                self._answer(200, "text/html", service.page.encode())
            case ["api", "jobs" | "scheduled-jobs", _] if service.refuse is not None:
                status, headers, error = service.refuse
                self._json(status, {"error": error}, headers)
            case ["api", "jobs", _]:
                job = Job(f"{len(service.jobs):024x}", json.loads(data))
                service.jobs[job.id] = job
                self._accepted(job.as_json())
            case ["api", "scheduled-jobs", _]:
                scheduled = Scheduled(f"5{len(service.scheduled):023x}", json.loads(data))
                service.scheduled[scheduled.id] = scheduled
                self._accepted(scheduled.as_json())
            case ["api", "jobs", _, job_id, "cancel"]:
                service.end(service.jobs[job_id], "CANCELED")
                self._json(200, service.jobs[job_id].as_json())
            case ["api", "repos", "create"]:
                name = json.loads(data)
                self._json(
                    200, {"url": f"{service.url}/datasets/{name.get('organization', NAMESPACE)}/{name['name']}"}
                )
            case ["api", "datasets", *_, "preupload", "main"]:
                files = json.loads(data)["files"]
                answers = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
                self._json(200, {"files": answers})
            case ["api", "datasets", *_, "commit", "main"]:
                commit = f"{len(service.commits):040x}"
                service.commits[commit] = data
                url = f"{service.url}/datasets/{NAMESPACE}/mlintern-scripts/commit/{commit}"
                self._json(200, {"commitUrl": url, "commitOid": commit, "hookOutput": ""})
            case _:
                self._json(404, {"error": "Not found"})

    def _accepted(self, value: dict[str, Any]) -> None:
        """Answer a submission, or let it down after it was taken."""
        if self.server.service.drop_after_submit:
            self.close_connection = True
            self.rfile.close()
            self.connection.close()
            return
        self._json(200, value)

    def _logs(self, job: Job, tail: int | None) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        events = [
            (T0, "===== Job started at 2026-11-23 10:00:00 ====="),
            *(job.events[-tail:] if tail else job.events),
        ]
        for index, (at, line) in enumerate(events):
            if self.server.service.drop_logs_after is not None and index > self.server.service.drop_logs_after:
                return  # without the last chunk: broken off
            event = json.dumps({"data": line, "timestamp": at}, ensure_ascii=False)  # as JavaScript writes it
            self._chunk(f"data: {event}\n\n{self.server.service.log_noise}".encode())
        self.wfile.flush()
        if job.stage == "RUNNING":  # the stream of a running job does not end
            self.server.service.closing.wait(5)
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _split(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return parts.path, parse_qs(parts.query)

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._answer(status, "application/json", json.dumps(value).encode(), headers)

    def _answer(self, status: int, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, text in {"content-type": kind, **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _labelled(spec: dict[str, Any], query: dict[str, list[str]]) -> bool:
    wanted = dict(label.split("=", 1) for label in query.get("label", []))
    return wanted.items() <= spec.get("labels", {}).items()


def _run_what_comes(service: HfJobs) -> None:
    ticked = time.monotonic()
    while True:
        time.sleep(0.2)
        if time.monotonic() - ticked > TICK_SECONDS:
            ticked = time.monotonic()
            for scheduled in list(service.scheduled.values()):
                service.tick(scheduled, at=time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()))
        for job in list(service.jobs.values()):
            if job.stage == "SCHEDULING":
                job.stage = "RUNNING"
                threading.Thread(target=service.run, args=(job,), daemon=True).start()


if __name__ == "__main__":
    with HfJobs() as running:
        print(f"export HF_ENDPOINT={running.url} HF_TOKEN={TOKEN}", flush=True)
        threading.Thread(target=_run_what_comes, args=(running,), daemon=True).start()
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
