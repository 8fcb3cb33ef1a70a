"""For each TRL trainer: does it take this data, what of the data arrives, and what has to change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlintern.tools.data.content import Account, account_of
from mlintern.tools.data.inspection_results import Format, LostContent
from mlintern.tools.data.parts import Parts, find_parts
from mlintern.tools.data.prepare import preparations
from mlintern.tools.data.prepare_code import Preparation
from mlintern.tools.data.row_kinds import Shape, row_shapes
from mlintern.tools.data.table import Table
from mlintern.tools.data.trained_texts import trained_texts
from mlintern.tools.data.trl_rules import TRAINERS, Outcome, Refused, try_row

ANSWERS = ("completion", "chosen", "rejected")
NEEDS = {
    "sft": "`messages`, `text`, or `prompt` with `completion`",
    "dpo": "pairs of answers: `chosen` and `rejected`, with or without `prompt`",
    "reward": "pairs of answers: `chosen` and `rejected`, with or without `prompt`",
    "kto": "`prompt`, `completion` and a true-or-false `label`, or pairs in `chosen` and `rejected`",
    "grpo": "`prompt`; answers come from the model, other columns go to the reward function",
    "rloo": "`prompt`; answers come from the model, other columns go to the reward function",
}
LOOKED_AT = 48
"""Rows, evenly spread, that are looked at beside one of every shape."""
RAISED = (TypeError, KeyError, IndexError, ValueError, AttributeError, SyntaxError)
"""What a `prepare` of ours may raise on a row that it was not made for."""


@dataclass(frozen=True)
class Data:
    """What the verdicts rest on: a row of every shape, some rows, and what they hold."""

    shapes: list[Shape]
    rows: list[dict[str, Any]]
    parts: Parts


@dataclass(frozen=True)
class Offer:
    """A preparation that was tried: rows that stay unusable, rows that it leaves out, text that it loses."""

    preparation: Preparation
    left: int
    dropped: int
    account: Account


def judge_formats(table: Table, trainers: Sequence[str] = TRAINERS) -> dict[str, Format]:
    """Verdicts by trainer, over every row of ``table``."""
    names = tuple(column.name for column in table.columns)[:SHAPED_COLUMNS]
    shapes = row_shapes(table, names)
    if not shapes:
        return {
            trainer: Format(ok=False, kind="unusable", reason="The split has no rows.", fix="Choose another split.")
            for trainer in trainers
        }
    if unreadable := [text for kind, text in table.notes if kind == "map_column"]:
        return {
            trainer: Format(ok=False, kind="unusable", reason=unreadable[0], fix=unreadable[0])
            for trainer in trainers
        }
    last = table.rows - 1
    numbers = sorted({round(i * last / max(1, LOOKED_AT - 1)) for i in range(LOOKED_AT)})
    rows = [*(shape.row for shape in shapes), *table.fetch(numbers)]
    data = Data(shapes, rows, find_parts(rows))
    return {trainer: judge(trainer, data) for trainer in trainers}


SHAPED_COLUMNS = 40


def judge(trainer: str, data: Data) -> Format:
    """What ``trainer`` does with the data as it is, and the best way on where that is not what is meant."""
    first = data.shapes[0].row
    tried = [(shape, try_row(trainer, first, row=shape.row)) for shape in data.shapes]
    refused = [(shape, outcomes) for shape, outcomes in tried if any(outcome.refusal for outcome in outcomes)]
    if refused:
        return _refusal(trainer, data, refused)
    kind = kind_of(trainer, first, tried[0][1][0].conversational)
    if kind == "tokenized":
        return Format(ok=True, kind=kind, reason="TRL takes its token ids as they are.")
    warnings = [*_warnings(trainer, first, tried, data.shapes), *_odd_messages(trainer, data)]
    account = account_of(data.rows, lambda row: trained_texts(trainer, first, row=row), errors=(*RAISED, Refused))
    lost = account.lost()
    offer = None
    if warnings or lost:
        offer = _best(trainer, data)
        if offer is not None and not _helps(offer, account, warnings):
            offer = None
    if lost:
        warnings.insert(0, _lost_words(lost, account.rows))
    reason = f"TRL takes it as {kind} data as it is."
    if lost:
        named = ", ".join(f"`{line.place}`" for line in lost[:4])
        reason = f"TRL takes it as {kind} data, but {named} never reaches the model."
    return Format(
        ok=True,
        kind=kind,
        reason=reason,
        fix=_told(offer) if offer else "",
        prepare=offer.preparation.code if offer else "",
        rows_dropped=offer.dropped if offer else 0,
        warnings=warnings,
        lost=_lost(account),
    )


def _helps(offer: Offer, account: Account, warnings: list[str]) -> bool:
    """Whether the data is better off with it: less text is lost, or what the warnings say is corrected."""
    before, after = len(account.lost()), len(offer.account.lost())
    if after < before:
        return True
    return after == before and any("prepare" in warning for warning in warnings)


def _refusal(trainer: str, data: Data, refused: list[tuple[Shape, list[Outcome]]]) -> Format:
    shape, outcomes = refused[0]
    rows = sum(shape.count for shape, _ in refused)
    total = sum(item.count for item in data.shapes)
    why = next(outcome.refusal for outcome in outcomes if outcome.refusal) or ""
    sometimes = any(outcome.refusal is None for outcome in outcomes)
    where = "" if rows == total else f"Row {shape.number}{f' and {rows - 1} others' if rows > 1 else ''}: "
    reason = f"{where}{why}." + (
        " Whether TRL stops depends on Python's hash seed: it looks at one of the columns, picked from a set."
        if sometimes
        else ""
    )
    offer = _best(trainer, data)
    kind = kind_of(trainer, data.shapes[0].row, False) if rows < total else "unusable"
    result = Format(ok=False, kind=kind, reason=reason, rows_refused=rows, first_refused_row=shape.number)
    if offer is None:
        result.fix = _no_way(trainer, data, rows, total)
        return result
    result.fix, result.prepare, result.rows_dropped = _told(offer), offer.preparation.code, offer.dropped
    result.lost = _lost(offer.account)
    return result


def _no_way(trainer: str, data: Data, rows: int, total: int) -> str:
    if rows < total:
        return f"Leave these {rows} rows out: give the recipe a `filter`."
    parts = data.parts
    needs = f"This trainer needs {NEEDS[trainer]}; the data has nothing to make that of."
    if trainer in ("dpo", "reward") and parts.question and parts.answer and parts.label:
        return (
            f"{needs} One answer with a score a row makes no pair: join the rows of one `{parts.question.name}` into "
            f"pairs (the best `{parts.label.name}` against the worst), or train with kto, which takes single answers."
        )
    return needs


def _told(offer: Offer) -> str:
    """What the preparation does, how many rows it leaves out or unusable, and what of the row it does not use."""
    text = offer.preparation.fix
    if offer.dropped:
        text += f" {offer.dropped} rows without it are left out."
    if offer.left:
        text += f" {offer.left} rows stay unusable and must be removed first."
    if unused := [line.place for line in offer.account.lost()]:
        text += f" Not used: {', '.join(f'`{place}`' for place in unused[:6])}."
    return text


def _lost(account: Account) -> list[LostContent]:
    return [
        LostContent(place=line.place, share=round(line.lost / max(1, account.rows), 4), example=line.example)
        for line in account.lost()[:20]
    ]


def _lost_words(lost: Sequence[Any], rows: int) -> str:
    told = "; ".join(f"`{line.place}` in {line.lost / max(1, rows):.0%} of the rows" for line in lost[:6])
    return f"Text that does not reach the model: {told}. Use `prepare`, or drop it on purpose."


def _best(trainer: str, data: Data) -> Offer | None:
    """The candidate that leaves the fewest rows unusable and loses the least text, if it helps any row."""
    total = sum(shape.count for shape in data.shapes)
    best: tuple[tuple[int, int, int], Offer] | None = None
    for candidate in preparations(trainer, data.parts):
        offer = _tried(trainer, candidate, data)
        if offer is None or offer.left + offer.dropped >= total:
            continue
        key = (offer.left, len(offer.account.lost()), offer.dropped)
        if best is None or key < best[0]:
            best = key, offer
    return best[1] if best else None


def _tried(trainer: str, candidate: Preparation, data: Data) -> Offer | None:
    prepare = candidate.function()
    made: list[tuple[int, dict[str, Any]]] = []
    left = dropped = 0
    for shape in data.shapes:
        try:
            row = prepare(dict(shape.row))
        except RAISED:
            left += shape.count
            continue
        if row is None:
            dropped += shape.count
        else:
            made.append((shape.count, row))
    if not made:
        return None
    first = made[0][1]
    for count, row in made:
        if any(outcome.refusal for outcome in try_row(trainer, first, row=row)) or _is_nonsense(row):
            left += count

    def texts(row: dict[str, Any]) -> list[str]:
        prepared = prepare(row)
        if prepared is None:
            raise ValueError("left out")
        return trained_texts(trainer, first, row=prepared)

    return Offer(candidate, left, dropped, account_of(data.rows, texts, errors=(*RAISED, Refused)))


USED = {
    "sft": ("messages", "prompt", "completion", "text"),
    "dpo": ("prompt", "chosen", "rejected"),
    "reward": ("prompt", "chosen", "rejected"),
    "kto": ("prompt", "completion", "chosen", "rejected"),
    "grpo": ("prompt",),
    "rloo": ("prompt",),
}


def _odd_messages(trainer: str, data: Data) -> list[str]:
    """What chat templates do not print, or print wrongly, in the messages that the trainer reads."""
    found = []
    for name in USED[trainer]:
        talk = data.parts.talks.get(name)
        if talk is None:
            continue
        if talk.how:
            found.append(f"`{name}`: {'; '.join(talk.how)}, and it would be trained on as it stands. Use `prepare`.")
        if need := talk.messages_need():
            found.append(
                f"`{name}`: chat templates know text by user, assistant, system and tool; here {'; '.join(need)}. "
                "Use `prepare`, which does that."
            )
        if strangers := talk.strangers():
            found.append(f"`{name}`: {', '.join(map(repr, strangers[:5]))} is no speaker that chat templates know.")
        if thoughts := [key for key in ("reasoning_content", "reasoning", "thinking")
                        if any(turn.get(key) for turns in talk.examples for turn in turns)]:  # fmt: skip
            found.append(
                f"`{name}`: `{thoughts[0]}` beside the content is printed by some chat templates only; "
                'check_script(level="template") says whether this model\'s does.'
            )
    return found


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
        if "conversations" in first and "messages" not in first:
            found.append(
                "TRL renames from/value to role/content but leaves the speakers' names (human, gpt) as they are; "
                "most chat templates drop or refuse them. Use `prepare`, which maps them."
            )
    if trainer == "kto" and "label" in first:
        if any(shape.row.get("label") not in (0, 1) for shape in shapes):
            found.append(
                "`label` has values other than true and false (0, 1); TRL counts every other number as true."
            )
        if len({bool(shape.row.get("label")) for shape in shapes}) == 1:
            found.append("Every `label` is the same; KTO needs desirable and undesirable rows.")
    return found
