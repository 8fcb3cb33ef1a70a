"""What a report's pictures show: scores of all runs, and the training curves of those that logged any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mlintern.common.files import write_durably
from mlintern.tools.errors import MissingDependency, WorkspaceError
from mlintern.tools.evals.compare import sure_stderr
from mlintern.tools.evals.names import is_proportion
from mlintern.tools.evals.result_rows import EvalRow
from mlintern.tools.health.findings import Finding
from mlintern.tools.health.series import Run
from mlintern.tools.runs import phrases
from mlintern.tools.runs.figures import MOST_BARS, MOST_CURVES, Bar, Curve, curves_figure, png, scores_figure
from mlintern.tools.runs.leaderboard import Leaderboard, Trial
from mlintern.tools.runs.svg import bars_svg, lines_svg

LONGEST_LABEL = 36
PANELS = (("reward", "mean reward"), ("loss", "training loss"), ("eval_loss", "held-out loss (eval_loss)"))
PAGE_PANELS = (
    *PANELS,
    ("kl", "divergence from the reference (KL)"),
    ("length", "mean length of answers, tokens"),
    ("learning_rate", "learning rate"),
)


def draw(
    folder: Path, *, board: Leaderboard, curves: dict[str, Run], name: str, target: float | None
) -> tuple[list[str], list[str]]:
    """Write the pictures that there is something to show on; say why one is missing."""
    pictures: list[str] = []
    notes: list[str] = []
    try:
        for file, data in (
            ("scores.png", scores_picture(board, target=target, notes=notes)),
            ("learning_curve.png", _learning(board, curves, name=name, notes=notes)),
        ):
            if data is None:
                (folder / file).unlink(missing_ok=True)  # of an earlier report
            else:
                write_file(folder / file, data)
                pictures.append(file)
    except MissingDependency as error:
        notes.append(str(error))
    return pictures, notes


def charts(board: Leaderboard, curves: dict[str, Run], *, target: float | None) -> dict[str, str]:
    """The same pictures as SVG for a page, by the names of the files; all metrics that people look at."""
    found: dict[str, str] = {}
    if (scores := score_bars(board, notes=[])) is not None:
        bars, sample = scores
        title = f"{phrases.measure(sample)}, with 95 % intervals"
        found["scores.png"] = bars_svg(title, bars, percent=is_proportion(sample.metric), target=target)
    panels = learning_panels(board, curves, notes=[], metrics=PAGE_PANELS)
    if panels:
        found["learning_curve.png"] = "".join(
            lines_svg(title, lines, axis="training step") for title, lines in panels
        )
    return found


def run_charts(run: Run, *, label: str, findings: Sequence[Finding] = ()) -> str:
    """The curves of one run as SVG, what was found marked at its step."""
    marks = [(float(each.step), each.kind) for each in findings if each.step is not None]
    return "".join(
        lines_svg(title, curves, axis="training step", marks=marks) for title, curves in run_curves(run, label=label)
    )


def run_curves(run: Run, *, label: str) -> list[tuple[str, list[Curve]]]:
    """The curve of each metric that a run logged, by the metric's title."""
    return [
        (title, [Curve(label, run[metric].steps, run[metric].values)])
        for metric, title in PAGE_PANELS
        if _tells(run, metric)
    ]


def _tells(run: Run, metric: str) -> bool:
    """The loss of GRPO shows nothing."""
    return len(run[metric]) >= 2 and not (metric == "loss" and run.has_reward)


def score_bars(board: Leaderboard, *, notes: list[str]) -> tuple[list[Bar], EvalRow] | None:
    """The scores to draw, the baseline first, and the row that says what was measured."""
    scored = [trial for trial in board.trials if trial.score is not None]
    if not scored or board.key is None:
        return None
    trials = sorted(_most_telling(scored, board, most=MOST_BARS), key=lambda trial: not trial.is_baseline)
    if len(trials) < len(scored):
        notes.append(f"Of {len(scored)} scores the baseline, the best and the latest are drawn: {len(trials)} bars.")
    names = labels(board)
    sample = next(trial.score for trial in trials if trial.score is not None)
    bars = [
        Bar(names[trial.run.job_id], trial.score.value, sure_stderr(trial.score), trial.is_baseline)
        for trial in trials
        if trial.score is not None
    ]
    return bars, sample


def scores_picture(board: Leaderboard, *, target: float | None, notes: list[str] | None = None) -> bytes | None:
    """The scores as PNG; None where nothing has been measured.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    found = score_bars(board, notes=[] if notes is None else notes)
    if found is None:
        return None
    bars, sample = found
    scores = [trial.score for trial in board.trials if trial.score is not None]
    known = f", n = {sample.n:,}" if len({score.n for score in scores}) == 1 and sample.n is not None else ""
    percent = is_proportion(sample.metric)
    figure = scores_figure(
        bars,
        title=f"{phrases.measure(sample)}{known}",
        axis=f"{sample.metric}, %" if percent else sample.metric,
        chance=next((score.chance for score in scores if score.chance is not None), None),
        target=target,
        percent=percent,
    )
    return png(figure)


def _learning(board: Leaderboard, curves: dict[str, Run], *, name: str, notes: list[str]) -> bytes | None:
    panels = learning_panels(board, curves, notes=notes)
    return png(curves_figure(panels, title=f"How the runs of {name} learned")) if panels else None


def learning_panels(
    board: Leaderboard, curves: dict[str, Run], *, notes: list[str], metrics: Sequence[tuple[str, str]] = PANELS
) -> list[tuple[str, list[Curve]]]:
    """The curves of each metric that runs logged, by the metric's title; ``notes`` gets what is left out."""
    panels: list[tuple[str, list[Curve]]] = []
    names = labels(board)
    for metric, title in metrics:
        logged = [
            trial
            for trial in board.trials
            if (run := curves.get(trial.run.job_id)) is not None and _tells(run, metric)
        ]
        drawn = _most_telling(logged, board, most=MOST_CURVES)
        if len(drawn) < len(logged):
            notes.append(f"Of {len(logged)} runs the best and the latest are drawn in the picture of {title}.")
        lines = []
        for trial in drawn:
            curve = curves[trial.run.job_id][metric]
            lines.append(Curve(names[trial.run.job_id], curve.steps, curve.values))
        if lines:
            panels.append((title, lines))
    return panels


def _most_telling(trials: Sequence[Trial], board: Leaderboard, *, most: int) -> list[Trial]:
    """At most ``most`` of ``trials``, in their order: the baseline, the best, and the latest."""
    pillars = {pillar.run.job_id for pillar in (board.baseline, board.best) if pillar is not None}
    chosen = [trial.run.job_id for trial in trials if trial.run.job_id in pillars]
    others = [trial.run.job_id for trial in trials if trial.run.job_id not in pillars]
    kept = {*chosen, *others[max(0, len(others) - (most - len(chosen))) :]}
    return [trial for trial in trials if trial.run.job_id in kept]


def labels(board: Leaderboard) -> dict[str, str]:
    """Job id -> what board for the run in a picture: its name, shortened; the job is told where names are alike."""
    short = {trial.run.job_id: _short(trial.run.run_id) for trial in board.trials}
    count = Counter(short.values())
    return {job_id: label if count[label] == 1 else _short(f"{label} {job_id}") for job_id, label in short.items()}


def _short(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else f"{label[:16]}...{label[-(LONGEST_LABEL - 19) :]}"


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
