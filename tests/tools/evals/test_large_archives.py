"""Large archives: known by their directory, read without the rest, and a change in any member is seen."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from mlintern.tools.errors import BadInput
from mlintern.tools.evals import documents
from mlintern.tools.evals.archives import members, read_member
from mlintern.tools.evals.read_files import SampleFiles, read_path
from tests.tools.evals.results import INSPECT_SUMMARIES, inspect_header


def write(path: Path, *, answer: str = "one", compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("header.json", json.dumps(inspect_header()))
        archive.writestr("summaries.json", json.dumps(INSPECT_SUMMARIES))
        archive.writestr("samples/a_epoch_1.json", json.dumps({"id": "a", "output": {"completion": answer}}))
    return path


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "HASHED_WHOLE", 0)


@pytest.mark.usefixtures("small_is_large")
def test_a_change_in_one_answer_of_a_large_archive_is_seen(tmp_path: Path) -> None:
    path = write(tmp_path / "log.eval")
    rows = read_path(path).rows
    assert SampleFiles()(rows[1]) is not None
    write(path, answer="two")
    with pytest.raises(BadInput, match="has changed since"):
        SampleFiles()(rows[1])


@pytest.mark.usefixtures("small_is_large")
def test_the_same_archive_has_the_same_digest_and_no_two_limits_share_one(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one.eval"), tmp_path / "other.eval"
    other.write_bytes(one.read_bytes())
    assert documents.open_result(one).sha256 == documents.open_result(other).sha256
    damaged = tmp_path / "damaged.eval"
    damaged.write_bytes(one.read_bytes()[:200])
    assert len(documents.open_result(damaged).sha256) == 64, "of what has no directory all bytes are hashed"


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_members_are_read_whatever_packs_them(tmp_path: Path, compression: int) -> None:
    path = write(tmp_path / "log.eval", compression=compression)
    assert json.loads(read_member(path, "header.json")) == inspect_header()


def test_a_directory_is_read_anew_after_the_archive_was_written_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "log.eval")
    assert "samples/b.json" not in members(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("samples/b.json", "{}")
    assert "samples/b.json" in members(path)


def test_a_member_whose_bytes_were_changed_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "log.eval", compression=zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"inspect_evals/ifeval", b"inspect_evals/ifeVAL"))
    with pytest.raises(BadInput, match="checksum does not match"):
        read_member(path, "header.json")


def test_a_member_that_unpacks_to_more_than_it_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.eval"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", b"0" * 1_000_000)
    size = (1_000_000).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(BadInput, match="checksum does not match"):
        read_member(path, "header.json")
