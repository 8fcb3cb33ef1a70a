"""The whole main job on this machine: how long it takes and how much memory all of its processes hold together.

    python benchmarks/rehearsal.py

Bounds: at most 4 minutes on two cores without a GPU, models made from nothing included, and at most 2.5 GB. Those on
accuracy (chance, then at least 60 % with the first recipe and 85 % at the end) are checked here too.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

SECONDS_BOUND = 240.0
GIGABYTES_BOUND = 2.5
FIRST_BOUND, LAST_BOUND = 60.0, 85.0


def resident_bytes(root: psutil.Process, folder: str) -> int:
    """Resident memory of ``root``'s tree and of whatever works in ``folder``: jobs have supervisors of their own."""
    found: dict[int, int] = {}
    with contextlib.suppress(psutil.Error):
        heads = [root]
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(folder in word for word in process.cmdline()):
                    heads.append(process)
        for head in heads:
            for process in (head, *head.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    found[process.pid] = process.memory_info().rss
    return sum(found.values())


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mlintern.orchestrator.cli", "--rehearse", "--yes"]
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        peak, over = 0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not over.wait(0.5):
                peak = max(peak, resident_bytes(psutil.Process(process.pid), str(Path(folder).resolve())))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        output, _ = process.communicate(timeout=900)
        seconds = time.monotonic() - started
        over.set()
        watcher.join()
    verified = re.search(r"baseline ([\d.]+)%, trained ([\d.]+)%(?:, ([\d.]+)%)*", output)
    if process.returncode != 0 or verified is None:
        print(output[-2000:])
        return 1
    scores = [float(text) for text in re.findall(r"[\d.]+(?=%)", verified[0])]
    rows = [
        ("wall time, s", seconds, seconds <= SECONDS_BOUND, f"at most {SECONDS_BOUND:g}"),
        ("peak memory of all processes, GB", peak / 1e9, peak / 1e9 <= GIGABYTES_BOUND, f"at most {GIGABYTES_BOUND}"),
        ("baseline, %", scores[0], 6 <= scores[0] <= 14, "chance is 10"),
        ("first recipe, %", scores[1], scores[1] >= FIRST_BOUND, f"at least {FIRST_BOUND:g}"),
        ("last recipe, %", scores[-1], scores[-1] >= LAST_BOUND, f"at least {LAST_BOUND:g}"),
    ]
    for name, value, good, bound in rows:
        print(f"{name:<36}{value:>10.2f}   {bound}{'' if good else '   MISSED'}")
    return 0 if all(good for _, _, good, _ in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
