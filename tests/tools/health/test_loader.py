from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.health.diagnose import diagnose, diagnose_source
from mlintern.tools.health.loader import TrainingLog, load
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.tools.evals.results import add_job
from tests.tools.health.curves import line, metrics, rows

Read = Callable[[object], TrainingLog]


@pytest.fixture
def read(workspace: Workspace, ledger: Ledger) -> Read:
    return lambda source: load(str(source), workspace=workspace, ledger=ledger)


def test_a_trainer_state_with_bare_nan_is_read(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_text(
        '{"log_history": [{"loss": 1.5, "grad_norm": NaN, "epoch": 0.1, "step": 10}, {"train_runtime": 3.0}]}'
    )
    first, second = read(path).rows
    assert first["step"] == 10
    assert first["values"]["loss"] == 1.5
    assert math.isnan(first["values"]["grad_norm"])
    assert second["values"] == {"train_runtime": 3.0}


@pytest.mark.parametrize(
    "printed",
    [
        "{'loss': '5.661', 'grad_norm': 'nan', 'learning_rate': '2e-05', 'epoch': '0.25'}",
        "{'loss': 5.661, 'grad_norm': nan, 'learning_rate': 2e-05, 'epoch': 0.25}",
        " 45%|████▌     | 45/100 [3:56:58<4:55, 322.71s/it]     {'loss': 5.661, 'grad_norm': nan, 'epoch': 0.25}",
    ],
    ids=["strings", "bare floats", "glued to a progress bar"],
)
def test_printed_metrics_of_every_generation_are_read(read: Read, tmp_path: Path, printed: str) -> None:
    path = tmp_path / "train.log"
    path.write_text(f"INFO config={{'model': 'x'}}\n{printed}\nTraceback {{'a'\n")
    [row] = read(path).rows
    assert float(row["values"]["loss"]) == 5.661
    assert math.isnan(float(row["values"]["grad_norm"]))
    assert row.get("step") == (45 if "%" in printed else None)


def test_a_log_without_step_numbers_says_that_rows_were_counted(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_text("{'loss': '1.0', 'epoch': '0.1'}\n{'loss': '0.9', 'epoch': '0.2'}\n")
    log = read(path)
    assert "counted in logged rows" in log.notes[0]
    assert diagnose(log.rows).last_step == 2


def test_marked_lines_go_before_what_the_trainer_printed(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(
        "\r 5%|#| 1/2 @mlintern " + json.dumps(metrics(step=7, loss=1.0)) + "\n{'loss': 2.0, 'epoch': 1}\n"
    )
    [row] = read(path).rows
    assert (row["step"], row["values"]) == (7, {"loss": 1.0})


def test_json_lines_of_other_trainers_are_read_and_a_cut_last_line_is_passed_by(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"train/loss": 1.0, "eval/loss": 2.0, "train/global_step": 5, "name": "x"}\n{"train/lo')
    [row] = read(path).rows
    assert row == {"kind": "metrics", "step": 5, "values": {"loss": 1.0, "eval_loss": 2.0}}


def test_of_a_folder_the_telemetry_goes_before_the_last_checkpoint(read: Read, tmp_path: Path) -> None:
    for step in (9, 10, 100):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": [{"loss": 1.0, "step": step}]}))
    assert read(tmp_path).rows[0]["step"] == 100
    (tmp_path / "metrics.jsonl").write_text(json.dumps(metrics(step=3, loss=1.0)) + "\n")
    assert read(tmp_path).rows[0]["step"] == 3


def test_a_job_is_read_from_its_telemetry_or_else_from_its_log(
    read: Read, workspace: Workspace, ledger: Ledger
) -> None:
    add_job(ledger, "job-1", state="running")
    folder = workspace.job("job-1")
    (folder / "output").mkdir(parents=True)
    (folder / "log.txt").write_text("@mlintern " + json.dumps(metrics(step=7, loss=1.0)) + "\n")
    assert read("job-1").rows[0]["step"] == 7
    (folder / "output" / "metrics.jsonl").write_text(json.dumps(metrics(step=8, loss=1.0)) + "\n")
    assert read("job-1").rows[0]["step"] == 8


def test_a_job_that_has_logged_nothing_says_its_state(read: Read, ledger: Ledger) -> None:
    add_job(ledger, "job-1", state="queued")
    with pytest.raises(NotFound) as caught:
        read("job-1")
    assert "queued" in caught.value.message


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("trainer_state.json", "{", BadInput),
        ("trainer_state.json", '{"model_type": "qwen3"}', BadInput),
        ("trainer_state.json", '{"log_history": []}', NotFound),
        ("train.log", "nothing here", NotFound),
        ("metrics.jsonl", "", NotFound),
    ],
)
def test_what_holds_no_metrics_is_an_error_with_a_next_step(
    read: Read, tmp_path: Path, name: str, text: str, error: type[BadInput | NotFound]
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(error) as caught:
        read(tmp_path / name)
    assert caught.value.next_step
    assert name in caught.value.message


@pytest.mark.anyio
async def test_a_diagnosis_names_its_source(workspace: Workspace, ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(20, loss=line(2, 1))))
    diagnosis = await diagnose_source(str(path), workspace=workspace, ledger=ledger)
    assert (diagnosis.verdict, diagnosis.steps_read, diagnosis.source) == ("healthy", 20, str(path))


@pytest.mark.parametrize(
    "name",
    [
        "healthy-trl/sft.json",
        "healthy-trl/sft_fa2.json",
        "healthy-trl/dpo.json",
        "healthy-grpo/grpo__a2_vi_42__checkpoint-50__trainer_state.json",
        "healthy-grpo/training.log",
        "kl-spike-that-recovers/checkpoint-60__trainer_state.json",
    ],
)
def test_recorded_healthy_runs_raise_no_alarm_at_any_moment(read: Read, recorded: Path, name: str) -> None:
    """Reference curves of TRL, a noisy GRPO run, a run with a spike (see README.md beside them)."""
    logged = read(recorded / "train-logs" / name).rows
    assert len(logged) >= 10
    for count in range(1, len(logged) + 1):
        assert diagnose(logged[:count]).findings == [], f"after {count} rows"


def test_the_recorded_reward_hacking_run_is_caught_and_says_which_reward_is_not_served(
    read: Read, recorded: Path
) -> None:
    """rl-leetcode Llama-3.2-3B: compiles (g) 0.22 -> 0.74, correct (f) 0.002 -> 0.016."""
    path = recorded / "train-logs/reward-hacking/rl-leetcode__meta-llama__Llama-3.2-3B__g__Easy__metrics.jsonl"
    diagnosis = diagnose(read(path).rows)
    assert diagnosis.verdict == "failing"
    [finding] = diagnosis.findings
    assert finding.kind == "reward_hacking"
    assert finding.evidence.startswith("g rose by 0.46") and "f changed by +0.005" in finding.evidence.replace(
        "458", "5"
    )


def test_the_recorded_run_without_any_reward_is_seen_after_four_steps(read: Read, recorded: Path) -> None:
    path = recorded / "train-logs/reward-hacking/rl-leetcode__openai__gpt-oss-20b__Easy__metrics.jsonl"
    diagnosis = diagnose(read(path).rows)
    assert (diagnosis.verdict, [finding.kind for finding in diagnosis.findings]) == ("watch", ["no_reward_signal"])


def test_the_recorded_log_with_progress_bars_is_read_by_value(read: Read, recorded: Path) -> None:
    logged = read(recorded / "train-logs/healthy-grpo/training.log").rows
    assert [row["step"] for row in logged] == list(range(5, 51, 5))
    assert logged[-1]["values"]["reward"] == 0.33125000819563866


@pytest.mark.slow
def test_what_a_real_trainer_writes_when_its_loss_turns_nan_is_diagnosed(read: Read, tmp_path: Path) -> None:
    """transformers logs the NaN loss as 0 (logging_nan_inf_filter is on by default); grad_norm gives it away."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)

    class Poisoned(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def forward(self, x: Any, labels: Any = None) -> dict[str, Any]:
            return {"loss": ((self.layer(x) - labels) ** 2).mean()}

    data = [{"x": torch.randn(4), "labels": torch.tensor([math.nan if i >= 48 else 1.0])} for i in range(64)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=16,
        per_device_train_batch_size=4,
        logging_steps=1,
        save_steps=16,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        train_sampling_strategy="sequential",
    )
    transformers.Trainer(model=Poisoned(), args=arguments, train_dataset=data).train()
    log = read(tmp_path)
    assert log.path.name == "trainer_state.json"
    finding = diagnose(log.rows).findings[0]
    assert (finding.kind, finding.severity, finding.step) == ("nan_or_inf", "error", 13)
    assert "which hides it" in finding.evidence
