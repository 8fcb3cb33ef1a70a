"""What callers give: taken in every usual form, refused with advice otherwise."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.tools.errors import BadInput
from mlintern.tools.jobs.arguments import (
    check_args,
    check_env,
    check_label,
    check_secrets,
    parse_timeout,
)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("30m", 1800), ("30min", 1800), ("1 h 30 min", 5400), ("90s", 90), (" 2 D ", 172800), (None, 1800)],
)
def test_durations_are_taken_in_every_usual_form(given: str | None, seconds: float) -> None:
    assert parse_timeout(given) == seconds


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("1w", "write a number and a unit"),
        ("soon", "write a number and a unit"),
        ("-5m", "write a number and a unit"),
        ("nan", "write a number and a unit"),
        ("30", "30s or 30m?"),
        ("0s", "between 1 second and 30 days"),
        ("0.5s", "between 1 second and 30 days"),
        ("31d", "between 1 second and 30 days"),
    ],
)
def test_what_is_not_a_usable_duration_is_refused(given: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_timeout(given)
    assert said in str(caught.value)


@given(st.text())
def test_no_text_makes_the_parser_fail_otherwise(text: str) -> None:
    with contextlib.suppress(BadInput):
        assert 1 <= parse_timeout(text) <= 30 * 86400


def test_plain_variables_pass_sorted_and_as_text() -> None:
    env = {"TOKENIZERS_PARALLELISM": "false", "SEED": 3, "MAX_TOKEN": "2048"}
    assert check_env(env) == (("MAX_TOKEN", "2048"), ("SEED", "3"), ("TOKENIZERS_PARALLELISM", "false"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"HF_TOKEN": "hf_abcdefghijklmnopqrstuvwxyz"}, 'secrets=["HF_TOKEN"]'),
        ({"X": "hf_abcdefghijklmnopqrstuvwxyz"}, "secret"),
        ({"WANDB_API_KEY": "whatever"}, "secret"),
        ({"A B": "1"}, "name of a variable"),
        ({"MLINTERN_OUTPUT_DIR": "/x"}, "belongs to mlintern"),
        ({"A": "x\0y"}, "NUL"),
        ({"A": "x" * 200_000}, "128 KiB"),
    ],
)
def test_secrets_and_unusable_variables_are_refused_with_what_to_do(env: dict[str, str], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_env(env)
    assert said in str(caught.value)
    assert not any(len(value) > 5 and value in str(caught.value) for value in env.values())


def test_arguments_are_a_list_of_texts_without_secrets() -> None:
    assert check_args(["--seed", "1"]) == ("--seed", "1")
    assert check_args(None) == ()
    for wrong in ("--seed 1", ["--token", "hf_abcdefghijklmnopqrstuvwxyz"], ["a\0b"]):
        with pytest.raises(BadInput):
            check_args(wrong)


def test_secrets_are_names_that_the_server_has() -> None:
    assert check_secrets(["B", "A", "A"], available=["A", "B"]) == ("A", "B")
    with pytest.raises(BadInput, match="no HF_TOKEN"):
        check_secrets(["HF_TOKEN"], available=[])
    with pytest.raises(BadInput, match="list"):
        check_secrets("HF_TOKEN", available=["HF_TOKEN"])


@pytest.mark.parametrize("label", ["../up", "", "a/b", ".hidden", "x" * 101, "ends ", "tab\tbed"])
def test_a_name_that_is_no_safe_file_name_is_refused(label: str) -> None:
    with pytest.raises(BadInput):
        check_label(label, what="experiment")


def test_a_usable_name_passes() -> None:
    assert check_label("sft lr=1e-3".replace("=", ":"), what="run_name") == "sft lr:1e-3"
    assert check_label(None, what="run_name") is None
