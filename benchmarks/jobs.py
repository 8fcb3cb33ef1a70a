"""What jobs cost the one who waits: submission, polling, memory, and the end of a huge log.

    python benchmarks/jobs.py

Bounds: a poll with 10,000 jobs in the ledger takes at most 50 ms (median); the last 200 lines of a log of 2 GB come
in at most 200 ms and 50 MB. The other numbers are printed without a bound.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' parts serve here too

from mlintern.common.clock import SystemClock
from mlintern.tools.jobs import job_rows
from mlintern.tools.jobs.spec import JobSpec
from mlintern.tools.workspace import Workspace
from tests.tools.jobs.local_lab import LocalLab

POLL_BOUND_MS = 50.0
TAIL_BOUND_MS = 200.0
TAIL_BOUND_MB = 50.0
LOG_BYTES = 2 << 30


async def submission_and_poll(folder: Path) -> list[tuple[str, float, str, float | None]]:
    """Submission of a local job, and a poll of a running one among 10,000."""
    lab = LocalLab(Workspace.open(folder), SystemClock(wait_scale=1.0))
    fill(lab, 10_000)
    submitted, polled = [], []
    text = "import time; print('up', flush=True); time.sleep(600)"
    running = await lab.start(text, run_name="polled")
    await lab.running(running)
    for number in range(20):
        spec = await lab.plan("print(1)", run_name=str(number))
        began = time.perf_counter()
        await lab.jobs.submit(spec)
        submitted.append((time.perf_counter() - began) * 1000)
        await lab.jobs.cancel(spec.job_id)
    for _ in range(50):
        began = time.perf_counter()
        await lab.jobs.poll(running)
        polled.append((time.perf_counter() - began) * 1000)
    await lab.jobs.cancel(running)
    return [
        ("submit to the local backend, median of 20", statistics.median(submitted), "ms", None),
        ("poll, 10,000 jobs in the ledger, median of 50", statistics.median(polled), "ms", POLL_BOUND_MS),
        ("poll, 10,000 jobs in the ledger, slowest of 50", max(polled), "ms", None),
    ]


def fill(lab: LocalLab, count: int) -> None:
    """Put finished jobs into the ledger."""
    script_id = lab.scripts.add("print(1)")
    with lab.ledger.transaction() as connection:
        for number in range(count):
            spec = JobSpec(script_id, "0" * 64, "local", "cpu", 60.0, run_name=f"filler {number}")
            job_rows.insert(connection, spec, now=float(number))
            job_rows.advance(
                connection,
                spec.job_id,
                seen="queued",
                state="succeeded",
                now=float(number),
                summary={"metrics": {"loss": 0.1}, "log_tail": "done\n" * 20},
            )


async def memory_of_running_jobs(folder: Path, count: int) -> float:
    """MB that this process gains by following ``count`` jobs that report telemetry.

    The jobs' processes are not real: what is measured is the server's own bookkeeping.
    """
    lab = LocalLab(Workspace.open(folder), SystemClock(wait_scale=1.0))
    row = {
        "v": 1,
        "kind": "metrics",
        "time": 1,
        "step": 1,
        "total_steps": 2000,
        "values": {"loss": 1.0, "grad_norm": 1.0},
    }
    for number in range(count):
        output = lab.workspace.job(f"job-{number:012d}") / "output"
        output.mkdir(parents=True)
        lines = (json.dumps({**row, "time": step, "step": step}) + "\n" for step in range(2000))
        (output / "metrics.jsonl").write_text("".join(lines))
    before = rss_mb()
    for number in range(count):
        live = lab.jobs._watcher.live(f"job-{number:012d}")
        live.telemetry.update()
        assert live.telemetry.rows_read == 2000
    return rss_mb() - before


def rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


TAIL = """
import resource, sys, time
from pathlib import Path
from mlintern.tools.jobs import logs
began = time.perf_counter()
page = logs.read_tail(Path(sys.argv[1]), lines=200, max_chars=100_000)
took = (time.perf_counter() - began) * 1000
assert len(page.text.splitlines()) == 200 and not page.truncated, page.note
print(took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)
"""


def tail_of_huge_log(folder: Path) -> list[tuple[str, float, str, float | None]]:
    """A real log of 2 GB (every byte written), read by a fresh process so that its whole memory counts."""
    path = folder / "log.txt"
    block = b"".join(b"step %06d loss 1.2345 grad_norm 0.5678 learning_rate 1.0e-05\n" % n for n in range(16_000))
    with path.open("wb") as file:
        while file.tell() < LOG_BYTES:
            file.write(block)
    times, peaks = [], []
    for _ in range(5):
        answer = subprocess.run([sys.executable, "-c", TAIL, str(path)], capture_output=True, text=True, check=True)
        took, peak = map(float, answer.stdout.split())
        times.append(took)
        peaks.append(peak)
    path.unlink()
    return [
        ("last 200 lines of a 2 GB log, slowest of 5", max(times), "ms", TAIL_BOUND_MS),
        ("its whole process, imports included, peak", max(peaks), "MB", TAIL_BOUND_MB),
    ]


def main() -> int:
    rows: list[tuple[str, float, str, float | None]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows += anyio.run(submission_and_poll, folder / "poll")
        gained = anyio.run(memory_of_running_jobs, folder / "memory", 100)
        rows.append(("bookkeeping of 100 running jobs, 2,000 rows each", gained, "MB", None))
        rows += tail_of_huge_log(folder)
    missed = False
    for what, value, unit, bound in rows:
        verdict = "" if bound is None else f"at most {bound:g}: {'yes' if value <= bound else 'NO'}"
        missed = missed or (bound is not None and value > bound)
        print(f"{what:52s} {value:9.2f} {unit:4s} {verdict}")
    print(f"(peak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB)")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
