"""Logs as further trainers, trackers, notebooks and launchers write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mlintern.tools.errors import BadInput
from mlintern.tools.health.diagnose import diagnose
from mlintern.tools.health.loader import TrainingLog, load
from mlintern.tools.health.printed_logs import read_printed
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace

Write = Callable[[str, str], TrainingLog]


@pytest.fixture
def written(workspace: Workspace, ledger: Ledger, tmp_path: Path) -> Write:
    def write(name: str, content: str) -> TrainingLog:
        path = tmp_path / name
        path.write_text(content)
        return load(str(path), workspace=workspace, ledger=ledger)

    return write


TITAN = (
    "[rank0]:[titan] 2025-02-05 10:11:01,123 - root - INFO - \x1b[31mstep: {n:2d}  \x1b[32mloss:  7.1250  "
    "\x1b[38;2;180;60;0mgrad_norm:  1.2300  \x1b[33mmemory: 30.21GiB(38.1%)  \x1b[34mtps: 7,123\x1b[39m\n"
)
NUMPY = "(TaskRunner pid=7) step:{n} - actor/entropy:np.float64(0.4) - critic/score/mean:0.25 - actor/lr:1e-06\n"
BAR = "\r1|{n}|Loss: 1.25:  10%|#| {n}/30 [00:01<00:02,  1.1s/it]"
LIGHTNING = "\rEpoch {n}: 100%|#| 9/9 [00:01<00:00,  9.8it/s, v_num=3, train_loss_step=0.500, val_loss=0.750]"
BLOCK = "\n===== Step {n}/30 =====\nPreparing\n  • Loss: 0.0125\n  • Avg Reward: 0.41\n\nTiming:\n  • Step: 31.2s\n"
FAIRSEQ = '2021 | INFO | train_inner | {{"epoch": 1, "loss": "8.125", "num_updates": "{n}", "gnorm": "1.5"}}\n'


@pytest.mark.parametrize(
    ("line", "expected", "total"),
    [
        (TITAN, {"loss": 7.125, "grad_norm": 1.23}, None),
        (NUMPY, {"actor/entropy": 0.4, "critic/score/mean": 0.25}, None),
        (BAR, {"loss": 1.25}, 30),
        (LIGHTNING, {"train_loss_step": 0.5, "eval_loss": 0.75}, None),
        (BLOCK, {"loss": 0.0125, "reward": 0.41}, 30),
        (FAIRSEQ, {"loss": 8.125, "gnorm": 1.5}, None),
    ],
    ids=["torchtitan in colours", "verl with numpy", "torchtune's bar", "Lightning", "NeMo-RL", "fairseq"],
)
def test_what_they_print_is_read(line: str, expected: dict[str, float], total: int | None) -> None:
    rows = read_printed("INFO loaded 2 shards\n" + "".join(line.format(n=n) for n in range(1, 4))).rows
    assert [int(row.get("step", at)) for at, row in enumerate(rows, start=1)] == [1, 2, 3]
    assert rows[0].get("total_steps") == total
    found = {name: float(value) for name, value in rows[0]["values"].items()}
    assert {name: found[name] for name in expected} == expected


def test_a_bar_that_begins_again_each_epoch_gives_no_steps() -> None:
    text = "".join(
        f"\rEpoch {epoch}: {at}/2 [00:01<00:00, v_num=3, train_loss={2 - epoch}]" for epoch in (0, 1) for at in (1, 2)
    )
    assert [("step" in row, float(row["values"]["loss"])) for row in read_printed(text).rows] == [
        (False, 2),
        (False, 2),
        (False, 1),
        (False, 1),
    ]


def notebook(*outputs: dict[str, object]) -> str:
    return json.dumps({"cells": [{"cell_type": "markdown"}, *({"outputs": [one]} for one in outputs)]})


def shown(rows: int) -> dict[str, object]:
    cells = "".join(f"<tr>\n<td>{n}</td>\n<td>{2 / n}</td>\n</tr>\n" for n in range(1, rows + 1))
    head = "<thead>\n<tr><th>Step</th>\n<th>Training Loss</th>\n</tr></thead>"
    return {"output_type": "display_data", "data": {"text/html": ["<table>", head, cells, "</table>"]}}


def test_of_a_notebook_the_cell_with_the_most_rows_is_read(written: Write) -> None:
    printed = {"output_type": "stream", "text": ["{'loss': 9.0, 'epoch': 0.5}\n", "{'loss': 8.0, 'epoch': 1.0}\n"]}
    log = written("train.ipynb", notebook(printed, shown(3)))
    assert [(row["step"], float(row["values"]["loss"])) for row in log.rows] == [(1, 2), (2, 1), (3, 2 / 3)]
    assert log.notes[0] == "2 cells show metrics; the one with the most rows is read."


def test_the_error_of_a_notebook_is_named(written: Write) -> None:
    cell = {
        "outputs": [
            {"output_type": "stream", "text": "{'loss': 2.0, 'epoch': 0.1}\n"},
            {"output_type": "error", "ename": "OutOfMemoryError", "evalue": "CUDA out of memory.", "traceback": []},
        ]
    }
    [finding] = diagnose(written("train.ipynb", json.dumps({"cells": [cell]})).rows).findings
    assert (finding.kind, finding.evidence) == ("crash", "out of memory: OutOfMemoryError: CUDA out of memory.")


def test_a_notebook_that_is_cut_off_says_so(written: Write) -> None:
    with pytest.raises(BadInput, match="not valid JSON"):
        written("train.ipynb", '{"cells": [')


def test_names_with_spaces_about_the_slash_are_the_same_names(written: Write) -> None:
    text = "Step\tTraining Loss\treward\trewards / check / mean\n1\t0.1\t0.5\t0.25\n2\t0.1\t0.5\t0.25\n"
    assert float(read_printed(text).rows[0]["values"]["rewards/check/mean"]) == 0.25


@pytest.mark.parametrize(
    ("logged", "name"),
    [
        ("val-core/openai/gsm8k/reward/mean@1", "eval_openai/gsm8k/reward"),
        ("val-core/math/acc/mean@8", "eval_math/acc"),
        ("val/test_score/openai/gsm8k", "eval_openai/gsm8k/score"),
    ],
)
def test_validation_of_verl_counts_as_held_out(written: Write, logged: str, name: str) -> None:
    [row] = written("verl.jsonl", json.dumps({"step": 5, "data": {logged: 0.5}}) + "\n").rows
    assert row["values"] == {name: 0.5}


@pytest.mark.parametrize("name", ["runs.jsonl", "runs.csv"])
def test_of_a_table_with_several_runs_the_longest_is_read_and_that_is_said(written: Write, name: str) -> None:
    rows = [("a", step, 2.0) for step in range(3)] + [("b", step, 1.0) for step in range(5)]
    rows.sort(key=lambda row: row[1])
    if name.endswith("csv"):
        text = "run,step,loss\n" + "".join(f"{run},{step},{loss}\n" for run, step, loss in rows)
    else:
        text = "".join(json.dumps({"run_name": run, "step": step, "loss": loss}) + "\n" for run, step, loss in rows)
    log = written(name, text)
    assert [(row["step"], float(row["values"]["loss"])) for row in log.rows] == [(step, 1.0) for step in range(5)]
    assert log.notes[0].startswith("The log holds 2 runs") and "'b' is read" in log.notes[0]


@pytest.mark.parametrize(
    "prefix",
    [
        "(TaskRunner pid=2311) ",
        "(W pid=4, ip=10.0.0.1) ",
        "2025-03-11T10:00:01.1Z ",
        "3: ",
        "[rank3]: ",
        "[1,3]<stderr>:",
    ],
)
def test_a_traceback_behind_the_prefix_of_a_launcher_is_named(prefix: str) -> None:
    trace = ["Traceback (most recent call last):", '  File "train.py", line 3, in <module>', "    main()"]
    text = "{'loss': 2.0, 'epoch': 0.1}\n" + "".join(f"{prefix}{line}\n" for line in [*trace, "KeyError: 'prompt'"])
    [finding] = diagnose(read_printed(text).rows).findings
    assert (finding.kind, finding.evidence) == ("crash", "wrong argument or data: KeyError: 'prompt'")


@pytest.mark.parametrize(
    "before",
    ["Exception ignored in: <function Pool.__del__ at 0x7f>", "--- Logging error ---"],
    ids=["del", "logging"],
)
def test_a_traceback_that_python_passes_by_is_no_crash(before: str) -> None:
    text = "{'loss': 2.0, 'epoch': 0.1}\n" + f"{before}\nTraceback (most recent call last):\n  x\nTypeError: 'x'\n"
    assert [row["kind"] for row in read_printed(text).rows] == ["metrics"]
    real = "Traceback (most recent call last):\n  x\nValueError: real\n"
    assert read_printed(text + real).rows[-1]["line"] == "ValueError: real"


@pytest.mark.parametrize("cut", ["", '{"step": 9, "lo'], ids=["whole", "last row cut"])
def test_a_traceback_behind_rows_of_json_is_named(written: Write, cut: str) -> None:
    rows = "".join(json.dumps({"step": step, "loss": 2.0}) + "\n" for step in range(3))
    trace = "Traceback (most recent call last):\n  x\nRuntimeError: CUDA error: device-side assert triggered\n"
    log = written("metrics.jsonl", f"{rows}{cut}\n{trace}")
    assert [row["kind"] for row in log.rows] == ["metrics"] * 3 + ["crash"]
    assert log.rows[-1]["cause"] == "assertion on the GPU"
    assert [row["kind"] for row in written("metrics.jsonl", f"{trace}{rows}").rows] == ["metrics"] * 3
