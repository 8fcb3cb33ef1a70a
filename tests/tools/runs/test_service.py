from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.errors import BadInput, MlinternError, NotFound
from mlintern.tools.ledger import Ledger
from mlintern.tools.runs import experiment_rows
from mlintern.tools.runs.pictures import labels
from mlintern.tools.runs.service import RunService
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.tools.runs.experiments import EVALUATION, SFT, Bench, first_light, items

pytestmark = pytest.mark.anyio
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def service(workspace: Workspace, ledger: Ledger, clock: FakeClock) -> RunService:
    return RunService(workspace=workspace, ledger=ledger, clock=clock)


@pytest.fixture
def bench(workspace: Workspace, ledger: Ledger) -> Bench:
    return Bench(workspace, ledger)


async def verdicts(service: RunService, experiment: str = "maxnum") -> dict[str, str]:
    page = await service.list(experiment=experiment, limit=100)
    return {run.run_id: run.verdict for run in page.runs}


# --- list -----------------------------------------------------------------------------------------------------------


async def test_runs_come_latest_first_with_recipe_score_cost_and_verdict(
    service: RunService, workspace: Workspace, ledger: Ledger
) -> None:
    first_light(workspace, ledger)
    page = await service.list(experiment="maxnum")
    assert [run.run_id for run in page.runs] == ["sft-800", "sft-big", "eval-sft-180", "sft-180", "base"]
    best = page.runs[0]
    assert (best.job_id, best.experiment, best.state, best.usd) == ("job-sft2", "maxnum", "succeeded", 1.5)
    assert best.recipe == "sft base on train.jsonl 800 steps lr 0.0015"
    assert best.started == "2027-01-15T08:05:00Z"
    assert best.best is not None
    assert (best.best.task, best.best.metric, best.best.value, best.best.n) == ("maxnum", "accuracy", 0.878, 1000)
    assert await verdicts(service) == {
        "base": "baseline",
        "sft-180": "improved",
        "eval-sft-180": "evaluates sft-180",
        "sft-big": "failed",
        "sft-800": "improved",
    }


async def test_a_model_measured_by_another_job_is_credited_to_the_run_that_made_it(
    service: RunService, workspace: Workspace, ledger: Ledger
) -> None:
    first_light(workspace, ledger)
    runs = {run.run_id: run for run in (await service.list(experiment="maxnum")).runs}
    credited = runs["sft-180"].best
    assert credited is not None
    assert (credited.value, credited.measured_by) == (0.65, "job-eval1")
    assert runs["eval-sft-180"].best is None


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("started", ["sft-800", "sft-big", "eval-sft-180", "sft-180", "base"]),
        ("best", ["sft-800", "sft-180", "base", "sft-big", "eval-sft-180"]),
        ("usd", ["sft-800", "sft-180", "sft-big", "eval-sft-180", "base"]),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_pages_in_any_order_join_to_the_whole(
    service: RunService, workspace: Workspace, ledger: Ledger, sort: str, order: list[str], limit: int
) -> None:
    first_light(workspace, ledger)
    seen: list[str] = []
    cursor = None
    for _ in range(6):
        page = await service.list(experiment="maxnum", sort=sort, limit=limit, cursor=cursor)  # type: ignore[arg-type]
        assert page.total == 5
        seen += [run.run_id for run in page.runs]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == order


async def test_a_run_that_begins_between_two_pages_shifts_nothing(service: RunService, bench: Bench) -> None:
    for name in ("a", "b", "c"):
        bench.job(name, SFT)
    page = await service.list(limit=2)
    bench.job("d", SFT)
    rest = await service.list(limit=2, cursor=page.next_cursor)
    assert [run.run_id for run in (*page.runs, *rest.runs)] == ["c", "b", "a"]


async def test_all_experiments_together_are_each_judged_by_their_own_baseline(
    service: RunService, bench: Bench
) -> None:
    for name, right in (("one", 100), ("two", 880)):
        bench.evaluate(f"base-{name}", "/models/base", items(right, 1000, seed=1), experiment=name)
        model = bench.train(f"sft-{name}", experiment=name)
        bench.measure(f"sft-{name}", model, items(500, 1000, seed=2))
    bench.job("loose", None, experiment=None)
    found = {run.run_id: run.verdict for run in (await service.list()).runs}
    assert found == {
        "base-one": "baseline",
        "sft-one": "improved",
        "base-two": "baseline",
        "sft-two": "regressed",
        "loose": "not_evaluated",
    }


async def test_an_empty_workspace_has_no_runs(service: RunService) -> None:
    page = await service.list()
    assert (page.runs, page.total, page.next_cursor) == ([], 0, None)


@pytest.mark.parametrize(
    "arguments",
    [
        {"sort": "newest"},
        {"sort": "best"},
        {"limit": 0},
        {"limit": 201},
        {"cursor": "nonsense"},
        {"cursor": "WzFd"},
        {"experiment": "maxnun"},
    ],
)
async def test_what_cannot_be_listed_is_refused_with_a_next_step(
    service: RunService, bench: Bench, arguments: dict[str, str]
) -> None:
    bench.job("a", SFT)
    with pytest.raises(MlinternError) as caught:
        await service.list(**arguments)  # type: ignore[arg-type]
    assert caught.value.next_step


async def test_a_cursor_of_another_order_is_refused(service: RunService, bench: Bench) -> None:
    for name in ("a", "b"):
        bench.job(name, SFT)
    page = await service.list(limit=1)
    with pytest.raises(BadInput):
        await service.list(limit=1, sort="usd", cursor=page.next_cursor)


# --- verdicts -------------------------------------------------------------------------------------------------------


async def test_the_more_runs_were_tried_the_more_it_takes_to_beat_the_baseline(
    service: RunService, bench: Bench
) -> None:
    bench.evaluate("base", "/models/base", [1.0] * 500 + [0.0] * 500)
    lucky = [1.0] * 500 + [1.0] * 8 + [0.0] * 492
    bench.measure("lucky", bench.train("lucky"), lucky)
    assert (await verdicts(service))["lucky"] == "improved"  # p = 0.0078 by itself
    for index in range(9):
        bench.measure(f"run-{index}", bench.train(f"run-{index}"), [1.0] * 500 + [0.0] * 500)
    assert (await verdicts(service))["lucky"] == "no_evidence"


async def test_a_baseline_measured_on_other_items_is_not_comparable(service: RunService, bench: Bench) -> None:
    bench.evaluate("base", "/models/base", items(50, 500, seed=1))
    bench.measure("sft", bench.train("sft"), items(800, 1000, seed=2), dataset="data/other.jsonl")
    assert (await verdicts(service))["sft"] == "not_comparable"


async def test_of_a_baseline_on_fewer_items_the_shared_ones_are_compared(service: RunService, bench: Bench) -> None:
    bench.evaluate("base", "/models/base", items(50, 500, seed=1))
    bench.measure("sft", bench.train("sft"), items(800, 1000, seed=2))
    assert (await verdicts(service))["sft"] == "improved"


async def test_a_checkpoint_does_not_stand_for_the_final_model(service: RunService, bench: Bench) -> None:
    bench.evaluate("base", "/models/base", items(100, 1000, seed=1))
    model = bench.train("sft")
    bench.evaluate("eval-mid", model.replace("/model", "/checkpoint-100"), items(900, 1000, seed=2))
    bench.evaluate("eval-end", model, items(700, 1000, seed=3))
    [run] = [run for run in (await service.list(experiment="maxnum")).runs if run.run_id == "sft"]
    assert run.best is not None
    assert (run.best.value, run.best.measured_by) == (0.7, "eval-end")


# --- report ---------------------------------------------------------------------------------------------------------


async def test_the_report_states_the_verdict_first_and_everything_it_rests_on(
    service: RunService, workspace: Workspace, ledger: Ledger
) -> None:
    first_light(workspace, ledger)
    result = await service.report("maxnum", goal="Name the largest number", target=0.85)
    text = Path(result.path).read_text()
    assert result.path == str(workspace.root / "reports" / "maxnum" / "report.md")
    assert text.splitlines()[2].startswith("**Improved.** `sft-800` scored 87.8 % ± 1.0 (n = 1,000)")
    assert "The target of 85.0 % was **reached**." in text
    assert "Goal: Name the largest number" in text
    assert "exact McNemar test (790 items gained, 13 lost)" in text
    assert "It is the best of 2 runs, picked on the same items." in text
    assert "### What `sft-800` gained and lost" in text and "790 items gained, 13 lost; some of each" in text
    assert len([line for line in text.splitlines() if line.startswith(("| gained | ", "| lost | "))]) == 6
    assert (
        "| sft-180 | job-sft1 | succeeded | 65.0 % ± 1.5 (n = 1,000) | improved | max_steps 180 | $0.25 | 1 min |"
        in text
    )
    assert "`sft-big` failed: killed: out of memory" in text
    assert "$1.75 and 1 h 4 min of job time over 5 jobs." in text
    assert "trl==1.16.0; Python >=3.11" in text
    assert f"uv run {workspace.script('sjob-sft2000')}" in text
    assert (result.verdict, result.best.value if result.best else None) == ("improved", 0.878)


async def test_the_limits_of_the_claim_name_n_selection_seeds_and_contamination(
    service: RunService, workspace: Workspace, ledger: Ledger
) -> None:
    first_light(workspace, ledger)
    result = await service.report("maxnum")
    limits = "\n".join(result.limits)
    for statement in ("n = 1,000", "The best of 2 runs", "optimistic", "One seed (0)", "without examples"):
        assert statement in limits
    assert "check_contamination" in limits
    assert all(f"* {limit}" in Path(result.path).read_text() for limit in result.limits)


async def test_the_summary_stands_alone(service: RunService, workspace: Workspace, ledger: Ledger) -> None:
    first_light(workspace, ledger)
    result = await service.report("maxnum", target=0.85)
    assert result.summary.startswith("# maxnum\n\n**Improved.**")
    assert "| base | 10.1 % ± 1.0 (n = 1,000) | baseline |" in result.summary
    assert result.path in result.summary
    assert len(result.summary) < 2000


async def test_both_pictures_are_written_and_named_in_the_report(
    service: RunService, workspace: Workspace, ledger: Ledger
) -> None:
    first_light(workspace, ledger)
    result = await service.report("maxnum")
    assert [Path(picture).name for picture in result.pictures] == ["scores.png", "learning_curve.png"]
    for picture in result.pictures:
        assert Path(picture).read_bytes().startswith(PNG)
        assert f"({Path(picture).name})" in Path(result.path).read_text()


async def test_goal_and_target_are_remembered(service: RunService, workspace: Workspace, ledger: Ledger) -> None:
    first_light(workspace, ledger)
    await service.report("maxnum", goal="Name the largest", target=0.95)
    text = Path((await service.report("maxnum")).path).read_text()
    assert "Goal: Name the largest" in text
    assert "The target of 95.0 % was **not reached**." in text


async def test_a_target_reached_within_the_error_is_called_so(service: RunService, bench: Bench) -> None:
    bench.evaluate("base", "/models/base", items(100, 1000, seed=1))
    bench.measure("sft", bench.train("sft"), items(855, 1000, seed=2))
    result = await service.report("maxnum", target=0.85)
    assert "**reached**, though within the error of the measurement" in result.summary


async def test_a_best_run_that_is_worse_than_the_baseline_is_called_worse(service: RunService, bench: Bench) -> None:
    bench.evaluate("base", "/models/base", items(800, 1000, seed=1))
    bench.measure("sft", bench.train("sft"), items(500, 1000, seed=2))
    assert "**Regressed: even the best run is worse than the baseline.**" in (await service.report("maxnum")).summary


async def test_without_a_baseline_no_improvement_is_claimed(service: RunService, bench: Bench) -> None:
    bench.measure("sft", bench.train("sft"), items(855, 1000, seed=2))
    result = await service.report("maxnum")
    assert result.summary.splitlines()[2].startswith("**No comparison.**")
    assert result.verdict == "not_evaluated"


async def test_an_experiment_without_any_result_gets_a_report_that_says_so(service: RunService, bench: Bench) -> None:
    bench.job("sft", SFT, state="running")
    result = await service.report("maxnum")
    assert "**No result yet.**" in result.summary
    assert (result.pictures, result.best) == ([], None)
    assert "There is no claim yet" in result.limits[0]


async def test_another_run_can_be_named_as_the_baseline(
    service: RunService, workspace: Workspace, ledger: Ledger
) -> None:
    first_light(workspace, ledger)
    result = await service.report("maxnum", baseline="sft-180")
    assert "the baseline `sft-180` scored 65.0 %" in result.summary
    with pytest.raises(NotFound):
        await service.report("maxnum", baseline="sft-181")


async def test_a_metric_can_be_asked_for(service: RunService, workspace: Workspace, ledger: Ledger) -> None:
    first_light(workspace, ledger)
    with pytest.raises(NotFound) as caught:
        await service.report("maxnum", metric="acuracy")
    assert "accuracy" in caught.value.next_step


async def test_health_findings_stand_in_the_report(service: RunService, bench: Bench) -> None:
    output = bench.job("sft", SFT, run_name="diverged")
    row = '{"v": 1, "kind": "metrics", "time": 0, "step": %d, "values": {"loss": %s}}\n'
    (output / "metrics.jsonl").write_text("".join(row % (i, '"NaN"' if i > 20 else "1.5") for i in range(1, 30)))
    text = Path((await service.report("maxnum")).path).read_text()
    assert "* `diverged` nan_or_inf (error) from step 21: loss is not finite in 9 of 29 rows" in text


async def test_a_report_of_old_pictures_does_not_keep_them(
    service: RunService, bench: Bench, workspace: Workspace
) -> None:
    bench.evaluate("base", "/models/base", items(100, 1000, seed=1))
    [picture] = (await service.report("maxnum")).pictures
    with bench.ledger.transaction() as connection:
        connection.execute("DELETE FROM evaluations")
    assert (await service.report("maxnum")).pictures == []
    assert not Path(picture).exists()


@pytest.mark.parametrize("name", ["../../escape", "a/b", "größer als 10 %", ".", "x" * 200])
async def test_a_hostile_experiment_name_stays_inside_the_reports(
    service: RunService, bench: Bench, workspace: Workspace, name: str
) -> None:
    bench.job("a", SFT, experiment=name)
    path = Path((await service.report(name)).path)
    assert path.parent.parent == workspace.root / "reports"


async def test_names_and_errors_of_jobs_cannot_become_markup(service: RunService, bench: Bench) -> None:
    bench.job(
        "a", SFT, run_name="x|y`z\n# Verdict", state="failed", error="<script>alert(1)</script> | ![p](http://x)"
    )
    bench.measure("b", bench.train("b", run_name="`\n# Won"), items(900, 1000, seed=1))
    result = await service.report("maxnum")
    text = Path(result.path).read_text()
    assert "\n# Verdict" not in text and "\n# Won" not in text + result.summary
    assert "`' # Won` scored 90.0 %" in text
    assert "<script>" not in text.replace("\\<script>", "")
    assert "![p](" not in text
    assert "x\\|y\\`z # Verdict" in text


async def test_an_unknown_experiment_suggests_a_near_one(service: RunService, bench: Bench) -> None:
    bench.job("a", EVALUATION)
    with pytest.raises(NotFound) as caught:
        await service.report("maxnumm")
    assert "maxnum" in caught.value.next_step


# --- odd ledgers ----------------------------------------------------------------------------------------------------


async def test_of_many_runs_the_baseline_and_the_best_are_drawn_and_the_cut_is_said(
    service: RunService, bench: Bench
) -> None:
    bench.evaluate("job-base", "/models/base", items(10, 100, seed=0), run_name="base")
    for number in range(30):
        model = bench.train(f"job-{number}", run_name=f"run-{number}")
        bench.measure(f"job-{number}", model, items(90 - number, 100, seed=number))
    notes = (await service.report("maxnum")).notes
    assert any("Of 31 scores the baseline, the best and the latest are drawn: 24 bars." in note for note in notes)
    assert any("Of 30 runs the best and the latest are drawn" in note for note in notes)


async def test_runs_of_one_name_are_told_apart_and_a_baseline_of_that_name_is_asked_back(
    service: RunService, bench: Bench
) -> None:
    for number in (1, 2):
        model = bench.train(f"job-{number}", run_name="again")
        bench.measure(f"job-{number}", model, items(50 + 20 * number, 100, seed=number))
    board = service._leaderboard(experiment_rows.trials(bench.ledger, experiment="maxnum"))
    assert labels(board) == {"job-1": "again job-1", "job-2": "again job-2"}
    with pytest.raises(BadInput, match="2 runs are called 'again': job-1, job-2"):
        await service.report("maxnum", baseline="again")
    assert (await service.report("maxnum", baseline="job-1")).verdict == "improved"


@pytest.mark.parametrize("target", [85, -0.1, float("nan"), float("inf")])
async def test_a_target_off_the_scale_of_the_metric_is_refused_and_not_kept(
    service: RunService, workspace: Workspace, ledger: Ledger, target: float
) -> None:
    first_light(workspace, ledger)
    with pytest.raises(BadInput, match="accuracy lies between 0 and 1"):
        await service.report("maxnum", target=target)
    assert experiment_rows.experiment(ledger, "maxnum").target is None


async def test_one_lucky_item_is_not_the_best_run(service: RunService, bench: Bench) -> None:
    bench.evaluate("job-base", "/models/base", items(10, 100, seed=0), run_name="base")
    for name, found in (("real", items(80, 100, seed=1)), ("lucky", [1.0])):
        bench.measure(f"job-{name}", bench.train(f"job-{name}", run_name=name), found)
    result = await service.report("maxnum")
    assert result.best is not None and (result.best.value, result.best.n) == (0.8, 100)
    assert result.verdict == "improved"


async def test_a_perfect_score_on_few_items_does_not_reach_a_target_for_sure(
    service: RunService, bench: Bench
) -> None:
    """By the usual formula its standard error is 0, as if three items proved the rest."""
    bench.measure("job-1", bench.train("job-1", run_name="tiny"), [1.0, 1.0, 1.0])
    result = await service.report("maxnum", target=0.85)
    assert "within the error of the measurement" in result.summary
    assert not any("one standard error is 0.0 %" in limit for limit in result.limits)


async def test_why_runs_cannot_be_compared_is_said_once(service: RunService, bench: Bench) -> None:
    bench.evaluate("job-base", "/models/base", [1.0], run_name="base")
    bench.measure("job-1", bench.train("job-1", run_name="one"), [0.0])
    summary = (await service.report("maxnum")).summary
    assert "Reason: a single item says nothing about a difference." in summary
    assert summary.count("ot comparable") == 1 and ".." not in summary


async def test_the_command_that_repeats_a_run_survives_a_shell(
    service: RunService, workspace: Workspace, ledger: Ledger, bench: Bench
) -> None:
    bench.measure("job-1", bench.train("job-1"), items(5, 10, seed=1))
    with ledger.transaction() as connection:
        arguments = json.dumps(["--name", "a b; rm -rf ~"])
        connection.execute("UPDATE jobs SET spec = json_set(spec, '$.args', json(?))", (arguments,))
    text = Path((await service.report("maxnum")).path).read_text()
    [line] = [line for line in text.splitlines() if line.startswith("MLINTERN_OUTPUT_DIR")]
    assert shlex.split(line)[-2:] == ["--name", "a b; rm -rf ~"]


async def test_seeds_that_are_not_recorded_are_not_called_one_seed(service: RunService, bench: Bench) -> None:
    bench.evaluate("job-base", "/models/base", items(10, 100, seed=0))
    bench.job("job-1", None, run_name="by hand")
    bench.measure("job-1", "/elsewhere/model", items(50, 100, seed=1))
    limits = (await service.report("maxnum")).limits
    assert any(limit.startswith("Which seeds were used is not recorded") for limit in limits)


async def test_where_less_is_better_the_lowest_score_is_the_best(service: RunService, bench: Bench) -> None:
    def perplexity(value: float) -> dict[str, Any]:
        row = {"metric": "perplexity", "value": value, "stderr": 0.1, "n": 100, "higher_is_better": False}
        return {"rows": [row], "samples": "none.jsonl"}

    bench.evaluate("job-base", "/models/base", [0.0] * 100, run_name="base", changes=perplexity(20.0))
    for number, value in enumerate((12.0, 9.0, 30.0)):
        model = bench.train(f"job-{number}", run_name=f"run-{number}")
        bench.measure(f"job-{number}", model, [0.0] * 100, **perplexity(value))
    assert [run.run_id for run in (await service.list(experiment="maxnum", sort="best")).runs] == [
        "run-1",
        "run-0",
        "base",
        "run-2",
    ]
    result = await service.report("maxnum", target=10.0)
    assert result.best is not None and result.best.value == 9.0
    assert result.verdict == "improved" and "**reached**" in result.summary


async def test_a_script_of_ones_own_that_measures_what_it_trained_is_no_baseline(
    service: RunService, bench: Bench
) -> None:
    output = bench.job("job-own", None, run_name="own")
    bench.measure("job-own", str(output / "model"), items(70, 100, seed=1))
    bench.evaluate("job-base", "/models/base", items(10, 100, seed=2), run_name="base")
    assert await verdicts(service) == {"own": "improved", "base": "baseline"}


async def test_a_target_that_is_met_exactly_is_reached(service: RunService, bench: Bench) -> None:
    bench.measure("job-1", bench.train("job-1"), items(85, 100, seed=1))
    summary = (await service.report("maxnum", target=0.85)).summary
    assert "**reached**, though within the error of the measurement" in summary
