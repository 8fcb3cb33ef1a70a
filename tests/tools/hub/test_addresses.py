"""One reader of Hub names: every form that people paste, another host refused by name, a wrong kind said."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.tools.data.inspect_dataset import DatasetInspector
from mlintern.tools.errors import BadInput
from mlintern.tools.hub.addresses import (
    HubAddress,
    RepoType,
    agreed,
    local_path,
    looks_like_address,
    looks_local,
    parse_address,
)
from mlintern.tools.hub.browse import HubBrowser
from mlintern.tools.hub.client import HubClient
from mlintern.tools.hub.inspect_model import ModelInspector
from mlintern.tools.scripts.data_sources import NamedSource, read_source

pytestmark = pytest.mark.anyio
A, D, S = "model", "dataset", "space"


@pytest.mark.parametrize(
    ("pasted", "repo_id", "kind", "revision", "path"),
    [
        ("org/name", "org/name", None, None, ""),
        (" org/name ", "org/name", None, None, ""),
        ("gpt2", "gpt2", None, None, ""),
        ("openai/gsm8k@main", "openai/gsm8k", None, "main", ""),
        ("org/name@refs/pr/1", "org/name", None, "refs/pr/1", ""),
        ("datasets/org/name", "org/name", D, None, ""),
        ("datasets/org/name@v1", "org/name", D, "v1", ""),
        ("hf://datasets/openai/gsm8k", "openai/gsm8k", D, None, ""),
        ("hf://datasets/squad", "squad", D, None, ""),
        ("hf://datasets/org/name@v1/data/a.parquet", "org/name", D, "v1", "data/a.parquet"),
        ("hf://org/name", "org/name", A, None, ""),
        ("hf.co/openai/gsm8k", "openai/gsm8k", A, None, ""),
        ("huggingface.co/datasets/openai/gsm8k", "openai/gsm8k", D, None, ""),
        ("https://huggingface.co/org/name/", "org/name", A, None, ""),
        ("https://HuggingFace.co/org/name?library=trl#use", "org/name", A, None, ""),
        ("https://huggingface.co/org/name/tree/main/folder", "org/name", A, "main", "folder"),
        ("https://huggingface.co/org/name/blob/v1/a%20b.json", "org/name", A, "v1", "a b.json"),
        ("https://huggingface.co/datasets/a/b/resolve/refs%2Fconvert%2Fparquet/x/0.parquet",
         "a/b", D, "refs/convert/parquet", "x/0.parquet"),
        ("https://huggingface.co/datasets/a/b/tree/refs/pr/3/data", "a/b", D, "refs/pr/3", "data"),
        ("https://huggingface.co/gpt2/blob/main/config.json", "gpt2", A, "main", "config.json"),
        ("https://huggingface.co/org/name/commit/0123abc", "org/name", A, "0123abc", ""),
        ("https://huggingface.co/spaces/org/name", "org/name", S, None, ""),
        ("https://huggingface.co/api/models/org/name/revision/v1", "org/name", A, "v1", ""),
        ("https://huggingface.co/org/name.git", "org/name", A, None, ""),
        ("git@hf.co:datasets/org/name", "org/name", D, None, ""),
        ("https://me:secret@huggingface.co/org/name", "org/name", A, None, ""),
        ("http://hub.corp:8080/hf/datasets/org/name", "org/name", D, None, ""),
    ],
)  # fmt: skip
def test_every_form_that_people_paste_is_understood(
    pasted: str, repo_id: str, kind: RepoType | None, revision: str | None, path: str
) -> None:
    found = parse_address(pasted, endpoint="http://hub.corp:8080/hf")
    assert found == HubAddress(repo_id, kind, revision, path)
    assert parse_address(found.uri()).repo_id == repo_id if "/" in repo_id else True


def test_a_page_of_the_viewer_says_configuration_and_split() -> None:
    found = parse_address("https://huggingface.co/datasets/org/name/viewer/main/test?row=1")
    assert found == HubAddress("org/name", "dataset", config="main", split="test")


@pytest.mark.parametrize("pasted", ["", " ", "a/b/c", "org/na me", "../etc/passwd", "org/na;me", "org/name@", "a\nb"])
def test_what_is_no_id_is_refused(pasted: str) -> None:
    with pytest.raises(BadInput, match="neither a Hub id"):
        parse_address(pasted)


@pytest.mark.parametrize(
    ("pasted", "host"),
    [
        ("https://github.com/huggingface/trl", "github.com"),
        ("github.com/huggingface/trl", "github.com"),
        ("git@github.com:huggingface/trl.git", "github.com"),
        ("https://www.kaggle.com/datasets/a/b", "kaggle.com"),
        ("https://huggingface.co.evil.com/a/b", "huggingface.co.evil.com"),
        ("https://evil.com/huggingface.co/org/name", "evil.com"),
        ("http://user@evil.com:80/org/name", "evil.com"),
    ],
)
def test_an_address_of_another_host_is_refused_by_its_name(pasted: str, host: str) -> None:
    assert looks_like_address(pasted) and not looks_local(pasted)
    with pytest.raises(BadInput, match=f"Unrecognized host '(www.)?{host}'"):
        parse_address(pasted)


@pytest.mark.parametrize("pasted", ["https://huggingface.co/papers/2305.18290", "https://hf.co/docs/trl/index",
                                    "https://huggingface.co/datasets", "https://huggingface.co/openai"])  # fmt: skip
def test_a_page_that_is_no_repository_is_said_to_be_none(pasted: str) -> None:
    with pytest.raises(BadInput, match=r"is a page of the Hub, but|page of a user"):
        parse_address(pasted)


def test_a_wrong_kind_is_said_with_the_tool_that_reads_it() -> None:
    with pytest.raises(BadInput, match=r"is a dataset, not a model.*inspect_dataset"):
        parse_address("https://huggingface.co/datasets/openai/gsm8k", wanted=("model",))
    with pytest.raises(BadInput, match=r"is a model, not a dataset.*inspect_model"):
        parse_address("https://huggingface.co/openai/gpt-oss-20b", wanted=("dataset",))


def test_an_argument_that_contradicts_the_address_is_refused() -> None:
    assert agreed("revision", given=None, said="v1") == agreed("revision", given="v1", said="v1") == "v1"
    with pytest.raises(BadInput, match="revision 'v1', the argument 'v2'"):
        agreed("revision", given="v2", said="v1")


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused_by_name(text: str) -> None:
    looks_local(text), looks_like_address(text)
    try:
        found = parse_address(text)
    except BadInput:
        return
    assert parse_address(found.repo_id).repo_id == found.repo_id and ".." not in found.path.split("/")


def test_local_paths_are_told_from_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    local = ("./x", "/x", "~/x", "..", "data.jsonl", "org/name", f"file://{tmp_path}/a%20b")
    assert all(looks_local(name) for name in local)
    assert not any(
        looks_local(name) for name in ("other/name", "org/name@main", "https://hf.co/a/b.json", "datasets/a/b")
    )
    assert local_path(f"file://{tmp_path}/a%20b") == tmp_path / "a b"


async def test_every_tool_refuses_the_address_of_another_host(tmp_path: Path) -> None:
    hub = HubClient(environ={"HF_ENDPOINT": "http://127.0.0.1:9"})  # nothing answers there
    github = "https://github.com/huggingface/trl"
    for call in (
        lambda: ModelInspector(hub=hub).inspect(github),
        lambda: HubBrowser(hub=hub).browse(github),
        lambda: DatasetInspector(workspace=None, hub=hub, web=None).inspect(github),  # type: ignore[arg-type]
    ):
        with pytest.raises(BadInput, match=r"Unrecognized host 'github\.com'"):
            await call()
    with pytest.raises(BadInput, match=r"github\.com"):
        read_source(github, kind="model")


def test_a_recipe_takes_the_revision_of_an_address() -> None:
    assert read_source("org/data@v2", kind="dataset") == NamedSource("org/data", "v2")
    with pytest.raises(BadInput, match="part of org/data"):
        read_source("hf://datasets/org/data/x.parquet", kind="dataset")
