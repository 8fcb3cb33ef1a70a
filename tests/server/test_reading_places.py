"""What a tool may read here: named folders without a question, all else with one, credentials never."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from mlintern.common.consent import BadRule, Rule
from mlintern.server.app import build_server
from mlintern.server.cli import main
from mlintern.server.settings import Settings
from mlintern.tools.errors import Blocked
from mlintern.tools.ledger import Ledger
from mlintern.tools.reading_places import ReadingPlaces
from mlintern.tools.workspace import Workspace
from tests.server.asking import NO, YES, Person
from tests.tools.evals.results import add_job

pytestmark = pytest.mark.anyio

ROW = '{"prompt": "what is one and one", "completion": "it is the number two"}\n'


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, and beside it a folder of the person that nobody named."""
    for name in ("work", "home", "private", "named"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text(ROW)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path


async def ask(
    places: Path, tool: str, *, person: Person | None = None, mode: str = "auto", **arguments: Any
) -> tuple[bool, str]:
    server = build_server(Settings(workspace=places / "home", data=(places / "named",)))
    async with Client(server, mode=mode, elicitation_callback=person) as client:
        result = await client.call_tool(tool, arguments)
    return bool(result.is_error), getattr(result.content[0], "text", "")


@pytest.mark.parametrize("path", ["rows.jsonl", "../home/rows.jsonl", "../named/rows.jsonl"])
async def test_the_named_folders_are_read_without_a_question(places: Path, path: str) -> None:
    person = Person(NO)
    failed, text = await ask(places, "inspect_dataset", person=person, dataset=path if "/" in path else f"./{path}")
    assert not failed and not person.asked, text


CALLS = [
    ("inspect_dataset", {"dataset": "{}/rows.jsonl"}),
    ("inspect_dataset", {"dataset": "  {}/rows.jsonl  "}),
    ("inspect_dataset", {"dataset": "file://{}/rows.jsonl"}),
    ("inspect_dataset", {"dataset": "./rows.jsonl", "model": "{}"}),
    ("check_contamination", {"train": "{}/rows.jsonl", "evaluation": "./rows.jsonl"}),
    ("check_contamination", {"train": "./rows.jsonl", "evaluation": "{}/rows.jsonl"}),
    ("read_eval", {"source": "{}"}),
    ("read_eval", {"source": " {}/rows.jsonl"}),
    ("read_eval", {"source": "./rows.jsonl", "samples": "flipped", "against": "{}/rows.jsonl"}),
    ("compare_evals", {"baseline": "./rows.jsonl", "candidate": "{}/rows.jsonl"}),
    ("diagnose_run", {"source": "{}/rows.jsonl"}),
    ("inspect_model", {"model": "{}"}),
    ("render_script", {"recipe": {"trainer": "sft", "model": "org/m", "dataset": "{}/rows.jsonl"}}),
    ("render_script", {"recipe": {"trainer": "sft", "model": "{}", "datasets": [{"dataset": "{}/rows.jsonl"}]}}),
    ("render_script", {"recipe": {"trainer": "evaluation", "model": "org/m", "dataset": "{}/rows.jsonl"}}),
    (
        "render_script",
        {"recipe": {"trainer": "generate", "model": "org/m", "keep": "all", "prompts": ["{}/rows.jsonl"]}},
    ),
    (
        "open_experiment",
        {"name": "x", "model": "{}", "evaluation": {"dataset": "./rows.jsonl"}, "limits": {"hours": 1}},
    ),
    (
        "open_experiment",
        {"name": "x", "model": "o/m", "evaluation": {"dataset": "{}/rows.jsonl"}, "limits": {"hours": 1}},
    ),
]


def filled(value: Any, folder: Path) -> Any:
    if isinstance(value, str):
        return value.replace("{}", str(folder))
    if isinstance(value, dict):
        return {key: filled(item, folder) for key, item in value.items()}
    return [filled(item, folder) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("tool", "arguments"), CALLS)
async def test_elsewhere_is_refused_where_nobody_can_be_asked(
    places: Path, tool: str, arguments: dict[str, Any]
) -> None:
    private = places / "private"
    failed, text = await ask(places, tool, **filled(arguments, private))
    assert failed and f"--data {private}" in text and "mlintern-server approve" in text, text
    assert "one and one" not in text


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_elsewhere_is_read_after_the_person_saw_the_path_and_agreed(places: Path, mode: str) -> None:
    path, person = places / "private" / "rows.jsonl", Person(YES)
    failed, text = await ask(places, "inspect_dataset", person=person, mode=mode, dataset=str(path))
    assert not failed and "one and one" in text
    [asked] = person.asked
    assert f"Path: {path}" in asked.message


async def test_a_no_is_a_refusal(places: Path) -> None:
    failed, text = await ask(
        places, "inspect_dataset", person=Person(NO), dataset=str(places / "private" / "rows.jsonl")
    )
    assert failed and "does not want" in text and "one and one" not in text


def test_no_allowance_speaks_for_reading() -> None:
    with pytest.raises(BadRule, match="no tool that can be allowed"):
        Rule.parse("read_files:local")


async def test_a_link_leads_to_where_it_leads(places: Path) -> None:
    (places / "work" / "mine.jsonl").symlink_to(places / "private" / "rows.jsonl")
    (places / "work" / "folder").mkdir()
    (places / "work" / "folder" / "train.jsonl").symlink_to(places / "private" / "rows.jsonl")
    for name in ("./mine.jsonl", "./folder", "../work/folder"):
        failed, text = await ask(places, "inspect_dataset", dataset=name)
        assert failed and str(places / "private") in text, text


@pytest.mark.parametrize("tool", ["read_eval", "diagnose_run", "compare_evals"])
@pytest.mark.parametrize("target", ["private/rows.jsonl", ".ssh/id_rsa"])
@pytest.mark.parametrize("source", ["job-1", "my run"])
async def test_a_job_cannot_have_read_by_a_link_what_it_could_not_read_itself(
    places: Path, tool: str, target: str, source: str
) -> None:
    (places / ".ssh").mkdir()
    (places / ".ssh" / "id_rsa").write_text(ROW)
    add_job(Ledger(Workspace.open(places / "home").ledger), "job-1", run_name="my run")
    output = places / "home" / "jobs" / "job-1" / "output"
    output.mkdir(parents=True)
    (output / "metrics.jsonl").symlink_to(places / target)
    names = ("baseline", "candidate") if tool == "compare_evals" else ("source",)
    failed, text = await ask(places, tool, **dict.fromkeys(names, source))
    assert failed and ("credentials are kept" if "ssh" in target else "mlintern-server approve") in text, text


@pytest.mark.parametrize("tool", ["inspect_dataset", "read_eval", "diagnose_run"])
@pytest.mark.parametrize("way", ["plain", "link", "dots"])
async def test_credentials_are_never_read_even_after_a_yes(places: Path, tool: str, way: str) -> None:
    (places / "work" / ".docker").mkdir()
    secret = places / "work" / ".docker" / "config.json"
    secret.write_text(json.dumps({"auths": {"x": {"auth": "c2VjcmV0"}}}))
    (places / "work" / "rows2.json").symlink_to(secret)
    name = {"plain": str(secret), "link": "./rows2.json", "dots": "../work/.docker/../.docker/config.json"}[way]
    person = Person(YES)
    argument = "dataset" if tool == "inspect_dataset" else "source"
    failed, text = await ask(places, tool, person=person, **{argument: name})
    assert failed and "credentials are kept" in text and "c2VjcmV0" not in text and not person.asked


async def test_a_script_shows_no_rows_of_elsewhere_at_the_level_of_its_template(places: Path) -> None:
    rows, model = places / "private" / "rows.jsonl", places / "named"
    code = f"MODEL = {str(model)!r}\nDATASET = {str(rows)!r}\nSPLIT = 'train'\n"
    server = build_server(Settings(workspace=places / "home", data=(places / "named",)))
    async with Client(server) as client:
        script = await client.call_tool("edit_script", {"code": code})
        assert script.structured_content is not None
        arguments = {"script_id": script.structured_content["script_id"], "level": "template"}
        result = await client.call_tool("check_script", arguments)
    assert result.structured_content and result.structured_content["status"] == "approval_required"
    assert "one and one" not in str(result.structured_content)


def test_a_home_folder_as_working_directory_keeps_its_hidden_parts(tmp_path: Path) -> None:
    (tmp_path / ".config").mkdir()
    (tmp_path / ".config" / "x.json").write_text("{}")
    (tmp_path / "rows.jsonl").write_text(ROW)
    found = ReadingPlaces.of(workspace=tmp_path / "w", working=tmp_path, data=(), environ={}, home=tmp_path)
    assert found.outside([tmp_path / "rows.jsonl"]) == []
    assert found.outside([tmp_path / ".config" / "x.json"]) == [tmp_path / ".config" / "x.json"]
    above = ReadingPlaces.of(workspace=tmp_path / "w", working=Path("/"), data=(), environ={}, home=tmp_path)
    assert above.outside([tmp_path / "rows.jsonl"]) == [tmp_path / "rows.jsonl"]


def test_the_environment_of_a_process_is_never_read(tmp_path: Path) -> None:
    places = ReadingPlaces.of(workspace=tmp_path, working=tmp_path, data=(Path("/"),), environ={}, home=tmp_path)
    with pytest.raises(Blocked):
        places.outside([Path("/proc/self/environ")])


def test_a_folder_that_is_not_there_is_refused_at_the_start(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["serve", "--data", str(tmp_path / "absent")]) == 1
    assert "there is no such folder" in capsys.readouterr().err
