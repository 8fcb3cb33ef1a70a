"""The built wheel, not the source tree: what its files import, its requirements bring."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mcp import Client

from mlintern.server.app import build_server
from mlintern.server.settings import Settings
from release import build, check_wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no build folder is left in the tree."""
    pytest.importorskip("setuptools", minversion="77", reason="the extra dev brings it")
    folder = tmp_path_factory.mktemp("wheel")
    source = build.copied(folder / "source")
    command = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", command, str(folder)], cwd=source, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    [found] = folder.glob("mlintern-*.whl")
    return found


def test_the_wheel_imports_only_what_it_requires(wheel: Path) -> None:
    assert len(check_wheel.imports(wheel)) > 15, "an empty wheel imports nothing either"
    assert check_wheel.undeclared(wheel) == []


def test_a_requirement_that_is_taken_away_is_missed(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = check_wheel.requirements(wheel)
    monkeypatch.setattr(check_wheel, "requirements", lambda wheel: whole - {"anyio", "pyyaml"})
    assert check_wheel.undeclared(wheel) == ["anyio", "yaml"]


@pytest.mark.anyio
async def test_every_tool_has_an_example_for_the_wheel(tmp_path: Path) -> None:
    async with Client(build_server(Settings(workspace=tmp_path))) as client:
        listed = {tool.name for tool in (await client.list_tools()).tools}
    assert listed - {"decide_on_job"} == set(check_wheel.CALLS)
