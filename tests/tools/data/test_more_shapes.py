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
