"""Run the bench and print its table.

    python -m benchmarks.uplift --cells sarcasm --agent scripted --minutes 5 --seeds 0,1 --out DIR
    python -m benchmarks.uplift --table --out DIR

``--agent`` is ``scripted`` (built in) or a command; {prompt}, {folder} and {mcp} in it are replaced, and the prompt
stands in TASK.md too. ``--table`` prints the table of all runs in DIR. See docs/uplift.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.uplift.cells import CELLS, Cell, Row, Task, read_rows, write_rows
from benchmarks.uplift.folders import ARMS, prepare
from benchmarks.uplift.integrity import in_training_data, violations
from benchmarks.uplift.table import Result, table

SCRIPTED = {"bare": "benchmarks.uplift.scripted_shell", "mlintern": "benchmarks.uplift.scripted_mlintern"}
ROOT = Path(__file__).parents[2]
SCORE_SECONDS = 1800


def task_of(cell: Cell, cache: Path, *, train: int | None, practice: int | None, hidden: int | None) -> Task:
    """The cell's items, without hidden ones that the rows to train on hold already."""
    task = cell.task(cache, train or cell.train, practice or cell.practice, hidden or cell.hidden)
    known = in_training_data([*task.train, *task.practice], task.hidden)
    return Task(
        train=task.train,
        practice=task.practice,
        hidden=[item for number, item in enumerate(task.hidden) if number not in known],
    )


def scores_of(model: Path, base: Path, hidden: Sequence[Row]) -> dict[str, float] | str:
    """The score of each hidden item, from another process; or why there is none. The items are on disk meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        items, answers = Path(name) / "items.jsonl", Path(name) / "answers.jsonl"
        write_rows(items, hidden)
        command = [sys.executable, "-m", "benchmarks.uplift.score", str(model), str(base), str(items), str(answers)]
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=SCORE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return f"unloadable: scoring took longer than {SCORE_SECONDS} s"
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["no message"]
            return f"unloadable: {said[-1][:300]}"
        return {row["id"]: row["score"] for row in read_rows(answers)}


def scores_of_base(name: str, base: Path, hidden: Sequence[Row], cache: Path) -> dict[str, float]:
    """The scores of the base model, computed once for the same items."""
    kept = cache / f"{name}-base.json"
    known: dict[str, float] = json.loads(kept.read_text()) if kept.is_file() else {}
    if list(known) == [item["id"] for item in hidden]:
        return known
    found = scores_of(base, base, hidden)
    if isinstance(found, str):
        raise SystemExit(f"The base model of {name} cannot be scored: {found}")
    kept.write_text(json.dumps(found))
    return found


def run_agent(agent: str, folder: Path, *, said: str, arm: str, minutes: float, seed: int, steps: int | None) -> str:
    """Let the agent work until it ends or the clock does; what the clock says."""
    fields = {"{prompt}": said, "{folder}": str(folder), "{mcp}": str(folder / "mcp.json")}
    command = [sys.executable, "-m", SCRIPTED[arm]] if agent == "scripted" else shlex.split(agent)
    for mark, value in fields.items():
        command = [part.replace(mark, value) for part in command]
    environment = {
        **os.environ,
        "UPLIFT_ENDS_AT": str(time.time() + 60 * minutes),
        "UPLIFT_SEED": str(seed),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
    } | ({"UPLIFT_STEPS": str(steps)} if steps else {})
    with (folder / "agent.log").open("wb") as log:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.uplift.clock", str(60 * minutes), *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            check=True,
        )
        log.write(done.stdout)
    return done.stdout.decode(errors="replace").strip().rpartition("\n")[2]


def judge(
    folder: Path, *, cell: str, arm: str, seed: int, task: Task, base: Path, untrained: dict[str, float]
) -> Result:
    """Look at what an agent left, and score it. Where something is wrong it counts as the untrained model."""
    wrong = violations(folder, base, task.hidden)
    scores: dict[str, float] | str = untrained
    if not wrong:
        scores = scores_of(folder / "final_model", base, task.hidden)
        if isinstance(scores, str):
            wrong, scores = [scores], untrained
    assert not isinstance(scores, str)
    return Result(cell=cell, arm=arm, seed=seed, scores=scores, base=untrained, wrong=wrong)


RUN, RESULT = "run.json", "result.json"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A cell with its items and what its base model scores on the hidden ones."""

    name: str
    base: Path
    task: Task
    untrained: dict[str, float]


def prepared(name: str, sizes: dict[str, int | None], cache: Path) -> Prepared:
    cell = CELLS[name]
    base, task = cell.model(cache), task_of(cell, cache, **sizes)
    return Prepared(name=name, base=base, task=task, untrained=scores_of_base(name, base, task.hidden, cache))


def judged(folder: Path, cell: Prepared, *, arm: str, seed: int) -> Result:
    """Judge a folder, keep the result in it and print it."""
    result = judge(
        folder, cell=cell.name, arm=arm, seed=seed, task=cell.task, base=cell.base, untrained=cell.untrained
    )
    (folder / RESULT).write_text(json.dumps(vars(result), indent=1))
    wrong = f"; void: {'; '.join(result.wrong)}" if result.wrong else ""
    print(f"{cell.name}, {arm}, seed {seed}: {result.score:.1%}{wrong}", flush=True)
    return result


def all_of(out: Path) -> list[Result]:
    """The results of all runs in a folder; those that were not judged yet are judged now."""
    runs = sorted(out.glob(f"*/{RUN}"), key=lambda path: path.stat().st_mtime)
    for path in runs:
        if not (path.parent / RESULT).is_file():
            run = json.loads(path.read_text())
            judged(path.parent, prepared(run["cell"], run["sizes"], out / "cache"), arm=run["arm"], seed=run["seed"])
    return [Result(**json.loads((path.parent / RESULT).read_text())) for path in runs]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.uplift")
    parser.add_argument("--cells", default="sarcasm", help=", ".join(CELLS))
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--agent", default="scripted", help="scripted, or a command with {prompt}, {folder}, {mcp}")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", type=int, help="of the scripted agents: at most so many training steps")
    parser.add_argument("--train", type=int, help="rows to train on")
    parser.add_argument("--practice", type=int, help="items to measure with")
    parser.add_argument("--hidden", type=int, help="items of the hidden test")
    parser.add_argument("--table", action="store_true", help="start no agent: print the table of what --out holds")
    parser.add_argument("--out", type=Path, default=Path("uplift"), help="folder for the runs and what is downloaded")
    arguments = parser.parse_args()
    out: Path = arguments.out.absolute()
    if arguments.table:
        print(f"\n{table(all_of(out))}")
        return 0
    sizes = {"train": arguments.train, "practice": arguments.practice, "hidden": arguments.hidden}
    results: list[Result] = []
    for name in arguments.cells.split(","):
        cell = prepared(name, sizes, out / "cache")
        for seed in map(int, arguments.seeds.split(",")):
            for arm in arguments.arms.split(","):
                folder = out / f"{name}-{arm}-{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
                said = prepare(
                    folder, cell=CELLS[name], task=cell.task, base=cell.base, arm=arm, minutes=arguments.minutes
                )
                (folder / RUN).write_text(json.dumps({"cell": name, "arm": arm, "seed": seed, "sizes": sizes}))
                clock = run_agent(
                    arguments.agent,
                    folder,
                    said=said,
                    arm=arm,
                    minutes=arguments.minutes,
                    seed=seed,
                    steps=arguments.steps,
                )
                print(f"{folder.name}: agent {clock}", flush=True)
                results.append(judged(folder, cell, arm=arm, seed=seed))
    print(f"\n{table(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
