"""`check_contamination`: what counts as found, what does not, and the copy without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.tools.data.contamination import ContaminationChecker
from mlintern.tools.data.ngram_index import EvaluationIndex, tokenise
from mlintern.tools.errors import BadInput
from tests.tools.data.conftest import Write
from tests.tools.data.shapes_of_data import assistant, user

pytestmark = pytest.mark.anyio

QUESTION = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."
ANSWER = "She sold 48 / 2 = 24 clips in May, and so altogether she sold 72 clips in both months."
OTHER = [
    f"An unrelated sentence number {i} about weather, rivers, bread and the price of tea in {i} towns"
    for i in range(30)
]


@pytest.fixture
def checker() -> ContaminationChecker:
    return ContaminationChecker()


async def test_a_question_inside_a_message_is_found_despite_case_and_punctuation(
    checker: ContaminationChecker, jsonl: Write
) -> None:
    rows = [{"messages": [user(text), assistant("ok")]} for text in OTHER]
    rows[17] = {"messages": [user("Please solve: " + QUESTION.upper().replace(",", " -")), assistant("72")]}
    train = jsonl(rows, "train.jsonl")
    evaluation = jsonl(
        [{"question": QUESTION, "answer": "72"}, {"question": OTHER[0][::-1], "answer": "x"}], "test.jsonl"
    )
    result = await checker.check(str(train), str(evaluation))
    assert (result.train_rows, result.evaluation_rows, result.flagged, result.rate) == (30, 2, 1, 0.5)
    [match] = result.matches
    assert (match.evaluation_row, match.train_row, match.overlap, match.kind) == (0, 17, 1.0, "exact")
    assert match.text == " ".join(tokenise(QUESTION))


async def test_answers_are_searched_too(checker: ContaminationChecker, jsonl: Write) -> None:
    train = jsonl([{"text": OTHER[1]}, {"text": ANSWER}], "train.jsonl")
    evaluation = jsonl([{"question": QUESTION, "answer": ANSWER}], "test.jsonl")
    assert (await checker.check(str(train), str(evaluation))).flagged == 1
    only_questions = await checker.check(str(train), str(evaluation), columns=["question", "text"])
    assert only_questions.flagged == 0


async def test_a_shared_phrase_alone_is_not_enough(checker: ContaminationChecker, jsonl: Write) -> None:
    phrase = " ".join(QUESTION.split()[:8])
    train = jsonl(
        [{"text": f"{phrase} but everything else in this row is about something quite different"}], "a.jsonl"
    )
    evaluation = jsonl([{"question": QUESTION}], "b.jsonl")
    assert (await checker.check(str(train), str(evaluation))).flagged == 0
    assert (await checker.check(str(train), str(evaluation), threshold=0.3)).flagged == 1


async def test_a_short_text_counts_only_when_it_is_equal(checker: ContaminationChecker, jsonl: Write) -> None:
    evaluation = jsonl([{"question": "Who wrote Faust, please?"}, {"question": "Yes"}], "test.jsonl")
    train = jsonl(
        [{"text": "who wrote faust please"}, {"text": "Yes"}, {"text": "Tell me who wrote Faust, please?"}], "a.jsonl"
    )
    result = await checker.check(str(train), str(evaluation))
    assert [(m.evaluation_row, m.train_row, m.kind) for m in result.matches] == [(0, 0, "exact")]
    assert result.short_texts == 1


@pytest.mark.parametrize("form", ["jsonl", "parquet", "csv"])
async def test_the_filtered_copy_lacks_the_flagged_rows_and_nothing_else(
    checker: ContaminationChecker, jsonl: Write, parquet: Write, tmp_path: Path, form: str
) -> None:
    texts = [*OTHER[:5], QUESTION, *OTHER[5:9]]
    if form == "jsonl":
        train = jsonl([{"text": text, "n": i} for i, text in enumerate(texts)], "train.jsonl")
    elif form == "parquet":
        train = parquet({"text": texts, "n": list(range(10))}, row_group_size=3)
    else:
        train = tmp_path / "train.csv"
        train.write_text("text,n\n" + "".join(f'"{text}",{i}\n' for i, text in enumerate(texts)))
    evaluation = jsonl([{"question": QUESTION}], "test.jsonl")
    target = tmp_path / f"clean.{form}"
    result = await checker.check(str(train), str(evaluation), filtered=str(target))
    assert (result.train_rows_flagged, result.filtered) == (1, str(target))
    assert result.filter == "drop_rows=5"
    if form == "parquet":
        kept: list[Any] = pq.read_table(target)["n"].to_pylist()
    elif form == "jsonl":
        kept = [json.loads(line)["n"] for line in target.read_text().splitlines()]
    else:
        kept = [int(line.rsplit(",", 1)[1]) for line in target.read_text().splitlines()[1:]]
    assert kept == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    with pytest.raises(BadInput, match="exists already"):
        await checker.check(str(train), str(evaluation), filtered=str(target))


async def test_wrong_input_is_refused_with_what_would_be_right(checker: ContaminationChecker, jsonl: Write) -> None:
    train = jsonl([{"text": OTHER[0]}], "train.jsonl")
    evaluation = jsonl([{"question": QUESTION}], "test.jsonl")
    with pytest.raises(BadInput, match="4 to 50"):
        await checker.check(str(train), str(evaluation), ngram=1)
    with pytest.raises(BadInput, match="Did you mean 'question'"):
        await checker.check(str(train), str(evaluation), columns=["text", "question", "qestion"])
    with pytest.raises(BadInput, match="has none of the columns question"):
        await checker.check(str(train), str(evaluation), columns=["question"])


WORDS = st.lists(st.sampled_from("abcdefghijklm"), min_size=8, max_size=30)


@given(evaluation=WORDS, before=WORDS, after=WORDS)
def test_a_text_that_stands_whole_in_a_row_is_always_found(
    evaluation: list[str], before: list[str], after: list[str]
) -> None:
    index = EvaluationIndex(ngram=8, threshold=0.5)
    index.add(0, [" ".join(evaluation)])
    [match] = index.matches(3, [" ".join([*before, *evaluation, *after])])
    assert (match.evaluation_row, match.train_row, match.overlap) == (0, 3, 1.0)


@given(evaluation=WORDS, train=WORDS)
def test_the_index_finds_what_a_plain_search_finds(evaluation: list[str], train: list[str]) -> None:
    grams = {tuple(train[i : i + 8]) for i in range(len(train) - 7)}
    covered = {i + k for i in range(len(evaluation) - 7) if tuple(evaluation[i : i + 8]) in grams for k in range(8)}
    index = EvaluationIndex(ngram=8, threshold=0.5)
    index.add(0, [" ".join(evaluation)])
    found = index.matches(0, [" ".join(train)])
    assert bool(found) == (len(covered) / len(evaluation) >= 0.5)


@given(st.text())
def test_tokens_of_ascii_and_other_text_follow_one_rule(text: str) -> None:
    ascii_only = text.encode("ascii", "ignore").decode()
    assert tokenise(ascii_only) == [word for word in tokenise(ascii_only + " é") if word != "é"]
