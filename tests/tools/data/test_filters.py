"""The filters that a recipe may name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mlintern.tools.data.filters import LANGUAGES, first_of_each, named_filter, numbers_text, row_numbers
from mlintern.tools.errors import BadInput


def keeps(text: str) -> Callable[[dict[str, Any]], bool]:
    names: dict[str, Any] = {}
    exec(named_filter(text).source, names)
    function: Callable[[dict[str, Any]], bool] = names[text.partition("=")[0].replace("longest", "max_characters")]
    return function


def answer(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": text}]}


SAID = {
    "de": "Der Hund ist nicht im Haus, und die Katze schläft auf dem Sofa.",
    "en": "The dog is not in the house, and the cat sleeps on the sofa.",
    "es": "El perro no está en la casa y el gato duerme en el sofá con los niños.",
    "fr": "Le chien est dans la maison et les enfants ne sont pas avec vous.",
    "it": "Il cane è nella casa e il gatto dorme con la sorella del bambino.",
    "nl": "De hond is niet in het huis en een kat ligt op de bank.",
    "pl": "To jest dom i nie ma w nim psa, ale jest kot na kanapie.",
    "pt": "O cachorro não está na casa e os gatos dormem com uma criança.",
    "sv": "Hunden är inte i huset och det är en katt som ligger på soffan.",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_is_known_by_its_commonest_words(language: str) -> None:
    keep = keeps(f"language={language}")
    assert {name for name, text in SAID.items() if keep(answer(text))} == {language}
    assert keep(answer("4 + 4 = 8")) and keep({"prompt": "7", "completion": "print(x)"})


def test_rows_that_are_too_long_go(name: str = "longest=20") -> None:
    assert keeps(name)(answer("x" * 20)) and not keeps(name)(answer("x" * 21))


def test_repeats_are_the_same_but_for_case_and_white_space() -> None:
    rows = [
        {"text": "One  two"},
        {"text": "one\ntwo"},
        {"text": "one two three"},
        {"text": "ONE TWO "},
        {"text": "1"},
    ]
    assert first_of_each(rows) == [0, 2, 3, 4]


def test_numbers_of_rows_are_written_and_read_in_one_way() -> None:
    numbers = {0, 3, 4, 5, 90}
    assert numbers_text(numbers) == "0,3-5,90"
    assert row_numbers(numbers_text(numbers)) == numbers
    assert numbers_text([]) == ""


@pytest.mark.parametrize(
    "text",
    [
        "drop_rows",
        "drop_rows=a",
        "drop_rows=5-3",
        "drop_rows=0-999999999",
        "language=xx",
        "longest=0",
        "dedup",
        "script=",
    ],
)
def test_what_is_no_filter_is_refused_with_what_would_be_one(text: str) -> None:
    with pytest.raises(BadInput) as refused:
        named_filter(text)
    assert refused.value.next_step
