"""`chat`: what a trained model says beside the one before, run isolated, over MCP and at a terminal."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from mcp import Client

from mlintern.server.app import build_server
from mlintern.server.cli import main
from mlintern.server.services import Lab
from mlintern.server.settings import Settings
from mlintern.tools.errors import BackendError
from tests.services import tiny_model
from tests.tools.scripts.test_several_models import record_job

pytestmark = pytest.mark.anyio
JOB = "job-0123456789ab"
PROMPTS = ["Which is largest ? A 24 B 31", "Which ?"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A workspace in which a training has made a model out of another one."""
    pytest.importorskip("transformers")
    home = tmp_path / "home"
    home.mkdir()
    lab = Lab(Settings(workspace=home))
    before = tiny_model.make_tiny_model(tmp_path / "before", seed=1)
    record_job(lab.ledger, JOB, recipe={"trainer": "sft", "model": str(before)})
    output = home / "jobs" / JOB / "output"
    output.mkdir(parents=True)
    tiny_model.make_tiny_model(output / "model", seed=2)
    return home


async def test_both_models_answer_every_prompt_side_by_side(home: Path, tmp_path: Path) -> None:
    with anyio.fail_after(120):
        async with Client(build_server(Settings(workspace=home))) as client:
            while True:
                result = await client.call_tool("chat", {"job_id": JOB, "prompts": PROMPTS})
                assert not result.is_error, result.content
                told = result.structured_content
                assert told is not None
                if told["status"] == "ok":
                    break
    assert told["models"] == [str(tmp_path / "before"), str(home / "jobs" / JOB / "output" / "model")]
    assert [one["prompt"] for one in told["exchanges"]] == PROMPTS and told["untrusted"]
    for exchange in told["exchanges"]:
        before, after = exchange["replies"]
        assert (before["model"], after["model"]) == tuple(told["models"])
        assert before["answer"] != after["answer"] and 1 <= before["tokens"] <= 200


async def test_a_model_that_cannot_be_loaded_is_an_error_that_says_why(home: Path) -> None:
    for file in (home / "jobs" / JOB / "output" / "model").glob("*.safetensors"):
        file.write_bytes(b"no weights")
    lab = Lab(Settings(workspace=home))
    with anyio.fail_after(120), pytest.raises(BackendError, match=r"no answers: [\s\S]*safetensors"):
        while (await lab.chat.before_and_after(JOB, PROMPTS)).status == "running":
            pass
    assert not list((home / "chats" / "jobs").iterdir()), "asked again, it is tried again"


async def test_a_person_reads_both_at_a_terminal(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--workspace", str(home), JOB, PROMPTS[1], "--max-tokens", "3"]
    assert await anyio.to_thread.run_sync(main, ["chat", *command]) == 0
    said = capsys.readouterr().out
    assert said.startswith("> Which ?\n") and said.count("(cut off):") + said.count("model:\n") >= 1
    assert str(home / "jobs" / JOB) in said and "before" in said
