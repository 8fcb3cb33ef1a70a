"""Calls that would take longer than a host waits come back with what they have, what is missing, and how to go on."""

from __future__ import annotations

import errno
import io
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlintern.tools.data import inspect_dataset
from mlintern.tools.data.contamination import ContaminationChecker
from mlintern.tools.data.inspect_dataset import DatasetInspector
from mlintern.tools.deadlines import CALL_SECONDS
from mlintern.tools.errors import Conflict, Offline
from mlintern.tools.hub.client import HubClient
from mlintern.tools.hub.errors import hub_errors
from mlintern.tools.hub.inspect_model import ModelInspector
from mlintern.tools.ledger import Ledger
from mlintern.tools.publish import files
from mlintern.tools.publish.service import Publisher
from mlintern.tools.web import Web
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services.hub import HubStandIn, Repo
from tests.services.hub_git import WritableHub
from tests.services.standin import STALL
from tests.services.viewer import ViewerStandIn

pytestmark = pytest.mark.anyio

ROWS = [{"prompt": f"the colour of sky number {i} is", "completion": "blue"} for i in range(40)]
CONFIG = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2}


@pytest.fixture(autouse=True, scope="module")
def quiet() -> None:
    """Reads that were left to themselves go on trying after their stand-in and their test are gone."""
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)


@pytest.fixture
def inspector(workspace: Workspace, clock: FakeClock) -> Callable[[float], DatasetInspector]:
    return lambda seconds: DatasetInspector(
        workspace=workspace, hub=HubClient(), web=Web(workspace, clock), seconds=seconds
    )


def dataset() -> Repo:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), buffer)
    return Repo("org/data", "dataset", {"data/train-00000-of-00001.parquet": buffer.getvalue()}, {})


async def test_a_viewer_that_hangs_leaves_time_to_read_the_rows(
    hub: HubStandIn, viewer: ViewerStandIn, inspector: Callable[[float], DatasetInspector]
) -> None:
    hub.add(dataset())
    viewer.fail_always(STALL)
    with anyio.fail_after(CALL_SECONDS):
        result = await inspector(8.0).inspect("org/data")
    assert (result.status, result.rows, result.formats["sft"].ok) == ("partial", 40, True)
    late = next(source for source in result.sources if source.name == "dataset viewer")
    assert late.status == "offline" and "8 s of a call" in str(late.message)


async def test_files_that_hang_leave_what_the_viewer_said(
    hub: HubStandIn, viewer: ViewerStandIn, inspector: Callable[[float], DatasetInspector]
) -> None:
    hub.add(dataset())
    viewer.describe("org/data", 40, [], ROWS[:5])
    hub.fail_always(STALL, path=".parquet")
    with anyio.fail_after(CALL_SECONDS):
        result = await inspector(6.0).inspect("org/data")
    assert result.status == "partial" and len(result.samples) == 3
    assert [(split.name, split.rows) for split in result.splits] == [("train", 40)]
    assert any("first 5 rows stand in" in said for said in result.partial), result.partial


async def test_local_data_that_takes_too_long_is_judged_by_its_first_rows(
    inspector: Callable[[float], DatasetInspector], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    monkeypatch.setattr(inspect_dataset, "WHOLE_PART", 0.0)  # as if all rows had taken too long
    result = await inspector(30.0).inspect(str(path))
    assert (result.status, result.formats["sft"].ok) == ("partial", True)
    assert any("longer than a call may" in said and "one by one" in said for said in result.partial)


async def test_a_model_whose_files_hang_is_described_by_what_the_hub_said(hub: HubStandIn) -> None:
    files = {"config.json": json.dumps(CONFIG).encode()}
    hub.add(Repo("org/tiny", "model", files, {"config": CONFIG, "cardData": {"license": "apache-2.0"}}))
    hub.fail_always(STALL, path="paths-info")
    with anyio.fail_after(CALL_SECONDS):
        result = await ModelInspector(hub=HubClient(), seconds=3.0).inspect("org/tiny")
    assert (result.status, result.license, result.model_type) == ("partial", "apache-2.0", "qwen3")
    assert any("did not answer" in said and "ask again" in said for said in result.warnings), result.warnings


async def test_a_model_of_which_nothing_came_in_time_is_an_error_that_says_so(hub: HubStandIn) -> None:
    hub.add(Repo("org/tiny", "model", {}, {}))
    hub.fail_always(STALL)
    with anyio.fail_after(CALL_SECONDS), pytest.raises(Offline, match="did not answer"):
        await ModelInspector(hub=HubClient(), seconds=0.5).inspect("org/tiny")


def test_a_connection_that_was_closed_here_is_not_said_to_be_the_networks_fault() -> None:
    closed, refused = httpx2.ReadError("[Errno 9] Bad file descriptor"), httpx2.ConnectError("refused")
    closed.__cause__, refused.__cause__ = OSError(errno.EBADF, "Bad file descriptor"), ConnectionRefusedError()
    said = "did not answer about org/tiny before the connection was closed"
    with pytest.raises(Offline, match=said), hub_errors("org/tiny"):
        raise closed
    with pytest.raises(Offline, match="cannot be reached"), hub_errors("org/tiny"):
        raise refused


async def test_a_comparison_that_takes_too_long_says_how_far_it_came_and_writes_nothing_half_checked(
    tmp_path: Path,
) -> None:
    train, evaluation, target = tmp_path / "train.jsonl", tmp_path / "test.jsonl", tmp_path / "clean.jsonl"
    known = "Natalia sold clips to 48 of her friends in April and then she sold half as many clips in May"
    row = json.dumps({"text": "weather rivers bread and tea in many towns of the north " * 200}) + "\n"
    train.write_text(json.dumps({"text": known}) + "\n" + row * 30_000)
    evaluation.write_text(json.dumps({"text": known}) + "\n")
    with anyio.fail_after(CALL_SECONDS):
        result = await ContaminationChecker(seconds=4.0).check(str(train), str(evaluation), filtered=str(target))
    assert 0 < result.train_rows < 30_000 and result.flagged == 1
    assert any("in the time of a call. To go on" in said for said in result.partial), result.partial
    assert any("was not written" in said for said in result.partial) and not target.exists()


async def test_a_dataset_that_hangs_in_a_comparison_is_an_error_that_says_how_to_go_on(
    hub: HubStandIn, tmp_path: Path
) -> None:
    hub.add(dataset())
    hub.fail_always(STALL, path=".parquet")
    evaluation = tmp_path / "test.jsonl"
    evaluation.write_text(json.dumps({"text": "a question"}) + "\n")
    with anyio.fail_after(CALL_SECONDS), pytest.raises(Offline) as caught:
        await ContaminationChecker(seconds=2.0).check("org/data", str(evaluation))
    assert "smaller split" in caught.value.next_step


async def test_files_that_take_long_to_hash_are_gone_on_with_by_the_next_call(
    workspace: Workspace, ledger: Ledger, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(1000))
    read: list[int] = []
    held = threading.Event()
    real = files._read

    def slowly(chunks: Any, size: int, known: Any) -> Any:
        read.append(size)
        if size == 1000:
            held.wait(120)
        return real(chunks, size, known)

    monkeypatch.setattr(files, "_read", slowly)
    with WritableHub().running() as hub:
        assert isinstance(hub, WritableHub)
        hub.make("me/model")
        client = HubClient(environ={"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_good"})
        options: dict[str, Any] = {"workspace": workspace, "ledger": ledger, "clock": clock, "hub": client}
        publisher = Publisher(**options, reading_seconds=2.0)
        for _ in range(2):
            with anyio.fail_after(60), pytest.raises(Conflict, match="still being read: 1 files done") as caught:
                await publisher.plan("upload", "me/model", source=str(folder))
            assert "same arguments" in caught.value.next_step
        held.set()
        publisher._reading_seconds = 20.0
        plan = await publisher.plan("upload", "me/model", source=str(folder))
    assert len(plan.files) == 2 and sorted(read) == [2, 1000], "each file was read once"
