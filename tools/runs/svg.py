"""Charts as SVG text that stands inside a page: they need no library, no network and no script to be seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from mlintern.tools.runs.figures import COLOURS, Bar, Curve, Z

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 34
MOST_POINTS = 300
BAR_HEIGHT = 26
STYLE = """
svg { width: 100%; height: auto; max-width: 46rem; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
.grid { stroke: var(--faint); } .interval { stroke: var(--ink); stroke-width: 2; }
.target { stroke: #d55e00; stroke-dasharray: 5 4; stroke-width: 1.5; }
figure { margin: 1rem 0; } figcaption { font-weight: 600; } .legend { font-size: .85rem; margin: .2rem 0; }
.legend span { margin-right: 1rem; overflow-wrap: anywhere; }
.legend i { display: inline-block; width: 1.1rem; height: .25rem; margin-right: .4rem; vertical-align: middle; }
"""
"""How a page shows the charts; it sets the colours ``--ink`` and ``--faint``."""
LABEL_WIDTH = 190


def lines_svg(
    title: str, curves: Sequence[Curve], *, axis: str = "step", marks: Sequence[tuple[float, str]] = ()
) -> str:
    """A line for each curve over its steps, with axes and a legend. Points that are no number leave gaps.

    ``marks`` are steps with what was found there, drawn as upright lines.
    """
    points = [(step, value) for curve in curves for step, value in zip(curve.steps, curve.values, strict=False)]
    known = [(step, value) for step, value in points if math.isfinite(step) and math.isfinite(value)]
    if not known:
        return ""
    low_x, high_x = _span([step for step, _ in known])
    low_y, high_y = _span([value for _, value in known])

    def place(step: float, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - RIGHT) * (step - low_x) / (high_x - low_x)
        y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low_y) / (high_y - low_y))
        return f"{x:.1f},{y:.1f}"

    parts = [_open(WIDTH, HEIGHT, title)]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = low_y + share * (high_y - low_y)
        y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
        step, x = low_x + share * (high_x - low_x), LEFT + (WIDTH - LEFT - RIGHT) * share
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 16}" text-anchor="middle">{step:.4g}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 3}" text-anchor="middle">{escape(axis)}</text>')
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        for stretch in _stretches(curve):
            dots = " ".join(place(step, value) for step, value in stretch)
            parts.append(f'<polyline points="{dots}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
    for step, words in marks:
        if low_x <= step <= high_x:
            across = place(step, low_y).partition(",")[0]
            line = f'<path d="M{across},{TOP} V{HEIGHT - BOTTOM}" class="target">'
            parts.append(f"{line}<title>{escape(words)}</title></path>")
    parts.append("</svg>")
    keys = (
        f'<span><i style="background:{COLOURS[number % len(COLOURS)]}"></i>{escape(curve.label)}</span>'
        for number, curve in enumerate(curves)
    )
    legend = f'<p class="legend">{"".join(keys)}</p>'
    return f"<figure><figcaption>{escape(title)}</figcaption>{''.join(parts)}{legend}</figure>"


def bars_svg(title: str, bars: Sequence[Bar], *, percent: bool, target: float | None = None) -> str:
    """A bar for each score from zero with its 95 % interval; the target as a dashed line."""
    if not bars:
        return ""
    ends = [abs(bar.value) + Z * (bar.stderr or 0.0) for bar in bars if math.isfinite(bar.value)]
    most = max([*ends, abs(target or 0.0)], default=1.0) or 1.0
    height = BAR_HEIGHT * len(bars) + 8
    room = WIDTH - LABEL_WIDTH - 130

    def along(value: float) -> float:
        return LABEL_WIDTH + room * max(0.0, value) / most

    parts = [_open(WIDTH, height, title)]
    for number, bar in enumerate(bars):
        y = 4 + number * BAR_HEIGHT
        colour = "#7f7f7f" if bar.is_baseline else COLOURS[0]
        width = along(bar.value) - LABEL_WIDTH
        parts.append(f'<text x="{LABEL_WIDTH - 8}" y="{y + 16}" text-anchor="end">{escape(bar.label[:28])}</text>')
        parts.append(f'<rect x="{LABEL_WIDTH}" y="{y + 3}" width="{width:.1f}" height="18" fill="{colour}"/>')
        low, high = bar.value - Z * (bar.stderr or 0.0), bar.value + Z * (bar.stderr or 0.0)
        if bar.stderr is not None:
            parts.append(f'<path d="M{along(low):.1f},{y + 12} H{along(high):.1f}" class="interval"/>')
        said = f"{100 * bar.value:.1f} %" if percent else f"{bar.value:.4g}"
        if bar.stderr is not None:
            said += f" ({100 * low:.1f} to {100 * high:.1f})" if percent else f" ({low:.3g} to {high:.3g})"
        parts.append(f'<text x="{along(max(high, bar.value)) + 6:.1f}" y="{y + 16}">{said}</text>')
    if target is not None:
        parts.append(f'<path d="M{along(target):.1f},0 V{height}" class="target"/>')
    return f"<figure><figcaption>{escape(title)}</figcaption>{''.join(parts)}</svg></figure>"


def _open(width: int, height: int, title: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _stretches(curve: Curve) -> list[list[tuple[float, float]]]:
    """The unbroken parts of a curve, thinned to what a screen can show."""
    every = max(1, len(curve.values) // MOST_POINTS)
    stretches: list[list[tuple[float, float]]] = [[]]
    for number, (step, value) in enumerate(zip(curve.steps, curve.values, strict=False)):
        if not (math.isfinite(step) and math.isfinite(value)):
            stretches.append([])
        elif number % every == 0 or number == len(curve.values) - 1:
            stretches[-1].append((step, value))
    return [stretch for stretch in stretches if stretch]
