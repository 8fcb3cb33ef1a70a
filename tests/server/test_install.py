from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from mlintern.server.cli import main
from mlintern.server.install import install, this_server
from mlintern.tools.errors import BadInput

SERVER = {"command": "/opt/mlintern/bin/mlintern-server", "args": ["serve"]}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing here may touch the real configuration of whoever runs the tests."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    "host, place, key",
    [
        ("claude-code", "project/.mcp.json", "mcpServers"),
        ("cursor", ".cursor/mcp.json", "mcpServers"),
        ("vscode", "project/.vscode/mcp.json", "servers"),
    ],
)
def test_the_entry_lands_where_the_host_looks(home: Path, host: str, place: str, key: str) -> None:
    install(host, server=SERVER)
    assert read(home / place)[key]["mlintern"]["command"] == SERVER["command"]


def test_claude_desktop_is_found_on_this_platform(home: Path) -> None:
    install("claude-desktop", server=SERVER)
    [found] = home.rglob("claude_desktop_config.json")
    assert read(found)["mcpServers"]["mlintern"] == SERVER


def test_vs_code_is_told_the_transport(home: Path) -> None:
    install("vscode", server=SERVER)
    assert read(home / "project/.vscode/mcp.json")["servers"]["mlintern"]["type"] == "stdio"


def test_what_stood_in_the_file_stays_and_the_old_file_is_kept(home: Path) -> None:
    path = home / ".cursor" / "mcp.json"
    path.parent.mkdir()
    before = {"mcpServers": {"other": {"command": "x", "env": {"KEY": "ü"}}}, "theme": "dark"}
    path.write_text(json.dumps(before))
    path.chmod(0o640)
    said = install("cursor", server=SERVER)
    after = read(path)
    assert after["mcpServers"]["other"] == before["mcpServers"]["other"] and after["theme"] == "dark"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    [backup] = path.parent.glob("mcp.json.*.bak")
    assert read(backup) == before
    assert str(backup) in said


def test_installing_twice_changes_nothing(home: Path) -> None:
    install("cursor", server=SERVER)
    assert "Nothing was changed" in install("cursor", server=SERVER)
    assert not list((home / ".cursor").glob("*.bak"))


def test_another_entry_of_ours_is_replaced_and_that_is_said(home: Path) -> None:
    install("cursor", server=SERVER)
    assert "replaced mlintern" in install("cursor", server={**SERVER, "args": ["serve", "--budget", "20"]})
    assert read(home / ".cursor/mcp.json")["mcpServers"]["mlintern"]["args"] == ["serve", "--budget", "20"]


@pytest.mark.parametrize("content", ['{"servers": {}, // my servers\n}', "[]", '{"servers": []}'])
def test_a_file_that_cannot_be_merged_is_left_alone_and_the_entry_is_shown(home: Path, content: str) -> None:
    path = home / "project" / ".vscode" / "mcp.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(BadInput, match="left as it is") as caught:
        install("vscode", server=SERVER)
    assert SERVER["command"] in caught.value.next_step
    assert path.read_text() == content


def test_an_empty_file_counts_as_none(home: Path) -> None:
    (home / "project" / ".mcp.json").write_text("")
    install("claude-code", server=SERVER)
    assert "mlintern" in read(home / "project/.mcp.json")["mcpServers"]


def test_a_linked_file_stays_a_link(home: Path) -> None:
    real = home / "dotfiles.json"
    real.write_text("{}")
    (home / ".cursor").mkdir()
    (home / ".cursor" / "mcp.json").symlink_to(real)
    install("cursor", server=SERVER)
    assert (home / ".cursor" / "mcp.json").is_symlink()
    assert "mlintern" in read(real)["mcpServers"]


def test_print_writes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["install", "claude-code", "--print", "--budget", "20", "--allow", "local<=30m"]) == 0
    assert not (home / "project" / ".mcp.json").exists()
    shown = capsys.readouterr().out
    entry = json.loads(shown.partition("\n")[2])["mcpServers"]["mlintern"]
    assert entry["args"] == ["serve", "--allow", "local<=30m", "--budget", "20"]


def test_the_entry_starts_this_installation_by_absolute_path() -> None:
    assert Path(this_server(["serve"])["command"]).is_absolute()
