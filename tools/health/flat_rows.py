"""One flat object a step, as other trainers and trackers write it, as a telemetry row."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mlintern.tools.health.series import as_number

STEPS = (
    *("step", "progress/step", "train/global_step", "global_step", "current_steps", "current_step", "iteration"),
    *("trainer/global_step", "training/global_step", "_step", "steps", "iter", "Step", "num_updates"),
)
TOTALS = ("total_steps", "max_steps", "num_steps")
EPOCHS = ("epoch", "train/epoch", "training/epoch", "progress/epoch", "Epoch")
RUNS = ("run_id", "run_name", "run", "Run", "experiment_name", "trial")
"""Columns by which one table holds several runs."""
NESTED = ("data", "metrics", "values", "logs", "log")
"""Where some write the metrics of a row: verl ``data``, trackio ``metrics``."""
_NO_METRIC = frozenset(
    {*STEPS, *TOTALS, *EPOCHS, "time", "timestamp", "v", "_timestamp", "_runtime", "percentage", "progress/done_frac"}
)
_VERL_VALIDATION = re.compile(r"^val-(?:core|aux)/(.+)/(acc|reward|score)/mean@\d+$|^val/test_score/(.+)$")
_FRACTION = re.compile(r"(\d+)\s*/\s*(\d+)")


def telemetry_rows(entries: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Telemetry rows as they are, flat rows in their form, in the same order."""
    for entry in entries:
        if entry.get("kind") in ("metrics", "crash") and ("v" in entry or isinstance(entry.get("values"), dict)):
            yield dict(entry)
        elif not ("kind" in entry and "v" in entry) and (row := metric_row(entry)) is not None:
            yield row


def of_one_run(entries: Iterable[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[str]]:
    """The entries of the run with the most of them, where a column names several runs; and what to know of it."""
    found = list(entries)
    for column in RUNS:
        counts = Counter(entry[column] for entry in found if isinstance(entry.get(column), str) and entry[column])
        if len(counts) > 1:
            run, _ = counts.most_common(1)[0]
            note = f"The log holds {len(counts)} runs (column {column}); {run[:80]!r} is read."
            return [entry for entry in found if entry.get(column) == run], [note]
    return found, []


def metric_row(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """The metrics of one flat or once-nested object with its step, epoch and planned steps; None without metrics."""
    flat = _flattened(entry)
    values = {
        metric_name(key): value
        for key, value in flat.items()
        if key not in _NO_METRIC and isinstance(key, str) and as_number(value) is not None
    }
    if not values:
        return None
    row: dict[str, Any] = {"kind": "metrics", "values": values}
    for name, keys in (("step", STEPS), ("total_steps", TOTALS), ("epoch", EPOCHS)):
        found = next((flat[key] for key in keys if as_number(flat.get(key)) is not None), None)
        if found is not None:
            row[name] = found if isinstance(found, int) else as_number(found)
    done = _FRACTION.fullmatch(str(flat.get("global_step/max_steps", "")))
    if done:
        row |= {"step": int(done[1]), "total_steps": int(done[2])}
    return row


def metric_name(key: str) -> str:
    """Without the prefixes that experiment trackers add: ``eval/loss`` is ``eval_loss``, ``train/loss`` ``loss``."""
    key = re.sub(r"\s*/\s*", "/", key.strip())
    if validation := _VERL_VALIDATION.match(key):
        return f"eval_{validation[1] or validation[3]}/{validation[2] or 'score'}"
    for prefix, ours in (("eval/", "eval_"), ("val/", "eval_"), ("validation/", "eval_"), ("val_", "eval_")):
        if key.lower().startswith(prefix):
            return ours + key[len(prefix) :]
    for prefix in ("train/", "training/", "Train/"):
        key = key.removeprefix(prefix)
    return {"Validation Loss": "eval_loss", "Training Loss": "loss", "Loss": "loss"}.get(key, key)


def columns_as_rows(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of ``{"loss": [..], "step": [..]}``; empty if it is no such object."""
    columns = {name: column for name, column in data.items() if isinstance(column, list) and len(column) > 1}
    known = {name: column for name, column in columns.items() if all(_plain(value) for value in column)}
    lengths = {len(column) for column in known.values()}
    if not known or len(lengths) != 1:
        return []
    return [dict(zip(known, row, strict=True)) for row in zip(*known.values(), strict=True)]


def _plain(value: Any) -> bool:
    return value is None or as_number(value) is not None


def _flattened(entry: Mapping[str, Any]) -> dict[str, Any]:
    flat = dict(entry)
    for key in NESTED:
        inner = flat.get(key)
        if isinstance(inner, str) and inner.startswith("{"):
            try:
                inner = json.loads(inner)
            except (ValueError, RecursionError):
                continue
        if isinstance(inner, Mapping):
            del flat[key]
            flat = {**inner, **flat}
    return flat
