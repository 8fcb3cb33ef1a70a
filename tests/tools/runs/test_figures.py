"""The pictures' contents, read back from the figure before it becomes pixels."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlintern.tools.runs.figures import Bar, Curve, curves_figure, png, scores_figure

PNG = b"\x89PNG\r\n\x1a\n"


def scores(bars: list[Bar], *, chance: float | None = None, target: float | None = None, percent: bool = True) -> Any:
    return scores_figure(bars, title="t", axis="accuracy, %", chance=chance, target=target, percent=percent)


def legend(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def widths(axes: Any) -> list[float]:
    return [bar.get_width() for bar in axes.containers[0]]


@pytest.mark.parametrize("count", [1, 3, 24])
def test_a_chart_is_made_for_any_number_of_runs(count: int) -> None:
    bars = [Bar(f"run-{i}" * (1 + i % 8), 0.04 * i, None if i == 2 else 0.01, i == 0) for i in range(count)]
    assert png(scores(bars, chance=0.1, target=0.85)).startswith(PNG)


def test_bars_start_at_zero_and_carry_95_percent_intervals() -> None:
    [axes] = scores([Bar("base", 0.1, 0.01, True), Bar("sft", 0.8, 0.02)]).axes
    assert widths(axes) == pytest.approx([10.0, 80.0])
    assert axes.get_xlim()[0] == 0
    assert [label.get_text() for label in axes.get_yticklabels()] == ["base", "sft"]
    segments = axes.containers[1].lines[2][0].get_segments()
    assert [segment[:, 0].tolist() for segment in segments] == [
        pytest.approx([10 - 1.96, 10 + 1.96]),
        pytest.approx([80 - 3.92, 80 + 3.92]),
    ]
    assert [text.get_text() for text in axes.texts] == ["10.0 %", "80.0 %"]
    grey, blue = (bar.get_facecolor() for bar in axes.containers[0])
    assert grey != blue


def test_an_unknown_error_is_said_and_not_drawn() -> None:
    [axes] = scores([Bar("a", 0.5, None), Bar("b", 0.5, 0.1)]).axes
    assert len(axes.containers[1].lines[2][0].get_segments()) == 1
    assert [text.get_text() for text in axes.texts] == ["50.0 % (error unknown)", "50.0 %"]


def test_chance_and_target_are_lines_that_the_legend_names() -> None:
    figure = scores([Bar("a", 0.5, 0.1)], chance=0.1, target=0.85)
    assert {"chance: 10 %", "target: 85 %"} <= set(legend(figure))
    assert {10.0, 85.0} <= {line.get_xdata()[0] for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 2}
    assert not {text.partition(":")[0] for text in legend(scores([Bar("a", 0.5, 0.1)]))} & {"chance", "target"}


@given(
    bars=st.lists(st.tuples(st.floats(-1e100, 1e100), st.none() | st.floats(0, 1e100)), min_size=1, max_size=4),
    levels=st.tuples(st.none() | st.floats(-1e100, 1e100), st.none() | st.floats(-1e100, 1e100)),
)
@settings(max_examples=60, deadline=None)
def test_every_bar_line_and_zero_lie_inside_the_picture(
    bars: list[tuple[float, float | None]], levels: tuple[float | None, float | None]
) -> None:
    made = [Bar("a", value, stderr) for value, stderr in bars]
    left, right = scores(made, chance=levels[0], target=levels[1], percent=False).axes[0].get_xlim()
    ends = [value + side * 1.96 * (stderr or 0.0) for value, stderr in bars for side in (-1, 1)]
    assert all(left <= end <= right for end in [0.0, *ends, *(level for level in levels if level is not None)])


@pytest.mark.parametrize("text", [r"$\frac$", "$", "cost $5 of $6", "a_b^c", "100 %"])
def test_names_are_drawn_as_they_stand_and_never_read_as_formulas(text: str) -> None:
    bars = scores_figure([Bar(text, 1.0, 0.1)], title=text, axis=text, chance=None, target=None, percent=False)
    assert png(bars).startswith(PNG)
    assert png(curves_figure([(text, [Curve(text, [1, 2], [2.0, 1.0])])], title=text)).startswith(PNG)


def test_curves_of_different_lengths_and_with_gaps_are_drawn() -> None:
    panels = [
        ("loss", [Curve("a", [1, 2], [2.0, 1.0]), Curve("b", list(range(100)), [1.0 / (i + 1) for i in range(100)])]),
        ("reward", [Curve("a", [1, 2, 3], [-1.0, 0.0, 1.0])]),
    ]
    figure = curves_figure(panels, title="t")
    loss, reward = figure.axes
    assert (loss.get_ylabel(), reward.get_ylabel()) == ("loss", "reward")
    assert loss.get_ylim()[0] == 0 and reward.get_ylim()[0] <= -1
    assert legend(figure) == ["a", "b"]
    assert png(figure).startswith(PNG)


def test_a_run_has_one_colour_in_all_panels_and_another_than_its_neighbour() -> None:
    both = [Curve("a", [1, 2], [2.0, 1.0]), Curve("b", [1, 2], [3.0, 1.0])]
    figure = curves_figure([("loss", both), ("eval_loss", both[1:])], title="t")
    loss, held_out = ([line.get_color() for line in axes.get_lines()] for axes in figure.axes)
    assert loss[0] != loss[1] and held_out == loss[1:]


def test_many_points_get_a_running_mean_and_the_title_says_so() -> None:
    values = [float(i % 2) for i in range(200)]
    figure = curves_figure([("loss", [Curve("a", list(range(200)), values)])], title="t")
    raw, mean = figure.axes[0].get_lines()
    assert list(raw.get_ydata()) == values
    assert mean.get_ydata()[-1] == pytest.approx(0.5) and "running mean" in figure.get_suptitle()


@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_legend_stays_inside_the_picture_however_long_the_names(count: int) -> None:
    curves = [Curve(f"{i}-{'name ' * 7}", [1, 2], [2.0, 1.0]) for i in range(count)]
    figure = curves_figure([("loss", curves)], title="t")
    png(figure)
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_services_load_without_matplotlib() -> None:
    """Start-up of the server must not pay for pictures."""
    code = (
        "import sys, mlintern.tools.runs.service, mlintern.tools.evals.service, mlintern.tools.health.diagnose\n"
        "heavy = {'matplotlib', 'numpy', 'torch', 'pyarrow', 'httpx2', 'huggingface_hub', 'zstandard'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_without_matplotlib_the_error_names_the_extra() -> None:
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'matplotlib':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from mlintern.tools.errors import MissingDependency\n"
        "from mlintern.tools.runs.figures import curves_figure\n"
        "try:\n"
        "    curves_figure([], title='t')\n"
        "except MissingDependency as error:\n"
        "    print(error.next_step)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "pip install 'mlintern[report]'"
