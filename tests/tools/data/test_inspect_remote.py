"""Hub datasets: the viewer first, the files always, and what is said when one of them does not answer."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlintern.tools.data.inspect_dataset import DatasetInspector
from mlintern.tools.data.remote_rows import MOST_ROWS, converted_splits
from mlintern.tools.data.viewer import Viewed, ViewerClient
from mlintern.tools.errors import BadInput, Blocked, NotFound
from mlintern.tools.web import Web
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services.hub import SHA, HubStandIn, Repo
from tests.services.standin import RESET
from tests.services.viewer import BROKEN, NO_SCRIPT, NOT_AUTHENTICATED, NOT_READY, ViewerStandIn

pytestmark = pytest.mark.anyio

ROWS = [{"prompt": f"sky {i}", "completion": "blue"} for i in range(40)]
STATISTICS = [
    {
        "column_name": "prompt",
        "column_type": "string_text",
        "column_statistics": {
            "nan_count": 3, "min": 1, "max": 99, "mean": 12.5, "median": 9.0, "std": 2.0,
            "histogram": {"hist": [90, 6, 4], "bin_edges": [1, 33, 66, 99]},
        },
    },
    {
        "column_name": "completion",
        "column_type": "string_label",
        "column_statistics": {"nan_count": 0, "n_unique": 2, "frequencies": {"blue": 900, "green": 100}},
    },
]  # fmt: skip


def parquet_bytes(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def dataset(identifier: str = "org/data", rows: list[dict[str, Any]] | None = None, **more: Any) -> Repo:
    files = {"data/train-00000-of-00001.parquet": parquet_bytes(ROWS if rows is None else rows)}
    info = {"cardData": {"license": "cc-by-4.0"}}
    return Repo(identifier, "dataset", files, info, **more)


async def test_statistics_come_from_the_viewer_and_verdicts_from_the_rows(
    hub: HubStandIn, viewer: ViewerStandIn, inspector: DatasetInspector
) -> None:
    hub.add(dataset(rows=ROWS * (MOST_ROWS // 40 + 1)))
    viewer.describe("org/data", 1_000_000, STATISTICS, ROWS[:5])
    result = await inspector.inspect("org/data")
    assert (result.status, result.revision, result.license, result.gated) == ("ok", SHA, "cc-by-4.0", False)
    assert [(s.config, s.name, s.rows) for s in result.splits] == [("default", "train", 1_000_000)]
    prompt, completion = result.columns
    assert (prompt.missing, prompt.length and prompt.length.max, prompt.length and prompt.length.p95) == (3, 99, 66)
    assert [(v.value, v.share) for v in completion.values or []] == [("blue", 0.9), ("green", 0.1)]
    assert result.formats["sft"].ok
    assert any(f"first {MOST_ROWS:,} rows" in said for said in result.partial)


async def test_a_small_dataset_is_read_whole_and_nothing_is_called_partial(
    hub: HubStandIn, viewer: ViewerStandIn, inspector: DatasetInspector
) -> None:
    hub.add(dataset())
    viewer.describe("org/data", 40, STATISTICS, ROWS[:5])
    result = await inspector.inspect(f"{hub.url}/datasets/org/data")
    assert (result.rows, result.partial) == (40, [])
    assert result.columns[0].missing == 0


async def test_a_viewer_that_is_not_ready_yet_is_asked_again(
    hub: HubStandIn, viewer: ViewerStandIn, inspector: DatasetInspector
) -> None:
    hub.add(dataset())
    viewer.describe("org/data", 40, STATISTICS, ROWS[:5])
    viewer.fail(NOT_READY, path="/size")
    assert (await inspector.inspect("org/data")).status == "ok"
    assert len(viewer.asked("/size")) == 2


async def test_a_lasting_error_of_the_viewer_is_asked_once(
    hub: HubStandIn, viewer: ViewerStandIn, inspector: DatasetInspector
) -> None:
    hub.add(dataset())
    viewer.describe("org/data", 40, STATISTICS, ROWS[:5])
    viewer.fail_always(BROKEN)
    await inspector.inspect("org/data")
    assert len(viewer.asked("/size")) == 1


async def test_the_viewer_gets_the_token_of_the_hub(
    hub: HubStandIn, viewer: ViewerStandIn, inspector: DatasetInspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(dataset())
    viewer.describe("org/data", 40, STATISTICS, ROWS[:5])
    await inspector.inspect("org/data")
    assert set(viewer.tokens) == {""}
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    viewer.tokens.clear()
    hub.add(dataset())
    await inspector.inspect("org/data", split="train", sample_rows=1)
    assert set(viewer.tokens) <= {"Bearer hf_good"}


@pytest.mark.parametrize("fault", [NOT_READY, NO_SCRIPT, NOT_AUTHENTICATED, RESET])
async def test_without_the_viewer_the_files_are_read_and_the_sources_say_so(
    hub: HubStandIn, viewer: ViewerStandIn, inspector: DatasetInspector, fault: Any
) -> None:
    hub.add(dataset())
    viewer.fail_always(fault)
    result = await inspector.inspect("org/data")
    assert result.status == "partial"
    assert [source.status for source in result.sources][-1] == "ok"
    assert {source.status for source in result.sources[:-1]} <= {"error", "blocked", "offline"}
    assert (result.rows, result.formats["sft"].ok, result.columns[0].distinct) == (40, True, 40)


async def test_without_the_files_the_viewers_first_rows_stand_in(
    hub: HubStandIn, viewer: ViewerStandIn, inspector: DatasetInspector
) -> None:
    hub.add(dataset(access="gated"))
    viewer.describe("org/data", 500, STATISTICS, ROWS[:5])
    result = await inspector.inspect("org/data")
    assert (result.status, result.gated, result.rows) == ("partial", "manual", 500)
    assert any("first 5 rows stand in" in said for said in result.partial)
    assert result.formats["sft"].ok


async def test_a_gated_dataset_without_viewer_is_refused_with_the_way_in(
    hub: HubStandIn, viewer: ViewerStandIn, inspector: DatasetInspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(dataset(access="gated"))
    with pytest.raises(Blocked, match="Accept its conditions"):
        await inspector.inspect("org/data")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert (await inspector.inspect("org/data")).rows == 40
    assert {seen.headers.get("authorization") for seen in viewer.seen} == {None, "Bearer hf_good"}


async def test_private_and_absent_datasets_are_not_found(
    hub: HubStandIn, viewer: ViewerStandIn, inspector: DatasetInspector
) -> None:
    hub.add(dataset(access="private"))
    for name in ("org/data", "org/none"):
        with pytest.raises(NotFound, match="set HF_TOKEN"):
            await inspector.inspect(name)
    assert viewer.seen == []


async def test_a_revision_is_read_from_the_files_alone(
    hub: HubStandIn, viewer: ViewerStandIn, inspector: DatasetInspector
) -> None:
    hub.add(dataset())
    result = await inspector.inspect("org/data", revision=SHA)
    assert (result.rows, viewer.seen) == (40, [])


async def test_the_card_decides_configs_and_splits(
    hub: HubStandIn, viewer: ViewerStandIn, inspector: DatasetInspector
) -> None:
    lines = b"".join(json.dumps({"text": f"row {i}"}).encode() + b"\n" for i in range(9))
    configs = [
        {"config_name": "main", "data_files": [{"split": "train", "path": "main/*.jsonl"}]},
        {"config_name": "extra", "data_files": [{"split": "heldout", "path": ["extra/a.jsonl"]}]},
    ]
    files = {"main/x.jsonl": lines, "extra/a.jsonl": lines[: lines.index(b"\n") + 1], "README.md": b"---\n---\n"}
    hub.add(Repo("org/data", "dataset", files, {"cardData": {"configs": configs}}))
    result = await inspector.inspect("org/data")
    assert (result.config, result.split, result.rows, result.configs) == ("main", "train", 9, ["main", "extra"])
    other = await inspector.inspect("org/data", config="extra")
    assert (other.split, other.rows) == ("heldout", 1)
    with pytest.raises(BadInput, match="Did you mean 'main'"):
        await inspector.inspect("org/data", config="mian")
    with pytest.raises(BadInput, match="The splits are: train"):
        await inspector.inspect("org/data", split="test")


async def test_a_repository_without_data_is_refused(
    hub: HubStandIn, viewer: ViewerStandIn, inspector: DatasetInspector
) -> None:
    hub.add(Repo("org/data", "dataset", {"script.py": b"print()"}))
    with pytest.raises(NotFound, match="no parquet, jsonl or csv data"):
        await inspector.inspect("org/data")


async def test_the_recorded_answers_of_the_real_viewer_are_understood(
    recorded: Path, viewer: ViewerStandIn, workspace: Workspace, clock: FakeClock
) -> None:
    paths = json.loads((recorded / "datasets-server" / "openapi.json").read_text())["paths"]

    def examples(path: str) -> list[Any]:
        found = paths[path]["get"]["responses"]["200"]["content"]["application/json"]["examples"].values()
        return [example["value"] for example in found if "value" in example]

    client = ViewerClient(web=Web(workspace, clock))
    for number, statistics in enumerate(examples("/statistics")):
        name = f"org/data{number}"
        viewer.answers[("statistics", name)] = statistics
        viewer.answers[("first-rows", name)] = examples("/first-rows")[number % 2]
        viewer.answers[("presidio-entities", name)] = examples("/presidio-entities")[0]
        viewed = Viewed()
        await client.look_at(viewed, name, "default", "train")
        assert list(viewed.statistics) == [entry["column_name"] for entry in statistics["statistics"]]
        assert (viewed.rows, bool(viewed.first_rows)) == (statistics["num_examples"], True)
        assert {issue.kind for issue in viewed.issues} == {"personal_data"}
    for number, (sizes, parquet) in enumerate(itertools.zip_longest(examples("/size"), examples("/parquet"))):
        name = f"org/other{number}"
        viewer.answers[("size", name)] = sizes
        viewer.answers[("splits", name)] = examples("/splits")[0]
        viewer.answers[("parquet", name)] = parquet
        overview = Viewed()
        await client.overview(overview, name)
        assert overview.splits
        for split in converted_splits(overview.files):
            assert all(path.startswith("datasets/") and "@refs%2Fconvert%2Fparquet/" in path for path in split.paths)
