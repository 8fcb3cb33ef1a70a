"""What an experiment is opened with: how is measured, by which items, and which rows may be shown as examples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.tools.campaigns import halves
from mlintern.tools.campaigns.batch import SHOTS
from mlintern.tools.errors import BadInput
from mlintern.tools.hub.client import HubClient
from mlintern.tools.scripts.evaluation_plan import EvaluationPlan
from mlintern.tools.scripts.recipe import parse_recipe

NOT_OF_THE_PROTOCOL = ("trainer", "model", "revision", "name", "dataset_config", "dataset_revision", "limit")

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Opening:
    """An evaluation whose items are split.

    Attributes:
        model: the base model, as the recipe names it.
        evaluation: the evaluation recipe without the model and without where its rows were read from.
        metric: what is compared.
        decide, confirm: the two halves. examples: rows of neither that may be shown; empty if there are too few.
    """

    model: str
    evaluation: Row
    metric: str
    decide: list[Row]
    confirm: list[Row]
    examples: list[Row]

    def write(self, folder: Path) -> dict[str, str]:
        """Write the halves into the experiment's folder; the SHA-256 of each file by its name."""
        parts = ((halves.DECIDE, self.decide), (halves.CONFIRM, self.confirm), (halves.EXAMPLES, self.examples))
        return {file: halves.write_half(folder / file, part) for file, part in parts if part}


async def prepare(
    hub: HubClient,
    *,
    model: str,
    evaluation: Mapping[str, Any],
    metric: str | None,
    decide_rows: int | None,
    confirm_rows: int | None,
) -> Opening:
    """Check the evaluation and split its items.

    Raises:
        BadInput: it cannot be rendered, or its items cannot be read, cannot be split or are too few.
        NotFound, ServiceError: its dataset cannot be had.
    """
    plain = {field: value for field, value in evaluation.items() if field not in ("trainer", "model")}
    recipe = parse_recipe({**plain, "trainer": "evaluation", "model": model})
    own: Row = json.loads(recipe.model_dump_json(exclude_unset=True))
    if "dataset" not in own:
        raise BadInput(
            "The held-out items of this evaluation cannot be split: it names no dataset.",
            next_step="Give an evaluation of your own task, with `dataset`.",
        )
    if "holdout" in own:
        raise BadInput(
            "An experiment splits all rows of its dataset; `holdout` would leave rows to train on among them.",
            next_step="Put the held-out rows into a file or split of their own and name that.",
        )
    own["task"] = own.get("task") or str(own["dataset"]).rstrip("/").rpartition("/")[2].partition(".")[0]
    decide, confirm, examples = halves.split_items(
        await halves.held_out_rows(hub, own),
        id_column=own.get("id_column", "id"),
        decide=decide_rows,
        confirm=confirm_rows,
    )
    shown_from = recipe.examples_from if isinstance(recipe, EvaluationPlan) else None
    if shown_from is not None and "fewshot_dataset" not in own:
        examples = await halves.example_rows(hub, own, split=shown_from[1])
    kept = {
        field: value
        for field, value in own.items()
        if field not in NOT_OF_THE_PROTOCOL and (field != "fewshot_split" or "fewshot_dataset" in own)
    }
    return Opening(
        model=str(recipe.model),
        evaluation=kept,
        metric=metric or ("accuracy" if own.get("kind", "multiple_choice") == "multiple_choice" else "exact_match"),
        decide=decide,
        confirm=confirm,
        examples=examples if len(examples) >= max(SHOTS, own.get("fewshot", 0)) else [],
    )
