"""`publish_to_hub` over MCP: nothing leaves this machine without a person's yes to exactly that."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client.extension import advertise
from mcp.server.apps import APP_MIME_TYPE, EXTENSION_ID
from mcp.types import ElicitResult

from mlintern.server.app import build_server
from mlintern.server.apps.approval_card import CARD_TOOL
from mlintern.server.cli import main
from mlintern.server.services import Lab
from mlintern.server.settings import Settings
from mlintern.tools.allowances import Allowances
from tests.server.asking import NO, YES, Person
from tests.server.test_jobs import BOTH_ERAS, answer, text
from tests.services.hub_git import WritableHub
from tests.services.standin import LOST
from tests.tools.publish.publishing import WEIGHTS, model_folder

pytestmark = pytest.mark.anyio

CARDS = advertise(EXTENSION_ID, {"mimeTypes": [APP_MIME_TYPE]})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    with WritableHub().running() as standin:
        monkeypatch.setenv("HF_ENDPOINT", standin.url)
        monkeypatch.setenv("HF_TOKEN", "hf_good")
        yield standin  # type: ignore[misc]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "model")


@asynccontextmanager
async def desk(
    home: Path,
    *,
    era: str = "auto",
    person: Person | None = None,
    toolsets: tuple[str, ...] = ("hub",),
    **options: Any,
) -> AsyncIterator[Client]:
    settings = Settings(workspace=home, toolsets=toolsets, allowances=Allowances.parse(allow=("local<=24h",)))
    server = build_server(settings, lab=Lab(settings))
    async with Client(server, mode=era, elicitation_callback=person, **options) as client:
        yield client


@BOTH_ERAS
async def test_a_model_is_published_after_a_person_agreed(
    home: Path, hub: WritableHub, model: Path, era: str
) -> None:
    hub.make("org/model", private=False)
    person = Person(ElicitResult(action="accept", content={"approve": True, "note": "Thanks"}))
    upload = {"operation": "upload", "repo_id": "org/model", "source": str(model), "commit_message": "First"}
    async with desk(home, era=era, person=person) as client:
        done = await answer(client, "publish_to_hub", **upload)
        assert done["status"] == "published" and "Thanks" in done["note"]
        assert hub.git("org/model").files["model.safetensors"] == WEIGHTS
        assert done["commit"] == hub.git("org/model").branches["main"]
        again = await answer(client, "publish_to_hub", **upload)
        assert (again["status"], again["commit"]) == ("already_published", done["commit"])
    [asked] = person.asked
    first, *rest = asked.message.splitlines()
    digest = done["digest"][:12]
    what = 'Upload 3 files, 10 KiB, to public model "org/model"'
    assert first == f"free of charge on huggingface (digest {digest}): {what}?"
    assert f"Repository: {hub.url}/org/model (model, public)" in rest
    assert "Files: config.json (23 B), empty.txt (0 B), model.safetensors (10 KiB)" in rest
    assert "Left out: checkpoint-10/, optimizer.pt" in rest


@BOTH_ERAS
async def test_a_no_publishes_nothing(home: Path, hub: WritableHub, model: Path, era: str) -> None:
    repo = hub.make("me/model")
    async with desk(home, era=era, person=Person(NO)) as client:
        denied = await answer(client, "publish_to_hub", operation="upload", repo_id="me/model", source=str(model))
    assert denied["status"] == "denied" and denied["note"] and denied["commit"] is None
    assert len(repo.history()) == 1 and hub.asked("/preupload/") == []


@BOTH_ERAS
async def test_a_host_that_cannot_ask_gets_the_command_and_then_publishes(
    home: Path, hub: WritableHub, era: str, capsys: pytest.CaptureFixture[str]
) -> None:
    create = {"operation": "create_repo", "repo_id": "me/model"}
    async with desk(home, era=era) as client:
        waiting = await answer(client, "publish_to_hub", **create)
        assert waiting["status"] == "approval_required" and ("model", "me/model") not in hub.repos
        command = shlex.split(waiting["how_to_approve"])
        assert Path(command[0]).name == "mlintern-server" and command[1:3] == ["approve", waiting["digest"][:12]]
        assert main(command[1:]) == 0
        assert "free of charge on huggingface" in capsys.readouterr().out
        done = await answer(client, "publish_to_hub", **create)
    assert done["status"] == "published" and hub.git("me/model").access == "private"


@BOTH_ERAS
async def test_files_that_changed_after_the_approval_are_asked_about_again(
    home: Path, hub: WritableHub, model: Path, era: str
) -> None:
    repo = hub.make("me/model")
    upload = {"operation": "upload", "repo_id": "me/model", "source": str(model)}
    async with desk(home, era=era) as client:
        waiting = await answer(client, "publish_to_hub", **upload)
        assert main(shlex.split(waiting["how_to_approve"])[1:]) == 0
        (model / "config.json").write_text('{"model_type": "other!"}')
        changed = await answer(client, "publish_to_hub", **upload)
    assert changed["status"] == "approval_required" and changed["digest"] != waiting["digest"]
    assert len(repo.history()) == 1


@BOTH_ERAS
async def test_a_yes_does_not_cover_files_that_changed_while_the_person_read(
    home: Path, hub: WritableHub, model: Path, era: str
) -> None:
    repo = hub.make("me/model")

    class Slow(Person):
        async def __call__(self, context: Any, params: Any) -> ElicitResult:
            (model / "config.json").write_text("{}")
            return await super().__call__(context, params)

    person = Slow(YES)
    async with desk(home, era=era, person=person) as client:
        upload = {"operation": "upload", "repo_id": "me/model", "source": str(model)}
        result = await client.call_tool("publish_to_hub", upload)
    if era == "legacy":
        assert result.is_error and "config.json was changed after it was approved" in text(result)
        assert len(person.asked) == 1 and len(repo.history()) == 1
    else:  # the answer comes with a new request, whose question is another one
        [first, second] = person.asked
        assert "config.json (23 B)" in first.message and "config.json (2 B)" in second.message
        assert repo.files["config.json"] == b"{}"


@BOTH_ERAS
async def test_no_standing_allowance_covers_publishing(home: Path, hub: WritableHub, era: str) -> None:
    async with desk(home, era=era) as client:
        waiting = await answer(client, "publish_to_hub", operation="create_repo", repo_id="me/model")
    assert waiting["status"] == "approval_required"


@BOTH_ERAS
async def test_a_yes_to_one_operation_is_no_yes_to_another(home: Path, hub: WritableHub, era: str) -> None:
    hub.make("me/model")
    async with desk(home, era=era) as client:
        hide = {"operation": "tag", "repo_id": "me/model", "name": "v1"}
        waiting = await answer(client, "publish_to_hub", **hide)
        assert main(shlex.split(waiting["how_to_approve"])[1:]) == 0
        public = await answer(client, "publish_to_hub", operation="set_visibility", repo_id="me/model", private=False)
        assert public["status"] == "approval_required"
        assert (await answer(client, "publish_to_hub", **hide))["status"] == "published"
    assert hub.git("me/model").access == "private"


@BOTH_ERAS
async def test_what_is_there_already_asks_nobody(home: Path, hub: WritableHub, era: str) -> None:
    hub.make("me/model")
    person = Person(YES)
    async with desk(home, era=era, person=person) as client:
        made = await answer(client, "publish_to_hub", operation="create_repo", repo_id="me/model")
    assert made["status"] == "already_published" and person.asked == []


@BOTH_ERAS
async def test_after_a_lost_answer_the_same_call_asks_nobody_and_commits_nothing(
    home: Path, hub: WritableHub, model: Path, era: str
) -> None:
    repo = hub.make("me/model")
    person = Person(YES)
    upload = {"operation": "upload", "repo_id": "me/model", "source": str(model), "create_pr": True}
    async with desk(home, era=era, person=person) as client:
        hub.fail(LOST, path="/commit/main")
        lost = await client.call_tool("publish_to_hub", upload)
        assert lost.is_error and "Call again with the same arguments" in text(lost)
        found = await answer(client, "publish_to_hub", **upload)
    assert found["status"] == "already_published" and found["pull_request"].endswith("/discussions/1")
    assert (len(person.asked), len(repo.pulls)) == (1, 1)


@pytest.mark.parametrize(
    "arguments, first, details",
    [
        (
            {"operation": "delete_file", "path_in_repo": "a.txt"},
            "Delete a file of private model",
            "Deletes: a.txt",
        ),
        ({"operation": "tag", "name": "v1"}, "Tag private model", "New name: v1"),
        ({"operation": "create_branch", "name": "dev"}, "Make a branch of private model", "New name: dev"),
        (
            {"operation": "set_visibility", "private": False},
            "Make model public to everybody",
            "(model, private)",
        ),
        (
            {"operation": "write_card", "text": "# Hi"},
            "Upload 1 file, 4 B, to private model",
            "Text: # Hi",
        ),
    ],
)
async def test_the_question_says_all_that_is_done(
    home: Path, hub: WritableHub, arguments: dict[str, Any], first: str, details: str
) -> None:
    hub.make("me/model", files={"a.txt": b"x"})
    person = Person(NO)
    async with desk(home, person=person) as client:
        await answer(client, "publish_to_hub", repo_id="me/model", **arguments)
    [asked] = person.asked
    assert asked.message.startswith("free of charge on huggingface (digest ")
    assert asked.message.splitlines()[0].endswith(f'): {first} "me/model"?')
    assert details in asked.message


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        ({"operation": "upload"}, "upload needs source"),
        ({"operation": "push"}, "operation"),
        ({"operation": "upload", "source": "/no/such/folder"}, "There is no file or folder"),
        ({"operation": "tag", "name": "v1", "repo_id": "me/absent"}, "operation create_repo"),
        ({"operation": "create_repo", "private": "maybe"}, "private"),
    ],
)
async def test_what_cannot_be_done_is_said_before_anybody_is_asked(
    home: Path, hub: WritableHub, arguments: dict[str, Any], complaint: str
) -> None:
    hub.make("me/model")
    person = Person(YES)
    async with desk(home, person=person) as client:
        result = await client.call_tool("publish_to_hub", {"repo_id": "me/model", **arguments})
    assert result.is_error and complaint in text(result), text(result)
    assert person.asked == []


async def test_without_a_token_the_next_step_is_said(
    home: Path, hub: WritableHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    async with desk(home) as client:
        result = await client.call_tool("publish_to_hub", {"operation": "create_repo", "repo_id": "model"})
    assert result.is_error and "There is no token to publish with. Set HF_TOKEN" in text(result)


@pytest.mark.parametrize("toolsets", [("hub",), ("hub", "jobs")])
async def test_the_card_approves_a_publication_too(home: Path, hub: WritableHub, toolsets: tuple[str, ...]) -> None:
    create = {"operation": "create_repo", "repo_id": "me/model"}
    async with desk(home, toolsets=toolsets, extensions=[CARDS]) as client:
        asked = await client.call_tool("publish_to_hub", create)
        card = (asked.meta or {})["mlintern/card"]
        assert card["tool"] == "publish_to_hub" and card["token"] not in text(asked)
        decision = {"digest": card["digest"], "decision": "run", "card_token": card["token"]}
        assert (await answer(client, CARD_TOOL, **decision))["state"] == "approved"
        assert (await answer(client, "publish_to_hub", **create))["status"] == "published"
