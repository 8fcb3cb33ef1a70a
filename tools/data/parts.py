"""What the rows of a dataset hold, by the part of training data that each cell could play."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlintern.tools.data.cells import Cell, Row, cells_of, find
from mlintern.tools.data.part_names import (
    ANSWERS,
    CHOICES,
    CHOSEN,
    CONTEXTS,
    INDEXES,
    LABELS,
    OPTION_COLUMNS,
    QUESTIONS,
    REJECTED,
    SYSTEMS,
    TEXTS,
    THOUGHTS,
    TRUTHS,
)
from mlintern.tools.data.talks import Talk, read_talk


@dataclass(frozen=True)
class Parts:
    """What the rows hold, by the part that it could play. ``cells`` are all of them."""

    cells: list[Cell]
    talks: dict[str, Talk]
    question: Cell | None
    answer: Cell | None
    chosen: Cell | None
    rejected: Cell | None
    system: Cell | None
    context: Cell | None
    thought: Cell | None
    history: Talk | None
    text: Cell | None
    label: Cell | None
    talk: Talk | None
    tools: Cell | None
    choices: Cell | None


def find_parts(rows: Sequence[Row]) -> Parts:
    """Look for the parts of training data in some rows, by name first, then by what is in them."""
    cells = cells_of(rows)
    sided = {*CHOSEN, *REJECTED}
    talks = {
        cell.name: talk
        for cell in cells
        if (talk := read_talk(cell, any_name=cell.key in sided or cell.key in ("prompt", "completion")))
    }
    usable = [cell for cell in cells if cell.kind in ("text", "number", "bool") or cell.name in talks]
    chosen, rejected = find(usable, CHOSEN), find(usable, REJECTED)
    taken = [cell.name for cell in (chosen, rejected) if cell]
    choices = next((cell for cell in cells if cell.key in CHOICES and _is_choices(cell)), None) or _options(cells)
    question = find(usable, QUESTIONS, taken=taken)
    taken += [question.name] if question else []
    answer = find(usable, ANSWERS, taken=taken) or _listed_answer(cells)
    taken += [answer.name] if answer else []
    history = next((talk for name, talk in talks.items() if talk.cell.key == "history" and name not in taken), None)
    context = find(cells, CONTEXTS, "text", "list", taken=taken)
    if context is not None and (context.name in talks or not _is_text_or_texts(context)):
        context = None
    parted = ("prompt", "completion", *CHOSEN, *REJECTED, *SYSTEMS, "history")
    whole = [talk for talk in talks.values() if talk.cell.key not in parted and talk is not history]
    whole.sort(key=lambda talk: (talk.cell.key not in ("messages", "conversations"), "." in talk.cell.name))
    return Parts(
        cells=cells,
        talks=talks,
        question=question,
        answer=answer,
        chosen=chosen,
        rejected=rejected,
        system=find(cells, SYSTEMS, "text", taken=taken),
        context=context,
        thought=find(cells, THOUGHTS, "text", taken=taken),
        history=history,
        text=find(cells, TEXTS, "text", "number"),
        label=find(cells, LABELS, "bool", "number", "text", taken=taken),
        talk=whole[0] if whole else None,
        tools=find(cells, ("tools", "functions", "available_tools")),
        choices=choices,
    )


def _options(cells: list[Cell]) -> Cell | None:
    """Options that stand in a column each, as one cell that lists them."""
    texts = {cell.key: cell for cell in cells if "." not in cell.name and cell.kind in ("text", "number")}
    for keys in OPTION_COLUMNS:
        found = [texts[key] for key in itertools.takewhile(lambda key: key in texts and texts[key].always, keys)]
        if len(found) > 1 and not {key for key in keys if key in texts} - {cell.key for cell in found}:
            listed = tuple(list(values) for values in zip(*(cell.values for cell in found), strict=True))
            access = f"[{', '.join(cell.access for cell in found)}]"
            return Cell(f"{found[0].name} to {found[-1].name}", "choices", access, listed)
    return None


def truth_of(parts: Parts) -> Cell | None:
    """What a reward compares with."""
    nested = find(parts.cells, ("ground_truth",), "text", "number", "list")
    if nested is not None:
        return nested
    found = find(parts.cells, TRUTHS, "text", "number", "list", taken=[parts.question.name] if parts.question else [])
    return found if found is None or found.kind != "list" or _texts_listed(found) else None


def _listed_answer(cells: list[Cell]) -> Cell | None:
    """Answers kept as a list or as SQuAD keeps them; the first counts."""
    for cell in cells:
        if cell.key not in ("answers", "answer", "ideal", "targets", "references", "output", "response"):
            continue
        listed = _texts_listed(cell) or any(isinstance(v, Mapping) and v.get("text") for v in cell.present)
        listed = listed or (bool(cell.present) and all(map(_texts_in_structs, cell.present)))
        if listed and "." not in cell.name:
            return cell
    return None


def _texts_in_structs(value: Any) -> bool:
    """Whether it is a list such as ``[{"text": "blue", "answer_start": 3}]``, which is no conversation."""
    return isinstance(value, list) and all(
        isinstance(item, Mapping) and isinstance(item.get("text"), str) and not set(item) & {"role", "from", "score"}
        for item in value
    )


def _texts_listed(cell: Cell) -> bool:
    return bool(cell.present) and all(
        isinstance(value, list) and value and all(isinstance(item, str | int | float) for item in value)
        for value in cell.present
    )


def _is_text_or_texts(cell: Cell) -> bool:
    return cell.kind == "text" or (bool(cell.present) and all(
        isinstance(value, list) and all(isinstance(item, str) for item in value) for value in cell.present
    ))  # fmt: skip


def option_texts(value: Any) -> list[str] | None:
    if isinstance(value, Mapping):
        texts = value.get("text")
        return list(texts) if isinstance(texts, list) else None
    return (
        list(value)
        if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value)
        else None
    )


def _is_choices(cell: Cell) -> bool:
    return bool(cell.present) and all(
        (texts := option_texts(value)) is not None and len(texts) > 1 for value in cell.present
    )


def index_of(parts: Parts) -> Cell | None:
    """Which of the choices is right: a number, a letter, or the text of one."""
    assert parts.choices is not None
    for key in INDEXES:
        for cell in parts.cells:
            if cell.key != key or cell.kind not in ("number", "text") or not cell.present or "." in cell.name:
                continue
            texts = option_texts(parts.choices.present[0]) or []
            value = cell.present[0]
            if isinstance(value, str):
                if value in texts or (len(value.strip()) <= 2) or value.strip().isdigit():
                    return cell
            elif 0 <= int(value) <= len(texts):
                return cell
    return None
