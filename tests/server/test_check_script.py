"""`check_script` over MCP: a dry run asks a person, what only reads asks nobody, and a refusal runs nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from mlintern.server.app import build_server
from mlintern.server.cli import main
from mlintern.server.services import Lab
from mlintern.server.settings import Settings
from mlintern.tools.allowances import Allowances
from mlintern.tools.scripts.checking import ScriptChecker
from mlintern.tools.scripts.dry_run import Trial
from mlintern.tools.scripts.dry_settings import SEAM
from mlintern.tools.scripts.script_results import Check
from mlintern.tools.scripts.store import Script
from mlintern.tools.scripts.template_checks import TemplateChecker
from tests.server.asking import NO, YES, Person
from tests.services import tiny_model

pytestmark = pytest.mark.anyio

BOTH_ERAS = pytest.mark.parametrize("era", ["auto", "legacy"])
CODE = f'import json\nimport os\n\nMODEL = "/nowhere"\nDATASET = "/nowhere.jsonl"\n{SEAM}\n'


class Runner:
    """Stands where `DryRunner` does: it remembers what it was told to run, and runs nothing."""

    limit_seconds = 180.0

    def __init__(self, *trials: Trial) -> None:
        self.trials = list(trials)
        self.ran: list[str] = []

    async def run(self, script: Script, *, wait_seconds: float) -> Trial:
        assert wait_seconds < 60, "desktop hosts end a call after that"
        self.ran.append(script.script_id)
        return (
            self.trials.pop(0)
            if self.trials
            else Trial("over", (Check(rule="dry_run", severity="note", message=""),))
        )


@asynccontextmanager
async def desk(
    home: Path, runner: Runner, *, era: str = "auto", person: Person | None = None, allow: tuple[str, ...] = ()
) -> AsyncIterator[Client]:
    lab = Lab(Settings(workspace=home, allowances=Allowances.parse(allow=allow)))
    template: TemplateChecker = lab.checker._template
    lab.checker = ScriptChecker(store=lab.scripts, template=template, runner=runner)  # type: ignore[arg-type]
    async with Client(build_server(lab.settings, lab=lab), mode=era, elicitation_callback=person) as client:
        yield client


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


async def answer(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


async def store(client: Client, code: str = CODE) -> str:
    return str((await answer(client, "edit_script", code=code, name="mine"))["script_id"])


@BOTH_ERAS
async def test_a_dry_run_asks_a_person_once_and_then_runs(home: Path, era: str) -> None:
    runner, person = Runner(), Person(YES)
    async with desk(home, runner, era=era, person=person) as client:
        script_id = await store(client)
        result = await answer(client, "check_script", script_id=script_id, level="dry_run")
        assert (result["status"], result["ok"], result["level"]) == ("checked", True, "dry_run")
        await answer(client, "check_script", script_id=script_id, level="dry_run")
    assert runner.ran == [script_id, script_id] and len(person.asked) == 1
    first, *rest = person.asked[0].message.splitlines()
    for part in ('Dry run of script "mine"', "local cpu", "free of charge", "3 min", result["digest"][:12]):
        assert part in first
    assert script_id in "\n".join(rest)


@BOTH_ERAS
@pytest.mark.parametrize("level", ["static", "template"])
async def test_what_only_reads_asks_nobody(home: Path, era: str, level: str) -> None:
    runner, person = Runner(), Person(NO)
    async with desk(home, runner, era=era, person=person) as client:
        result = await answer(client, "check_script", script_id=await store(client), level=level)
        assert result["status"] == "checked"
        assert (await answer(client, "check_script", script_id=result["script_id"]))["level"] == "static"
    assert person.asked == [] and runner.ran == []


@BOTH_ERAS
async def test_who_declines_is_heard_and_nothing_runs(home: Path, era: str) -> None:
    runner = Runner()
    async with desk(home, runner, era=era, person=Person(NO)) as client:
        result = await answer(client, "check_script", script_id=await store(client), level="dry_run")
    assert (result["status"], result["ok"], runner.ran) == ("denied", False, [])
    assert "declined" in result["note"]


@BOTH_ERAS
async def test_a_host_that_cannot_ask_is_told_the_command_which_then_counts(home: Path, era: str) -> None:
    runner = Runner()
    async with desk(home, runner, era=era) as client:
        script_id = await store(client)
        result = await answer(client, "check_script", script_id=script_id, level="dry_run")
        assert (result["status"], result["ok"], runner.ran) == ("approval_required", False, [])
        command = result["how_to_approve"]
        assert result["digest"].startswith(command.split()[2])
        assert main([*command.split()[1:]]) == 0
        again = await answer(client, "check_script", script_id=script_id, level="dry_run")
    assert (again["status"], runner.ran) == ("checked", [script_id])


async def test_an_allowance_for_local_jobs_covers_it(home: Path) -> None:
    runner, person = Runner(), Person(NO)
    async with desk(home, runner, person=person, allow=("local<=30m",)) as client:
        result = await answer(client, "check_script", script_id=await store(client), level="dry_run")
    assert result["ok"] and person.asked == []


async def test_an_allowance_that_is_shorter_than_a_dry_run_does_not(home: Path) -> None:
    person = Person(NO)
    async with desk(home, Runner(), person=person, allow=("local<=1m",)) as client:
        await answer(client, "check_script", script_id=await store(client), level="dry_run")
    assert len(person.asked) == 1


async def test_consent_is_for_one_script(home: Path) -> None:
    person = Person(YES)
    async with desk(home, Runner(), person=person) as client:
        await answer(client, "check_script", script_id=await store(client), level="dry_run")
        await answer(client, "check_script", script_id=await store(client, CODE + "\nX = 1\n"), level="dry_run")
    assert len(person.asked) == 2


@pytest.mark.parametrize("code", ["print('no variable')\n", CODE + "= 1\n"], ids=["no seam", "no Python"])
async def test_nobody_is_asked_about_a_script_that_cannot_be_run(home: Path, code: str) -> None:
    runner, person = Runner(), Person(YES)
    async with desk(home, runner, person=person) as client:
        result = await answer(client, "check_script", script_id=await store(client, code), level="dry_run")
    assert not result["ok"] and person.asked == [] and runner.ran == []


async def test_a_run_that_is_not_over_is_no_pass_and_is_asked_for_again(home: Path) -> None:
    runner = Runner(Trial("running", note="It has been running for 40 s."))
    async with desk(home, runner, allow=("local<=30m",)) as client:
        script_id = await store(client)
        first = await answer(client, "check_script", script_id=script_id, level="dry_run")
        assert (first["status"], first["ok"]) == ("running", False) and "call check_script again" in first["note"]
        second = await answer(client, "check_script", script_id=script_id, level="dry_run")
    assert (second["status"], second["ok"]) == ("checked", True)


async def test_a_level_that_does_not_exist_asks_nobody(home: Path) -> None:
    person = Person(YES)
    async with desk(home, Runner(), person=person) as client:
        result = await client.call_tool("check_script", {"script_id": await store(client), "level": "deep"})
    assert result.is_error and person.asked == []


@pytest.mark.slow
async def test_a_rendered_script_is_really_tried(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    model = tiny_model.make_tiny_model(tmp_path / "model")
    data = tiny_model.write_rows(tmp_path / "rows.jsonl", tiny_model.sft_rows(40))
    allowances = Allowances.parse(allow=("local<=3m",))
    lab = Lab(Settings(workspace=home, allowances=allowances, data=(tmp_path,)))
    async with Client(build_server(lab.settings, lab=lab)) as client:
        recipe = {"trainer": "sft", "model": str(model), "dataset": str(data)}
        script_id = (await answer(client, "render_script", recipe=recipe))["script_id"]
        read = await answer(client, "check_script", script_id=script_id, level="template")
        assert read["ok"] and [check["rule"] for check in read["checks"]] == ["template"]
        tried = await answer(client, "check_script", script_id=script_id, level="dry_run")
        while tried["status"] == "running":
            tried = await answer(client, "check_script", script_id=script_id, level="dry_run")
        assert tried["ok"] and "2 steps" in tried["checks"][-1]["message"]
        assert (await answer(client, "list_jobs"))["total"] == 0
