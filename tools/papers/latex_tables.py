"""Tables, figures and algorithms of LaTeX source: their captions, and the cells of tables on their grid."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from mlintern.tools.papers.document import Float, Section
from mlintern.tools.papers.latex_source import group_at
from mlintern.tools.papers.tables import Cell, Table, table_from

_FLOAT = re.compile(
    r"\\begin\{((?:wrap|sideways|long)?(?:table|figure)|algorithm)\*?\}(.*?)\\end\{\1\*?\}", re.DOTALL
)
_TABULAR = re.compile(r"\\begin\{(tabular[xy*]?|longtable|tabulary|array)\*?\}(.*?)\\end\{\1\*?\}", re.DOTALL)
_RULE = re.compile(
    r"\\(?:toprule|midrule|bottomrule|hline|addlinespace|specialrule(?:\{[^}]*\}){3}"
    r"|c(?:mid)?(?:rule|line)(?:\([^)]*\))?\{[^}]*\})(?:\[[^\]]*\])?"
)
_FULL_RULE = re.compile(r"\\(?:toprule|midrule|hline)")


def floats_of(sections: Iterable[Section]) -> Iterator[Float]:
    """The floats in ``sections``, numbered through the paper as LaTeX numbers them."""
    counts: dict[str, int] = {}
    for section in sections:
        for found in _FLOAT.finditer(section.text):
            kind = next(kind for kind in ("table", "figure", "algorithm") if kind in found[1])
            caption = _caption(found[2])
            if caption:
                counts[kind] = counts.get(kind, 0) + 1
            label = f"{kind.title()} {counts[kind]}" if caption else ""
            tables = tuple(filter(None, (_tabular(inner[2]) for inner in _TABULAR.finditer(found[2]))))
            heading = f"{label}: {caption}" if label else ""
            shown = "\n\n".join(table.markdown() for table in tables) or found[2].strip()
            name = f"{section.id}.{kind[0].upper()}{counts.get(kind, 0)}"
            yield Float(name, kind, label, caption, section.id, f"{heading}\n{shown}".strip(), tables)


def _caption(text: str) -> str:
    found = re.search(r"\\caption\*?\s*(?:\[[^\]]*\])?\s*(?=\{)", text)
    return " ".join(re.sub(r"\\label\{[^}]*\}", "", group_at(text, found.end())[0]).split()) if found else ""


def _tabular(text: str) -> Table | None:
    """The cells between ``&`` and ``\\\\``, on the grid that ``\\multicolumn`` and ``\\multirow`` make."""
    opening = re.match(r"(?:\s*\[[^\]]*\])*\s*(?=\{)", text)
    end = group_at(text, opening.end())[1] if opening else 0
    second = re.match(r"\s*(?=\{)", text[end:])  # tabularx and tabular* name their width first
    if second and re.match(r"\s*\{[^}]*(?:width|cm|pt|in|em)", text[opening.end() if opening else 0 :]):
        end = group_at(text, end + second.end())[1]
    grid: list[list[Cell | None]] = []
    ruled = False
    for written in re.split(r"\\\\(?:\s*\[[^\]]*\])?|\\tabularnewline", text[end:]):
        ruled = ruled or bool(_FULL_RULE.search(written))
        row = _RULE.sub("", written).strip()
        if not row:
            continue
        number = len(grid)
        line: list[Cell | None] = []
        for cell in re.split(r"(?<!\\)&", row):
            column = len(line)
            wide, tall, inside = _spans(cell.strip())
            above = grid[number - 1][column] if number and column < len(grid[number - 1]) else None
            if not inside and above is not None and above.row + above.tall > number:
                line.append(above)
                continue
            line += [Cell(inside, number, column, False, ruled, tall)] * wide
        grid.append(line)
        ruled = False
    return table_from(grid)


def _spans(cell: str) -> tuple[int, int, str]:
    """Columns, rows and text of a cell."""
    wide = tall = 1
    for _ in range(3):
        found = re.match(r"\\multicolumn\s*\{(\d+)\}\s*\{(?:[^{}]|\{[^{}]*\})*\}\s*(?=\{)", cell)
        if found:
            wide, cell = int(found[1]), group_at(cell, found.end())[0].strip()
            continue
        found = re.match(
            r"\\multirow\s*(?:\[[^\]]*\])?\{(-?\d+)\*?\}\s*(?:\[[^\]]*\])?\{[^{}]*\}(?:\[[^\]]*\])?\s*(?=\{)", cell
        )
        if found:
            tall, cell = max(1, int(found[1])), group_at(cell, found.end())[0].strip()
    plain = re.sub(
        r"\\(?:textbf|textit|emph|texttt|textsc|text|mathbf|underline|makecell(?:\[[^\]]*\])?)\{([^{}]*)\}",
        r"\1",
        cell,
    )
    plain = re.sub(
        r"\\(?:bf|it|small|footnotesize|centering|bfseries|hspace\{[^}]*\}|label\{[^}]*\})(?![a-zA-Z])", "", plain
    )
    plain = re.sub(r"\\([%&_#])", r"\1", plain.replace("\\\\", " "))
    plain = re.sub(r"\$([A-Za-z0-9.,+%-]+)\$", r"\1", plain)
    return wide, tall, " ".join(plain.replace("~", " ").split())
