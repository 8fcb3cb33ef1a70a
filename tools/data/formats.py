"""For each TRL trainer: does it take this data, as what, and if not, what exactly has to change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlintern.tools.data.inspection_results import Format
from mlintern.tools.data.messages import MessageColumn, message_columns
from mlintern.tools.data.prepare import Parts, Preparation, find_parts, preparations
from mlintern.tools.data.row_kinds import Shape, row_shapes
from mlintern.tools.data.table import Table
from mlintern.tools.data.trl_rules import TRAINERS, Outcome, try_row

ANSWERS = ("completion", "chosen", "rejected")
NEEDS = {
    "sft": "`messages`, `text`, or `prompt` with `completion`",
    "dpo": "pairs of answers: `chosen` and `rejected`, with or without `prompt`",
    "reward": "pairs of answers: `chosen` and `rejected`, with or without `prompt`",
    "kto": "`prompt`, `completion` and a true-or-false `label`, or pairs in `chosen` and `rejected`",
    "grpo": "`prompt`; answers come from the model, other columns go to the reward function",
    "rloo": "`prompt`; answers come from the model, other columns go to the reward function",
}


def judge_formats(table: Table, trainers: Sequence[str] = TRAINERS) -> dict[str, Format]:
    """Verdicts by trainer, over every row of ``table``."""
    shapes = row_shapes(table)
    if not shapes:
        return {
            trainer: Format(ok=False, kind="unusable", reason="The split has no rows.", fix="Choose another split.")
            for trainer in trainers
        }
    conversations = message_columns(table)
    parts = find_parts(table, conversations)
    return {trainer: _judge(trainer, shapes, parts, conversations) for trainer in trainers}


def _judge(trainer: str, shapes: list[Shape], parts: Parts, conversations: list[MessageColumn]) -> Format:
    first = shapes[0].row
    tried = [(shape, try_row(trainer, first, shape.row)) for shape in shapes]
    refused = [(shape, outcomes) for shape, outcomes in tried if any(outcome.refusal for outcome in outcomes)]
    if not refused:
        kind = kind_of(trainer, first, tried[0][1][0].conversational)
        warnings = _warnings(trainer, first, tried, shapes, conversations)
        better = _prepared(trainer, shapes, parts) if any("prepare" in warning for warning in warnings) else None
        return Format(
            ok=True,
            kind=kind,
            reason=f"TRL takes it as {kind} data as it is.",
            prepare=better[0].code if better else "",
            warnings=warnings,
        )
    shape, outcomes = refused[0]
    rows = sum(shape.count for shape, _ in refused)
    return _refusal(trainer, shapes, parts, (shape, outcomes, rows))


def _refusal(trainer: str, shapes: list[Shape], parts: Parts, worst: tuple[Shape, list[Outcome], int]) -> Format:
    shape, outcomes, rows = worst
    total = sum(item.count for item in shapes)
    why = next(outcome.refusal for outcome in outcomes if outcome.refusal) or ""
    sometimes = any(outcome.refusal is None for outcome in outcomes)
    where = "" if rows == total else f"Row {shape.number}{f' and {rows - 1} others' if rows > 1 else ''}: "
    reason = f"{where}{why}." + (
        " Whether TRL stops depends on Python's hash seed: it looks at one of the columns, picked from a set."
        if sometimes
        else ""
    )
    found = _prepared(trainer, shapes, parts)
    kind = kind_of(trainer, shapes[0].row, False) if rows < total else "unusable"
    if found is None:
        fix = (
            f"Remove or repair these {rows} rows before training."
            if rows < total
            else f"This trainer needs {NEEDS[trainer]}; the data has nothing to make that of."
        )
        return Format(ok=False, kind=kind, reason=reason, fix=fix, rows_refused=rows, first_refused_row=shape.number)
    preparation, left = found
    fix = preparation.fix + (f" {left} rows stay unusable and must be removed first." if left else "")
    return Format(
        ok=False,
        kind=kind,
        reason=reason,
        fix=fix,
        prepare=preparation.code,
        rows_refused=rows,
        first_refused_row=shape.number,
    )


def _prepared(trainer: str, shapes: list[Shape], parts: Parts) -> tuple[Preparation, int] | None:
    """The candidate that leaves the fewest rows unusable, if it helps any; with the number of rows it leaves."""
    total = sum(shape.count for shape in shapes)
    best: tuple[Preparation, int] | None = None
    for candidate in preparations(trainer, parts):
        left = _left_over(trainer, candidate, shapes)
        if left < total and (best is None or left < best[1]):
            best = (candidate, left)
    return best


def _left_over(trainer: str, candidate: Preparation, shapes: list[Shape]) -> int:
    prepare = candidate.function()
    rows: list[tuple[int, dict[str, Any]]] = []
    left = 0
    for shape in shapes:
        try:
            rows.append((shape.count, prepare(dict(shape.row))))
        except (TypeError, KeyError, IndexError, ValueError, AttributeError):
            left += shape.count
    for count, row in rows:
        if any(outcome.refusal for outcome in try_row(trainer, rows[0][1], row)) or _is_nonsense(row):
            left += count
    return left


def _is_nonsense(row: dict[str, Any]) -> bool:
    """TRL would take it, a person would not: a message made of a null, an answer that opens with a question."""
    lists = [row[key] for key in ("prompt", *ANSWERS) if isinstance(row.get(key), list)]
    hollow = any(
        isinstance(m, dict) and m.get("content") is None and not m.get("tool_calls") for ms in lists for m in ms
    )
    return hollow or _repeats_prompt(row)


def _repeats_prompt(row: dict[str, Any]) -> bool:
    """Beside a prompt, an answer that is the whole conversation: the model would see the question twice."""
    if not isinstance(row.get("prompt"), list):
        return False
    answers = [row[key] for key in ANSWERS if isinstance(row.get(key), list) and row[key]]
    return any(isinstance(ms[0], dict) and ms[0].get("role") in ("user", "system") for ms in answers)


def kind_of(trainer: str, row: dict[str, Any], conversational: bool) -> str:
    """TRL's name for the dataset type, as its documentation has it."""
    style = "conversational" if conversational else "standard"
    if (trainer == "sft" and "input_ids" in row) or (
        trainer == "reward" and {"chosen_ids", "rejected_ids"} <= set(row)
    ):
        return "tokenized"
    if trainer in ("grpo", "rloo"):
        return f"{style} prompt-only"
    if {"chosen", "rejected"} <= set(row) and trainer != "sft":
        return f"{style} preference" + ("" if "prompt" in row else " (implicit prompt)")
    if trainer == "kto":
        return f"{style} unpaired preference"
    if "prompt" in row:
        return f"{style} prompt-completion"
    if "conversations" in row and "messages" not in row:
        return "conversational language modeling (from/value, converted by TRL)"
    return f"{style} language modeling"


def _warnings(
    trainer: str,
    first: dict[str, Any],
    tried: list[tuple[Shape, list[Outcome]]],
    shapes: list[Shape],
    conversations: list[MessageColumn],
) -> list[str]:
    found = []
    if any(len({outcome.conversational for outcome in outcomes}) > 1 for _, outcomes in tried):
        found.append(
            "The columns disagree on whether this is a conversation; TRL looks at one of them, picked by "
            "Python's hash "
            "seed, so the end-of-sequence token is sometimes added and sometimes not. Drop the columns that are "
            "not used."
        )
    if trainer not in ("grpo", "rloo") and any(_repeats_prompt(shape.row) for shape in shapes):
        found.append(
            "The answers open with a user or system message although there is a `prompt`: they are whole "
            "conversations, "
            "and the question would be trained on twice. Use `prepare`, or drop `prompt`."
        )
    if trainer == "sft":
        if "text" in first and "prompt" in first and "completion" in first:
            found.append(
                "With both `text` and `completion` TRL adds the end-of-sequence token to `text` only, but trains on "
                "`prompt` and `completion`: the model does not learn to stop. Drop `text`."
            )
        if "conversations" in first and any(item.style == "from/value" for item in conversations):
            found.append(
                "TRL renames from/value to role/content but leaves the speakers' names (human, gpt) as they are; "
                "most "
                "chat templates drop or refuse them. Use `prepare`, which maps them."
            )
    if trainer == "kto" and "label" in first:
        if any(shape.row.get("label") not in (0, 1) for shape in shapes):
            found.append(
                "`label` has values other than true and false (0, 1); TRL counts every other number as true."
            )
        if len({bool(shape.row.get("label")) for shape in shapes}) == 1:
            found.append("Every `label` is the same; KTO needs desirable and undesirable rows.")
    return found
