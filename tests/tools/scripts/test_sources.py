"""A name for a model or dataset is a Hub id, a Hub address or a path, and says so when it is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.sources import dataset_kind, is_local, normalise_source


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
