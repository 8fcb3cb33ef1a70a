"""A log of Inspect of 500 MB: its header and the scores of its samples, timed in a process of its own.

    python -m benchmarks.large_log [megabytes]

Bounds: at most 1 second and 200 MB from the path to the rows, the score of each sample and one whole sample.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

MEGABYTES, SAMPLES = 500, 5_000
MOST_SECONDS, MOST_MEGABYTES = 1.0, 200.0


def make(path: Path, megabytes: int) -> None:
    """Samples that hold their transcripts, which do not compress; header and summaries beside them."""
    each = megabytes * 10**6 // SAMPLES
    ids = [f"item-{at}" for at in range(SAMPLES)]
    grades = ["C" if at % 3 else "I" for at in range(SAMPLES)]
    header = {
        "version": 2,
        "status": "success",
        "eval": {
            "created": "2026-11-23T05:00:00+00:00",
            "task": "long_task",
            "model": "org/model",
            "dataset": {"name": "long", "samples": SAMPLES, "sample_ids": ids},
            "config": {},
        },
        "results": {
            "completed_samples": SAMPLES,
            "scores": [
                {
                    "name": "match",
                    "scorer": "match",
                    "metrics": {"accuracy": {"name": "accuracy", "value": grades.count("C") / SAMPLES}},
                }
            ],
        },
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for identity in ids:
            text = os.urandom(each // 2).hex()
            whole = {"id": identity, "epoch": 1, "input": "What?", "output": {"completion": text}}
            archive.writestr(f"samples/{identity}_epoch_1.json", json.dumps(whole))
        summaries = [
            {"id": identity, "epoch": 1, "input": "What?", "scores": {"match": {"value": grade}}}
            for identity, grade in zip(ids, grades, strict=True)
        ]
        archive.writestr("summaries.json", json.dumps(summaries))
        archive.writestr("header.json", json.dumps(header))


def measure(path: Path) -> dict[str, float]:
    """Seconds and megabytes of reading; run in a process that has imported the readers and nothing else."""
    from mlintern.tools.evals.read_files import SampleFiles, read_path

    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    [row] = read_path(path).rows
    files = SampleFiles()
    scores = files(row)
    items = files.items(row)
    assert scores is not None and items is not None and len(scores) == SAMPLES
    assert files.whole(row, items[0]).answer
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "megabytes": peak / 1024, "of which by reading": (peak - base) / 1024}


def main() -> int:
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(measure(Path(sys.argv[2]))))
        return 0
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else MEGABYTES
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.eval"
        make(path, megabytes)
        size = path.stat().st_size / 1e6
        runs = [
            json.loads(
                subprocess.run(
                    [sys.executable, "-m", "benchmarks.large_log", "measure", str(path)],
                    check=True,
                    capture_output=True,
                    text=True,
                    timeout=120,
                ).stdout
            )
            for _ in range(3)
        ]
    best = min(runs, key=lambda run: run["seconds"])
    print(f"{size:.0f} MB, {SAMPLES:,} samples: {best['seconds']:.2f} s, {best['megabytes']:.0f} MB")
    return 0 if best["seconds"] <= MOST_SECONDS and best["megabytes"] <= MOST_MEGABYTES else 1


if __name__ == "__main__":
    raise SystemExit(main())
