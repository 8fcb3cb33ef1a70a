"""Several datasets in one run: each prepared by itself, mixed as asked, told apart in rows, tokens and repeats."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.dry_settings import Constants, dry_settings
from mlintern.tools.scripts.mixture_program import renamed
from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.render import render
from mlintern.tools.scripts.snippets import read_snippet
from tests.services import tiny_model

ASKED = """
def prepare(row):
    if row["q"] == "skip":
        return None
    return {"messages": [{"role": "user", "content": row["q"]}, {"role": "assistant", "content": row["a"]}]}
"""
TALKED = """
def prepare(row):
    return {"messages": row["talk"]}
"""


def asked(number: int) -> dict[str, Any]:
    return {"q": "skip" if number == 5 else f"What is {number} plus 1?", "a": str(number + 1), "source": "sums"}


def talked(number: int) -> dict[str, Any]:
    answer = {"role": "assistant", "content": f"hello {number}", "name": "bot"}
    return {"talk": [{"role": "user", "content": f"hi {number}"}, answer], "source": number}


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path]:
    repeated = {"talk": [{"role": "user", "content": "What is 1 plus 1?"}, {"role": "assistant", "content": "2"}]}
    return (
        tiny_model.write_rows(tmp_path / "sums.jsonl", map(asked, range(91))),
        tiny_model.write_rows(tmp_path / "talk.jsonl", [*map(talked, range(40)), repeated]),
    )


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The rows that the script of a recipe trains on, and what it reports of them."""
    pytest.importorskip("trl")
    transformers = pytest.importorskip("transformers")
    model = tiny_model.make_tiny_model(tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    monkeypatch.setenv("MLINTERN_OUTPUT_DIR", str(tmp_path))

    def run(recipe: dict[str, Any], **changed: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        text = render(parse_recipe({"trainer": "sft", "model": str(model), "use_cpu": True, **recipe})).text
        module = ModuleType("script")
        monkeypatch.setitem(sys.modules, "script", module)
        names = vars(module)
        exec(compile(text, "script.py", "exec"), names)
        names.update(changed)
        rows = names["training_data"](*([tokenizer] if "datasets" in recipe else []))
        file = tmp_path / "metrics.jsonl"
        told = json.loads(file.read_text().splitlines()[-1]) if file.is_file() else {}
        return list(rows), told

    return run


def recipe(sets: tuple[Path, Path], **second: Any) -> dict[str, Any]:
    return {
        "datasets": [
            {"dataset": str(sets[0]), "prepare": ASKED},
            {"dataset": str(sets[1]), "prepare": TALKED, **second},
        ]
    }


def said(row: dict[str, Any]) -> str:
    return str(row["messages"][0]["content"])


def test_each_dataset_has_its_own_prepare_and_what_it_gives_is_told(sets: Any, load: Any) -> None:
    rows, told = load(recipe(sets, weight=0.1))
    kinds = Counter("sum" if said(row).startswith("What") else "talk" for row in rows)
    assert kinds == {"sum": 90, "talk": 10}
    first, second = told["parts"]
    assert (first["loaded"], first["kept"], first["rows"]) == (91, 90, 90)
    assert (second["loaded"], second["kept"], second["rows"]) == (41, 41, 10)
    assert told["left_out"] == 1
    assert first["tokens"] > second["tokens"] > 0
    assert first["share"] + second["share"] == pytest.approx(1, abs=0.001)


def test_tokens_are_counted_as_they_are_trained_on_after_the_cut(sets: Any, load: Any) -> None:
    _, whole = load(recipe(sets))
    _, cut = load({**recipe(sets), "hyperparameters": {"max_length": 4}})
    assert whole["parts"][1]["tokens"] > 4 * 41
    assert cut["parts"][1]["tokens"] == 4 * 41


def test_rows_of_one_set_that_stand_in_another_are_named(sets: Any, load: Any) -> None:
    _, told = load(recipe(sets))
    assert told["parts"][1]["also_in"] == {"datasets[0]": 1}
    rows, told = load({**recipe(sets), "filter": "deduplicate"})
    assert told["kept"] == len(rows) == 90 + 40
    assert told["left_out"] == 2


def test_interleaved_sets_are_in_proportion_everywhere_and_concatenated_ones_in_order(sets: Any, load: Any) -> None:
    mixed, _ = load(recipe(sets, weight=0.1))
    assert sum(said(row).startswith("hi") for row in mixed[:50]) == 5
    one_by_one, _ = load({**recipe(sets, rows=20), "mix": "concatenate"})
    assert [said(row).startswith("What") for row in one_by_one[:90]] == [True] * 90
    assert len(one_by_one) == 110
    few, told = load({**recipe(sets, rows=20), "limit": 11})
    assert len(few) == 11 == sum(part["rows"] for part in told["parts"])


def test_weights_alone_are_a_ratio_and_no_row_is_taken_twice(sets: Any, load: Any) -> None:
    parts = recipe(sets, weight=3)
    parts["datasets"][0]["weight"] = 1
    rows, told = load(parts)
    assert [part["rows"] for part in told["parts"]] == [14, 41]
    assert len({json.dumps(row) for row in rows}) == 55


def test_rows_of_another_shape_stop_by_name(sets: Any, load: Any) -> None:
    parts = recipe(sets)
    parts["datasets"][1]["prepare"] = 'def prepare(row):\n    return {"text": row["talk"][0]["content"]}'
    with pytest.raises(SystemExit, match="different shapes"):
        load(parts)


def test_held_out_rows_of_one_set_are_measured_and_not_trained_on(sets: Any, load: Any) -> None:
    parts = recipe(sets)
    parts["datasets"][0]["holdout"] = {"rows": 30}
    parts["evaluation"] = {"dataset": str(sets[0]), "question_column": "q", "answer_column": "a"}
    plan = parse_recipe({"trainer": "sft", "model": "a/b", **parts}).evaluation  # type: ignore[union-attr]
    assert plan is not None and plan.holdout is not None and plan.holdout.rows == 30
    _, told = load(parts)
    assert told["parts"][0]["loaded"] == 61
    del parts["datasets"][0]["holdout"]
    with pytest.raises(BadInput, match="reads the training data"):
        parse_recipe({"trainer": "sft", "model": "a/b", **parts})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dataset": "a/b", "datasets": [{"dataset": "a/c"}]}, "Both dataset and datasets"),
        ({}, "names no dataset"),
        ({"datasets": [{"dataset": "a/b"}], "prepare": ASKED}, "beside `datasets`"),
        ({"datasets": [{"dataset": "a/b"}, {"dataset": "a/c", "weight": 1.0}]}, "weights come to 1"),
        ({"datasets": [{"dataset": "a/b", "weight": 1, "rows": 5}]}, "weight and rows"),
        ({"datasets": [{"dataset": "a/b", "wieght": 1}]}, "wieght"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        parse_recipe({"trainer": "sft", "model": "a/b", **given})


def test_functions_of_one_name_are_carried_apart() -> None:
    snippet = read_snippet(
        "PREFIX = 'x'\n\n\ndef prepare(row, prepare=None):\n    return dict(row, PREFIX=1, text=PREFIX + row.PREFIX)",
        what="prepare",
        parameters=1,
    )
    other = renamed(snippet, {"prepare": "prepare_2", "PREFIX": "PREFIX_2"})
    assert other.function == "prepare_2"
    assert "def prepare_2(row, prepare=None)" in other.body
    assert "dict(row, PREFIX=1, text=PREFIX_2 + row.PREFIX)" in other.body


def test_a_dry_run_makes_every_set_of_a_mixture_small(tmp_path: Path) -> None:
    text = render(parse_recipe({
        "trainer": "sft",
        "model": "a/b",
        "datasets": [{"dataset": "a/one"}, {"dataset": "a/two", "rows": 5000, "split": "test"}],
    })).text  # fmt: skip
    constants = Constants.of(text)
    assert constants is not None
    assert {name: source.name for name, source in constants.data().items()} == {
        "PART_1_DATASET": "a/one",
        "PART_2_DATASET": "a/two",
    }
    assert constants.data()["PART_2_DATASET"].split == "test"
    settings = dry_settings(constants, model=tmp_path, data={"PART_1_DATASET": tmp_path, "PART_2_DATASET": tmp_path})
    assert settings["PART_2_ROWS"] == 16
    assert settings["PART_1_DATASET"] == str(tmp_path)
    assert settings["PART_2_REVISION"] is None


def test_of_a_dataset_far_larger_than_the_limit_only_a_stream_is_read(tmp_path: Path, load: Any) -> None:
    rows = ({"text": f"row {number} " + "x" * 200} for number in range(5000))
    file = tiny_model.write_rows(tmp_path / "large.jsonl", rows)
    with pytest.MonkeyPatch.context() as patch:
        datasets = pytest.importorskip("datasets")
        real, asked_for = datasets.load_dataset, []

        def noted(*names: Any, **options: Any) -> Any:
            asked_for.append(options.get("streaming", False))
            return real(*names, **options)

        patch.setattr(datasets, "load_dataset", noted)
        small, _ = load({"dataset": str(file), "limit": 20})
        streamed, _ = load({"dataset": str(file), "limit": 20}, STREAM_ABOVE=100_000)
    assert asked_for == [False, True]
    assert len(small) == len(streamed) == 20
    assert len({row["text"] for row in streamed}) == 20
    assert [row["text"].split()[1] for row in streamed] != [str(number) for number in range(20)]


def test_a_set_drops_its_own_repeats_and_remembers_nothing_of_another(sets: Any, load: Any) -> None:
    twice = {"dataset": str(sets[1]), "prepare": TALKED, "filter": "deduplicate"}
    rows, told = load({"datasets": [twice, dict(twice)]})
    assert [part["kept"] for part in told["parts"]] == [41, 41]
    again, _ = load({"datasets": [twice, dict(twice)]})
    assert len(again) == len(rows) == 82
    _, told = load({"datasets": [twice, twice], "filter": "deduplicate"})
    assert told["kept"] == 41


def test_rows_are_left_out_by_their_numbers_in_the_data(sets: Any, load: Any) -> None:
    rows, told = load({"dataset": str(sets[0]), "prepare": ASKED, "filter": "drop_rows=0,2-3"})
    assert [said(row) for row in rows[:3]] == [f"What is {n} plus 1?" for n in (1, 4, 6)]
    assert (told["loaded"], told["left_out"]) == (91, 4)
    held = {"dataset": str(sets[0]), "filter": "drop_rows=1", "holdout": {"rows": 5, "seed": 0}}
    for wrong in (held, {"datasets": [held]}, {"datasets": [{"dataset": str(sets[0])}], "filter": "drop_rows=1"}):
        with pytest.raises(BadInput, match="drop_rows"):
            parse_recipe({"trainer": "sft", "model": "a/b", **wrong})


def test_prepare_sees_each_row_once_and_columns_may_begin_with_rows_without_them(tmp_path: Path, load: Any) -> None:
    """Of 2,500 rows the first 2,000 have no tools; `datasets` would take the column for one of nulls."""
    data = tiny_model.write_rows(tmp_path / "many.jsonl", ({"n": number} for number in range(2500)))
    prepare = """
def prepare(row):
    with open(CALLS, "a") as file:
        file.write("x")
    if row["n"] % 5 == 1:
        return None
    return {"text": str(row["n"]), **({"tools": "[]"} if row["n"] >= 2000 else {})}
"""
    calls = tmp_path / "calls"
    rows, told = load({"dataset": str(data), "prepare": prepare.replace("CALLS", repr(str(calls)))})
    assert (len(rows), told["left_out"]) == (2000, 500)
    assert (rows[0]["tools"], rows[-1]["tools"]) == (None, "[]")
    assert len(calls.read_text()) == 2500


SCORED = "def prepare(row):\n    return {'text': row['text'] + str(row['score'])}\n"


@pytest.mark.parametrize(
    ("trainer", "row", "fields", "left"),
    [
        ("dpo", {"q": "a", "chosen": "b", "rejected": "c", "id": "d"}, {"columns": {"prompt": "q"}},
         {"prompt": "a", "chosen": "b", "rejected": "c"}),
        ("dpo", {"good": "b", "rejected": "c", "prompt": "a"}, {"columns": {"chosen": "good"}},
         {"prompt": "a", "chosen": "b", "rejected": "c"}),
        ("sft", {"q": "a", "completion": "b", "text": "c", "messages": "d"}, {"columns": {"prompt": "q"}},
         {"prompt": "a", "completion": "b"}),
        ("sft", {"q": "a", "completion": "b", "prompt": "c"}, {"columns": {"prompt": "q"}},
         {"prompt": "a", "completion": "b"}),
        ("sft", {"chat": "a", "tools": "b", "text": "c"}, {"columns": {"messages": "chat"}},
         {"messages": "a", "tools": "b"}),
        ("kto", {"q": "a", "chosen": "b", "rejected": "c"}, {"columns": {"prompt": "q"}},
         {"prompt": "a", "chosen": "b", "rejected": "c"}),
        ("kto", {"q": "a", "completion": "b", "label": True}, {"columns": {"prompt": "q"}},
         {"prompt": "a", "completion": "b", "label": True}),
        ("sft", {"body": "a", "score": 3, "messages": "b"},
         {"columns": {"text": "body"}, "filter": "def good(row):\n    return row['score'] > 2\n"}, {"text": "a"}),
        ("sft", {"body": "a", "score": 3}, {"columns": {"text": "body"}, "prepare": SCORED}, {"text": "a3"}),
    ],
)  # fmt: skip
def test_columns_rename_and_keep_what_the_trainer_reads(
    tmp_path: Path, load: Any, trainer: str, row: dict[str, Any], fields: dict[str, Any], left: dict[str, Any]
) -> None:
    data = tiny_model.write_rows(tmp_path / "few.jsonl", [row] * 3)
    rows, _ = load({"trainer": trainer, "dataset": str(data), **fields})
    assert rows == [left] * 3
    rows, _ = load({"trainer": trainer, "datasets": [{"dataset": str(data), **fields}]})
    assert rows == [left] * 3


def test_columns_stay_for_rewards_whatever_is_renamed(tmp_path: Path, load: Any) -> None:
    data = tiny_model.write_rows(tmp_path / "few.jsonl", [{"q": "a", "solution": "b", "id": 1}])
    rows, _ = load({"trainer": "grpo", "dataset": str(data), "columns": {"prompt": "q"}, "rewards": ["length"]})
    assert rows == [{"prompt": "a", "solution": "b", "id": 1}]
