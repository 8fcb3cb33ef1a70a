"""Tables: each cell under the heading that a browser draws it under."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lxml.html
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.tools.papers.document import Document
from mlintern.tools.papers.latexml import table_of
from mlintern.tools.papers.reader import read_latexml
from mlintern.tools.papers.tables import Table, grid_of
from tests.tools.papers.conftest import DATA

PINNED = json.loads((DATA / "chromium_tables.json").read_text())
"""Random tables with the slots in which Chromium drew their cells (by bounding boxes, `browser` says which)."""


def element(html: str) -> Any:
    return lxml.html.fromstring(html)


def table(rows: str) -> Table:
    found = table_of(element(f'<table class="ltx_tabular">{rows}</table>'))
    assert found is not None
    return found


@pytest.mark.parametrize("pinned", PINNED["tables"], ids=range(len(PINNED["tables"])))
def test_cells_lie_where_chromium_drew_them(pinned: dict[str, Any]) -> None:
    grid = grid_of(element(pinned["html"]), lambda cell: cell.text_content())
    edges = sorted({edge for row in grid for place, cell in enumerate(row) if cell for edge in _ends(row, place)})
    drawn = [[cell.text if start < len(row) and (cell := row[start]) else "" for start in edges[:-1]] for row in grid]
    assert drawn == pinned["rows"]


def _ends(row: list[Any], place: int) -> tuple[int, int]:
    same = [number for number, cell in enumerate(row) if cell is row[place]]
    return min(same), max(same) + 1


@dataclass(frozen=True)
class Tiling:
    """A grid cut into rectangles: the number of the rectangle that covers each slot."""

    slots: tuple[tuple[int, ...], ...]

    def html(self) -> str:
        """As cells with spans, in the order of their first slots."""
        rows, seen = [], set()
        for top, row in enumerate(self.slots):
            cells = []
            for left, number in enumerate(row):
                if number in seen:
                    continue
                seen.add(number)
                wide = sum(one == number for one in row)
                tall = sum(line[left] == number for line in self.slots)
                spans = f'colspan="{wide}" rowspan="{tall}"'
                tag = "th" if top == 0 else "td"
                cells.append(f'<{tag} class="ltx_td" {spans}>c{number}</{tag}>')
            rows.append(f'<tr class="ltx_tr">{"".join(cells)}</tr>')
        return f'<table class="ltx_tabular"><tbody class="ltx_tbody">{"".join(rows)}</tbody></table>'


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    height, width = draw(st.integers(2, 6)), draw(st.integers(1, 6))
    slots = [[-1] * width for _ in range(height)]
    number = 0
    for top in range(height):
        for left in range(width):
            if slots[top][left] >= 0:
                continue
            room = 1
            while left + room < width and slots[top][left + room] < 0:
                room += 1
            wide, tall = draw(st.integers(1, room)), draw(st.integers(1, height - top))
            for row in range(top, top + tall):
                for column in range(left, left + wide):
                    slots[row][column] = number
            number += 1
    return Tiling(tuple(map(tuple, slots)))


@given(tilings())
def test_every_slot_of_a_table_holds_the_cell_that_covers_it(tiling: Tiling) -> None:
    grid = grid_of(element(tiling.html()), lambda cell: cell.text_content())
    assert [[cell.text if cell else "" for cell in row] for row in grid] == [
        [f"c{number}" for number in row] for row in tiling.slots
    ]


@given(tilings())
def test_a_value_stands_under_the_headings_above_it(tiling: Tiling) -> None:
    found = table_of(element(tiling.html()))
    assert found is not None
    heads = len(tiling.slots) - len(found.rows)
    for place, heading in enumerate(found.columns):
        levels = dict.fromkeys(f"c{row[place]}" for row in tiling.slots[:heads])
        assert heading == " ".join(levels)
    for row, slots in zip(found.rows, tiling.slots[heads:], strict=True):
        assert list(row) == [f"c{number}" for number in slots]
    assert [len(record) for record in found.records()] == [len(found.columns)] * len(found.rows)


def test_headings_over_two_rows_are_joined_and_spans_repeated() -> None:
    found = table(
        '<thead class="ltx_thead"><tr class="ltx_tr"><th class="ltx_th" rowspan="2">Model</th>'
        '<th class="ltx_th" colspan="2">GRPO</th></tr>'
        '<tr class="ltx_tr"><th class="ltx_th">lr</th><th class="ltx_th">G</th></tr></thead>'
        '<tbody class="ltx_tbody"><tr class="ltx_tr"><td class="ltx_td" rowspan="2">1.7B</td>'
        '<td class="ltx_td">1e-6</td><td class="ltx_td">16</td></tr>'
        '<tr class="ltx_tr"><td class="ltx_td" colspan="2">as above</td></tr></tbody>'
    )
    assert found.markdown().splitlines() == [
        "| Model | GRPO lr | GRPO G |",
        "| --- | --- | --- |",
        "| 1.7B | 1e-6 | 16 |",
        "| 1.7B | as above | as above |",
    ]
    assert found.records()[1] == {"Model": "1.7B", "GRPO lr": "as above", "GRPO G": "as above"}


def test_without_heading_cells_the_headings_end_at_the_first_rule_across() -> None:
    found = table(
        '<tr class="ltx_tr"><td class="ltx_td ltx_border_tt" rowspan="2">Step</td>'
        '<td class="ltx_td ltx_border_tt" colspan="2">Loss</td></tr>'
        '<tr class="ltx_tr"><td class="ltx_td ltx_border_t">SFT</td><td class="ltx_td ltx_border_t">DPO</td></tr>'
        '<tr class="ltx_tr"><td class="ltx_td ltx_border_t">10</td><td class="ltx_td ltx_border_t">1.2</td>'
        '<td class="ltx_td ltx_border_t">0.7</td></tr>'
    )
    assert (found.columns, found.rows) == (("Step", "Loss SFT", "Loss DPO"), (("10", "1.2", "0.7"),))


def test_spans_that_latexml_writes_as_classes_count_too() -> None:
    found = table_of(
        element(
            '<span class="ltx_tabular"><span class="ltx_tr"><span class="ltx_td ltx_th ltx_th_column">a</span>'
            '<span class="ltx_td ltx_th ltx_th_column ltx_colspan ltx_colspan_2">b</span></span>'
            '<span class="ltx_tr"><span class="ltx_td">1</span><span class="ltx_td">2</span>'
            '<span class="ltx_td">3</span></span></span>'
        )
    )
    assert found is not None
    assert (found.keys, found.rows) == (("a", "b", "b (2)"), (("1", "2", "3"),))


def test_a_bar_in_a_cell_ends_no_cell() -> None:
    found = table(
        '<tr class="ltx_tr"><th class="ltx_th">p<math alttext="\\pi(y|x)"></math></th>'
        '<th class="ltx_th">a|b</th></tr>'
        '<tr class="ltx_tr"><td class="ltx_td">1</td><td class="ltx_td">2</td></tr>'
    )
    assert found.markdown().splitlines()[0] == r"| p$\pi(y\vert x)$ | a\|b |"
    assert found.keys == (r"p$\pi(y|x)$", "a|b")


# The page with every structure -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page() -> Document:
    path = Path(__file__).parent / "data" / "structures.html"
    return read_latexml(path.read_bytes(), source="arxiv_html")


def test_the_table_of_the_page_is_its_numbers_as_printed(page: Document) -> None:
    one = page.float_named("table 1")
    assert one is not None and (one.id, one.kind, one.caption) == ("S1.T1", "table", "Hyperparameters")
    (found,) = one.tables
    assert found.columns == ("Model", "Data", "SFT lr", "SFT epochs", "GRPO lr", "GRPO G")
    assert found.rows == (
        ("1.7B", "math", r"$1\times 10^{-5}$", "3", "1e-6", "16"),
        ("1.7B", "code", "2e-5", "2", "5e-7", "8"),
        ("4B", "all", *["same as 1.7B"] * 4),
    )


def test_labels_of_lists_stand_before_their_text(page: Document) -> None:
    text = page.locate("S1")[0].text
    assert "Data: We use open-r1/Mixture-of-Thoughts.\nLR: $1\\mathrm{e}{-5}$" in text
    assert "1. First\n  - nested a\n  - nested b\n2. Second" in text


def test_an_algorithm_has_its_lines_once_with_mathematics_and_citation_keys(page: Document) -> None:
    lines = page.locate("Algorithm 1")[1].text.splitlines()  # type: ignore[union-attr]
    assert lines[0] == "Algorithm 1 Iterative GRPO (Shao et al., 2024a [#bib.bib1])"
    assert lines[2] == r"1:  for iteration $=1,\dots,I$ do"
    assert lines[3] == (
        r"2:     reference model $\pi_{ref}\leftarrow\pi_{\theta}$ {as in Shao et al. (2024a [#bib.bib1])}"
    )


@pytest.mark.parametrize("address", ["abs", "gpqa", "thanks"])
def test_an_address_behind_a_link_is_found(page: Document, address: str) -> None:
    phrase = f"https://github.com/acme/{address}"
    assert list(page.find(phrase)) or phrase in page.abstract


def test_authors_are_names_and_the_reference_has_its_year_and_title(page: Document) -> None:
    assert page.authors == ("Ada Lovelace", "Alan Turing")
    (entry,) = page.references
    assert (entry.title, entry.year, entry.arxiv) == (
        "Deepseekmath: Pushing the limits of mathematical reasoning",
        2024,
        "2402.03300",
    )


def test_code_keeps_its_lines_and_indentation(page: Document) -> None:
    text = page.locate("S1")[0].text
    assert "def reward(x):\n    if x > 0:\n        return 1.0  # ok\n    return 0.0" in text
    assert "$ pip install trl==1.16\n    --lr 1e-6" in text
    assert "Theorem 1 (Bound)." in text and "Proof.\nTrivial. ∎" in text
    assert "The last line should be ’Answer: $LETTER’." in page.locate("A.1")[0].text
