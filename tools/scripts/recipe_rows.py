"""Whether the data of a recipe suffices for what the recipe does with it, before a job starts.

Of data on this machine only the head is read: as many rows as the recipe takes away before it trains, and one more.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlintern.common.text import cut_list, did_you_mean
from mlintern.tools.data.local_files import LocalSplit, open_local
from mlintern.tools.data.rows import stream_rows
from mlintern.tools.errors import MlinternError
from mlintern.tools.sandbox import worker
from mlintern.tools.scripts.data_sources import is_local
from mlintern.tools.scripts.evaluation_plan import EvaluationPlan
from mlintern.tools.scripts.generate_recipe import GenerateRecipe
from mlintern.tools.scripts.recipe import AnyRecipe, EvaluationRecipe, TrainingRecipe
from mlintern.tools.scripts.script_results import Check
from mlintern.tools.scripts.trainer_columns import needed_columns
from mlintern.tools.scripts.trainers.advice import TRAINERS
from mlintern.tools.scripts.training_program import prompts_at_once
from mlintern.tools.scripts.training_recipe import WithRewards

MOST_READ = 100_000
"""Rows that are read at most; a recipe that takes more away is not judged here."""


@dataclass(frozen=True)
class Head:
    """The first rows of some data: how many there are, up to what was asked for, and the columns of the first."""

    rows: int
    columns: tuple[str, ...]


def row_checks(recipe: AnyRecipe) -> list[Check]:
    """Errors for held-out rows that leave nothing to train on, and for `columns` that do not fit data or trainer."""
    if isinstance(recipe, GenerateRecipe):
        return []
    if isinstance(recipe, EvaluationRecipe):
        return [] if recipe.by_harness else list(_measured(recipe))
    held = recipe.holdout.rows if recipe.holdout else 0
    head = _head(
        recipe.dataset,
        recipe.split,
        recipe.dataset_config,
        held + max(recipe.validation_rows, prompts_at_once(recipe) - 1) + 1,
    )
    found = [*_turned(recipe, head)]
    if head is not None:
        found += [*_renamed(recipe, head.columns), *_too_few(recipe, head, held)] if not found else []
    if recipe.evaluation is not None and recipe.evaluation.holdout != recipe.holdout:
        found += _measured(recipe.evaluation)
    return found


def _head(name: str, split: str, config: str | None, count: int) -> Head | None:
    """The head of local data; None for what is not here, is a part of a split, cannot be read or is too long."""
    if not is_local(name) or count > MOST_READ or {"[", "+"} & set(split):
        return None
    try:
        parts = open_local(name).of(config).splits
        part = next((part for part in parts if part.name == split), parts[0] if len(parts) == 1 else None)
        return None if part is None else worker.call(read_head, part, count)
    except MlinternError:
        return None  # other checks say what is wrong with it


def read_head(split: LocalSplit, count: int) -> Head:
    """Runs in the worker."""
    rows = stream_rows(split)
    first = next(rows, None)
    if first is None:
        return Head(0, ())
    return Head(1 + sum(1 for _ in itertools.islice(rows, count - 1)), tuple(first))


def _error(rule: str, message: str, fix: str) -> Check:
    return Check(rule=rule, severity="error", message=message, fix=fix)


def _too_few(recipe: TrainingRecipe, head: Head, held: int) -> Iterator[Check]:
    name = recipe.dataset.rsplit("/", 1)[-1]
    if held and head.rows <= held:
        yield _error(
            "held_out_rows",
            f"holdout takes {held} rows, and {name} has {head.rows}: none is left to train on.",
            f"Hold out fewer, such as {max(1, head.rows // 10)}.",
        )
        return
    left = head.rows - held
    left = left if recipe.limit is None else min(left, recipe.limit)
    if recipe.validation_rows >= left:
        yield _error(
            "held_out_rows",
            f"validation_rows takes {recipe.validation_rows} rows, and {left} of {name} are there to train on: "
            "none is left.",
            f"Take fewer, such as {max(1, left // 10)}.",
        )
        return
    left, together = left - recipe.validation_rows, prompts_at_once(recipe)
    if left < together <= head.rows:
        yield _error(
            "few_prompts",
            f"{together} prompts are answered at once, and {left} are there: TRL leaves incomplete rounds out, so no "
            "step would be made.",
            "Lower gradient_accumulation_steps or per_device_train_batch_size, raise num_generations, or give more "
            "rows.",
        )


def _measured(plan: EvaluationPlan) -> Iterator[Check]:
    """An evaluation measures on the held-out rows of its data, so some have to be left beside them."""
    if plan.holdout is None:
        return
    head = _head(plan.dataset, plan.scored_split, plan.dataset_config, plan.holdout.rows)
    if head is not None and head.rows < plan.holdout.rows:
        yield _error(
            "held_out_rows",
            f"holdout takes {plan.holdout.rows} rows, and {plan.dataset} has {head.rows}.",
            "Give the `holdout` that the training recipe has.",
        )


def _turned(recipe: TrainingRecipe, head: Head | None) -> Iterator[Check]:
    """`columns` given as name in the data -> name for the trainer."""
    columns = recipe.columns
    if not columns or recipe.prepare is not None:
        return
    needed = needed_columns(
        TRAINERS[recipe.trainer].trainer_class,
        text_field=str(recipe.hyperparameters.get("dataset_text_field", "text")),
    )
    known = {name for names in needed or () for name in names} | {"prompt"}
    if head is not None and head.columns:
        wrong = not set(columns.values()) <= set(head.columns) and set(columns) <= set(head.columns)
    else:
        wrong = not known & set(columns) and bool(known & set(columns.values()))
        wrong = wrong and (not isinstance(recipe, WithRewards) or "prompt" in columns.values())
    if wrong:
        swapped = {theirs: ours for ours, theirs in columns.items()}
        yield _error(
            "columns",
            "`columns` is given the wrong way round: it maps the name that the trainer expects to the name in the "
            "dataset.",
            f"Write {swapped}.",
        )


def _renamed(recipe: TrainingRecipe, has: Sequence[str]) -> Iterator[Check]:
    if not has:
        return
    for ours, theirs in recipe.columns.items():
        if theirs not in has:
            yield _error(
                "columns",
                f"`columns` takes {ours} from {theirs}, and the data has no such column.",
                did_you_mean(theirs, has, otherwise=f"It has {cut_list(list(has), 12)}."),
            )
        elif isinstance(recipe, WithRewards) and ours in has and ours not in recipe.columns.values():
            yield _error(
                "columns",
                f"`columns` calls {theirs} {ours}, and the data has another column {ours}.",
                f"Rename that one as well, or leave `columns` out if {ours} is what is meant.",
            )
