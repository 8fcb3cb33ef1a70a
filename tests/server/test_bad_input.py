"""What a caller can get wrong, tool by tool: refused in words that say what to do, never as a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.server import MCPServer
from mcp.types import TextContent

from mlintern.server.app import build_server
from mlintern.server.settings import Settings
from tests.tools.evals.results import write_own

pytestmark = pytest.mark.anyio

EVALUATION = {"trainer": "evaluation", "model": "{folder}/model", "dataset": "{folder}/good.jsonl"}
SFT = {"trainer": "sft", "model": "{folder}/model", "dataset": "{folder}/good.jsonl"}
OPEN = {
    "name": "x",
    "model": "{folder}/model",
    "evaluation": {"dataset": "{folder}/good.jsonl"},
    "limits": {"hours": 1},
}

CASES: list[tuple[str, dict[str, Any], str]] = [
    ("search_papers", {"query": "x", "limit": 0}, "greater than or equal to 1"),
    ("search_papers", {"query": "x", "sources": ["arxiv.org"]}, "sources"),
    ("search_papers", {"cursor": "nonsense"}, "cursor"),
    ("read_paper", {"paper_id": "not a paper"}, "not a paper"),
    ("ask_papers", {"question": " "}, "question"),
    ("walk_citations", {"paper_id": ""}, "paper"),
    ("walk_citations", {"paper_id": "2305.18290", "depth": 9}, "less than or equal to 2"),
    ("search_hub", {"kind": "papers"}, "kind"),
    ("search_hub", {"kind": "models", "paper_id": "no id"}, "no arXiv id"),
    ("search_hub", {"kind": "models", "cursor": "nonsense"}, "cursor"),
    ("inspect_model", {"model": "{folder}/absent"}, "There is no folder"),
    ("inspect_model", {"model": "{folder}"}, "no config.json"),
    ("browse_hub", {"repo_id": "not/a/repo/at all"}, "not/a/repo"),
    ("inspect_dataset", {"dataset": "{folder}/absent.jsonl"}, "absent.jsonl"),
    ("inspect_dataset", {"dataset": "{folder}/empty.jsonl"}, "empty.jsonl"),
    ("inspect_dataset", {"dataset": "{folder}/broken.jsonl"}, "broken.jsonl"),
    ("inspect_dataset", {"dataset": "{folder}/good.jsonl", "columns": ["promt"]}, "prompt"),
    ("inspect_dataset", {"dataset": "{folder}/good.jsonl", "split": "test"}, "test"),
    ("check_contamination", {"train": "{folder}/absent", "evaluation": "{folder}/good.jsonl"}, "absent"),
    ("search_docs", {"query": "?"}, "no word"),
    ("read_doc", {"doc": "nowhere"}, "nowhere"),
    ("search_code", {"query": " "}, "empty"),
    ("read_code", {"repo": "not a repository"}, "not a repository"),
    ("publish_to_hub", {"operation": "publish", "repo_id": "me/x"}, "operation"),
    ("publish_to_hub", {"operation": "upload", "repo_id": "not/a/repo", "source": "{folder}"}, "not/a/repo"),
    ("publish_to_hub", {"operation": "upload", "repo_id": "me/x"}, "upload needs source"),
    ("publish_to_hub", {"operation": "create_repo", "repo_id": "me/x", "name": "y"}, "does not use name"),
    ("describe_trainer", {"trainer": "spo"}, "spo"),
    ("describe_trainer", {"trainer": "sft", "fields": ["learning_rte"]}, "learning_rate"),
    ("render_script", {"recipe": {}}, "trainer"),
    ("render_script", {"recipe": "not json"}, "a recipe is an object"),
    ("render_script", {"recipe": {**SFT, "trainer": "sftt"}}, "sft"),
    ("render_script", {"recipe": {**SFT, "hyperparameters": {"learning_rte": 1}}}, "learning_rate"),
    ("render_script", {"recipe": {**SFT, "epoch": 3}}, "epochs"),
    ("render_script", {"recipe": {**SFT, "dataset": "{folder}/absent.jsonl"}}, "absent.jsonl"),
    ("render_script", {"recipe": {**EVALUATION, "limit": -1}}, "limit"),
    ("open_experiment", {**OPEN, "limits": {"hours": 0}}, "greater than 0"),
    ("open_experiment", {**OPEN, "limits": {"hour": 1}}, "hours"),
    ("open_experiment", {**OPEN, "evaluation": {"dataset": "{folder}/absent.jsonl"}}, "absent.jsonl"),
    ("open_experiment", {**OPEN, "evaluation": {"dataset": "{folder}/good.jsonl"}}, "different items do not give"),
    ("run_trials", {"experiment": "none", "trials": []}, "No experiment"),
    ("run_trials", {"experiment": "none", "trials": [{"recipe": SFT, "base": "x"}]}, "either `recipe`, or `base`"),
    ("poll_experiment", {"experiment": "none"}, "No experiment"),
    ("cancel_trial", {"experiment": "none", "trial": "x"}, "No experiment"),
    ("confirm", {"experiment": "none"}, "No experiment"),
    ("edit_script", {}, "script_id or code"),
    ("edit_script", {"script_id": "0123456789ab", "old_text": "a", "new_text": "b"}, "There is no script"),
    ("edit_script", {"code": "x = 1\n", "old_text": "y", "new_text": "z"}, "old_text"),
    ("check_script", {"script_id": "0123456789ab"}, "There is no script"),
    ("check_script", {"script_id": "0123456789ab", "level": "deep"}, "level"),
    ("list_hardware", {"backend": "locl"}, "'local'"),
    ("estimate_job", {"script_id": "0123456789ab"}, "There is no script"),
    ("submit_job", {"script_id": "0123456789ab"}, "There is no script"),
    ("poll_job", {"job_id": "job-0"}, "There is no job"),
    ("read_job_logs", {"job_id": "job-0"}, "There is no job"),
    ("list_jobs", {"status": "finished"}, "status"),
    ("cancel_job", {"job_id": "job-0"}, "There is no job"),
    ("read_eval", {"source": ""}, "empty"),
    ("read_eval", {"source": "{folder}/absent"}, "absent"),
    ("read_eval", {"source": "{folder}/broken.jsonl"}, "broken.jsonl"),
    ("read_eval", {"source": "https://example.com/org/model"}, "Unrecognized host"),
    ("read_eval", {"source": "https://huggingface.co/spaces/org/board"}, "is a space"),
    ("read_eval", {"source": "hf://org/model/../other"}, "leaves the repository"),
    ("read_eval", {"source": "{folder}/evaluation.json", "cursor": "nonsense"}, "cursor"),
    ("read_eval", {"source": "{folder}/evaluation.json", "limit": 0}, "greater than or equal to 1"),
    ("read_eval", {"source": "{folder}/evaluation.json", "task": "maxnm"}, "maxnum"),
    ("compare_evals", {"baseline": "{folder}/evaluation.json", "candidate": "hf://spaces/a/b"}, "is a space"),
    (
        "compare_evals",
        {"baseline": "{folder}/evaluation.json", "candidate": "{folder}/evaluation.json", "task": "mmlu"},
        "The baseline has no task",
    ),
    ("compare_evals", {"baseline": "{folder}/absent", "candidate": "{folder}/absent"}, "absent"),
    ("diagnose_run", {"source": "{folder}/absent"}, "absent"),
    ("chat", {"job_id": "job-000000000000", "prompts": ["Hello"]}, "list_jobs"),
    ("chat", {"job_id": "{folder}/model", "prompts": ["Hello"]}, "is no job"),
    ("chat", {"job_id": "job-000000000000", "prompts": [" "]}, "prompt is empty"),
    ("diagnose_run", {"source": "hf://org/model"}, "hf download org/model"),
    ("diagnose_run", {"source": "{folder}/evaluation.json"}, "no log_history"),
    ("list_runs", {"experiment": "nothing"}, "nothing"),
    ("list_runs", {"sort": "best"}, "Name an experiment"),
    ("write_report", {"experiment": "nothing"}, "nothing"),
    ("plot_run", {}, "Give job_id or experiment"),
    ("plot_run", {"job_id": "job-none"}, "job-none"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> MCPServer[Any]:
    data = (tmp_path_factory.getbasetemp(),)
    return build_server(Settings(workspace=tmp_path_factory.mktemp("home"), data=data))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.jsonl").write_text('{"prompt": "a"}\n{"prompt": \n')
    write_own(tmp_path, [1.0, 0.0])
    return tmp_path


def filled(value: Any, folder: Path) -> Any:
    if isinstance(value, str):
        return value.replace("{folder}", str(folder))
    if isinstance(value, dict):
        return {key: filled(item, folder) for key, item in value.items()}
    return value


@pytest.mark.parametrize("tool, arguments, complaint", CASES)
async def test_bad_input_is_refused_and_explained(
    server: MCPServer[Any], folder: Path, tool: str, arguments: dict[str, Any], complaint: str
) -> None:
    async with Client(server) as client:
        result = await client.call_tool(tool, filled(arguments, folder))
    [block] = result.content
    assert isinstance(block, TextContent)
    assert result.is_error, block.text
    assert complaint in block.text, block.text
    assert not block.text.startswith("Error executing tool"), block.text


async def test_every_tool_has_a_case_here(server: MCPServer[Any]) -> None:
    async with Client(server) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
    assert names == {tool for tool, _, _ in CASES}
