"""The campaign's plan decides by what it reads, and its verification believes files, not words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlintern.orchestrator.rehearsal.campaign_plan import CHANGES, LONGER, campaign
from mlintern.orchestrator.rehearsal.campaign_verify import verify_campaign
from mlintern.orchestrator.rehearsal.plan import Inputs
from mlintern.orchestrator.rehearsal.verify import Unproven
from tests.orchestrator.played import played

INPUTS = Inputs(base=Path("/in/base"), train=Path("/in/train.jsonl"), held_out=Path("/in/held_out.jsonl"))
TOOLS = [
    *("inspect_dataset", "describe_trainer", "list_hardware", "open_experiment", "run_trials", "poll_experiment"),
    *("confirm", "list_runs", "write_report"),
]
Answers = Callable[[str, dict[str, Any]], dict[str, Any] | str]


class World:
    """Answers the plan's calls as the server would. ``scores``: of the trials, in the order in which they are asked
    for; ``confirmed``: what the best one scores on the other half.
    """

    def __init__(self, *scores: float, confirmed: float = 0.9, **overrides: dict[str, Any] | str) -> None:
        self.scores = list(scores)
        self.confirmed = confirmed
        self.overrides = overrides
        self.trials: list[dict[str, Any]] = []
        self.called: list[str] = []

    def answer(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any] | str:
        self.called.append(tool)
        if tool in self.overrides:
            return self.overrides[tool]
        match tool:
            case "inspect_dataset":
                return {"formats": {"sft": {"ok": True, "kind": "prompt_completion", "reason": ""}}}
            case "open_experiment":
                return {"detectable": "500 items show a difference of about 5.6%; less stays open"}
            case "run_trials":
                self.trials += arguments["trials"]
                return {"status": "started", "note": ""}
            case "confirm":
                return {"status": "started", "note": ""}
            case "poll_experiment":
                return self.status()
        return {}

    def status(self) -> dict[str, Any]:
        names = [str(trial.get("name") or trial["change"]) for trial in self.trials]
        pairs = list(zip(names, self.scores, strict=False))
        board = [
            {"trial": name, "state": "done", "score": score, "delta": score - 0.1, "ci_low": 0.0, "ci_high": 1.0}
            for name, score in pairs
        ]
        best = max(pairs, key=lambda pair: pair[1], default=("", 0.0))[0] or None
        openings = []
        if "confirm" in self.called:
            numbers = {"candidate": self.confirmed, "baseline": 0.1, "delta": self.confirmed - 0.1}
            verdict = {"verdict": "improved", "ci_low": 0.3, "ci_high": 0.9, "reason": ""}
            openings = [{"opening": 1, "trial": best, **numbers, **verdict}]
        running = self.called.count("poll_experiment") % 2
        return {
            "state": "running" if running else "idle",
            "running": [{"trial": "sft", "stage": "train seed 0"}] if running else [],
            "leaderboard": board,
            "best": best,
            "optimism": 0.004,
            "confirmations": openings,
        }


def play(world: World) -> tuple[list[str], list[str]]:
    """What the plan says, turn by turn, and why it stopped if it did."""
    return played(campaign, INPUTS, world=world, tools=TOOLS)


def test_four_trials_are_asked_for_at_once_and_the_best_is_confirmed() -> None:
    world = World(0.7, 0.9, 0.2, 0.3, confirmed=0.89)
    said, stopped = play(world)
    assert len(world.trials) == 4
    assert world.called.count("run_trials") == world.called.count("confirm") == 1
    assert "89.0%" in said[-1] and said[-1].endswith("reached.")
    assert not stopped


def test_a_claim_about_the_longer_recipe_can_be_made_since_it_is_trained_with_two_seeds() -> None:
    assert CHANGES[0]["seeds"] == LONGER["seeds"] == [0, 1]


def test_a_missed_target_is_answered_by_one_more_trial_before_the_confirm_half_is_opened() -> None:
    world = World(0.5, 0.7, 0.2, 0.3, 0.95, confirmed=0.94)
    said, _ = play(world)
    assert world.trials[-1] == LONGER
    assert world.called.index("confirm") > len(world.called) - 1 - world.called[::-1].index("run_trials")
    assert "94.0%" in said[-1]


def test_the_number_that_is_reported_is_the_confirmed_one_even_if_it_misses_the_target() -> None:
    world = World(0.7, 0.92, 0.2, 0.3, confirmed=0.8)
    said, stopped = play(world)
    assert "80.0%" in said[-1] and "92.0%" not in said[-1]
    assert said[-1].endswith("missed.")
    assert world.called[-1] == "write_report"
    assert not stopped


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            {"run_trials": {"status": "denied", "note": "Not today."}},
            "the batch was not approved: denied. Not today.",
        ),
        ({"confirm": {"status": "denied", "note": "Later."}}, "the confirmation was not approved: denied. Later."),
        ({"inspect_dataset": "The file /in/train.jsonl does not exist."}, "does not exist"),
        ({"open_experiment": "1 different items do not give 20"}, "do not give 20"),
        (
            {
                "poll_experiment": {
                    "state": "idle",
                    "best": None,
                    "leaderboard": [{"trial": "sft", "state": "failed", "reason": "exit code 1"}],
                }
            },
            "sft: failed, exit code 1",
        ),
    ],
)
def test_whatever_goes_wrong_ends_the_plan_with_its_reason(overrides: dict[str, Any], words: str) -> None:
    said, stopped = play(World(0.9, 0.9, 0.9, 0.9, **overrides))
    assert words in said[-1]
    assert len(stopped) >= 1 and words in stopped[-1]


@pytest.fixture
def proven(tmp_path: Path) -> tuple[Path, Inputs]:
    """A workspace as a rehearsal leaves it, small."""
    inputs = Inputs(base=tmp_path / "base", train=tmp_path / "t", held_out=tmp_path / "held_out.jsonl")
    rows(inputs.held_out, ITEMS)
    weights(inputs.base, b"untrained")
    home = tmp_path / "home"
    for half, items in HALVES.items():
        rows(home / "experiments" / "rehearsal" / f"{half}.jsonl", items)
        measured(home / "jobs" / f"base-{half}" / "output", str(inputs.base), items, right=10)
    for number in range(4):
        trained = home / "jobs" / f"train-{number}" / "output" / "model"
        weights(trained, b"different")
        losses = [{"kind": "metrics", "values": {"loss": loss}} for loss in (2.0, 1.0, 0.5)]
        rows(trained.parent / "metrics.jsonl", losses)
        measured(home / "jobs" / f"eval-{number}" / "output", str(trained), HALVES["decide"], right=91)
    best = home / "jobs" / "train-0" / "output" / "model"
    measured(home / "jobs" / "confirm" / "output", str(best), HALVES["confirm"], right=90)
    report = home / "reports" / "rehearsal"
    report.mkdir(parents=True)
    (report / "certificate.json").write_text("{}")
    (report / "report.md").write_text("![](a.png) ![](b.png)")
    for name in ("a.png", "b.png"):
        (report / name).write_bytes(b"\x89PNG\r\n\x1a\n...")
    return home, inputs


ITEMS = [{"id": str(n), "answer": "ABCDEFGHIJ"[n % 10]} for n in range(200)]
HALVES = {"decide": ITEMS[:100], "confirm": ITEMS[100:]}


def rows(path: Path, values: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


def weights(folder: Path, data: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(data)


def measured(output: Path, model: str, items: list[dict[str, Any]], *, right: int) -> None:
    samples = [{"id": item["id"], "prediction": item["answer"] if n < right else "?"} for n, item in enumerate(items)]
    rows(output / "samples.jsonl", samples)
    result = {"metric": "accuracy", "value": right / len(items), "n": len(items)}
    (output / "evaluation.json").write_text(
        json.dumps({"model": model, "rows": [result], "samples": "samples.jsonl"})
    )


def score_again(home: Path, job: str, *, right: int) -> None:
    """The job measured its model with ``right`` of the hundred items right, in all its files alike."""
    output = home / "jobs" / job / "output"
    model = json.loads((output / "evaluation.json").read_text())["model"]
    measured(output, model, HALVES["confirm"], right=right)


def test_a_rehearsal_that_happened_is_believed(proven: tuple[Path, Inputs]) -> None:
    assert "4 trained models; on the confirm half baseline 10.0%, trained 90.0%" in verify_campaign(*proven)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda home: edit(home / "jobs/confirm/output/evaluation.json", "0.9", "0.99"), "reports 0.99"),
        (
            lambda home: edit(home / "jobs/confirm/output/samples.jsonl", '"id": "105"', '"id": "500"'),
            "just the items",
        ),
        (lambda home: edit(home / "jobs/confirm/output/samples.jsonl", '"id": "105"', '"id": "5"'), "just the items"),
        (
            lambda home: edit(home / "experiments/rehearsal/confirm.jsonl", '"id": "105"', '"id": "205"'),
            "as they were",
        ),
        (
            lambda home: edit(
                home / "experiments/rehearsal/decide.jsonl", '"5", "answer": "F"', '"105", "answer": "F"'
            ),
            "both",
        ),
        (lambda home: (home / "jobs/train-2/output/model/model.safetensors").write_bytes(b"untrained"), "trained"),
        (lambda home: edit(home / "jobs/train-3/output/metrics.jsonl", "0.5", "2.5"), "shows no training"),
        (lambda home: (home / "reports/rehearsal/b.png").unlink(), "two pictures"),
        (lambda home: (home / "reports/rehearsal/b.png").write_bytes(b"GIF89a"), "not a picture"),
        (lambda home: (home / "reports/rehearsal/certificate.json").unlink(), "no certificate"),
        (lambda home: (home / "jobs/base-confirm/output/evaluation.json").unlink(), "base model"),
        (lambda home: (home / "jobs/eval-1/output/evaluation.json").unlink(), "4 trained models"),
        (lambda home: (home / "jobs/confirm/output/evaluation.json").unlink(), "confirmed ones must have been"),
        (lambda home: (home / "jobs/confirm/output/samples.jsonl").unlink(), "samples.jsonl cannot be read"),
        (lambda home: (home / "jobs/eval-1/output/samples.jsonl").write_text('{"id"'), "not what a job writes"),
        (lambda home: (home / "jobs/train-1/output/model/model.safetensors").unlink(), "cannot be read"),
        (lambda home: score_again(home, "base-confirm", right=40), "which is not chance"),
        (lambda home: score_again(home, "confirm", right=84), "the target was 85%"),
    ],
)
def test_a_rehearsal_that_did_not_happen_as_reported_is_not(
    proven: tuple[Path, Inputs], spoil: Callable[[Path], None], words: str
) -> None:
    home, inputs = proven
    spoil(home)
    with pytest.raises(Unproven, match=words):
        verify_campaign(home, inputs)
