"""`check_contamination` with a side, or both, on the Hub: streamed over a real socket."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlintern.server.toolsets.hub import filtered_path
from mlintern.tools.data.contamination import ContaminationChecker
from mlintern.tools.data.inspect_dataset import DatasetInspector
from mlintern.tools.errors import BadInput, Blocked, MlinternError, NotFound, Offline
from mlintern.tools.workspace import Workspace
from tests.services.hub import SHA, HubStandIn, Repo
from tests.tools.data.conftest import Write

pytestmark = pytest.mark.anyio

QUESTION = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."
OTHER = [f"An unrelated sentence number {i} about weather, rivers, bread and tea in {i} towns" for i in range(30)]


def parquet_bytes(rows: list[dict[str, Any]], **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, **options)
    return buffer.getvalue()


def lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def checker() -> ContaminationChecker:
    return ContaminationChecker()


@pytest.fixture
def benchmark_on_hub(hub: HubStandIn) -> Repo:
    files = {
        "main/train-00000-of-00001.parquet": parquet_bytes([{"question": OTHER[0], "answer": "a"}]),
        "main/test-00000-of-00001.parquet": parquet_bytes(
            [{"question": OTHER[9][::-1], "answer": "b"}, {"question": QUESTION, "answer": "72"}]
        ),
        "hard/test.jsonl": lines([{"question": OTHER[3], "answer": "c"}]),
    }
    configs = [
        {"config_name": "main", "data_files": [{"split": s, "path": f"main/{s}-*"} for s in ("train", "test")]},
        {"config_name": "hard", "data_files": [{"split": "test", "path": "hard/*.jsonl"}]},
    ]
    return hub.add(Repo("org/benchmark", "dataset", files, {"cardData": {"configs": configs}}))


async def test_a_hub_evaluation_is_compared_on_its_test_split(
    checker: ContaminationChecker, hub: HubStandIn, benchmark_on_hub: Repo, jsonl: Write
) -> None:
    train = jsonl([{"text": OTHER[3]}, {"text": f"Solve: {QUESTION}"}], "train.jsonl")
    for name in ("org/benchmark", f"{hub.url}/datasets/org/benchmark"):
        result = await checker.check(str(train), name)
        assert [(m.evaluation_row, m.train_row) for m in result.matches] == [(1, 1)]
        assert (result.evaluation_rows, result.rate, result.partial) == (2, 0.5, [])
        assert result.revisions == {"evaluation": SHA}
        assert result.splits == {"train": "train", "evaluation": "main/test"}
    hard = await checker.check(str(train), "org/benchmark", evaluation_config="hard")
    assert ([m.train_row for m in hard.matches], hard.splits["evaluation"]) == ([0], "hard/test")
    with pytest.raises(BadInput, match="Did you mean 'main'"):
        await checker.check(str(train), "org/benchmark", evaluation_config="mian")
    with pytest.raises(BadInput, match="has no configuration 'main'"):
        await checker.check(str(train), "org/benchmark", train_config="main")


@pytest.mark.parametrize("form", ["parquet", "jsonl", "jsonl.gz", "json", "csv"])
async def test_a_hub_training_set_is_streamed_and_its_copy_is_json_lines(
    checker: ContaminationChecker, hub: HubStandIn, jsonl: Write, tmp_path: Path, form: str
) -> None:
    rows = [{"text": text, "n": str(i)} for i, text in enumerate([*OTHER[:5], QUESTION, *OTHER[5:9]])]
    written = {
        "parquet": parquet_bytes(rows, row_group_size=3),
        "jsonl": lines(rows),
        "jsonl.gz": gzip.compress(lines(rows)),
        "json": json.dumps(rows).encode(),
        "csv": ("text,n\n" + "".join(f'"{row["text"]}",{row["n"]}\n' for row in rows)).encode(),
    }
    hub.add(Repo("org/train", "dataset", {f"train.{form}": written[form]}))
    evaluation = jsonl([{"question": QUESTION}], "test.jsonl")
    target = tmp_path / "clean.jsonl"
    result = await checker.check("org/train", str(evaluation), filtered=str(target))
    assert (result.train_rows, result.flagged, result.matches[0].train_row) == (10, 1, 5)
    assert (result.revisions, result.partial, result.filtered) == ({"train": SHA}, [], str(target))
    assert [json.loads(line) for line in target.read_text().splitlines()] == [*rows[:5], *rows[6:]]


async def test_columns_of_other_names_are_read_in_every_file(
    checker: ContaminationChecker, hub: HubStandIn, benchmark_on_hub: Repo
) -> None:
    shards: list[list[dict[str, Any]]] = [[{"instruction": OTHER[0]}], [{"prompt": QUESTION, "pixels": b"\x00" * 10}]]
    hub.add(Repo("org/train", "dataset", {f"train-{i}.parquet": parquet_bytes(s) for i, s in enumerate(shards)}))
    result = await checker.check("org/train", "org/benchmark")
    assert [(m.evaluation_row, m.train_row) for m in result.matches] == [(1, 1)]
    assert result.columns == {"train": ["instruction", "prompt"], "evaluation": ["question", "answer"]}
    assert result.revisions == {"train": SHA, "evaluation": SHA}


async def test_only_the_text_columns_of_parquet_are_fetched(
    checker: ContaminationChecker, hub: HubStandIn, jsonl: Write
) -> None:
    image = [bytes((i * k * 7919) % 251 for k in range(2**20)) for i in range(1, 9)]
    rows = [{"image": image[i], "text": OTHER[i]} for i in range(8)]
    data = parquet_bytes(rows, row_group_size=8, compression="none", use_dictionary=False)
    hub.add(Repo("org/train", "dataset", {"train.parquet": data}))
    await checker.check("org/train", str(jsonl([{"question": QUESTION}], "test.jsonl")))
    spans = [seen.headers["range"][6:].split("-") for seen in hub.seen if seen.headers.get("range")]
    assert spans and all(int(last) - int(first) < len(data) / 2 for first, last in spans)
    assert min(int(first) for first, _ in spans) > len(data) / 4


async def test_what_was_not_read_is_said(hub: HubStandIn, jsonl: Write, tmp_path: Path) -> None:
    rows = [{"text": text} for text in OTHER[:6]]
    hub.add(Repo("org/train", "dataset", {"train.jsonl": lines(rows), "old/train.csv": b"text\nold\n"}))
    evaluation = str(jsonl([{"question": OTHER[1]}, {"question": OTHER[5]}], "test.jsonl"))
    target = tmp_path / "clean.jsonl"
    result = await ContaminationChecker(most_rows=4).check("org/train", evaluation, filtered=str(target))
    assert (result.train_rows, result.flagged) == (4, 1)
    assert any("first 4 rows" in said for said in result.partial)
    assert any("csv file(s) of the split were not read" in said for said in result.partial)
    assert len(target.read_text().splitlines()) == 3
    exact = await ContaminationChecker(most_rows=6).check("org/train", evaluation)
    assert (exact.train_rows, exact.flagged, len(exact.partial)) == (6, 2, 1)


async def test_rows_that_json_cannot_hold_leave_no_half_copy(
    checker: ContaminationChecker, hub: HubStandIn, jsonl: Write, tmp_path: Path
) -> None:
    hub.add(Repo("org/train", "dataset", {"train.parquet": parquet_bytes([{"text": OTHER[0], "image": b"x"}])}))
    evaluation = str(jsonl([{"question": QUESTION}], "test.jsonl"))
    with pytest.raises(BadInput, match="does not fit into JSON lines"):
        await checker.check("org/train", evaluation, filtered=str(tmp_path / "clean.jsonl"))
    with pytest.raises(BadInput, match=r"has to be a \.jsonl file"):
        await checker.check("org/train", evaluation, filtered=str(tmp_path / "clean.parquet"))
    assert not list(tmp_path.glob("clean*"))


async def refusal(asked: Any) -> MlinternError:
    with pytest.raises(MlinternError) as caught:
        await asked
    return caught.value


@pytest.mark.parametrize("side", ["train", "evaluation"])
async def test_gated_private_and_absent_data_is_refused_with_the_way_in(
    checker: ContaminationChecker, hub: HubStandIn, jsonl: Write, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    data = {"train.jsonl": lines([{"text": QUESTION}])}
    hub.add(Repo("org/gated", "dataset", {"train.parquet": parquet_bytes([{"text": QUESTION}])}, access="gated"))
    hub.add(Repo("org/gated-lines", "dataset", data, access="gated"))
    hub.add(Repo("org/private", "dataset", data, access="private"))
    local = str(jsonl([{"text": QUESTION}], "local.jsonl"))

    def check(name: str) -> Any:
        return checker.check(*((name, local) if side == "train" else (local, name)))

    for name in ("org/gated", "org/gated-lines"):
        with pytest.raises(Blocked, match="Accept its conditions"):
            await check(name)
    for name in ("org/private", "org/none"):
        with pytest.raises(NotFound, match="set HF_TOKEN"):
            await check(name)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    for name in ("org/gated", "org/gated-lines", "org/private"):
        assert (await check(name)).flagged == 1


async def test_errors_of_access_are_those_of_inspect_dataset(
    checker: ContaminationChecker, inspector: DatasetInspector, jsonl: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = str(jsonl([{"text": QUESTION}], "local.jsonl"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    ours, theirs = await refusal(checker.check(local, "org/data")), await refusal(inspector.inspect("org/data"))
    assert isinstance(ours, Offline)
    assert str(ours) == str(theirs)


def test_each_part_of_a_hub_dataset_gets_a_filtered_copy_of_its_own(workspace: Workspace) -> None:
    paths = {
        filtered_path(workspace, "org/data-v1.5", "test.jsonl", part=part)
        for part in ((None, None), ("main", None), ("main", "extra"))
    }
    assert len(paths) == 3
    assert all(Path(path).name.startswith("org-data-v1.5.filtered-") and path.endswith(".jsonl") for path in paths)
