"""The report of an experiment as Markdown: the verdict first, then what it rests on, then what it does not show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlintern.common.clock import iso
from mlintern.common.durations import format_duration
from mlintern.common.text import format_usd
from mlintern.tools.evals.flips import SHOWN, Flips
from mlintern.tools.health.findings import Diagnosis
from mlintern.tools.jobs.job_rows import JobRecord
from mlintern.tools.runs import phrases
from mlintern.tools.runs.caveats import limits
from mlintern.tools.runs.experiment_rows import Experiment
from mlintern.tools.runs.leaderboard import Leaderboard, Trial
from mlintern.tools.runs.markdown_tables import code, plain, table
from mlintern.tools.runs.recipes import differences, shown
from mlintern.tools.runs.recipes import summary as one_line
from mlintern.tools.runs.reproduction import reproduction

MOST_ROWS = 200


@dataclass(frozen=True)
class Material:
    """All that a report is written from.

    ``headline`` and ``section`` are those of an experiment that ran trials by itself: the confirmed result goes
    before every other number. ``flips``: what the best run gained and lost against the baseline.
    """

    experiment: Experiment
    board: Leaderboard
    health: Mapping[str, Diagnosis]
    scripts: Mapping[str, Path]
    now: float
    usd_scheduled: float = 0.0
    pictures: Sequence[str] = ()
    notes: Sequence[str] = field(default_factory=list)
    headline: str = ""
    section: str = ""
    flips: Flips | None = None

    @property
    def verdict(self) -> str:
        return self.headline or phrases.verdict(self.board, self.experiment)


def markdown(material: Material) -> str:
    """The whole report."""
    sections = (
        _top(material),
        filter(None, [material.section]),
        _runs(material),
        _evaluations(material.board),
        _comparison(material.board),
        _flips(material),
        _learning(material),
        _cost(material),
        _trouble(material),
        reproduction(material.board, material.scripts),
        _limits(material),
    )
    return "\n\n".join("\n".join(section) for section in map(list, sections) if section) + "\n"


def summary(material: Material, path: Path) -> str:
    """The outcome in a few lines that stand alone."""
    trials = [trial for trial in material.board.trials if trial.score is not None]
    lines = [
        f"# {plain(material.experiment.name)}",
        "",
        material.verdict,
        "",
    ]
    if trials:
        shown_trials = sorted(trials, key=lambda trial: not trial.is_baseline)[:6]
        lines += table(
            ("run", "score", "verdict"),
            ((trial.run.run_id, phrases.score(trial.score), trial.verdict) for trial in shown_trials if trial.score),
        )
        if len(trials) > len(shown_trials):
            lines.append(f"and {len(trials) - len(shown_trials)} more runs in the report")
        lines.append("")
    failed = sum(trial.run.state in ("failed", "timed_out", "lost") for trial in material.board.trials)
    runs = "1 run" if len(material.board.trials) == 1 else f"{len(material.board.trials)} runs"
    lines.append(
        f"{runs} ({failed} failed), {format_usd(_spent(material.board))}."
        f" Full report with limits of the claim: {path}"
    )
    return "\n".join(lines)


def _top(material: Material) -> Iterator[str]:
    experiment = material.experiment
    yield f"# {plain(experiment.name)}"
    yield ""
    yield material.verdict
    yield ""
    facts = {
        "Goal": experiment.goal,
        "Base model": experiment.base_model or _base_model(material.board),
        "Benchmark": experiment.benchmark,
        "Target": "" if experiment.target is None else f"{experiment.target:g}",
        "Budget": "" if experiment.budget_usd is None else format_usd(experiment.budget_usd),
        "Written": iso(material.now),
    }
    for name, value in facts.items():
        if value:
            yield f"* {name}: {plain(value)}"
    for note in material.notes:
        yield f"* Note: {note}"
    if "scores.png" in material.pictures:
        yield ""
        yield "![Score of each run with 95 % intervals](scores.png)"


def _runs(material: Material) -> Iterator[str]:
    trials = material.board.trials
    shared, differing = _settings(trials)
    yield "## Runs"
    yield ""
    yield from table(
        ("run", "job", "state", "score", "verdict", "what differs", "cost", "time"),
        (
            (
                trial.run.run_id,
                trial.run.job_id,
                trial.run.state,
                phrases.score(trial.score) if trial.score else "",
                trial.verdict,
                differing[trial.run.job_id],
                _cost_of(trial.run),
                _time(trial.run.seconds),
            )
            for trial in trials
        ),
    )
    for trainer, settings in shared.items():
        yield ""
        yield f"All {trainer} runs share: {plain(settings)}."


def _settings(trials: Sequence[Trial]) -> tuple[dict[str, str], dict[str, str]]:
    """By trainer, what its runs share; by job, what sets it apart from the others of its trainer."""
    shared: dict[str, str] = {}
    apart: dict[str, str] = {}
    for trainer in dict.fromkeys(trial.run.trainer for trial in trials):
        runs = [trial.run for trial in trials if trial.run.trainer == trainer]
        common, differing = differences([run.recipe for run in runs])
        common.pop("trainer", None)
        if trainer is not None and len(runs) > 1 and common:
            shared[trainer] = _listed(common)
        for run, settings in zip(runs, differing, strict=True):
            apart[run.job_id] = _listed(settings) or one_line(run.recipe, run.script_name)
    return shared, apart


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.removeprefix('hyperparameters.')} {shown(value)}" for name, value in settings.items())


def _evaluations(board: Leaderboard) -> Iterator[str]:
    rows = [(trial, row) for trial in board.trials for row in trial.rows]
    yield "## Evaluations"
    yield ""
    if not rows:
        yield "None."
        return
    yield "± is one standard error; (d) marks one derived here as sqrt(p(1-p)/n)."
    yield ""
    yield from table(
        ("run", "harness", "task", "metric", "few-shot", "value", "n", "measured"),
        (
            (
                trial.run.run_id,
                row.suite,
                row.task_raw,
                row.metric + (f" ({row.filter})" if row.filter else ""),
                "" if row.fewshot is None else str(row.fewshot),
                phrases.score(row).partition(" (n")[0] + (" (d)" if row.stderr_derived else ""),
                "" if row.n is None else f"{row.n:,}",
                row.date or (f"step {row.step}" if row.step is not None else ""),
            )
            for trial, row in rows[:MOST_ROWS]
        ),
    )
    if len(rows) > MOST_ROWS:
        yield f"\n{len(rows) - MOST_ROWS} more rows are not shown; read_eval lists those of a job."


def _comparison(board: Leaderboard) -> Iterator[str]:
    if board.baseline is None or not board.candidates:
        return
    yield "## Against the baseline"
    yield ""
    yield f"Baseline: {code(board.baseline.run.run_id)}. p-values are adjusted over all runs of the table."
    yield ""
    yield from table(
        ("run", "difference", "verdict", "notes"),
        (
            (
                trial.run.run_id,
                phrases.comparison(trial.against_baseline),
                trial.against_baseline.verdict,
                " ".join(trial.against_baseline.notes),
            )
            for trial in board.candidates
            if trial.against_baseline is not None
        ),
    )


def _flips(material: Material) -> Iterator[str]:
    flips, best = material.flips, material.board.best
    if flips is None or best is None:
        return
    yield f"### What {code(best.run.run_id)} gained and lost"
    yield ""
    yield f"{flips.gained} items gained, {flips.lost} lost; some of each, drawn at random:"
    yield ""
    yield from table(
        ("", "item", "question", "right answer", "baseline", "candidate"),
        (
            (word, item.id, item.question or "", item.target or "", item.baseline or "", item.candidate or "")
            for word, items in (("gained", flips.some_gained), ("lost", flips.some_lost))
            for item in items[:SHOWN]
        ),
    )


def _learning(material: Material) -> Iterator[str]:
    if "learning_curve.png" in material.pictures:
        yield "## Learning"
        yield ""
        yield "![Training metrics of the runs over steps](learning_curve.png)"


def _cost(material: Material) -> Iterator[str]:
    board = material.board
    seconds = sum(trial.run.seconds or 0.0 for trial in board.trials)
    held = sum(t.run.usd_reserved for t in board.trials if not t.run.settled)
    yield "## Cost"
    yield ""
    yield (
        f"{format_usd(_spent(board))} and {_time(seconds)} of job time over {len(board.trials)} jobs"
        + (f"; {format_usd(held)} more are reserved for jobs that are not over" if held else "")
        + (
            f"; {format_usd(material.usd_scheduled)} for runs that schedules may start"
            if material.usd_scheduled
            else ""
        )
        + "."
    )


def _trouble(material: Material) -> Iterator[str]:
    yield "## Failures and health"
    yield ""
    lines: list[str] = []
    for trial in material.board.trials:
        name = code(trial.run.run_id)
        if trial.run.state in ("failed", "timed_out", "lost", "cancelled"):
            reason = f": {plain(trial.run.error)[:300]}" if trial.run.error else ""
            lines.append(f"* {name} {trial.run.state}{reason}")
        diagnosis = material.health.get(trial.run.job_id)
        for finding in diagnosis.findings if diagnosis else ():
            step = f" from step {finding.step}" if finding.step is not None else ""
            lines.append(f"* {name} {finding.kind} ({finding.severity}){step}: {plain(finding.evidence)}")
    judged = [diagnosis for diagnosis in material.health.values() if diagnosis.steps_read]
    yield from lines or ["No job failed."]
    yield ""
    faults = sum(len(diagnosis.findings) for diagnosis in judged)
    yield (
        f"The training curves of {len(judged)} of {len(material.board.trials)} jobs were read; "
        + (f"they show {faults} faults." if faults else "they show no fault.")
    )


def _limits(material: Material) -> Iterator[str]:
    yield "## Limits of the claim"
    yield ""
    for limit in limits(material.board, material.experiment):
        yield f"* {limit}"


def _base_model(board: Leaderboard) -> str:
    return (board.baseline.score.model or "") if board.baseline and board.baseline.score else ""


def _spent(board: Leaderboard) -> float:
    return sum(trial.run.usd for trial in board.trials)


def _cost_of(run: JobRecord) -> str:
    return format_usd(run.usd) + ("" if run.settled else f", up to {format_usd(run.usd_reserved)}")


def _time(seconds: float | None) -> str:
    return "" if seconds is None else format_duration(seconds, rounded=True)
