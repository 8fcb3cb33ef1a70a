"""What a report's pictures show: scores of all runs, and the training curves of those that logged any."""

from __future__ import annotations

from pathlib import Path

from mlintern.common.files import write_durably
from mlintern.tools.errors import MissingDependency, WorkspaceError
from mlintern.tools.evals.names import is_proportion
from mlintern.tools.health.series import Run
from mlintern.tools.runs import wording
from mlintern.tools.runs.figures import MOST_BARS, MOST_CURVES, Bar, Curve, curves_png, scores_png
from mlintern.tools.runs.standing import Standing

PANELS = (("reward", "mean reward"), ("loss", "training loss"), ("eval_loss", "held-out loss (eval_loss)"))


def draw(
    folder: Path, stands: Standing, curves: dict[str, Run], *, name: str, target: float | None
) -> tuple[list[str], list[str]]:
    """Write the pictures that there is something to show on; say why one is missing."""
    pictures: list[str] = []
    notes: list[str] = []
    try:
        for file, data in (
            ("scores.png", _scores(stands, target=target)),
            ("learning_curve.png", _learning(stands, curves, name=name, notes=notes)),
        ):
            if data is None:
                (folder / file).unlink(missing_ok=True)  # of an earlier report
            else:
                write_file(folder / file, data)
                pictures.append(file)
    except MissingDependency as error:
        notes.append(str(error))
    return pictures, notes


def _scores(stands: Standing, *, target: float | None) -> bytes | None:
    trials = [trial for trial in stands.trials if trial.score is not None]
    if not trials or stands.key is None:
        return None
    trials = sorted(trials[-MOST_BARS:], key=lambda trial: not trial.is_baseline)
    sample = next(trial.score for trial in trials if trial.score is not None)
    counts = {trial.score.n for trial in trials if trial.score is not None}
    known = f", n = {sample.n:,}" if len(counts) == 1 and sample.n is not None else ""
    percent = is_proportion(sample.metric)
    return scores_png(
        [
            Bar(trial.run.run_id, trial.score.value, trial.score.stderr, trial.is_baseline)
            for trial in trials
            if trial.score is not None
        ],
        title=f"{wording.measure(sample)}{known}",
        axis=f"{sample.metric}, %" if percent else sample.metric,
        chance=next((trial.score.chance for trial in trials if trial.score and trial.score.chance is not None), None),
        target=target,
        percent=percent,
    )


def _learning(stands: Standing, curves: dict[str, Run], *, name: str, notes: list[str]) -> bytes | None:
    panels: list[tuple[str, list[Curve]]] = []
    for metric, title in PANELS:
        lines = [
            Curve(trial.run.run_id, run[metric].steps, run[metric].values)
            for trial in stands.trials
            if (run := curves.get(trial.run.job_id)) is not None
            and len(run[metric]) >= 2
            and not (metric == "loss" and run.has_reward)  # the loss of GRPO shows nothing
        ]
        if len(lines) > MOST_CURVES:
            notes.append(f"Of {len(lines)} runs the last {MOST_CURVES} are drawn in the picture of {title}.")
        if lines:
            panels.append((title, lines[-MOST_CURVES:]))
    return curves_png(panels, title=f"How the runs of {name} learned") if panels else None


def write_file(path: Path, data: bytes) -> None:
    """Write a file of a report, whole or not at all.

    Raises:
        WorkspaceError: disk full, or not writable.
    """
    try:
        write_durably(path, data, mode=0o644)
    except OSError as error:
        raise WorkspaceError(
            f"{path} cannot be written: {error.strerror}.", next_step="Check space and permissions of the workspace."
        ) from error
