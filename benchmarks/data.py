"""What it costs to look at data: statistics against `datasets` with pandas, and the contamination check.

    python -m benchmarks.data [--quick]

Bounds, each side in a process of its own, on the same generated file:

* statistics of a 1 GB parquet file (5 M rows): at least 5 times faster than `datasets` plus pandas, in at most a
  quarter of the memory (the better of two runs of each, in turns);
* the whole `inspect_dataset` of a 2 GB parquet file with 10 M rows: at most 700 MB;
* `check_contamination` of 1 M training rows of 100 tokens against 10,000 evaluation rows: at most 120 s.

`--quick` takes a tenth of the rows and checks no bound. Printed beside it: tokens a second against a plain Python
dictionary of n-grams. Memory is the peak resident set of the process, imports included.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FASTER, LEANER = 5.0, 4.0
MOST_MEGABYTES = 700
MOST_SECONDS = 120
REPEATS = 2


def make_table(path: Path, rows: int) -> None:
    """About 207 bytes a row in snappy parquet: numbers, a category, a label with gaps, two texts."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET threads = 2; SET memory_limit = '1GB'; SET preserve_insertion_order = false")
        connection.execute(
            f"""COPY (SELECT i AS id, (random() * 1000)::INT AS topic, random() AS score,
                ['easy', 'hard', 'medium'][1 + i % 3] AS level,
                concat_ws(' ', md5(i::VARCHAR), md5((i * 7)::VARCHAR), 'what is', md5((i % 1000)::VARCHAR)) AS prompt,
                concat_ws(' ', md5((i * 3)::VARCHAR), md5((i + 1)::VARCHAR), md5(random()::VARCHAR)) AS completion,
                CASE WHEN i % 50 = 0 THEN NULL ELSE (i % 13)::INT END AS label
                FROM range({rows}) AS t(i)) TO '{path}' (FORMAT parquet)"""
        )


def make_texts(path: Path, rows: int, tokens: int) -> None:
    """Rows of ``tokens`` words, drawn from 30,000 with a skew (the cube of a uniform number)."""
    import duckdb

    word = "'w' || (pow(random(), 3) * 30000)::INT"
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT i AS id, array_to_string(list_transform(range({tokens}), lambda x: {word}), ' ') AS text "
            f"FROM range({rows}) AS t(i)) TO '{path}' (FORMAT parquet)"
        )


def ours(path: str) -> dict[str, Any]:
    from mlintern.tools.data.column_statistics import column_statistics
    from mlintern.tools.data.duplicates import count_exact
    from mlintern.tools.data.table import connect, read_table

    with tempfile.TemporaryDirectory() as folder, connect(Path(folder)) as connection:
        table = read_table(connection, [Path(path)])
        columns = column_statistics(table, table.columns)
        return {"missing": sum(c.missing for c in columns), "duplicates": count_exact(table, Path(folder))}


def pandas_way(path: str) -> dict[str, Any]:
    """The same quantities as people compute them."""
    from datasets import load_dataset
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    with tempfile.TemporaryDirectory() as cache:
        frame = load_dataset("parquet", data_files=path, split="train", cache_dir=cache).to_pandas()
        missing = int(frame.isna().sum().sum())
        for name in frame.columns:
            column = frame[name]
            distinct = column.nunique()
            if column.dtype.kind in "if":
                column.agg(["min", "max", "mean", "std", "median"])
            else:
                lengths = column.str.len()
                lengths.agg(["min", "max", "mean"])
                lengths.quantile([0.5, 0.95])
            if distinct <= 30:
                column.value_counts()
        return {"missing": missing, "duplicates": int(frame.duplicated().sum())}


def whole_inspection(path: str) -> dict[str, Any]:
    from mlintern.common.clock import SystemClock
    from mlintern.tools.data.inspect_dataset import DatasetInspector
    from mlintern.tools.hub.client import HubClient
    from mlintern.tools.web import Web
    from mlintern.tools.workspace import Workspace

    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.open(folder)
        inspector = DatasetInspector(workspace=workspace, hub=HubClient(), web=Web(workspace, SystemClock()))
        result = asyncio.run(inspector.inspect(path))
        return {"rows": result.rows, "columns": len(result.columns)}


def contamination(train: str, evaluation: str) -> dict[str, Any]:
    from mlintern.tools.data.contamination import ContaminationChecker

    result = asyncio.run(ContaminationChecker().check(train, evaluation))
    return {"rows": result.train_rows, "flagged": result.flagged}


def plain_dictionary(train: str, evaluation: str) -> dict[str, Any]:
    """n-grams of the evaluation set in a dict, every n-gram of every training row looked up in it."""
    import re

    import pyarrow.parquet as pq

    def grams(text: str) -> list[str]:
        words = re.findall(r"\w+", text.lower())
        return [" ".join(words[i : i + 8]) for i in range(len(words) - 7)]

    index: dict[str, int] = {}
    for number, text in enumerate(pq.read_table(evaluation)["text"].to_pylist()):
        for gram in grams(text):
            index[gram] = number
    rows, flagged = 0, set[int]()
    for batch in pq.ParquetFile(train).iter_batches(columns=["text"]):
        for text in batch.column(0).to_pylist():
            rows += 1
            flagged.update(index[gram] for gram in grams(text) if gram in index)
    return {"rows": rows, "flagged": len(flagged)}


TASKS = {task.__name__: task for task in (ours, pandas_way, whole_inspection, contamination, plain_dictionary)}


def run(task: str, *arguments: Path) -> dict[str, Any]:
    """One task in a process of its own: its answer, seconds and peak megabytes."""
    command = [sys.executable, "-m", "benchmarks.data", "--task", task, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{task} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(task: str, arguments: list[str]) -> None:
    started = time.monotonic()
    answer = TASKS[task](*arguments)
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**answer, "seconds": round(seconds, 2), "megabytes": round(peak)}))


def main() -> int:
    scale = 10 if "--quick" in sys.argv else 1
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = folder / "table.parquet"
        make_table(table, 5_000_000 // scale)
        pairs = [(run("ours", table), run("pandas_way", table)) for _ in range(REPEATS)]
        mine, theirs = (min(side, key=lambda one: one["seconds"]) for side in zip(*pairs, strict=True))
        faster, leaner = theirs["seconds"] / mine["seconds"], theirs["megabytes"] / mine["megabytes"]
        print(f"statistics of {table.stat().st_size / 1e9:.2f} GB parquet, {5_000_000 // scale:,} rows")
        print(f"  mlintern           {mine['seconds']:7.1f} s  {mine['megabytes']:6d} MB")
        print(f"  datasets + pandas  {theirs['seconds']:7.1f} s  {theirs['megabytes']:6d} MB")
        print(f"  {faster:.1f} times faster (bound {FASTER:g}), {leaner:.1f} times less memory (bound {LEANER:g})")
        if (mine["missing"], mine["duplicates"]) != (theirs["missing"], theirs["duplicates"]):
            missed.append("the two ways disagree on missing values or duplicates")
        if faster < FASTER or leaner < LEANER:
            missed.append("statistics")
        make_table(table, 10_000_000 // scale)
        whole = run("whole_inspection", table)
        print(f"inspect_dataset of {table.stat().st_size / 1e9:.2f} GB parquet, {whole['rows']:,} rows")
        print(f"  {whole['seconds']:.1f} s, {whole['megabytes']} MB (bound {MOST_MEGABYTES})")
        if whole["megabytes"] > MOST_MEGABYTES:
            missed.append("memory of inspect_dataset")
        train, evaluation = folder / "train.parquet", folder / "test.parquet"
        make_texts(train, 1_000_000 // scale, 100)
        make_texts(evaluation, 10_000, 50)
        check, plain = run("contamination", train, evaluation), run("plain_dictionary", train, evaluation)
        print(f"check_contamination, {check['rows']:,} training rows of 100 tokens against 10,000 rows of 50 tokens")
        for title, one in (("mlintern", check), ("plain dictionary", plain)):
            speed = one["rows"] * 100 / one["seconds"] / 1e6
            print(f"  {title:17s} {one['seconds']:7.1f} s  {one['megabytes']:6d} MB  {speed:.1f} M tokens/s")
        print(f"  bound {MOST_SECONDS} s")
        if check["seconds"] > MOST_SECONDS:
            missed.append("time of check_contamination")
    if scale > 1:
        print("quick run: no bound checked")
        return 0
    print("all bounds met" if not missed else f"missed: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    if "--task" in sys.argv:
        child(sys.argv[2], sys.argv[3:])
    else:
        raise SystemExit(main())
