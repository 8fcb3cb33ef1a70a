"""Where the worked examples of a few-shot baseline come from: rows that no measurement of the experiment scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlintern.common.clock import SystemClock
from mlintern.server.services import Lab
from mlintern.server.settings import Settings
from mlintern.tools.campaigns import halves, store
from mlintern.tools.campaigns.requests import Limits, TrialRequest
from mlintern.tools.campaigns.state import StageKey, Trial
from mlintern.tools.campaigns.work import JobWork
from mlintern.tools.errors import BadInput

NAME = "capitals"
pytestmark = pytest.mark.anyio


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(Settings(workspace=tmp_path / "home"))


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.jsonl"
    rows = [{"id": f"q{n}", "question": f"{n} + 1?", "choices": ["a", str(n + 1)], "answer": 1} for n in range(100)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


async def opened(lab: Lab, items: Path, *, decide: int | None = None, confirm: int | None = None, **own: Any) -> None:
    await lab.campaigns.open(
        NAME,
        model="org/base",
        evaluation={"dataset": str(items), **own},
        limits=Limits(hours=1),
        decide_rows=decide,
        confirm_rows=confirm,
    )


async def measured(lab: Lab, kind: str = "measure") -> dict[str, dict[str, Any]]:
    """The recipe by which each baseline is measured, by the baseline's name."""
    trial = TrialRequest(name="sft", recipe={"trainer": "sft", "dataset": "org/train", "max_steps": 10})
    batch = await lab.campaigns.plan_batch(NAME, [trial])
    assert lab.jobs is not None
    work = JobWork(
        workspace=lab.workspace, ledger=lab.ledger, clock=SystemClock(), scripts=lab.scripts, jobs=lab.jobs
    )

    def recipe(trial: Trial) -> dict[str, Any]:
        return work.recipe(NAME, trial, StageKey(trial.number, 0, 0, kind), inputs={})  # type: ignore[arg-type]

    return {trial.name: recipe(trial) for trial in batch.trials if trial.baseline}


def ids(path: Path) -> set[str]:
    return {json.loads(line)["id"] for line in path.read_text().splitlines()}


async def test_rows_of_neither_half_are_shown_where_there_are_any(lab: Lab, items: Path) -> None:
    await opened(lab, items, decide=40, confirm=40)
    recipes = await measured(lab)
    assert list(recipes) == ["baseline", "baseline 4-shot"]
    assert not recipes["baseline"].get("fewshot") and "fewshot_dataset" not in recipes["baseline"]
    folder = halves.folder_of(lab.workspace, NAME)
    shown = Path(recipes["baseline 4-shot"]["fewshot_dataset"])
    assert shown == folder / halves.EXAMPLES
    scored = ids(folder / halves.DECIDE) | ids(folder / halves.CONFIRM)
    assert len(scored) == 80 and len(ids(shown)) == 20 and not ids(shown) & scored
    assert halves.EXAMPLES in store.plan_of(lab.ledger, NAME).hashes, "a changed example is noticed"


async def test_where_the_halves_hold_all_items_the_confirm_half_is_never_shown(lab: Lab, items: Path) -> None:
    await opened(lab, items)
    for kind in ("measure", "confirm"):
        shown = (await measured(lab, kind))["baseline 4-shot"]["fewshot_dataset"]
        assert Path(shown) == halves.folder_of(lab.workspace, NAME) / halves.DECIDE


async def test_a_protocol_with_examples_of_its_own_keeps_their_number_and_place(
    lab: Lab, items: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text(items.read_text())
    await opened(lab, items, fewshot=2, fewshot_dataset=str(own))
    recipes = await measured(lab)
    assert list(recipes) == ["baseline", "baseline 2-shot"]
    assert recipes["baseline"]["fewshot"] == 0
    assert recipes["baseline 2-shot"]["fewshot"] == 2 and recipes["baseline 2-shot"]["fewshot_dataset"] == str(own)


async def test_another_split_of_the_dataset_is_read_once_and_kept(lab: Lab, items: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "test.jsonl").write_text(items.read_text())
    examples = [{"id": f"e{n}", "question": f"example {n}", "choices": ["x", "y"], "answer": 0} for n in range(30)]
    (folder / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in examples))
    await opened(lab, folder, split="test", fewshot=3, fewshot_split="train")
    shown = (await measured(lab))["baseline 3-shot"]
    path = Path(shown["fewshot_dataset"])
    assert ids(path) == {f"e{n}" for n in range(30)} and shown["fewshot_split"] == "train"


async def test_an_evaluation_of_held_out_rows_of_a_training_file_is_refused(lab: Lab, items: Path) -> None:
    with pytest.raises(BadInput, match="holdout"):
        await opened(lab, items, holdout={"rows": 50, "seed": 0})


async def test_the_halves_are_the_sizes_that_were_asked_for_and_share_nothing() -> None:
    rows = [{"id": n, "question": str(n)} for n in range(100)]
    decide, confirm, rest = halves.split_items(rows, id_column="id", decide=30, confirm=50)
    parts = [{row["id"] for row in part} for part in (decide, confirm, rest)]
    assert [len(part) for part in parts] == [30, 50, 20] and len(set.union(*parts)) == 100
