"""Shapes in which people keep their data: what TRL does with each, nothing lost in silence, and a way on.

What TRL 1.16 does with a file as it is was seen by running it; ``as_it_is`` says whether it trains on it.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.data.formats import judge_formats
from mlintern.tools.data.inspection_results import Format
from mlintern.tools.data.local_files import load_call, open_local
from mlintern.tools.data.prepare_code import Preparation
from mlintern.tools.data.table import open_table, without_nulls
from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.render import render

CASES = Path(__file__).parent / "cases"


def judged(name: str, trainer: str, scratch: Path) -> tuple[Format, list[dict[str, Any]]]:
    with open_table(open_local(str(CASES / name)).of(None).split(None), scratch=scratch) as table:
        return judge_formats(table, (trainer,))[trainer], table.fetch(range(table.rows))


def prepared(verdict: Format, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    function = Preparation("", verdict.prepare).function()
    return [made for row in rows if (made := function(dict(row))) is not None]


TRAINS = [
    ("bom.csv", "sft"),
    ("bom.jsonl", "sft"),
    ("both_cols.jsonl", "sft"),
    ("bz.jsonl.bz2", "sft"),
    ("clf.jsonl", "sft"),
    ("configs", "sft"),
    ("dict.parquet", "sft"),
    ("dpo_impl.jsonl", "dpo"),
    ("dpo_impl.jsonl", "reward"),
    ("extra_keys.jsonl", "sft"),
    ("gz.jsonl.gz", "sft"),
    ("kto_f.jsonl", "kto"),
    ("kto_pref.jsonl", "kto"),
    ("late_type_change.jsonl", "sft"),
    ("ls.jsonl", "sft"),
    ("nan.jsonl", "sft"),
    ("pcm.jsonl", "grpo"),
    ("plain.csv", "sft"),
    ("pretok.jsonl", "sft"),
    ("resp_space.jsonl", "sft"),
    ("rms.jsonl", "reward"),
    ("saved", "sft"),
    ("sys_only.jsonl", "sft"),
    ("tab.tsv", "sft"),
    ("tools_hetero.jsonl", "sft"),
    ("tools_mixed_null.jsonl", "sft"),
    ("types.parquet", "sft"),
    ("xz.jsonl.xz", "sft"),
    ("z.zip", "sft"),
    ("zst.jsonl.zst", "sft"),
]
"""Trains as it is, and all of its text arrives."""


@pytest.mark.parametrize(("name", "trainer"), TRAINS)
def test_sound_data_is_taken_as_it_is(name: str, trainer: str, tmp_path: Path) -> None:
    verdict, _ = judged(name, trainer, tmp_path)
    assert verdict.ok, verdict.reason
    assert (verdict.lost, verdict.prepare) == ([], "")


SILENT = [
    ("cint.jsonl", "sft", "messages[].content"),
    ("dpo_in.jsonl", "dpo", "input"),
    ("dpo_inst.jsonl", "dpo", "instruction"),
    ("mm_parts_text.jsonl", "sft", "messages[].content[].text"),
    ("orca.jsonl", "dpo", "question"),
    ("orca.jsonl", "dpo", "system"),
    ("sharegpt_sys.jsonl", "sft", "system"),
]
"""Trains, but this does not reach the model."""


@pytest.mark.parametrize(("name", "trainer", "place"), SILENT)
def test_text_that_does_not_reach_the_model_is_named_with_a_way_on(
    name: str, trainer: str, place: str, tmp_path: Path
) -> None:
    verdict, rows = judged(name, trainer, tmp_path)
    assert verdict.ok and place in [line.place for line in verdict.lost]
    assert place in verdict.reason and place in verdict.warnings[0]
    again = [line.place for line in account(trainer, rows, verdict)]
    assert again == []


ODD = [
    ("dpo_js.jsonl", "dpo", "JSON"),
    ("roles_model.jsonl", "sft", "model to assistant"),
    ("sgo.jsonl", "sft", "GPT-4"),
    ("sharegpt.jsonl", "sft", "speakers"),
    ("sharegpt_tools.jsonl", "sft", "function_call"),
]


@pytest.mark.parametrize(("name", "trainer", "word"), ODD)
def test_what_chat_templates_do_not_know_is_said_and_mapped(
    name: str, trainer: str, word: str, tmp_path: Path
) -> None:
    verdict, rows = judged(name, trainer, tmp_path)
    assert verdict.ok and any(word in text for text in [*verdict.warnings, verdict.fix])
    for row in prepared(verdict, rows):
        for key in ("messages", "prompt", "chosen", "rejected"):
            assert {m["role"] for m in row.get(key) or []} <= {"system", "user", "assistant", "tool"}
    assert account(trainer, rows, verdict) == []


STOPS = [
    ("argilla.jsonl", "dpo"),
    ("conv_rc.jsonl", "sft"),
    ("dolly.jsonl", "sft"),
    ("dpo_dict.jsonl", "dpo"),
    ("dpo_imgnull.jsonl", "dpo"),
    ("dpo_multi.jsonl", "dpo"),
    ("dpo_null.jsonl", "dpo"),
    ("dpo_ol.jsonl", "dpo"),
    ("dpo_ps_l.jsonl", "dpo"),
    ("dpo_qrr.jsonl", "dpo"),
    ("dpo_swift.jsonl", "dpo"),
    ("grpo_nullp.jsonl", "grpo"),
    ("grpo_num.jsonl", "grpo"),
    ("grpo_pd.jsonl", "grpo"),
    ("io.jsonl", "sft"),
    ("it.jsonl", "sft"),
    ("kto_des.jsonl", "kto"),
    ("mcq.jsonl", "sft"),
    ("missing_keys.jsonl", "sft"),
    ("msg.csv", "sft"),
    ("msgs_null.jsonl", "sft"),
    ("msgs_pystr.jsonl", "sft"),
    ("nested_wrap.jsonl", "sft"),
    ("num.csv", "sft"),
    ("pcm.jsonl", "sft"),
    ("prompt_str_compl_list.jsonl", "sft"),
    ("query_response.jsonl", "sft"),
    ("ragged_turns.jsonl", "sft"),
    ("sgm.jsonl", "sft"),
    ("squad.jsonl", "sft"),
    ("summ.jsonl", "sft"),
    ("text_int.jsonl", "sft"),
    ("text_null.jsonl", "sft"),
]


@pytest.mark.parametrize(("name", "trainer"), STOPS)
def test_data_at_which_the_trainer_stops_has_a_way_on_that_loses_nothing(
    name: str, trainer: str, tmp_path: Path
) -> None:
    verdict, rows = judged(name, trainer, tmp_path)
    assert not verdict.ok and verdict.prepare and verdict.fix, verdict
    made = prepared(verdict, rows)
    assert len(made) >= len(rows) - verdict.rows_dropped > 0
    assert all(said(row) for row in made), "no row says nothing"
    assert account(trainer, rows, verdict) == []


@pytest.mark.parametrize(("name", "dropped"), [("dpo_null.jsonl", 1), ("text_null.jsonl", 1), ("msgs_null.jsonl", 1)])
def test_rows_that_say_nothing_are_left_out_and_counted(name: str, dropped: int, tmp_path: Path) -> None:
    trainer = "dpo" if name.startswith("dpo") else "sft"
    verdict, rows = judged(name, trainer, tmp_path)
    assert verdict.rows_dropped == dropped and len(prepared(verdict, rows)) == len(rows) - dropped
    assert f"{dropped} rows" in verdict.fix


def test_reasoning_beside_the_content_is_pointed_out(tmp_path: Path) -> None:
    verdict, _ = judged("think.jsonl", "sft", tmp_path)
    assert verdict.ok and any("reasoning_content" in warning for warning in verdict.warnings)


def test_single_scored_answers_make_no_pairs_and_what_to_do_is_said(tmp_path: Path) -> None:
    verdict, _ = judged("reward_score.jsonl", "reward", tmp_path)
    assert not verdict.ok and "kto" in verdict.fix and "pairs" in verdict.fix


@pytest.mark.parametrize(("name", "word"), [("semi.csv", "sep=';'"), ("field.json", "field='data'")])
def test_how_the_script_loads_an_odd_file_is_said(name: str, word: str, tmp_path: Path) -> None:
    with open_table(open_local(str(CASES / name)).split(None), scratch=tmp_path) as table:
        assert table.rows == 24 and any(word in text for _, text in table.notes)


def said(row: dict[str, Any]) -> bool:
    """Whether every part of a prepared row says something."""
    return all(value or value is False or value == 0 for key, value in row.items() if key in PARTS)


PARTS = ("text", "prompt", "completion", "chosen", "rejected", "messages")


def account(trainer: str, rows: list[dict[str, Any]], verdict: Format) -> list[Any]:
    """What is lost of ``rows`` after the preparation that is offered."""
    from mlintern.tools.data.content import account_of
    from mlintern.tools.data.trained_texts import trained_texts

    function = Preparation("", verdict.prepare).function()
    first = next(made for row in rows if (made := function(dict(row))) is not None)

    def texts(row: dict[str, Any]) -> list[str]:
        made = function(dict(row))
        if made is None:
            raise ValueError
        return trained_texts(trainer, first, row=made)

    return account_of(rows, texts, errors=(ValueError, KeyError, TypeError)).lost()


@pytest.mark.parametrize(
    "name", ["text_int.jsonl", "num.csv", "cint.jsonl", "dpo_null.jsonl", "sharegpt_tools.jsonl"]
)
def test_the_script_itself_makes_the_same_rows(name: str, tmp_path: Path) -> None:
    """`datasets` gives a column back its old type where it can; the rendered script must not let it."""
    datasets = pytest.importorskip("datasets")
    trainer = "dpo" if name.startswith("dpo") else "sft"
    verdict, rows = judged(name, trainer, tmp_path)
    path = str(CASES / name)
    recipe = parse_recipe({"trainer": trainer, "model": "gpt2", "dataset": path, "prepare": verdict.prepare})
    tree = ast.parse(render(recipe).text)
    wanted = [node for node in tree.body if isinstance(node, ast.FunctionDef) and "prepare" in node.name]
    names: dict[str, Any] = {"Any": Any, "Callable": Callable, "Dataset": datasets.Dataset, "json": json}
    exec(compile(ast.Module(wanted, []), "script", "exec"), names)
    loaded = datasets.load_dataset(
        load_call(CASES / name).kind, data_files=path, split="train", cache_dir=str(tmp_path / "cache")
    )
    made = names["prepared"](loaded, names["prepare"])
    assert [without_nulls(row) for row in made] == [without_nulls(row) for row in prepared(verdict, rows)]
