"""Commands that are printed for people start this installation from a shell that knows nothing of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlintern.common.commands import shown_command, starting


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """An environment with the program in it; returns its interpreter."""
    folder = tmp_path / "project" / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "mlintern-server"):
        (folder / name).touch(mode=0o755)
    return folder / "python"


def test_the_name_alone_where_the_search_path_finds_this_installation(installed: Path) -> None:
    environ = {"PATH": f"/usr/bin:{installed.parent}"}
    assert starting("mlintern-server", environ=environ, python=installed) == ["mlintern-server"]


def test_a_link_to_this_installation_counts(installed: Path, tmp_path: Path) -> None:
    links = tmp_path / "local-bin"
    links.mkdir()
    (links / "mlintern-server").symlink_to(installed.parent / "mlintern-server")
    assert starting("mlintern-server", environ={"PATH": str(links)}, python=installed) == ["mlintern-server"]


def test_the_absolute_path_where_the_search_path_finds_none_or_another(installed: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "mlintern-server").touch(mode=0o755)
    script = str(installed.parent / "mlintern-server")
    for path in ("", "/usr/bin", str(other)):
        assert starting("mlintern-server", environ={"PATH": path}, python=installed) == [script]


def test_through_uv_run_where_uv_runs_a_project(installed: Path) -> None:
    environ = {"PATH": str(installed.parent), "UV_RUN_RECURSION_DEPTH": "1"}
    project = installed.parents[2]
    (project / "pyproject.toml").touch()
    words = starting("mlintern-server", environ=environ, python=installed)
    assert words == ["uv", "run", "--project", str(project), "mlintern-server"]


def test_through_uvx_where_uv_made_the_environment_in_its_cache(tmp_path: Path) -> None:
    folder = tmp_path / "uv" / "archive-v0" / "AbC" / "bin"
    folder.mkdir(parents=True)
    (folder / "mlintern-server").touch(mode=0o755)
    words = starting("mlintern-server", environ={"PATH": str(folder)}, python=folder / "python")
    assert words[:2] == ["uvx", "--from"] and words[-1] == "mlintern-server"


def test_the_module_where_no_program_was_installed(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    words = starting("mlintern-orchestrate", environ={}, python=python)
    assert words == [str(python), "-m", "mlintern.orchestrator"]


def test_what_a_shell_would_split_is_quoted() -> None:
    assert shown_command("mlintern-server", "show", "my run", environ={}).endswith(" show 'my run'")
