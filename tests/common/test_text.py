"""Cut texts, sizes, money and suggestions, as people and models read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.common.text import (
    cut,
    cut_line,
    cut_list,
    did_you_mean,
    format_bytes,
    format_usd,
    format_usd_limit,
    nearest,
    printable,
)


def test_a_cut_says_that_it_cut_and_how_long_the_text_is() -> None:
    assert cut("abc", 3) == "abc"
    assert cut("x" * 1200, 3) == "xxx... (cut: 1,200 characters)"
    assert cut("one two three", 9, words=True) == "one two... (cut: 13 characters)"


def test_a_line_is_cut_to_its_width_with_an_ellipsis() -> None:
    assert cut_line("a\n b\tc", 10) == "a b c"
    assert cut_line("abcdefgh", 5) == "abcd…"


@given(st.text(), st.integers(min_value=1, max_value=40))
def test_no_line_is_wider_than_asked(text: str, width: int) -> None:
    assert len(cut_line(text, width)) <= width


def test_a_cut_list_counts_the_rest() -> None:
    assert cut_list(["a", "b"], 2) == "a, b"
    assert cut_list(["a", "b", "c", "d"], 2) == "a, b and 2 more"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (1536, "1.5 KiB"),
        (2**30 * 2, "2 GiB"),
        (2**40 * 5000, "5,000 TiB"),
    ],
)
def test_sizes_are_in_binary_units(count: int, text: str) -> None:
    assert format_bytes(count) == text


def test_money_shows_cents_and_a_limit_is_rounded_up() -> None:
    assert format_usd(1234.5) == "$1,234.50"
    assert format_usd(0) == "$0.00"
    assert format_usd(0.0042) == "$0.0042"
    assert format_usd_limit(4.501) == "4.51 USD"
    assert format_usd_limit(0.1 + 0.2) == "0.30 USD"


def test_the_nearest_name_is_offered_whatever_its_case_and_dashes() -> None:
    assert did_you_mean("a10g-smal", ["cpu-basic", "a10g-small"]) == "Did you mean 'a10g-small'?"
    assert did_you_mean("HF_JOBS", ["local", "hf-jobs"]) == "Did you mean 'hf-jobs'?"
    assert nearest("promt", ["prompt", "prompts", "answer"], most=2) == ["prompt", "prompts"]


def test_what_resembles_nothing_gets_the_list() -> None:
    assert did_you_mean("zzz", ["cpu"]) == "There are: cpu."
    assert did_you_mean("zzz", ["text", "label"], what="column") == "The columns are: text, label."
    assert did_you_mean("zzz", [], what="column") == "There is no column."
    assert did_you_mean("zzz", ["cpu"], otherwise="") == ""
    assert did_you_mean("zzz", [f"column_{n}" for n in range(60)]).endswith("column_39 and 20 more.")


def test_nothing_invisible_or_reordering_is_printable() -> None:
    hidden = "\u202e\u2066\u200b\u200d\ufeff\u00ad\u3164\u2800\u115f\x1b\x07\x9b\U000e0041"
    assert printable(f"a{hidden}b").replace(" ", "") == "ab"
    assert printable("line\n\ttab", keep="\n\t") == "line\n\ttab"
    assert printable("naïve 数据 é") == "naïve 数据 é"
