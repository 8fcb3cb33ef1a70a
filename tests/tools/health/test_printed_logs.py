"""Logs of other trainers: rows in printed order, none lost, and the error that ended the script by its name."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from mlintern.tools.health.diagnose import diagnose
from mlintern.tools.health.loader import TrainingLog, load
from mlintern.tools.health.printed_logs import read_printed
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace


def bars(first: int, last: int, total: int) -> str:
    return "".join(f" {at}%|#| {at}/{total} [00:01<00:00,  1.0s/it]" for at in range(first, last + 1))


def test_rows_stay_in_printed_order_however_the_bars_stand_between_them() -> None:
    rewards = [0.9] * 12 + [0.0] * 18
    parts = []
    for start in range(0, 30, 5):
        parts.append(bars(start + 1, start + 5, 30))
        parts += [f"{{'loss': 0.01, 'reward': {reward}, 'epoch': 0.1}}" for reward in rewards[start : start + 5]]
    printed = read_printed("\n".join(parts))
    assert [row["values"]["reward"] for row in printed.rows] == rewards
    assert [row["step"] for row in printed.rows] == list(range(1, 31))
    diagnosis = diagnose(printed.rows)
    assert diagnosis.steps_read == 30
    assert ("reward_collapse", 12) in {(finding.kind, finding.step) for finding in diagnosis.findings}


def test_steps_follow_from_how_often_rows_were_logged() -> None:
    text = "".join(
        bars(at, at + 9, 200) + f"\n{{'loss': {2 - at / 100}, 'epoch': 0.1}}\n" for at in range(1, 101, 10)
    )
    assert [row["step"] for row in read_printed(text).rows] == list(range(10, 101, 10))


def test_the_bar_of_an_evaluation_gives_no_steps() -> None:
    text = "".join(
        bars(1, 7, 7) + bars(at, at, 40) + "\n{'loss': 1.0, 'epoch': 0.1}\n{'eval_loss': 2.0, 'epoch': 0.1}\n"
        for at in range(1, 6)
    )
    printed = read_printed(text)
    assert [row["step"] for row in printed.rows] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_of_several_ranks_one_is_read_and_that_is_said() -> None:
    text = "".join(
        f"[rank{rank}]: {{'loss': {2 - step / 10}, 'epoch': 0.1}}\n" for step in range(5) for rank in (1, 0, 3)
    )
    printed = read_printed(text)
    assert [row["values"]["loss"] for row in printed.rows] == [2.0, 1.9, 1.8, 1.7, 1.6]
    assert printed.notes[0] == "3 ranks printed their rows; those of rank 0 are read."


@pytest.mark.parametrize(
    ("line", "step", "expected"),
    [
        (
            "(TaskRunner pid=7) step:{n} - actor/entropy:0.4 - critic/score/mean:0.25 - actor/grad_norm:nan",
            "{n}",
            {"actor/entropy": 0.4, "critic/score/mean": 0.25},
        ),
        (
            "12:01:07 SUCCESS Step {n} | Time: 5.2s | Loss: 0.0123 | Entropy: 0.31 | Grad. Norm: 0.5 | LR: 1.0e-06",
            "{n}",
            {"loss": 0.0123, "entropy": 0.31, "learning_rate": 1e-06},
        ),
        ("Step {n} | loss:1.25 lr:2e-05 tokens_per_second_per_gpu:1,234.5", "{n}", {"loss": 1.25}),
        ("step {n}: train loss 1.5, val loss 1.75", "{n}", {"loss": 1.5, "eval_loss": 1.75}),
        ("Global step {n}: {{'policy_loss': 0.1, 'reward': 0.5, 'kl': 0.01}}", "{n}", {"reward": 0.5, "kl": 0.01}),
    ],
    ids=["verl", "prime-rl", "torchtune", "nanoGPT", "OpenRLHF"],
)
def test_lines_of_other_trainers_are_read(line: str, step: str, expected: dict[str, float]) -> None:
    text = "\n".join(["INFO loaded 2 shards", *(line.format(n=n) for n in range(1, 4))])
    rows = read_printed(text).rows
    assert [row["step"] for row in rows] == [1, 2, 3]
    found = {name: float(value) for name, value in rows[0]["values"].items()}
    assert {name: found[name] for name in expected} == expected


def test_a_table_of_a_notebook_is_read() -> None:
    rows = read_printed("Step\tTraining Loss\tValidation Loss\n10\t2.5\t2.6\n20\t2.0\tNo log\n").rows
    assert [(row["step"], row["values"]) for row in rows] == [
        (10.0, {"loss": "2.5", "eval_loss": "2.6"}),
        (20.0, {"loss": "2.0"}),
    ]


def test_numbers_that_are_printed_as_tensors_are_numbers() -> None:
    [row] = read_printed("{'loss': tensor(0.5, device='cuda:0'), 'reward': np.float64(0.25), 'epoch': 1}").rows
    assert row["values"] == {"loss": 0.5, "reward": 0.25}


def test_a_configuration_that_is_printed_is_no_row() -> None:
    assert read_printed("config={'learning_rate': 1e-5, 'num_train_epochs': 3}\n{'input_ids': 5}\n").rows == []


@pytest.mark.parametrize(
    ("error", "cause", "kind"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out of memory", "crash"),
        ("ModuleNotFoundError: No module named 'flash_attn'", "import", "crash"),
        (
            "RuntimeError: probability tensor contains either `inf`, `nan` or element < 0",
            "not a number",
            "nan_or_inf",
        ),
        ("OSError: [Errno 28] No space left on device", "disk full", "crash"),
        ("torch.distributed.DistBackendError: NCCL error in: x.cpp", "communication between processes", "crash"),
        ("KeyError: 'prompt'", "wrong argument or data", "crash"),
        ("my.package.OddFailure: something", "error", "crash"),
    ],
)
def test_a_traceback_is_named(error: str, cause: str, kind: str) -> None:
    text = (
        "{'loss': 2.0, 'epoch': 0.1}\nTraceback (most recent call last):\n"
        f'  File "train.py", line 10, in <module>\n    trainer.train()\n{error}\n[rank0]: exiting\n'
    )
    diagnosis = diagnose(read_printed(text).rows)
    [finding] = diagnosis.findings
    assert (diagnosis.verdict, finding.kind, finding.severity) == ("failing", kind, "error")
    assert finding.evidence == f"{cause}: {error}" and finding.advice


def test_an_error_that_was_survived_is_not_reported() -> None:
    text = "Traceback (most recent call last):\n  x\nValueError: retried\n" + "{'loss': 2.0, 'epoch': 0.1}\n" * 12
    assert [row["kind"] for row in read_printed(text).rows] == ["metrics"] * 12


def test_an_error_after_training_had_finished_is_a_warning() -> None:
    text = (
        "{'loss': 2.0, 'epoch': 1.0}\n{'train_runtime': 9.0, 'epoch': 1.0}\nTraceback (most recent call last):\n  x\n"
    )
    [finding] = diagnose(read_printed(text + "huggingface_hub.errors.HfHubHTTPError: 401\n").rows).findings
    assert (finding.kind, finding.severity) == ("crash", "warning")


def test_a_run_that_was_stopped_by_hand_is_a_warning() -> None:
    text = "{'loss': 2.0, 'epoch': 0.1}\nTraceback (most recent call last):\n  x\nKeyboardInterrupt\n"
    [finding] = diagnose(read_printed(text).rows).findings
    assert (finding.kind, finding.severity) == ("crash", "warning")


def test_a_process_that_the_system_ended_is_named() -> None:
    [finding] = diagnose(read_printed("{'loss': 2.0, 'epoch': 0.1}\nKilled\n").rows).findings
    assert finding.evidence == "killed: Killed"


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(workspace: Workspace, ledger: Ledger, tmp_path: Path) -> object:
    def write(name: str, content: str | bytes) -> TrainingLog:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load(str(path), workspace=workspace, ledger=ledger)

    return write


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "trainer_log.jsonl",
            '{"current_steps": 10, "total_steps": 40, "loss": 2.5, "lr": 1e-5, "percentage": 25.0}\n',
        ),
        ("logging.jsonl", '{"loss": "2.5", "global_step/max_steps": "10/40", "percentage": "25%"}\n'),
        ("verl.jsonl", '{"step": 10, "data": {"loss": 2.5}, "total_steps": 40}\n'),
        ("state.json", '{"raw_log_history": [{"loss": 2.5, "step": 10}], "max_steps": 40}'),
        ("history.csv", "Step,run-1 - train/loss,run-1 - train/loss__MIN,total_steps\n10,2.5,2.4,40\n"),
        (
            "trackio.jsonl",
            '{"step": 10, "metrics": "{\\"train/loss\\": 2.5, \\"total_steps\\": 40}", "run_name": "x"}\n',
        ),
    ],
    ids=["LLaMA-Factory", "ms-swift", "verl", "raw_log_history", "wandb", "trackio"],
)
def test_rows_of_other_trainers_and_trackers_are_read(written: object, name: str, content: str) -> None:
    row = written(name, content).rows[0]  # type: ignore[operator]
    assert float(row["values"]["loss"]) == 2.5
    assert (row["step"], row.get("total_steps", 40)) == (10, 40)


def test_columns_are_read_as_rows(written: object) -> None:
    log = written("history.json", json.dumps({"step": [1, 2], "loss": [2.0, 1.5], "name": ["a", "b"]}))  # type: ignore[operator]
    assert [(row["step"], row["values"]) for row in log.rows] == [(1, {"loss": 2.0}), (2, {"loss": 1.5})]


def test_event_files_of_tensorboard_are_read(written: object) -> None:
    def varint(number: int) -> bytes:
        out = b""
        while number > 127:
            out, number = out + bytes([number & 127 | 128]), number >> 7
        return out + bytes([number])

    def message(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2]) + varint(len(content)) + content

    def record(step: int, value: bytes) -> bytes:
        event = b"\x09" + struct.pack("<d", 1.0) + b"\x10" + varint(step) + message(5, message(1, value))
        return struct.pack("<Q", len(event)) + b"\0" * 4 + event + b"\0" * 4

    simple = message(1, b"train/loss") + b"\x15" + struct.pack("<f", 2.5)
    tensor = message(1, b"eval/loss") + message(8, b"\x08\x01" + message(5, struct.pack("<f", 1.5)))
    data = record(300, simple) + record(300, tensor)
    log = written("events.out.tfevents.1.host", data + data[:20])  # type: ignore[operator]
    assert [(row["step"], row["values"]) for row in log.rows] == [(300, {"loss": 2.5}), (300, {"eval_loss": 1.5})]


def test_colours_cost_no_row_and_what_only_begins_like_one_takes_no_text_with_it() -> None:
    coloured = "".join(f"\x1b[1;38;2;180;60;0mstep:{n} - loss:0.5 - reward:0.3\x1b[0m\n" for n in (1, 2))
    unending = "\x1b[" + "1;" * 100
    printed = read_printed(coloured + unending + "step:3 - loss:0.5 - reward:0.3\n")
    assert [row.get("step") for row in printed.rows] == [1, 2, 3]
