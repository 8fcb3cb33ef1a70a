"""The report as one page: it holds everything, asks for nothing, and says nothing of the machine that wrote it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mlintern.tools.data.contamination_record import ContaminationRecord, remember, remembered
from mlintern.tools.data.inspection_results import ContaminationResult
from mlintern.tools.ledger import Ledger
from mlintern.tools.runs.figures import Bar, Curve
from mlintern.tools.runs.html_report import page, without_paths
from mlintern.tools.runs.service import RunService
from mlintern.tools.runs.svg import bars_svg, lines_svg
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.tools.runs.experiments import first_light

pytestmark = pytest.mark.anyio


class Wanted(HTMLParser):
    """What a browser would fetch for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {"src", "srcset", "data"} | ({"href"} if tag == "link" else set())
        self.fetched += [value or "" for name, value in attrs if name in names]
        self.fetched += [tag] if tag in ("script", "iframe") else []


@pytest.fixture
async def report(workspace: Workspace, ledger: Ledger, clock: FakeClock) -> str:
    first_light(workspace, ledger)
    checked = ContaminationResult(
        train="/data/train.jsonl",
        evaluation="/data/heldout.jsonl",
        train_rows=20_000,
        evaluation_rows=1_000,
        flagged=3,
        rate=0.003,
        train_rows_flagged=4,
        matches=[],
        columns={},
        splits={},
        short_texts=0,
        method="8-grams",
    )
    remember(workspace, checked, train=checked.train, evaluation=checked.evaluation, now=1_800_000_000.0)
    for job_id, answer in (("job-base", "5"), ("job-sft2", "/etc/ssl/key")):
        path = workspace.job(job_id) / "output" / "samples.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        told = [row | {"question": f"<b>2+2?</b> {row['id']}", "answer": answer, "target": "4"} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in told))
    service = RunService(workspace=workspace, ledger=ledger, clock=clock)
    result = await service.report("maxnum", target=0.85)
    assert result.page is not None
    return Path(result.page).read_text(encoding="utf-8")


async def test_the_page_holds_verdict_scores_curves_samples_checks_and_commands(report: str) -> None:
    assert "<strong>Improved.</strong>" in report and report.count("<svg") >= 2
    assert "87.8 % (85.8 to 89.8)" in report and 'aria-label="training loss"' in report
    assert "Items gained" in report and "Items lost" in report and "2+2?" in report
    assert "20,000 against 1,000" in report and "3 (0.30%)" in report
    assert "MLINTERN_OUTPUT_DIR=out uv run" in report and "scripts/" in report


async def test_the_page_fetches_nothing_and_runs_nothing(report: str) -> None:
    wanted = Wanted()
    wanted.feed(report)
    assert wanted.fetched == [] and "default-src 'none'" in report
    assert "<b>2+2?" not in report and "&lt;b&gt;2+2?" in report


async def test_the_page_names_no_folder_of_this_machine(report: str, workspace: Workspace) -> None:
    assert str(workspace.root) not in report and str(Path.home()) + "/" not in report
    text = re.sub(r"</?[a-z][^>]*>", " ", report.partition("</style>")[2])
    assert not re.findall(r"(?<![\w.:/~$…])/(?:\w+/)+\w+", text)
    assert "$MLINTERN_HOME/scripts/" in report and "…/train.jsonl" in report and "…/key" in report


@pytest.mark.parametrize(
    "text, shown",
    [
        (
            "uv run /work/lab/scripts/a.py --x=/data/big/set.jsonl",
            "uv run $MLINTERN_HOME/scripts/a.py --x=…/set.jsonl",
        ),
        ("https://huggingface.co/org/name and org/name/file", "https://huggingface.co/org/name and org/name/file"),
        ("1/2 and a/b/c, /tmp", "1/2 and a/b/c, /tmp"),
        ('"model": "/models/base/x"', '"model": "…/x"'),
    ],
)
def test_paths_are_told_from_addresses_and_fractions(text: str, shown: str) -> None:
    assert without_paths(text, workspace=Path("/work/lab")) == shown


def test_markup_of_others_stays_text() -> None:
    shown = page(
        "# A\n\n<script>alert(1)</script> [x](javascript:alert(1))", title="<i>", charts={}, workspace=Path("/w")
    )
    assert "<script" not in shown and "<title>&lt;i&gt;</title>" in shown and 'href="javascript' not in shown


def test_curves_with_gaps_infinities_and_single_points_are_drawn() -> None:
    steps = [0.0, 1.0, 2.0, 3.0]
    drawn = lines_svg("a < b", [Curve("x & y", steps, [1.0, float("nan"), float("inf"), 2.0])])
    assert drawn.count("<polyline") == 2 and "x &amp; y" in drawn and "a &lt; b" in drawn and "nan" not in drawn
    assert lines_svg("none", [Curve("x", [0.0], [float("nan")])]) == ""
    assert "polyline" in lines_svg("flat", [Curve("x", [0.0, 1.0], [3.0, 3.0])])


def test_a_long_curve_is_thinned_and_keeps_its_end() -> None:
    count = 50_000
    drawn = lines_svg("long", [Curve("x", [float(i) for i in range(count)], [float(i) for i in range(count)])])
    assert len(drawn) < 15_000 and f"{640 - 12:.1f},12.0" in drawn


def test_bars_say_their_intervals_and_a_missing_error_is_not_zero() -> None:
    drawn = bars_svg("scores", [Bar("base", 0.5, 0.05, True), Bar("new", 0.75, None)], percent=True, target=0.8)
    assert "50.0 % (40.2 to 59.8)" in drawn and ">75.0 %<" in drawn and 'class="target"' in drawn


def test_only_checks_of_the_data_that_was_used_are_told(workspace: Workspace) -> None:
    folder = workspace.folder("contamination")
    mine = ContaminationRecord(
        train="org/a", evaluation="org/b", train_rows=1, evaluation_rows=1, flagged=0, rate=0.0, made="2026-01-01"
    )
    (folder / "mine.json").write_text(mine.model_dump_json())
    (folder / "damaged.json").write_text("{")
    assert remembered(workspace, used='{"dataset": "org/a"}') == [mine]
    assert remembered(workspace, used='{"dataset": "org/c"}') == []


async def test_what_was_answered_is_read_in_the_other_process_alone(
    workspace: Workspace, ledger: Ledger, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_light(workspace, ledger)

    def here(*_: object, **__: object) -> None:
        raise AssertionError("samples were read in the server's process")

    monkeypatch.setattr("mlintern.tools.evals.compare.find_flips", here)
    result = await RunService(workspace=workspace, ledger=ledger, clock=clock).report("maxnum")
    assert "Items gained" in Path(str(result.page)).read_text() and " items gained, " in Path(result.path).read_text()
