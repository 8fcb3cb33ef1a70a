"""The pictures' contents, read back from the figure before it becomes pixels."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlintern.tools.runs.figures import Bar, Curve, curves_png, scores_png

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("count", [1, 3, 24])
def test_a_chart_is_made_for_any_number_of_runs(count: int) -> None:
    bars = [Bar(f"run-{i}" * (1 + i % 8), 0.04 * i, None if i == 2 else 0.01, i == 0) for i in range(count)]
    picture = scores_png(bars, title="t", axis="accuracy, %", chance=0.1, target=0.85, percent=True)
    assert picture.startswith(PNG)


def test_scores_of_zero_and_below_are_drawn() -> None:
    bars = [Bar("a", 0.0, 0.0), Bar("b", -0.4, 0.1)]
    assert scores_png(bars, title="t", axis="mcc", chance=None, target=None, percent=False).startswith(PNG)


def test_curves_of_different_lengths_and_with_gaps_are_drawn() -> None:
    panels = [
        ("loss", [Curve("a", [1, 2], [2.0, 1.0]), Curve("b", list(range(100)), [1.0 / (i + 1) for i in range(100)])]),
        ("reward", [Curve("a", [1, 2, 3], [-1.0, 0.0, 1.0])]),
    ]
    assert curves_png(panels, title="t").startswith(PNG)


def test_services_load_without_matplotlib() -> None:
    """Start-up of the server must not pay for pictures."""
    code = (
        "import sys, mlintern.tools.runs.service, mlintern.tools.evals.service, mlintern.tools.health.diagnose\n"
        "heavy = {'matplotlib', 'numpy', 'torch', 'pyarrow', 'httpx', 'huggingface_hub', 'zstandard'}\n"
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
        "from mlintern.tools.runs.figures import curves_png\n"
        "try:\n"
        "    curves_png([], title='t')\n"
        "except MissingDependency as error:\n"
        "    print(error.next_step)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "pip install 'mlintern[report]'"
