"""Rewards tried on right answers, written in several ways, and on a wrong one.

It runs beside `trial`, in the environment of the script: standard library only.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
from collections.abc import Iterator, Sequence
from typing import Any

GOLD = (
    *("solution", "answer", "ground_truth", "target", "gold", "label", "reference", "expected", "correct_answer"),
    *("completion", "response", "output"),
)
"""Columns that hold the right answer, the likeliest first."""

FORMS = (
    *("{}", "The answer is {}.", "<answer>{}</answer>", "\\boxed{{{}}}", "#### {}", "Answer: {}"),
    *(
        "<think>a</think>{}",
        "<think>\na\n</think>\n<answer>\n{}\n</answer>",
        "<reasoning>a</reasoning><answer>{}</answer>",
    ),
    *("<think>a</think>\\boxed{{{}}}", "<think>a</think>\n#### {}"),
)
"""How a right answer may be written; a reward that likes none of these finds no answer right."""

WRONG = "I do not know what to say about this."

ROWS = 8
RAISED = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError, RuntimeError),
    *(SyntaxError, TypeError, ValueError),
)


def tried(functions: Any, rows: Any) -> Iterator[dict[str, Any]]:
    """For each reward function its name, the column of right answers, and its scores of wrong and right answers."""
    columns = getattr(rows, "column_names", None) or []
    gold = next((name for name in GOLD if name in columns), None)
    if not hasattr(rows, "__len__") or "prompt" not in columns or not len(rows):
        return
    first = [rows[number] for number in range(min(ROWS, len(rows)))]
    for function in functions if isinstance(functions, list) else [functions]:
        if not inspect.isroutine(function) and not isinstance(function, functools.partial):
            continue
        answers = [] if gold is None else [[form.format(_plain(row[gold])) for row in first] for form in FORMS]
        yield {
            "name": getattr(function, "__name__", type(function).__name__),
            "gold": gold,
            "wrong": _scores(function, first, columns, [WRONG] * len(first)),
            "right": [_scores(function, first, columns, texts) for texts in answers],
        }


def _scores(function: Any, rows: Sequence[Any], columns: Sequence[str], answers: list[str]) -> Any:
    chat = isinstance(rows[0]["prompt"], list)
    completions: list[Any] = [[{"role": "assistant", "content": text}] if chat else text for text in answers]
    others = {name: [row[name] for row in rows] for name in columns if name not in ("prompt", "completion")}
    prompts = [row["prompt"] for row in rows]
    ids = [[0]] * len(rows)
    try:
        found = function(prompts=prompts, completions=completions, completion_ids=ids, trainer_state=None, **others)
        if inspect.isawaitable(found):
            found = asyncio.run(_awaited(found))
        return [_number(value) for value in found]
    except RAISED as error:  # it is told, and the script goes on to its own failure
        return f"{type(error).__name__}: {error}"[:200]


async def _awaited(value: Any) -> Any:
    return await value


def _number(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool | int | float):
        return "NaN" if math.isnan(float(value)) else float(value)
    return None if value is None else repr(value)[:40]


def _plain(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content", "")
    text = str(value)
    return text.rsplit("####", 1)[-1].strip() if "####" in text else text
