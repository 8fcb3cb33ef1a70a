"""Further shapes that people keep their data in, each with the row that the offered `prepare` makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.data.formats import judge_formats
from mlintern.tools.data.inspection_results import Format
from mlintern.tools.data.local_files import open_local
from mlintern.tools.data.table import open_table
from tests.tools.data.conftest import Write
from tests.tools.data.shapes_of_data import assistant, user
from tests.tools.data.test_corpus import account, prepared
from tests.tools.data.test_corpus_trains import run

Row = dict[str, Any]


def asked(number: int) -> str:
    return f"What comes after the number {number} here?"


def right(number: int) -> str:
    return f"After {number} comes the number {number + 1} of course."


def wrong(number: int) -> str:
    return f"I think that {number} is followed by {number + 7} maybe."


def judged(rows: list[Row], trainer: str, write: Write, scratch: Path) -> tuple[Format, list[Row]]:
    with open_table(open_local(str(write(rows))).split(None), scratch=scratch) as table:
        return judge_formats(table, (trainer,))[trainer], table.fetch(range(table.rows))


PAIR = {"prompt": [user(asked(0))], "chosen": [assistant(right(0))], "rejected": [assistant(wrong(0))]}
WHOLE = {"chosen": [user(asked(0)), assistant(right(0))], "rejected": [user(asked(0)), assistant(wrong(0))]}
TALK = {"messages": [user(asked(0)), assistant(right(0))]}
SINGLE = {"prompt": [user(asked(0))], "completion": [assistant(right(0))]}
LISTED = f"{asked(0)}\nA. {right(0)}\nB. {wrong(0)}\nC. none of these\nD. all of these"
CHOICE = {"prompt": [user(LISTED)], "completion": [assistant(f"A. {right(0)}")]}

SHAPES: dict[str, tuple[str, Callable[[int], Row], Row]] = {
    "two answers and a preference below zero for the first": (
        "dpo",
        lambda i: {
            "context": [user(asked(i))],
            "response1": right(i),
            "response2": wrong(i),
            "overall_preference": -2 if i % 3 == 0 else 1,
        },
        PAIR,
    ),
    "a post and two comments": (
        "dpo",
        lambda i: {
            "history": asked(i),
            "human_ref_A": wrong(i),
            "human_ref_B": right(i),
            "labels": i % 3 == 1,
        },
        PAIR,
    ),
    "two conversations and a winner": (
        "dpo",
        lambda i: {
            "conversation_a": [user(asked(i)), assistant(right(i))],
            "conversation_b": [user(asked(i)), assistant(wrong(i))],
            "winner": ["model_a", "model_b", "tie"][i % 3],
        },
        WHOLE,
    ),
    "the worse conversation beside the messages": (
        "dpo",
        lambda i: {
            "messages": [user(asked(i)), assistant(right(i))],
            "rejected_messages": [user(asked(i)), assistant(wrong(i))],
        },
        WHOLE,
    ),
    "preferred and non-preferred output": (
        "dpo",
        lambda i: {
            "input": {"messages": [user(asked(i))]},
            "preferred_output": [assistant(right(i))],
            "non_preferred_output": [assistant(wrong(i))],
        },
        PAIR,
    ),
    "contents with parts": (
        "sft",
        lambda i: {
            "contents": [
                {"role": "user", "parts": [{"text": asked(i)}]},
                {"role": "model", "parts": [{"text": right(i)}]},
            ]
        },
        TALK,
    ),
    "a column an option, and a letter": (
        "sft",
        lambda i: {
            "question": asked(i),
            "A": right(i),
            "B": wrong(i),
            "C": "none of these",
            "D": "all of these",
            "answer": "A",
        },
        CHOICE,
    ),
    "a column an option, and an index": (
        "sft",
        lambda i: {
            "question": asked(i),
            "opa": right(i),
            "opb": wrong(i),
            "opc": "none of these",
            "opd": "all of these",
            "cop": 0,
        },
        CHOICE,
    ),
    "answers as a list of structs": (
        "sft",
        lambda i: {"question": asked(i), "answers": [{"text": right(i), "answer_start": 0}]},
        SINGLE,
    ),
    "input_text and target_text": ("sft", lambda i: {"input_text": asked(i), "target_text": right(i)}, SINGLE),
    "thumbs in words": (
        "kto",
        lambda i: {"prompt": asked(i), "completion": right(i), "label": "Thumbs down" if i % 2 else "Thumbs up"},
        {**SINGLE, "label": True},
    ),
    "stars": (
        "kto",
        lambda i: {"prompt": asked(i), "response": right(i), "stars": 5 - i % 5},
        {**SINGLE, "label": True},
    ),
    "a transcript of User and Assistant": (
        "sft",
        lambda i: {"transcript": f"User: {asked(i)}\nAssistant: {right(i)}"},
        TALK,
    ),
    "a transcript of Human and Assistant": (
        "sft",
        lambda i: {"conversation": f"\n\nHuman: {asked(i)}\n\nAssistant: {right(i)}"},
        TALK,
    ),
    "a transcript with signs before the speakers": (
        "sft",
        lambda i: {"chat": f"### Human: {asked(i)}### Assistant: {right(i)}"},
        TALK,
    ),
    "glaive's chat": (
        "sft",
        lambda i: {
            "system": "You may call the function count_up",
            "chat": f"USER: {asked(i)}\n\n\nASSISTANT: <functioncall> count_up of {i} <|endoftext|>\n\n\n"
            f"FUNCTION RESPONSE: the result is {i + 1} now\n\n\nASSISTANT: {right(i)} <|endoftext|>",
        },
        {
            "messages": [
                {"role": "system", "content": "You may call the function count_up"},
                user(asked(0)),
                assistant("<functioncall> count_up of 0"),
                {"role": "tool", "content": "the result is 1 now"},
                assistant(right(0)),
            ]
        },
    ),
    "answers as lists of one text": (
        "dpo",
        lambda i: {"prompt": asked(i), "chosen": [right(i)], "rejected": [wrong(i)]},
        PAIR,
    ),
    "answers as lists of plain texts in turn": (
        "dpo",
        lambda i: {"chosen": [asked(i), right(i)], "rejected": [asked(i), wrong(i)]},
        PAIR,
    ),
    "source and target": (
        "sft",
        lambda i: {"source": asked(i), "target": right(i)},
        SINGLE,
    ),
    "source and target with their languages": (
        "sft",
        lambda i: {"source": asked(i), "target": right(i), "source_lang": "English", "target_lang": "German"},
        {"prompt": [user(f"Translate from English to German:\n\n{asked(0)}")], "completion": [assistant(right(0))]},
    ),
    "a column for each of two languages": (
        "sft",
        lambda i: {"id": f"row-{i}", "en": asked(i), "de": right(i)},
        {"prompt": [user(f"Translate from English to German:\n\n{asked(0)}")], "completion": [assistant(right(0))]},
    ),
    "two languages by their names": (
        "sft",
        lambda i: {"french_text": asked(i), "english_text": right(i)},
        {
            "prompt": [user(f"Translate from French to English:\n\n{asked(0)}")],
            "completion": [assistant(right(0))],
        },
    ),
    "a title and a body": (
        "sft",
        lambda i: {"title": f"The title of story {i}", "body": right(i)},
        {"text": f"The title of story 0\n\n{right(0)}"},
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_has_a_way_on_that_loses_nothing(name: str, jsonl: Write, tmp_path: Path) -> None:
    trainer, make, expected = SHAPES[name]
    verdict, rows = judged([make(number) for number in range(24)], trainer, jsonl, tmp_path)
    assert not verdict.ok and verdict.prepare, verdict
    assert prepared(verdict, rows)[0] == expected
    assert account(trainer, rows, verdict) == []


def test_a_prompt_that_stands_in_both_answers_is_not_lost(jsonl: Write, tmp_path: Path) -> None:
    """TRL splits the common start off; what the model reads is the whole of each."""
    rows = [
        {
            "chosen": f"\n\nHuman: {asked(i)}\n\nAssistant: {right(i)}",
            "rejected": f"\n\nHuman: {asked(i)}\n\nAssistant: {wrong(i)}",
        }
        for i in range(24)
    ]
    verdict, _ = judged(rows, "dpo", jsonl, tmp_path)
    assert verdict.ok and verdict.lost == [] and verdict.warnings == []


def test_tools_beside_a_question_stay(jsonl: Write, tmp_path: Path) -> None:
    tools = '[{"name": "add_one", "description": "adds one to a number", "parameters": {}}]'
    rows = [{"query": asked(i), "tools": tools, "answers": f'[{{"name": "add_one", "n": {i}}}]'} for i in range(24)]
    verdict, read = judged(rows, "sft", jsonl, tmp_path)
    assert "adds one to a number" in prepared(verdict, read)[0]["tools"]
    assert account("sft", read, verdict) == []


@pytest.mark.parametrize(
    ("worked", "final"),
    [
        ("{} and {} make 1,{} in all.\n#### 1,{}", "1{}"),
        ("So it is $\\boxed{{3}}$, no: $\\boxed{{\\frac{{{}}}{{2}}}}$.", "\\frac{{{}}}{{2}}"),
    ],
)
@pytest.mark.parametrize("column", ["answer", "solution"])
def test_a_reward_gets_the_answer_that_a_worked_solution_marks(
    worked: str, final: str, column: str, jsonl: Write, tmp_path: Path
) -> None:
    rows = [{"question": asked(i), column: worked.format(*[100 + i] * 4)} for i in range(24)]
    verdict, read = judged(rows, "grpo", jsonl, tmp_path)
    made = prepared(verdict, read)
    assert [row["answer"] for row in made] == [final.format(100 + i) for i in range(24)]
    assert [row["solution"] for row in made] == [row[column] for row in rows]
    assert account("grpo", read, verdict) == [] and "`answer` is what stands" in verdict.fix


def test_a_function_call_beside_the_content_is_not_lost(jsonl: Write, tmp_path: Path) -> None:
    """Chat templates print `tool_calls`, not the `function_call` of before."""

    def talk(number: int) -> Row:
        call = {"name": "add_one", "arguments": f'{{"to": "the number {number} of the list"}}'}
        said = {"role": "assistant", "content": None, "function_call": call}
        result = {"role": "function", "name": "add_one", "content": f"the result is {number + 1} now"}
        return {"messages": [user(asked(number)), said, result, assistant(right(number))]}

    verdict, rows = judged([talk(number) for number in range(24)], "sft", jsonl, tmp_path)
    assert [line.place for line in verdict.lost] == ["messages[].function_call.arguments"]
    _, called, result, _ = prepared(verdict, rows)[0]["messages"]
    arguments = {"to": "the number 0 of the list"}
    assert called["tool_calls"] == [{"type": "function", "function": {"name": "add_one", "arguments": arguments}}]
    assert (called["content"], result["role"]) == ("", "tool")
    assert account("sft", rows, verdict) == []


def test_a_transcript_that_would_be_trained_on_as_plain_text_becomes_messages(jsonl: Write, tmp_path: Path) -> None:
    rows = [{"text": f"User: {asked(i)}\nAssistant: {right(i)}"} for i in range(24)]
    verdict, read = judged(rows, "sft", jsonl, tmp_path)
    assert verdict.ok and any("one text" in warning for warning in verdict.warnings)
    assert prepared(verdict, read)[0] == TALK and account("sft", read, verdict) == []
    verdict, read = judged(rows, "grpo", jsonl, tmp_path)
    assert prepared(verdict, read)[0] == {"prompt": [user(asked(0))], "answer": right(0)}


@pytest.mark.parametrize(
    "text",
    ["Amanda: I baked cookies, do you want some?\nJerry: Sure, thank you!", "The user: a study of {}", "User: what?"],
)
def test_a_text_that_names_no_user_and_no_assistant_stays_a_text(text: str, jsonl: Write, tmp_path: Path) -> None:
    verdict, _ = judged([{"text": f"{text} {i}"} for i in range(24)], "sft", jsonl, tmp_path)
    assert verdict.ok and not verdict.warnings and not verdict.prepare


def test_a_turn_of_a_transcript_that_does_not_arrive_is_named(jsonl: Write, tmp_path: Path) -> None:
    rows = [
        {"prompt": asked(i), "completion": right(i), "chat": f"User: {wrong(i)}\nAssistant: so"} for i in range(24)
    ]
    verdict, _ = judged(rows, "sft", jsonl, tmp_path)
    assert [line.place for line in verdict.lost] == ["chat"]


def test_a_title_that_does_not_arrive_is_named_beside_a_text_and_not_elsewhere(jsonl: Write, tmp_path: Path) -> None:
    rows = [{"title": f"The title of story {i}", "text": right(i)} for i in range(24)]
    verdict, read = judged(rows, "sft", jsonl, tmp_path)
    assert [line.place for line in verdict.lost] == ["title"] and "`title` never reaches" in verdict.reason
    assert prepared(verdict, read)[0] == {"text": f"The title of story 0\n\n{right(0)}"}
    rows = [{"title": f"The title of story {i}", "prompt": asked(i), "completion": right(i)} for i in range(24)]
    assert judged(rows, "sft", jsonl, tmp_path)[0].lost == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"correctness_math_verify": [False, True]}, "right by `correctness_math_verify`"),
        ({}, "in which `answer` stands"),
        ({"solution": "Some worked solution of the problem"}, "in which `answer` stands"),
    ],
)
def test_whole_generations_are_trained_on_and_not_the_bare_answer(
    more: Row, words: str, jsonl: Write, tmp_path: Path
) -> None:
    rows = [
        {
            "problem": asked(i),
            "answer": str(1000 + i),
            "generations": [wrong(i), f"<think>{i}</think> {1000 + i}"],
            **more,
        }
        for i in range(24)
    ]
    verdict, read = judged(rows, "sft", jsonl, tmp_path)
    assert words in verdict.fix
    assert prepared(verdict, read) == [
        {"prompt": [user(asked(i))], "completion": [assistant(f"<think>{i}</think> {1000 + i}")]} for i in range(24)
    ]


def test_rows_without_a_right_generation_are_left_out_and_counted(jsonl: Write, tmp_path: Path) -> None:
    rows = [
        {"problem": asked(i), "answer": "7", "generations": [right(i)], "correctness_math_verify": [i % 2 == 0]}
        for i in range(24)
    ]
    verdict, read = judged(rows, "sft", jsonl, tmp_path)
    assert [row["completion"][0]["content"] for row in prepared(verdict, read)] == [right(i) for i in range(0, 24, 2)]
    both = {"correctness_math_verify": [False, True]}
    pairs = [{**row, **both, "generations": [wrong(i), right(i)]} for i, row in enumerate(rows)]
    verdict, read = judged(pairs, "dpo", jsonl, tmp_path)
    assert prepared(verdict, read)[0] == PAIR


@pytest.mark.slow
def test_each_of_them_trains_two_steps_in_trl(jsonl: Write, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    jobs = []
    for name, (trainer, make, _) in SHAPES.items():
        rows = [make(number) for number in range(24)]
        verdict, _ = judged(rows, trainer, jsonl, tmp_path)
        jobs.append({"trainer": trainer, "kind": name, "rows": rows, "prepare": verdict.prepare})
    found = run(jobs, tmp_path)
    assert [(job["kind"], one["error"], one["steps"]) for job, one in zip(jobs, found, strict=True)] == [
        (name, "", 2) for name in SHAPES
    ]
