from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlintern.tools.errors import BadInput, MlinternError, NotFound
from mlintern.tools.evals import eval_ledger
from mlintern.tools.evals.service import EvalService
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.tools.evals.results import add_job, write_lm_eval, write_own

pytestmark = pytest.mark.anyio


@pytest.fixture
def service(workspace: Workspace, ledger: Ledger, clock: FakeClock) -> EvalService:
    return EvalService(workspace=workspace, ledger=ledger, clock=clock)


def many_tasks(path: Path, count: int) -> Path:
    results = {f"mmlu_{i:03}": {"acc,none": 0.5} for i in range(count)}
    path.write_text(json.dumps({"results": results, "versions": {}}))
    return path


async def test_pages_join_to_the_whole_without_loss_or_repeat(service: EvalService, tmp_path: Path) -> None:
    path = many_tasks(tmp_path / "results_x.json", 25)
    seen: list[str] = []
    cursor = None
    for _ in range(10):
        page = await service.read(str(path), limit=10, cursor=cursor)
        assert page.total == 25
        seen += [row.task_raw for row in page.rows]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == [f"mmlu_{i:03}" for i in range(25)]


@pytest.mark.parametrize("cursor", ["", "nonsense", "WzAsIDFd", "e30=", "Ω"])
async def test_a_cursor_of_someone_elses_is_refused(service: EvalService, tmp_path: Path, cursor: str) -> None:
    path = many_tasks(tmp_path / "results_x.json", 3)
    with pytest.raises(BadInput):
        await service.read(str(path), cursor=cursor)


async def test_a_cursor_does_not_outlive_a_change_of_the_results(service: EvalService, tmp_path: Path) -> None:
    path = many_tasks(tmp_path / "results_x.json", 30)
    page = await service.read(str(path), limit=10)
    many_tasks(path, 29)
    with pytest.raises(BadInput):
        await service.read(str(path), limit=10, cursor=page.next_cursor)


@pytest.mark.parametrize("task", ["gsm8k", "GSM8K", "inspect_evals/gsm8k", "gsm*"])
async def test_a_task_is_found_in_any_spelling(service: EvalService, tmp_path: Path, task: str) -> None:
    write_lm_eval(tmp_path, [1.0, 0.0])
    page = await service.read(str(tmp_path), task=task)
    assert {row.task for row in page.rows} == {"gsm8k"}


async def test_an_unknown_task_suggests_a_near_one(service: EvalService, tmp_path: Path) -> None:
    write_lm_eval(tmp_path, [1.0, 0.0])
    with pytest.raises(NotFound) as caught:
        await service.read(str(tmp_path), task="gsm8")
    assert "gsm8k" in caught.value.next_step


@pytest.mark.parametrize("limit", [0, -1, 501])
async def test_a_limit_out_of_range_is_refused(service: EvalService, tmp_path: Path, limit: int) -> None:
    with pytest.raises(BadInput):
        await service.read(str(tmp_path), limit=limit)


@pytest.mark.parametrize("source", ["", "  ", "no-such-job", "/no/such/file.json", "a" * 5000, "org/model"])
async def test_a_source_that_is_nothing_is_an_error_with_a_next_step(service: EvalService, source: str) -> None:
    with pytest.raises(MlinternError) as caught:
        await service.read(source)
    assert caught.value.next_step


async def test_without_access_to_the_hub_a_repository_says_how_to_get_its_results(service: EvalService) -> None:
    for source in ("org/model", "https://huggingface.co/org/model/tree/main", "hf://datasets/org/model"):
        with pytest.raises(BadInput) as caught:
            await service.read(source)
        assert "hf download org/model" in caught.value.next_step
        assert ("--repo-type dataset" in caught.value.next_step) == ("datasets" in source)


async def test_what_lies_here_says_so_and_is_marked_as_data(service: EvalService, tmp_path: Path) -> None:
    write_lm_eval(tmp_path, [1.0, 0.0])
    page = await service.read(str(tmp_path))
    assert (page.status, [source.name for source in page.sources]) == ("ok", ["local files"])
    assert page.untrusted and page.revision is None and page.partial == []


async def test_a_job_id_stands_for_its_output(service: EvalService, workspace: Workspace, ledger: Ledger) -> None:
    add_job(ledger, "job-1")
    write_own(workspace.job("job-1") / "output", [1.0, 0.0])
    [row] = (await service.read("job-1")).rows
    assert row.value == 0.5


async def test_a_job_without_results_says_its_state(service: EvalService, ledger: Ledger) -> None:
    add_job(ledger, "job-1", state="running")
    with pytest.raises(NotFound) as caught:
        await service.read("job-1")
    assert "running" in caught.value.message


async def test_a_mistyped_job_id_suggests_the_right_one(service: EvalService, ledger: Ledger) -> None:
    add_job(ledger, "job-abcdef")
    with pytest.raises(NotFound) as caught:
        await service.read("job-abcdeg")
    assert "job-abcdef" in caught.value.message


async def test_collected_results_outlive_the_jobs_folder(
    service: EvalService, workspace: Workspace, ledger: Ledger
) -> None:
    add_job(ledger, "job-1", experiment="maxnum")
    path = write_own(workspace.job("job-1") / "output", [1.0, 0.0, 1.0, 1.0])
    [row] = await service.collect("job-1")
    path.unlink()
    path.with_name("samples.jsonl").unlink()
    assert (await service.read("job-1")).rows == [row]
    assert await service.collect("job-1") == []
    assert (await service.read("job-1")).rows == [row]


async def test_collecting_twice_keeps_one_and_a_changed_result_replaces_it(
    service: EvalService, workspace: Workspace, ledger: Ledger
) -> None:
    add_job(ledger, "job-1")
    folder = workspace.job("job-1") / "output"
    write_own(folder, [1.0, 0.0])
    await service.collect("job-1")
    await service.collect("job-1")
    assert len(eval_ledger.of_jobs(ledger, ["job-1"])["job-1"]) == 1
    write_own(folder, [1.0, 1.0])
    await service.collect("job-1")
    [row] = eval_ledger.of_jobs(ledger, ["job-1"])["job-1"]
    assert row.value == 1.0


async def test_results_that_were_only_printed_are_collected_from_the_log(
    service: EvalService, workspace: Workspace, ledger: Ledger, tmp_path: Path
) -> None:
    add_job(ledger, "job-1")
    document = json.loads(write_own(tmp_path, [1.0, 0.0]).read_text())
    workspace.job("job-1").mkdir(parents=True)
    (workspace.job("job-1") / "log.txt").write_text(
        "@mlintern " + json.dumps({"v": 1, "kind": "evaluation", "evaluation": document}) + "\n"
    )
    [row] = await service.collect("job-1")
    assert row.value == 0.5


async def test_collecting_an_unknown_job_is_not_found(service: EvalService, tmp_path: Path) -> None:
    write_own(tmp_path, [1.0])
    for name in ("job-9", str(tmp_path)):
        with pytest.raises(NotFound):
            await service.collect(name)


async def test_two_sources_are_compared_item_by_item(service: EvalService, tmp_path: Path) -> None:
    write_own(tmp_path / "base", [0.0] * 90 + [1.0] * 10)
    write_own(tmp_path / "sft", [1.0] * 60 + [0.0] * 30 + [1.0] * 10, model="sft")
    comparison = await service.compare(str(tmp_path / "base"), str(tmp_path / "sft"), task="maxnum")
    [row] = comparison.rows
    assert (row.verdict, row.delta, row.n) == ("improved", pytest.approx(0.6), 100)
    assert "McNemar" in row.method
    assert (comparison.baseline_model, comparison.candidate_model) == ("base", "sft")


async def test_a_metric_that_is_not_there_is_named(service: EvalService, tmp_path: Path) -> None:
    write_own(tmp_path, [1.0, 0.0])
    with pytest.raises(NotFound) as caught:
        await service.compare(str(tmp_path), str(tmp_path), metric="acuracy")
    assert "accuracy" in caught.value.next_step


async def test_a_run_is_found_by_its_name_the_latest_of_several(
    service: EvalService, workspace: Workspace, ledger: Ledger
) -> None:
    for at, (job_id, scores) in enumerate({"job-1": [0.0] * 40, "job-2": [1.0] * 40, "job-3": [0.0] * 40}.items()):
        add_job(ledger, job_id, run_name="base" if job_id == "job-3" else "sft eval", created=float(at))
        write_own(workspace.job(job_id) / "output", scores)
    assert (await service.compare("base", "sft eval")).rows[0].verdict == "improved"
    assert (await service.compare("job-3", "job-1")).rows[0].verdict == "no_evidence"


async def test_a_file_is_preferred_to_a_run_of_its_name(
    service: EvalService, workspace: Workspace, ledger: Ledger, tmp_path: Path
) -> None:
    results = str(many_tasks(tmp_path / "results_x.json", 3))
    add_job(ledger, "job-1", run_name=results)
    write_own(workspace.job("job-1") / "output", [1.0])
    assert (await service.read(results)).total == 3
