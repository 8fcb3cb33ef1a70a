"""The rehearsal's plan decides by what it reads, and its verification believes files, not words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlintern.orchestrator.rehearsal.inputs import LETTERS, make_task
from mlintern.orchestrator.rehearsal.plan import RECIPES, Inputs, first_light
from mlintern.orchestrator.rehearsal.script import replay
from mlintern.orchestrator.rehearsal.turns import Text
from mlintern.orchestrator.rehearsal.verify import Unproven, verify
from tests.orchestrator.played import played

INPUTS = Inputs(base=Path("/in/base"), train=Path("/in/train.jsonl"), held_out=Path("/in/held_out.jsonl"))
TOOLS = [
    *("inspect_dataset", "describe_trainer", "list_hardware", "render_script", "check_script", "estimate_job"),
    *("submit_job", "poll_job", "read_eval", "compare_evals", "list_runs", "write_report"),
]
Answers = Callable[[str, dict[str, Any]], dict[str, Any] | str]


class World:
    """Answers the plan's calls as the server would: every training is worth what ``scores`` says, in order."""

    def __init__(self, *scores: float, **overrides: dict[str, Any] | str) -> None:
        self.scores = [0.1, *scores]
        self.overrides = overrides
        self.rendered: list[dict[str, Any]] = []
        self.called: list[str] = []

    def answer(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any] | str:
        self.called.append(tool)
        if tool in self.overrides:
            return self.overrides[tool]
        match tool:
            case "inspect_dataset":
                return {"formats": {"sft": {"ok": True, "kind": "prompt_completion", "reason": ""}}}
            case "render_script":
                self.rendered.append(arguments["recipe"])
                return {"script_id": f"s{len(self.rendered)}", "ok": True, "checks": []}
            case "check_script":
                return {"ok": True}
            case "estimate_job":
                return {"fits": True}
            case "submit_job":
                return {"status": "submitted", "job_id": f"job-{arguments['script_id']}", "note": ""}
            case "poll_job":
                running = self.called.count("poll_job") % 2
                state = "running" if running else "succeeded"
                metrics, progress = {"loss": 0.5}, {"step": 10, "total": 20, "eta_seconds": 3.0}
                return {
                    "state": state,
                    "metrics": metrics,
                    "progress": progress,
                    "artifacts": {"model": "/out/model"},
                }
            case "read_eval":
                score = self.scores[self.called.count("read_eval") - 1]
                return {"rows": [{"metric": "exact_match", "value": 0}, {"metric": "accuracy", "value": score}]}
            case "compare_evals":
                row = {"verdict": "improved", "delta": 0.5, "ci_low": 0.4, "ci_high": 0.6}
                return {"rows": [{"metric": "accuracy", **row}]}
        return {}


def play(world: World) -> tuple[list[str], list[str]]:
    """What the plan says, turn by turn, and why it stopped if it did."""
    return played(first_light, INPUTS, world=world, tools=TOOLS)


def trainings(world: World) -> list[int]:
    return [recipe["max_steps"] for recipe in world.rendered if recipe["trainer"] == "sft"]


def test_a_first_recipe_that_reaches_the_target_is_the_only_one() -> None:
    world = World(0.9)
    said, stopped = play(world)
    assert trainings(world) == [RECIPES[0]["max_steps"]]
    assert "90.0%" in said[-1] and "reached" in said[-1]
    assert not stopped


def test_a_missed_target_is_answered_by_the_next_recipe() -> None:
    world = World(0.7, 0.95)
    said, _ = play(world)
    assert trainings(world) == [recipe["max_steps"] for recipe in RECIPES[:2]]
    assert "best 95.0%" in said[-1]


def test_a_target_that_no_recipe_reaches_is_reported_as_missed() -> None:
    world = World(0.5, 0.6, 0.55)
    said, stopped = play(world)
    assert trainings(world) == [recipe["max_steps"] for recipe in RECIPES]
    assert "best 60.0%" in said[-1] and "missed" in said[-1]
    assert world.called[-1] == "write_report"
    assert not stopped


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"submit_job": {"status": "denied", "note": "Not today."}}, "baseline was not approved: denied. Not today."),
        ({"poll_job": {"state": "failed", "error": "exit code 1", "metrics": {}}}, "failed: exit code 1"),
        ({"render_script": {"ok": False, "checks": [{"message": "no such field"}]}}, "no such field"),
        ({"inspect_dataset": "The file /in/train.jsonl does not exist."}, "does not exist"),
        ({"read_eval": {"rows": []}}, "left no accuracy"),
    ],
)
def test_whatever_goes_wrong_ends_the_plan_with_its_reason(overrides: dict[str, Any], words: str) -> None:
    said, stopped = play(World(0.9, **overrides))
    assert words in said[-1]
    assert len(stopped) >= 1 and words in stopped[-1]


def test_a_server_without_a_tool_that_is_needed_is_named() -> None:
    request = {"tools": [{"name": "poll_job"}], "messages": [{"role": "user", "content": "go"}]}
    turn = replay(lambda: first_light(INPUTS, on_stop=lambda _: None), request)
    assert turn.blocks == [
        Text("The rehearsal stops: the server offers no tool describe_trainer, inspect_dataset, list_hardware.")
    ]


def test_training_and_held_out_items_share_no_item_and_the_answers_are_right(tmp_path: Path) -> None:
    make_task(tmp_path)
    held_out = [json.loads(line) for line in (tmp_path / "held_out.jsonl").read_text().splitlines()]
    train = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    questions = {row["question"] for row in held_out}
    assert len(questions) == len(held_out) == 1000
    assert not questions & {row["prompt"][0]["content"] for row in train}
    for row in held_out:
        numbers = row["question"].split()[5::2]
        assert row["answer"] == LETTERS[numbers.index(max(numbers))]
    counts = [sum(row["answer"] == letter for row in held_out) for letter in LETTERS]
    assert max(counts) < 160  # no letter is a good guess


@pytest.fixture
def proven(tmp_path: Path) -> tuple[Path, Inputs]:
    """A workspace as a rehearsal leaves it, small."""
    inputs = Inputs(base=tmp_path / "base", train=tmp_path / "t", held_out=tmp_path / "held_out.jsonl")
    items = [{"id": str(n), "answer": "ABCDEFGHIJ"[n % 10]} for n in range(100)]
    rows(inputs.held_out, items)
    weights(inputs.base, b"untrained")
    home = tmp_path / "home"
    trained = home / "jobs" / "train" / "output" / "model"
    weights(trained, b"different")
    losses = [{"kind": "metrics", "values": {"loss": loss}} for loss in (2.0, 1.0, 0.5)]
    rows(trained.parent / "metrics.jsonl", losses)
    measured(home / "jobs" / "base-eval" / "output", str(inputs.base), items, right=10)
    measured(home / "jobs" / "eval" / "output", str(trained), items, right=90)
    report = home / "reports" / "rehearsal"
    report.mkdir(parents=True)
    (report / "report.md").write_text("![](a.png) ![](b.png)")
    for name in ("a.png", "b.png"):
        (report / name).write_bytes(b"\x89PNG\r\n\x1a\n...")
    return home, inputs


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
    measured(output, model, [{"id": str(n), "answer": "ABCDEFGHIJ"[n % 10]} for n in range(100)], right=right)


def test_a_rehearsal_that_happened_is_believed(proven: tuple[Path, Inputs]) -> None:
    assert "baseline 10.0%, trained 90.0%" in verify(*proven)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda home: edit(home / "jobs/eval/output/evaluation.json", "0.9", "0.99"), "reports 0.99"),
        (lambda home: edit(home / "jobs/eval/output/samples.jsonl", '"id": "5"', '"id": "500"'), "just the held-out"),
        (lambda home: (home / "jobs/train/output/model/model.safetensors").write_bytes(b"untrained"), "trained"),
        (lambda home: edit(home / "jobs/train/output/metrics.jsonl", "0.5", "2.5"), "shows no training"),
        (lambda home: (home / "reports/rehearsal/b.png").unlink(), "two pictures"),
        (lambda home: (home / "reports/rehearsal/b.png").write_bytes(b"GIF89a"), "not a picture"),
        (lambda home: (home / "jobs/base-eval/output/evaluation.json").unlink(), "base model"),
        (lambda home: (home / "jobs/eval/output/samples.jsonl").unlink(), "samples.jsonl cannot be read"),
        (lambda home: (home / "jobs/eval/output/samples.jsonl").write_text('{"id"'), "not what a job writes"),
        (lambda home: (home / "jobs/train/output/model/model.safetensors").unlink(), "cannot be read"),
        (lambda home: score_again(home, "base-eval", right=40), "which is not chance"),
        (lambda home: score_again(home, "eval", right=84), "the target was 85%"),
    ],
)
def test_a_rehearsal_that_did_not_happen_as_reported_is_not(
    proven: tuple[Path, Inputs], spoil: Callable[[Path], None], words: str
) -> None:
    home, inputs = proven
    spoil(home)
    with pytest.raises(Unproven, match=words):
        verify(home, inputs)
