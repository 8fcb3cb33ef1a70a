"""Overlaps that are no plain copies, and boilerplate that is no overlap; a slice of `benchmarks/contamination.py`."""

from __future__ import annotations

import random

import pytest

from benchmarks import contamination as bench
from mlintern.tools.data.contamination_search import ContaminationSearch, Outcome
from mlintern.tools.data.text_tokens import tokenise, without_numbers

QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips "
    "did Natalia sell altogether in April and May?"
)
SOURCE = random.Random(4)
WORDS = [f"word{SOURCE.randrange(10**6):06d}" for _ in range(3_000)]


def prose(words: int) -> str:
    return " ".join(SOURCE.choices(WORDS, k=words)) + "."


def search(evaluation: list[list[str]], train: list[list[str]]) -> Outcome:
    looking = ContaminationSearch(ngram=8, threshold=0.5)
    for number, texts in enumerate(evaluation):
        looking.add(number, texts)
    for number, texts in enumerate(train):
        looking.look(number, texts)
    return looking.outcome(train_rows=len(train), evaluation_rows=len(evaluation))


def kinds(evaluation: list[list[str]], train: list[list[str]]) -> dict[int, str]:
    found = search(evaluation, train)
    return {row: match.kind for row, match in sorted((found.templates | found.best).items())}


PADDING = [[prose(40)] for _ in range(100)]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Der Süße Weg, 3-mal!", ["der", "süsse", "weg", "3", "mal"]),
        ("水的化学式是什么？", list("水的化学式是什么")),
        ("GPT-4は日本語を", ["gpt", "4", *"は日本語を"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("ｆｕｌｌ Ｗｉｄｔｈ", ["full", "width"]),
    ],
)
def test_scripts_without_spaces_are_read_by_characters_and_others_by_words(text: str, tokens: list[str]) -> None:
    assert tokenise(text) == tokens


def test_numbers_are_alike_without_numbers() -> None:
    assert without_numbers(["sold", "48", "clips", "a1"]) == ["sold", "0", "clips", "a1"]


def test_every_seventh_word_replaced_is_a_near_copy() -> None:
    words = QUESTION.split()
    changed = " ".join("other" if at % 7 == 6 else word for at, word in enumerate(words))
    assert kinds([[QUESTION]], [*PADDING, [f"{prose(20)} {changed} {prose(20)}"]]) == {0: "near"}


def test_half_of_the_words_replaced_is_another_text() -> None:
    changed = " ".join("other" if at % 2 else word for at, word in enumerate(QUESTION.split()))
    assert kinds([[QUESTION]], [*PADDING, [changed]]) == {}


@pytest.mark.parametrize("number", ["52", "7000"])
def test_numbers_changed_are_the_same_template_and_not_flagged(number: str) -> None:
    found = search([[QUESTION]], [*PADDING, [QUESTION.replace("48", number)]])
    assert found.best == {} and found.train_rows == set()
    assert (found.templates[0].kind, found.templates[0].train_row) == ("same_template", 100)


def test_a_copy_beside_a_varied_one_is_a_copy() -> None:
    rows = [*PADDING, [QUESTION.replace("48", "52")], [QUESTION]]
    assert kinds([[QUESTION]], rows) == {0: "exact"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Who wrote Faust, please?", True),
        ("of the old town", False),
        ("the end of the year", True),
        ("a b c d?", False),
    ],
)
def test_a_short_text_inside_a_longer_one_counts_if_it_is_no_mere_phrase(text: str, found: bool) -> None:
    row = [f"{prose(30)} {text} {prose(30)}"]
    assert bool(kinds([[text]], [*PADDING, row])) is found


def test_a_short_text_in_many_rows_is_a_phrase() -> None:
    rows = [[f"{prose(30)} the end of the year {prose(30)}"] for _ in range(6)]
    assert kinds([["the end of the year"]], [*PADDING, *rows]) == {}
    assert kinds([["the end of the year"]], [*PADDING, *rows[:4]]) == {0: "exact"}


def test_one_refusal_for_all_and_all_of_the_above_prove_nothing() -> None:
    refusal = "I am sorry, but as a language model I cannot help you with this particular request today."
    evaluation = [[prose(20), refusal, "All of the above"] for _ in range(40)]
    found = search(evaluation, [[prose(30), refusal, "all of the above!"] for _ in range(40)])
    assert (found.best, found.common_texts) == ({}, 2)


def test_a_long_template_that_all_share_proves_nothing_and_a_copy_within_it_is_found() -> None:
    template = prose(60)
    evaluation = [[f"{template} {prose(20)}"] for _ in range(20)]
    train = [[f"{template} {prose(20)}"] for _ in range(20)]
    assert kinds(evaluation, train) == {}
    assert kinds(evaluation, [*train, evaluation[7]]) == {7: "exact"}


def test_two_draws_of_one_generator_are_not_contaminated() -> None:
    source = random.Random(8)

    def draw() -> str:
        name, fruit, shop = (source.choice(WORDS) for _ in range(3))
        a, b = source.randint(2, 99), source.randint(2, 99)
        return (
            f"{name} has {a} {fruit} and goes to the {shop} to buy {b} more of them for the party. How many {fruit} "
            f"does {name} have after that visit to the {shop}?"
        )

    found = search([[draw()] for _ in range(100)], [[draw()] for _ in range(100)])
    assert len(found.best) <= 2


def test_a_text_that_was_copied_many_times_is_still_found() -> None:
    assert kinds([[QUESTION]], [*PADDING, *[[QUESTION]] * 300]) == {0: "exact"}


def test_rows_that_ask_the_same_are_flagged_together() -> None:
    assert kinds([[QUESTION], [prose(20)], [QUESTION]], [*PADDING, [QUESTION]]) == {0: "exact", 2: "exact"}


def test_planted_overlaps_are_found_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ITEMS", 20)
    labels = ("split", "numbers_changed", "words_replaced")
    assert bench.measure("Chinese", labels=labels) == {label: (1.0, 1.0) for label in labels}
