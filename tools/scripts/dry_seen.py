"""What a trial saw of a running script, as findings: what was replaced, what the model read, what rewards said."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlintern.common.text import cut_list
from mlintern.tools.scripts.script_results import Check

LONGEST_EXAMPLE = 400
MOST_BYTES = 2_000_000

Seen = Sequence[Mapping[str, Any]]
"""The rows that `trial.Trial` wrote."""


def read_seen(file: Path) -> Seen:
    """What the trial wrote; what is no such row is left out."""
    try:
        with file.open("rb") as stream:
            lines = stream.read(MOST_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return ()
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def replaced_text(seen: Seen, by_seam: Mapping[str, Sequence[Any]]) -> str:
    """What was other than in a job, in a sentence."""
    fields = dict(by_seam)
    for row in seen:
        if row.get("kind") == "replaced":
            fields |= row["fields"]
    fields = {name: both for name, both in fields.items() if both[0] or both[1] not in (None, False, "none")}
    told = cut_list((f"{name} {_short(old)} -> {_short(new)}" for name, (old, new) in fields.items()), 20)
    told = told.replace(" null ->", " ->")
    names = dict.fromkeys(str(row.get("name")) for row in seen if row.get("kind") == "model")
    models = f" The tiny model stood for {cut_list(names, 3)}." if names else ""
    pushed = " Nothing was pushed." if any(row.get("kind") == "not_pushed" for row in seen) else ""
    made = next((row["name"] for row in seen if row.get("kind") in ("configuration", "replaced")), None)
    first = f" {made} was made with your own values first; then replaced: {told}." if made and told else ""
    return f"{first}{models}{pushed}"


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


def seen_findings(seen: Seen) -> Iterator[Check]:
    """Findings about rewards and rows; examples of what the model read."""
    for row in seen:
        if row.get("kind") == "untrained" and row["rows"]:
            every = row["rows"] == row["of"]
            yield Check(
                rule="nothing_trained",
                severity="error" if every else "warning",
                message=f"{row['rows']} of the first {row['of']} rows have no token with a loss: max_length "
                f"{row['max_length']} cuts the answers off, or the mask covers them.",
                fix="Raise max_length, or look at completion_only_loss and assistant_only_loss.",
            )
    yield from _rewards([row for row in seen if row.get("kind") == "reward"])
    texts = [str(text) for row in seen if row.get("kind") == "seen" for text in row["texts"]]
    if texts:
        shown = " / ".join(json.dumps(text[:LONGEST_EXAMPLE], ensure_ascii=False) for text in texts[:2])
        yield Check(rule="as_read", severity="note", message=f"The model read: {shown}")


def _rewards(rows: Seen) -> Iterator[Check]:
    best = 0.0
    for row in rows:
        tried = [row["wrong"], *row["right"]]
        scored = [value for scores in tried if isinstance(scores, list) for value in scores]
        numbers = [value for value in scored if isinstance(value, int | float)]
        for scores in row["right"]:
            best = (
                max([best, *(value for value in scores if isinstance(value, int | float))])
                if _is_list(scores)
                else best
            )
        odd = [value for value in scored if not isinstance(value, int | float)]
        if "NaN" in odd or (odd and any(value is not None for value in odd)):
            yield _reward(row, f"returned {_short(odd[0])} for some answers; TRL wants a number or None.", "error")
        elif odd and not numbers:
            yield _reward(row, "returned None for every answer that was tried: it rewards nothing.", "warning")
        elif numbers and row["right"] and len(set(numbers)) == 1:
            yield _reward(
                row,
                f"gave {numbers[0]:g} to right answers in {len(row['right'])} forms and to a wrong one alike: a "
                "constant teaches nothing.",
                "warning",
            )
    if rows and best <= 0 and any(_is_list(scores) for row in rows for scores in row["right"]):
        gold = next(row["gold"] for row in rows if row["right"])
        yield Check(
            rule="reward",
            severity="warning",
            message=f"No reward was positive for the right answers of column {gold}, in any of the forms tried.",
            fix="Try the function on one right answer by hand: does it read the column as it is, and the message's "
            "content?",
        )


def _is_list(scores: Any) -> bool:
    return isinstance(scores, list)


def _reward(row: Mapping[str, Any], said: str, severity: Any) -> Check:
    return Check(
        rule="reward",
        severity=severity,
        message=f"The reward {row['name']} {said}",
        fix="Let it return one number for each completion, higher for better ones.",
    )
