"""A model's card from what the ledger knows of its job: base model, recipe, data, evaluations, versions.

It says what was done and measured, and nothing about what the model is good for; a person adds that. Local paths are
shortened to their last part, as a card is read by strangers. The same job gives the same text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.jobs.job_rows import JobRecord
from mlintern.tools.ledger import Ledger
from mlintern.tools.runs import experiment_rows, phrases, recipes
from mlintern.tools.runs.leaderboard import Trial, build_leaderboard
from mlintern.tools.runs.markdown_tables import code, plain, table
from mlintern.tools.scripts.header import read_header
from mlintern.tools.workspace import Workspace

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
TRAINERS: Mapping[str, str] = {
    "sft": "supervised fine-tuning (SFT)",
    "dpo": "direct preference optimisation (DPO)",
    "grpo": "group relative policy optimisation (GRPO)",
}
MOST_ROWS = 60


def model_card(job_id: str, *, workspace: Workspace, ledger: Ledger) -> str:
    """The card of the model that a job trained, as Markdown with metadata.

    Raises:
        NotFound: there is no such job in the ledger.
        BadInput: it trained nothing that was described by a recipe.
    """
    every = experiment_rows.trials(ledger)
    run = next((run for run in every if run.job_id == job_id), None)
    if run is None:
        raise NotFound(f"There is no job {job_id!r} in this workspace.", next_step="list_jobs shows the jobs.")
    if run.recipe is None or run.trainer not in TRAINERS:
        raise BadInput(
            f"The script of {job_id} was not rendered from a training recipe, so little is known of it.",
            next_step="Give the card's text.",
        )
    near = [
        other
        for other in every
        if other.job_id == job_id or (run.spec.experiment and other.spec.experiment == run.spec.experiment)
    ]
    rows = experiment_rows.evaluations(ledger, job_ids=[other.job_id for other in near])
    trials = build_leaderboard(near, rows, jobs_folder=workspace.root / "jobs")
    trial = next(trial for trial in trials.trials if trial.run.job_id == job_id)
    baseline = trials.baseline if trials.baseline is not trial else None
    sections = (
        _metadata(run.recipe),
        _top(run, run.recipe),
        _evaluations(trial, baseline),
        _recipe(run.recipe),
        _versions(run, workspace),
    )
    return "\n".join("\n".join(section) + "\n" for section in map(list, sections) if section)


def _metadata(recipe: Mapping[str, Any]) -> Iterator[str]:
    import yaml  # type: ignore[import-untyped]

    known: dict[str, Any] = {
        "base_model": _hub_id(recipe.get("model")),
        "datasets": [hub_id for part in _parts(recipe) if (hub_id := _hub_id(part.get("dataset")))] or None,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["trl", str(recipe["trainer"]), "mlintern"],
    }
    yield "---"
    yield yaml.safe_dump({key: value for key, value in known.items() if value}, sort_keys=False).rstrip()
    yield "---"


def _top(run: JobRecord, recipe: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {plain(run.spec.run_name or run.script_name)}"
    yield ""
    method = TRAINERS[str(recipe["trainer"])] + (" with LoRA" if recipe.get("lora") is not None else "")
    data = " and ".join(
        f"{_name(part.get('dataset'))}, split {code(str(part.get('split', 'train')))}{_share(part)}"
        for part in _parts(recipe)
    )
    yield f"{_name(recipe.get('model'))}, trained by {method} on {data}."
    if run.state != "succeeded":
        yield f"The training job did not succeed: it is {run.state}."


def _parts(recipe: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What was trained on: the dataset, or each of a mixture."""
    return list(recipe.get("datasets") or [recipe])


def _share(part: Mapping[str, Any]) -> str:
    if part.get("weight") is not None:
        return f" (weight {part['weight']:g})"
    return f" ({part['rows']} rows)" if part.get("rows") else ""


def _evaluations(trial: Trial, baseline: Trial | None) -> Iterator[str]:
    yield "## Evaluation"
    yield ""
    shown = [(who, row) for who, one in (("this model", trial), ("baseline", baseline)) if one for row in one.rows]
    if not shown:
        yield "Not evaluated."
        return
    yield from table(
        ("model", "harness", "task", "metric", "few-shot", "value"),
        (
            (
                who,
                row.suite,
                row.task_raw,
                row.metric + (f" ({row.filter})" if row.filter else ""),
                "" if row.fewshot is None else str(row.fewshot),
                phrases.score(row),
            )
            for who, row in shown[:MOST_ROWS]
        ),
    )
    if len(shown) > MOST_ROWS:
        yield f"\n{len(shown) - MOST_ROWS} more rows are not shown."
    yield ""
    yield "± is one standard error."
    if trial.against_baseline is not None:
        yield f"Against the baseline: {phrases.comparison(trial.against_baseline)}."


def _recipe(recipe: Mapping[str, Any]) -> Iterator[str]:
    yield "## Recipe"
    yield ""
    yield from table(
        ("setting", "value"),
        ((name.removeprefix("hyperparameters."), _setting(value)) for name, value in recipes.flat(recipe).items()),
    )


def _versions(run: JobRecord, workspace: Workspace) -> Iterator[str]:
    path = workspace.script(run.spec.script_id)
    try:
        header = read_header(path.read_text(encoding="utf-8")) if path.is_file() else None
    except BadInput:
        header = None
    yield "## Versions"
    yield ""
    if header is not None and header.requirements:
        yield from (f"* {plain(requirement)}" for requirement in header.requirements)
    yield f"* training script: SHA-256 `{run.spec.script_sha256}`"


def _hub_id(value: Any) -> str | None:
    """``value`` if it is the id of a repository; a path of this machine is none."""
    text = str(value or "")
    return text if HUB_ID.fullmatch(text) and not Path(text).exists() else None


def _name(value: Any) -> str:
    return code(str(value)) if _hub_id(value) else f"{code(Path(str(value)).name)} (not on the Hub)"


def _setting(value: Any) -> str:
    text = str(value)
    return Path(text).name if text.startswith(("/", "~/")) else recipes.shown(value)
