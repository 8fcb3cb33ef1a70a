from __future__ import annotations

import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.server import jsonc
from mlintern.server.cli import main
from mlintern.server.install import HOSTS, install, this_server, uninstall
from mlintern.tools.errors import BadInput

SERVER = {"command": "/opt/mlintern/bin/mlintern-server", "args": ["serve"]}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing here may touch the real configuration of whoever runs the tests."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("MLINTERN_HOME", "CODEX_HOME"):
        monkeypatch.delenv(name, raising=False)
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


@pytest.mark.parametrize("content", ['{"servers": {}', "[]", '{"servers": []}', '{"servers": {"mlintern": 1 2}}'])
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


COMMENTED = """// my servers
{
  "servers": {
    // the other
    "other": {"command": "x", "env": {"URL": "http://a//b"}}, // keep
  },
  "theme": "dark", /* mine */
}
"""


def test_comments_and_everything_else_stay_and_uninstall_leaves_the_file_as_it_was(home: Path) -> None:
    path = home / "project" / ".vscode" / "mcp.json"
    path.parent.mkdir()
    path.write_text(COMMENTED)
    said = install("vscode", server=SERVER)
    text = path.read_text()
    for line in ("// my servers", "// the other", "// keep", "/* mine */", '"URL": "http://a//b"'):
        assert line in text
    assert jsonc.read(text)["servers"]["mlintern"]["command"] == SERVER["command"]
    assert f'+      "command": "{SERVER["command"]}"' in said, "what changed is shown"
    uninstall("vscode")
    assert jsonc.read(path.read_text()) == jsonc.read(COMMENTED)
    assert "// the other" in path.read_text() and "mlintern" not in path.read_text()


@pytest.mark.parametrize("host", sorted(HOSTS))
def test_what_a_person_added_to_our_entry_stays_when_it_is_replaced(home: Path, host: str) -> None:
    install(host, server=SERVER)
    path = HOSTS[host].path()
    if HOSTS[host].toml:
        path.write_text(
            path.read_text() + '\n[mcp_servers.mlintern.env]\nHF_TOKEN = "secret"\n\n# mine\n[other]\nx = 1\n'
        )
    else:
        path.write_text(
            jsonc.put(path.read_text(), (HOSTS[host].key, "mlintern", "env"), value={"HF_TOKEN": "secret"})
        )
    install(host, server={**SERVER, "args": ["serve", "--budget", "20"]})
    text = path.read_text()
    assert '"HF_TOKEN"' in text and "secret" in text and "--budget" in text
    assert "Nothing was changed" in install(host, server={**SERVER, "args": ["serve", "--budget", "20"]})
    uninstall(host)
    assert "mlintern" not in path.read_text()
    assert not HOSTS[host].toml or "# mine\n[other]\nx = 1" in path.read_text()
    assert "does not start this server" in uninstall(host)


def test_codex_reads_what_was_written(home: Path) -> None:
    (home / ".codex").mkdir()
    (home / ".codex" / "config.toml").write_text('# mine\nmodel = "x"\n\n[mcp_servers.other]\ncommand = "y"\n')
    install("codex", server=SERVER)
    text = (home / ".codex" / "config.toml").read_text()
    assert tomllib.loads(text)["mcp_servers"] == {"other": {"command": "y"}, "mlintern": SERVER}
    assert text.startswith("# mine\n")


def test_a_place_that_cannot_be_written_is_named(home: Path) -> None:
    (home / ".cursor").write_text("a file where a folder should be")
    with pytest.raises(BadInput, match=r"cannot be (written|read)"):
        install("cursor", server=SERVER)


def test_the_workspace_of_this_shell_is_the_hosts_too(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLINTERN_HOME", str(home / "lab"))
    assert main(["install", "cursor", "--print"]) == 0
    entry = json.loads(capsys.readouterr().out.partition("\n")[2])["mcpServers"]["mlintern"]
    assert entry["args"] == ["serve", "--workspace", str(home / "lab")]


@given(
    keys=st.lists(st.text(max_size=5), min_size=1, max_size=3),
    value=st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner), max_leaves=6
    ),
    before=st.recursive(
        st.dictionaries(st.text(max_size=5), st.none() | st.text()),
        lambda inner: st.dictionaries(st.text(max_size=5), inner),
        max_leaves=8,
    ),
    indent=st.sampled_from([None, 2, 4]),
)
def test_any_value_put_is_read_back_and_what_was_dropped_is_gone(
    keys: list[str], value: Any, before: dict[str, Any], indent: int | None
) -> None:
    text = json.dumps(before, indent=indent)
    try:
        after = jsonc.put(text, tuple(keys), value=value)
    except ValueError:
        return  # something on the way is no object
    node = jsonc.read(after)
    for key in keys:
        node = node[key]
    assert node == value
    dropped = jsonc.read(jsonc.drop(after, tuple(keys)))
    for key in keys[:-1]:
        dropped = dropped[key]
    assert keys[-1] not in dropped
