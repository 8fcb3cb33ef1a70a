"""describe_trainer answers briefly, and finds the rest."""

from __future__ import annotations

import pytest

from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.describe import describe_trainer
from mlintern.tools.scripts.trainers.advice import TRAINERS


@pytest.mark.parametrize("trainer", [*TRAINERS, "evaluation"])
def test_a_description_is_short_and_has_the_data_and_the_key_fields(trainer: str) -> None:
    description = describe_trainer(trainer)
    assert description.data and description.fields
    assert len(description.model_dump_json()) < 8000


def test_key_fields_come_with_advice_and_removed_ones_with_what_replaced_them() -> None:
    description = describe_trainer("grpo")
    assert all(field.advice for field in description.fields)
    assert {entry.name: entry.use for entry in description.removed_fields}["warmup_ratio"].startswith("warmup_steps")
    assert "epsilon" in description.other_fields


def test_a_search_finds_fields_by_name_and_by_help() -> None:
    by_name = describe_trainer("sft", search="packing")
    assert by_name.fields[0].name in {"packing", "eval_packing", "packing_strategy"}
    by_help = describe_trainer("sft", search="gradient norm")
    assert "max_grad_norm" in {field.name for field in by_help.fields}


def test_a_search_finds_what_was_removed() -> None:
    assert [entry.name for entry in describe_trainer("sft", search="warmup").removed_fields] == ["warmup_ratio"]


def test_a_search_that_finds_nothing_says_so_and_a_long_one_says_that_it_was_cut() -> None:
    assert any("No field matches" in note for note in describe_trainer("sft", search="zzz").notes)
    assert any("more fields match" in note for note in describe_trainer("grpo", search="the").notes)


def test_named_fields_come_with_their_whole_help() -> None:
    (field,) = describe_trainer("dpo", fields=["beta"]).fields
    assert field.name == "beta" and field.default == 0.1 and field.help


@pytest.mark.parametrize(
    ("trainer", "fields", "expected"),
    [
        ("ppo", None, "Use grpo or rloo"),
        ("sftt", None, "Did you mean sft"),
        ("sft", ["max_seq_length"], "Use max_length"),
        ("sft", ["packin"], "Did you mean packing"),
        ("evaluation", ["shots"], "no field 'shots'"),
        ("evaluation", ["zzz"], "Fields: "),
        ("sft", ["zzz"], "Use `search`"),
    ],
)
def test_an_unknown_name_is_refused_with_what_is_meant(trainer: str, fields: list[str] | None, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        describe_trainer(trainer, fields=fields)
    assert expected in str(caught.value)
