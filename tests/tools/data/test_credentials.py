"""What a tool that only reads must not show: files of credentials, and secrets among the rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlintern.tools.data.inspect_table import Request, inspect_table
from mlintern.tools.data.local_files import open_local
from mlintern.tools.data.table import open_table
from mlintern.tools.errors import Blocked

TOKEN = "hf_" + "aB3dE5gH7jK9mN1pQ3" * 2


@pytest.mark.parametrize(
    "name",
    [
        ".docker/config.json", ".aws/cli/cache/x.json", "passwords.csv", "credentials.json", ".ssh/notes.jsonl",
        "service-account-7.json", "gcloud/application_default_credentials.json", ".kube/cache/a.json",
        "secrets.jsonl",
    ],
)  # fmt: skip
def test_files_that_hold_credentials_are_never_read_as_data(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"user": "me", "auth": "x"}\n')
    with pytest.raises(Blocked, match="credentials are kept"):
        open_local(str(path))


def test_a_link_to_such_a_file_is_one(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "hosts.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "rows.jsonl").symlink_to(tmp_path / ".ssh" / "hosts.jsonl")
    with pytest.raises(Blocked, match="credentials are kept"):
        open_local(str(tmp_path / "rows.jsonl"))


def test_secrets_among_the_rows_are_hidden_in_samples_and_statistics(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": f"use {TOKEN} to log in", "password": "correct horse", "n": i} for i in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    request = Request(trainers=("sft",), sample_rows=3)
    with open_table(open_local(str(path)).split(None), scratch=tmp_path) as table:
        result = inspect_table(table, request, name="rows", split="train", scratch=tmp_path)
    shown = result.model_dump_json()
    assert TOKEN not in shown and "correct horse" not in shown and "to log in" in shown
