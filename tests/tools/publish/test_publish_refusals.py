"""What is not published: secrets, odd files, wrong arguments; and what becomes of it when the Hub fails."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from mlintern.tools.errors import (
    BadInput,
    Blocked,
    Conflict,
    MlinternError,
    NotFound,
    Offline,
    RateLimited,
    ServiceError,
)
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services.hub_git import WritableHub
from tests.services.standin import JSON, LOST, RESET, Fault, too_many
from tests.tools.publish.publishing import WEIGHTS, Desk, model_folder

pytestmark = pytest.mark.anyio

HF_TOKEN = "hf_" + "aB3dE5gH7jK9mN1pQ3" * 2


@pytest.fixture
def hub() -> Iterator[WritableHub]:
    with WritableHub().running() as standin:
        yield standin  # type: ignore[misc]


@pytest.fixture
def desk(hub: WritableHub, workspace: Workspace, ledger: Ledger, clock: FakeClock) -> Desk:
    hub.make("me/model")
    return Desk(hub, workspace, ledger, clock)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "model")


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("train.py", f"x = 1\ntoken = '{HF_TOKEN}'\n".encode(), r"train\.py line 2 \(Hugging Face\)"),
        ("args.bin", b"\0pickle\0" + HF_TOKEN.encode() + b"\0", r"args\.bin \(Hugging Face\)"),
        ("log.txt", b"logged in with correct-horse-battery\n", r"log\.txt line 1 \(known secret\)"),
        ("big.jsonl", b"a" * 8_388_600 + b"\n" + HF_TOKEN.encode() + b"\n", r"big\.jsonl line 2 \(Hugging Face\)"),
    ],
)
async def test_a_file_with_a_secret_stops_the_upload_before_anybody_is_asked(
    desk: Desk, model: Path, name: str, content: bytes, said: str
) -> None:
    (model / name).write_bytes(content)
    with pytest.raises(BadInput, match=said) as refused:
        await desk.plan("upload", source=str(model))
    assert HF_TOKEN not in str(refused.value) and "correct-horse" not in str(refused.value)
    assert (await desk.plan("upload", source=str(model), exclude=[name])).files


async def test_a_folder_with_too_much_in_it_is_refused_and_not_looked_through(
    desk: Desk, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlintern.tools.folders.MOST_ENTRIES", 40)
    for number in range(50):
        (model / f"empty-{number}").mkdir()
    with pytest.raises(BadInput, match="more than 40 files and folders; it was not looked through"):
        await desk.plan("upload", source=str(model))


@pytest.mark.parametrize("name", [".env", "sub/.env.local", "id_rsa", "server.pem", ".netrc", "token", "credentials"])
async def test_a_file_that_is_named_like_a_secret_is_named_and_refused(desk: Desk, model: Path, name: str) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text("harmless")
    with pytest.raises(BadInput, match="by name would hold secrets") as refused:
        await desk.plan("upload", source=str(model))
    assert name in str(refused.value)
    with pytest.raises(BadInput, match="by name would hold secrets"):
        await desk.plan("upload", source=str(model / name))


async def test_tokenizers_and_examples_are_not_taken_for_secrets(desk: Desk, model: Path) -> None:
    for name in ("tokenizer.json", "special_tokens_map.json", ".env.example"):
        (model / name).write_text('{"eos_token": "<|im_end|>"}')
    assert len((await desk.plan("upload", source=str(model))).files) == 6


async def test_binary_files_that_were_not_searched_to_their_end_are_named(desk: Desk, model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\0" * 5_000_000)
    plan = await desk.plan("upload", source=str(model))
    assert plan.not_searched == ("model.safetensors",)


async def test_links_stay_inside_the_folder(desk: Desk, model: Path, tmp_path: Path) -> None:
    (model / "again.json").symlink_to("config.json")
    assert len((await desk.plan("upload", source=str(model))).files) == 4
    (tmp_path / "passwords").write_text("private")
    (model / "innocent.txt").symlink_to(tmp_path / "passwords")
    with pytest.raises(BadInput, match=r"innocent\.txt is a link that leads out of the folder"):
        await desk.plan("upload", source=str(model))
    (model / "innocent.txt").unlink()
    (model / "folder").symlink_to(tmp_path)
    with pytest.raises(BadInput, match="folder is a link that leads out"):
        await desk.plan("upload", source=str(model))


async def test_what_is_no_plain_file_is_refused(desk: Desk, model: Path) -> None:
    os.mkfifo(model / "pipe")
    with pytest.raises(BadInput, match="pipe is not a plain file"):
        await desk.plan("upload", source=str(model))


async def test_too_many_files_are_refused_with_a_way_out(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for number in range(1001):
        (tmp_path / "many" / f"{number}.txt").touch()
    with pytest.raises(BadInput, match="Pack them"):
        await desk.plan("upload", source=str(tmp_path / "many"))


async def test_the_workspace_itself_is_not_published(desk: Desk) -> None:
    with pytest.raises(BadInput, match="mlintern's own records"):
        await desk.plan("upload", source=str(desk.workspace.root))


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"operation": "upload"}, "upload needs source"),
        ({"operation": "tag"}, "tag needs name"),
        ({"operation": "set_visibility"}, "set_visibility needs private"),
        ({"operation": "delete_file"}, "delete_file needs path_in_repo"),
        ({"operation": "tag", "name": "v1", "private": True}, "tag does not use private"),
        ({"operation": "tag", "name": "../x"}, "no name of a branch or tag"),
        ({"operation": "write_card"}, "either the text of the card or the job"),
        ({"operation": "write_card", "text": "x", "source": "job-1"}, "either the text of the card or the job"),
        ({"operation": "write_card", "text": f"# {HF_TOKEN}"}, "secrets in"),
        ({"operation": "write_card", "source": "job-1", "repo_type": "dataset"}, "Only a model's card"),
        ({"operation": "create_repo", "repo_type": "space"}, "Spaces are not created here"),
        ({"operation": "delete_file", "path_in_repo": "../../etc/passwd"}, "no path in a repository"),
        ({"operation": "delete_file", "path_in_repo": "a", "commit_message": "a\nb"}, "one line"),
        ({"operation": "delete_file", "path_in_repo": "a", "commit_message": HF_TOKEN}, "holds a secret"),
        ({"operation": "tag", "repo_id": "a/b/c", "name": "v1"}, "neither a Hub id"),
    ],
)
async def test_arguments_that_do_not_fit_are_refused_in_words(
    desk: Desk, arguments: dict[str, object], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        await desk.plan(**arguments)  # type: ignore[arg-type]


async def test_a_path_that_leaves_the_repository_is_refused(desk: Desk, model: Path) -> None:
    with pytest.raises(BadInput, match="no path in a repository"):
        await desk.plan("upload", source=str(model), path_in_repo="../other")


async def test_a_source_that_is_not_there_is_named(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="There is no file or folder"):
        await desk.plan("upload", source=str(tmp_path / "nothing"))
    (tmp_path / "hollow").mkdir()
    with pytest.raises(NotFound, match="There is no file in"):
        await desk.plan("upload", source=str(tmp_path / "hollow"))


@pytest.mark.parametrize(
    "token, repo, said",
    [
        ("", "me/model", "There is no token"),
        ("hf_wrong", "me/model", "does not accept the token"),
        ("hf_read", "me/model", "may only read"),
        ("hf_good", "other/open", "may not change model other/open"),
        ("hf_good", "me/absent", "operation create_repo"),
        ("hf_good", "other/hidden", "operation create_repo"),
    ],
)
async def test_what_the_token_cannot_do_is_said_before_anybody_is_asked(
    desk: Desk, model: Path, token: str, repo: str, said: str
) -> None:
    desk.hub.make("other/open", private=False)
    desk.hub.make("other/hidden")
    publisher = Desk(desk.hub, desk.workspace, desk.ledger, desk.clock, token=token)
    with pytest.raises((Blocked, NotFound), match=said):
        await publisher.plan("upload", repo, source=str(model))
    assert desk.hub.asked("/commit/") == [] and desk.hub.asked("/preupload/") == []


async def test_a_namespace_of_others_is_refused_when_the_repository_is_made(desk: Desk) -> None:
    with pytest.raises(Blocked, match="may not change model other/new"):
        await desk.do("create_repo", "other/new")


async def test_no_branch_of_that_name_is_said(desk: Desk, model: Path) -> None:
    with pytest.raises(NotFound, match="no such revision"):
        await desk.plan("upload", source=str(model), branch="dev")


async def test_a_file_that_the_repository_ignores_is_not_dropped_in_silence(desk: Desk, model: Path) -> None:
    repo = desk.hub.git("me/model")
    repo.commit("main", "ignore", {**repo.files, ".gitignore": b"*.json\n"})
    with pytest.raises(BadInput, match=r"\.gitignore keeps out config\.json"):
        await desk.do("upload", source=str(model))
    assert len(repo.history()) == 2


@pytest.mark.parametrize(
    "fault, error",
    [
        (too_many(), RateLimited),
        (Fault(status=403, body=b'{"error":"storage quota exceeded"}', headers=JSON), Blocked),
        (Fault(status=409, body=b'{"error":"conflict"}', headers=JSON), MlinternError),
        (Fault(status=400, body=b'{"error":"bad"}', headers=JSON), BadInput),
    ],
)
async def test_a_refused_commit_is_named_and_may_be_tried_again(
    desk: Desk, model: Path, fault: Fault, error: type[MlinternError]
) -> None:
    plan = await desk.plan("upload", source=str(model))
    desk.hub.fail(fault, path="/commit/main")
    with pytest.raises(error):
        await desk.publisher.publish(plan)
    assert (await desk.publisher.publish(plan)).status == "published"
    assert desk.hub.asked("/commits/") == [], "what was refused was surely not done, so nothing is searched for"


@pytest.mark.parametrize("create_pr", [False, True])
async def test_a_commit_whose_answer_was_lost_is_found_and_not_made_again(
    desk: Desk, model: Path, create_pr: bool
) -> None:
    repo = desk.hub.git("me/model")
    plan = await desk.plan("upload", source=str(model), create_pr=create_pr)
    desk.hub.fail(LOST, path="/commit/main")
    with pytest.raises(Offline, match="Call again with the same arguments"):
        await desk.publisher.publish(plan)
    branch = "refs/pr/1" if create_pr else "main"
    [made, _] = repo.history(branch)
    repo.commit("main", "somebody else", {**repo.files, "config.json": b"{}"})
    found = await desk.server().publish(plan)
    assert (found.status, found.commit) == ("already_published", made.id)
    assert len(desk.hub.asked("/commit/")) == 1 and len(repo.pulls) == create_pr
    if create_pr:
        assert found.pull_request == f"{desk.hub.url}/me/model/discussions/1"


async def test_a_commit_that_is_late_is_not_followed_by_a_second_one(desk: Desk, model: Path) -> None:
    repo = desk.hub.git("me/model")
    plan = await desk.plan("upload", source=str(model))
    desk.hub.fail(RESET, path="/commit/main")
    with pytest.raises(Offline):
        await desk.publisher.publish(plan)
    # The first commit arrives after the second call has looked for it.
    desk.hub.before_commit = lambda: repo.commit("main", plan.message, {**repo.files, "late": b""}, plan.mark)
    with pytest.raises(Conflict, match="A commit has happened since"):
        await desk.publisher.publish(plan)
    desk.hub.before_commit = None
    found = await desk.publisher.publish(plan)
    assert (found.status, len(repo.history())) == ("already_published", 2)


async def test_the_same_call_after_a_lost_answer_says_that_it_is_there(desk: Desk, model: Path) -> None:
    repo = desk.hub.git("me/model")
    desk.hub.fail(LOST, path="/commit/main")
    with pytest.raises(Offline):
        await desk.do("upload", source=str(model))
    assert (await desk.do("upload", source=str(model))).status == "already_published"
    assert len(repo.history()) == 2


async def test_a_deletion_whose_answer_was_lost_is_known(desk: Desk) -> None:
    repo = desk.hub.git("me/model")
    repo.commit("main", "add", {**repo.files, "old.txt": b"x"})
    desk.hub.fail(LOST, path="/commit/main")
    with pytest.raises(Offline):
        await desk.do("delete_file", path_in_repo="old.txt")
    again = await desk.do("delete_file", path_in_repo="old.txt")
    assert (again.status, len(repo.history())) == ("already_published", 3)


async def test_what_is_made_by_no_commit_is_looked_at_after_a_lost_answer(desk: Desk) -> None:
    desk.hub.fail(LOST, path="/api/repos/create")
    with pytest.raises(Offline):
        await desk.do("create_repo", "me/new")
    assert (await desk.do("create_repo", "me/new")).status == "already_published"


@pytest.mark.parametrize("fault", [RESET, Fault(status=500, body=b"no")])
async def test_an_upload_that_broke_off_is_made_by_the_next_call(desk: Desk, model: Path, fault: Fault) -> None:
    plan = await desk.plan("upload", source=str(model))
    desk.hub.fail(fault, path="/commit/main")
    with pytest.raises(ServiceError, match="Call again with the same arguments"):
        await desk.publisher.publish(plan)
    assert (await desk.publisher.publish(plan)).status == "published"


async def test_a_large_file_that_the_storage_refuses_is_named(desk: Desk, model: Path) -> None:
    repo = desk.hub.git("me/model")
    desk.hub.fail(Fault(status=403, body=b"no", headers=JSON), path="/lfs-storage/")
    with pytest.raises(Blocked):
        await desk.do("upload", source=str(model))
    assert len(repo.history()) == 1
    await desk.do("upload", source=str(model))
    assert repo.files["model.safetensors"] == WEIGHTS


BY_XET = """
import asyncio, sys
from pathlib import Path
from mlintern.common.clock import SystemClock
from mlintern.tools.errors import MlinternError
from mlintern.tools.hub.client import HubClient
from mlintern.tools.publish.service import Publisher
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace

async def main():
    workspace = Workspace.open(sys.argv[1])
    publisher = Publisher(
        workspace=workspace, ledger=Ledger(workspace.ledger), clock=SystemClock(), hub=HubClient()
    )
    plan = await publisher.plan("upload", "me/model", source=sys.argv[2])
    try:
        await publisher.publish(plan)
    except MlinternError as error:
        print(f"{type(error).__name__}: {error}")

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "fault, named",
    [
        (Fault(status=403, body=b"{}", headers=JSON), "Blocked: The Hub's storage does not let"),
        (None, "Offline: The conn"),
    ],
)
async def test_the_storage_of_xet_fails_by_name_and_commits_nothing(
    desk: Desk, model: Path, tmp_path: Path, fault: Fault | None, named: str
) -> None:
    """In a process of its own, as huggingface_hub decides for or against Xet when it is imported."""
    if fault is not None:
        desk.hub.fail_always(fault, path="/xet-write-token/")
    environ = {**os.environ, "HF_ENDPOINT": desk.hub.url, "HF_TOKEN": "hf_good", "HF_HUB_DISABLE_XET": "0"}
    command = [sys.executable, "-c", BY_XET, str(tmp_path / "elsewhere"), str(model)]
    done = await anyio.run_process(command, env=environ, check=False)
    assert done.stdout.decode().startswith(named), (done.stdout, done.stderr)
    assert desk.hub.asked("/xet-write-token/") and desk.hub.asked("/commit/") == []


async def test_an_upload_that_takes_longer_goes_on_and_is_made_once(
    hub: WritableHub, workspace: Workspace, ledger: Ledger, clock: FakeClock, model: Path
) -> None:
    repo = hub.make("me/model")
    desk = Desk(hub, workspace, ledger, clock, wait_seconds=0.05)
    plan = await desk.plan("upload", source=str(model))
    hub.hold = threading.Event()
    first = await desk.publisher.publish(plan)
    assert first.status == "in_progress" and len(repo.history()) == 1
    meanwhile = await desk.server().publish(plan)
    assert meanwhile.status == "in_progress"
    hub.hold.set()
    patient = Desk(hub, workspace, ledger, clock)
    while (last := await patient.publisher.publish(plan)).status == "in_progress":
        pass
    assert last.status == "already_published" and len(repo.history()) == 2
    assert len(hub.asked("/commit/")) == 1


async def test_nothing_is_printed(desk: Desk, model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    await desk.do("upload", source=str(model))
    await desk.do("write_card", text="# Model\n")
    assert capfd.readouterr().out == ""
