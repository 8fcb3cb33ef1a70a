"""Results in repositories on the Hub, against a stand-in on a real socket."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.evals.hub_files import Bounds
from mlintern.tools.evals.hub_results import HubResults
from mlintern.tools.evals.result_rows import EvalPage
from mlintern.tools.evals.service import EvalService
from mlintern.tools.hub.client import HubClient
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services.hub import SHA, HubStandIn, Repo
from tests.services.standin import BROKEN, CUT, RESET, Fault
from tests.tools.evals.published import (
    CARD,
    EVAL_RESULTS,
    files_of,
    lighteval,
    model_with_everything,
    model_with_samples,
)
from tests.tools.evals.results import add_job, write_lm_eval, write_own

pytestmark = pytest.mark.anyio

Make = Callable[..., EvalService]
EARLIER = "f" * 40
LIMITED = Fault(
    status=429, headers={"ratelimit": '"api";r=0;t=55', "ratelimit-policy": '"fixed window";"api";q=500;w=300'}
)


@pytest.fixture
def make(hub: HubStandIn, workspace: Workspace, ledger: Ledger, clock: FakeClock) -> Make:
    def service(**bounds: int) -> EvalService:
        results = HubResults(hub=HubClient(), workspace=workspace, clock=clock, bounds=Bounds(**bounds))
        return EvalService(workspace=workspace, ledger=ledger, clock=clock, hub=results)

    return service


@pytest.fixture
def service(make: Make) -> EvalService:
    return make()


def numbered(count: int) -> dict[str, bytes]:
    """As many lighteval files, each with a task of its own, older ones with lower numbers."""
    return {
        f"org/m/results_2026-01-{i:02}T00-00-00.json": lighteval().replace(b"gsm8k", b"task%02d" % i)
        for i in range(1, count + 1)
    }


# What is read -------------------------------------------------------------------------------------------------------


async def test_every_kind_of_result_in_a_model_is_read_at_one_commit(
    hub: HubStandIn, service: EvalService, tmp_path: Path
) -> None:
    hub.add(model_with_everything(tmp_path))
    page = await service.read("org/tiny", limit=100)
    assert (page.status, page.revision, page.partial, page.problems) == ("ok", SHA, [], [])
    assert [source.status for source in page.sources] == ["ok"] and page.untrusted
    found = {(row.suite, row.source.removeprefix(f"hf://models/org/tiny@{SHA}/")) for row in page.rows}
    assert found == {
        ("hub", ".eval_results/scores.yaml"),
        ("model-card", "README.md"),
        ("lm-eval", "lm/results_2026-11-23T05-00-00.json"),
        ("mlintern", "own/evaluation.json"),
        ("inspect", "logs/2026-11-23T05-00-00_ifeval.eval"),
        ("lighteval", "results_2026-11-23T05-00-00.5.json"),
        ("trainer", "all_results.json"),
        ("trainer", "checkpoint-10/trainer_state.json"),
    }


async def test_what_the_hub_publishes_stands_as_written_and_says_that_its_scale_is_unknown(
    hub: HubStandIn, service: EvalService
) -> None:
    hub.add(Repo("org/m", "model", {".eval_results/a.yaml": EVAL_RESULTS, "README.md": CARD}))
    page = await service.read("org/m")
    gpqa, gsm8k, norm, accuracy = page.rows
    assert [row.value for row in page.rows] == [41.2, 0.755, 64.59, 0.61]
    assert not any(row.scale_known or row.stderr or row.n for row in page.rows)
    assert any("0-100" in note for note in page.notes)
    assert (gpqa.task, gpqa.task_raw, gpqa.metric) == ("gpqa_diamond", "Idavidrein/gpqa:gpqa_diamond", "value")
    assert (gpqa.filter, gpqa.date, gpqa.version, gpqa.model) == ("no-tools", "2026-10-02", "633f5ee", "org/m")
    assert any("Eval Logs by org" in note for note in gpqa.notes)
    assert any("token" in note and "not checked" in note for note in gpqa.notes)
    assert (gsm8k.task, gsm8k.filter) == ("gsm8k", None)
    assert (norm.suite, norm.metric, norm.filter, norm.fewshot) == (
        "model-card",
        "acc_norm",
        "normalized accuracy",
        25,
    )
    assert (norm.task, norm.task_raw) == ("ai2_arc_arc-challenge", "ai2_arc:ARC-Challenge:test")
    assert (accuracy.metric, accuracy.filter, accuracy.model) == ("accuracy", None, "org/m")


async def test_entries_that_are_no_result_are_named_and_the_others_read(
    hub: HubStandIn, service: EvalService
) -> None:
    broken = b"- {dataset: {id: a/b, task_id: x}, value: 'high'}\n- {dataset: {id: a/b}, value: 1}\n- 7\n"
    card = CARD.replace(b"value: 0.61", b"value: 20.0 +- 1.2").replace(b', url: "https', b', at: "https')
    files = {
        ".eval_results/a.yaml": broken + EVAL_RESULTS,
        ".eval_results/b.yaml": b"a: [",
        ".eval_results/c.yaml": b"results: none",
        ".eval_results/d.yaml": b"- &a [1]\n- *a\n",
        ".eval_results/e.yaml": b"[" * 200,
        ".eval_results/f.yaml": b"- !!python/object/apply:os.getcwd []\n",
        "README.md": card,
    }
    hub.add(Repo("org/m", "model", files))
    page = await service.read("org/m")
    assert [row.value for row in page.rows] == [41.2, 0.755, 64.59]
    told = {problem.source.rpartition("/")[2] + problem.key: problem.message for problem in page.problems}
    assert "'high'" in told["a.yaml[0].value"]
    assert "task_id" in told["a.yaml[1]"] and "no result" in told["a.yaml[2]"]
    assert "not valid YAML" in told["b.yaml"] and "no list" in told["c.yaml"]
    assert "aliases" in told["d.yaml"] and "levels" in told["e.yaml"]
    assert "not valid YAML" in told["f.yaml"]
    assert "+- 1.2" in told["README.mdmodel-index[0].results[0].metrics[1].value"]
    assert not any("/cache/" in text for problem in page.problems for text in (problem.source, problem.message))


async def test_published_results_of_a_local_copy_are_read_too(service: EvalService, tmp_path: Path) -> None:
    (tmp_path / ".eval_results").mkdir()
    (tmp_path / ".eval_results" / "a.yaml").write_bytes(EVAL_RESULTS)
    (tmp_path / "README.md").write_bytes(CARD)
    page = await service.read(str(tmp_path))
    assert [row.value for row in page.rows] == [41.2, 0.755, 64.59, 0.61]
    assert (await service.read(str(tmp_path / "README.md"))).total == 2


async def test_recorded_results_are_read_from_a_data_set(
    hub: HubStandIn, service: EvalService, recorded: Path
) -> None:
    files = {
        "lm/results_bloom.json": (recorded / "eval-lm-eval" / "evals__bloom__bloom-560m.json").read_bytes(),
        "logs/2025-05-12T20-28-13-04-00_no-samples.json": (
            recorded / "eval-inspect" / "test_logs__2025-05-12T20-28-13-04-00_no-samples.json"
        ).read_bytes(),
        "logs/a.eval": (recorded / "eval-inspect" / "test_eval_log__log_formats.eval").read_bytes(),
    }
    for path in (recorded / "eval-lighteval").glob("*.json"):
        files[f"light/{path.name.rpartition('__')[2]}"] = path.read_bytes()
    hub.add(Repo("org/details_m", "dataset", files, large=frozenset({"logs/a.eval"})))
    page = await service.read("org/details_m", limit=500)
    assert {row.suite for row in page.rows} == {"lm-eval", "inspect", "lighteval"}
    assert all(row.source.startswith(f"hf://datasets/org/details_m@{SHA}/") for row in page.rows)
    assert (page.status, page.partial) == ("ok", [])
    [problem] = page.problems
    assert "no-samples.json" in problem.source and "cancelled" in problem.message


# Names --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pasted",
    [
        "org/m@main",
        f"org/m@{SHA}",
        "hf://org/m/lm/",
        "hf://models/org/m@main/lm/results_a.json",
        "{url}/org/m",
        "{url}/org/m/blob/main/lm/results_a.json",
        "{url}/org/m/resolve/main/lm/results_a.json?download=true",
        "{url}/org/m/tree/main/lm",
        "https://huggingface.co/org/m/tree/main/lm",
        "huggingface.co/org/m",
    ],
)
async def test_every_form_that_people_paste_is_read(hub: HubStandIn, service: EvalService, pasted: str) -> None:
    hub.add(Repo("org/m", "model", {"lm/results_a.json": lighteval()}))
    [row] = (await service.read(pasted.replace("{url}", hub.url))).rows
    assert row.source == f"hf://models/org/m@{SHA}/lm/results_a.json"
    assert (await service.read(row.source)).rows == [row]


async def test_a_bare_name_is_a_model_or_else_a_data_set_and_a_spelt_out_one_is_what_it_says(
    hub: HubStandIn, service: EvalService
) -> None:
    hub.add(Repo("org/m", "dataset", {"results_a.json": lighteval()}))
    [row] = (await service.read("org/m")).rows
    assert row.source.startswith("hf://datasets/org/m@")
    assert (await service.read("datasets/org/m")).rows == [row]
    assert (await service.read("hf://models/org/m")).status == "not_found"


async def test_a_named_file_or_folder_is_all_that_is_read_whatever_was_read_before(
    hub: HubStandIn, service: EvalService
) -> None:
    odd = lighteval().replace(b"gsm8k", b"odd")
    hub.add(Repo("org/m", "model", {"a/results_x.json": lighteval(), "b/odd-name.json": odd, "README.md": CARD}))
    assert [row.task for row in (await service.read("hf://org/m/b")).rows] == ["odd"]
    assert [row.task for row in (await service.read("hf://org/m/b/odd-name.json")).rows] == ["odd"]
    assert [row.suite for row in (await service.read("org/m")).rows] == ["model-card", "model-card", "lighteval"]


async def test_an_earlier_commit_is_read_as_it_was(hub: HubStandIn, service: EvalService) -> None:
    old = lighteval().replace(b"0.5,", b"0.25,")
    hub.add(Repo("org/m", "model", {"results_a.json": lighteval()}, older={EARLIER: {"results_a.json": old}}))
    page = await service.read(f"org/m@{EARLIER}")
    assert ([row.value for row in page.rows], page.revision) == ([0.25], EARLIER)
    assert [row.value for row in (await service.read("org/m")).rows] == [0.5]


async def test_a_renamed_repository_is_followed_and_says_its_new_name(hub: HubStandIn, service: EvalService) -> None:
    hub.add(Repo("org/new", "model", {"results_a.json": lighteval()}))
    hub.renamed["org/old"] = "org/new"
    [row] = (await service.read("org/old")).rows
    assert row.source.startswith("hf://models/org/new@")


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("https://example.com/org/m", "Unrecognized host"),
        ("https://huggingface.co/spaces/org/m", "is a space"),
        ("https://huggingface.co/org/m/discussions/1", "unsupported"),
        ("hf://org/m/../../etc", "leaves the repository"),
        ("hf://org/m/model.safetensors", "no file of results"),
        ("hf://org/m/config.json", "not a result file"),
    ],
)
async def test_what_can_hold_no_results_is_refused(
    hub: HubStandIn, service: EvalService, source: str, complaint: str
) -> None:
    hub.add(Repo("org/m", "model", {"model.safetensors": b"x", "config.json": b"{}"}))
    with pytest.raises(BadInput, match=complaint) as caught:
        await service.read(source)
    assert caught.value.next_step and "/cache/" not in caught.value.message


@pytest.mark.parametrize("source", ["./out/m", "../m", "out/results.json", "/no/such", "~/m/x"])
async def test_what_is_meant_as_a_path_is_never_asked_of_the_hub(
    hub: HubStandIn, service: EvalService, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a checkout may lie in a folder of one of these names
    with pytest.raises(NotFound):
        await service.read(source)
    assert hub.seen == []


# Failures -----------------------------------------------------------------------------------------------------------


def nothing(page: EvalPage, status: str, advice: str) -> None:
    assert (page.status, page.rows, page.total) == (status, [], 0)
    assert [source.status for source in page.sources] == [status]
    assert advice in page.sources[0].message


async def test_each_refusal_of_the_hub_has_its_own_status_and_advice(
    hub: HubStandIn, service: EvalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"results_a.json": lighteval()}
    hub.add(Repo("org/gated", "model", files, access="gated"))
    hub.add(Repo("org/private", "model", files, access="private"))
    hub.add(Repo("org/open", "model", files))
    hub.add(Repo("org/bare", "model", {"config.json": b"{}"}))
    nothing(await service.read("org/none"), "not_found", "search_hub")
    nothing(await service.read("org/private"), "not_found", "set HF_TOKEN")
    nothing(await service.read("org/open@v9"), "not_found", "no such revision")
    nothing(await service.read("hf://org/open/nowhere"), "not_found", "browse_hub")
    nothing(await service.read("org/bare"), "not_found", "evaluate it")
    nothing(await service.read("org/gated"), "blocked", "Accept its conditions")
    hub.fail(BROKEN)
    nothing(await service.read("org/open"), "error", "Try again later")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert (await service.read("org/gated")).rows and (await service.read("org/private")).rows
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    nothing(await service.read("org/open"), "offline", "Check the network")


async def test_of_a_gated_model_what_the_hub_shows_to_everybody_is_read(
    hub: HubStandIn, service: EvalService
) -> None:
    shown = [{"filename": ".eval_results/a.yaml", "data": entry} for entry in yaml.safe_load(EVAL_RESULTS)] + [
        {"filename": ".eval_results/b.yaml", "error": "Invalid"}
    ]
    index = yaml.safe_load(CARD.split(b"---")[1])["model-index"]
    info = {"evalResults": shown, "model-index": index}
    files = {".eval_results/a.yaml": EVAL_RESULTS, "README.md": CARD}
    hub.add(Repo("org/gated", "model", files, json.loads(json.dumps(info, default=str)), access="gated"))
    page = await service.read("org/gated")
    assert (page.status, [source.status for source in page.sources]) == ("partial", ["ok", "blocked"])
    assert [row.value for row in page.rows] == [41.2, 0.755, 64.59, 0.61]
    assert page.rows[0].source.startswith(f"hf://models/org/gated@{SHA}/.eval_results/")
    assert page.rows[0].model == "org/gated" and "Accept its conditions" in page.partial[0]
    nothing(await service.read("hf://org/gated/README.md"), "blocked", "Accept its conditions")
    hub.add(Repo("org/gated", "model", files, {"evalResults": [{"data": {"value": 1}}]}, access="gated"))
    nothing(await service.read("org/gated"), "blocked", "Accept its conditions")


async def test_what_takes_too_long_is_given_up(hub: HubStandIn, make: Make) -> None:
    hub.add(Repo("org/m", "model", {"results_a.json": lighteval()}))
    nothing(await make(seconds=0).read("org/m"), "offline", "Call again")


async def test_a_limit_says_when_to_come_back_and_keeps_the_place(hub: HubStandIn, service: EvalService) -> None:
    hub.add(Repo("org/m", "model", numbered(5)))
    first = await service.read("org/m", limit=2)
    hub.fail_always(LIMITED, path="/api/models/org/m")
    page = await service.read("org/m", limit=2, cursor=first.next_cursor)
    nothing(page, "rate_limited", "Wait as long")
    assert page.sources[0].retry_after_seconds == 55
    hub.recover()
    rest = await service.read("org/m", limit=10, cursor=page.next_cursor)
    assert [row.task for row in first.rows + rest.rows] == ["task05", "task04", "task03", "task02", "task01"]
    assert rest.next_cursor is None


async def test_a_cursor_does_not_outlive_a_new_commit_that_changes_results(
    hub: HubStandIn, service: EvalService
) -> None:
    repo = hub.add(Repo("org/m", "model", numbered(5)))
    first = await service.read("org/m", limit=2)
    repo.older, repo.sha, repo.files = {SHA: repo.files}, EARLIER, numbered(4)
    with pytest.raises(BadInput, match="have changed"):
        await service.read("org/m", limit=2, cursor=first.next_cursor)
    again = await service.read(f"org/m@{SHA}", limit=2)
    assert again.rows == first.rows


async def test_what_could_not_be_fetched_makes_the_answer_partial(hub: HubStandIn, service: EvalService) -> None:
    hub.add(Repo("org/m", "model", numbered(3)))
    hub.fail_always(RESET, path="results_2026-01-02")
    page = await service.read("org/m")
    assert (page.status, [source.status for source in page.sources]) == ("partial", ["ok", "offline"])
    assert [row.task for row in page.rows] == ["task03"]
    assert "2 of 3 files" in page.partial[0]
    hub.recover()
    assert (await service.read("org/m")).total == 3


async def test_a_file_that_arrives_damaged_is_not_believed(hub: HubStandIn, service: EvalService) -> None:
    hub.add(Repo("org/m", "model", {"results_a.json": lighteval()}))
    hub.fail(Fault(status=200, body=lighteval().replace(b"0.5,", b"0.9,")), path="/resolve/")
    nothing(await service.read("org/m"), "error", "Try again")
    hub.fail(CUT, path="/resolve/")
    assert (await service.read("org/m")).rows == []
    assert [row.value for row in (await service.read("org/m")).rows] == [0.5]


# Bounds -------------------------------------------------------------------------------------------------------------


async def test_of_many_files_the_newest_are_read_and_the_others_counted(hub: HubStandIn, make: Make) -> None:
    hub.page = 4
    hub.add(Repo("org/results", "dataset", numbered(9)))
    page = await make(result_files=3).read("org/results")
    assert [row.task for row in page.rows] == ["task09", "task08", "task07"]
    assert "6 of 9 result files were not read" in page.partial[0] and "Name a folder or a file" in page.partial[0]
    assert len(hub.asked("/resolve/")) == 3


async def test_sizes_are_bounded_and_what_is_too_large_is_named(hub: HubStandIn, make: Make) -> None:
    size = len(lighteval())
    files = {"results_a.json": lighteval(), "results_b.json": lighteval(), "results_c.json": lighteval() + b" " * 99}
    hub.add(Repo("org/m", "model", files))
    page = await make(file=size, call=size).read("org/m")
    assert [row.source.rpartition("/")[2] for row in page.rows] == ["results_a.json"]
    assert "results_c.json has" in page.partial[0] and "1 of 3 result files" in page.partial[1]
    with pytest.raises(BadInput, match="not fetched"):
        await make(file=size).read("hf://org/m/results_c.json")
    hub.add(Repo("org/large", "model", {"results_c.json": files["results_c.json"]}))
    nothing(await make(file=size).read("org/large"), "not_found", "results_c.json has")


async def test_a_listing_without_end_is_cut_and_says_so(hub: HubStandIn, make: Make) -> None:
    hub.page = 10
    hub.add(Repo("org/m", "model", numbered(25)))
    page = await make(listed_files=20).read("org/m", limit=100)
    assert page.total == 20 and "first 20 entries" in page.partial[0]
    assert len(hub.asked("/tree/")) == 3


async def test_files_are_fetched_once_and_again_when_the_copy_is_damaged(
    hub: HubStandIn, service: EvalService, workspace: Workspace
) -> None:
    hub.add(Repo("org/m", "model", {"results_a.json": lighteval()}, large=frozenset({"results_a.json"})))
    first = await service.read("org/m")
    assert await service.read("org/m") == first
    assert len(hub.asked("/cdn/")) == 1
    [copy] = (workspace.cache / "evals").rglob("results_a.json")
    copy.write_bytes(lighteval().replace(b"0.5,", b"0.9,"))
    assert (await service.read("org/m")).rows == first.rows
    assert len(hub.asked("/cdn/")) == 2


async def test_the_copies_are_bounded_and_the_longest_unused_go(
    hub: HubStandIn, make: Make, workspace: Workspace, clock: FakeClock
) -> None:
    service = make(cache=2 * len(lighteval()))
    for name in ("a", "b", "c"):
        hub.add(Repo(f"org/{name}", "model", {"results_a.json": lighteval()}))
    for name in ("a", "b", "a", "c"):
        clock.advance(60)
        await service.read(f"org/{name}")
    kept = {path.parts[-3] for path in (workspace.cache / "evals").rglob("results_a.json")}
    assert kept == {"org--a", "org--c"}


async def test_a_path_that_leaves_the_repository_is_passed_by(
    hub: HubStandIn, service: EvalService, workspace: Workspace
) -> None:
    hub.add(Repo("org/m", "model", {"../../../results_evil.json": lighteval(), "results_a.json": lighteval()}))
    assert len((await service.read("org/m")).rows) == 1
    assert not list(workspace.root.rglob("results_evil.json"))


# Comparisons --------------------------------------------------------------------------------------------------------


async def test_two_repositories_with_samples_are_compared_item_by_item(
    hub: HubStandIn, service: EvalService, tmp_path: Path
) -> None:
    hub.add(model_with_samples("org/base", [0.0] * 90 + [1.0] * 10, tmp_path))
    hub.add(model_with_samples("org/sft", [1.0] * 60 + [0.0] * 30 + [1.0] * 10, tmp_path))
    comparison = await service.compare("org/base", f"{hub.url}/org/sft/blob/main/evals/evaluation.json")
    [row] = comparison.rows
    assert (row.verdict, row.delta, row.n) == ("improved", pytest.approx(0.6), 100)
    assert "McNemar" in row.method
    assert (comparison.status, comparison.partial, comparison.untrusted) == ("ok", [], True)
    assert [source.name for source in comparison.sources] == ["baseline: huggingface", "candidate: huggingface"]


async def test_samples_of_lm_eval_in_a_repository_are_paired(
    hub: HubStandIn, service: EvalService, tmp_path: Path
) -> None:
    for name, right in (("base", 10), ("sft", 60)):
        write_lm_eval(tmp_path / name, [1.0] * right + [0.0] * (100 - right), model=f"org/{name}")
        hub.add(Repo(f"org/{name}", "model", files_of(tmp_path / name)))
    comparison = await service.compare("org/base", "org/sft", metric="exact_match,strict-match")
    [row] = comparison.rows
    assert (row.verdict, row.n) == ("improved", 100) and "McNemar" in row.method


async def test_without_samples_a_repository_is_compared_by_standard_errors(
    hub: HubStandIn, service: EvalService, workspace: Workspace, ledger: Ledger, tmp_path: Path
) -> None:
    repo = hub.add(model_with_samples("org/base", [0.0] * 90 + [1.0] * 10, tmp_path))
    del repo.files["evals/samples.jsonl"]
    add_job(ledger, "job-1")
    write_own(workspace.job("job-1") / "output", [1.0] * 70 + [0.0] * 30, model="sft")
    comparison = await service.compare("org/base", "job-1")
    [row] = comparison.rows
    assert row.verdict == "improved" and "McNemar" not in row.method
    assert any("Only the candidate kept scores" in note for note in row.notes)
    assert [source.name for source in comparison.sources] == ["baseline: huggingface", "candidate: local files"]


async def test_a_bare_published_number_is_not_compared_and_says_what_to_do(
    hub: HubStandIn, service: EvalService, tmp_path: Path
) -> None:
    hub.add(Repo("org/a", "model", {".eval_results/a.yaml": EVAL_RESULTS}))
    hub.add(Repo("org/b", "model", {".eval_results/a.yaml": EVAL_RESULTS.replace(b"41.2", b"0.432")}))
    comparison = await service.compare("org/a", "org/b", task="gpqa_diamond")
    [row] = comparison.rows
    assert (row.verdict, row.baseline, row.candidate, row.delta) == ("not_comparable", 41.2, 0.432, None)
    assert "share (0-1) or a percentage (0-100)" in row.reason and "evaluate both" in row.reason
    write_own(tmp_path, [1.0, 0.0], task="gsm8k")
    [other] = (await service.compare("org/a", str(tmp_path), task="gsm8k")).rows
    assert (other.verdict, other.delta) == ("not_comparable", None)
    assert "different harness (hub, mlintern)" in other.reason


async def test_a_side_that_the_hub_does_not_give_is_named_with_what_to_do(
    hub: HubStandIn, service: EvalService, tmp_path: Path
) -> None:
    write_own(tmp_path, [1.0, 0.0])
    hub.add(Repo("org/gated", "model", {"results_a.json": lighteval()}, access="gated"))
    comparison = await service.compare(str(tmp_path), "org/gated")
    assert (comparison.status, comparison.rows) == ("blocked", [])
    assert "The candidate:" in comparison.summary and "Accept its conditions" in comparison.summary
    both = await service.compare("org/none", "org/gated")
    assert both.status == "blocked" and "The baseline:" in both.summary


async def test_a_side_without_rows_says_which_and_what_to_do(
    service: EvalService, ledger: Ledger, tmp_path: Path
) -> None:
    add_job(ledger, "job-1", state="running")
    write_own(tmp_path / "a", [1.0, 0.0])
    with pytest.raises(NotFound, match=r"job-1 \(state running\).*poll_job"):
        await service.compare(str(tmp_path / "a"), "job-1")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "evaluation.json").write_text(json.dumps({"mlintern_evaluation": 1, "task": "t", "rows": []}))
    with pytest.raises(BadInput, match=r"The candidate: .*no scores.*Evaluate again"):
        await service.compare(str(tmp_path / "a"), str(tmp_path / "b"))
    with pytest.raises(NotFound, match="The baseline has no task 'mmlu'"):
        await service.compare(str(tmp_path / "a"), str(tmp_path / "b"), task="mmlu")
