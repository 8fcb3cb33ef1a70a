"""What a recipe takes away from its data, and calls its columns, is held against the data before a job starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.errors import BadInput
from mlintern.tools.ledger import Ledger
from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.store import ScriptStore
from mlintern.tools.scripts.training_program import hyperparameters
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock

PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}


@pytest.fixture
def store(workspace: Workspace, ledger: Ledger, clock: FakeClock) -> ScriptStore:
    return ScriptStore(workspace=workspace, ledger=ledger, clock=clock)


def recipe(tmp_path: Path, trainer: str, row: dict[str, Any], count: int, **fields: Any) -> dict[str, Any]:
    data = tmp_path / "rows.jsonl"
    data.write_text(f"{json.dumps(row)}\n" * count)
    rewards = {"rewards": ["length"]} if trainer in ("grpo", "rloo") else {}
    return {"trainer": trainer, "model": "org/model", "dataset": str(data), **rewards, **fields}


@pytest.mark.parametrize(
    ("fields", "count", "said"),
    [
        ({"validation_rows": 20}, 20, "validation_rows takes 20 rows, and 20"),
        ({"validation_rows": 500}, 20, "20 of rows.jsonl are there"),
        ({"holdout": {"rows": 20}}, 20, "holdout takes 20 rows, and rows.jsonl has 20"),
        ({"holdout": {"rows": 12}, "validation_rows": 8}, 20, "takes 8 rows, and 8 of"),
        ({"holdout": {"rows": 12}, "validation_rows": 7}, 20, None),
        ({"validation_rows": 19}, 20, None),
    ],
)
def test_what_is_held_out_leaves_rows_to_train_on(
    tmp_path: Path, store: ScriptStore, fields: dict[str, Any], count: int, said: str | None
) -> None:
    result = store.render(recipe(tmp_path, "sft", {"text": "a"}, count, **fields))
    errors = [check for check in result.checks if check.severity == "error"]
    assert result.ok is (said is None)
    assert [check.rule for check in errors] == ([] if said is None else ["held_out_rows"])
    assert said is None or said in errors[0].message
    assert store.check(result.script_id) == result


def test_a_limit_leaves_rows_beside_validation() -> None:
    given = {"trainer": "sft", "model": "org/m", "dataset": "org/d", "limit": 10, "validation_rows": 10}
    with pytest.raises(BadInput, match="limit 10 leaves no row"):
        parse_recipe(given)


@pytest.mark.parametrize(("held", "ok"), [(7, False), (6, True)])
def test_prompts_for_one_round_of_answers_are_left(tmp_path: Path, store: ScriptStore, held: int, ok: bool) -> None:
    result = store.render(recipe(tmp_path, "grpo", {"prompt": "a"}, 10, holdout={"rows": held}))
    assert result.ok is ok
    assert [check.rule for check in result.checks if check.severity == "error"] == ([] if ok else ["few_prompts"])


@pytest.mark.parametrize(
    ("trainer", "row", "columns", "said"),
    [
        ("sft", {"question": "a", "answer": "b"}, {"question": "prompt", "answer": "completion"}, "wrong way round"),
        ("sft", {"question": "a", "answer": "b"}, {"prompt": "question", "completion": "answer"}, None),
        ("dpo", {"q": "a", "good": "b", "bad": "c"}, {"good": "chosen", "bad": "rejected"}, "wrong way round"),
        ("grpo", {"question": "a", "answer": "b"}, {"question": "prompt"}, "wrong way round"),
        ("grpo", {"question": "a", "answer": "b"}, {"prompt": "question", "solution": "answer"}, None),
        ("grpo", {"question": "a", "prompt": "b"}, {"prompt": "question"}, "another column prompt"),
        ("sft", {"question": "a", "answer": "b"}, {"prompt": "questoin", "completion": "answer"}, "no such column"),
    ],
)
def test_columns_are_held_against_the_data(
    tmp_path: Path, store: ScriptStore, trainer: str, row: dict[str, Any], columns: dict[str, str], said: str | None
) -> None:
    result = store.render(recipe(tmp_path, trainer, row, 20, columns=columns))
    errors = [check for check in result.checks if check.severity == "error"]
    assert [check.rule for check in errors] == ([] if said is None else ["columns"])
    assert said is None or said in errors[0].message


@pytest.mark.parametrize(
    ("trainer", "columns", "ok"),
    [
        ("sft", {"question": "prompt", "answer": "completion"}, False),
        ("sft", {"prompt": "question", "completion": "answer"}, True),
        ("sft", {"messages": "conversations"}, True),
        ("dpo", {"chosen": "rejected", "rejected": "chosen"}, True),
        ("grpo", {"target": "completion"}, True),
        ("grpo", {"question": "prompt"}, False),
    ],
)
def test_turned_columns_are_seen_without_the_data(
    store: ScriptStore, trainer: str, columns: dict[str, str], ok: bool
) -> None:
    rewards = {"rewards": ["length"]} if trainer == "grpo" else {}
    given = {"trainer": trainer, "model": "org/m", "dataset": "org/d", "columns": columns, **rewards}
    assert store.render(given).ok is ok


@pytest.mark.parametrize("trainer", ["sft", "dpo", "grpo"])
def test_the_best_model_and_pushed_checkpoints_go_together(trainer: str) -> None:
    given = {
        "trainer": trainer,
        "model": "org/m",
        "dataset": "org/d",
        "validation_rows": 8,
        "push_every": 7,
        "push_to_hub": "me/model",
        "hyperparameters": {"load_best_model_at_end": True},
        **({"rewards": ["length"]} if trainer == "grpo" else {}),
    }
    read = parse_recipe(given)
    values = hyperparameters(read)  # type: ignore[arg-type]
    assert values["save_steps"] == values["eval_steps"] == 7
    with pytest.raises(BadInput, match="multiple of eval_steps"):
        parse_recipe({**given, "hyperparameters": {"load_best_model_at_end": True, "eval_steps": 4}})


def test_answers_of_an_evaluation_come_in_whole_groups() -> None:
    given = {"trainer": "rloo", "model": "org/m", "dataset": "org/d", "rewards": ["length"], "validation_rows": 8}
    parse_recipe(given)
    with pytest.raises(BadInput, match="per_device_eval_batch_size 3"):
        parse_recipe({**given, "hyperparameters": {"per_device_eval_batch_size": 3}})
