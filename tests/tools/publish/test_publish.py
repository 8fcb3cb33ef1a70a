"""Publishing to the Hub, with the real client against a stand-in on a real socket: every operation, once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlintern.tools.errors import BadInput, Conflict, NotFound
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services.hub_git import WritableHub
from tests.tools.publish.publishing import WEIGHTS, Desk, model_folder
from tests.tools.runs.experiments import first_light

pytestmark = pytest.mark.anyio


@pytest.fixture
def hub() -> Iterator[WritableHub]:
    with WritableHub().running() as standin:
        yield standin  # type: ignore[misc]


@pytest.fixture
def desk(hub: WritableHub, workspace: Workspace, ledger: Ledger, clock: FakeClock) -> Desk:
    return Desk(hub, workspace, ledger, clock)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "model")


async def test_a_new_repository_is_private_and_is_made_once(desk: Desk) -> None:
    made = await desk.do("create_repo", "model")
    assert (made.status, made.repo_id, made.repo_type) == ("published", "me/model", "model")
    assert desk.hub.git("me/model").access == "private"
    again = await desk.do("create_repo")
    assert again.status == "already_published"
    assert len(desk.hub.asked("/api/repos/create")) == 1


async def test_a_public_data_set_is_made_when_that_is_asked(desk: Desk) -> None:
    made = await desk.do("create_repo", f"{desk.hub.url}/datasets/org/data", private=False)
    assert (made.repo_type, made.url) == ("dataset", f"{desk.hub.url}/datasets/org/data")
    assert desk.hub.git("org/data", "dataset").access == "open"


async def test_a_repository_of_another_visibility_is_not_taken_for_the_same(desk: Desk) -> None:
    desk.hub.make("me/model", private=False)
    with pytest.raises(Conflict, match="exists already and is public"):
        await desk.plan("create_repo")


async def test_a_model_arrives_as_it_is_without_its_checkpoints(desk: Desk, model: Path) -> None:
    repo = desk.hub.make("me/model")
    done = await desk.do("upload", source=str(model), commit_message="First model")
    assert done.status == "published"
    assert (done.files, done.bytes) == (3, 23 + len(WEIGHTS))
    assert done.left_out == ["checkpoint-10/", "optimizer.pt"]
    assert {name: data for name, data in repo.files.items() if name != ".gitattributes"} == {
        "config.json": b'{"model_type": "qwen3"}',
        "model.safetensors": WEIGHTS,
        "empty.txt": b"",
    }
    assert repo.large == {"model.safetensors"} and list(repo.stored.values()) == [WEIGHTS]
    [newest, _] = repo.history()
    assert (newest.id, newest.title) == (done.commit, "First model")


async def test_what_is_named_by_include_is_uploaded_even_if_it_is_usually_left_out(desk: Desk, model: Path) -> None:
    repo = desk.hub.make("me/model")
    done = await desk.do("upload", source=str(model), include=["*.pt", "config.json"], path_in_repo="run/1")
    assert sorted(repo.files) == [".gitattributes", "run/1/config.json", "run/1/optimizer.pt"]
    assert done.left_out == []


@pytest.mark.parametrize(
    "where, name", [(None, "train.jsonl"), ("data/", "data/train.jsonl"), ("a/b.jsonl", "a/b.jsonl")]
)
async def test_a_file_goes_where_it_is_told(desk: Desk, tmp_path: Path, where: str | None, name: str) -> None:
    repo = desk.hub.make("me/data", "dataset")
    (tmp_path / "train.jsonl").write_text('{"text": "x"}\n')
    await desk.do("upload", "datasets/me/data", source=str(tmp_path / "train.jsonl"), path_in_repo=where)
    assert set(repo.files) == {".gitattributes", name}


async def test_the_same_upload_again_makes_no_second_commit(desk: Desk, model: Path) -> None:
    repo = desk.hub.make("me/model")
    first = await desk.do("upload", source=str(model))
    again = await desk.do("upload", source=str(model))
    assert (again.status, again.commit, again.digest) == ("already_published", first.commit, first.digest)
    assert len(repo.history()) == 2 and len(desk.hub.asked("/commit/")) == 1


async def test_one_approved_plan_carried_out_twice_is_one_commit(desk: Desk, model: Path) -> None:
    repo = desk.hub.make("me/model")
    plan = await desk.plan("upload", source=str(model))
    first = await desk.publisher.publish(plan)
    again = await desk.server().publish(plan)
    assert (first.status, again.status, again.commit) == ("published", "already_published", first.commit)
    assert len(repo.history()) == 2


async def test_what_the_hub_has_already_needs_no_commit_and_no_consent(desk: Desk, model: Path) -> None:
    files = {"config.json": b'{"model_type": "qwen3"}', "empty.txt": b""}
    repo = desk.hub.make("me/model", files=files)
    plan = await desk.plan("upload", source=str(model), include=["*.json", "*.txt"])
    assert plan.done is not None
    result = await desk.publisher.publish(plan)
    assert (result.status, result.commit, result.unchanged) == ("already_published", repo.branches["main"], 2)
    assert desk.hub.asked("/commit/") == []


async def test_the_plan_says_what_is_replaced(desk: Desk, model: Path) -> None:
    desk.hub.make("me/model", files={"config.json": b"{}", "empty.txt": b""})
    plan = await desk.plan("upload", source=str(model))
    assert (plan.replaces, plan.unchanged, plan.visibility) == (("config.json",), 1, "private")


async def test_changed_files_are_another_action(desk: Desk, model: Path) -> None:
    desk.hub.make("me/model")
    before = await desk.plan("upload", source=str(model))
    assert (await desk.plan("upload", source=str(model))).digest == before.digest
    (model / "model.safetensors").write_bytes(WEIGHTS[::-1])
    assert (await desk.plan("upload", source=str(model))).digest != before.digest


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
async def test_a_file_that_changed_after_the_consent_is_not_published(desk: Desk, model: Path, name: str) -> None:
    repo = desk.hub.make("me/model")
    plan = await desk.plan("upload", source=str(model))
    path = model / name
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(Conflict, match=f"{name} was changed after it was approved"):
        await desk.publisher.publish(plan)
    assert len(repo.history()) == 1


async def test_a_file_that_is_gone_after_the_consent_publishes_nothing(desk: Desk, model: Path) -> None:
    repo = desk.hub.make("me/model")
    plan = await desk.plan("upload", source=str(model))
    (model / "config.json").unlink()
    with pytest.raises(Conflict, match="A file is gone"):
        await desk.publisher.publish(plan)
    assert len(repo.history()) == 1


async def test_what_somebody_undid_is_asked_anew(desk: Desk, model: Path) -> None:
    repo = desk.hub.make("me/model")
    first = await desk.do("upload", source=str(model))
    repo.commit("main", "undone", {**repo.files, "config.json": b"{}"})
    plan = await desk.plan("upload", source=str(model))
    assert plan.done is None and plan.digest != first.digest
    assert "published before" in plan.note
    assert (await desk.publisher.publish(plan)).status == "published"


async def test_a_pull_request_leaves_the_branch_alone_and_is_made_once(desk: Desk, model: Path) -> None:
    repo = desk.hub.make("other/model", private=False)
    arguments = {"source": str(model), "create_pr": True, "commit_message": "Add the model"}
    done = await desk.do("upload", "other/model", **arguments)
    assert done.pull_request == f"{desk.hub.url}/other/model/discussions/1"
    assert len(repo.history()) == 1 and "config.json" in repo.history("refs/pr/1")[0].files
    again = await desk.do("upload", "other/model", **arguments)
    assert (again.status, again.pull_request) == ("already_published", done.pull_request)
    assert len(repo.pulls) == 1


async def test_a_card_is_written_and_can_be_read_before(desk: Desk) -> None:
    repo = desk.hub.make("me/model", files={"README.md": b"old"})
    text = "---\nlicense: mit\n---\n# Model\n"
    plan = await desk.plan("write_card", text=text)
    assert Path(plan.source).read_text() == text and plan.replaces == ("README.md",)
    done = await desk.publisher.publish(plan)
    assert repo.files["README.md"] == text.encode() and done.card == text


async def test_metadata_that_the_hub_refuses_is_told_and_can_be_corrected(desk: Desk) -> None:
    repo = desk.hub.make("me/model")
    with pytest.raises(BadInput, match="license"):
        await desk.do("write_card", text="---\nlicense: mine\n---\n# Model\n")
    with pytest.raises(BadInput, match="not YAML"):
        await desk.plan("write_card", text="---\nlicense: [mit\n---\n# Model\n")
    with pytest.raises(BadInput, match="no metadata"):
        await desk.plan("write_card", text="---\n# Model\n")
    assert len(repo.history()) == 1


async def test_a_card_tells_what_the_ledger_knows(desk: Desk) -> None:
    repo = desk.hub.make("me/model")
    first_light(desk.workspace, desk.ledger)
    done = await desk.do("write_card", source="job-sft1")
    card = repo.files["README.md"].decode()
    assert done.card == card
    for part in (
        "tags:\n- trl\n- sft\n- mlintern",
        "# sft-180",
        "`base` (not on the Hub), trained by supervised fine-tuning (SFT) on `train.jsonl` (not on the Hub), split",
        "| this model | mlintern | maxnum | accuracy (likelihood) | 0 | 65.0 % ± 1.5 (n = 1,000) |",
        "| baseline | mlintern | maxnum | accuracy (likelihood) | 0 | 10.1 % ± 1.0 (n = 1,000) |",
        "Against the baseline: +54.9 points",
        "| learning_rate | 0.0015 |",
        "* trl==1.16.0",
    ):
        assert part in card
    assert "/data" not in card and "/models" not in card, "no path of this machine"
    assert (await desk.do("write_card", source="job-sft1")).status == "already_published"


@pytest.mark.parametrize(
    "job, error, said", [("job-none", NotFound, "no job"), ("job-base", BadInput, "not rendered from a training")]
)
async def test_a_card_needs_a_job_that_trained(desk: Desk, job: str, error: type[Exception], said: str) -> None:
    desk.hub.make("me/model")
    first_light(desk.workspace, desk.ledger)
    with pytest.raises(error, match=said):
        await desk.plan("write_card", source=job)


async def test_a_job_is_published_by_its_model(desk: Desk) -> None:
    repo = desk.hub.make("me/model")
    first_light(desk.workspace, desk.ledger)
    model_folder(desk.workspace.job("job-sft1") / "output" / "model")
    done = await desk.do("upload", source="job-sft1")
    assert {"config.json", "model.safetensors"} < set(repo.files)
    assert "output/model of job-sft1" in done.note


async def test_an_unfinished_job_or_one_that_left_nothing_here_is_not_published(desk: Desk) -> None:
    desk.hub.make("me/model")
    bench = first_light(desk.workspace, desk.ledger)
    bench.job("job-now", {"trainer": "sft"}, state="running")
    with pytest.raises(Conflict, match="job-now is running"):
        await desk.plan("upload", source="job-now")
    with pytest.raises(NotFound, match="not on this machine"):
        await desk.plan("upload", source="job-oom")
    with pytest.raises(NotFound, match="Did you mean 'job-sft2'"):
        await desk.plan("upload", source="job-sft3")


async def test_a_tag_and_a_branch_mark_the_newest_commit_once(desk: Desk) -> None:
    repo = desk.hub.make("me/model", files={"config.json": b"{}"})
    head = repo.branches["main"]
    assert (await desk.do("tag", name="v1.0")).status == "published"
    assert (await desk.do("create_branch", name="next")).commit == head
    assert (repo.tags, repo.branches["next"]) == ({"v1.0": head}, head)
    assert (await desk.do("tag", name="v1.0")).status == "already_published"
    assert (await desk.do("create_branch", name="next")).status == "already_published"
    repo.commit("main", "more", {**repo.files, "a": b"b"})
    with pytest.raises(Conflict, match=r"has v1\.0 already, at commit"):
        await desk.plan("tag", name="v1.0")


async def test_to_make_public_is_bound_to_what_is_there_now(desk: Desk) -> None:
    repo = desk.hub.make("me/model")
    plan = await desk.plan("set_visibility", private=False)
    repo.commit("main", "more", {**repo.files, "secret plans": b"b"})
    assert (await desk.plan("set_visibility", private=False)).digest != plan.digest
    done = await desk.do("set_visibility", private=False)
    assert (done.status, done.visibility, repo.access) == ("published", "public", "open")
    assert (await desk.do("set_visibility", private=False)).status == "already_published"


async def test_to_make_public_again_what_was_hidden_since_is_a_new_question(desk: Desk) -> None:
    desk.hub.make("me/model")
    first = await desk.do("set_visibility", private=False)
    await desk.do("set_visibility", private=True)
    plan = await desk.plan("set_visibility", private=False)
    assert plan.done is None and plan.digest != first.digest


async def test_a_file_is_deleted_at_the_commit_that_was_agreed_to(desk: Desk) -> None:
    repo = desk.hub.make("me/model", files={"old.txt": b"x", "kept.txt": b"y"})
    plan = await desk.plan("delete_file", path_in_repo="old.txt")
    repo.commit("main", "somebody else", {**repo.files, "old.txt": b"precious"})
    with pytest.raises(Conflict, match="A commit has happened since"):
        await desk.publisher.publish(plan)
    assert repo.files["old.txt"] == b"precious"
    done = await desk.do("delete_file", path_in_repo="old.txt")
    assert (done.status, set(repo.files)) == ("published", {".gitattributes", "kept.txt"})
    again = await desk.do("delete_file", path_in_repo="old.txt")
    assert (again.status, again.commit) == ("already_published", done.commit)
    with pytest.raises(NotFound, match=r"has no never\.txt on main"):
        await desk.plan("delete_file", path_in_repo="never.txt")


async def test_a_folder_is_not_deleted(desk: Desk) -> None:
    desk.hub.make("me/model", files={"data/a.txt": b"x"})
    with pytest.raises(BadInput, match="data is a folder"):
        await desk.plan("delete_file", path_in_repo="data")
