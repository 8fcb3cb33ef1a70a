"""A name for a model or dataset is a Hub id, a Hub address or a path, and says so when it is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.data_sources import (
    check_dataset,
    dataset_kind,
    is_local,
    normalise_source,
    splits_overlap,
)


@pytest.mark.parametrize("name", ["gpt2", "Qwen/Qwen3-0.6B", "org_1/data.set-2"])
def test_a_hub_id_stays_as_it_is(name: str) -> None:
    assert normalise_source(name) == name and not is_local(name)


@pytest.mark.parametrize(
    "name", ["", " ", "a/b/c", "a b", "http://huggingface.co/only", "https://hf.co.evil.com/a/b"]
)
def test_what_is_neither_id_nor_path_is_refused(name: str) -> None:
    with pytest.raises(BadInput):
        normalise_source(name)


@given(st.text(max_size=60))
def test_any_text_is_normalised_to_something_stable_or_refused(name: str) -> None:
    try:
        once = normalise_source(name)
    except BadInput:
        return
    assert normalise_source(once) == once


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("/d/x.jsonl", "json"),
        ("/d/x.JSON", "json"),
        ("/d/x.jsonl.gz", "json"),
        ("/d/x.csv.zst", "csv"),
        ("/d/x.parquet", "parquet"),
        ("/d/x", "folder"),
        ("org/name", "hub"),
    ],
)
def test_the_kind_of_a_dataset_is_read_from_its_name(name: str, kind: str) -> None:
    assert dataset_kind(name) == kind


def test_a_file_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(BadInput, match="no known kind"):
        dataset_kind(str(tmp_path / "notes.txt"))


def check(source: Path, *, split: str = "train", config: str | None = None, revision: str | None = None) -> None:
    check_dataset(str(source), split=split, config=config, revision=revision)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train set.jsonl"
    path.write_text('{"text": "x"}\n')
    return path


@pytest.mark.parametrize("split", ["train", "train[:10%]", "train[5:]", "train[:10%]+train[90%:]"])
def test_a_file_gives_its_only_split_and_parts_of_it(file: Path, split: str) -> None:
    check(file, split=split)


@pytest.mark.parametrize("split", ["test", "test[:10%]", "train+test", "validation"])
def test_a_split_that_a_file_does_not_have_is_refused_rather_than_passed_over(file: Path, split: str) -> None:
    with pytest.raises(BadInput, match="single split `train`"):
        check(file, split=split)


@pytest.mark.parametrize("more", [{"config": "main"}, {"revision": "v2"}])
def test_what_only_the_hub_has_is_refused_for_a_local_dataset(file: Path, more: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="lies on this machine"):
        check(file, **more)


def test_the_splits_of_a_saved_dataset_are_named(tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "dev"]}')
    check(tmp_path, split="dev")
    with pytest.raises(BadInput, match="It has: train, dev"):
        check(tmp_path, split="test")


def test_a_saved_dataset_without_splits_has_no_part_to_name(tmp_path: Path) -> None:
    for name in ("state.json", "dataset_info.json"):
        (tmp_path / name).write_text("{}")
    check(tmp_path)
    with pytest.raises(BadInput, match="without splits"):
        check(tmp_path, split="train[:10%]")


def test_a_missing_file_is_answered_with_the_nearest_name(file: Path) -> None:
    (file.parent / ".hidden.jsonl").write_text("")
    with pytest.raises(BadInput, match=r"Did you mean 'train set\.jsonl'\?"):
        check(file.parent / "train-set.jsonl")
    with pytest.raises(BadInput, match=r"The folder holds: train set\.jsonl\.$"):
        check(file.parent / "zzz")
    with pytest.raises(BadInput, match="folder does not exist either"):
        check(file.parent / "no" / "where.jsonl")


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("train", "train", True),
        ("train", "test", False),
        ("train", "train[:1%]", True),
        ("train[:90%]", "train[90%:]", False),
        ("train[:90%]", "train[89%:]", True),
        ("train[100:200]", "train[200:]", False),
        ("train[100:200]", "train[:101]", True),
        ("train[:10%]+test", "test[5:]", True),
        ("train+dev", "test", False),
        ("train[-10%:]", "train[:5%]", True),
        ("train[:10%](pct1_dropremainder)", "train[10%:]", False),
    ],
)
def test_splits_that_share_rows_are_known_from_their_names(one: str, other: str, meet: bool) -> None:
    assert splits_overlap(one, other) is meet and splits_overlap(other, one) is meet
