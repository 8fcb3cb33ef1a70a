"""What an evaluation's samples add to the log of a job that shares no files, and what it takes to get them back.

    python -m benchmarks.samples_in_log

Answers are the letters of a multiple choice (likelihood and greedy), or 50 words drawn at random, which compress
worse than prose. Bounds: no line reaches 4096 bytes, a multiple choice adds at most 40 bytes an item, and the samples
put together again are the file that the script wrote.
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' parts serve here too

from mlintern.tools.jobs.logged_samples import restore
from mlintern.tools.jobs.telemetry import rows_in_log
from tests.tools.jobs import pieces

SIZES = (1_000, 10_000)
LONGEST_LINE = 4096
MOST_BYTES_A_CHOICE = 40
LETTERS = "ABCDEFGHIJ"


def choices(count: int, draw: random.Random) -> list[dict[str, Any]]:
    """Samples of a ten-way multiple choice whose items have no ids of their own, so that hashes stand for them."""
    return [
        {
            "id": f"{draw.getrandbits(64):016x}",
            "accuracy": float((prediction := draw.choice(LETTERS)) == (target := draw.choice(LETTERS))),
            "exact_match": float((greedy := draw.choice(LETTERS)) == target),
            "prediction": prediction,
            "greedy": greedy,
            "target": target,
        }
        for _ in range(count)
    ]


def texts(count: int, draw: random.Random) -> list[dict[str, Any]]:
    """Samples of free answers of 50 words each, of which a number is the result."""
    words = re.findall(r"[A-Za-z]+", (Path(__file__).parents[1] / "README.md").read_text())
    return [
        {
            "id": f"{draw.getrandbits(64):016x}",
            "exact_match": float((prediction := str(draw.randrange(500))) == (target := str(draw.randrange(500)))),
            "prediction": prediction,
            "greedy": f"{' '.join(draw.choices(words, k=50))} #### {prediction}",
            "target": target,
        }
        for _ in range(count)
    ]


def main() -> int:
    right = True
    columns = ("file KiB", "log KiB", "B/item", "lines", "print ms", "restore ms")
    print(f"{'answers':<8} {'items':>6}", *(f"{column:>10}" for column in columns))
    for name, make in (("letters", choices), ("words", texts)):
        for count in SIZES:
            samples = make(count, random.Random(count))
            began = time.monotonic()
            lines, said = pieces.printed(samples)
            printed = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "samples.jsonl"
                problem = restore(path, printed=said, rows=rows_in_log("".join(lines)))
                restored = time.monotonic()
                whole = not problem and path.read_bytes() == pieces.file_of(samples)
            added = sum(map(len, lines))
            figures = (len(pieces.file_of(samples)) / 1024, added / 1024, added / count, len(lines))
            times = (1000 * (printed - began), 1000 * (restored - printed))
            print(f"{name:<8} {count:>6}", *(f"{figure:>10.0f}" for figure in (*figures, *times)))
            right &= whole and max(map(len, lines)) < LONGEST_LINE
            right &= make is texts or added / count <= MOST_BYTES_A_CHOICE
    print("bounds hold" if right else "a bound is missed")
    return 0 if right else 1


if __name__ == "__main__":
    raise SystemExit(main())
