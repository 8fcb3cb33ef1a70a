"""A real single-node Ray, private to the test. Ray lives in an environment of its own (`make ray`): it is large.

python -m tests.services.ray FOLDER      starts one and keeps it until Ctrl-C
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.services.ports import free_port

READY_SECONDS = 90.0


def ray_program() -> Path | None:
    """The ``ray`` command of ``.venv-ray``, or of ``MLINTERN_TEST_RAY``; None where there is none."""
    folder = Path(__file__).parents[2] / ".venv-ray" / "bin"
    program = Path(os.environ.get("MLINTERN_TEST_RAY", folder / "ray"))
    return program if program.exists() else None


@contextlib.contextmanager
def running_ray(folder: Path, *, cpus: int = 2) -> Iterator[str]:
    """Start a cluster of this one machine; yields the base URL of its Jobs API. Gone when the block ends.

    ``folder`` gets its log. Its sockets need a short path (107 bytes in all), so they lie in a folder of their own.
    """
    with tempfile.TemporaryDirectory(prefix="ray") as short:
        yield from _running(folder, Path(short), cpus)


def _running(folder: Path, short: Path, cpus: int) -> Iterator[str]:
    program = ray_program()
    assert program is not None
    ports: set[int] = set()
    while len(ports) < 7:  # Ray refuses to start if two of its parts are given one port
        ports.add(free_port())
    port, dashboard, client, agent, agent_rpc, environments, metrics = ports
    workers = 10_000 + os.getpid() % 10 * 500  # below all free ports; another cluster on this machine takes others
    command = [
        str(program), "start", "--head", "--block", "--disable-usage-stats", "--include-dashboard=true",
        f"--port={port}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1",
        "--node-ip-address=127.0.0.2", f"--num-cpus={cpus}", "--object-store-memory=100000000",
        f"--temp-dir={short}", f"--ray-client-server-port={client}",
        f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_rpc}",
        f"--runtime-env-agent-port={environments}", f"--metrics-export-port={metrics}",
        f"--min-worker-port={workers}", f"--max-worker-port={workers + 499}",
    ]  # fmt: skip
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = (folder.parent / "ray.log").open("wb")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
    url = f"http://127.0.0.1:{dashboard}"
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not (_answers(f"{url}/api/version") and _takes_jobs(url)):  # it answers before it takes jobs
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Ray did not start:\n{(folder.parent / 'ray.log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()  # never `ray stop`: it would end every Ray of this machine
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        log.close()


def _takes_jobs(url: str) -> bool:
    body = json.dumps({"entrypoint": "true"}).encode()
    return _answers(urllib.request.Request(f"{url}/api/jobs/", data=body, method="POST"))


def _answers(request: str | urllib.request.Request) -> bool:
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), running_ray(Path(sys.argv[1]).resolve() / "ray") as url:
        print(f"export MLINTERN_RAY_URL={url}", flush=True)
        signal.pause()
