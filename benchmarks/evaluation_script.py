"""What it costs to measure a tiny model: 1,000 ten-way items, likelihood and greedy answer, one CPU core.

    python -m benchmarks.evaluation_script

Bound: at most 10 s from the first row that the script reports to the last, best of three. That holds loading the
model and scoring every item, not the imports of torch and transformers.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' parts serve here too

from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.render import render
from tests.services import tiny_model

BOUND_SECONDS = 10.0
ITEMS = 1000
REPEATS = 3


def measure(folder: Path) -> tuple[float, float, float]:
    """(seconds of the whole process, its CPU seconds, seconds from the first to the last row)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    subprocess.run(
        [sys.executable, str(folder / "script.py")],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "MLINTERN_OUTPUT_DIR": str(folder / "output"),
        },
        check=True,
        capture_output=True,
    )
    wall = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    rows = [json.loads(line) for line in (folder / "output" / "metrics.jsonl").read_text().splitlines()]
    begun = max(row["time"] for row in rows if row["kind"] == "begin")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, rows[-1]["time"] - begun


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = tiny_model.make_tiny_model(folder / "model", hidden=64)
        data = tiny_model.write_rows(folder / "items.jsonl", tiny_model.questions(ITEMS))
        recipe = {
            "trainer": "evaluation",
            "model": str(model),
            "dataset": str(data),
            "prompt": "{question}",
            "batch_size": 100,
            "max_new_tokens": 4,
            "use_cpu": True,
        }
        (folder / "script.py").write_text(render(parse_recipe(recipe)).text, encoding="utf-8")
        runs = [measure(folder) for _ in range(REPEATS)]
    print(f"{'run':>4} {'process s':>10} {'CPU s':>7} {'measuring s':>12}")
    for number, (wall, cpu, measuring) in enumerate(runs, start=1):
        print(f"{number:>4} {wall:>10.1f} {cpu:>7.1f} {measuring:>12.1f}")
    best = min(measuring for _, _, measuring in runs)
    print(f"measuring {ITEMS} items: {best:.1f} s at best, bound {BOUND_SECONDS:.0f} s")
    return 0 if best <= BOUND_SECONDS else 1


if __name__ == "__main__":
    raise SystemExit(main())
