"""The held-out items of an experiment, split once: one half to decide by, one half to confirm by, opened at the end.

The halves are files of the experiment's folder. Their hashes stand in its plan, so that a changed item is noticed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio.to_thread

from mlintern.common.files import write_durably
from mlintern.tools.data.contamination_inputs import find_part
from mlintern.tools.data.rows import stream_rows
from mlintern.tools.errors import BadInput
from mlintern.tools.evals.protocol import digest_of
from mlintern.tools.hub.client import HubClient
from mlintern.tools.workspace import Workspace, folder_name

MOST_ITEMS = 100_000
FEWEST_ITEMS = 20
"""In each half; with fewer nothing short of a landslide can be told from chance."""
SPLIT_SEED = 0
DECIDE, CONFIRM = "decide.jsonl", "confirm.jsonl"
EXAMPLES = "examples.jsonl"
"""Rows of neither half, shown as worked examples; not there where the halves hold all items."""
MOST_EXAMPLES = 1_000


def folder_of(workspace: Workspace, experiment: str) -> Path:
    """The experiment's folder, created."""
    return workspace.folder("experiments", folder_name(experiment))


async def held_out_rows(hub: HubClient, evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All items of the evaluation's dataset.

    Raises:
        BadInput: they cannot be read, or there are more than 100,000.
        NotFound, ServiceError: the dataset cannot be had.
    """
    part = await find_part(
        hub,
        str(evaluation["dataset"]),
        config=evaluation.get("dataset_config"),
        split=evaluation.get("split"),
        measured=True,
        revision=evaluation.get("dataset_revision"),
    )
    rows = await anyio.to_thread.run_sync(lambda: list(itertools.islice(stream_rows(part.split), MOST_ITEMS + 1)))
    if len(rows) > MOST_ITEMS:
        raise BadInput(
            f"{part.name} has more than {MOST_ITEMS:,} items.",
            next_step="Name a smaller split; a few thousand items show differences of one or two points.",
        )
    return rows


async def example_rows(hub: HubClient, evaluation: Mapping[str, Any], *, split: str) -> list[dict[str, Any]]:
    """The first 1,000 rows of another split of the evaluation's dataset, to show worked examples from.

    Raises:
        BadInput, NotFound, ServiceError: they cannot be read.
    """
    part = await find_part(
        hub,
        str(evaluation["dataset"]),
        config=evaluation.get("dataset_config"),
        split=split,
        measured=False,
        revision=evaluation.get("dataset_revision"),
    )
    return await anyio.to_thread.run_sync(lambda: list(itertools.islice(stream_rows(part.split), MOST_EXAMPLES)))


def examples_file(folder: Path) -> Path:
    """Where worked examples come from: rows of neither half, else the half to decide by, which scores the rest."""
    return folder / (EXAMPLES if (folder / EXAMPLES).is_file() else DECIDE)


def split_items(
    rows: Sequence[Mapping[str, Any]], *, id_column: str, decide: int | None, confirm: int | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """A random half to decide by and one to confirm by, of the sizes asked for, and the rows left; each with an id.

    The same item twice goes into one half only, once.

    Raises:
        BadInput: there are too few different items for both.
    """
    items: dict[str, dict[str, Any]] = {}
    for row in rows:
        content = json.dumps(row, sort_keys=True, default=str, ensure_ascii=False)
        own = {name: value for name, value in row.items() if name != id_column}
        key = hashlib.sha256(json.dumps(own, sort_keys=True, default=str).encode()).hexdigest()
        given = row.get(id_column)
        name = str(given) if given is not None else hashlib.sha256(content.encode()).hexdigest()[:16]
        items.setdefault(key, {**row, id_column: name})
    chosen = list(items.values())
    names = [str(item[id_column]) for item in chosen]
    if len(set(names)) < len(names):
        raise BadInput(
            f"Different items share an id in the column {id_column!r}.",
            next_step="Name a column of unique ids as id_column, or one that does not exist: a hash is used then.",
        )
    random.Random(SPLIT_SEED).shuffle(chosen)
    first = decide if decide is not None else (len(chosen) - (confirm or 0) if confirm else len(chosen) // 2)
    second = confirm if confirm is not None else len(chosen) - first
    if first < FEWEST_ITEMS or second < FEWEST_ITEMS or first + second > len(chosen):
        raise BadInput(
            f"{len(chosen)} different items do not give {first} to decide by and {second} to confirm by.",
            next_step=f"Give decide_rows and confirm_rows of at least {FEWEST_ITEMS} that add up to no more.",
        )
    return chosen[:first], chosen[first : first + second], chosen[first + second :][:MOST_EXAMPLES]


def write_half(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write items as JSON lines; returns the SHA-256 of the file."""
    data = "".join(f"{json.dumps(row, ensure_ascii=False, default=str)}\n" for row in rows).encode()
    write_durably(path, data)
    return hashlib.sha256(data).hexdigest()


def experiment_fingerprint(evaluation: Mapping[str, Any], hashes: Mapping[str, str]) -> str:
    """12 hex over everything that makes two measurements comparable: items, prompt, extraction, limits, seed."""
    protocol = {name: value for name, value in evaluation.items() if name not in ("dataset", "batch_size", "use_cpu")}
    return digest_of([protocol, dict(hashes)])
