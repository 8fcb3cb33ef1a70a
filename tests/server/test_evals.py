"""The evaluation tools over MCP, results on a stand-in of the Hub included: both channels carry the whole answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import TextContent

from mlintern.server.app import build_server
from mlintern.server.settings import Settings
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.services.hub import SHA, HubStandIn, Repo
from tests.services.standin import Fault
from tests.tools.evals.published import EVAL_RESULTS, model_with_samples
from tests.tools.evals.results import add_job, write_own

pytestmark = pytest.mark.anyio


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    with HubStandIn().running() as standin:
        monkeypatch.setenv("HF_ENDPOINT", standin.url)
        yield standin  # type: ignore[misc]


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


async def ask(home: Path, tool: str, **arguments: Any) -> dict[str, Any]:
    """What a host gets that shows its model the structured result, after seeing that the text says the same."""
    async with Client(build_server(Settings(workspace=home, data=(home.parent,)))) as client:
        result = await client.call_tool(tool, arguments)
    [block] = result.content
    assert isinstance(block, TextContent)
    assert not result.is_error, block.text
    assert without_nulls(result.structured_content) == json.loads(block.text)
    return result.structured_content or {}


async def test_results_on_the_hub_are_read_page_by_page(hub: HubStandIn, tmp_path: Path) -> None:
    hub.add(Repo("org/m", "model", {".eval_results/scores.yaml": EVAL_RESULTS}))
    first = await ask(tmp_path, "read_eval", source=f"{hub.url}/org/m", limit=1)
    assert (first["status"], first["revision"], first["untrusted"]) == ("ok", SHA, True)
    [row] = first["rows"]
    assert (row["value"], row["scale_known"]) == (41.2, False)
    assert row["source"] == f"hf://models/org/m@{SHA}/.eval_results/scores.yaml"
    second = await ask(tmp_path, "read_eval", source=f"{hub.url}/org/m", limit=1, cursor=first["next_cursor"])
    assert ([row["value"] for row in second["rows"]], second["next_cursor"]) == ([0.755], None)


async def test_a_hub_that_asks_to_wait_is_no_empty_result(hub: HubStandIn, tmp_path: Path) -> None:
    hub.add(Repo("org/m", "model", {".eval_results/scores.yaml": EVAL_RESULTS}))
    hub.fail_always(Fault(status=429, headers={"retry-after": "30"}), path="/api/models/org/m")
    answer = await ask(tmp_path, "read_eval", source="org/m")
    assert (answer["status"], answer["rows"]) == ("rate_limited", [])
    assert answer["sources"][0]["retry_after_seconds"] == 30
    compared = await ask(tmp_path, "compare_evals", baseline="org/m", candidate="org/none")
    assert (compared["status"], compared["rows"]) == ("rate_limited", [])
    assert {"baseline: huggingface", "candidate: huggingface"} == {one["name"] for one in compared["sources"]}


async def test_a_repository_is_compared_with_a_folder(hub: HubStandIn, tmp_path: Path) -> None:
    hub.add(model_with_samples("org/base", [0.0] * 90 + [1.0] * 10, tmp_path))
    write_own(tmp_path / "sft", [1.0] * 70 + [0.0] * 20 + [1.0] * 10, model="sft")
    answer = await ask(tmp_path / "home", "compare_evals", baseline="org/base", candidate=str(tmp_path / "sft"))
    [row] = answer["rows"]
    assert (row["verdict"], answer["status"]) == ("improved", "ok")
    assert "McNemar" in row["method"]


@pytest.mark.parametrize("source", ["job-1", "{folder}/trainer_state.json", "{folder}/train.log"])
async def test_a_run_is_diagnosed_from_its_job_its_state_or_its_log(tmp_path: Path, source: str) -> None:
    history = [{"step": step, "loss": 1.0 if step < 20 else float("nan"), "epoch": 1.0} for step in range(1, 31)]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    (tmp_path / "train.log").write_text("".join(f"{row}\n" for row in history))
    home = Workspace.open(tmp_path / "home")
    add_job(Ledger(home.ledger), "job-1")
    output = home.job("job-1") / "output"
    output.mkdir(parents=True)
    rows = [{"v": 1, "kind": "metrics", "step": row["step"], "values": {"loss": row["loss"]}} for row in history]
    (output / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = await ask(home.root, "diagnose_run", source=source.replace("{folder}", str(tmp_path)))
    assert (answer["verdict"], answer["steps_read"]) == ("failing", 30)
    assert answer["findings"][0]["kind"] == "nan_or_inf"
