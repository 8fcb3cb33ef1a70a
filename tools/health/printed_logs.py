"""Metrics in the printed output of trainers, in the order in which they were printed; nothing is left out."""

from __future__ import annotations

import ast
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mlintern.tools.health.crashes import find_crash
from mlintern.tools.health.flat_rows import metric_row
from mlintern.tools.health.series import as_number

METRIC = re.compile(
    r"(?:^|[/_])loss$|^(?:train|val|training) loss$|loss_(?:step|epoch)$|^(?:avg_|mean_)?rewards?(?:/|$)|^epoch$"
    r"|^(?:critic|actor|objective|policy)/",
    re.I,
)
_DICT = re.compile(r"\{\s*[\"'][^{}]*\}")
_BARE = re.compile(r"(?<=[:,\s])(-?)(nan|inf|NaN|Infinity)(?=\s*[,}])")
_WRAPPED = re.compile(r"\b(?:(?:np|numpy)\.\w+|tensor|array)\(\s*([-+.\deEnainf]+)[^()]*\)")
_BAR = re.compile(r"(\d+)/(\d+) \[")
_NUMBER = r"[-+]?(?:\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?|\.\d+|nan|inf)"
_COLOUR = re.compile(r"\x1b\[[0-9;]{0,64}[A-Za-z]")
"""A code of a terminal; 64 MB of lines with four codes each are stripped in about 2.5 s, what never ends in .05 s."""
_BLOCK = re.compile(r"^\W*=+ *Step (\d+)(?:/(\d+))? *=+\s*$")
_BULLET = re.compile(rf"^\s*[•*-]\s+([A-Za-z][\w ./]*?)\s*:\s*({_NUMBER})\s*$")
_RANK = re.compile(r"\[?\b(?:rank|default|worker)[ :_-]?(\d+)\]?|^(\d{1,4}): ", re.I)
_STEP_BEFORE = re.compile(r"(?:global[_ ]?step|step|iter(?:ation)?)\s*[:=]?\s*(\d+)(?:\s*/\s*(\d+))?\D{0,12}$", re.I)
_PAIR = re.compile(
    r"(?:^|[\s|,;(\[{])([A-Za-z_][\w./@-]*(?: [A-Za-z_][\w./@-]*){0,2})"
    rf"\s*[:=\s]\s*({_NUMBER})(?=$|[\s|,;:)\]}}%/])"
)
_KNOWN = {
    "iter": "step",
    "iteration": "step",
    "train_loss": "loss",
    "training_loss": "loss",
    "val_loss": "eval_loss",
    "validation_loss": "eval_loss",
    "grad._norm": "grad_norm",
    "seq._length": "seq_len/mean",
    "lr": "learning_rate",
} | {
    name: name for name in ("step", "loss", "reward", "entropy", "kl", "grad_norm", "epoch", "eval_loss", "accuracy")
}
LEAST_LINES = 2


@dataclass
class Printed:
    """Rows in printed order, and what to know about them."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    end: int = 0
    """Place in the text after the last row."""


def read_printed(text: str) -> Printed:
    """Dictionaries of a Trainer, else blocks, lines of ``name: value``, or a table; and the crash at the end."""
    text = _COLOUR.sub("", text)
    found = Printed()
    for read in (_dictionaries, _blocks, _lines_of_pairs, _tables):
        if not found.rows:
            found = read(text)
    if (crash := find_crash(text, after=found.end)) is not None:
        finished = any("train_runtime" in row["values"] for row in found.rows[-2:])
        found.rows.append({"kind": "crash", "cause": crash[0], "line": crash[1], "finished": finished})
    if found.rows and not any("step" in row for row in found.rows):
        found.notes.append("The log names no steps: steps are counted in logged rows.")
    return found


def _dictionaries(text: str) -> Printed:
    """What a Trainer printed: floats as numbers or as strings, glued to progress bars or not."""
    found: list[tuple[int | None, dict[str, Any], int]] = []
    for match in _DICT.finditer(text):
        values = _parsed(match.group())
        if values is None or not any(
            METRIC.search(str(key)) and as_number(values[key]) is not None for key in values
        ):
            continue
        row = metric_row(values)
        if row is None:
            continue
        start = max(text.rfind("\n", 0, match.start()), text.rfind("\r", 0, match.start()), match.start() - 200) + 1
        before = text[max(0, start) : match.start()]
        if "step" not in row and (stated := _STEP_BEFORE.search(before)) is not None:
            row["step"] = int(stated[1])
        rank = _RANK.search(before)
        found.append((None if rank is None else int(rank[1] or rank[2]), row, match.end()))
    ranks = {rank for rank, _, _ in found if rank is not None}
    first = min(ranks, default=None)
    kept = [row for rank, row, _ in found if rank is None or rank == first]
    printed = Printed(kept, end=found[-1][2] if found else 0)
    if len(ranks) > 1:
        printed.notes.append(f"{len(ranks)} ranks printed their rows; those of rank {first} are read.")
    _number_by_bar(text, printed)
    return printed


def _number_by_bar(text: str, printed: Printed) -> None:
    """Steps from the length of the progress bar: every how many steps a row was logged, not where the bar stood.

    Bar and rows come from two streams that are not printed in step with each other.
    """
    rows = [row for row in printed.rows if "loss" in row["values"] or "reward" in row["values"]]
    if not rows or any("step" in row for row in printed.rows):
        return
    bars = [(int(done), int(total)) for done, total in _BAR.findall(text)]
    by_total: dict[int, list[int]] = {}
    for done, total in bars:
        by_total.setdefault(total, []).append(done)
    fitting = {
        total: max(places)
        for total, places in by_total.items()
        if max(places) + 1 >= len(rows) and all(a <= b for a, b in itertools.pairwise(places))
    }
    if not fitting:
        return
    seen = Counter(total for _, total in bars)
    total = max(fitting, key=lambda one: (seen[one], one))
    every = max(1, fitting[total] // len(rows))
    step = 0
    for row in printed.rows:
        step += every * any(row is one for one in rows)
        row["step"], row["total_steps"] = max(step, 0), total


def _lines_of_pairs(text: str) -> Printed:
    """Lines such as ``step:1 - actor/entropy:0.4`` (verl) or ``Step 3 | Loss: 0.01 | Entropy: 0.3`` (prime-rl)."""
    printed = Printed()
    bars: list[tuple[int, int] | None] = []
    offset = 0
    for line in re.split(r"(?<=[\r\n])", text):
        offset += len(line)
        if len(line) > 20_000 or (not any(mark in line for mark in ":=") and "loss" not in line.lower()):
            continue
        values: dict[str, Any] = {}
        for name, number in _PAIR.findall(_WRAPPED.sub(r"\1", line.replace(" - ", " | "))):
            values.setdefault(_pair_name(name), number.replace(",", ""))
        bar = _BAR.search(line)
        if len(values) + (bar is not None) < 2 or not any(METRIC.search(key) and key != "epoch" for key in values):
            continue
        if (row := metric_row(values)) is not None:
            printed.rows.append(row)
            bars.append(None if bar is None else (int(bar[1]), int(bar[2])))
            printed.end = offset
    _number_by_own_bars(printed, bars)
    return printed if len(printed.rows) >= LEAST_LINES else Printed()


def _number_by_own_bars(printed: Printed, bars: list[tuple[int, int] | None]) -> None:
    """Steps of rows that are printed behind a progress bar, where it is one bar that goes on through all of them."""
    found = [bar for bar in bars if bar is not None]
    if len(found) < len(bars) or any("step" in row for row in printed.rows) or len({total for _, total in found}) > 1:
        return
    if all(before < after for (before, _), (after, _) in itertools.pairwise(found)):
        for row, (step, total) in zip(printed.rows, found, strict=True):
            row["step"], row["total_steps"] = step, total


def _blocks(text: str) -> Printed:
    """A heading ``=== Step 3/60 ===`` and below it a line a metric (NeMo-RL: ``• Avg Reward: 0.41``)."""
    printed = Printed()
    values: dict[str, Any] | None = None
    offset = 0
    for line in text.splitlines(keepends=True):
        offset += len(line)
        if heading := _BLOCK.match(line):
            values = {"step": heading[1]} | ({} if heading[2] is None else {"total_steps": heading[2]})
            printed.rows.append({"kind": "metrics", "values": values})
        elif values is not None and (metric := _BULLET.match(line)):
            values.setdefault(_pair_name(metric[1]), metric[2].replace(",", ""))
            printed.end = offset
    rows = [metric_row(row["values"]) for row in printed.rows]
    printed.rows = [row for row in rows if row is not None and any(METRIC.search(key) for key in row["values"])]
    return printed if len(printed.rows) >= LEAST_LINES else Printed()


def _pair_name(name: str) -> str:
    words = name.split(" ")
    for first in range(len(words)):
        joined = "_".join(words[first:]).lower()
        if joined in _KNOWN:
            return _KNOWN[joined]
    return words[-1] if "/" in words[-1] else "_".join(words).lower()


def _tables(text: str) -> Printed:
    """``Step | Training Loss | Validation Loss`` with rows of numbers, as notebooks show them."""
    printed = Printed()
    names: list[str] = []
    offset = 0
    for line in text.splitlines(keepends=True):
        offset += len(line)
        cells = [cell.strip() for cell in re.split(r"\t|\s*\|\s*|\s{2,}|,", line.strip().strip("|"))]
        if cells and cells[0] in ("Step", "Epoch", "step", "epoch") and any("loss" in cell.lower() for cell in cells):
            names = cells
        elif names and len(cells) == len(names) and as_number(cells[0]) is not None:
            row = metric_row(dict(zip(names, cells, strict=True)))
            printed.rows += [row] if row is not None else []
            printed.end = offset
    return printed


def _parsed(text: str) -> dict[str, Any] | None:
    text = _WRAPPED.sub(r"\1", text)
    try:
        values = ast.literal_eval(_BARE.sub(r"'\1\2'", text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two: nested without end
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            return None
    return values if isinstance(values, dict) and all(isinstance(key, str) for key in values) else None


def marked_rows(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """JSON objects, one a line; what cannot be read (the line that a killed script was writing) is passed by."""
    for line in lines:
        if not line.lstrip().startswith("{"):
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield value
