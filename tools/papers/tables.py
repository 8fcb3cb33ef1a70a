"""Tables of a paper: cells on the grid that a browser would draw, headings over them, as Markdown and as records."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlintern.tools.papers.classes import classes_of

if TYPE_CHECKING:
    from lxml.html import HtmlElement

MOST_COLUMNS = 200
MOST_ROWS = 2_000
_MOST_HEADING_ROWS = 4
_CELL = frozenset(("ltx_td", "ltx_th"))
_MATH = re.compile(r"\$[^$]*\$")


@dataclass(frozen=True)
class Cell:
    """A cell as it is written: ``row`` and ``column`` say where it begins on the grid; a span repeats it."""

    text: str
    row: int
    column: int
    heads: bool = False
    ruled_above: bool = False
    tall: int = 1


@dataclass(frozen=True)
class Table:
    """A table as printed.

    Attributes:
        columns: the heading of each column, its levels joined; empty where it has none.
        rows: the cells below the headings, one text a column; what spans several is in each of them.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The headings as names: what is empty is numbered, what stands twice is told apart."""
        names: list[str] = []
        for place, heading in enumerate(self.columns, 1):
            name = heading or f"column {place}"
            count = sum(one == name or one.startswith(f"{name} (") for one in names)
            names.append(f"{name} ({count + 1})" if count else name)
        return tuple(names)

    def records(self) -> list[dict[str, str]]:
        """The rows by heading."""
        return [dict(zip(self.keys, row, strict=True)) for row in self.rows]

    def markdown(self) -> str:
        """The table as Markdown; one without headings has an empty heading row, which Markdown needs."""
        lines = [_row(self.columns), _row(["---"] * len(self.columns))]
        return "\n".join([*lines, *(_row(row) for row in self.rows)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(cell: str) -> str:
    """``cell`` for Markdown: a bar in a formula is ``\\vert``, elsewhere ``\\|``."""
    if "|" not in cell:
        return cell
    formulas = _MATH.sub(lambda found: re.sub(r"\\\||\|", _bar, found[0]), cell)
    return formulas.replace("|", "\\|")


def _bar(found: re.Match[str]) -> str:
    return "\\Vert " if found[0] == "\\|" else "\\vert "


def read_table(element: HtmlElement, text_of: Callable[[HtmlElement], str]) -> Table | None:
    """The table in a ``ltx_tabular``; None if it holds no text.

    Where the headings end: with the head of the table, with its heading cells, or with the first rule that crosses
    the whole table, as tables of the booktabs package are set.
    """
    return table_from(grid_of(element, text_of))


def table_from(grid: Sequence[Sequence[Cell | None]]) -> Table | None:
    """The table on ``grid``; None if it holds no text."""
    rows = [row for row in grid if any(cell is not None and cell.text for cell in row)]
    if not rows:
        return None
    width = max(len(row) for row in rows)
    filled = [tuple(row) + (None,) * (width - len(row)) for row in rows]
    used = [column for column in range(width) if any(row[column] is not None for row in filled)]
    filled = [tuple(row[column] for column in used) for row in filled]
    heads = _heading_rows(filled)
    columns = tuple(_joined(column) for column in zip(*filled[:heads], strict=True)) if heads else ("",) * len(used)
    return Table(columns, tuple(tuple(cell.text if cell else "" for cell in row) for row in filled[heads:]))


def grid_of(element: HtmlElement, text_of: Callable[[HtmlElement], str]) -> list[list[Cell | None]]:
    """The cells of a table on their grid, by HTML's algorithm for forming a table.

    A cell takes the first free slot of its row and grows over its spans; what grows down ends with its row group, and
    a row span of 0 reaches that end. Heads are first and feet last, wherever they are written.
    """
    grid: list[list[Cell | None]] = []
    for group in _groups(element):
        first = len(grid)
        rows = [row for row in group if "ltx_tr" in classes_of(row)][: MOST_ROWS - first]
        grid += [[] for _ in rows]
        for number, row in enumerate(rows, first):
            column = 0
            for written in (cell for cell in row if classes_of(cell) & _CELL):
                while column < len(grid[number]) and grid[number][column] is not None:
                    column += 1
                wide, tall = max(1, _span(written, "colspan")), _span(written, "rowspan")
                end = first + len(rows) if tall == 0 else min(number + tall, first + len(rows))
                names = classes_of(written)
                heads = "ltx_th_column" in names or (written.tag == "th" and "ltx_th_row" not in names)
                ruled = any(name.startswith("ltx_border_t") for name in names)
                cell = Cell(text_of(written), number, column, heads, ruled)
                for below in range(number, end):
                    line = grid[below]
                    line += [None] * (min(column + wide, MOST_COLUMNS) - len(line))
                    for across in range(column, min(column + wide, MOST_COLUMNS)):
                        line[across] = line[across] or cell
                column += wide
    return grid


def _groups(element: HtmlElement) -> Iterator[list[HtmlElement]]:
    """The rows of each row group: heads, then the rest, then feet; rows in no group are a group of their own."""
    groups: dict[str, list[list[HtmlElement]]] = {"thead": [], "tbody": [], "tfoot": []}
    loose: list[HtmlElement] | None = None
    for child in element:
        names = classes_of(child)
        kind = next((kind for kind in groups if f"ltx_{kind}" in names or child.tag == kind), None)
        if kind is not None:
            groups[kind].append(list(child))
            loose = None
        elif "ltx_tr" in names:
            if loose is None:
                loose = []
                groups["tbody"].append(loose)
            loose.append(child)
    for kind in groups:
        yield from groups[kind]


def _span(cell: HtmlElement, name: str) -> int:
    """A span from its attribute, or from the class that LaTeXML writes where a table is made of ``span``."""
    written = cell.get(name)
    found = re.match(r"\s*(\d+)", written) if written else None
    value = int(found[1]) if found else 1
    if written is None and f"ltx_{name}" in classes_of(cell):
        value = next((int(one.rpartition("_")[2]) for one in classes_of(cell) if one.startswith(f"ltx_{name}_")), 1)
    return value if name == "rowspan" else min(value, MOST_COLUMNS)


def _heading_rows(rows: Sequence[Sequence[Cell | None]]) -> int:
    """How many rows from the top are headings; at least one row is left below them."""
    most = min(_MOST_HEADING_ROWS, len(rows) - 1)
    heads = 0
    while heads < most and all(cell is None or cell.heads or not cell.text for cell in rows[heads]):
        heads += 1
    if heads:
        return heads
    for number in range(1, most + 1):
        cells = rows[number]
        top = min(cell.row for cell in cells if cell is not None)
        if all(cell is not None and cell.ruled_above and cell.row == top for cell in cells) and any(
            cell is not None and cell.ruled_above for cell in rows[0]
        ):
            return number
    return 0


def _joined(cells: Sequence[Cell | None]) -> str:
    """The levels of one column's heading, top down; a cell that spans several rows counts once."""
    levels: list[Cell] = []
    for cell in cells:
        if cell is not None and cell.text and cell not in levels:
            levels.append(cell)
    return " ".join(cell.text for cell in levels)
