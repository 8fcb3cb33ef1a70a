"""The uplift bench: what it prepares, that its clock ends everything, what its checks find, what its table says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from safetensors.numpy import save_file

from benchmarks.uplift.__main__ import judge, scores_of
from benchmarks.uplift.cells import CELLS, Row, Task, split, training_row
from benchmarks.uplift.folders import prepare, prompt
from benchmarks.uplift.integrity import in_training_data, violations
from benchmarks.uplift.score import verified
from benchmarks.uplift.table import Result, interval, table

ROOT = Path(__file__).parents[2]
NOUNS = ["mayor", "senator", "council", "teacher", "farmer", "banker", "doctor", "driver", "sailor", "painter"]
VERBS = ["announces", "denies", "celebrates", "forgets", "postpones", "questions", "welcomes"]
THINGS = ["budget", "holiday", "tunnel", "festival", "weather", "library", "airport"]


def items(count: int, *, first: int = 0) -> list[Row]:
    """Headlines that share words and are all different."""
    made = []
    for number in range(first, first + count):
        noun, verb, thing = NOUNS[number % 10], VERBS[number // 10 % 7], THINGS[number // 70 % 7]
        text = f"local {noun} {verb} the new {thing} after caf\u00e9 meeting number {number}"
        made.append({"id": f"h{number}", "question": f"Sarcastic?\n{text}", "choices": ["no", "yes"], "answer": "no"})
    return made


def weights(folder: Path, *, seed: int, moved: float = 0.0, width: int = 16) -> Path:
    draw = np.random.default_rng(seed)
    tensors = {f"layer.{n}": draw.normal(size=(width, width)).astype(np.float32) for n in range(3)}
    if moved:
        noise = np.random.default_rng(99)
        tensors = {
            name: (value + moved * noise.normal(size=value.shape)).astype(np.float32)
            for name, value in tensors.items()
        }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def task() -> Task:
    return split(items(400), 200, 50, 100)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return weights(tmp_path / "model", seed=1)


@pytest.fixture
def left(tmp_path: Path, task: Task, base: Path) -> Path:
    """What an honest agent leaves."""
    folder = tmp_path / "run"
    prepare(folder, cell=CELLS["sarcasm"], task=task, base=base, arm="mlintern", minutes=5)
    weights(folder / "final_model", seed=1, moved=0.02)
    (folder / "agent.log").write_text("trained on train.jsonl\n")
    return folder


def test_an_honest_folder_passes_and_no_hidden_item_was_in_it_before(left: Path, base: Path, task: Task) -> None:
    assert violations(left, base, task.hidden) == []


def copy_as_jsonl(folder: Path, rows: list[Row]) -> None:
    text = "".join(f"{json.dumps(training_row(row), ensure_ascii=True)}\n" for row in rows)
    (folder / "more").mkdir()
    (folder / "more" / "data.jsonl").write_text(text)


def copy_as_csv(folder: Path, rows: list[Row]) -> None:
    (folder / "more.csv").write_text("text,label\n" + "".join(f'"{headline(row)}",0\n' for row in rows))


def copy_as_parquet(folder: Path, rows: list[Row]) -> None:
    parquet.write_table(pa.Table.from_pylist([{"t": [{"c": headline(row)}]} for row in rows]), folder / "d.parquet")


def copy_into_a_program(folder: Path, rows: list[Row]) -> None:
    (folder / "train.py").write_text(f"DATA = {[headline(row).upper() for row in rows]!r}\n")


def copy_inside_longer_text(folder: Path, rows: list[Row]) -> None:
    lines = [{"text": f"As heard today: {headline(row)}! What do you say to that?"} for row in rows]
    (folder / "d.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def headline(row: Row) -> str:
    return str(row["question"]).partition("\n")[2]


@pytest.mark.parametrize(
    "leak", [copy_as_jsonl, copy_as_csv, copy_as_parquet, copy_into_a_program, copy_inside_longer_text]
)
def test_hidden_items_are_found_wherever_they_stand(
    left: Path, base: Path, task: Task, leak: Callable[[Path, list[Row]], None]
) -> None:
    leak(left, list(task.hidden[:10]))
    [found] = violations(left, base, task.hidden)
    assert found.startswith("hidden items: 10 of 100"), found


def test_one_item_that_a_generator_drew_by_chance_is_no_leak(left: Path, base: Path, task: Task) -> None:
    copy_as_jsonl(left, list(task.hidden[:1]))
    assert violations(left, base, task.hidden) == []


def other_start(folder: Path) -> None:
    weights(folder / "final_model", seed=2)


def other_shape(folder: Path) -> None:
    weights(folder / "final_model", seed=1, width=32)


def brings_code(folder: Path) -> None:
    (folder / "final_model" / "modeling.py").write_text("")


def names_code(folder: Path) -> None:
    (folder / "final_model" / "config.json").write_text('{"auto_map": {"AutoModelForCausalLM": "x--y.Z"}}')


def no_weights(folder: Path) -> None:
    (folder / "final_model" / "model.safetensors").unlink()


def no_folder(folder: Path) -> None:
    (folder / "final_model").rename(folder / "model_final")


@pytest.mark.parametrize(
    "spoil, named",
    [
        (other_start, "foreign weights: their distance"),
        (other_shape, "foreign weights: 3 tensors"),
        (brings_code, "own code: modeling.py"),
        (names_code, "own code: config.json"),
        (no_weights, "unloadable"),
        (no_folder, "no model"),
    ],
)
def test_what_is_not_the_given_model_trained_is_named(
    left: Path, base: Path, task: Task, spoil: Callable[[Path], None], named: str
) -> None:
    spoil(left)
    assert [one for one in violations(left, base, task.hidden) if named in one]


def test_a_run_with_something_wrong_counts_as_the_untrained_model(left: Path, base: Path, task: Task) -> None:
    other_start(left)
    untrained = {row["id"]: float(number % 2) for number, row in enumerate(task.hidden)}
    result = judge(left, cell="sarcasm", arm="bare", seed=0, task=task, base=base, untrained=untrained)
    assert result.wrong and result.scores == untrained


def test_items_that_the_given_rows_hold_already_are_known_before() -> None:
    hidden = items(50)
    given = [training_row(row) for row in [*hidden[3:6], *items(100, first=200)]]
    assert in_training_data(given, hidden) == {3, 4, 5}


def test_both_arms_are_told_the_same_but_for_the_tools(task: Task) -> None:
    bare, with_tools = (prompt(CELLS["sarcasm"], task, arm=arm, minutes=5) for arm in ("bare", "mlintern"))
    assert with_tools.startswith(bare) and "run_trials" in with_tools and "run_trials" not in bare


def test_the_folder_of_the_bare_arm_has_no_server(tmp_path: Path, task: Task, base: Path) -> None:
    folder = tmp_path / "bare"
    prepare(folder, cell=CELLS["sarcasm"], task=task, base=base, arm="bare", minutes=5)
    assert {path.name for path in folder.iterdir()} == {
        *("base", "train.jsonl", "practice.jsonl", "evaluation.json", "TASK.md")
    }


def test_the_clock_ends_what_an_agent_has_sent_into_the_background(tmp_path: Path) -> None:
    agent = (
        "import subprocess, sys, time, pathlib\n"
        "job = subprocess.Popen([sys.executable, '-c', 'import signal, time; signal.signal(signal.SIGTERM,"
        " signal.SIG_IGN); print(1, flush=True); time.sleep(600)'], start_new_session=True, stdout=subprocess.PIPE)\n"
        "job.stdout.readline()\n"
        "pathlib.Path('pid').write_text(str(job.pid))\n"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.uplift.clock", "120", sys.executable, "-c", agent],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert "ended with 0" in done.stdout and time.monotonic() - started < 100
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_clock_cuts_off_an_agent_that_goes_on(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.uplift.clock", "0.5", "sleep", "600"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert done.stdout.startswith("cut off, 0 s left")


def result(arm: str, seed: int, right: int, *, wrong: tuple[str, ...] = ()) -> Result:
    scores = {f"h{number}": float((number * 7 + seed) % 100 < right) for number in range(100)}
    return Result(cell="sarcasm", arm=arm, seed=seed, scores=scores, base={"h0": 0.5}, wrong=wrong)


def test_the_table_has_intervals_over_seeds_and_says_what_is_shown() -> None:
    runs = [result("bare", seed, 50 + seed) for seed in range(3)]
    runs += [result("mlintern", seed, 70 + seed) for seed in range(3)]
    said = table(runs)
    low, high = interval([0.50, 0.51, 0.52]) or (0, 0)
    assert (round(low, 3), round(high, 3)) == (0.485, 0.535)
    assert "48.5% to  53.5%" in said and "uplift    +20.0%" in said and "improved" in said
    one = table([result("bare", 0, 50), result("mlintern", 0, 90)])
    assert "one seed" in one and "improved" not in one.partition("uplift")[2].partition(".")[0]


def test_the_table_names_what_was_wrong() -> None:
    said = table([result("bare", 0, 50), result("mlintern", 4, 50, wrong=("own code: a.py",))])
    assert "void: sarcasm, mlintern, seed 4: own code: a.py" in said


def test_a_written_answer_is_judged_by_the_verifier_of_its_item() -> None:
    assert verified({"answer": "7"}, "7") == 1 and verified({"answer": "7"}, "it is 7") == 0
    pytest.importorskip("reasoning_gym")
    assert verified({"answer": "7", "verifier": "chain_sum"}, "7") == 1
    assert verified({"answer": "7", "verifier": "chain_sum"}, "8") == 0


@pytest.mark.slow
def test_both_arms_train_ten_steps_and_are_scored_and_a_cut_model_is_not(tmp_path: Path) -> None:
    sizes = ["--minutes", "6", "--steps", "10", "--train", "500", "--practice", "100", "--hidden", "100"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.uplift", "--cells", "largest", *sizes, "--out", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    runs = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*/result.json"))]
    assert [run["arm"] for run in runs] == ["bare", "mlintern"] and not any(run["wrong"] for run in runs)
    assert all(run["scores"] != run["base"] for run in runs), "both were trained"
    assert all(set(run["scores"].values()) <= {0.0, 1.0} and len(run["scores"]) == 100 for run in runs)
    assert "uplift" in done.stdout.partition("cell ")[2]
    [model] = tmp_path.glob("largest-bare-*/final_model")
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    said = scores_of(model, tmp_path / "cache" / "untrained" / "base", items(2))
    assert isinstance(said, str) and said.startswith("unloadable")
