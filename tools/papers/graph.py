"""A walk for people who would rather look: as GraphML for graph programs, and as a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from mlintern.common.text import cut_line
from mlintern.tools.papers.walking import Node, Walk

_WIDTH, _HEIGHT = 1200, 760
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 40, 70, 70
_MOST_DRAWN = 300
_LABELS = 18
_LABEL_CHARS = 38
_COLOURS = ("#b3261e", "#1f5fa8", "#7a9cc6")
"""The seed, its neighbours, their neighbours; told apart by darkness too, not by hue alone."""

_NODE_KEYS = (("title", "string"), ("year", "int"), ("citations", "int"), ("depth", "int"), ("url", "string"))
_EDGE_KEYS = (("influential", "boolean"), ("intents", "string"), ("contexts", "string"), ("source", "string"))


@dataclass(frozen=True)
class WalkGraph:
    """A walk as two texts: ``graphml`` (all papers and citations) and ``svg`` (a picture of the best 300)."""

    walk_id: str
    graphml: str
    svg: str


def draw(walk: Walk) -> WalkGraph:
    """Both forms of ``walk``."""
    return WalkGraph(walk.walk_id, _graphml(walk), _svg(walk))


def _graphml(walk: Walk) -> str:
    root = ElementTree.Element("graphml", xmlns="http://graphml.graphdrawing.org/xmlns")
    for kind, keys in (("node", _NODE_KEYS), ("edge", _EDGE_KEYS)):
        for name, sort in keys:
            ElementTree.SubElement(root, "key", {"id": name, "for": kind, "attr.name": name, "attr.type": sort})
    graph = ElementTree.SubElement(root, "graph", id=walk.walk_id, edgedefault="directed")
    for name, node in walk.nodes.items():
        element = ElementTree.SubElement(graph, "node", id=_shown_id(name, node))
        paper = node.paper
        for key, value in (
            ("title", paper.title),
            ("year", paper.year),
            ("citations", paper.citations),
            ("depth", node.depth),
            ("url", paper.url),
        ):
            _data(element, key, value)
    for link in walk.links.values():
        ends = {
            "source": _shown_id(link.citing, walk.nodes[link.citing]),
            "target": _shown_id(link.cited, walk.nodes[link.cited]),
        }
        element = ElementTree.SubElement(graph, "edge", ends)
        influential = None if link.influential is None else str(link.influential).lower()
        for key, value in (
            ("influential", influential),
            ("intents", ", ".join(link.intents)),
            ("contexts", " | ".join(link.contexts)),
            ("source", link.source),
        ):
            _data(element, key, value)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _data(element: ElementTree.Element, key: str, value: object) -> None:
    """A value of ``element``; what is unknown is left out, and so are characters that XML cannot hold."""
    if value is not None and value != "":
        text = "".join(letter for letter in str(value) if letter >= " " or letter in "\t\n")
        ElementTree.SubElement(element, "data", key=key).text = text


def _shown_id(name: str, node: Node) -> str:
    return node.paper.key if node.paper.keys else name


@dataclass(frozen=True)
class _Dot:
    name: str
    node: Node
    x: float
    y: float
    radius: float


def _svg(walk: Walk) -> str:
    """Years from left to right, citations from bottom to top (logarithmic), the seed ringed, arrows to the cited."""
    seed = next(iter(walk.nodes))
    ranked = sorted(walk.nodes, key=lambda name: (name != seed, -(walk.nodes[name].paper.citations or 0), name))
    drawn = [name for name in ranked if walk.nodes[name].paper.year is not None or name == seed][:_MOST_DRAWN]
    dots = _placed(walk, drawn)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="Helvetica, Arial, sans-serif" role="img">',
        f"<title>{escape(_heading(walk, seed))}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="30" font-size="18" fill="#1a1a1a">{escape(_heading(walk, seed))}</text>',
        f'<text x="{_LEFT}" y="50" font-size="12" fill="#555">{escape(_caption(walk, drawn))}</text>',
        *_axes(dots),
        *_lines(walk, dots),
        *_circles(dots, seed),
        *_labels(dots),
        *_legend(),
        "</svg>",
    ]
    return "\n".join(parts)


def _placed(walk: Walk, names: Sequence[str]) -> dict[str, _Dot]:
    years = [year for name in names if (year := walk.nodes[name].paper.year) is not None] or [0]
    first, last = min(years), max(years)
    height = _heights([walk.nodes[name] for name in names])
    span = _WIDTH - _LEFT - _RIGHT
    columns: dict[int, int] = {}
    dots: dict[str, _Dot] = {}
    for name in names:
        paper = walk.nodes[name].paper
        year = paper.year if paper.year is not None else last
        # Papers of one year stand side by side inside the year's column, by a step that spreads without a pattern.
        place = columns.get(year, 0)
        columns[year] = place + 1
        within = (place * 0.618034) % 1.0
        x = _LEFT + span * (year - first + 0.1 + 0.8 * within) / (last - first + 1)
        share = height(paper.citations or 0)
        dots[name] = _Dot(name, walk.nodes[name], x, _floor_up(share), 4 + 8 * share)
    return dots


def _heights(nodes: Sequence[Node]) -> Callable[[int], float]:
    """From a number of citations to a place between 0 and 1, logarithmic between the least and the most cited."""
    counts = [math.log10(1 + (node.paper.citations or 0)) for node in nodes] or [0.0]
    low, high = min(counts), max(counts)
    return lambda citations: (math.log10(1 + citations) - low) / max(0.3, high - low)


def _floor_up(share: float) -> float:
    return _HEIGHT - _BOTTOM - 15 - share * (_HEIGHT - _TOP - _BOTTOM - 40)


def _axes(dots: dict[str, _Dot]) -> Iterator[str]:
    years = [dot.node.paper.year for dot in dots.values() if dot.node.paper.year is not None]
    if not years:
        return
    first, last = min(years), max(years)
    floor, span = _HEIGHT - _BOTTOM, _WIDTH - _LEFT - _RIGHT
    step = max(1, math.ceil((last - first + 1) / 15))
    for year in range(first, last + 1, step):
        x = _LEFT + span * (year - first + 0.5) / (last - first + 1)
        yield f'<text x="{x:.0f}" y="{floor + 24}" font-size="12" text-anchor="middle" fill="#555">{year}</text>'
    height = _heights([dot.node for dot in dots.values()])
    for power in (power for power in range(8) if 0 <= height(10**power) <= 1):
        y = _floor_up(height(10**power))
        yield f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.0f}" y2="{y:.0f}" stroke="#eee"/>'
        number = f"{10**power:,}"
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.0f}" font-size="12" text-anchor="end" fill="#555">{number}</text>'
    yield (
        f'<text transform="translate(20 {_HEIGHT // 2}) rotate(-90)" font-size="12" text-anchor="middle" '
        f'fill="#555">citations (logarithmic)</text>'
    )


def _lines(walk: Walk, dots: dict[str, _Dot]) -> Iterator[str]:
    for link in walk.links.values():
        one, other = dots.get(link.citing), dots.get(link.cited)
        if one is not None and other is not None:
            look = (
                'stroke="#b3261e" stroke-opacity="0.55"' if link.influential else 'stroke="#999" stroke-opacity="0.3"'
            )
            yield f'<line x1="{one.x:.0f}" y1="{one.y:.0f}" x2="{other.x:.0f}" y2="{other.y:.0f}" {look}/>'


def _circles(dots: dict[str, _Dot], seed: str) -> Iterator[str]:
    for dot in reversed(dots.values()):
        paper = dot.node.paper
        colour = _COLOURS[min(dot.node.depth, len(_COLOURS) - 1)]
        ring = ' stroke="#1a1a1a" stroke-width="3"' if dot.name == seed else ' stroke="#fff" stroke-width="1"'
        told = f"{paper.title} ({paper.year or 'year unknown'}), {_count(paper.citations)}"
        yield (
            f'<circle cx="{dot.x:.0f}" cy="{dot.y:.0f}" r="{dot.radius:.1f}" fill="{colour}"{ring}>'
            f"<title>{escape(told)}</title></circle>"
        )


def _labels(dots: dict[str, _Dot]) -> Iterator[str]:
    """Titles of the first dots, each where no other label stands already."""
    taken: list[tuple[float, float, float]] = []
    for dot in dots.values():
        if len(taken) >= _LABELS:
            return
        text = cut_line(dot.node.paper.title, _LABEL_CHARS)
        width = 6.2 * len(text)
        left = dot.x + dot.radius + 4
        if left + width > _WIDTH - 5:
            left = dot.x - dot.radius - 4 - width
        if not text or any(abs(dot.y - y) < 14 and left < end and left + width > start for start, end, y in taken):
            continue
        taken.append((left, left + width, dot.y))
        # A white copy below keeps it readable over lines; paint-order would do, but not every viewer knows it.
        for look in ('fill="#fff" stroke="#fff" stroke-width="3"', 'fill="#1a1a1a"'):
            yield f'<text x="{left:.0f}" y="{dot.y + 4:.0f}" font-size="11" {look}>{escape(text)}</text>'


def _legend() -> Iterator[str]:
    y = _HEIGHT - 18
    for place, (colour, text) in enumerate(zip(_COLOURS, ("begun here", "one step", "two steps"), strict=True)):
        x = _LEFT + 110 * place
        yield f'<circle cx="{x}" cy="{y}" r="6" fill="{colour}"/>'
        yield f'<text x="{x + 12}" y="{y + 4}" font-size="12" fill="#333">{text}</text>'
    x = _LEFT + 340
    yield f'<line x1="{x}" x2="{x + 26}" y1="{y}" y2="{y}" stroke="#b3261e" stroke-width="2"/>'
    yield f'<text x="{x + 34}" y="{y + 4}" font-size="12" fill="#333">influential citation</text>'


def _heading(walk: Walk, seed: str) -> str:
    title = walk.nodes[seed].paper.title or walk.request.seed
    what = {"both": "References and citations of", "similar": "Papers like"}.get(walk.request.direction)
    return f"{what or f'{walk.request.direction.capitalize()} of'} {cut_line(title, 90)}"


def _caption(walk: Walk, drawn: Sequence[str]) -> str:
    left_out = len(walk.nodes) - len(drawn)
    cut = f"; {left_out} more, without a year or less cited, are in the GraphML" if left_out else ""
    return f"{len(drawn)} papers by year and citations{cut}"


def _count(citations: int | None) -> str:
    return "citations unknown" if citations is None else f"{citations:,} citations"
