"""A campaign with real jobs: a small model is measured, six trials are trained and halved, the best one is confirmed.

Then the certificate is recounted by another process, and again after each kind of tampering.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from safetensors.numpy import load_file, save_file

from mlintern.server.services import Lab
from mlintern.server.settings import Settings
from mlintern.tools.campaigns.campaign_results import ExperimentStatus
from mlintern.tools.campaigns.requests import Limits, TrialRequest
from mlintern.tools.campaigns.verify import verify as recount
from mlintern.tools.errors import BadInput, Conflict

pytestmark = pytest.mark.slow

NAME = "largest"


LETTERS = "ABCDEFGHIJ"


def make_task(folder: Path) -> None:
    """Ten letters, one of which stands first and is the answer: learned in 20 steps, where the rehearsal's task takes
    hundreds. Numbers behind it make every item another one.
    """
    draw = random.Random(0)
    numbers = draw.sample(range(100_000, 1_000_000), 3_000)
    items = [
        (f"Which is largest ? {letter} {number}", letter) for number in numbers if (letter := draw.choice(LETTERS))
    ]
    held_out = [
        {"id": str(n), "question": question, "choices": list(LETTERS), "answer": answer}
        for n, (question, answer) in enumerate(items[:1_000])
    ]
    train = [
        {"prompt": [{"role": "user", "content": question}], "completion": [{"role": "assistant", "content": answer}]}
        for question, answer in items[1_000:]
    ]
    for name, rows in (("held_out.jsonl", held_out), ("train.jsonl", train)):
        (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def recipe(folder: Path, **fields: Any) -> dict[str, Any]:
    return {
        "trainer": "sft",
        "dataset": str(folder / "train.jsonl"),
        "hyperparameters": {
            "learning_rate": 1.5e-3,
            "lr_scheduler_type": "cosine",
            "per_device_train_batch_size": 64,
            "max_length": 64,
            "gradient_checkpointing": False,
            "logging_steps": 20,
        },
        "dtype": "float32",
        "use_cpu": True,
        "save_steps": 0,
        "max_steps": 100,
    } | fields


async def until_idle(lab: Lab) -> ExperimentStatus:
    with anyio.fail_after(900):
        while True:
            status = await lab.campaigns.poll(NAME, wait_seconds=20)
            if status.state != "running":
                return status


async def campaign(folder: Path, home: Path) -> dict[str, Any]:
    lab = Lab(Settings(workspace=home, slots=2))
    held_out = folder / "held_out.jsonl"
    opened = await lab.campaigns.open(
        NAME,
        model=str(folder / "base"),
        evaluation={
            "dataset": str(held_out),
            "task": "largest-of-ten",
            "prompt": "{question}",
            "max_new_tokens": 2,
            "batch_size": 100,
            "use_cpu": True,
        },
        limits=Limits(hours=1, parallel=2),
        goal="Name the largest number.",
        target=0.3,
    )
    assert (opened.decide_rows, opened.confirm_rows) == (500, 500)
    rate = "hyperparameters.learning_rate"
    trials = [
        TrialRequest(name="sft", recipe=recipe(folder), seeds=[0, 1]),
        TrialRequest(base="sft", change={rate: 1e-5}, seeds=[0, 1]),
        TrialRequest(base="sft", change={rate: 1e-6}, seeds=[0, 1]),
        TrialRequest(base="sft", change={"max_steps": 10}, seeds=[0, 1]),
        TrialRequest(base="sft", change={"hyperparameters.per_device_train_batch_size": 2}, seeds=[0, 1]),
        TrialRequest(base="sft", change={rate: 0.5}, seeds=[0, 1]),
    ]
    with pytest.raises(BadInput, match="held-out items"):
        await lab.campaigns.plan_batch(NAME, [TrialRequest(recipe=recipe(folder, dataset=str(held_out)))])
    batch = await lab.campaigns.plan_batch(NAME, trials, rungs=[0.3, 1])
    assert await lab.campaigns.start(batch)
    again = await lab.campaigns.plan_batch(NAME, trials, rungs=[0.3, 1])
    assert again.digest == batch.digest and not await lab.campaigns.start(again)
    with pytest.raises(Conflict, match="not over"):
        await lab.campaigns.plan_confirmation(NAME)
    decided = await until_idle(lab)
    trial, _, usd, _ = await lab.campaigns.plan_confirmation(NAME)
    assert usd == 0
    assert await lab.campaigns.open_confirm_half(NAME, trial) == 1
    confirmed = await until_idle(lab)
    certificate = lab.runs.folder(NAME) / "certificate.json"
    document = await lab.certifier.write(NAME, certificate)
    await lab.close()
    return {"decided": decided, "confirmed": confirmed, "certificate": certificate, "document": document}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("task")
    subprocess.run([sys.executable, "-m", "mlintern.orchestrator.rehearsal.inputs", str(folder)], check=True)
    make_task(folder)
    home = tmp_path_factory.mktemp("campaign") / "home"
    return anyio.run(campaign, folder, home)


def test_the_best_recipe_wins_and_the_losers_are_ended_with_the_evidence(finished: dict[str, Any]) -> None:
    decided: ExperimentStatus = finished["decided"]
    rows = {row.trial: row for row in decided.leaderboard}
    assert decided.best == "sft"
    assert rows["sft"].verdict == "improved" and rows["sft"].seeds == 2
    assert rows["learning_rate=1e-06"].state == "ended"
    assert "clear loser at rung 0" in rows["learning_rate=1e-06"].reason
    assert rows["baseline"].score is not None and rows["baseline"].score < 0.2
    assert rows["learning_rate=1e-05"].parent == "sft"


def test_the_best_model_is_kept_and_loads(finished: dict[str, Any]) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(finished["decided"].best_model)
    assert model.num_parameters() > 100_000


def test_the_confirmed_number_is_of_items_that_nobody_chose_by(finished: dict[str, Any]) -> None:
    [opening] = finished["confirmed"].confirmations
    assert opening.verdict == "improved" and opening.delta > 0.1
    halves = finished["document"]["protocol"]["items"]
    root = finished["certificate"].parents[2]
    ids = [
        {json.loads(line)["id"] for line in (root / halves[name]["path"]).open()}
        for name in ("decide.jsonl", "confirm.jsonl")
    ]
    assert len(ids[0]) == len(ids[1]) == 500 and not ids[0] & ids[1]


def test_the_certificate_has_no_hole_and_another_process_recounts_it(finished: dict[str, Any]) -> None:
    assert finished["document"]["holes"] == []
    code, said = verify(finished["certificate"])
    assert code == 0, said
    assert "FAILS" not in said and "verdict improved" in said


def change_item(root: Path, document: dict[str, Any]) -> None:
    path = root / document["protocol"]["items"]["confirm.jsonl"]["path"]
    path.write_text(path.read_text().replace("Which is", "Which was", 1))


def swap_weights(root: Path, document: dict[str, Any]) -> None:
    path = root / document["models"][0]["path"] / "model.safetensors"
    tensors = load_file(path)
    path.unlink()  # the kept copy of the best model shares its bytes
    save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, path, {"format": "pt"})


def edit_score(root: Path, document: dict[str, Any]) -> None:
    entry = next(one for one in document["measurements"] if one["half"] == "confirm.jsonl")
    path = root / entry["samples"]
    path.write_text(path.read_text().replace('"accuracy": 0.0', '"accuracy": 1.0', 1))


def edit_claim(root: Path, document: dict[str, Any]) -> None:
    document["claim"]["delta"] = 0.9


def hide_trial(root: Path, document: dict[str, Any]) -> None:
    gone = document["trials"].pop()
    document["tries"] -= 1
    document["jobs"] = [job for job in document["jobs"] if job["job_id"] not in gone["jobs"]]
    document["measurements"] = [one for one in document["measurements"] if one["trial"] != gone["number"]]


@pytest.mark.parametrize(
    "tamper, named",
    [
        (change_item, "confirm.jsonl was changed"),
        (swap_weights, "weights are not those certified"),
        (edit_score, "its answer earns 0"),
        (edit_claim, "The claim says delta = 0.9"),
        (hide_trial, "is of the experiment and not in the certificate"),
    ],
)
def test_what_was_tampered_with_is_named(
    finished: dict[str, Any],
    tmp_path: Path,
    tamper: Callable[[Path, dict[str, Any]], None],
    named: str,
) -> None:
    original: Path = finished["certificate"]
    root = tmp_path / "home"
    shutil.copytree(original.parents[2], root, symlinks=True)
    certificate = root / original.relative_to(original.parents[2])
    document = json.loads(certificate.read_text())
    tamper(root, document)
    certificate.write_text(json.dumps(document))
    found = recount(certificate, workspace=root)
    assert not found.holds
    assert any(named in problem.message for problem in found.problems), found.problems


def verify(certificate: Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "mlintern.server", "verify", str(certificate)]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), timeout=120)
    return done.returncode, done.stdout + done.stderr
