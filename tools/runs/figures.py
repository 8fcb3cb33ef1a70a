"""The two pictures of a report: what the runs scored, and how they learned."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from mlintern.tools.errors import MissingDependency

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY = "#7f7f7f"
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#B8A800", "#000000")
"""Okabe and Ito's palette, told apart by colour-blind readers too; its yellow darkened for a white page."""
Z = 1.96
DOTS_PER_INCH = 150
MOST_BARS = 24
MOST_CURVES = 8
SMOOTH_ABOVE = 40
"""Logged points above which a mean line is drawn over the raw curve."""


@dataclass(frozen=True)
class Bar:
    """A run's score. ``stderr`` is None where it is not known; ``is_baseline`` bars are grey."""

    label: str
    value: float
    stderr: float | None
    is_baseline: bool = False


@dataclass(frozen=True)
class Curve:
    """One metric of one run over its steps."""

    label: str
    steps: Sequence[float]
    values: Sequence[float]


def scores_figure(
    bars: Sequence[Bar], *, title: str, axis: str, chance: float | None, target: float | None, percent: bool
) -> Figure:
    """A bar for each run, from zero, the first on top, with 95 % error bars; chance and target as lines.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    figure = _figure(width=7.2, height=1.9 + 0.44 * len(bars))
    axes = figure.subplots()
    scale = 100.0 if percent else 1.0
    values = [bar.value * scale for bar in bars]
    errors = [Z * (bar.stderr or 0.0) * scale for bar in bars]
    places = range(len(bars))
    axes.barh(places, values, height=0.62, color=[GREY if bar.is_baseline else COLOURS[0] for bar in bars], zorder=2)
    known = [place for place in places if bars[place].stderr is not None]
    axes.errorbar(
        [values[place] for place in known],
        known,
        xerr=[errors[place] for place in known],
        fmt="none",
        ecolor="black",
        elinewidth=1.3,
        capsize=4,
        zorder=4,
        label=f"95 % interval ({Z} standard errors)",
    )
    for place, (value, error) in enumerate(zip(values, errors, strict=True)):
        text = f"{value:.1f} %" if percent else f"{value:.4g}"
        text += "" if bars[place].stderr is not None else " (error unknown)"
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.85}
        end = (max(value + error, 0.0), place)
        axes.annotate(text, end, xytext=(5, 0), textcoords="offset points", va="center", bbox=paper, zorder=5)
    for level, style, name in ((chance, ":", "chance"), (target, "--", "target")):
        if level is not None:
            text = f"{name}: {level * scale:.4g}{' %' if percent else ''}"
            axes.axvline(level * scale, linestyle=style, color=COLOURS[3], linewidth=1.5, zorder=3, label=text)
    levels = [level * scale for level in (chance, target) if level is not None]
    low = min(0.0, *levels, *(value - error for value, error in zip(values, errors, strict=True)))
    high = max(0.0, *levels, *(value + error for value, error in zip(values, errors, strict=True)))
    room = 0.16 * (high - low) or 1.0  # for the numbers beside the bars
    axes.set_xlim(low - (0.02 * (high - low) if low < 0 else 0.0), high + room)
    axes.set_yticks(places, [_literal(bar.label) for bar in bars])
    axes.invert_yaxis()
    axes.set_xlabel(_literal(axis))
    axes.set_title(_literal(title), fontsize="medium")
    _strip(axes, grid="x")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return figure


def curves_figure(panels: Sequence[tuple[str, Sequence[Curve]]], *, title: str) -> Figure:
    """A panel for each metric, a line for each run; where there are many points, a mean over the raw values.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    figure = _figure(width=min(6.4 * len(panels), 12.8) if len(panels) > 1 else 7.2, height=4.4)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    names = list(dict.fromkeys(curve.label for _, curves in panels for curve in curves))
    for axes, (name, curves) in zip(grid, panels, strict=True):
        for curve in curves:
            _draw(axes, curve, COLOURS[names.index(curve.label) % len(COLOURS)])
        shown = [value for curve in curves for value in curve.values if math.isfinite(value)]
        if shown and min(shown) >= 0:
            axes.set_ylim(0, _top(curves) * 1.08 or 1.0)
        axes.set_xlim(left=0)
        axes.set_xlabel("training step")
        axes.set_ylabel(_literal(name))
        _strip(axes, grid="y")
    handles = {line.get_label(): line for axes in grid for line in axes.get_lines() if line.get_label()[0] != "_"}
    if any(len(curve.values) > SMOOTH_ABOVE for _, curves in panels for curve in curves):
        title += "\n(pale: logged values; strong: their running mean over a twentieth of the run)"
    longest = max((len(label) for label in handles), default=0)
    columns = max(1, min(4, len(handles), int(12 * figure.get_figwidth() / (longest + 7))))
    labels = [_literal(label) for label in handles]
    figure.legend(handles.values(), labels, loc="outside lower center", ncols=columns, frameon=False)
    figure.suptitle(_literal(title), fontsize="medium")
    return figure


def _draw(axes: Axes, curve: Curve, colour: str) -> None:
    """Raw values pale and their running mean strong, if there are many; else the values with their points."""
    count = len(curve.values)
    if count <= SMOOTH_ABOVE:
        axes.plot(curve.steps, curve.values, color=colour, marker="o", markersize=3, linewidth=1.4, label=curve.label)
        return
    width = max(3, count // 20)
    means = [fmean(curve.values[max(0, i - width + 1) : i + 1]) for i in range(count)]
    axes.plot(curve.steps, curve.values, color=colour, alpha=0.25, linewidth=0.8, label="_raw")
    axes.plot(curve.steps, means, color=colour, linewidth=1.8, label=curve.label)


def _top(curves: Sequence[Curve]) -> float:
    """The highest value that shapes the picture: a single outlier may leave it."""
    tops = []
    for curve in curves:
        ordered = sorted(value for value in curve.values if math.isfinite(value))
        if ordered:
            tops.append(ordered[-1] if len(ordered) < 50 else max(ordered[int(0.99 * len(ordered))], curve.values[0]))
    return max(tops, default=1.0)


def _figure(*, width: float, height: float) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency(
            "matplotlib is not installed, so there are no pictures.", next_step="pip install 'mlintern[report]'"
        ) from error
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)  # no display, no global state: safe on a worker thread
    return figure


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _strip(axes: Axes, *, grid: Literal["x", "y"]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#dddddd", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)


def _literal(text: str) -> str:
    """Text as it board: between two dollar signs matplotlib would read a formula, or refuse it."""
    return text.replace("$", r"\$")
