"""Pictures on demand: a run's curves with what was found on them, or the scores of an experiment."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from mlintern.tools.errors import MissingDependency
from mlintern.tools.health.findings import Diagnosis
from mlintern.tools.health.series import Run
from mlintern.tools.runs.figures import Bar, Curve, curves_figure, png
from mlintern.tools.runs.leaderboard import Leaderboard
from mlintern.tools.runs.pictures import charts, run_charts, run_curves, score_bars, scores_picture


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A picture, as SVG for a page and as PNG; ``shown`` says in words what is on it."""

    title: str
    svg: str
    png: bytes | None
    shown: list[str]
    notes: list[str] = field(default_factory=list)


def of_run(run: Run, health: Diagnosis, *, name: str) -> Plot:
    """The curves of one run, what was found marked at its step."""
    drawn = run_curves(run, label=name)
    notes = [f"{each.kind} at step {each.step}: {each.evidence}" for each in health.findings]
    picture = None
    try:
        if drawn:
            picture = png(curves_figure(drawn[:3], title=name))
    except MissingDependency as error:
        notes.append(str(error))
    return Plot(
        title=f"Curves of {name}",
        svg=run_charts(run, label=name, findings=health.findings),
        png=picture,
        shown=[_curve(title, curve) for title, [curve] in drawn],
        notes=notes,
    )


def of_experiment(board: Leaderboard, curves: dict[str, Run], *, name: str, target: float | None) -> Plot:
    """The scores of an experiment with 95 % intervals, and below them the curves of its runs."""
    notes: list[str] = []
    bars = score_bars(board, notes=notes)
    picture = None
    try:
        picture = scores_picture(board, target=target)
    except MissingDependency as error:
        notes.append(str(error))
    return Plot(
        title=f"Scores of {name}",
        svg="".join(charts(board, curves, target=target).values()),
        png=picture,
        shown=[_bar(bar) for bar in (bars[0] if bars else ())],
        notes=notes,
    )


def _curve(title: str, curve: Curve) -> str:
    points = [(step, value) for step, value in zip(curve.steps, curve.values, strict=False) if math.isfinite(value)]
    if not points:
        return f"{title}: no number among {len(curve.values)} points"
    (first, start), (last, end) = points[0], points[-1]
    return f"{title}: {start:.4g} at step {first:g}, {end:.4g} at step {last:g}, {len(points)} points"


def _bar(bar: Bar) -> str:
    interval = f" ± {1.96 * bar.stderr:.4g}" if bar.stderr is not None else ""
    return f"{bar.label}: {bar.value:.4g}{interval}{' (baseline)' if bar.is_baseline else ''}"
